//! Concurrency keys and rates in definitions.

use super::definition;
use crate::spec::compile;
use crate::spec::definition::OnLimit;

fn messages(source: &str) -> Vec<String> {
    let issues = compile(source.as_bytes()).expect_err("has to be refused");
    issues.into_iter().map(|issue| issue.message).collect()
}

#[test]
fn keys_come_before_rates_and_have_defaults() {
    let definition = definition(
        "{name: x, concurrency: {key: w, limit: 1}, tasks: {t: {run: x, rate_limit: {key: r, limit: 5, per: 1m}, concurrency: [{key: a, limit: 2, on_limit: cancel_running}, {key: 'b-{{ task.name }}', limit: 3}]}}}",
    );
    assert_eq!((definition.limits.len(), definition.limits[0].limit), (1, 1));
    let limits = &definition.tasks["t"].limits;
    let shown: Vec<_> = limits.iter().map(|limit| (limit.key.as_str(), limit.per_ms)).collect();
    assert_eq!(shown, [("a", None), ("b-{{ task.name }}", None), ("r", Some(60_000))]);
    assert_eq!(
        (limits[0].on_limit, limits[1].on_limit),
        (OnLimit::CancelRunning, OnLimit::Wait)
    );
    assert_eq!(limits[2].burst, None);
}

#[test]
fn what_cannot_hold_is_refused() {
    let task = |text: &str| {
        format!("{{name: x, parameters: {{p: {{type: string}}}}, tasks: {{a: {{run: x}}, t: {{run: x, {text}}}}}}}")
    };
    for (text, expected) in [
        ("concurrency: {key: k, limit: 0}", "it is 0; it has to be 1 to 10000"),
        (
            "rate_limit: {key: r, limit: 2, per: 1m, burst: 3}",
            "it is 3; it has to be 1 to 2",
        ),
        ("concurrency: {key: '', limit: 1}", "a key has 1 to 255 bytes"),
    ] {
        assert_eq!(messages(&task(text)), [expected], "{text}");
    }
    let needs = messages(&task("concurrency: {key: '{{ tasks.a.outputs.n }}', limit: 1}"));
    assert_eq!(needs.len(), 1, "{needs:?}");
    let later = messages("{name: x, concurrency: {key: '{{ tasks.t.outputs.n }}', limit: 1}, tasks: {t: {run: x}}}");
    assert!(later[0].contains("only `params` is"), "{later:?}");
    let own =
        messages("{name: x, concurrency: {key: k, limit: 1}, tasks: {t: {run: x, concurrency: {key: k, limit: 1}}}}");
    assert!(own[0].contains("would wait for ever"), "{own:?}");
    let many = messages(&task(
        "concurrency: [{key: a, limit: 1}, {key: b, limit: 1}, {key: c, limit: 1}, {key: d, limit: 1}, {key: e, limit: 1}]",
    ));
    assert_eq!(many, ["5 are too many; at most 4 are allowed"]);
}
