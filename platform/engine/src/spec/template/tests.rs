use serde_json::{Value, json};

use super::render;

fn scope() -> Value {
    json!({
        "params": { "repo": "a b", "count": 3, "list": ["x", "y'z"], "html": "<&>" },
        "tasks": { "build": { "outputs": { "url": "u" }, "state": "completed" } },
        "steps": { "step-1": { "outputs": { "n": 1 } } },
        "attempt": 2,
    })
}

fn ok(template: &str) -> String {
    render(template, &scope()).unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn refused(template: &str) -> String {
    render(template, &scope()).expect_err(template).to_string()
}

#[test]
fn values_are_rendered_as_they_are() {
    assert_eq!(ok("plain } text { $x"), "plain } text { $x");
    assert_eq!(
        ok("{{ params.repo }} {{ params.html }} {{ attempt + 1 }}\n"),
        "a b <&> 3\n",
        "nothing is escaped, the last newline stays"
    );
    assert_eq!(
        ok("{% for x in params.list %}{{ loop.index }}{{ x }};{% endfor %}"),
        "1x;2y'z;"
    );
    assert_eq!(ok("{% if params.count > 2 %}many{% else %}few{% endif %}"), "many");
    assert_eq!(ok("{{ steps[\"step-1\"].outputs.n }}"), "1");
    assert_eq!(
        ok("{{ params.missing | default('d') }}{{ params.missing is defined }}"),
        "dfalse"
    );
    assert_eq!(
        ok("{{ params.list }}{{ true }}{{ none }} {{ params.list|join(',') }}{{ [true]|join }}{{ true|string }}"),
        "[\"x\",\"y'z\"]truenull x,y'ztruetrue"
    );
    assert_eq!(ok("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
}

#[test]
fn undefined_names_are_named() {
    assert_eq!(
        refused("{{ params.rep }}"),
        "line 1: `params.rep` is undefined; `params` has `repo`"
    );
    assert_eq!(
        refused("a\nb {{ tasks.build.outputs.urll }}"),
        "line 2: `tasks.build.outputs.urll` is undefined; `tasks.build.outputs` has `url`"
    );
    assert_eq!(
        refused("{{ foo }}"),
        "line 1: `foo` is undefined; there is `params`, `tasks`, `steps`, `attempt`"
    );
    assert_eq!(
        refused("{% for x in params.nope %}{% endfor %}"),
        "line 1: `params.nope` is undefined; `params` has `repo`, `count`, `list`, `html`"
    );
    assert_eq!(
        refused("{{ params.nope | shell_quote }}"),
        "line 1: `params.nope` is undefined; `params` has `repo`, `count`, `list`, `html`"
    );
    assert_eq!(
        refused("{{ params.nope | tojson }}"),
        "line 1: `params.nope` is undefined; `params` has `repo`, `count`, `list`, `html`"
    );
}

#[test]
fn tojson_is_plain_json() {
    assert_eq!(ok("{{ params.list | tojson }}"), r#"["x","y'z"]"#);
    assert_eq!(ok("{{ params.html | tojson }}"), "\"<&>\"");
    assert_eq!(
        ok("{{ tasks.build | tojson }}"),
        r#"{"outputs":{"url":"u"},"state":"completed"}"#
    );
}

#[test]
fn shell_quote_makes_one_word() {
    assert_eq!(ok("{{ params.repo | shell_quote }}"), "'a b'");
    assert_eq!(ok("{{ params.list | shell_quote }}"), r"x 'y'\''z'");
    assert_eq!(
        ok("{{ '' | shell_quote }} {{ 'a/b.c-d_e' | shell_quote }} {{ params.count | shell_quote }}"),
        "'' a/b.c-d_e 3"
    );
}

#[test]
fn shell_quote_survives_a_real_shell() {
    for text in [
        "$(id)",
        "`id`",
        "a'b\"c",
        "\\",
        "*",
        "~",
        "a\nb",
        "-n",
        "é ☃",
        ";&|<>(){}[]!#",
        "''",
        "$'x'",
    ] {
        let command = render("printf %s {{ t | shell_quote }}", &json!({ "t": text })).unwrap();
        let output = std::process::Command::new("/bin/sh")
            .arg("-eu")
            .arg("-c")
            .arg(&command)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{command}");
    }
    assert!(render("{{ t | shell_quote }}", &json!({ "t": "a\u{0}b" })).is_err());
}

#[test]
fn what_could_read_files_or_grow_is_refused() {
    for template in [
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% macro m() %}{% endmacro %}",
        "{% set x = 1 %}",
        "{% with x = 1 %}{% endwith %}",
        "{{ debug() }}",
        "{{ dict() }}",
        "{{ namespace() }}",
        "{{ 'x' | safe }}",
        "{{ 'x' | indent(1000000) }}",
        "{% autoescape true %}{% endautoescape %}",
    ] {
        refused(template);
    }
}

#[test]
fn errors_have_line_and_column() {
    let error = render("one\ntwo {{ params.nope }}", &scope()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 8));
    let error = render("one\ntwo {{ 1 | nope }}", &scope()).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.message.starts_with("unknown filter `nope`"), "{error}");
}

#[test]
fn results_are_bounded() {
    let large = json!({ "a": "x".repeat(200 << 10) });
    assert_eq!(render("{{ a }}", &large).unwrap().len(), 200 << 10);
    assert!(
        render("{{ a }}{{ a }}", &large)
            .unwrap_err()
            .message
            .contains("longer than 262144 bytes")
    );
    assert!(
        render(
            "{% for i in range(50000) %}{% for j in range(5) %}{% endfor %}{% endfor %}",
            &large
        )
        .unwrap_err()
        .message
        .contains("100000 steps")
    );
}
