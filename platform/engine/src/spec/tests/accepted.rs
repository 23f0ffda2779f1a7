//! What compiles, and into what.

use serde_json::json;

use super::{EXAMPLES, definition};
use crate::spec::compile;
use crate::spec::definition::{
    DeciderScope, Definition, Exhausted, Handles, InputDef, RunDef, RunOn, WorkspaceSourceDef,
};

#[test]
fn examples_compile_and_survive_the_journal() {
    for (name, source) in EXAMPLES {
        let compiled = definition(source);
        assert_eq!(compiled.name, name);
        let json = serde_json::to_string(&compiled).unwrap();
        let back: Definition = serde_json::from_str(&json).unwrap();
        assert_eq!(back, compiled);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }
}

#[test]
fn the_sample_has_what_the_readme_promises() {
    let sample = definition(EXAMPLES[3].1);
    let names: Vec<&String> = sample.tasks.keys().collect();
    assert_eq!(names, ["scan", "languages", "tests", "report"]);
    let keys: Vec<&str> = sample.tasks["scan"]
        .steps
        .iter()
        .map(|step| step.key.as_str())
        .collect();
    assert_eq!(keys, ["secrets", "large-files", "licences"]);
    assert_eq!(sample.tasks["report"].needs, ["scan", "languages", "tests"]);
    assert_eq!(sample.parameters["required"], json!(["repo"]));
    assert_eq!(
        sample.parameters["properties"]["large_bytes"]["default"],
        json!(10 << 20)
    );
    assert!(
        sample
            .tasks
            .values()
            .flat_map(|task| &task.steps)
            .all(|step| step.image == "gantry/sandbox")
    );
}

#[test]
fn layout_and_language_do_not_change_the_digest() {
    let yaml = compile(b"# c\nname: x\ntasks:\n  a:\n    run: \"echo\"\n    timeout: 60\n").unwrap();
    let json = compile(br#"{"tasks": {"a": {"timeout": "1m", "run": "echo"}}, "name": "x"}"#).unwrap();
    assert_eq!(yaml, json);
    let other = compile(b"name: x\ntasks: {a: {run: echo, timeout: 61}}\n").unwrap();
    assert_ne!(yaml.digest, other.digest);
    assert_eq!(
        yaml.digest,
        *blake3::hash(&serde_json::to_vec(&yaml.definition).unwrap()).as_bytes()
    );
}

#[test]
fn the_nearest_setting_wins() {
    let compiled = definition(
        "name: x\ndefaults: {image: a, timeout: 1h, env: {A: 1, B: one}, retry: 2, resources: small, grace: 1s, output_limit: 1M, workdir: d}\n\
         tasks:\n  t:\n    image: b\n    env: {B: two, C: true}\n    steps:\n      - run: [echo, 5, 'x y']\n      - run: x\n        image: c\n        timeout: 1.5\n\
        \x20       env: {C: '{{ params }}'}\n        retry: {attempts: 3, backoff: 2m}\n        resources: {cpu: 0.25, memory: 64MiB}\n",
    );
    let [first, second] = compiled.tasks["t"].steps.as_slice() else {
        panic!("two steps")
    };
    assert_eq!(first.run, RunDef::Argv(vec!["echo".into(), "5".into(), "x y".into()]));
    assert_eq!(
        (first.key.as_str(), first.image.as_str(), first.timeout_ms),
        ("step-1", "b", Some(3_600_000))
    );
    let env: Vec<(&str, &str)> = first
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("B", "two"), ("C", "true")]);
    assert_eq!(
        (first.grace_ms, first.output_limit_bytes, first.retry.rule.attempts),
        (1_000, 1 << 20, 2)
    );
    assert_eq!(
        (first.resources.cpu_millis, first.resources.memory_bytes),
        (500, 256 << 20)
    );
    assert_eq!(
        (second.key.as_str(), second.image.as_str(), second.timeout_ms),
        ("step-2", "c", Some(1_500))
    );
    assert_eq!(second.env["C"], "{{ params }}");
    assert_eq!(
        (
            second.retry.rule.attempts,
            second.retry.rule.backoff_ms,
            second.retry.rule.max_backoff_ms
        ),
        (3, 120_000, 120_000)
    );
    assert_eq!(
        (
            second.resources.cpu_millis,
            second.resources.memory_bytes,
            second.resources.tmp_bytes
        ),
        (250, 64 << 20, 8 << 20)
    );
    assert_eq!(second.workdir.as_deref(), Some("d"));
}

#[test]
fn defaults_of_ours() {
    let compiled = definition("name: x\ntasks: {t: {run: x}}\n");
    let step = &compiled.tasks["t"].steps[0];
    assert_eq!(step.image, "gantry/sandbox");
    assert_eq!(
        (
            step.timeout_ms,
            step.retry.rule.attempts,
            step.grace_ms,
            step.output_limit_bytes
        ),
        (None, 1, 10_000, 64 << 20)
    );
    assert_eq!(compiled.tasks["t"].run_on, RunOn::Success);
    assert_eq!(
        compiled.parameters,
        json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false})
    );
}

#[test]
fn workspaces_and_inputs() {
    let compiled = definition(
        "name: x\ntasks:\n  a: {run: x, workspace: {git: 'https://h/r.git', ref: 'v1', depth: 1}}\n  b: {run: x, workspace: {}}\n\
        \x20 c:\n    needs: [a, b]\n    run: x\n    run_on: always\n    workspace: {mounts: {l: {from: a}, r: {path: /srv/x}}}\n    inputs: [{task: a}, {task: b, artifact: '*.json', path: in/, optional: true}]\n",
    );
    let git = WorkspaceSourceDef::Git {
        url: "https://h/r.git".into(),
        reference: Some("v1".into()),
        depth: Some(1),
    };
    assert_eq!(compiled.tasks["a"].workspace[0].source, git);
    assert_eq!(compiled.tasks["a"].workspace[0].name, "");
    assert!(compiled.tasks["b"].workspace.is_empty());
    let mounts: Vec<&str> = compiled.tasks["c"]
        .workspace
        .iter()
        .map(|mount| mount.name.as_str())
        .collect();
    assert_eq!(mounts, ["l", "r"]);
    let inputs = &compiled.tasks["c"].inputs;
    let artifacts = |input: &InputDef| match input {
        InputDef::Artifacts(input) => (input.artifact.clone(), input.path.clone(), input.optional),
        InputDef::Upload(upload) => panic!("{upload:?}"),
    };
    assert_eq!(artifacts(&inputs[0]), ("**".to_owned(), "inputs/a/".to_owned(), false));
    assert_eq!(artifacts(&inputs[1]), ("*.json".to_owned(), "in/".to_owned(), true));
}

#[test]
fn needs_reach_through() {
    definition(
        "name: x\ntasks:\n  a: {run: x}\n  b: {run: x, needs: a}\n  c: {run: '{{ tasks.a.outputs.x }}{{ tasks.b.state }}', needs: b, workspace: {from: a}}\n",
    );
}

#[test]
fn aliases_and_merge_keys_share_parts() {
    let compiled = definition("name: x\ntasks:\n  a: &t {run: x, timeout: 5s}\n  b: *t\n  c: {<<: *t, run: y}\n");
    assert_eq!(compiled.tasks["a"], compiled.tasks["b"]);
    assert_eq!(compiled.tasks["c"].steps[0].timeout_ms, Some(5_000));
    assert_eq!(compiled.tasks["c"].steps[0].run, RunDef::Shell("y".into()));
}

#[test]
fn loop_variables_are_known() {
    definition(
        "name: x\nparameters: {l: {type: array, default: []}}\ntasks: {t: {run: '{% for i in params.l %}{{ i.x }}{{ loop.index }}{% for a, b in i|items %}{{ a ~ b }}{% endfor %}{% endfor %}'}}\n",
    );
}

#[test]
fn what_runs_before_the_end_is_a_task_of_its_own() {
    let compiled = definition(
        "name: x\ndefaults: {retry: {attempts: 2, exhausted: escalate}}\ntasks: {a: {run: x}}\n\
         on_failure:\n  deadline: 1m\n  workspace: {from: a}\n  inputs: [{task: a}]\n  env: {WHY: '{{ failure.task }} {{ failure.message }} {{ tasks.a.code }}'}\n  steps: [{run: x}, {run: '{{ steps[\"step-1\"].outputs.n }}'}]\n\
         on_cancel: {run: '{{ failure.code }}'}\n",
    );
    let names: Vec<&str> = compiled.tasks.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "on_failure", "on_cancel"]);
    let (failure, cancel) = (&compiled.tasks["on_failure"], &compiled.tasks["on_cancel"]);
    assert_eq!(
        (failure.handles, cancel.handles),
        (Some(Handles::Failure), Some(Handles::Cancel))
    );
    assert_eq!((failure.deadline_ms, cancel.deadline_ms), (Some(60_000), Some(600_000)));
    assert_eq!(failure.steps[0].retry.rule.attempts, 2);
    assert_eq!(failure.steps[0].retry.exhausted, Exhausted::Fail, "it waits for nobody");
    let again: crate::spec::definition::Definition =
        serde_json::from_value(serde_json::to_value(&compiled).unwrap()).unwrap();
    assert_eq!(again, compiled);
}

#[test]
fn a_result_may_be_assessed() {
    let compiled = definition(
        "name: x\ntasks:\n  a: {run: 'echo {{ rework.feedback }}', assess: {}}\n\
         \x20 b:\n    assess: {message: '{{ steps.two.outputs.x }} {{ rework.round }}', deadline: 1h, on_deadline: accept, max_reworks: 0, exhausted: escalate, by: {scopes: [admin]}}\n\
         \x20   steps: [{key: one, run: x}, {key: two, run: x}]\n",
    );
    let plain = compiled.tasks["a"].assess.as_ref().unwrap();
    assert_eq!((plain.reworks_max, plain.deadline_ms), (3, None));
    let full = compiled.tasks["b"].assess.as_ref().unwrap();
    assert_eq!((full.reworks_max, full.deadline_ms), (0, Some(3_600_000)));
    assert_eq!(full.by.scopes, [DeciderScope::Admin]);
}
