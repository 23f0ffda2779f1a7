//! The line to the daemon: frames on standard input and output.

use std::io::{self, Read, Stdin, Stdout, Write};

use bytes::BytesMut;
use gantry_proto::frame;
use gantry_proto::limits::QUERY_FRAME_BYTES_MAX;
use gantry_proto::v1::{QueryInput, QueryOutput, query_input, query_output};

use crate::failure::Failure;

/// Read at once. A large frame takes many reads of a pipe anyway.
const READ_BYTES: usize = 16 << 10;

/// Both directions.
pub(crate) struct Channel {
    input: Stdin,
    output: Stdout,
    unread: BytesMut,
}

impl Channel {
    pub(crate) fn of_standard_streams() -> Self {
        Self {
            input: io::stdin(),
            output: io::stdout(),
            unread: BytesMut::new(),
        }
    }

    /// The next message of the daemon.
    pub(crate) fn receive(&mut self) -> Result<query_input::Kind, Failure> {
        loop {
            let message: Option<QueryInput> = frame::decode_within(QUERY_FRAME_BYTES_MAX, &mut self.unread)
                .map_err(|error| Failure::internal(format!("the daemon sent a broken frame: {error}")))?;
            if let Some(message) = message {
                return message
                    .kind
                    .ok_or_else(|| Failure::internal("the daemon sent an empty frame"));
            }
            let mut buffer = [0u8; READ_BYTES];
            let read = self
                .input
                .read(&mut buffer)
                .map_err(|error| Failure::internal(format!("the daemon's frames cannot be read: {error}")))?;
            if read == 0 {
                return Err(Failure::internal("the daemon went away before the query began"));
            }
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, kind: query_output::Kind) -> io::Result<()> {
        let mut frame = BytesMut::new();
        frame::encode_within(QUERY_FRAME_BYTES_MAX, &QueryOutput { kind: Some(kind) }, &mut frame)
            .map_err(io::Error::other)?;
        self.output.write_all(&frame)?;
        self.output.flush()
    }
}
