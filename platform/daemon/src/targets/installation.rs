//! Which installation a node belongs to. Its containers carry the id as their label, so that two installations share one Docker without seeing each other,
//! and it has to be known before the first one is made. The server says it; the state directory remembers it for starts while the server is away.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gantry_proto::ErrorCode;
use gantry_runtime_node::{GrpcUplink, UplinkError};

const FILE: &str = "installation";
/// First and longest pause before the server is asked again.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Finds the id: from the server, else from the argument or the last time. Waits for the server when nothing is known. Cancel safe.
pub(super) async fn find(state_dir: &Path, given: Option<&str>, uplink: &GrpcUplink) -> Result<String> {
    settle(state_dir, given, || uplink.identify()).await
}

async fn settle<F>(state_dir: &Path, given: Option<&str>, ask: impl Fn() -> F) -> Result<String>
where
    F: Future<Output = Result<String, UplinkError>>,
{
    let kept = read(state_dir)?;
    if let (Some(kept), Some(given)) = (&kept, given)
        && kept != given
    {
        bail!(
            "{} belongs to installation {kept}, and --installation says {given}: use another state directory",
            state_dir.display()
        );
    }
    let known = kept.as_deref().or(given);
    let mut pause = PAUSE;
    loop {
        match (ask().await, known) {
            (Ok(theirs), Some(known)) if theirs != known => bail!(
                "the server is of installation {theirs}, and this node belongs to {known}: check the address, --installation and --state-dir"
            ),
            (Ok(theirs), _) => {
                if kept.is_none() {
                    write(state_dir, &theirs)?;
                }
                return Ok(theirs);
            }
            // Whoever answers later is checked when the node registers.
            (Err(error), Some(known)) => {
                tracing::info!(%error, installation = known, "the server did not say which installation it is; going on with the known one");
                return Ok(known.to_owned());
            }
            (Err(error), None) if error.code() == Some(ErrorCode::ProtocolMismatch) => {
                return Err(
                    anyhow::Error::new(error).context("learn the installation's id; give it with --installation")
                );
            }
            // A token may be mended on the server, and a server may come up later than its nodes.
            (Err(error), None) => {
                tracing::warn!(%error, "the server does not say yet which installation it is; asking again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn read(state_dir: &Path) -> Result<Option<String>> {
    let path = state_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Written beside and renamed: half an id would be another one.
fn write(state_dir: &Path, id: &str) -> Result<()> {
    let path = state_dir.join(FILE);
    let fresh = state_dir.join("installation.new");
    let written = || {
        std::fs::create_dir_all(state_dir)?;
        std::fs::write(&fresh, format!("{id}\n"))?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(state_dir)?.sync_all()
    };
    written().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use gantry_proto::v1::Fault;

    use super::*;

    async fn settled(dir: &Path, given: Option<&str>, answers: &[Result<&str, ErrorCode>]) -> Result<String> {
        let asked = AtomicU32::new(0);
        settle(dir, given, || {
            let turn = asked.fetch_add(1, Ordering::Relaxed) as usize;
            let answer = match answers[turn.min(answers.len() - 1)] {
                Ok(id) => Ok(id.to_owned()),
                Err(ErrorCode::StorageUnavailable) => Err(UplinkError::Unreachable("nobody there".to_owned())),
                Err(code) => Err(UplinkError::Refused(Fault::new(code, "no"))),
            };
            std::future::ready(answer)
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_learned_once_and_known_while_the_server_is_away() {
        const AWAY: Result<&str, ErrorCode> = Err(ErrorCode::StorageUnavailable);
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("node");
        let waits = [AWAY, Err(ErrorCode::Unauthenticated), AWAY, Ok("inst-a")];
        assert_eq!(settled(&state, None, &waits).await.unwrap(), "inst-a");
        assert_eq!(settled(&state, None, &[AWAY]).await.unwrap(), "inst-a");
        assert_eq!(
            settled(&state, Some("inst-a"), &[Ok("inst-a")]).await.unwrap(),
            "inst-a"
        );
        let other = settled(&state, None, &[Ok("inst-b")]).await.unwrap_err().to_string();
        assert!(other.contains("inst-a") && other.contains("inst-b"), "{other}");
        let other = settled(&state, Some("inst-b"), &[Ok("inst-b")])
            .await
            .unwrap_err()
            .to_string();
        assert!(other.contains("another state directory"), "{other}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_stands_in_for_a_server_that_cannot_say_and_must_be_right() {
        const OLD: Result<&str, ErrorCode> = Err(ErrorCode::ProtocolMismatch);
        let dir = tempfile::tempdir().unwrap();
        assert!(settled(dir.path(), None, &[OLD]).await.is_err());
        assert_eq!(settled(dir.path(), Some("inst-a"), &[OLD]).await.unwrap(), "inst-a");
        assert!(settled(dir.path(), Some("inst-a"), &[Ok("inst-b")]).await.is_err());
    }
}
