//! Many workflows at once on one node.

use std::time::Duration;

use anyhow::Result;
use gantry_tests::wait;
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::steps;

const WORKFLOWS: usize = 200;
const DEADLINE: Duration = Duration::from_secs(900);
const MEMORY_MAX: u64 = 150 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_workflows_of_three_containers_complete_in_little_memory() -> Result<()> {
    Scenario::dev("load")
        .slots(8)
        .run(async |world| {
            let definition = steps(&[
                "echo one > count",
                "echo two >> count",
                "test \"$(wc -l < count)\" = 2; echo three",
            ]);
            for _ in 0..WORKFLOWS {
                world.api.submit(&definition, json!({})).await?;
            }
            let open = "/api/v1/workflows?state=pending,active,paused&limit=1";
            wait::until("all workflows to end", DEADLINE, async || {
                let page: Value = world.api.read(open).await?;
                Ok(page["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
            })
            .await?;
            let completed: Value = world.api.read("/api/v1/workflows?state=completed&limit=500").await?;
            assert_eq!(completed["items"].as_array().map(Vec::len), Some(WORKFLOWS));
            let peak = world.server_memory_bytes("VmHWM").await?;
            eprintln!("the daemon's greatest resident memory: {} MiB", peak >> 20);
            assert!(peak < MEMORY_MAX, "the daemon took {peak} bytes");

            let created = world
                .docker_events()
                .all()
                .iter()
                .filter(|event| event.action == "create")
                .count();
            assert_eq!(created, WORKFLOWS * 3, "one fresh container for each step");
            Ok(())
        })
        .await
}
