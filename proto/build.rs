//! Generates Rust types from `proto/gantry/v1/*.proto`. Ids are our own types (`src/ids.rs`), so that no generated struct carries a bare byte string
//! where an id is meant.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["common", "journal", "letters", "node", "query", "supervisor", "worker"]
        .map(|name| format!("proto/gantry/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    let mut builder = tonic_prost_build::configure()
        .build_client(std::env::var_os("CARGO_FEATURE_GRPC").is_some())
        .build_server(std::env::var_os("CARGO_FEATURE_GRPC").is_some())
        // For `vocabulary`: what this version knows, from the definitions themselves.
        .file_descriptor_set_path(std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin"));
    for id in [
        "TenantId",
        "WorkflowId",
        "ScheduleId",
        "TaskId",
        "NodeId",
        "SandboxId",
        "ArtifactId",
        "PrincipalId",
        "UploadId",
        "BulkId",
    ] {
        builder = builder.extern_path(format!(".gantry.v1.{id}"), format!("crate::ids::{id}"));
    }
    builder.compile_with_config(config, &files, &["proto".to_owned()])?;
    Ok(())
}
