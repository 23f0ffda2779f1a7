//! The line between node and server, as a network has it: it loses what it was given, and it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::proxy::Serving;

/// Bytes that are carried at once.
const PORTION: usize = 64 << 10;

/// What the line does to bytes for the node.
#[derive(Debug, Default)]
struct Line {
    /// How often it was cut. A connection belongs to the time between two cuts.
    cuts: u64,
    /// Bytes that still get through; `None`: all.
    passes: Option<u64>,
    /// Bytes that were lost since the last cut.
    swallowed: u64,
}

/// A TCP relay that a node dials in place of its server.
pub struct Relay {
    address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    _serving: Serving,
}

impl Relay {
    /// Relays to `server` from a port of its own. While nobody listens there, connections are accepted and closed at once.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen for the node")?;
        let address = listener.local_addr()?;
        let line = Arc::new(watch::Sender::new(Line::default()));
        let shared = Arc::clone(&line);
        let serving = Serving::start(listener, move |node| connection(node, server, Arc::clone(&shared)));
        Ok(Self {
            address,
            line,
            _serving: serving,
        })
    }

    /// Where the node dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the node receives nothing, while what it sends arrives: neither side sees a fault.
    pub fn swallow(&self) {
        self.swallow_after(0);
    }

    /// As [`Self::swallow`], once so many more bytes have reached the node.
    pub fn swallow_after(&self, bytes: u64) {
        self.line.send_modify(|line| line.passes = Some(bytes));
    }

    /// Waits until something for the node was lost since the last cut.
    pub async fn swallowed(&self, deadline: Duration) -> Result<()> {
        let mut line = self.line.subscribe();
        tokio::time::timeout(deadline, line.wait_for(|line| line.swallowed > 0))
            .await
            .with_context(|| format!("nothing was sent to the node in {deadline:?}"))??;
        Ok(())
    }

    /// Breaks all connections; new ones are carried whole, in both directions.
    pub fn cut(&self) {
        self.line.send_modify(|line| {
            *line = Line {
                cuts: line.cuts + 1,
                ..Line::default()
            };
        });
    }
}

/// Carries one connection until either end closes it or the line is cut.
async fn connection(node: TcpStream, server: SocketAddr, line: Arc<watch::Sender<Line>>) {
    let born = line.borrow().cuts;
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    // Portions are passed on as they come, as a wire does.
    if node.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (mut from_node, to_node) = node.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut cut = line.subscribe();
    // However it ends, both halves close with this future; why does not matter to a wire.
    tokio::select! {
        _ = copy(&mut from_node, &mut to_server) => {}
        _ = carry_down(from_server, to_node, &line, born) => {}
        _ = cut.wait_for(|line| line.cuts != born) => {}
    }
}

/// Carries bytes to the node, as far as the line lets them through.
async fn carry_down(
    mut server: impl AsyncRead + Unpin,
    mut node: impl AsyncWrite + Unpin,
    line: &watch::Sender<Line>,
    born: u64,
) -> std::io::Result<()> {
    let mut portion = vec![0; PORTION];
    loop {
        let length = server.read(&mut portion).await?;
        if length == 0 {
            return Ok(());
        }
        let mut passed = 0;
        line.send_if_modified(|line| {
            if line.cuts != born {
                return false;
            }
            let Some(left) = &mut line.passes else {
                passed = length;
                return false;
            };
            passed = usize::try_from(*left).map_or(length, |left| left.min(length));
            *left -= passed as u64;
            line.swallowed += (length - passed) as u64;
            passed < length
        });
        node.write_all(&portion[..passed]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn loses_one_direction_only_and_mends_with_the_next_connection() -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let relay = Relay::start(listener.local_addr()?).await?;
        let mut node = TcpStream::connect(relay.address()).await?;
        let (mut server, _) = listener.accept().await?;
        let mut buffer = [0; 4];

        relay.swallow_after(2);
        server.write_all(b"down").await?;
        relay.swallowed(SOON).await?;
        node.read_exact(&mut buffer[..2]).await?;
        assert_eq!(&buffer[..2], b"do");
        node.write_all(b"up").await?;
        server.read_exact(&mut buffer[..2]).await?;
        assert_eq!(&buffer[..2], b"up");

        relay.cut();
        // Closed or reset, it is over for both ends; nothing that was lost comes after all.
        for end in [&mut node, &mut server] {
            let last = tokio::time::timeout(SOON, end.read(&mut buffer)).await?;
            assert!(matches!(last, Ok(0) | Err(_)), "{last:?}");
        }

        let mut node = TcpStream::connect(relay.address()).await?;
        let (mut server, _) = listener.accept().await?;
        server.write_all(b"down").await?;
        node.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"down");
        Ok(())
    }
}
