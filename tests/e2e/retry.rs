//! Retries, timeouts and dependency failures: a failed attempt leaves no trace in the tree.

use anyhow::Result;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_starts_from_the_tree_as_it_was() -> Result<()> {
    Scenario::dev("retry-tree")
        .run(async |world| {
            let definition = r#"
name: retry
tasks:
  work:
    steps:
      - key: prepare
        run: |
          mkdir src && echo original > src/file && echo original > other
          ln -s src/file link
          find . -type f -exec sha256sum {} + | sort > /tmp/sums && mv /tmp/sums MANIFEST
      - key: fragile
        retry: { attempts: 3, backoff: 200ms }
        run: |
          sha256sum --check --quiet MANIFEST
          test ! -e junk && test "$(readlink link)" = src/file
          echo "$GANTRY_IDEMPOTENCY_KEY" > /dev/stderr
          if [ "$GANTRY_ATTEMPT" -lt 3 ]; then
            rm -rf src link && echo corrupted > other && echo junk > junk
            exit 7
          fi
"#;
            let workflow = world.api.complete(definition, json!({}), SOON).await?;
            let fragile = &workflow.tasks[0].steps[1];
            let states: Vec<&str> = fragile.attempts.iter().map(|attempt| attempt.state.as_str()).collect();
            assert_eq!(states, ["failed", "failed", "completed"]);
            assert_eq!(fragile.attempts[0].exit_code, Some(7));
            assert_eq!(
                workflow.tasks[0].steps[0].attempts.len(),
                1,
                "a completed step is not executed again"
            );

            let mut keys = Vec::new();
            for attempt in 1..=3 {
                keys.push(
                    world
                        .api
                        .log(&workflow.id, "work", "fragile", attempt, "stderr")
                        .await?,
                );
            }
            assert!(
                !keys[0].trim().is_empty() && keys.iter().all(|key| *key == keys[0]),
                "the idempotency key is stable: {keys:?}"
            );
            let sandboxes: std::collections::HashSet<_> =
                workflow.attempts().map(|attempt| attempt.sandbox.clone()).collect();
            assert_eq!(sandboxes.len(), 4, "four attempts, four sandboxes");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_stops_what_needs_it_and_always_runs_anyway() -> Result<()> {
    Scenario::dev("retry-failure")
        .run(async |world| {
            let definition = r#"
name: failure
on_task_failure: continue
tasks:
  bad: { run: exit 3 }
  slow: { run: sleep 600, timeout: 1s, grace: 100ms }
  never: { needs: bad, run: echo never }
  independent: { run: echo fine }
  report: { needs: [bad, slow, independent], run_on: always, run: echo report }
"#;
            let id = world.api.submit(definition, json!({})).await?;
            let workflow = world.api.ended(&id, SOON).await?;
            assert_eq!(workflow.state, "failed");
            let state = |name: &str| {
                workflow
                    .tasks
                    .iter()
                    .find(|task| task.name == name)
                    .map(|task| task.state.clone())
                    .unwrap_or_default()
            };
            assert_eq!((state("bad").as_str(), state("slow").as_str()), ("failed", "failed"));
            assert_eq!(
                (state("independent").as_str(), state("report").as_str()),
                ("completed", "completed")
            );
            assert_ne!(state("never"), "completed");
            let codes = workflow.codes();
            for code in ["step-exit", "step-timeout", "dependency-failed", "task-failed"] {
                assert!(codes.contains(&code), "{code} is not among {codes:?}");
            }

            let file = world.file("failure.yaml", definition)?;
            world.cli(&["run", &file]).await?.expect_code(1)?;
            Ok(())
        })
        .await
}
