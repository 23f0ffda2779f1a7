//! Settings that a step, its task or the workflow may give, the nearest one winning.

use gantry_proto::limits::{
    CANCEL_GRACE_MS_DEFAULT, OUTPUT_LIMIT_BYTES_DEFAULT, OUTPUT_LIMIT_BYTES_MAX, STEP_ENV_BYTES_MAX,
    STEP_TIMEOUT_MS_MAX,
};
use indexmap::IndexMap;

use super::names::Scope;
use super::{Check, ENTRIES_MAX, Path, join};
use crate::spec::definition::{ResourcesDef, RetryDef};
use crate::spec::retry_source::RetrySource;
use crate::spec::scalars;
use crate::spec::source::{
    DefaultsSource, Duration, ResourceClass, ResourceFields, ResourcesSource, Scalar, Size, StepSource, TaskSource,
};
use crate::spec::template::has_markup;

/// Image of steps that name none.
const IMAGE_DEFAULT: &str = "gantry/sandbox";

const MIB: u64 = 1 << 20;
/// Less cannot run the supervisor beside a shell.
const MEMORY_BYTES_MIN: u64 = 16 * MIB;
/// More than any machine of today has; larger is a slip of units.
const MEMORY_BYTES_MAX: u64 = 16 << 40;
/// The least that the kernel's CPU quota takes.
const CPU_MILLIS_MIN: u64 = 10;
const CPU_MILLIS_MAX: u64 = 1_024_000;
/// The supervisor, its helper and a shell with one child.
const PIDS_MIN: u64 = 16;
/// What Linux has by default in all.
const PIDS_MAX: u64 = 32_768;
/// Longest grace: a cancelled workflow should end on the same day.
const GRACE_MS_MAX: u64 = 3_600_000;
const OUTPUT_LIMIT_BYTES_MIN: u64 = 1_024;

/// Settings at one level.
#[derive(Clone)]
pub(super) struct Level<'a> {
    path: Path,
    pub(super) image: Option<&'a String>,
    pub(super) env: &'a IndexMap<String, Scalar>,
    pub(super) workdir: Option<&'a String>,
    timeout: Option<&'a Duration>,
    retry: Option<&'a RetrySource>,
    resources: Option<&'a ResourcesSource>,
    output_limit: Option<&'a Size>,
    grace: Option<&'a Duration>,
}

macro_rules! level {
    ($source:expr, $path:expr) => {
        Level {
            path: $path,
            image: $source.image.as_ref(),
            env: &$source.env,
            workdir: $source.workdir.as_ref(),
            timeout: $source.timeout.as_ref(),
            retry: $source.retry.as_ref(),
            resources: $source.resources.as_ref(),
            output_limit: $source.output_limit.as_ref(),
            grace: $source.grace.as_ref(),
        }
    };
}

impl<'a> Level<'a> {
    pub(super) fn defaults(source: &'a DefaultsSource) -> Self {
        level!(source, vec!["defaults".to_owned()])
    }

    pub(super) fn task(source: &'a TaskSource, path: Path) -> Self {
        level!(source, path)
    }

    pub(super) fn step(source: &'a StepSource, path: Path) -> Self {
        level!(source, path)
    }
}

/// What a step gets of all levels.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) image: String,
    pub(super) env: IndexMap<String, String>,
    pub(super) workdir: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) retry: RetryDef,
    pub(super) resources: ResourcesDef,
    pub(super) output_limit_bytes: u64,
    pub(super) grace_ms: u64,
}

impl Check<'_> {
    /// Checks the templates of `defaults`.
    pub(super) fn settings_templates(&mut self, defaults: &DefaultsSource, scope: &Scope<'_>) {
        let level = Level::defaults(defaults);
        self.level_templates(&level, scope);
        // Also when no step uses them: a mistake should not wait for its first use.
        self.settings(&[level]);
    }

    /// Checks the templates and texts of one level.
    pub(super) fn level_templates(&mut self, level: &Level<'_>, scope: &Scope<'_>) {
        if let Some(image) = level.image {
            let path = join(&level.path, "image");
            if has_markup(image) {
                self.template(&path, image, scope);
            } else {
                self.checked(&path, scalars::image(image));
            }
        }
        if let Some(workdir) = level.workdir {
            let path = join(&level.path, "workdir");
            if has_markup(workdir) {
                self.template(&path, workdir, scope);
            } else {
                self.checked(&path, scalars::workdir(workdir));
            }
        }
        let path = join(&level.path, "env");
        if level.env.len() > ENTRIES_MAX {
            self.complain(
                &path,
                format!(
                    "{} variables are too many; at most {ENTRIES_MAX} are allowed",
                    level.env.len()
                ),
            );
        }
        for (name, value) in level.env {
            let place = join(&path, name);
            if let Err(message) = scalars::env_name(name) {
                self.complain_key(&place, message);
            }
            let text = value.text();
            if text.contains('\0') {
                self.complain(&place, format!("the value of `{name}` holds a NUL character"));
            }
            self.template(&place, &text, scope);
        }
    }

    /// Puts levels together, the last one winning. Repeats no issue: `tidy` drops equal ones.
    pub(super) fn settings(&mut self, levels: &[Level<'_>]) -> Settings {
        let image = levels
            .iter()
            .rev()
            .find_map(|level| level.image)
            .cloned()
            .unwrap_or_else(|| IMAGE_DEFAULT.to_owned());
        let workdir = levels.iter().rev().find_map(|level| level.workdir).cloned();
        let mut env = IndexMap::new();
        for level in levels {
            for (name, value) in level.env {
                env.insert(name.clone(), value.text());
            }
        }
        let env_bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if env_bytes > STEP_ENV_BYTES_MAX {
            let path = levels.last().map(|level| join(&level.path, "env")).unwrap_or_default();
            self.complain(
                &path,
                format!("the environment has {env_bytes} bytes; at most {STEP_ENV_BYTES_MAX} are allowed"),
            );
        }
        let timeout_ms = levels
            .iter()
            .rev()
            .find_map(|level| level.timeout.map(|timeout| (join(&level.path, "timeout"), timeout)))
            .and_then(|(path, timeout)| self.duration(&path, timeout, 1, STEP_TIMEOUT_MS_MAX));
        let grace_ms = levels
            .iter()
            .rev()
            .find_map(|level| level.grace.map(|grace| (join(&level.path, "grace"), grace)))
            .and_then(|(path, grace)| self.duration(&path, grace, 0, GRACE_MS_MAX))
            .unwrap_or(CANCEL_GRACE_MS_DEFAULT);
        let output_limit_bytes = levels
            .iter()
            .rev()
            .find_map(|level| {
                level
                    .output_limit
                    .map(|limit| (join(&level.path, "output_limit"), limit))
            })
            .and_then(|(path, limit)| self.size(&path, limit, OUTPUT_LIMIT_BYTES_MIN, OUTPUT_LIMIT_BYTES_MAX))
            .unwrap_or(OUTPUT_LIMIT_BYTES_DEFAULT);
        let retry = levels
            .iter()
            .rev()
            .find_map(|level| level.retry.map(|retry| (join(&level.path, "retry"), retry)))
            .map_or_else(RetryDef::default, |(path, retry)| self.retry(&path, retry));
        let resources = levels
            .iter()
            .rev()
            .find_map(|level| {
                level
                    .resources
                    .map(|resources| (join(&level.path, "resources"), resources))
            })
            .map_or_else(
                || class(ResourceClass::Medium),
                |(path, resources)| self.resources(&path, resources),
            );
        Settings {
            image,
            env,
            workdir,
            timeout_ms,
            retry,
            resources,
            output_limit_bytes,
            grace_ms,
        }
    }

    pub(super) fn duration(&mut self, path: &[String], value: &Duration, least: u64, most: u64) -> Option<u64> {
        let millis = self.checked(path, scalars::duration_ms(value))?;
        if (least..=most).contains(&millis) {
            return Some(millis);
        }
        self.complain(
            path,
            format!("{millis} ms is out of range; it lies between {least} ms and {most} ms"),
        );
        None
    }

    fn size(&mut self, path: &[String], value: &Size, least: u64, most: u64) -> Option<u64> {
        let bytes = self.checked(path, scalars::size_bytes(value))?;
        if (least..=most).contains(&bytes) {
            return Some(bytes);
        }
        self.complain(
            path,
            format!("{bytes} bytes is out of range; it lies between {least} and {most} bytes"),
        );
        None
    }

    fn resources(&mut self, path: &[String], source: &ResourcesSource) -> ResourcesDef {
        let fields = match source {
            ResourcesSource::Class(name) => return class(*name),
            ResourcesSource::Exact(fields) => fields,
        };
        let medium = class(ResourceClass::Medium);
        let ResourceFields { cpu, memory, pids, tmp } = fields;
        let cpu_millis = cpu
            .as_ref()
            .and_then(|value| self.checked(&join(path, "cpu"), scalars::cpu_millis(value)))
            .unwrap_or(medium.cpu_millis);
        if !(CPU_MILLIS_MIN..=CPU_MILLIS_MAX).contains(&cpu_millis) {
            self.complain(&join(path, "cpu"), format!("{cpu_millis} thousandths of a core is out of range; it lies between {CPU_MILLIS_MIN}m and {CPU_MILLIS_MAX}m"));
        }
        let memory_bytes = memory
            .as_ref()
            .and_then(|value| self.size(&join(path, "memory"), value, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX))
            .unwrap_or(medium.memory_bytes);
        let pids_value = pids.unwrap_or(u64::from(medium.pids));
        if !(PIDS_MIN..=PIDS_MAX).contains(&pids_value) {
            self.complain(
                &join(path, "pids"),
                format!("{pids_value} processes is out of range; it lies between {PIDS_MIN} and {PIDS_MAX}"),
            );
        }
        // /tmp is memory: the default takes no more than an eighth of a small sandbox.
        let tmp_default = medium.tmp_bytes.min(memory_bytes / 8);
        let tmp_bytes = tmp
            .as_ref()
            .and_then(|value| self.size(&join(path, "tmp"), value, 0, MEMORY_BYTES_MAX))
            .unwrap_or(tmp_default);
        if tmp_bytes > memory_bytes {
            self.complain(
                &join(path, "tmp"),
                format!(
                    "/tmp ({tmp_bytes} bytes) counts against memory and cannot be larger than it ({memory_bytes} bytes)"
                ),
            );
        }
        ResourcesDef {
            cpu_millis,
            memory_bytes,
            pids: u32::try_from(pids_value).unwrap_or(medium.pids),
            tmp_bytes,
        }
    }
}

fn class(name: ResourceClass) -> ResourcesDef {
    match name {
        ResourceClass::Small => ResourcesDef {
            cpu_millis: 500,
            memory_bytes: 256 * MIB,
            pids: 128,
            tmp_bytes: 32 * MIB,
        },
        ResourceClass::Medium => ResourcesDef {
            cpu_millis: 1_000,
            memory_bytes: 512 * MIB,
            pids: 256,
            tmp_bytes: 64 * MIB,
        },
        ResourceClass::Large => ResourcesDef {
            cpu_millis: 2_000,
            memory_bytes: 2_048 * MIB,
            pids: 1_024,
            tmp_bytes: 256 * MIB,
        },
    }
}
