//! Embeds the pages of docs/errors, so that the binary explains its own errors.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let pages = root.join("../../docs/errors");
    println!("cargo::rerun-if-changed={}", pages.display());
    let mut found = Vec::new();
    // Absent only while the repository is being laid out; `tests/run tidy` checks that each code has its page.
    if pages.is_dir() {
        for entry in std::fs::read_dir(&pages)? {
            let path = entry?.path();
            let is_page = path.extension().is_some_and(|extension| extension == "md")
                && path.file_stem().is_some_and(|stem| stem != "README");
            if is_page {
                found.push(path.canonicalize()?);
            }
        }
    }
    found.sort();
    let mut code = String::from(
        "/// Pages of docs/errors by their name without `.md`, sorted.\npub(crate) static PAGES: &[(&str, &str)] = &[\n",
    );
    for path in found {
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("a page's name is not UTF-8")?;
        writeln!(code, "    ({name:?}, include_str!({path:?})),")?;
    }
    code.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("error_pages.rs"), code)?;
    Ok(())
}
