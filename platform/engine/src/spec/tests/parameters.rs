//! What submitters may give.

use serde_json::{Map, Value, json};

use super::definition;
use crate::spec::check_parameters;

const SOURCE: &str = "name: x\nparameters:\n  repo: {type: string, description: Where it is}\n  depth: {type: integer, default: 1, minimum: 1}\n  deep: {type: boolean, default: false}\n  mode: {enum: [fast, slow], default: fast}\n  list: {type: array, items: {type: integer}, default: []}\ntasks: {t: {run: x}}\n";

fn check(given: Value) -> Result<Map<String, Value>, Vec<String>> {
    let Value::Object(given) = given else { panic!("a map") };
    check_parameters(&definition(SOURCE), given)
        .map_err(|issues| issues.into_iter().map(|issue| issue.message).collect())
}

#[test]
fn defaults_are_filled_in_and_texts_are_read() {
    let values = check(json!({"repo": "r", "depth": "3", "deep": "true", "list": "[1, 2]"})).unwrap();
    assert_eq!(
        Value::Object(values),
        json!({"repo": "r", "depth": 3, "deep": true, "mode": "fast", "list": [1, 2]})
    );
    // The other way round, only where nothing is lost.
    assert_eq!(check(json!({"repo": 2024})).unwrap()["repo"], json!("2024"));
    assert!(check(json!({"repo": 1.5})).is_err());
}

#[test]
fn everything_wrong_is_said() {
    let issues = check(json!({"dept": 1, "depth": 0, "mode": "quick", "list": [1, "x"], "deep": "maybe"})).unwrap_err();
    assert_eq!(
        issues,
        [
            "`deep`: \"maybe\" is not of type \"boolean\"",
            "`depth`: 0 is less than the minimum of 1",
            "`list`/1: \"x\" is not of type \"integer\"",
            "`mode`: \"quick\" is not one of \"fast\", \"slow\"",
            "the parameter `repo` (Where it is) is required",
            "unknown parameter `dept`; did you mean `depth`?",
        ]
    );
    let long = check(json!({"repo": "x".repeat(300_000)})).unwrap_err();
    assert!(long[0].contains("at most 262144 are allowed"), "{long:?}");
}
