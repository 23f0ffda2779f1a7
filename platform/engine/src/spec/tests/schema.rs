//! The published schema.

use serde_json::Value;

use super::EXAMPLES;
use crate::spec::{compile, schema};

/// Set `UPDATE_GOLDEN` to write it anew, and review the difference: the schema is API.
#[test]
fn the_schema_is_the_reviewed_one() {
    let now = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spec/tests/schema.golden.json");
        std::fs::write(path, &now).unwrap();
    }
    assert!(
        now == include_str!("schema.golden.json"),
        "the schema has changed; run with UPDATE_GOLDEN=1 and review the difference"
    );
}

#[test]
fn the_schema_is_valid_and_agrees_with_the_compiler() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, source) in EXAMPLES {
        let value: Value = serde_saphyr::from_str(source).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    for source in [
        "{name: x, tasks: {t: {run: 5}}}",
        "{name: x, tasks: {t: {runs: x}}}",
        "{tasks: {t: {run: x}}}",
        "{name: x, tasks: {t: {run: x, needs: {}}}}",
    ] {
        let value: Value = serde_saphyr::from_str(source).unwrap();
        assert!(!validator.is_valid(&value), "{source}");
        assert!(compile(source.as_bytes()).is_err(), "{source}");
    }
}

#[test]
fn every_field_is_described() {
    fn walk(value: &Value, place: &str, missing: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return };
        for (name, property) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let described = property.get("description").is_some() || property.get("$ref").is_some();
            if !described {
                missing.push(format!("{place}/{name}"));
            }
        }
        for (name, child) in object.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            walk(child, name, missing);
        }
    }
    let mut missing = Vec::new();
    walk(&schema(), "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}
