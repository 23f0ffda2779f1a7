//! Documents and code say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gantry_tests::paths::repository;

/// The codes that `proto/src/error_code.rs` declares: `Variant = "code", "Title";`.
fn declared_codes() -> BTreeSet<String> {
    let source = fs::read_to_string(repository().join("proto/src/error_code.rs")).expect("the codes' source");
    let declaration = |line: &str| {
        let (variant, rest) = line.trim().split_once(" = \"")?;
        let (code, title) = rest.split_once("\", \"")?;
        (variant.chars().all(char::is_alphanumeric) && title.ends_with("\";")).then(|| code.to_owned())
    };
    let codes: BTreeSet<String> = source.lines().filter_map(declaration).collect();
    assert!(
        codes.len() > 20,
        "only {} codes were found: has the declaration's form changed?",
        codes.len()
    );
    codes
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let pages: BTreeSet<String> = fs::read_dir(repository().join("docs/errors"))
        .expect("docs/errors")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    let codes = declared_codes();
    let unexplained: Vec<_> = codes.difference(&pages).collect();
    assert!(
        unexplained.is_empty(),
        "write docs/errors/<code>.md (what it means, causes, remedy) for {unexplained:?}"
    );
    let unknown: Vec<_> = pages.difference(&codes).collect();
    assert!(unknown.is_empty(), "pages of no code: {unknown:?}");
    for code in &codes {
        let page = fs::read_to_string(repository().join(format!("docs/errors/{code}.md"))).expect("the page");
        assert!(page.trim().lines().count() >= 3, "docs/errors/{code}.md says nothing");
    }
}

/// Relative links of Markdown files lead somewhere.
#[test]
fn links_between_documents_lead_somewhere() {
    for file in super::sources::tracked().iter().filter(|file| file.ends_with(".md")) {
        let text = fs::read_to_string(repository().join(file)).expect("a document");
        let directory = Path::new(file).parent().expect("a file has a parent");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") || path.contains(' ') {
                continue;
            }
            assert!(
                repository().join(directory).join(path).exists(),
                "{file} links to {target}, which does not exist"
            );
        }
    }
}

#[test]
fn librocksdb_in_the_cache_is_the_version_that_the_workspace_names() {
    let script = fs::read_to_string(repository().join("deploy/lib/rocksdb.sh")).expect("rocksdb.sh");
    let built = script
        .lines()
        .find_map(|line| line.strip_prefix("CRATE_VERSION=\""))
        .and_then(|rest| rest.split('"').next())
        .expect("CRATE_VERSION");
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("Cargo.toml");
    let wanted = format!("rocksdb = {{ version = \"={built}\"");
    assert!(
        manifest.contains(&wanted),
        "deploy/lib/rocksdb.sh builds {built}, which Cargo.toml does not pin: headers and library must belong together"
    );
}

#[test]
fn libduckdb_in_the_cache_is_the_version_that_the_workspace_names() {
    let script = fs::read_to_string(repository().join("deploy/lib/duckdb.sh")).expect("duckdb.sh");
    let fetched = script
        .lines()
        .find_map(|line| line.strip_prefix("VERSION=\""))
        .and_then(|rest| rest.split('"').next())
        .expect("VERSION");
    // The crate's version is 1.<library's version as one number>.<patch>: 1.10506 is 1.5.6.
    let parts: Vec<u32> = fetched.split('.').map(|part| part.parse().expect("a number")).collect();
    let wanted = format!("duckdb = {{ version = \"=1.{}{:02}{:02}.", parts[0], parts[1], parts[2]);
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("Cargo.toml");
    assert!(
        manifest.contains(&wanted),
        "deploy/lib/duckdb.sh fetches {fetched}, which Cargo.toml does not pin: bindings and library must belong together"
    );
    let build = fs::read_to_string(repository().join("platform/query/worker/build.rs")).expect("build.rs");
    assert!(
        build.contains(&format!("duckdb/{fetched}-")),
        "platform/query/worker/build.rs looks for another version"
    );
}
