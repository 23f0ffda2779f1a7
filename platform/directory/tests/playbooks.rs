//! Playbooks in a real file.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use gantry_directory::playbooks::{ExportedPlaybook, NewPlaybookVersion, PlaybookVersion};
use gantry_directory::{Directory, ManageError, Playbooks, SqliteDirectory};
use gantry_proto::TenantId;
use tempfile::TempDir;

async fn open() -> (TempDir, SqliteDirectory, TenantId) {
    let dir = TempDir::new().unwrap();
    let directory = SqliteDirectory::open(dir.path().join("directory.db")).await.unwrap();
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    (dir, directory, tenant)
}

fn new(tenant: TenantId, name: &str, digest: u8) -> NewPlaybookVersion {
    NewPlaybookVersion {
        tenant,
        name: name.into(),
        digest: [digest; 32],
        description: Some(format!("number {digest}")),
        note: None,
        source: format!("name: {name} # {digest}").into_bytes(),
        created_by: None,
        expected: None,
    }
}

#[tokio::test]
async fn versions_are_numbered_and_never_change() {
    let (_dir, directory, tenant) = open().await;
    let first = directory
        .create_playbook_version(new(tenant, "build", 1))
        .await
        .unwrap();
    assert!(first.created && first.version.version == 1);
    let same = directory
        .create_playbook_version(new(tenant, "build", 1))
        .await
        .unwrap();
    assert!(
        !same.created && same.version == first.version,
        "the same again is no version"
    );
    let second = directory
        .create_playbook_version(new(tenant, "build", 2))
        .await
        .unwrap();
    assert_eq!(second.version.version, 2);
    // Going back to an older definition is a version of its own.
    assert_eq!(
        directory
            .create_playbook_version(new(tenant, "build", 1))
            .await
            .unwrap()
            .version
            .version,
        3
    );

    let (version, source) = directory.playbook_source(tenant, "build", Some(2)).await.unwrap();
    assert_eq!((version.digest, source), ([2; 32], b"name: build # 2".to_vec()));
    let (newest, _) = directory.playbook_source(tenant, "build", None).await.unwrap();
    assert_eq!(newest.version, 3);
    let page = directory.playbook_versions(tenant, "build", Some(3), 10).await.unwrap();
    assert_eq!(page.iter().map(|each| each.version).collect::<Vec<_>>(), [2, 1]);
    let shown = directory.playbook(tenant, "build").await.unwrap();
    assert_eq!((shown.latest, shown.description.as_deref()), (3, Some("number 1")));
}

#[tokio::test]
async fn who_has_not_seen_the_newest_version_is_refused() {
    let (_dir, directory, tenant) = open().await;
    let expecting = |digest, expected| NewPlaybookVersion {
        expected: Some(expected),
        ..new(tenant, "build", digest)
    };
    assert!(matches!(
        directory.create_playbook_version(expecting(1, 1)).await,
        Err(ManageError::Conflict(_))
    ));
    directory.create_playbook_version(expecting(1, 0)).await.unwrap();
    let refused = directory.create_playbook_version(expecting(2, 0)).await.unwrap_err();
    assert!(refused.to_string().contains("version 1"), "{refused}");
    directory.create_playbook_version(expecting(2, 1)).await.unwrap();
}

#[tokio::test]
async fn another_tenant_sees_nothing() {
    let (_dir, directory, tenant) = open().await;
    let other = directory.create_tenant("other").await.unwrap().id;
    directory
        .create_playbook_version(new(tenant, "build", 1))
        .await
        .unwrap();
    assert!(matches!(
        directory.playbook(other, "build").await,
        Err(ManageError::NotFound)
    ));
    assert!(matches!(
        directory.playbook_source(other, "build", None).await,
        Err(ManageError::NotFound)
    ));
    assert!(directory.playbooks(other, false, None, 10).await.unwrap().is_empty());
    // The same name there is another playbook.
    let theirs = directory.create_playbook_version(new(other, "build", 9)).await.unwrap();
    assert_eq!(theirs.version.version, 1);
}

#[tokio::test]
async fn archived_ones_take_no_versions_until_restored() {
    let (_dir, directory, tenant) = open().await;
    directory.create_playbook_version(new(tenant, "a", 1)).await.unwrap();
    directory.create_playbook_version(new(tenant, "b", 1)).await.unwrap();
    let archived = directory.archive_playbook(tenant, "a", true, None).await.unwrap();
    assert!(archived.archived_at_ms.is_some());
    let again = directory.archive_playbook(tenant, "a", true, None).await.unwrap();
    assert_eq!(again, archived, "repeating it changes nothing");
    assert!(matches!(
        directory.create_playbook_version(new(tenant, "a", 2)).await,
        Err(ManageError::Conflict(_))
    ));
    let names =
        |list: Vec<gantry_directory::playbooks::Playbook>| list.into_iter().map(|each| each.name).collect::<Vec<_>>();
    assert_eq!(
        names(directory.playbooks(tenant, false, None, 10).await.unwrap()),
        ["b"]
    );
    assert_eq!(names(directory.playbooks(tenant, true, None, 10).await.unwrap()), ["a"]);
    directory.archive_playbook(tenant, "a", false, None).await.unwrap();
    directory.create_playbook_version(new(tenant, "a", 2)).await.unwrap();
    assert!(matches!(
        directory.archive_playbook(tenant, "none", true, None).await,
        Err(ManageError::NotFound)
    ));
}

fn exported(name: &str, digests: &[u8]) -> ExportedPlaybook {
    let versions = (1u32..).zip(digests).map(|(version, digest)| {
        let meta = PlaybookVersion {
            name: name.into(),
            version,
            digest: [*digest; 32],
            description: None,
            note: Some("moved".into()),
            created_at_ms: 5,
            created_by: None,
        };
        (meta, vec![*digest])
    });
    ExportedPlaybook {
        name: name.into(),
        versions: versions.collect(),
    }
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_can_be_repeated() {
    let (_dir, directory, tenant) = open().await;
    let both = vec![exported("a", &[1, 2]), exported("b", &[3])];
    assert_eq!(directory.import_playbooks(tenant, both.clone(), None).await.unwrap(), 3);
    assert_eq!(directory.import_playbooks(tenant, both, None).await.unwrap(), 0);
    assert_eq!(
        directory
            .import_playbooks(tenant, vec![exported("a", &[1, 2, 4])], None)
            .await
            .unwrap(),
        1
    );
    // `c` would be new, `b` differs: nothing comes in.
    let refused = directory
        .import_playbooks(tenant, vec![exported("c", &[1]), exported("b", &[4])], None)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ManageError::Conflict(why) if why.contains("`b`")),
        "{refused}"
    );
    assert!(matches!(
        directory.playbook(tenant, "c").await,
        Err(ManageError::NotFound)
    ));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_with_its_reason() {
    let (_dir, directory, tenant) = open().await;
    for bad in [
        NewPlaybookVersion {
            name: String::new(),
            ..new(tenant, "x", 1)
        },
        NewPlaybookVersion {
            note: Some("n".repeat(5_000)),
            ..new(tenant, "x", 1)
        },
        NewPlaybookVersion {
            source: Vec::new(),
            ..new(tenant, "x", 1)
        },
    ] {
        assert!(matches!(
            directory.create_playbook_version(bad).await,
            Err(ManageError::Invalid(_))
        ));
    }
    assert!(directory.playbooks(tenant, false, None, 10).await.unwrap().is_empty());
}
