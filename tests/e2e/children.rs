//! Child workflows and tasks over lists on a real daemon that is killed while they are open.

use anyhow::{Context as _, Result, ensure};
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::SOON;
use crate::attempts::no_step_ran_again;

/// Items hold until their file is there; a child runs beside them.
const FAMILY: &str = r#"
name: family
parameters: { names: { type: array } }
tasks:
  each:
    for_each: "{{ params.names }}"
    max_parallel: 2
    env: { NAME: "{{ item }}" }
    run: |
      echo "begin $GANTRY_ATTEMPT"
      sleep 1
      echo "hello=$NAME-{{ item_index }}" > "$GANTRY_OUTPUT"
      echo "$NAME" > name.txt
      echo "end $GANTRY_ATTEMPT"
    artifacts: [name.txt]
  child:
    workflow:
      definition:
        name: small
        parameters: { text: { type: string } }
        tasks:
          say: { run: "sleep 1; echo word='{{ params.text }}' > $GANTRY_OUTPUT" }
        outputs: { word: "{{ tasks.say.outputs.word }}" }
      parameters: { text: "{{ params.names | join('+') }}" }
  report:
    needs: [each, child]
    inputs: [{ task: each, artifact: "*.txt", path: in/ }]
    run: |
      echo "begin $GANTRY_ATTEMPT"
      test "{% for each in tasks.each.items %}{{ each.outputs.hello }} {% endfor %}" = "a-0 b-1 c-2 "
      test "{{ tasks.child.outputs.word }}" = "a+b+c"
      test "$(cat in/0/name.txt in/1/name.txt in/2/name.txt | tr -d '\n')" = abc
      echo "end $GANTRY_ATTEMPT"
"#;

fn waits(workflow: &Workflow, task: &str, reason: &str) -> bool {
    let mut tasks = workflow.tasks.iter();
    tasks.any(|each| each.name == task && each.waiting_reason() == Some(reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn items_and_children_survive_kills_of_the_daemon() -> Result<()> {
    Scenario::dev("children-killed")
        .slots(4)
        .run(async |world| {
            let id = world.api.submit(FAMILY, json!({ "names": ["a", "b", "c"] })).await?;
            for _ in 0..3 {
                let open = |workflow: &Workflow| {
                    waits(workflow, "each", "items") || waits(workflow, "child", "child") || workflow.ended()
                };
                world
                    .api
                    .workflow_when(&id, "its waiting for items and child", SOON, open)
                    .await?;
                world.kill_server().await?;
                world.restart_server().await?;
            }
            let workflow = world.api.ended(&id, SOON).await?;
            ensure!(workflow.state == "completed", "{workflow:?}");
            no_step_ran_again(world, &workflow).await?;

            let shown: Value = world.api.read(&format!("/api/v1/workflows/{id}")).await?;
            let tasks = shown["tasks"].as_array().context("tasks")?;
            let each = tasks.iter().find(|task| task["name"] == "each").context("each")?;
            ensure!(
                each["items"] == json!({"total": 3, "completed": 3, "failed": 0, "open": 0}),
                "{each}"
            );
            let second = tasks.iter().find(|task| task["name"] == "each[1]").context("each[1]")?;
            ensure!(second["item"] == "b" && second["item_index"] == 1, "{second}");

            let children: Value = world.api.read(&format!("/api/v1/workflows?parent={id}")).await?;
            let child = &children["items"][0];
            ensure!(child["lineage"]["parent"] == json!(id), "{children}");
            let said = world.cli(&["workflow", "show", &id]).await?.expect_code(0)?;
            ensure!(said.stdout.contains("items: 3 of 3 completed"), "{}", said.stdout);
            ensure!(
                said.stdout.contains(child["id"].as_str().context("id")?),
                "{}",
                said.stdout
            );
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_parent_ends_its_child_across_a_kill() -> Result<()> {
    Scenario::dev("children-cancelled")
        .run(async |world| {
            let definition = r#"
name: parent
tasks:
  wait:
    workflow:
      definition: { name: sleeper, tasks: { sleep: { run: "sleep 600" } } }
"#;
            let id = world.api.submit(definition, json!({})).await?;
            let children = world
                .api
                .workflow_when(&id, "its child is asked for", SOON, |workflow| {
                    waits(workflow, "wait", "child")
                })
                .await?;
            ensure!(children.tasks.len() == 1);
            world.api.cancel(&id, 100).await?;
            world.kill_server().await?;
            world.restart_server().await?;
            let parent = world.api.ended(&id, SOON).await?;
            ensure!(parent.state == "cancelled", "{parent:?}");
            let children: Value = world.api.read(&format!("/api/v1/workflows?parent={id}")).await?;
            ensure!(children["items"][0]["state"] == "cancelled", "{children}");
            Ok(())
        })
        .await
}
