//! Submitting: repeated, refused, and what steps are given.

use anyhow::Result;
use gantry_tests::api::accepted;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::{SOON, steps};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submission_with_the_same_key_starts_nothing_new() -> Result<()> {
    Scenario::dev("submit-idempotent")
        .run(async |world| {
            let definition = steps(&["echo once"]);
            let first = world.api.try_submit(&definition, json!({}), Some("order-17")).await?;
            assert_eq!(first.status, 201);
            assert_eq!(first.json()?["replayed"], false);

            let again = world.api.try_submit(&definition, json!({}), Some("order-17")).await?;
            assert_eq!(again.status, 200);
            assert_eq!(again.json()?["replayed"], true);
            assert_eq!(accepted(&first)?, accepted(&again)?);

            let other = world
                .api
                .try_submit(&steps(&["echo other"]), json!({}), Some("order-17"))
                .await?;
            assert_eq!(other.problem_code()?, "idempotency-mismatch");

            // Still the same after a crash: the key is journaled in the batch that started the workflow.
            world.kill_server().await?;
            world.restart_server().await?;
            let after_crash = world.api.try_submit(&definition, json!({}), Some("order-17")).await?;
            assert_eq!(accepted(&first)?, accepted(&after_crash)?);

            let file = world.file("order.yaml", &definition)?;
            let run = world
                .cli(&["run", &file, "--detach", "--idempotency-key", "order-17", "-o", "json"])
                .await?
                .expect_code(0)?;
            assert!(
                run.stdout.contains(&accepted(&first)?),
                "the command line sends the key too: {run:?}"
            );
            world.api.ended(&accepted(&first)?, SOON).await?;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_says_its_place_and_keeps_its_priority_over_a_kill() -> Result<()> {
    Scenario::dev("submit-priority")
        .slots(1)
        .run(async |world| {
            let holding = world.api.submit(&steps(&["sleep 600"]), json!({})).await?;
            let runs =
                |workflow: &gantry_tests::views::Workflow| workflow.attempts().any(|each| each.state == "running");
            world.api.workflow_when(&holding, "its step to run", SOON, runs).await?;
            let file = world.file("waiting.yaml", &steps(&["echo waiting"]))?;
            let run = world
                .cli(&["run", &file, "--detach", "--priority", "8", "-o", "json"])
                .await?
                .expect_code(0)?;
            let id = run.json()?["id"].as_str().unwrap_or_default().to_owned();
            world.kill_server().await?;
            world.restart_server().await?;
            let waits =
                |workflow: &gantry_tests::views::Workflow| workflow.tasks[0].waiting_reason() == Some("capacity");
            let waiting = world.api.workflow_when(&id, "its wait for a slot", SOON, waits).await?;
            let place = waiting.tasks[0]
                .waiting
                .as_ref()
                .and_then(|waiting| waiting.get("queue_position"));
            assert_eq!(place, Some(&json!(0)));
            let view: serde_json::Value = world.api.read(&format!("/api/v1/workflows/{id}")).await?;
            assert_eq!(view["priority"], 8);
            let wrong = world.cli(&["run", &file, "--priority", "12"]).await?;
            assert_ne!(wrong.code, 0);
            world.api.cancel(&holding, 100).await?;
            assert_eq!(world.api.ended(&id, SOON).await?.state, "completed");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_outputs_files_and_identity_reach_the_steps() -> Result<()> {
    Scenario::dev("submit-contract")
        .run(async |world| {
            let definition = r#"
name: contract
parameters:
  greeting: { type: string }
  times: { type: integer, default: 2 }
tasks:
  first:
    steps:
      - key: speak
        env: { GREETING: "{{ params.greeting }}" }
        run: |
          echo "$GREETING x {{ params.times }}"
          echo "to stderr" >&2
          echo "answer=42" >> "$GANTRY_OUTPUT"
          echo kept > kept.txt
          printf 'attempt=%s key=%s trace=%s uid=%s\n' "$GANTRY_ATTEMPT" "$GANTRY_IDEMPOTENCY_KEY" "${TRACEPARENT:-}" "$(id -u)"
        outputs: [answer]
        artifacts: [kept.txt]
      - key: same-tree
        run: [cat, kept.txt]
  second:
    needs: first
    workspace: { from: first }
    inputs: [{ task: first, artifact: kept.txt, path: in/ }]
    run: |
      test "{{ tasks.first.outputs.answer }}" = 42
      cmp kept.txt in/kept.txt
outputs:
  answer: "{{ tasks.first.outputs.answer }}"
"#;
            let workflow = world.api.complete(definition, json!({ "greeting": "good day" }), SOON).await?;
            assert_eq!(workflow.outputs["answer"].to_string().trim_matches('"'), "42");
            let stdout = world.api.log(&workflow.id, "first", "speak", 1, "stdout").await?;
            assert!(stdout.starts_with("good day x 2\n"), "{stdout}");
            assert!(stdout.contains("attempt=1 key="), "{stdout}");
            assert!(!stdout.contains("uid=0"), "a step is not root: {stdout}");
            assert_eq!(world.api.log(&workflow.id, "first", "speak", 1, "stderr").await?, "to stderr\n");

            let missing = world.api.try_submit(definition, json!({}), None).await?;
            assert_eq!(missing.status, 422, "a parameter without default is required");
            assert_eq!(missing.problem_code()?, "invalid-parameters");
            let wrong = world.api.try_submit(definition, json!({ "greeting": ["good", "day"] }), None).await?;
            assert_eq!(wrong.status, 422, "a list is no string");
            assert_eq!(wrong.problem_code()?, "invalid-parameters");
            Ok(())
        })
        .await
}

/// What a step can reach, tried from inside one.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_has_no_network_no_capabilities_and_a_read_only_root() -> Result<()> {
    Scenario::dev("submit-hardened")
        .run(async |world| {
            let script = r#"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
  grep -q "^$set:[[:space:]]*0000000000000000$" /proc/self/status || { grep "^$set" /proc/self/status; exit 10; }
done
grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status || exit 11
grep -q '^Seccomp:[[:space:]]*2$' /proc/self/status || exit 12
test "$(ls /sys/class/net)" = lo || exit 13
if touch /usr/here 2>/dev/null; then exit 14; fi
if kill -0 1 2>/dev/null; then exit 15; fi
touch /tmp/there
test ! -e /var/run/docker.sock || exit 16
"#;
            world.api.complete(&steps(&[script]), json!({}), SOON).await?;
            Ok(())
        })
        .await
}
