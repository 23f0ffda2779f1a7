//! The table of primitives says what is there.

use std::collections::BTreeSet;
use std::fs;

use gantry_tests::paths::repository;
use serde_json::Value;

struct Row {
    primitive: String,
    cells: [Cell; 5],
}

/// What a cell names; nothing by nature, or nothing yet, is no name.
type Cell = Vec<String>;

const SPEC: usize = 0;
const API: usize = 1;
const SIMULATION: usize = 2;
const KILLED: usize = 3;
const REASON: usize = 4;

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of a folder, in one text.
fn folder(path: &str) -> String {
    let entries = fs::read_dir(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let files = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file());
    files.map(|path| fs::read_to_string(path).expect("a source")).collect()
}

fn names(cell: &str, row: &str) -> Cell {
    if cell == "—" || cell.strip_prefix("later: ").is_some_and(|what| !what.trim().is_empty()) {
        return Vec::new();
    }
    let name = |each: &str| {
        let name = each.trim().strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        name.unwrap_or_else(|| panic!("`{row}`: {each} is neither a name in backticks, `—` nor `later: WHAT`"))
            .to_owned()
    };
    cell.split(',').map(name).collect()
}

fn rows() -> Vec<Row> {
    let table = read("docs/primitives.md");
    let lines = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<Row> = lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [primitive, rest @ ..] = cells.as_slice() else {
                panic!("an empty row")
            };
            let cells: Vec<Cell> = rest.iter().map(|cell| names(cell, primitive)).collect();
            Row {
                primitive: (*primitive).to_owned(),
                cells: cells
                    .try_into()
                    .unwrap_or_else(|cells: Vec<Cell>| panic!("`{primitive}` has {} cells, not 5", cells.len())),
            }
        })
        .collect();
    assert!(rows.len() >= 20, "only {} rows were found", rows.len());
    rows
}

/// Every name in a column, with the primitive that names it.
fn column(rows: &[Row], column: usize) -> impl Iterator<Item = (&str, &str)> {
    rows.iter().flat_map(move |row| {
        row.cells[column]
            .iter()
            .map(|name| (row.primitive.as_str(), name.as_str()))
    })
}

#[test]
fn its_fields_are_in_the_schema() {
    let schema: Value = serde_json::from_str(&read("platform/engine/src/spec/tests/schema.golden.json")).expect("JSON");
    for (primitive, name) in column(&rows(), SPEC) {
        let (of, field) = name
            .split_once('.')
            .unwrap_or_else(|| panic!("`{name}` is not `THING.FIELD`"));
        let found = if of == "workflow" {
            schema["properties"].get(field).is_some()
        } else {
            let thing = format!("{}{}", of[..1].to_uppercase(), &of[1..]);
            ["Source", "Fields"].iter().any(|kind| {
                schema["$defs"][format!("{thing}{kind}")]["properties"]
                    .get(field)
                    .is_some()
            })
        };
        assert!(found, "`{primitive}`: the schema has no `{name}`");
    }
}

#[test]
fn its_calls_are_operations_of_the_gateway() {
    let operations = folder("platform/gateway/src/operations");
    for (primitive, name) in column(&rows(), API) {
        assert!(
            operations.contains(&format!("\"{name}\"")),
            "`{primitive}`: the gateway has no operation `{name}`"
        );
    }
}

#[test]
fn its_simulations_are_all_there_are() {
    let rows = rows();
    let named: BTreeSet<&str> = column(&rows, SIMULATION).map(|(_, name)| name).collect();
    let entries = fs::read_dir(repository().join("tests/simulation/operations")).expect("operations");
    let files: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .collect();
    let files: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let unknown: Vec<_> = named.difference(&files).collect();
    assert!(
        unknown.is_empty(),
        "no such files in tests/simulation/operations: {unknown:?}"
    );
    let missing: Vec<_> = files.difference(&named).collect();
    assert!(
        missing.is_empty(),
        "operations that no row of docs/primitives.md names: {missing:?}"
    );
}

#[test]
fn its_tests_kill_a_daemon() {
    for (primitive, name) in column(&rows(), KILLED) {
        let (module, test) = name
            .split_once("::")
            .unwrap_or_else(|| panic!("`{name}` is not `MODULE::TEST`"));
        let source = ["tests/e2e", "tests/e2e/storage"]
            .iter()
            .map(|folder| repository().join(folder).join(format!("{module}.rs")))
            .find(|path| path.exists())
            .map(|path| fs::read_to_string(path).expect("a source"))
            .unwrap_or_else(|| panic!("`{primitive}`: there is no module `{module}` in tests/e2e"));
        let body = source
            .split_once(&format!("async fn {test}("))
            .map(|(_, rest)| rest.split_once("\n}").map_or(rest, |(body, _)| body))
            .unwrap_or_else(|| panic!("`{primitive}`: tests/e2e/{module}.rs has no test `{test}`"));
        assert!(
            ["kill_server", "Kill::Server", ".kill("]
                .iter()
                .any(|kill| body.contains(kill)),
            "`{primitive}`: {name} kills no daemon"
        );
    }
}

#[test]
fn its_reasons_are_all_that_a_task_can_wait_for() {
    let view = read("platform/engine/src/api/view.rs");
    let variants = view
        .split_once("pub enum WaitingView {")
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .map(|(body, _)| body)
        .expect("WaitingView");
    let snake = |name: &str| {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(letter.to_lowercase());
        }
        snake
    };
    let known: BTreeSet<String> = variants
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| snake(line.trim_end_matches([' ', '{', ','])))
        .collect();
    let rows = rows();
    let named: BTreeSet<String> = column(&rows, REASON).map(|(_, name)| name.to_owned()).collect();
    assert_eq!(named, known, "docs/primitives.md (left) and WaitingView (right) differ");
}
