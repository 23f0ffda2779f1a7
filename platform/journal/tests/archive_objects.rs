//! Sealed objects in a directory and in a real S3-compatible service, through the same calls.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
use std::path::Path;

use bytes::Bytes;
use gantry_journal::archive::{ArchiveStore, ObjectError, S3Config};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const KEY: &str = "AKEXAMPLE";
const SECRET: &str = "a-secret-of-the-test";
const BUCKET: &str = "gantry-archive";

/// An S3 service over a directory, on a port of its own. Ends when it is dropped.
struct S3 {
    endpoint: String,
    _server: JoinSet<()>,
}

async fn serve(root: &Path) -> S3 {
    std::fs::create_dir(root.join(BUCKET)).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            connections.spawn(async move {
                let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A client that goes away is no failure of the test.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    S3 {
        endpoint,
        _server: server,
    }
}

fn config(endpoint: &str, secret: &str) -> S3Config {
    S3Config {
        bucket: BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        prefix: "one/installation".to_owned(),
        access_key_id: Some(KEY.to_owned()),
        secret_access_key: Some(secret.to_owned().into()),
    }
}

/// What every kind of object storage must do.
async fn behaves(store: &ArchiveStore) {
    let name =
        "archive/ten_1/2026-11-21/events/000-0000000000000001-0000000000000001-0000000000000002-00000000.parquet";
    let bytes = Bytes::from(vec![7; 300_000]);
    let digest = blake3::hash(&bytes);
    assert!(matches!(
        store.get(name, digest.as_bytes()).await,
        Err(ObjectError::NotFound { .. })
    ));
    assert!(store.list(10).await.unwrap().is_empty());
    store.put(name, bytes.clone()).await.unwrap();
    // Again, as after an upload whose answer was lost.
    store.put(name, bytes.clone()).await.unwrap();
    assert_eq!(store.get(name, digest.as_bytes()).await.unwrap(), bytes);
    let other = name.replace("events", "tasks");
    store.put(&other, Bytes::from_static(b"x")).await.unwrap();
    let mut listed = store.list(10).await.unwrap();
    listed.sort();
    assert_eq!(listed, [name.to_owned(), other.clone()]);
    assert_eq!(store.list(1).await.unwrap().len(), 1, "bounded");
    store.delete(name).await.unwrap();
    store.delete(name).await.unwrap();
    assert_eq!(store.list(10).await.unwrap(), std::slice::from_ref(&other));
    let damaged = store.get(&other, digest.as_bytes()).await;
    assert!(matches!(damaged, Err(ObjectError::Damaged { .. })), "{damaged:?}");
}

#[tokio::test]
async fn files_behave() {
    let dir = tempfile::tempdir().unwrap();
    let store = ArchiveStore::local(&dir.path().join("objects")).unwrap();
    behaves(&store).await;
    let path = store.local_path("archive/a.parquet").unwrap();
    assert!(path.starts_with(dir.path()));
}

#[tokio::test]
async fn a_bucket_behaves() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = serve(dir.path()).await;
    let store = ArchiveStore::s3(&config(&s3.endpoint, SECRET)).unwrap();
    behaves(&store).await;
    assert!(store.local_path("archive/a.parquet").is_none());
    // What is beside our prefix is not ours.
    std::fs::write(dir.path().join(BUCKET).join("archive"), b"x").unwrap();
    assert_eq!(store.list(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_secret_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = serve(dir.path()).await;
    let store = ArchiveStore::s3(&config(&s3.endpoint, "another")).unwrap();
    let refused = store.put("archive/x", Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(ObjectError::Store(_))), "{refused:?}");
}
