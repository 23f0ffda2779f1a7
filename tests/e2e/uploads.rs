//! Files from outside as inputs.

use anyhow::Result;
use gantry_tests::wait;
use gantry_tests::world::Scenario;
use reqwest::Method;
use serde_json::json;

use crate::SOON;

const DEFINITION: &str = r#"
name: takes-an-upload
parameters:
  file: { type: string }
tasks:
  read:
    inputs:
      - { upload: "{{ params.file }}", path: in/blob.bin }
    steps:
      - run: |
          sha256sum < in/blob.bin | cut -d' ' -f1
          cp in/blob.bin out.bin
        artifacts: [out.bin]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_step_reads_an_upload_byte_for_byte_and_a_missing_one_is_named() -> Result<()> {
    Scenario::dev("uploads")
        .run(async |world| {
            // Every byte value, over several frames, and no text.
            let content: Vec<u8> = (0..300_000u32)
                .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
                .collect();
            let definition = world.file("takes.yaml", DEFINITION)?;
            let file = world.file("blob.bin", "")?;
            std::fs::write(&file, &content)?;

            let upload = format!("file={file}");
            let run = world
                .cli(&["run", &definition, "--upload", &upload, "-o", "json"])
                .await?;
            let id = run.expect_code(0)?.json()?["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let (_, read) = world.api.artifact(&id, "out.bin").await?;
            assert!(read == content, "{} bytes came back of {}", read.len(), content.len());
            let listed = world
                .cli(&["upload", "ls", "-o", "json"])
                .await?
                .expect_code(0)?
                .json()?;
            let kept = &listed["items"][0];
            assert_eq!(
                (&kept["name"], &kept["size_bytes"]),
                (&json!("blob.bin"), &json!(content.len()))
            );
            let printed = world.api.log(&id, "read", "step-1", 1, "stdout").await?;
            assert_eq!(json!(printed.trim()), kept["sha256"]);

            // Ended, a workflow that took it keeps its own; a new one is refused.
            let upload = kept["id"].as_str().unwrap_or_default();
            world.cli(&["upload", "rm", upload]).await?.expect_code(0)?;
            let refused = world.api.try_submit(DEFINITION, json!({"file": upload}), None).await?;
            assert_eq!(
                (refused.status.as_u16(), refused.problem_code()?.as_str()),
                (422, "upload-missing")
            );
            assert_eq!(refused.json()?["issues"][0]["path"], "/tasks/read/inputs/0/upload");
            assert!(world.api.artifact(&id, "out.bin").await?.1 == content);

            let short = world.cli(&["upload", &file, "--ttl", "1"]).await?.expect_code(0)?;
            let short = short.stdout.trim().to_owned();
            wait::until("the upload to expire", SOON, async || {
                let found = world
                    .api
                    .call(Method::GET, &format!("/api/v1/uploads/{short}"), None)
                    .await?;
                Ok((found.status == 404).then_some(()))
            })
            .await?;
            let refused = world.api.try_submit(DEFINITION, json!({"file": short}), None).await?;
            assert_eq!(refused.problem_code()?, "upload-missing");
            let blobs = world.root().join("data/blobs/uploads");
            wait::until("the objects of ended uploads to go", SOON, async || {
                let mut left = 0;
                for tenant in std::fs::read_dir(&blobs)? {
                    left += std::fs::read_dir(tenant?.path())?.count();
                }
                Ok((left == 0).then_some(()))
            })
            .await
        })
        .await
}
