//! What an operator does with stored data: backup, restore, a look inside, an upgrade, and what damage does to a start.

mod backup;
mod damage;
mod inspect;

use anyhow::Result;
use gantry_tests::alone::Alone;
use gantry_tests::api::accepted;
use serde_json::{Value, json};

/// A workflow that no node can run: it stays active, and is known by its id.
pub(crate) async fn submit(alone: &Alone, secret: &str) -> Result<String> {
    let definition = json!({
        "name": "kept",
        "tasks": {"work": {"requires": {"capabilities": ["nobody-has-this"]}, "run": format!("echo {secret}")}},
    });
    accepted(&alone.api.try_submit(&definition.to_string(), json!({}), None).await?)
}

/// The verify digest of a data directory whose server does not run.
pub(crate) async fn digest(alone: &Alone, data: &str) -> Result<String> {
    let output = alone
        .cli(&["journal", "verify", "--data-dir", data, "-o", "json"])
        .await?;
    let report: Value = output.expect_code(0)?.json()?;
    assert_eq!(report["ok"], true);
    Ok(report["verify_digest"].as_str().unwrap_or_default().to_owned())
}
