//! What it refuses, and that nothing gets out.

use std::fs;
use std::os::unix::process::CommandExt as _;

use gantry_proto::v1::QueryFault;

use crate::support::{ask, failure, read, rows};

#[test]
fn only_reading_statements_are_taken() {
    for sql in [
        "COPY things TO 'out.csv'",
        "COPY (SELECT 1) TO '/tmp/gantry-query-test.csv'",
        "EXPORT DATABASE '/tmp/gantry-query-test'",
        "ATTACH '/tmp/x.db'",
        "ATTACH ':memory:' AS z",
        "DETACH memory",
        "USE tail",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '10GB'",
        "RESET memory_limit",
        "SET VARIABLE x = 1",
        "PRAGMA database_list",
        "PRAGMA table_info('things')",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SECRET s (TYPE s3)",
        "CREATE MACRO m() AS 1",
        "INSERT INTO tail.things VALUES ('x')",
        "UPDATE tail.things SET size = 0",
        "DELETE FROM tail.things",
        "DROP VIEW things",
        "ALTER TABLE tail.things ADD COLUMN x INTEGER",
        "PREPARE x AS SELECT 1",
        "EXECUTE x",
        "CHECKPOINT",
        "VACUUM",
        "BEGIN",
        "IMPORT DATABASE 'x'",
        "EXPLAIN ANALYZE COPY things TO 'out.csv'",
        "EXPLAIN DROP VIEW things",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY things TO 'out.csv'",
        "",
        "-- nothing",
    ] {
        let (fault, message) = failure(sql);
        assert_eq!(fault, QueryFault::Refused, "{sql}: {message}");
        assert!(!message.is_empty());
    }
    // It begins like one that reads: the parser's word decides.
    let (fault, message) = failure("WITH x AS (SELECT 'a' AS id) INSERT INTO tail.things (id) SELECT id FROM x");
    assert_eq!(fault, QueryFault::Refused, "{message}");
}

#[test]
fn no_file_but_the_callers_own_is_read() {
    let asked = ask("SELECT 1");
    let other = asked.directory.path().join("other/files/things.parquet");
    let other = other.display();
    for sql in [
        format!("SELECT * FROM read_parquet('{other}')"),
        format!("FROM '{other}'"),
        "SELECT * FROM read_parquet('../other/files/things.parquet')".to_owned(),
        "SELECT * FROM read_parquet('/../other/files/things.parquet')".to_owned(),
        format!("SELECT * FROM parquet_metadata('{other}')"),
        "SELECT * FROM read_parquet('/etc/passwd')".to_owned(),
        "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
        "SELECT * FROM read_csv('/etc/passwd', columns = {'a': 'VARCHAR'}, auto_detect = false)".to_owned(),
        "SELECT * FROM read_text('/etc/passwd')".to_owned(),
        "SELECT * FROM read_blob('/proc/self/environ')".to_owned(),
        "SELECT * FROM read_json('/etc/passwd')".to_owned(),
        "SELECT * FROM read_ndjson('/proc/self/status')".to_owned(),
        "SELECT * FROM sniff_csv('/etc/passwd')".to_owned(),
        "SELECT * FROM '/etc/passwd.csv'".to_owned(),
        "SELECT * FROM read_parquet('https://example.com/x.parquet')".to_owned(),
        "SELECT * FROM read_csv('s3://bucket/x.csv')".to_owned(),
    ] {
        let (fault, message) = failure(&sql);
        assert_eq!(fault, QueryFault::Refused, "{sql}: {message}");
        assert!(
            message.starts_with("a query reads its tables, and nothing else"),
            "{sql}: {message}"
        );
    }
    // A search shows nothing of the machine either.
    for sql in [
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM glob('../*/*')",
        "SELECT * FROM glob('/**')",
    ] {
        assert_eq!(failure(sql).0, QueryFault::Refused, "{sql}");
    }
    assert_eq!(
        rows("SELECT * FROM glob('files/*')"),
        [serde_json::json!(["files/things.parquet"])]
    );
}

#[test]
fn catalogues_show_one_tenant_and_no_place() {
    // `support::read` refuses every answer that names the directory.
    for sql in [
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_views()",
        "SELECT * FROM duckdb_tables()",
        "SELECT * FROM duckdb_databases()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM sqlite_master",
        "SELECT current_setting('allowed_directories'), current_setting('allowed_paths'), current_setting('temp_directory')",
    ] {
        let shown = format!("{:?}", rows(sql));
        assert!(!shown.contains("elsewhere"), "{sql}: {shown}");
    }
    assert_eq!(
        rows("SELECT count(*) FROM things WHERE id LIKE 'elsewhere%'"),
        [serde_json::json!([0])]
    );
}

#[test]
fn settings_stay_as_they_are() {
    assert_eq!(
        rows(
            "SELECT name, value FROM duckdb_settings() WHERE name IN ('threads', 'lock_configuration', 'enable_external_access', 'temp_directory', \
             'autoinstall_known_extensions', 'autoload_known_extensions') ORDER BY name"
        ),
        [
            serde_json::json!(["autoinstall_known_extensions", "false"]),
            serde_json::json!(["autoload_known_extensions", "false"]),
            serde_json::json!(["enable_external_access", "false"]),
            serde_json::json!(["lock_configuration", "true"]),
            serde_json::json!(["temp_directory", ""]),
            serde_json::json!(["threads", "1"]),
        ]
    );
    let (fault, message) = failure("SELECT * FROM query('SET threads = 4')");
    assert_ne!(fault, QueryFault::Timeout, "{message}");
}

#[test]
fn without_root_and_without_confinement_duckdbs_own_walls_hold() {
    // Another user, for whom user namespaces may be closed as well: then it says so, and refuses the same.
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    for (sql, refused) in [
        ("SELECT * FROM read_text('/etc/passwd')", true),
        ("SELECT * FROM read_parquet('../other/files/things.parquet')", true),
        ("SELECT * FROM duckdb_settings()", false),
        ("SELECT count(*) FROM things", false),
    ] {
        let asked = ask(sql);
        // The directory of a test is its user's alone.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(asked.directory.path(), open).unwrap();
        let binary = asked.directory.path().join("gantry-query");
        fs::copy(env!("CARGO_BIN_EXE_gantry-query"), &binary).unwrap();
        let library = std::env::var("DUCKDB_LIB_DIR")
            .map(std::path::PathBuf::from)
            .unwrap_or_else(|_| {
                let cache = std::env::var("HOME").unwrap();
                std::path::Path::new(&cache).join(format!(".cache/gantry/duckdb/1.5.6-{}", std::env::consts::ARCH))
            });
        let beside = asked.directory.path().join("libduckdb.so");
        fs::copy(library.join("libduckdb.so"), &beside).unwrap();
        let output = asked.spawn(|command| {
            let mut other = std::process::Command::new(&binary);
            other.current_dir(asked.directory.path().join("own")).env_clear();
            other.uid(65_534).gid(65_534);
            other
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            *command = other;
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        match read(&output.stdout, asked.directory.path()) {
            Ok(answer) => assert!(!refused, "{sql} was answered: {answer:?}"),
            Err(failure) => assert!(refused && failure.fault() != QueryFault::Timeout, "{sql}: {failure:?}"),
        }
    }
}
