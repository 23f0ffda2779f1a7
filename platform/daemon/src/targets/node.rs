//! `gantry node --join URL`: a container host of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gantry_runtime_node::GrpcUplink;
use secrecy::SecretString;

use super::installation;
use super::local_node::{self, HostArgs};
use super::signals::Ends;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Arguments of `gantry node` without a subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The server's gRPC address, for example http://10.0.0.1:7411
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// Node token; better given by environment or file
    #[arg(long, env = "GANTRY_NODE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the node token
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Directory for everything that the node keeps
    #[arg(long, env = "GANTRY_NODE_STATE_DIR", default_value = "/var/lib/gantry-node")]
    state_dir: PathBuf,
    /// Id of the installation that the node belongs to; the server says it, and one that is given here must be the same
    #[arg(long)]
    installation: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: JoinArgs) -> Result<()> {
    let Some(server) = &args.join else {
        bail!("say where the server is: gantry node --join http://HOST:7411 --token-file FILE");
    };
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => SecretString::from(token.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read the node token from {}", file.display()))?;
            SecretString::from(text.trim().to_owned())
        }
        (None, None) => bail!("a node token is needed: `gantry node token create NAME` on the server makes one"),
    };
    let uplink = GrpcUplink::new(server, &token, CONNECT_DEADLINE).context("prepare the connection to the server")?;
    let ends = Ends::listen()?;
    let installation = tokio::select! {
        known = installation::find(&args.state_dir, args.installation.as_deref(), &uplink) => known?,
        // Nothing has begun yet.
        () = ends.asked() => return Ok(()),
    };
    let node = local_node::start(&args.host, &args.state_dir, &installation, Arc::new(uplink)).await?;
    ends.asked().await;
    node.stop().await;
    Ok(())
}
