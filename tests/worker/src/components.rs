//! Code that the binary and the benches serve.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gantry_proto::ErrorCode;
use gantry_proto::v1::Fault;
use serde::Deserialize;

use crate::context::Policy;
use crate::{Context, Failure, Outcome, Settings};

/// Where `hold` counts and waits.
#[derive(Debug, Deserialize)]
struct Hold {
    /// Every execution of a step appends its name here.
    log: PathBuf,
    /// Steps named here wait until this file exists.
    gate: PathBuf,
    /// Which step waits.
    wait_in: String,
    /// Its policy is that its outcome is unknown after a loss.
    #[serde(default)]
    once: bool,
    /// Sleeps durably after the first step, in milliseconds.
    #[serde(default)]
    sleep_ms: u64,
}

async fn done(log: &Path, name: &str) -> Result<(), Failure> {
    use tokio::io::AsyncWriteExt as _;
    let open = tokio::fs::OpenOptions::new().create(true).append(true).open(log).await;
    let mut file = open.map_err(|error| Failure::of(error.to_string()))?;
    let line = format!("{name}\n");
    file.write_all(line.as_bytes())
        .await
        .map_err(|error| Failure::of(error.to_string()))?;
    file.flush().await.map_err(|error| Failure::of(error.to_string()))
}

/// Three steps that each leave a line in a file; one of them waits for a file.
async fn hold(context: Context, input: Bytes) -> Outcome {
    let hold: Hold = serde_json::from_slice(&input)
        .map_err(|error| Failure::standing(Fault::new(ErrorCode::InvalidParameters, error.to_string())))?;
    for name in ["one", "two", "three"] {
        let policy = if hold.once && hold.wait_in == name {
            Policy::UnknownOutcome
        } else {
            Policy::IdempotentRetry
        };
        let hold = &hold;
        context
            .step_with(name, policy, &(), || async move {
                done(&hold.log, name).await?;
                while hold.wait_in == name && !hold.gate.exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(name.len())
            })
            .await?;
        if name == "one" && hold.sleep_ms > 0 {
            context.sleep("nap", Duration::from_millis(hold.sleep_ms)).await?;
        }
    }
    Ok(Bytes::from_static(br#"{"done":true}"#))
}

/// Three steps of nothing, each durable before the next.
async fn three(context: Context, _: Bytes) -> Outcome {
    let mut sum = 0u32;
    for name in ["a", "b", "c"] {
        sum += context.step(name, || async { Ok(1u32) }).await?;
    }
    Ok(sum.to_string().into())
}

/// Everything that this crate serves.
#[must_use]
pub fn all(settings: Settings) -> Settings {
    settings
        .component("noop", |_, input| async move { Ok(input) })
        .component("three", three)
        .component("hold", hold)
        .component("fail", |_, _| async { Err(Failure::of("this code always fails")) })
        .component("nap", |context: Context, input: Bytes| async move {
            let ms = serde_json::from_slice(&input).unwrap_or(1_000);
            context.sleep("nap", Duration::from_millis(ms)).await?;
            Ok(Bytes::from_static(b"true"))
        })
}
