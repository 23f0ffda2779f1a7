//! Tests of definitions, through the public functions.

mod accepted;
mod hostile;
mod limits;
mod parameters;
mod refused;
mod schema;

use super::definition::Definition;
use super::{Compiled, compile};

/// A definition that has to compile.
fn definition(source: &str) -> Definition {
    let Compiled { definition, .. } =
        compile(source.as_bytes()).unwrap_or_else(|issues| panic!("refused: {issues:#?}\n{source}"));
    definition
}

/// Every example of the repository.
const EXAMPLES: [(&str, &str); 5] = [
    ("hello", include_str!("../../../../../examples/hello.yaml")),
    ("retry", include_str!("../../../../../examples/retry.yaml")),
    ("fan-in", include_str!("../../../../../examples/fan-in.yaml")),
    ("repo-check", include_str!("../../../../../examples/repo-check.yaml")),
    ("release", include_str!("../../../../../examples/release.yaml")),
];
