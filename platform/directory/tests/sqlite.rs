//! The SQLite directory against real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)] // helpers of tests are tests

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_directory::*;
use gantry_proto::time::Clock;
use gantry_proto::{NodeId, PartitionId, TenantId};
use secrecy::ExposeSecret;
use tempfile::TempDir;

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

const START_MS: u64 = 1_800_000_000_000;

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicU64::new(START_MS)))
}

async fn open(dir: &TempDir) -> SqliteDirectory {
    SqliteDirectory::open(dir.path().join("directory.db")).await.unwrap()
}

fn new_key(tenant: TenantId, scope: Scope) -> NewKey {
    NewKey {
        tenant,
        name: "ci".into(),
        scope,
        expires_at_ms: None,
        created_by: None,
    }
}

/// Another secret: its first character differs.
fn replace_secret(token: &str) -> String {
    let (head, secret) = token.rsplit_once('_').unwrap();
    let other = if secret.starts_with('0') { '1' } else { '0' };
    format!("{head}_{other}{}", &secret[1..])
}

async fn sql(path: &Path, statement: &'static str) {
    use sqlx::Connection;
    let mut connection =
        sqlx::SqliteConnection::connect_with(&sqlx::sqlite::SqliteConnectOptions::new().filename(path))
            .await
            .unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn bootstrap_makes_one_admin_key_and_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let first = directory.ensure_bootstrap().await.unwrap();
    let admin = first.admin.expect("the first start makes a key");
    let again = directory.ensure_bootstrap().await.unwrap();
    assert!(again.admin.is_none());
    assert_eq!(again.tenant, first.tenant);
    let installation = directory.installation();
    directory.close().await;

    let directory = open(&dir).await;
    assert_eq!(directory.installation(), installation);
    let key = directory.authenticate_key(admin.token.expose_secret()).await.unwrap();
    assert_eq!(
        (key.id, key.tenant, key.scope),
        (admin.record.id, first.tenant, Scope::Admin)
    );
    assert!(directory.ensure_bootstrap().await.unwrap().admin.is_none());
    directory.close().await;
    let mode = std::fs::metadata(dir.path().join("directory.db"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn many_that_start_at_once_make_one_key() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("directory.db");
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move {
                let directory = SqliteDirectory::open(path).await.unwrap();
                let made = directory.ensure_bootstrap().await.unwrap();
                let installation = directory.installation();
                directory.close().await;
                (installation, made.tenant, made.admin.is_some())
            })
        })
        .collect();
    let mut found = Vec::new();
    for start in starts {
        found.push(start.await.unwrap());
    }
    assert_eq!(found.iter().filter(|(_, _, made)| *made).count(), 1);
    assert!(
        found
            .iter()
            .all(|(installation, tenant, _)| (*installation, *tenant) == (found[0].0, found[0].1))
    );
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_though_it_was_cached() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let other = directory.create_tenant("other").await.unwrap();
    let issued = directory.create_key(new_key(tenant, Scope::Operate)).await.unwrap();
    let token = issued.token.expose_secret();
    for _ in 0..3 {
        assert_eq!(directory.authenticate_key(token).await.unwrap().id, issued.record.id);
    }
    assert!(
        matches!(
            directory.revoke_key(other.id, issued.record.id, None).await,
            Err(ManageError::NotFound)
        ),
        "another tenant's key does not exist"
    );
    assert!(directory.authenticate_key(token).await.is_ok());
    assert!(directory.key_lives(issued.record.id).await.unwrap());

    let revoked = directory.revoke_key(tenant, issued.record.id, None).await.unwrap();
    assert!(revoked.revoked_at_ms.is_some());
    assert!(!directory.key_lives(issued.record.id).await.unwrap());
    assert!(matches!(
        directory.authenticate_key(token).await,
        Err(AuthError::Revoked)
    ));
    assert!(
        matches!(
            directory.authenticate_key(&replace_secret(token)).await,
            Err(AuthError::Unknown)
        ),
        "without the secret nobody learns that it was revoked"
    );
    let again = directory.revoke_key(tenant, issued.record.id, None).await.unwrap();
    assert_eq!(again.revoked_at_ms, revoked.revoked_at_ms);
    directory.close().await;
}

#[tokio::test]
async fn another_process_revocation_is_seen_when_the_row_is_read_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("directory.db");
    let here = SqliteDirectory::open_with(
        &path,
        Options {
            recheck: Duration::ZERO,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let there = SqliteDirectory::open(&path).await.unwrap();
    let tenant = here.ensure_bootstrap().await.unwrap().tenant;
    let issued = there.create_key(new_key(tenant, Scope::Read)).await.unwrap();
    let token = issued.token.expose_secret();
    assert!(here.authenticate_key(token).await.is_ok());
    assert!(here.authenticate_key(token).await.is_ok());
    there.revoke_key(tenant, issued.record.id, None).await.unwrap();
    assert!(matches!(here.authenticate_key(token).await, Err(AuthError::Revoked)));
    here.close().await;
    there.close().await;
}

#[tokio::test]
async fn a_key_ends_at_its_time_though_it_was_cached() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    let options = Options {
        clock: clock.clone(),
        recheck: Duration::from_secs(3_600),
    };
    let directory = SqliteDirectory::open_with(dir.path().join("directory.db"), options)
        .await
        .unwrap();
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let past = NewKey {
        expires_at_ms: Some(START_MS),
        ..new_key(tenant, Scope::Read)
    };
    assert!(matches!(directory.create_key(past).await, Err(ManageError::Invalid(_))));
    let issued = directory
        .create_key(NewKey {
            expires_at_ms: Some(START_MS + 10),
            ..new_key(tenant, Scope::Read)
        })
        .await
        .unwrap();
    assert!(directory.authenticate_key(issued.token.expose_secret()).await.is_ok());
    clock.0.store(START_MS + 9, Ordering::SeqCst);
    assert!(directory.authenticate_key(issued.token.expose_secret()).await.is_ok());
    clock.0.store(START_MS + 10, Ordering::SeqCst);
    assert!(matches!(
        directory.authenticate_key(issued.token.expose_secret()).await,
        Err(AuthError::Expired)
    ));
    directory.close().await;
}

#[tokio::test]
async fn node_tokens_and_api_keys_are_never_taken_for_each_other() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let made = directory.ensure_bootstrap().await.unwrap();
    let key = made.admin.unwrap().token;
    let other = directory.create_tenant("other").await.unwrap();
    let node = |tenant, shared| NewNodeToken {
        tenant,
        name: "rack 1".into(),
        shared,
        created_by: None,
    };
    let shared = directory.create_node_token(node(made.tenant, true)).await.unwrap();
    let bound = directory.create_node_token(node(other.id, false)).await.unwrap();
    assert!(matches!(
        directory.create_node_token(node(other.id, true)).await,
        Err(ManageError::Forbidden(_))
    ));

    assert!(matches!(
        directory.authenticate_node(key.expose_secret()).await,
        Err(AuthError::WrongKind)
    ));
    assert!(matches!(
        directory.authenticate_key(shared.token.expose_secret()).await,
        Err(AuthError::WrongKind)
    ));
    let dressed_up = shared.token.expose_secret().replacen("gn_", "ab_", 1);
    assert!(matches!(
        directory.authenticate_key(&dressed_up).await,
        Err(AuthError::Unknown)
    ));
    let dressed_up = key.expose_secret().replacen("ab_", "gn_", 1);
    assert!(matches!(
        directory.authenticate_node(&dressed_up).await,
        Err(AuthError::Unknown)
    ));

    assert_eq!(
        directory
            .authenticate_node(shared.token.expose_secret())
            .await
            .unwrap()
            .serves,
        Serves::All
    );
    let identity = directory.authenticate_node(bound.token.expose_secret()).await.unwrap();
    assert_eq!(
        (identity.token, identity.serves),
        (bound.record.id, Serves::Tenant(other.id))
    );
    assert_eq!(directory.node_tokens(other.id, None, 10).await.unwrap().len(), 1);

    assert!(directory.node_token_lives(bound.record.id).await.unwrap());
    assert!(matches!(
        directory.revoke_node_token(made.tenant, bound.record.id, None).await,
        Err(ManageError::NotFound)
    ));
    directory
        .revoke_node_token(other.id, bound.record.id, None)
        .await
        .unwrap();
    assert!(!directory.node_token_lives(bound.record.id).await.unwrap());
    assert!(matches!(
        directory.authenticate_node(bound.token.expose_secret()).await,
        Err(AuthError::Revoked)
    ));
    directory.close().await;
}

#[tokio::test]
async fn one_token_speaks_for_a_node_until_it_is_revoked() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let other = directory.create_tenant("other").await.unwrap().id;
    let make = async |tenant, shared| {
        let new = NewNodeToken {
            tenant,
            name: "builder".into(),
            shared,
            created_by: None,
        };
        directory.create_node_token(new).await.unwrap().record.id
    };
    let (first, second, foreign, shared) = (
        make(tenant, false).await,
        make(tenant, false).await,
        make(other, false).await,
        make(tenant, true).await,
    );
    let node = NodeId::new(1, PartitionId::default(), 1);

    directory.bind_node(Some(first), node).await.unwrap();
    directory.bind_node(Some(first), node).await.unwrap();
    for stranger in [second, foreign, shared] {
        let refused = directory.bind_node(Some(stranger), node).await;
        assert!(matches!(refused, Err(ManageError::Forbidden(_))), "{refused:?}");
    }
    directory.revoke_node_token(tenant, first, None).await.unwrap();
    for stranger in [foreign, shared] {
        let refused = directory.bind_node(Some(stranger), node).await;
        assert!(matches!(refused, Err(ManageError::Forbidden(_))), "{refused:?}");
    }
    directory.bind_node(Some(second), node).await.unwrap();

    let own = NodeId::new(1, PartitionId::default(), 2);
    directory.bind_node(None, own).await.unwrap();
    assert!(matches!(
        directory.bind_node(Some(second), own).await,
        Err(ManageError::Forbidden(_))
    ));
    directory.close().await;
}

#[tokio::test]
async fn keys_made_at_once_all_work_and_pages_have_no_gap() {
    let dir = TempDir::new().unwrap();
    let directory = Arc::new(open(&dir).await);
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.create_key(new_key(tenant, Scope::Read)).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        let issued = task.await.unwrap();
        assert!(directory.authenticate_key(issued.token.expose_secret()).await.is_ok());
        made.push(issued.record.id);
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = directory.keys(tenant, after, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|key| key.id));
    }
    assert!(
        listed.windows(2).all(|pair| pair[0] > pair[1]),
        "newest first, none twice"
    );
    assert_eq!(listed.len(), 13);
    assert!(made.iter().all(|id| listed.contains(id)));
    directory.close().await;
}

#[tokio::test]
async fn last_use_is_written_and_secrets_are_not_stored() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    let path = dir.path().join("directory.db");
    let directory = SqliteDirectory::open_with(
        &path,
        Options {
            clock: clock.clone(),
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let made = directory.ensure_bootstrap().await.unwrap();
    let token = made.admin.unwrap().token;
    directory.authenticate_key(token.expose_secret()).await.unwrap();
    directory.close().await;

    let directory = SqliteDirectory::open(&path).await.unwrap();
    assert_eq!(
        directory.keys(made.tenant, None, 10).await.unwrap()[0].last_used_at_ms,
        Some(START_MS)
    );
    directory.close().await;
    let secret = token.expose_secret().rsplit('_').next().unwrap().to_owned();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("directory.db");
    open(&dir).await.close().await;
    sql(&path, "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'future', 1, x'00', 0)").await;
    let error = SqliteDirectory::open(&path).await.err().expect("refused");
    assert!(matches!(error, OpenError::NewerSchema { found: 9999, .. }));
    assert!(error.to_string().contains("upgrade Gantry"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("directory.db");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    assert!(SqliteDirectory::open(&path).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), vec![7u8; 8192], "left as it was");
}

#[tokio::test]
async fn names_and_tenants_are_checked() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    for name in ["", "  ", "a\nb", &"x".repeat(129)] {
        let bad = NewKey {
            name: name.into(),
            ..new_key(tenant, Scope::Read)
        };
        assert!(
            matches!(directory.create_key(bad).await, Err(ManageError::Invalid(_))),
            "{name:?}"
        );
    }
    let nobody = TenantId::new(1, PartitionId::default(), 1);
    assert!(matches!(
        directory.create_key(new_key(nobody, Scope::Read)).await,
        Err(ManageError::NotFound)
    ));
    assert!(matches!(
        directory.create_tenant(DEFAULT_TENANT).await,
        Err(ManageError::Conflict(_))
    ));
    directory.close().await;
}

#[tokio::test]
async fn a_tenant_weighs_one_until_somebody_says_otherwise_and_keeps_that() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).await;
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let other = directory.create_tenant("other").await.unwrap();
    assert_eq!(other.weight, 1);
    let weighed = directory.weigh_tenant(other.id, 7).await.unwrap().unwrap();
    assert_eq!((weighed.id, weighed.weight), (other.id, 7));
    for weight in [0, 1_001] {
        let refused = directory.weigh_tenant(other.id, weight).await;
        assert!(matches!(refused, Err(ManageError::Invalid(_))), "{refused:?}");
    }
    let unknown = TenantId::new(1, PartitionId::default(), 5);
    assert!(directory.weigh_tenant(unknown, 2).await.unwrap().is_none());
    directory.close().await;
    let directory = open(&dir).await;
    let weights = directory.tenants().await.unwrap();
    let weights: Vec<_> = weights.into_iter().map(|each| (each.id, each.weight)).collect();
    assert!(
        weights.contains(&(tenant, 1)) && weights.contains(&(other.id, 7)),
        "{weights:?}"
    );
}
