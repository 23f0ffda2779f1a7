//! Images: found by name, pinned by id, refused when they cannot run hardened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bollard::models::ImageInspect;
use gantry_proto::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::api::{FleetError, Image, ImageId};
use crate::config::PullPolicy;
use crate::docker::{Engine, LABEL_PREFIX, Trouble};

/// Checked images that are remembered; a node sees a few dozen. Past it the memory is emptied, which costs one inspect each.
const REMEMBERED_IMAGES_MAX: usize = 1_024;
/// Docker's own limit is 255 for a name; an id or digest adds less than 100.
const NAME_BYTES_MAX: usize = 384;
/// Pulls at once: each saturates the network and the disk by itself.
const PULLS_AT_ONCE: usize = 2;

/// A name or id of an image that can stand in the path of a request: `[host[:port]/]path[:tag][@sha256:...]` or `sha256:...`.
/// Anything else, `..` above all, could lead to another endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName(String);

impl ImageName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `:latest` where neither tag nor digest stands: a pull without one fetches every tag.
    pub(crate) fn with_tag(&self) -> String {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        if last.contains([':', '@']) {
            self.0.clone()
        } else {
            format!("{}:latest", self.0)
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = FleetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@/".contains(&byte);
        let segments_ok = text.split('/').all(|segment| {
            segment
                .bytes()
                .next()
                .is_some_and(|first| first.is_ascii_alphanumeric())
                && !segment.contains("..")
        });
        if !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed) && segments_ok {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(FleetError {
            code: ErrorCode::ImageNotFound,
            message: format!("`{shown}` is not the name of an image"),
            hint: Some("write it as `name`, `name:tag`, `registry/name:tag` or `sha256:...`".to_owned()),
        })
    }
}

/// What is known of images.
#[derive(Debug)]
pub(crate) struct Catalog {
    checked: Mutex<BTreeMap<ImageId, Image>>,
    /// Images whose root was seen to have real `/dev`, `/proc`, `/sys`.
    roots_seen: Mutex<BTreeSet<ImageId>>,
    pulls: Semaphore,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            checked: Mutex::new(BTreeMap::new()),
            roots_seen: Mutex::new(BTreeSet::new()),
            pulls: Semaphore::new(PULLS_AT_ONCE),
        }
    }

    /// Finds an image by name; asks Docker each time, since a tag moves.
    pub(crate) async fn find(&self, engine: &Engine, name: &str, pull: PullPolicy) -> Result<Image, FleetError> {
        let name: ImageName = name.parse()?;
        let seen = match engine.image(&name).await {
            Ok(seen) => seen,
            Err(Trouble::NotFound(_)) => self.fetch(engine, &name, pull).await?,
            Err(trouble) => return Err(trouble.while_doing(&format!("looking for image `{name}`"), engine.socket())),
        };
        self.admit(name.as_str(), &seen)
    }

    /// An image by id, from memory when it was checked before: an id never changes its meaning.
    pub(crate) async fn by_id(&self, engine: &Engine, id: &ImageId) -> Result<Image, FleetError> {
        if let Some(image) = self.checked.lock().get(id) {
            return Ok(image.clone());
        }
        self.find(engine, &id.0, PullPolicy::Never).await
    }

    async fn fetch(&self, engine: &Engine, name: &ImageName, pull: PullPolicy) -> Result<ImageInspect, FleetError> {
        let PullPolicy::IfMissing { timeout } = pull else {
            return Err(missing(name, "the node's pull policy is `never`"));
        };
        // The semaphore is never closed.
        let _turn = self.pulls.acquire().await;
        // Somebody may have fetched it while we waited.
        if let Ok(seen) = engine.image(name).await {
            return Ok(seen);
        }
        match engine.pull(name, timeout).await {
            Ok(()) => {}
            Err(trouble @ Trouble::TimedOut(_)) => return Err(missing(name, &format!("pulling it: {trouble}"))),
            Err(trouble) if trouble.is_absence() => {
                return Err(trouble.while_doing(&format!("pulling image `{name}`"), engine.socket()));
            }
            Err(trouble) => return Err(missing(name, &format!("pulling it failed: {trouble}"))),
        }
        engine
            .image(name)
            .await
            .map_err(|trouble| trouble.while_doing(&format!("looking for pulled image `{name}`"), engine.socket()))
    }

    fn admit(&self, name: &str, seen: &ImageInspect) -> Result<Image, FleetError> {
        let image = check(name, seen)?;
        let mut checked = self.checked.lock();
        if checked.len() >= REMEMBERED_IMAGES_MAX {
            checked.clear();
        }
        checked.insert(image.id.clone(), image.clone());
        Ok(image)
    }

    pub(crate) fn root_seen(&self, id: &ImageId) -> bool {
        self.roots_seen.lock().contains(id)
    }

    pub(crate) fn remember_root(&self, id: &ImageId) {
        let mut seen = self.roots_seen.lock();
        if seen.len() >= REMEMBERED_IMAGES_MAX {
            seen.clear();
        }
        seen.insert(id.clone());
    }
}

fn missing(name: &ImageName, why: &str) -> FleetError {
    FleetError {
        code: ErrorCode::ImageNotFound,
        message: format!("image `{name}` is not on this node; {why}"),
        hint: Some(format!(
            "run `docker pull {name}` on the node, or build or load it there"
        )),
    }
}

pub(crate) fn refused(name: &str, why: &str, hint: &str) -> FleetError {
    FleetError {
        code: ErrorCode::ImageRefused,
        message: format!("image `{name}` cannot run in a sandbox: {why}"),
        hint: Some(hint.to_owned()),
    }
}

/// The node's architecture as Docker spells it.
fn native_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Judges an image by what it declares; its root is judged when the first container of it exists.
fn check(name: &str, seen: &ImageInspect) -> Result<Image, FleetError> {
    let Some(id) = seen.id.clone().filter(|id| id.starts_with("sha256:")) else {
        return Err(refused(
            name,
            "Docker shows no immutable id of it",
            "rebuild or pull the image",
        ));
    };
    let os = seen.os.as_deref().unwrap_or_default();
    if !os.is_empty() && os != "linux" {
        return Err(refused(name, &format!("it is built for {os}"), "use a Linux image"));
    }
    let arch = seen.architecture.clone().unwrap_or_default();
    if !arch.is_empty() && arch != native_arch() {
        let why = format!("it is built for {arch}, and the node is {}", native_arch());
        return Err(refused(name, &why, "use an image of the node's architecture"));
    }
    let config = seen.config.clone().unwrap_or_default();
    if let Some(volume) = config.volumes.iter().flatten().next() {
        let why = format!("it declares a volume ({volume}), which would be writable and outlive the sandbox");
        return Err(refused(name, &why, "build the image without VOLUME"));
    }
    if let Some(label) = config
        .labels
        .iter()
        .flatten()
        .map(|(key, _)| key)
        .find(|key| key.starts_with(LABEL_PREFIX))
    {
        let why = format!("it carries the label {label}, by which the fleet knows its own containers");
        return Err(refused(
            name,
            &why,
            "build the image without labels that begin with `io.gantry.`",
        ));
    }
    let workdir = config.working_dir.clone().unwrap_or_default();
    if !workdir_is_safe(&workdir) {
        let why = format!("its working directory is {workdir:?}");
        return Err(refused(
            name,
            &why,
            "use an absolute WORKDIR outside /proc, /sys and /dev, without `..`",
        ));
    }
    let env = config.env.iter().flatten();
    let env = env
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Image {
        id: ImageId(id),
        env: env.collect(),
        workdir,
        arch,
    })
}

/// A working directory under a kernel file system can reach descriptors that the runtime leaked.
fn workdir_is_safe(workdir: &str) -> bool {
    if workdir.is_empty() {
        return true;
    }
    let mut parts = workdir.split('/').filter(|part| !part.is_empty() && *part != ".");
    let all_plain = workdir.starts_with('/') && !workdir.contains('\0') && !workdir.split('/').any(|part| part == "..");
    all_plain && !matches!(parts.next(), Some("proc" | "sys" | "dev"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::ImageConfig;

    use super::*;

    #[test]
    fn names_cannot_lead_to_another_endpoint() {
        for good in [
            "alpine",
            "gantry/sandbox:latest",
            "localhost:5000/a/b:1.2",
            "sha256:abc",
            "a@sha256:00",
        ] {
            assert_eq!(good.parse::<ImageName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "../containers/json",
            "a/../../info",
            "a b",
            "a?x=1",
            "a#b",
            "/a",
            "a//b",
            "-a",
            "a%2e",
            "é",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_pull_names_one_tag() {
        let tagged = |text: &str| text.parse::<ImageName>().unwrap().with_tag();
        assert_eq!(tagged("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(tagged("a:1"), "a:1");
        assert_eq!(tagged("a@sha256:00"), "a@sha256:00");
    }

    fn image(config: ImageConfig) -> ImageInspect {
        ImageInspect {
            id: Some("sha256:1".to_owned()),
            os: Some("linux".to_owned()),
            architecture: Some(native_arch().to_owned()),
            config: Some(config),
            ..Default::default()
        }
    }

    #[test]
    fn images_that_would_weaken_a_sandbox_are_refused() {
        assert!(
            check("a", &image(ImageConfig::default())).is_ok(),
            "FROM scratch declares nothing"
        );
        let with_workdir = |dir: &str| {
            image(ImageConfig {
                working_dir: Some(dir.to_owned()),
                ..Default::default()
            })
        };
        for dir in ["/proc/self/fd/8", "/sys", "//dev", "/./proc", "/a/../proc", "relative"] {
            assert_eq!(
                check("a", &with_workdir(dir)).unwrap_err().code,
                ErrorCode::ImageRefused,
                "{dir}"
            );
        }
        assert!(check("a", &with_workdir("/process")).is_ok());
        let volumes = ImageConfig {
            volumes: Some(vec!["/data".to_owned()]),
            ..Default::default()
        };
        assert!(check("a", &image(volumes)).unwrap_err().message.contains("/data"));
        let labels = HashMap::from([("io.gantry.node".to_owned(), String::new())]);
        assert!(
            check(
                "a",
                &image(ImageConfig {
                    labels: Some(labels),
                    ..Default::default()
                })
            )
            .is_err()
        );
        let mut foreign = image(ImageConfig::default());
        foreign.architecture = Some("s390x".to_owned());
        assert!(check("a", &foreign).is_err());
    }
}
