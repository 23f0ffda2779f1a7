//! `gantry dev`: everything in one process, on embedded stores.

use std::net::SocketAddr;

use anyhow::Result;

use super::core::{Core, CoreArgs};
use super::local_node::{self, HostArgs};
use super::local_uplink::LocalUplink;
use super::signals::Ends;

/// Arguments of `gantry dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    core: CoreArgs,
    /// Where further nodes may dial; off when absent
    #[arg(long)]
    grpc_listen: Option<SocketAddr>,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: DevArgs) -> Result<()> {
    let ends = Ends::listen()?;
    let core = Core::start(&args.core, args.grpc_listen).await?;
    core.adopt_local_node().await?;
    let uplink = LocalUplink::new(core.coordinator(), core.engine());
    let node = local_node::start(&args.host, &core.data().node(), &core.installation(), uplink).await?;
    core.publish()?;
    ends.asked_or(core.failed()).await;
    // The node goes first, while the engine can still take its last words. Its sandboxes go on.
    node.stop().await;
    core.stop().await
}
