//! Events and output as a stream that can be taken up again anywhere.

use std::time::Duration;

use anyhow::{Context, Result};
use gantry_tests::sse::SseEvent;
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::{SOON, steps};

/// Data of an output event.
fn text(event: &SseEvent) -> Result<String> {
    let data: Value = serde_json::from_str(&event.data)?;
    Ok(data["text"]
        .as_str()
        .with_context(|| format!("no text in {data}"))?
        .to_owned())
}

fn printed(events: &[SseEvent]) -> Result<String> {
    events.iter().filter(|event| event.name == "output").map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_after_the_last_event_it_saw_even_over_a_crash() -> Result<()> {
    Scenario::dev("sse")
        .run(async |world| {
            let script = "for i in $(seq 1 40); do echo line $i; sleep 0.1; done";
            let id = world.api.submit(&steps(&[script, "echo the end"]), json!({})).await?;
            let expected: String = (1..=40)
                .map(|i| format!("line {i}\n"))
                .chain(["the end\n".to_owned()])
                .collect();

            // A live reader that loses its daemon in the middle of the step.
            let mut reader = world.api.follow(&id, None).await?;
            let mut live = Vec::new();
            while !printed(&live)?.contains("line 5\n") {
                live.push(reader.next(SOON).await?.context("the stream ended early")?);
            }
            world.kill_server().await?;
            world.restart_server().await?;
            let last = live
                .iter()
                .rev()
                .find_map(|event| event.id.clone())
                .context("events have ids")?;
            let mut reader = world.api.follow(&id, Some(&last)).await?;
            live.extend(reader.until("end", SOON).await?);
            assert_eq!(printed(&live)?, expected, "nothing twice, nothing missing");
            assert_eq!(live.last().map(|event| event.name.as_str()), Some("end"));
            assert_eq!(world.api.ended(&id, SOON).await?.state, "completed");

            // A replay of the stored workflow has the same records in the same order, from the start and from anywhere.
            let replay = world
                .api
                .follow(&id, None)
                .await?
                .until("end", Duration::from_secs(30))
                .await?;
            assert_eq!(printed(&replay)?, expected);
            let records = |events: &[SseEvent]| -> Vec<String> {
                events
                    .iter()
                    .filter(|event| !matches!(event.name.as_str(), "output" | "end"))
                    .map(|event| event.data.clone())
                    .collect()
            };
            assert_eq!(records(&live), records(&replay));
            assert_eq!(
                records(&replay).len(),
                world.api.events(&id).await?.len(),
                "the list has the same records"
            );
            for cut in [0, replay.len() / 3, replay.len() / 2, replay.len() - 2] {
                let resumed = world
                    .api
                    .follow(&id, replay[cut].id.as_deref())
                    .await?
                    .until("end", Duration::from_secs(30))
                    .await?;
                assert_eq!(
                    records(&resumed),
                    records(&replay[cut + 1..]),
                    "records after event {cut}"
                );
                assert_eq!(
                    printed(&resumed)?,
                    printed(&replay[cut + 1..])?,
                    "output after event {cut}"
                );
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_running_step_can_be_followed() -> Result<()> {
    Scenario::dev("sse-logs")
        .run(async |world| {
            let id = world
                .api
                .submit(&steps(&["for i in 1 2 3; do echo $i; sleep 1; done"]), json!({}))
                .await?;
            world
                .api
                .workflow_when(&id, "a running step", SOON, |workflow| {
                    workflow.attempts().any(|attempt| attempt.state == "running")
                })
                .await?;
            let followed = world.cli(&["logs", &id, "work/step-1", "-f"]).await?.expect_code(0)?;
            assert_eq!(followed.stdout, "1\n2\n3\n");
            world.api.ended(&id, SOON).await?;
            Ok(())
        })
        .await
}
