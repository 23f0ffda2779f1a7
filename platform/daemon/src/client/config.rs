//! Where the daemon is and which key to show it: flags, then environment, then a file of mode 0600.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use secrecy::SecretString;
use serde::Deserialize;

/// Flags that every client command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Address of the daemon, for example http://127.0.0.1:7410
    #[arg(long, env = "GANTRY_URL", global = true)]
    pub(crate) url: Option<String>,
    /// API key; better given by environment or file than as a flag
    #[arg(long, env = "GANTRY_API_KEY", global = true, hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// File with {"url": ..., "key": ...} [default: ~/.config/gantry/client.json]
    #[arg(long, env = "GANTRY_CLIENT_CONFIG", global = true)]
    pub(crate) client_config: Option<PathBuf>,
}

/// A usable connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) url: String,
    pub(crate) key: SecretString,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Option<String>,
    key: Option<String>,
}

impl ConnectionArgs {
    pub(crate) fn resolve(&self) -> Result<Connection> {
        let file = self.read_file()?;
        let url = self
            .url
            .clone()
            .or(file.url)
            .unwrap_or_else(|| "http://127.0.0.1:7410".to_owned());
        let Some(key) = self.key.clone().or(file.key) else {
            bail!(
                "no API key: set GANTRY_API_KEY, pass --client-config FILE, or write {{\"url\": ..., \"key\": ...}} to ~/.config/gantry/client.json \
                 (`gantry init` made the first key)"
            );
        };
        Ok(Connection { url, key: key.into() })
    }

    fn read_file(&self) -> Result<File> {
        let path = match &self.client_config {
            Some(path) => path.clone(),
            None => match std::env::var_os("HOME") {
                Some(home) => PathBuf::from(home).join(".config/gantry/client.json"),
                None => return Ok(File::default()),
            },
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.client_config.is_none() => {
                Ok(File::default())
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}
