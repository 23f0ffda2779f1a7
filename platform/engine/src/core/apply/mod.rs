//! `apply(state, event)`: the one place where state changes. Needs no payload for anything that control depends on.

mod bulk;
mod carry;
mod child;
mod decision;
mod ending;
mod items;
mod keep;
mod limit;
mod mail;
mod node;
mod pause;
mod schedule;
mod scope;
mod signal;
mod step;
mod task;
mod upload;
mod workflow;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{TenantId, WorkflowId};

pub(crate) use decision::changes_of;
pub(crate) use items::item_values;
pub(super) use step::began;
pub(crate) use step::result_body;

use self::child::{child_ended, child_requested};
use self::decision::{task_decided, task_escalated};
use self::items::task_fanned_out;
use self::mail::{message_sent, messages_acknowledged, messages_received};
use self::node::{node_changed, node_registered};
use self::pause::{deadline_passed, task_began, workflow_paused, workflow_resumed};
use self::signal::{signal_delivered, signal_received};
use self::step::{step_assigned, step_ended, step_running};
use self::task::{lease_ended, task, task_claimed, task_ended, task_readied, task_waiting};
use self::workflow::{change_workflow, submitted, workflow, workflow_ended};
use super::code::apply as code;
use super::rows::IdempotencyRow;
use super::state::{PartitionState, Timer};
use crate::lifecycle::IllegalTransition;
use crate::lifecycle::workflow::WorkflowTrigger;

/// A record that does not fit the state: damage, or a fault of ours. The partition stops rather than guesses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// An edge that no table has.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The record is about something that does not exist.
    #[error("record {seq} is about an unknown {what}")]
    Unknown {
        /// Position of the record.
        seq: u64,
        /// What kind of thing.
        what: &'static str,
    },
    /// A field that has no value this version knows.
    #[error("record {seq} has a {what} that this version does not know; run the version that wrote it, or a newer one")]
    Newer {
        /// Position of the record.
        seq: u64,
        /// What.
        what: &'static str,
    },
    /// The record contradicts the state.
    #[error("record {seq} contradicts the state: {what}")]
    Contradiction {
        /// Position of the record.
        seq: u64,
        /// How.
        what: &'static str,
    },
}

/// Where and when a record stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Position in the log.
    pub seq: u64,
    /// Time of its entry.
    pub at_ms: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which workflow it is about.
    pub workflow: Option<WorkflowId>,
}

/// Applies the record at `place.seq`, which must be the next one.
///
/// # Errors
/// See [`ApplyError`]; the state must then be discarded.
pub fn apply(
    state: &mut PartitionState,
    place: Place,
    kind: &Kind,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    if place.seq != state.next_seq {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "it is not the next one",
        });
    }
    state.next_seq += 1;
    state.last_at_ms = state.last_at_ms.max(place.at_ms);
    match kind {
        Kind::WorkflowSubmitted(event) => submitted(state, place, event),
        Kind::WorkflowActivated(v1::WorkflowActivated {}) => {
            change_workflow(state, place, WorkflowTrigger::Activated).map(|_| ())
        }
        Kind::WorkflowCancelRequested(event) => {
            let workflow = workflow(state, place)?;
            workflow.row.cancel_by = Some(event.by);
            workflow.row.cancel_grace_ms = Some(event.grace_ms);
            Ok(())
        }
        Kind::WorkflowEnding(event) => ending::workflow_ending(state, place, event, payload),
        Kind::WorkflowEnded(event) => workflow_ended(state, place, event),
        Kind::TaskReadied(event) => task_readied(state, place, event.task),
        Kind::TaskClaimed(event) => task_claimed(state, place, event),
        Kind::TaskWaiting(event) => task_waiting(state, place, event),
        Kind::TaskEnded(event) => task_ended(state, place, event, payload),
        Kind::LeaseEnded(event) => lease_ended(state, place, event),
        Kind::TaskCancelRequested(event) => {
            let (_, task) = task(state, place, event.task)?;
            task.row.cancel_grace_ms = Some(event.grace_ms);
            task.row.stop_for = Some(event.stop_for.unwrap_or(v1::StopFor::End.into()));
            Ok(())
        }
        Kind::StepAssigned(event) => step_assigned(state, place, event),
        Kind::StepRunning(event) => step_running(state, place, event),
        Kind::StepEnded(event) => step_ended(state, place, event, payload),
        Kind::WorkflowHeld(event) => keep::held(state, place, event),
        Kind::WorkflowReleased(_) => keep::released(state, place),
        Kind::WorkflowErased(event) => keep::erased(state, place, event),
        Kind::WorkflowRemoved(event) => keep::removed(state, place, event),
        Kind::SignalReceived(event) => signal_received(state, place, event, payload),
        Kind::SignalDelivered(event) => signal_delivered(state, place, event),
        Kind::WorkflowPaused(event) => workflow_paused(state, place, event),
        Kind::WorkflowResumed(_) => workflow_resumed(state, place),
        Kind::TaskBegan(event) => task_began(state, place, event),
        Kind::DeadlinePassed(event) => deadline_passed(state, place, event),
        Kind::TaskDecided(event) => task_decided(state, place, event, payload),
        Kind::TaskEscalated(event) => task_escalated(state, place, event),
        Kind::NodeRegistered(event) => {
            node_registered(state, place, event);
            Ok(())
        }
        Kind::NodeChanged(event) => node_changed(state, place, event),
        Kind::ScheduleSet(event) => schedule::schedule_set(state, place, event),
        Kind::ScheduleFired(event) => schedule::schedule_fired(state, place, event),
        Kind::ScheduleAsked(event) => schedule::schedule_asked(state, place, event),
        Kind::ScheduleFailed(event) => schedule::schedule_failed(state, place, event),
        Kind::SchedulePaused(event) => schedule::schedule_paused(state, place, event),
        Kind::ScheduleDeleted(event) => schedule::schedule_deleted(state, place, event),
        Kind::ActivationBegun(event) => code::activation_begun(state, place, event),
        Kind::ActivationEnded(event) => code::activation_ended(state, place, event),
        Kind::RunFailed(event) => code::run_failed(state, place, event),
        Kind::StepCarried(event) => carry::step_carried(state, place, event, payload),
        Kind::BulkRequested(event) => bulk::bulk_requested(state, place, event),
        Kind::BulkAdvanced(event) => bulk::bulk_advanced(state, place, event),
        Kind::BulkReported(event) => bulk::bulk_reported(state, place, event),
        Kind::BulkCancelRequested(event) => bulk::bulk_cancelled(state, place, event),
        Kind::BulkEnded(event) => bulk::bulk_ended(state, place, event),
        Kind::BulkExpired(event) => bulk::bulk_expired(state, place, event),
        Kind::IdempotencyRecorded(event) => {
            let key = hash(place, &event.key_hash)?;
            let row = IdempotencyRow {
                request_hash: event.request_hash.clone(),
                workflow: event.workflow,
                expires_at_ms: event.expires_at_ms,
            };
            state.insert_idempotency((place.tenant, key), row);
            state.dirty.idempotency.insert((place.tenant, key));
            Ok(())
        }
        Kind::IdempotencyExpired(event) => {
            let key = (place.tenant, hash(place, &event.key_hash)?);
            let Some(row) = state.idempotency.remove(&key) else {
                return Err(ApplyError::Unknown {
                    seq: place.seq,
                    what: "idempotency key",
                });
            };
            state.timers.remove(&(row.expires_at_ms, Timer::Idempotency(key)));
            state.dirty.idempotency.insert(key);
            Ok(())
        }
        Kind::UploadCreated(event) => upload::upload_created(state, place, event),
        Kind::UploadDeleted(event) => upload::upload_gone(state, place, event.upload),
        Kind::UploadExpired(event) => upload::upload_gone(state, place, event.upload),
        Kind::MessageSent(event) => message_sent(state, place, event),
        Kind::MessagesReceived(event) => messages_received(state, place, event),
        Kind::MessagesAcknowledged(event) => messages_acknowledged(state, place, event),
        Kind::ChildRequested(event) => child_requested(state, place, event, payload),
        Kind::ChildEnded(event) => child_ended(state, place, event, payload),
        // What it is about may have ended long ago: a line of the story, and no change.
        Kind::ChildOrphaned(event) => end(place, event.end, v1::ChildEnd::try_from).map(|_| ()),
        Kind::TaskFannedOut(event) => task_fanned_out(state, place, event, payload),
        Kind::ScopePaused(event) => scope::scope_paused(state, place, event),
        Kind::ScopeResumed(event) => scope::scope_resumed(state, place, event),
        Kind::LimitsRequested(event) => limit::limits_requested(state, place, event),
        Kind::LimitGranted(event) => limit::limit_granted(state, place, event),
        Kind::LimitLost(event) => limit::limit_lost(state, place, event),
        Kind::LimitAsked(event) => limit::limit_asked(state, place, event),
        Kind::LimitTaken(event) => limit::limit_taken(state, place, event),
        Kind::LimitLeft(event) => limit::limit_left(state, place, event),
        Kind::LimitEvicted(event) => limit::limit_evicted(state, place, event),
        Kind::LimitProbed(event) => limit::limit_probed(state, place, event),
        Kind::LimitForgotten(event) => limit::limit_forgotten(state, place, event),
    }
}

fn hash(place: Place, bytes: &[u8]) -> Result<[u8; 32], ApplyError> {
    bytes.try_into().map_err(|_| ApplyError::Contradiction {
        seq: place.seq,
        what: "a hash is not 32 bytes",
    })
}

/// Enum fields are numbers on the wire; one that this version does not know stops it.
fn end<T, E>(place: Place, value: i32, parse: impl Fn(i32) -> Result<T, E>) -> Result<T, ApplyError> {
    parse(value).map_err(|_| ApplyError::Newer {
        seq: place.seq,
        what: "value",
    })
}
