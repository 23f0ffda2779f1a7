//! API keys: scopes, revocation, and what nobody may do.

use anyhow::{Context, Result};
use gantry_tests::api::accepted;
use gantry_tests::world::Scenario;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{SOON, steps};

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_allows_what_it_names_and_nothing_more() -> Result<()> {
    Scenario::dev("keys-scopes")
        .run(async |world| {
            let key = async |scope: &str| -> Result<String> {
                let reply = world
                    .api
                    .post("/api/v1/keys", &json!({ "name": scope, "scope": scope }))
                    .await?;
                assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
                Ok(reply.json()?["key"]
                    .as_str()
                    .context("the key is shown once")?
                    .to_owned())
            };
            let (read, operate) = (
                world.api.with_key(key("read").await?),
                world.api.with_key(key("operate").await?),
            );
            let definition = steps(&["true"]);
            let id = accepted(&operate.try_submit(&definition, json!({}), None).await?)?;

            // Method, path, body, then the status for: nobody, read, operate, admin.
            let submit = json!({ "definition": definition, "parameters": {} });
            let workflow = format!("/api/v1/workflows/{id}");
            let cancel = format!("{workflow}:cancel");
            let table: [(Method, &str, Option<Value>, [u16; 4]); 7] = [
                (Method::GET, "/healthz", None, [200, 200, 200, 200]),
                (Method::GET, "/api/v1/workflows", None, [401, 200, 200, 200]),
                (Method::GET, &workflow, None, [401, 200, 200, 200]),
                (Method::POST, "/api/v1/workflows", Some(submit), [401, 403, 201, 201]),
                (Method::POST, &cancel, Some(json!({})), [401, 403, 202, 202]),
                (Method::GET, "/api/v1/keys", None, [401, 403, 403, 200]),
                (
                    Method::POST,
                    "/api/v1/keys",
                    Some(json!({ "name": "more", "scope": "read" })),
                    [401, 403, 403, 201],
                ),
            ];
            // The cancelled one may have ended by then: 409 is an allowed answer of the same permission.
            for (method, path, body, expected) in table {
                for (who, (api, status)) in [world.api.with_key(""), read.clone(), operate.clone(), world.api.clone()]
                    .iter()
                    .zip(expected)
                    .enumerate()
                {
                    let reply = api.call(method.clone(), path, body.as_ref()).await?;
                    let got = reply.status.as_u16();
                    assert!(
                        got == status || (status == 202 && got == 409),
                        "{method} {path} as caller {who}: {got} instead of {status}"
                    );
                    if got == 401 {
                        assert_eq!(reply.problem_code()?, "unauthenticated");
                    } else if got == 403 {
                        assert_eq!(reply.problem_code()?, "forbidden");
                    }
                }
            }
            world.api.ended(&id, SOON).await?;
            let open: Value = world.api.read("/api/v1/workflows?state=pending,active").await?;
            for workflow in open["items"].as_array().into_iter().flatten() {
                world.api.ended(workflow["id"].as_str().context("id")?, SOON).await?;
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once_and_after_a_restart() -> Result<()> {
    Scenario::dev("keys-revoke")
        .run(async |world| {
            let created = world
                .cli(&["key", "create", "short-lived", "--scope", "read", "-o", "json"])
                .await?
                .expect_code(0)?
                .json()?;
            let key = created["key"].as_str().context("key")?;
            let api = world.api.with_key(key);
            assert_eq!(
                api.get("/api/v1/workflows").await?.status,
                200,
                "and its verification is cached now"
            );

            let listed = world.cli(&["key", "ls", "-o", "json"]).await?.expect_code(0)?;
            assert!(
                listed.stdout.contains("short-lived") && !listed.stdout.contains(key),
                "a list shows no secret"
            );
            world
                .cli(&["key", "revoke", created["id"].as_str().context("id")?])
                .await?
                .expect_code(0)?;
            assert_eq!(api.get("/api/v1/workflows").await?.status, 401);

            world.kill_server().await?;
            world.restart_server().await?;
            assert_eq!(api.get("/api/v1/workflows").await?.status, 401);
            for wrong in ["ab_", "nonsense", &format!("{key}x"), &key[..key.len() - 1]] {
                assert_eq!(
                    world.api.with_key(wrong).get("/api/v1/workflows").await?.status,
                    401,
                    "{wrong}"
                );
            }

            let log = std::fs::read_to_string(world.root().join("server.log"))?;
            let secret = world.api.key.rsplit('_').next().context("a secret")?;
            assert!(!log.contains(secret) && !log.contains(key), "no key is logged");
            Ok(())
        })
        .await
}
