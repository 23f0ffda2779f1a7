//! What a careless or hostile user sends: a typed error, a stated waiting reason, or contained; the daemon and other workflows go on.

use std::time::Duration;

use anyhow::{Context, Result};
use gantry_tests::views::Workflow;
use gantry_tests::world::{Scenario, World};
use serde_json::json;

use crate::{SOON, steps};

/// One core of a small machine writes, seals and stores this much in far less.
const LARGE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_wrong_are_refused_with_their_place() -> Result<()> {
    // Name, definition, line of the fault.
    let table = [
        ("malformed YAML", "name: x\ntasks:\n  a: { run: [\n", None),
        ("not a map", "- just\n- a list\n", Some(1)),
        (
            "unknown field",
            "name: x\ntasks:\n  a:\n    run: \"true\"\n    colour: red\n",
            Some(5),
        ),
        (
            "unknown need",
            "name: x\ntasks:\n  a:\n    needs: [b]\n    run: \"true\"\n",
            Some(4),
        ),
        (
            "cycle",
            "name: x\ntasks:\n  a: { needs: b, run: \"true\" }\n  b: { needs: a, run: \"true\" }\n",
            Some(3),
        ),
        (
            "repeated key",
            "name: x\nname: y\ntasks:\n  a: { run: \"true\" }\n",
            Some(2),
        ),
        ("no task", "name: x\ntasks: {}\n", Some(2)),
        (
            "undefined name in a template",
            "name: x\ntasks:\n  a:\n    run: echo {{ params.nobody }}\n",
            Some(4),
        ),
        (
            "artifact outside of the workspace",
            "name: x\ntasks:\n  a:\n    run: \"true\"\n    artifacts: [../../etc/passwd]\n",
            Some(5),
        ),
        (
            "absolute artifact",
            "name: x\ntasks:\n  a:\n    run: \"true\"\n    artifacts: [/etc/passwd]\n",
            Some(5),
        ),
        (
            "git transport that runs commands",
            "name: x\ntasks:\n  a:\n    workspace: { git: \"ext::sh -c id\" }\n    run: \"true\"\n",
            Some(4),
        ),
        (
            "local files as a remote",
            "name: x\ntasks:\n  a:\n    workspace: { git: \"file:///etc\" }\n    run: \"true\"\n",
            Some(4),
        ),
        (
            "billion laughs",
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
          e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n",
            None,
        ),
    ];
    Scenario::dev("bad-definitions")
        .run(async |world| {
            for (name, definition, line) in table {
                let reply = world.api.try_submit(definition, json!({}), None).await?;
                assert_eq!(reply.status, 422, "{name}: {}", String::from_utf8_lossy(&reply.body));
                assert_eq!(reply.problem_code()?, "invalid-definition", "{name}");
                let issues = reply.json()?["issues"].clone();
                assert!(issues[0]["message"].is_string(), "{name}: {issues}");
                if let Some(line) = line {
                    let lines: Vec<_> = issues
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|issue| &issue["line"])
                        .collect();
                    assert!(
                        lines.contains(&&json!(line)),
                        "{name}: line {line} is not among {lines:?} in {issues}"
                    );
                    assert!(issues[0]["column"].is_u64(), "{name}: {issues}");
                }
            }
            let file = world.file("bad.yaml", table[2].1)?;
            let run = world.cli(&["run", &file]).await?.expect_code(2)?;
            assert!(
                run.stderr.contains('5') && run.stderr.contains("colour"),
                "line and field are shown: {}",
                run.stderr
            );
            world.cli(&["run", "no-such-file.yaml"]).await?.expect_code(2)?;

            let large = format!(
                "name: x\ntasks:\n  a: {{ run: \"true\" }}\n# {}\n",
                "x".repeat(10 << 20)
            );
            let reply = world.api.try_submit(&large, json!({}), None).await?;
            assert_eq!(
                (reply.status.as_u16(), reply.problem_code()?.as_str()),
                (413, "too-large")
            );

            for path in [
                "/api/v1/workflows/wf_00000000000070008000000000000000",
                "/api/v1/workflows/nonsense",
                "/api/v1/nowhere",
            ] {
                let reply = world.api.get(path).await?;
                assert_eq!(
                    (reply.status.as_u16(), reply.problem_code()?.as_str()),
                    (404, "not-found"),
                    "{path}"
                );
            }
            let reply = world.api.post("/api/v1/workflows", &json!(["not", "a", "map"])).await?;
            assert_eq!(
                (reply.status.as_u16(), reply.problem_code()?.as_str()),
                (400, "invalid-request")
            );
            still_works(world).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_cannot_work_fail_with_the_code_that_says_why() -> Result<()> {
    let table = [
        (
            "unknown image",
            r#"{"name":"x","tasks":{"t":{"image":"nobody.invalid/nothing:0","run":"true"}}}"#,
            "image-not-found",
        ),
        (
            "missing command",
            r#"{"name":"x","tasks":{"t":{"run":["/no/such/program"]}}}"#,
            "step-cannot-start",
        ),
        (
            "missing workdir",
            r#"{"name":"x","tasks":{"t":{"workdir":"no/such/directory","run":"true"}}}"#,
            "step-cannot-start",
        ),
        (
            "missing artifact",
            r#"{"name":"x","tasks":{"t":{"run":"true","artifacts":["absent.txt"]}}}"#,
            "artifact-refused",
        ),
        (
            "symlink as artifact",
            r#"{"name":"x","tasks":{"t":{"run":"ln -s /etc/passwd stolen","artifacts":["stolen"]}}}"#,
            "artifact-refused",
        ),
        (
            "symlinked directory",
            r#"{"name":"x","tasks":{"t":{"run":"ln -s /etc stolen","artifacts":["stolen/passwd"]}}}"#,
            "artifact-refused",
        ),
        (
            "device as artifact",
            r#"{"name":"x","tasks":{"t":{"run":"mkfifo pipe","artifacts":["pipe"]}}}"#,
            "artifact-refused",
        ),
        (
            "missing output",
            r#"{"name":"x","tasks":{"t":{"run":"true","outputs":["answer"]}}}"#,
            "step-bad-output",
        ),
        (
            "path outside the allow-list",
            r#"{"name":"x","tasks":{"t":{"workspace":{"path":"/etc"},"run":"true"}}}"#,
            "workspace-refused",
        ),
        (
            "missing repository",
            r#"{"name":"x","tasks":{"t":{"workspace":{"git":"git://127.0.0.1:9/none.git"},"run":"true"}}}"#,
            "workspace-fetch-failed",
        ),
        (
            "memory",
            r#"{"name":"x","tasks":{"t":{"run":["python3","-c","x = 'x' * (2 << 30)"],"resources":"small"}}}"#,
            "step-out-of-memory",
        ),
        (
            "signal",
            r#"{"name":"x","tasks":{"t":{"run":"kill -SEGV $$"}}}"#,
            "step-signal",
        ),
    ];
    Scenario::dev("bad-steps")
        .run(async |world| {
            let mut submitted = Vec::new();
            for (name, definition, code) in table {
                let id = world.api.submit(definition, json!({})).await.with_context(|| name)?;
                submitted.push((name, id, code));
            }
            for (name, id, code) in submitted {
                let workflow = world.api.ended(&id, SOON * 2).await.with_context(|| name)?;
                assert_eq!(workflow.state, "failed", "{name}: {workflow:#?}");
                assert!(
                    workflow.codes().contains(&code),
                    "{name}: {code} is not among {:?}",
                    workflow.codes()
                );
                assert!(world.api.artifacts(&id).await?.is_empty(), "{name}: nothing was kept");
            }
            still_works(world).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_take_all_they_can_get_are_contained() -> Result<()> {
    let fork_bomb = "bomb() { bomb | bomb & }\nbomb\nsleep 3\nexit 5";
    let full_tmp = "if dd if=/dev/zero of=/tmp/fill bs=64k 2>/tmp/said; then exit 6; fi\nrm /tmp/fill\necho contained";
    let loud = "head -c 1000000000 /dev/zero | tr '\\0' x | fold -w 120";
    Scenario::dev("bad-greedy")
        .run(async |world| {
            let bystander = world
                .api
                .submit(&steps(&["for i in 1 2 3 4 5; do echo $i; sleep 1; done"]), json!({}))
                .await?;
            let submit = async |script: &str, limits: serde_json::Value| -> Result<String> {
                let mut task = json!({ "run": script, "timeout": "120s", "grace": "1s" });
                task.as_object_mut()
                    .context("a map")?
                    .extend(limits.as_object().cloned().unwrap_or_default());
                world
                    .api
                    .submit(
                        &json!({ "name": "greedy", "tasks": { "t": task } }).to_string(),
                        json!({}),
                    )
                    .await
            };
            let bomb = submit(fork_bomb, json!({ "resources": "small" })).await?;
            let full = submit(full_tmp, json!({})).await?;
            let loud = submit(loud, json!({})).await?;

            assert_eq!(
                world.api.ended(&bystander, SOON).await?.state,
                "completed",
                "a neighbour is not disturbed"
            );
            let contained =
                |workflow: &Workflow, codes: &[&str]| workflow.codes().iter().any(|code| codes.contains(code));
            let bomb = world.api.ended(&bomb, LARGE).await?;
            assert!(
                contained(
                    &bomb,
                    &["step-exit", "step-timeout", "step-out-of-memory", "step-signal"]
                ),
                "{bomb:#?}"
            );
            let full = world.api.ended(&full, LARGE).await?;
            assert_eq!(full.state, "completed", "{full:#?}");

            let loud = world.api.ended(&loud, LARGE).await?;
            assert_eq!(loud.state, "failed");
            assert!(contained(&loud, &["step-output-limit"]), "{loud:#?}");
            let stored = world
                .api
                .log(&loud.id, "t", &loud.tasks[0].steps[0].key, 1, "stdout")
                .await?;
            let limit = 64 << 20;
            assert!(
                stored.len() > limit / 2 && stored.len() <= limit + (1 << 20),
                "{} bytes were kept",
                stored.len()
            );
            let peak = world.server_memory_bytes("VmHWM").await?;
            assert!(peak < 250 << 20, "the daemon took {peak} bytes");
            still_works(world).await
        })
        .await
}

/// The daemon keeps all of 1 GB when it is asked to, without holding it in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_that_is_allowed_is_kept_byte_for_byte() -> Result<()> {
    Scenario::dev("bad-gigabyte")
        .run(async |world| {
            let definition = r#"{"name":"loud","tasks":{"t":{"run":"head -c 1000000000 /dev/zero | tr '\\0' x","output_limit":"1GiB"}}}"#;
            let workflow = world.api.complete(definition, json!({}), LARGE * 2).await?;
            let path = format!("/api/v1/workflows/{}/tasks/t/steps/0/logs?attempt=1&stream=stdout&format=text", workflow.id);
            let mut response = reqwest::Client::new().get(format!("{}{path}", world.api.url)).bearer_auth(&world.api.key).send().await?;
            let mut length = 0u64;
            while let Some(chunk) = response.chunk().await? {
                assert!(chunk.iter().all(|byte| *byte == b'x'), "foreign bytes near {length}");
                length += chunk.len() as u64;
            }
            assert_eq!(length, 1_000_000_000);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_no_node_can_do_waits_and_says_for_what() -> Result<()> {
    Scenario::dev("bad-capability")
        .run(async |world| {
            let definition = r#"{"name":"x","tasks":{"t":{"requires":{"capabilities":["quantum"]},"run":"true"}}}"#;
            let id = world.api.submit(definition, json!({})).await?;
            let waits = |workflow: &Workflow| workflow.tasks[0].waiting_reason() == Some("unplaceable");
            let workflow = world.api.workflow_when(&id, "the waiting reason", SOON, waits).await?;
            let waiting = workflow.tasks[0].waiting.as_ref().context("waits")?;
            assert!(waiting["missing"].to_string().contains("quantum"), "{waiting}");
            let shown = world.cli(&["workflow", "show", &id]).await?.expect_code(0)?;
            assert!(
                shown.stdout.contains("quantum"),
                "a person sees it too: {}",
                shown.stdout
            );
            still_works(world).await?;
            assert_eq!(world.api.cancel(&id, 0).await?.status, 202);
            assert_eq!(world.api.ended(&id, SOON).await?.state, "cancelled");
            Ok(())
        })
        .await
}

async fn still_works(world: &World) -> Result<()> {
    world
        .api
        .complete(&steps(&["echo fine"]), json!({}), SOON)
        .await
        .context("the daemon goes on")
        .map(drop)
}
