//! Carries the letters of one partition to the mailboxes of the others, in order for each receiver, until each is durable there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gantry_journal::{ReadError, SealError, host};
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{Payload, letter};
use gantry_proto::{PartitionId, limits};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::load::Records;
use super::outgoing::Pending;
use super::run::{CallError, Message, Shared};
use super::storage::{ContentError, Storage};
use crate::core::commands::{Acknowledged, Delivery, Receive};
use crate::core::{Body, Reply};

/// First pause after a delivery that failed; doubles up to the greatest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The task that delivers what a partition sends.
pub(crate) struct Courier {
    pub(crate) from: PartitionId,
    pub(crate) storage: Arc<Storage>,
    pub(crate) shared: Arc<Shared>,
    /// Of every partition, this one included, by index.
    pub(crate) mailboxes: Vec<mpsc::Sender<Message>>,
    pub(crate) shutdown: CancellationToken,
}

/// How a delivery went.
type Outcome = Result<u64, String>;

impl Courier {
    /// Runs until shutdown. What is under way then is delivered by the next owner; the receiver's mark makes a second delivery nothing.
    pub(crate) async fn run(self) {
        let mut flying = FuturesUnordered::new();
        let mut busy: BTreeSet<PartitionId> = BTreeSet::new();
        let mut failures: BTreeMap<PartitionId, u32> = BTreeMap::new();
        loop {
            for (to, letters) in self.shared.outgoing.next(&busy, limits::LETTERS_PER_DELIVERY_MAX) {
                busy.insert(to);
                let failed = failures.get(&to).copied().unwrap_or(0);
                let delivery = self.deliver(to, letters, failed);
                flying.push(async move { (to, delivery.await) });
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.shared.outgoing.changed() => {}
                Some((to, outcome)) = flying.next() => {
                    busy.remove(&to);
                    match outcome {
                        Ok(through) => {
                            failures.remove(&to);
                            self.shared.outgoing.arrived(to, through);
                            self.acknowledge(to, through).await;
                        }
                        Err(reason) => {
                            let failed = failures.entry(to).or_default();
                            *failed = failed.saturating_add(1);
                            tracing::warn!(from = %self.from, %to, reason, "letters could not be delivered; trying again");
                        }
                    }
                }
            }
        }
    }

    async fn deliver(&self, to: PartitionId, letters: Vec<Pending>, failed: u32) -> Outcome {
        if failed > 0 {
            tokio::time::sleep(PAUSE.saturating_mul(1 << (failed - 1).min(16)).min(PAUSE_MAX)).await;
        }
        let mailbox = self.mailboxes.get(usize::from(to.index()));
        let mailbox = mailbox.ok_or_else(|| format!("there is no partition {to}"))?;
        let (storage, from) = (Arc::clone(&self.storage), self.from);
        let opened = host::blocking(move || open(&storage, from, &letters)).await;
        let letters = opened
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let (reply, answer) = oneshot::channel();
        let command = Box::new(Receive { from, letters }.into());
        let message = Message::Command { command, reply };
        // Waits for room: letters are few beside commands, and must not be crowded out by them.
        mailbox.send(message).await.map_err(|_| "it has stopped".to_owned())?;
        match answer.await {
            Ok(Ok(Reply::Received { through })) => Ok(through),
            Ok(Ok(other)) => Err(format!("an unexpected reply: {other:?}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it is being recovered".to_owned()),
        }
    }

    /// Lets the letters leave the outbox, with the next batch of their partition. When that is lost with its owner, the next one sends them again.
    async fn acknowledge(&self, to: PartitionId, through: u64) {
        let Some(own) = self.mailboxes.get(usize::from(self.from.index())) else {
            return;
        };
        let (reply, _) = oneshot::channel::<Result<Reply, CallError>>();
        let command = Box::new(Acknowledged { to, through }.into());
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            // A closed mailbox means that we are stopping, too.
            _ = own.send(Message::Inform { command, reply }) => {}
        }
    }
}

/// Reads letters with what goes beside them, as many as one delivery carries, at least one. Blocks.
pub(crate) fn open(storage: &Storage, from: PartitionId, letters: &[Pending]) -> Result<Vec<Delivery>, ContentError> {
    let mut records = Records::new(storage, from);
    let mut opened = Vec::with_capacity(letters.len());
    let mut bytes = 0usize;
    for (number, seq) in letters {
        let delivery = one(&mut records, from, *number, *seq)?;
        bytes += delivery.payload.as_ref().map_or(0, prost::Message::encoded_len);
        if bytes > limits::DELIVERY_BYTES_MAX && !opened.is_empty() {
            break;
        }
        opened.push(delivery);
    }
    Ok(opened)
}

fn one(records: &mut Records<'_>, from: PartitionId, number: u64, seq: u64) -> Result<Delivery, ContentError> {
    let damaged = |detail: &str| {
        ContentError::Read(ReadError::Damaged {
            what: format!("record {seq} of partition {from}"),
            detail: detail.to_owned(),
        })
    };
    let entry = records.entry(seq)?;
    let tenant = entry.tenant;
    let offset = usize::try_from(seq - entry.first_seq).unwrap_or(usize::MAX);
    let kind = entry.records.get(offset).and_then(|record| record.event.kind.clone());
    let Some(Kind::MessageSent(sent)) =
        kind.filter(|kind| matches!(kind, Kind::MessageSent(sent) if sent.number == number))
    else {
        return Err(damaged("it is not the letter that the outbox says"));
    };
    // What was erased meanwhile is not delivered; that it was sent is.
    let payload = match records.payload(seq) {
        Err(ContentError::Seal(SealError::Erased)) => None,
        payload => payload?,
    };
    let body = match (&sent.letter.kind, &payload) {
        (Some(letter::Kind::ChildStart(_)), Some(payload)) => {
            Some(Arc::new(body(payload).map_err(|error| damaged(&error))?))
        }
        _ => None,
    };
    Ok(Delivery {
        number,
        tenant,
        letter: sent.letter,
        payload,
        body,
    })
}

fn body(payload: &Payload) -> Result<Body, String> {
    let definition = payload.definition_json.as_deref().unwrap_or_default();
    let parameters = payload.parameters_json.as_deref().unwrap_or(b"{}");
    let definition = serde_json::from_slice(definition).map_err(|error| error.to_string())?;
    let parameters = serde_json::from_slice(parameters).map_err(|error| error.to_string())?;
    Ok(Body::new(definition, parameters))
}
