//! Search attributes, filters and bulk operations over `kill -9` of the daemon. None of it needs a container.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use gantry_tests::world::Scenario;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::SOON;

const WORKFLOWS: usize = 120;

fn definition() -> String {
    json!({
        "name": "order",
        "parameters": {"customer": {"type": "string"}, "amount": {"type": "integer"}},
        "attributes": {"customer": "{{ params.customer }}", "amount": "{{ params.amount }}"},
        "tasks": {
            "first": {"signal": {"name": "go"}},
            "second": {"needs": "first", "signal": {"name": "go"}},
        },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_operation_goes_on_after_the_death_of_the_daemon_and_acts_once() -> Result<()> {
    Scenario::dev("bulk")
        .run(async |world| {
            let api = &world.api;
            let mut ids = Vec::with_capacity(WORKFLOWS);
            for number in 0..WORKFLOWS {
                let customer = if number % 3 == 0 { "acme" } else { "initech" };
                let parameters = json!({"customer": customer, "amount": number});
                ids.push(api.submit(&definition(), parameters).await?);
            }
            let filter = "attr.customer == 'initech' && attr.amount >= 30";
            let listed = world
                .cli(&["-o", "json", "workflow", "ls", "--where", filter, "--limit", "500"])
                .await?
                .expect_code(0)?;
            let listed: Value = serde_json::from_str(&listed.stdout)?;
            ensure!(listed["items"].as_array().map(Vec::len) == Some(60), "{listed}");
            let wrong = world.cli(&["workflow", "ls", "--where", "attr.amount >>= 3"]).await?;
            ensure!(wrong.code == 2 && wrong.stderr.contains("column"), "{wrong:?}");
            let counted = world
                .cli(&["bulk", "cancel", "--where", filter, "--dry-run"])
                .await?
                .expect_code(0)?;
            ensure!(counted.stdout.contains("60 workflows"), "{}", counted.stdout);

            let body = json!({"operation": "signal", "signal": "go", "payload": {"n": 1}, "where": filter, "rate": 20});
            let reply = api.post("/api/v1/bulk", &body).await?;
            ensure!(reply.status == StatusCode::ACCEPTED, "{}", reply.status);
            let bulk = reply.json()?["id"].as_str().context("it has an id")?.to_owned();
            let path = format!("/api/v1/bulk/{bulk}");
            let done = |view: &Value| view["done"].as_u64().unwrap_or(0);
            // Three deaths, each in the middle.
            for part in [5, 20, 40] {
                loop {
                    let view: Value = api.read(&path).await?;
                    ensure!(view["state"] == "running" || done(&view) == 60, "{view}");
                    if done(&view) >= part {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                world.kill_server().await?;
                world.restart_server().await?;
            }
            let begun = tokio::time::Instant::now();
            let view = loop {
                let view: Value = api.read(&path).await?;
                if view["state"] != "running" {
                    break view;
                }
                ensure!(begun.elapsed() < SOON, "it does not end: {view}");
                tokio::task::yield_now().await;
            };
            ensure!(
                view["state"] == "completed" && view["matched"] == 60 && done(&view) == 60,
                "{view}"
            );

            let mut first: BTreeMap<String, u32> = BTreeMap::new();
            for id in &ids {
                let workflow = api.workflow(id).await?;
                let task = |name: &str| workflow.tasks.iter().find(|task| task.name == name);
                let state = |name: &str| task(name).map(|task| task.state.clone()).unwrap_or_default();
                ensure!(state("second") != "completed", "{id} got two signals");
                *first.entry(state("first")).or_default() += 1;
            }
            ensure!(first.get("completed") == Some(&60), "{first:?}");

            let ended = world
                .cli(&["bulk", "cancel", "--where", "state == 'active'", "--rate", "1000"])
                .await?
                .expect_code(0)?;
            ensure!(ended.stdout.contains("120 done"), "{}", ended.stdout);
            let rest: Value = api.read("/api/v1/workflows?state=cancelled&limit=500").await?;
            ensure!(rest["items"].as_array().map(Vec::len) == Some(WORKFLOWS), "{rest}");
            Ok(())
        })
        .await
}
