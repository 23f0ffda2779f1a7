//! `gantry server`: engine, coordinator and gateway. Nodes join over gRPC.

use std::net::SocketAddr;

use anyhow::Result;

use super::core::{Core, CoreArgs};
use super::signals::Ends;

/// Arguments of `gantry server`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    core: CoreArgs,
    /// Where nodes dial
    #[arg(long, default_value = "127.0.0.1:7411")]
    grpc_listen: SocketAddr,
}

pub(crate) async fn run(args: ServerArgs) -> Result<()> {
    let ends = Ends::listen()?;
    let core = Core::start(&args.core, Some(args.grpc_listen)).await?;
    core.publish()?;
    ends.asked_or(core.failed()).await;
    core.stop().await
}
