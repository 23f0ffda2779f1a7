//! What is refused, and where it says so.

use crate::spec::compile;

/// Compiles and returns `line:column message` of each issue.
fn issues(source: &str) -> Vec<String> {
    let issues = compile(source.as_bytes()).expect_err("has to be refused");
    issues
        .into_iter()
        .map(|issue| {
            format!(
                "{}:{} {}",
                issue.line.unwrap_or(0),
                issue.column.unwrap_or(0),
                issue.message
            )
        })
        .collect()
}

/// Each source is refused with exactly these issues.
fn table(rows: &[(&str, &[&str])]) {
    for (source, expected) in rows {
        assert_eq!(issues(source), *expected, "{source}");
    }
}

/// A task `t` with this text below it, which begins on line 4.
fn task(text: &str) -> String {
    format!("name: x\ntasks:\n  t:\n{text}")
}

#[test]
fn texts_that_are_no_yaml() {
    table(&[
        ("", &["0:0 the definition is empty"]),
        ("# nothing\n", &["0:0 the definition is empty"]),
        ("name: a\nname: b\n", &["2:1 the field `name` is given twice"]),
        (
            "name: a\n---\nname: b\n",
            &["2:1 the text holds more than one document; a definition is one"],
        ),
        ("- a\n", &["1:1 the definition is a list; it takes a map"]),
        (
            "a: \u{7}\n",
            &["1:4 the definition holds the control character U+0007; it has to be text"],
        ),
    ]);
    let text = issues("tasks: [a\n: b\n");
    assert_eq!(text.len(), 1);
    assert!(text[0].starts_with("2:1 not valid YAML: "), "{text:?}");
    let tab = issues("tasks:\n\ta: b\n");
    assert!(tab[0].starts_with("2:2 not valid YAML: tabs"), "{tab:?}");
}

#[test]
fn unknown_fields_and_wrong_types_all_at_once() {
    table(&[(
        concat!(
            "name: x\nparamters: {}\ntasks:\n  t:\n    neds: b\n    steps:\n      - run: 5\n        retry: -1\n",
            "        env: {A: 3.10}\n        timout: 5\n      - {}\n    run_on: allways\n",
        ),
        &[
            "2:1 unknown field `paramters`; did you mean `parameters`?",
            "5:5 unknown field `neds`; did you mean `needs`?",
            "7:14 `run` is a whole number; it takes a text or a list",
            "8:16 `retry` cannot be negative",
            "9:18 `A` is a number; it takes a text or a whole number or true or false: put it in quotes",
            "10:9 unknown field `timout`; did you mean `timeout`?",
            "11:9 item 2 of `steps` lacks the field `run`",
            "12:13 `run_on` cannot be `allways`; it is one of success, always; did you mean `always`?",
        ],
    )]);
    table(&[
        ("tasks: {t: {run: x}}\n", &["1:1 the definition lacks the field `name`"]),
        (
            "gantry: v2\nname: x\ntasks: {t: {run: x}}\n",
            &["1:9 `gantry` cannot be `v2`; it is one of v1; did you mean `v1`?"],
        ),
        ("name: x\ntasks: {}\n", &["2:8 a workflow needs at least one task"]),
    ]);
}

#[test]
fn needs() {
    table(&[
        (
            "name: x\ntasks:\n  a: {run: x, needs: c}\n  b: {run: x, needs: [a]}\n  c: {run: x, needs: [b]}\n",
            &["3:22 tasks need each other in a circle: a -> c -> b -> a"],
        ),
        (
            "name: x\ntasks:\n  a: {run: x, needs: a}\n",
            &["3:22 task `a` needs itself"],
        ),
        (
            "name: x\ntasks:\n  build: {run: x}\n  b: {run: x, needs: [biuld, build, build, zzz]}\n",
            &[
                "4:23 task `b` needs `biuld`, which does not exist; did you mean `build`?",
                "4:37 `build` is named twice",
                "4:44 task `b` needs `zzz`, which does not exist",
            ],
        ),
    ]);
}

#[test]
fn a_long_chain_of_needs_is_no_problem_and_a_long_circle_is_found() {
    let chain = |first: &str| {
        let mut text = format!("name: x\ntasks:\n  t0: {{run: x{first}}}\n");
        for index in 1..1_000 {
            text.push_str(&format!("  t{index}: {{run: x, needs: t{}}}\n", index - 1));
        }
        text
    };
    assert!(compile(chain("").as_bytes()).is_ok());
    let found = issues(&chain(", needs: t999"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("3:23 tasks need each other in a circle: t0 -> t999 -> t998"),
        "{}",
        &found[0][..80]
    );
    assert!(
        issues(&format!("{}  t1000: {{run: x}}\n", chain("")))[0].contains("1001 tasks are too many; at most 1000")
    );
}

#[test]
fn steps() {
    table(&[
        (
            &task("    image: a\n"),
            &[
                "3:3 task `t` has nothing to do; give it `run`, `steps`, `workflow`, `sleep`, `signal`, `approval` or `component`",
            ],
        ),
        (
            &task("    run: x\n    steps: [{run: y}]\n"),
            &["4:5 task `t` has both `run` and `steps`; `run` is the short form of a single step"],
        ),
        (&task("    steps: []\n"), &["4:12 a task needs at least one step"]),
        (
            &task(
                "    steps:\n      - {key: a, run: x}\n      - {name: a, run: x}\n      - {key: a b, run: ' '}\n      - {key: c, name: d, run: []}\n",
            ),
            &[
                "6:16 the key `a` belongs to step 1 of this task already",
                "7:15 `a b` is no name; a name is made of letters, digits, `_` and `-`, and begins with a letter or digit",
                "7:25 the script is empty",
                "8:18 `key` and `name` of a step mean the same; give one",
                "8:32 the command is empty; its first item is the program",
            ],
        ),
        (
            &task("    steps: [{run: x}]\n    outputs: a\n"),
            &["5:5 `outputs` of a task goes with `run`; with `steps`, put it into the step that makes them"],
        ),
        (
            &task("    run: x\n    outputs: [a, a, b-c]\n"),
            &[
                "5:18 the output `a` is named twice",
                "5:21 `b-c` is no name here; it is made of letters, digits and `_`, does not begin with a digit, and has at most 128 bytes",
            ],
        ),
    ]);
    let many = (0..101).map(|_| "      - run: x\n").collect::<String>();
    assert!(issues(&task(&format!("    steps:\n{many}")))[0].contains("101 steps are too many; at most 100"));
}

#[test]
fn values() {
    table(&[
        (
            &task("    run: x\n    timeout: 5x\n"),
            &["5:14 `5x` is no duration; write it as 500ms, 30s, 10m, 2h, 1d or 1h30m"],
        ),
        (
            &task("    run: x\n    timeout: 0\n"),
            &["5:14 0 ms is out of range; it lies between 1 ms and 604800000 ms"],
        ),
        (
            &task("    run: x\n    timeout: 8d\n"),
            &["5:14 691200000 ms is out of range; it lies between 1 ms and 604800000 ms"],
        ),
        (
            &task("    run: x\n    retry: 101\n"),
            &["5:12 101 attempts in all are out of range; it lies between 1 (no retry) and 100"],
        ),
        (
            &task("    run: x\n    retry: {attempts: 2, backoff: 5m, max_backoff: 1m, factor: 0.5}\n"),
            &[
                "5:52 the longest back-off (60000 ms) is shorter than the first (300000 ms)",
                "5:64 0.5 is out of range; a factor lies between 1 and 100",
            ],
        ),
        (
            &task("    run: x\n    resources: huge\n"),
            &["5:16 `resources` cannot be `huge`; it is one of small, medium, large"],
        ),
        (
            &task("    run: x\n    resources: {memory: 1MiB, cpu: fast, tmp: 1GiB}\n"),
            &[
                "5:25 1048576 bytes is out of range; it lies between 16777216 and 17592186044416 bytes",
                "5:36 `fast` is no amount of CPU; write cores (2, 0.5) or thousandths of a core (500m)",
                "5:47 /tmp (1073741824 bytes) counts against memory and cannot be larger than it (536870912 bytes)",
            ],
        ),
        (
            &task("    run: x\n    output_limit: 5GiB\n"),
            &["5:19 5368709120 bytes is out of range; it lies between 1024 and 4294967296 bytes"],
        ),
        (
            &task("    run: x\n    image: Bad Image\n"),
            &[
                "5:12 `Bad Image` is no image; write name, name:tag, registry/name:tag or name@sha256:<64 hexadecimal digits>",
            ],
        ),
        (
            &task("    run: x\n    env: {GANTRY_X: a, 1A: b}\n"),
            &[
                "5:11 `GANTRY_X` is set by Gantry itself; choose another name",
                "5:24 `1A` is no name here; it is made of letters, digits and `_`, does not begin with a digit, and has at most 128 bytes",
            ],
        ),
        (
            &task("    run: x\n    artifacts: [../x, /y, '[a', {glob: 'a/../b'}]\n"),
            &[
                "5:17 the glob `../x` has `..`; artifacts come from the workspace only",
                "5:23 the glob `/y` is absolute; globs are relative to the workspace",
                "5:27 the glob `[a` is not valid: unclosed character class; missing ']'",
                "5:40 the glob `a/../b` has `..`; artifacts come from the workspace only",
            ],
        ),
        (
            &task("    run: x\n    workdir: ../..\n"),
            &["5:14 `../..` has `..`, which is not allowed in a working directory"],
        ),
    ]);
}

#[test]
fn workspaces_and_inputs() {
    table(&[
        (
            &task("    run: x\n    workspace: {git: 'ext::sh -c id', ref: '-x'}\n"),
            &[
                "5:22 `ext::sh -c id` is no git remote",
                "5:44 `-x` is no branch, tag or commit",
            ],
        ),
        (
            &task("    run: x\n    workspace: {git: 'ext::id'}\n"),
            &["5:22 the git remote begins with `ext::`; remote helpers run commands and are refused"],
        ),
        (
            &task("    run: x\n    workspace: {git: 'file:///etc'}\n"),
            &["5:22 git over `file://` is refused; use https, ssh, git, or an allow-listed local path"],
        ),
        (
            &task("    run: x\n    workspace: {path: src, ref: main}\n"),
            &[
                "5:23 `src` is not absolute; a node's paths begin with `/`",
                "5:28 `ref` goes with `git`",
            ],
        ),
        (
            &task("    run: x\n    workspace: {path: /a/../b}\n"),
            &["5:23 `/a/../b` has `..`, which is not allowed in a working directory"],
        ),
        (
            &task("    run: x\n    workspace: {git: 'https://x/y', from: nobody, mounts: {'..': {}}}\n"),
            &[
                "5:16 a workspace has either one source (`git`, `path` or `from`) or several under `mounts`, not both",
                "5:60 `..` is no directory name; use letters, digits, `.`, `_` and `-`",
                "5:66 the tree `..` has no source; give it `git`, `path` or `from`",
            ],
        ),
        (
            "name: x\ntasks:\n  a: {run: x}\n  b: {run: x, workspace: {from: a}, inputs: [{task: aa}, {task: a, path: /etc}, {upload: f}, {}]}\n",
            &[
                "4:33 `a` may not have ended by then; add it to `needs` to use its tree",
                "4:53 there is no task `aa`; did you mean `a`?",
                "4:65 `a` may not have ended by then; add it to `needs` to use its artifacts",
                "4:74 `/etc` is absolute; paths are relative to the workspace",
                "4:81 an upload needs a `path`: the file under the workspace that it becomes",
                "4:90 expected an id that starts with `upl_`, got `f`",
                "4:94 an input names the `task` whose artifacts it takes, or an `upload`",
            ],
        ),
    ]);
}

#[test]
fn templates() {
    table(&[
        (
            "name: x\nparameters:\n  repo: {type: string}\ntasks:\n  t:\n    run: |\n      echo fine\n      echo {{ params.rep }} {{ foo }}\n      {% set a = 1 %}\n",
            &[
                "8:15 `params.rep` is not declared under `parameters`; did you mean `repo`?",
                "8:32 `foo` is undefined; there is `params`, `tasks`, `workflow`, `task`, `steps`, `attempt`",
                "9:10 `{% set %}` is not allowed in templates; use values, `if`, `for` and filters",
            ],
        ),
        (
            &task("    run: '{{ 1 | lowr }} {{ include(1) }} {{ workflow.key }} {{ tasks.t }}'\n"),
            &[
                "4:18 unknown filter `lowr`; did you mean `lower`?",
                "4:29 the only function in templates is `range`; use filters (`value|filter`)",
                "4:46 `workflow.key` does not exist; `workflow` has `id` and `name`",
                "4:65 `tasks.t` may not have ended by then; add `t` to `needs`",
            ],
        ),
        (
            &task("    run: echo {{ broken\n"),
            &["4:18 the template is not valid: unexpected end of input, expected end of variable block"],
        ),
        (
            &task(
                "    steps:\n      - run: '{{ steps.b.outputs.x }}{{ steps[\"step-1\"].outputs }}'\n      - {key: b, run: '{{ steps.step-1.outputs }}{{ steps[\"step-1\"].state }}'}\n",
            ),
            &[
                "5:18 `steps.b` does not run before this step; only earlier steps can be read",
                "5:41 `steps.step-1` does not run before this step; only earlier steps can be read",
                "6:27 `steps.step`: this task has no step `step`; a name with `-` is written steps[\"step-1\"]",
                "6:53 `steps.step-1.state` does not exist; `steps.step-1` has `outputs`",
            ],
        ),
        (
            "name: x\ntasks:\n  a: {run: x}\n  b: {run: x, needs: a}\n  c: {run: '{{ tasks.a.outputs.x }}{{ tasks.b.result }}', needs: b}\noutputs: {x: '{{ steps.y }}{{ attempt }}{{ tasks.d }}'}\n",
            &[
                "5:39 `tasks.b.result` does not exist; `tasks.b` has `outputs` and `state` and `code`",
                "6:18 `steps.y` is undefined; there is `params`, `tasks`, `workflow`",
                "6:31 `attempt` is undefined; there is `params`, `tasks`, `workflow`",
                "6:44 `tasks.d`: there is no task `d`; did you mean `a`?",
            ],
        ),
        (
            &task("    run: x\n    workspace: {path: '{{ steps.x.outputs.p }}{{ attempt }}'}\n"),
            &[
                "5:27 `steps` cannot be read here: the workspace is built before the steps run",
                "5:50 `attempt` is undefined; there is `params`, `tasks`, `workflow`, `task`",
            ],
        ),
    ]);
}

#[test]
fn parameters() {
    table(&[(
        "name: x\nparameters:\n  a: string\n  b: {type: strin}\n  c: {type: integer, default: x}\n  d-e: {}\n  f: {$ref: 'http://localhost/x'}\n  g: {pattern: '('}\n  h: {minimum: a}\ntasks: {t: {run: x}}\n",
        &["3:6 `a` is a text; it takes a map"],
    )]);
    let found = issues(
        "name: x\nparameters:\n  b: {type: strin}\n  c: {type: integer, default: x}\n  d-e: {}\n  f: {$ref: 'http://localhost/x'}\n  h: {minimum: a}\ntasks: {t: {run: x}}\n",
    );
    assert_eq!(
        found[0],
        "3:13 parameter `b`: `strin` is no type; it is one of string, integer, number, boolean, array, object, null; did you mean `string`?"
    );
    assert_eq!(
        found[1],
        "4:31 parameter `c`: the default does not match the schema: \"x\" is not of type \"integer\""
    );
    assert!(found[2].starts_with("5:3 `d-e` is no name here"));
    assert_eq!(found[3], "6:13 parameter `f`: `$ref` is not supported in parameters");
    assert!(
        found[4].starts_with("7:16 parameter `h`: not a valid JSON Schema"),
        "{}",
        found[4]
    );
    // A pattern that would need backtracking is refused, since it can take exponential time.
    assert!(
        issues("name: x\nparameters: {g: {type: string, pattern: '(a)\\1'}}\ntasks: {t: {run: x}}\n")[0]
            .contains("not a valid JSON Schema")
    );
}

#[test]
fn defaults_are_checked_and_reported_once() {
    table(&[(
        "name: x\ndefaults: {timeout: soon, env: {A: '{{ params.a }}'}}\ntasks: {a: {run: x}, b: {run: y}}\n",
        &[
            "2:21 `soon` is no duration; write it as 500ms, 30s, 10m, 2h, 1d or 1h30m",
            "2:40 `params.a` is not declared under `parameters`",
        ],
    )]);
}

#[test]
fn many_issues_are_cut() {
    let tasks = (0..300)
        .map(|index| format!("  t{index}: {{run: x, timeout: z}}\n"))
        .collect::<String>();
    let found = issues(&format!("name: x\ntasks:\n{tasks}"));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "0:0 200 more issues are not shown");
}

#[test]
fn waits() {
    table(&[
        (
            &task("    sleep: 1h\n    run: x\n"),
            &["4:5 task `t` has both `run` and `sleep`; a task is one of them"],
        ),
        (
            &task("    sleep: 1h\n    image: a\n    retry: 3\n"),
            &[
                "5:5 `image` goes with steps; task `t` is a `sleep` and runs none",
                "6:5 `retry` goes with steps; task `t` is a `sleep` and runs none",
            ],
        ),
        (
            &task("    sleep: {until: tomorrow}\n"),
            &["4:20 `tomorrow` is no time; write it as RFC 3339 does: 2030-01-31T08:00:00Z"],
        ),
        (
            &task("    sleep: {until: '{{ params.at }}'}\n"),
            &["4:24 `params.at` is not declared under `parameters`"],
        ),
        (
            &task("    sleep: {til: x}\n"),
            &[
                "4:12 `sleep` lacks the field `until`",
                "4:13 unknown field `til`; known here: until",
            ],
        ),
        (
            &task("    signal: {name: go, on_timeout: continue}\n"),
            &["4:24 `on_timeout` goes with `timeout`"],
        ),
        (
            &task("    signal: {name: go, timeout: 400d}\n"),
            &["4:33 34560000000 ms is out of range; it lies between 0 ms and 31622400000 ms"],
        ),
        (
            &task("    run: x\n    when: params.deploy\n"),
            &["5:11 `params.deploy` is not declared under `parameters`"],
        ),
        (
            &task("    run: x\n    when: tasks.t.state == 'completed'\n"),
            &["5:11 `tasks.t` may not have ended by then; add `t` to `needs`"],
        ),
    ]);
}

#[test]
fn what_runs_before_the_end() {
    let head = "name: x\ntasks: {a: {run: x}}\n";
    let rows: [(&str, &[&str]); 6] = [
        (
            "on_failure: {}\n",
            &["3:1 `on_failure` has nothing to do; give it `run` or `steps`"],
        ),
        (
            "on_failure: {run: '{{ failure.kind }}'}\n",
            &["3:23 `failure.kind` does not exist; `failure` has `code` and `message` and `task` and `task_code`"],
        ),
        (
            "on_cancel: {run: x, deadline: 2d}\n",
            &["3:31 172800000 ms is out of range; it lies between 1 ms and 86400000 ms"],
        ),
        (
            "on_cancel: {run: x, needs: a}\n",
            &[
                "3:21 unknown field `needs`; known here: deadline, workspace, inputs, requires, steps, run, image, env, timeout, retry, resources, outputs, artifacts",
            ],
        ),
        (
            "on_cancel: {run: '{{ tasks.b.state }}'}\n",
            &["3:22 `tasks.b`: there is no task `b`; did you mean `a`?"],
        ),
        (
            "outputs: {o: '{{ failure.code }}'}\n",
            &["3:18 `failure.code` is undefined; there is `params`, `tasks`, `workflow`"],
        ),
    ];
    for (tail, expected) in rows {
        assert_eq!(issues(&format!("{head}{tail}")), expected, "{tail}");
    }
    table(&[(
        "name: x\non_failure: {run: x}\ntasks:\n  on_failure: {run: x}\n",
        &["4:3 `on_failure` is what the task of the workflow's `on_failure` is called"],
    )]);
}

#[test]
fn assessments() {
    for (text, expected) in [
        (
            "    sleep: 1m\n    assess: {}\n",
            "5:5 `assess` goes with steps; task `t` is a `sleep` and runs none",
        ),
        (
            "    run: x\n    assess: {max_reworks: 21}\n",
            "5:27 a task is reworked 0 to 20 times",
        ),
        (
            "    run: x\n    assess: {on_deadline: accept}\n",
            "5:14 `on_deadline` goes with `deadline`",
        ),
        (
            "    run: 'echo {{ rework.feedback }}'\n",
            "4:19 `rework.feedback` is undefined; there is `params`, `tasks`, `workflow`, `task`, `steps`, `attempt`",
        ),
        (
            "    run: 'echo {{ rework.reason }}'\n    assess: {}\n",
            "4:19 `rework.reason` does not exist; `rework` has `round` and `feedback`",
        ),
    ] {
        assert_eq!(issues(&task(text)), [expected], "{text}");
    }
}

#[test]
fn retries_of_children() {
    let child = "    workflow: {definition: {name: c, tasks: {s: {sleep: 1s}}}}\n";
    crate::spec::compile(task(&format!("{child}    retry: {{attempts: 3, exhausted: escalate}}\n")).as_bytes())
        .unwrap();
    assert_eq!(
        issues(&task(&format!(
            "{child}    retry: {{attempts: 3, on: {{oom: false}}}}\n"
        ))),
        ["5:26 `on` tells failures of steps apart; a child workflow fails or does not"]
    );
    assert_eq!(
        issues(&task(&format!("{child}    timeout: 3s\n"))),
        ["5:5 `timeout` goes with steps; task `t` is a `workflow` and runs none"]
    );
}
