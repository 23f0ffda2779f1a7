//! Whether a container still lives. Docker's word by inspect is the truth; its wait is only a hint when to ask.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api::Ending;
use crate::docker::{Engine, Owned};

/// A wait is ended and begun again so often: a stream that died without a word is noticed.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Pause before Docker is asked again when it does not answer, doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Runs until the container has ended, and tells how. While Docker is away nothing is known, and nothing is told.
pub(crate) async fn watch(engine: Arc<Engine>, owned: Owned, cancel: CancellationToken, gone: oneshot::Sender<Ending>) {
    let ended = async {
        let mut pause = RETRY_FIRST;
        loop {
            let hint = engine.wait_stopped(&owned, WAIT_LIMIT).await;
            match engine.inspect(owned.sandbox()).await {
                Ok(None) => return vanished(),
                // Another container under the same name is not this one.
                Ok(Some((now, _))) if now.id() != owned.id() => return vanished(),
                Ok(Some((_, seen))) => {
                    if !is_live(&seen) {
                        return ending(&seen);
                    }
                    // Docker said "stopped" and "running" in one breath: ask again, but not at once.
                    if hint.is_ok() {
                        tokio::time::sleep(RETRY_FIRST).await;
                    }
                    pause = RETRY_FIRST;
                }
                Err(trouble) => {
                    tracing::debug!(sandbox = %owned.sandbox(), %trouble, "Docker cannot say whether a container lives");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        ending = ended => {
            // The line may have ended before.
            let _ = gone.send(ending);
        }
    }
}

fn vanished() -> Ending {
    Ending {
        detail: "the container was removed by somebody else".to_owned(),
        ..Ending::default()
    }
}

/// Whether there may be processes in the container.
pub(crate) fn is_live(seen: &ContainerInspectResponse) -> bool {
    use ContainerStateStatusEnum as S;
    let state = seen.state.as_ref();
    let by_flag = state.and_then(|state| state.running).unwrap_or(false);
    let by_name = matches!(
        state.and_then(|state| state.status),
        Some(S::RUNNING | S::PAUSED | S::RESTARTING)
    );
    by_flag || by_name
}

/// How a container that does not live has ended.
pub(crate) fn ending(seen: &ContainerInspectResponse) -> Ending {
    let Some(state) = &seen.state else {
        return Ending {
            detail: "Docker does not show the container's state".to_owned(),
            ..Ending::default()
        };
    };
    let oom_killed = state.oom_killed.unwrap_or(false);
    let words = state.error.clone().filter(|error| !error.is_empty());
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        let why = words.map_or(String::new(), |words| format!(": {words}"));
        return Ending {
            exit_code: None,
            oom_killed,
            detail: format!("the container was never started{why}"),
        };
    }
    let exit_code = state.exit_code;
    let mut detail = match exit_code {
        Some(137) => "the supervisor was killed (SIGKILL)".to_owned(),
        Some(code) if code > 128 => format!("the supervisor was ended by signal {}", code - 128),
        Some(code) => format!("the supervisor exited with {code}"),
        None => "Docker does not know the exit code".to_owned(),
    };
    if oom_killed {
        detail.push_str("; the kernel killed something in it for memory");
    }
    if let Some(words) = words {
        detail.push_str("; ");
        detail.push_str(&words);
    }
    Ending {
        exit_code,
        oom_killed,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerState;

    use super::*;

    fn seen(state: ContainerState) -> ContainerInspectResponse {
        ContainerInspectResponse {
            state: Some(state),
            ..Default::default()
        }
    }

    #[test]
    fn endings_are_told_apart() {
        let state = |status, exit_code| ContainerState {
            status: Some(status),
            exit_code,
            ..Default::default()
        };
        let created = seen(state(ContainerStateStatusEnum::CREATED, Some(0)));
        assert!(!is_live(&created));
        assert_eq!(ending(&created).exit_code, None, "what never ran did not exit with 0");
        let paused = seen(state(ContainerStateStatusEnum::PAUSED, Some(0)));
        assert!(is_live(&paused));
        let killed = seen(ContainerState {
            oom_killed: Some(true),
            ..state(ContainerStateStatusEnum::EXITED, Some(137))
        });
        let ending = ending(&killed);
        assert_eq!((ending.exit_code, ending.oom_killed), (Some(137), true));
        assert!(ending.detail.contains("SIGKILL") && ending.detail.contains("memory"));
    }
}
