//! Pauses of definitions and of the tenant, and idempotency keys with a lifetime, over `kill -9` of the daemon. None of it needs a container.

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::wait::until;
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_definition_and_tenant_stay_paused_over_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("pauses")
        .run(async |world| {
            let api = &world.api;
            let nap = |name: &str| json!({"name": name, "tasks": {"t": {"sleep": 0}}}).to_string();
            let cli =
                async |arguments: &[&str]| -> Result<String> { Ok(world.cli(arguments).await?.expect_code(0)?.stdout) };
            let tenants: Value = serde_json::from_str(&cli(&["tenant", "ls", "-o", "json"]).await?)?;
            let tenant = tenants["items"][0]["id"].as_str().unwrap_or_default().to_owned();
            cli(&["tenant", "weigh", &tenant, "7"]).await?;
            cli(&["pause", "set", "--definition", "held", "-m", "wait for the audit"]).await?;
            let held = api.submit(&nap("held"), json!({})).await?;
            let free = api.submit(&nap("free"), json!({})).await?;
            api.ended(&free, SOON).await?;
            cli(&["pause", "set", "-m", "moving house"]).await?;
            let late = api.submit(&nap("late"), json!({})).await?;

            world.kill_server().await?;
            world.restart_server().await?;

            let tenants: Value = serde_json::from_str(&cli(&["tenant", "ls", "-o", "json"]).await?)?;
            ensure!(tenants["items"][0]["weight"] == 7, "{tenants}");
            let listed = cli(&["pause", "ls"]).await?;
            ensure!(
                listed.contains("moving house") && listed.contains("wait for the audit"),
                "{listed}"
            );
            let waiting = async |id: &str| -> Result<Value> {
                let document: Value = api.read(&format!("/api/v1/workflows/{id}")).await?;
                Ok(document["tasks"][0]["waiting"].clone())
            };
            let seen = waiting(&late).await?;
            let by = seen["by"].as_str().unwrap_or_default();
            ensure!(
                seen["reason"] == "paused" && seen["scope"] == "tenant" && seen["why"] == "moving house",
                "{seen}"
            );
            ensure!(by.starts_with("key_"), "{seen}");
            let seen = waiting(&held).await?;
            ensure!(
                seen["scope"] == "definition" && seen["why"] == "wait for the audit",
                "{seen}"
            );

            cli(&["pause", "lift"]).await?;
            let ended = api.ended(&late, SOON).await?;
            ensure!(ended.state == "completed", "{}", ended.state);
            ensure!(
                waiting(&held).await?["scope"] == "definition",
                "its definition is paused still"
            );
            cli(&["pause", "lift", "--definition", "held"]).await?;
            let ended = api.ended(&held, SOON).await?;
            ensure!(ended.state == "completed", "{}", ended.state);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_kept_as_long_as_was_asked_for_over_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("idempotency")
        .run(async |world| {
            let one = world.file("one.yaml", "{name: one, tasks: {t: {sleep: 0}}}")?;
            let two = world.file("two.yaml", "{name: two, tasks: {t: {sleep: 0}}}")?;
            let submit = async |file: &str| {
                let key = ["--idempotency-key", "nightly", "--idempotency-ttl-ms", "20000"];
                world.cli(&[&["run", file, "--detach"][..], &key].concat()).await
            };
            let first = submit(&one).await?.expect_code(0)?.stdout;
            world.kill_server().await?;
            world.restart_server().await?;
            ensure!(
                submit(&one).await?.expect_code(0)?.stdout == first,
                "the same request starts nothing"
            );
            let other = submit(&two).await?;
            ensure!(other.stderr.contains("idempotency"), "{}", other.stderr);
            let freed = until("the key to be free", Duration::from_secs(40), async || {
                let again = submit(&two).await?;
                Ok(again.stderr.is_empty().then_some(again.stdout))
            });
            ensure!(freed.await? != first, "another workflow has the key");
            Ok(())
        })
        .await
}
