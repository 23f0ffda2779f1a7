//! One assignment from its claim file to its end, owned by one task.
//!
//! `claimed → running → exited → finished → gone`: each change is in the claim file before the world sees it, so that a node that is killed anywhere goes
//! on from there. Dropping the future is the same as being killed.

mod outcome;
mod prepare;
mod pump;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_fleet_manager::{Adoptable, Ending, FleetError, Link};
use gantry_proto::ErrorCode;
use gantry_proto::v1::{
    Artifact, AssignmentRefused, EndCause, Fault, ProcessExited, StepFinished, StepResult, StepStarted,
    node_to_server::Kind,
};
use tokio::sync::watch;

use crate::board::{Orders, SessionHandle};
use crate::capture::{self, Patterns};
use crate::claims::{Claim, ClaimError, Phase};
use crate::node::Shared;
use crate::retry::Backoff;
use crate::workspace::{AttemptKey, WorkspaceError};
use pump::{Pump, PumpStart, RunEnd};

/// How work on an assignment ends, short of its report.
pub(crate) enum End {
    /// With a result, still to be written down. `keep`: its layer is sealed.
    Result { result: Box<StepResult>, keep: bool },
    /// Nothing ran: given back.
    Refused(Fault),
    /// The fence is stale.
    Dropped,
}

impl End {
    fn result(result: StepResult) -> Self {
        Self::Result {
            result: Box::new(result),
            keep: false,
        }
    }
}

struct Step {
    shared: Arc<Shared>,
    claim: Claim,
    orders: watch::Receiver<Orders>,
    session: watch::Receiver<Option<SessionHandle>>,
    capture_ms: Option<u64>,
}

/// Drives an assignment to its end. See the module.
pub(crate) async fn drive(shared: Arc<Shared>, claim: Claim, orders: watch::Receiver<Orders>) {
    let session = shared.board.session();
    let mut step = Step {
        shared,
        claim,
        orders,
        session,
        capture_ms: None,
    };
    if let Phase::Finished(result) = step.claim.phase.clone() {
        step.report(*result).await;
        return;
    }
    match Box::pin(step.work()).await {
        End::Result { mut result, keep } => {
            step.complete_result(&mut result);
            step.close_sandbox_for_result(keep).await;
            step.claim.phase = Phase::Finished(result.clone());
            step.save_at_last().await;
            step.report(*result).await;
        }
        End::Refused(fault) => {
            step.give_back(fault).await;
            step.forget().await;
        }
        End::Dropped => {
            step.clean_up().await;
            step.forget().await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Step {
    fn key(&self) -> AttemptKey {
        let assignee = self.claim.assignee();
        AttemptKey {
            task: assignee.task,
            step: assignee.step,
            attempt: assignee.attempt,
        }
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    async fn work(&mut self) -> End {
        match self.claim.phase.clone() {
            Phase::Claimed => self.begin().await,
            Phase::Running => self.adopt().await,
            Phase::Exited(exit) => self.after_exit(*exit).await,
            // Handled by the caller.
            Phase::Finished(result) => End::Result { result, keep: true },
        }
    }

    /// Nothing ran yet: from the start.
    async fn begin(&mut self) -> End {
        if !self.orders.borrow().confirmed {
            // From an earlier process: whoever holds the lease now decides.
            let confirmed = self
                .orders
                .wait_for(|orders| orders.confirmed || orders.dropped || orders.cancel.is_some());
            if confirmed.await.is_err() {
                return End::Dropped;
            }
            // What that process made of it is thrown away; a container is used once.
            self.clean_up().await;
            self.claim.sandbox = self.shared.new_sandbox_id();
            self.shared.board.set_sandbox(self.claim.assignee(), self.claim.sandbox);
        }
        if let Some(end) = self.ordered_end() {
            return end;
        }
        let began = Instant::now();
        let (sandbox, gid, image) = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(end) => return end,
        };
        self.claim.prepare_ms = millis(began.elapsed());
        let start = start::start_process(&self.claim.assignment, &image, self.claim.uid, gid);
        self.execute(sandbox.link, start).await
    }

    /// What orders make of a step that does not run.
    fn ordered_end(&self) -> Option<End> {
        let orders = self.orders.borrow();
        if orders.dropped {
            return Some(End::Dropped);
        }
        let cancel = orders.cancel.as_ref()?;
        Some(End::result(outcome::result(cancel.cause(), self.now_ms(), None)))
    }

    /// Waits until orders end a step that does not run.
    async fn ended_by_order(orders: &mut watch::Receiver<Orders>) {
        if orders
            .wait_for(|orders| orders.dropped || orders.cancel.is_some())
            .await
            .is_err()
        {
            // The board is gone, and so is the node.
            std::future::pending::<()>().await;
        }
    }

    /// Takes up a sandbox from before a restart.
    async fn adopt(&mut self) -> End {
        let Some(place) = self.claim.place.clone() else {
            return self.lost("its claim names no sandbox");
        };
        let adoptable = Adoptable {
            id: self.claim.sandbox,
            container: place.container,
            nonce: place.nonce,
        };
        let shared = self.shared.clone();
        let adopting = patiently("adopt the sandbox", || shared.fleet.adopt(&adoptable));
        let adopted = tokio::select! {
            adopted = adopting => adopted,
            _ = self.orders.wait_for(|orders| orders.dropped) => return End::Dropped,
        };
        let sandbox = match adopted {
            Ok(sandbox) => sandbox,
            Err(ending) => return self.ended_without_exit(&ending),
        };
        let key = self.key();
        let plan = self.claim.assignment.plan.clone();
        // Both are there unless the earlier process died between its claim file and the start.
        if let Err(error) = self.shared.workspaces.mount(key, &place.slot).await {
            tracing::warn!(%error, "workspace of an adopted sandbox cannot be mounted");
            return self.lost("its workspace could not be mounted again");
        }
        let image = self.claim.image.as_deref().unwrap_or(&plan.image);
        let image = while_away("look at the image", || shared.fleet.image(image)).await;
        let gid = self.shared.workspaces.gid(key.task).await;
        let (image, gid) = match (image, gid) {
            (Ok(image), Ok(gid)) => (image, gid),
            (Err(error), _) => return self.lost(&error.message),
            (_, Err(error)) => return self.lost(&error.to_string()),
        };
        let start = start::start_process(&self.claim.assignment, &image, self.claim.uid, gid);
        self.execute(sandbox.link, start).await
    }

    /// Runs the process, or goes on with it, to its end.
    async fn execute(&mut self, link: Link, start: gantry_proto::v1::StartProcess) -> End {
        self.shared.board.set_running(self.claim.assignee());
        let assignment = &self.claim.assignment;
        let timeout = assignment
            .plan
            .timeout_ms
            .map(|timeout| Duration::from_millis(timeout + assignment.plan.grace_ms));
        let mut pump = Pump::new(
            link,
            PumpStart {
                assignee: assignment.assignee.clone(),
                run: start::run_number(assignment),
                deadman_ms: assignment.deadman_ms,
                timeout,
                start,
                started: StepStarted {
                    assignee: assignment.assignee.clone(),
                    sandbox: self.claim.sandbox,
                    started_at_ms: self.claim.started_at_ms.unwrap_or(0),
                    container: self.claim.place.as_ref().map(|place| place.container.clone()),
                },
                acked: self.claim.output_acked,
            },
        );
        let mut overdue = None;
        let end = loop {
            match pump.run(&mut self.orders, &mut self.session).await {
                RunEnd::Overdue(cause) => {
                    tracing::warn!(sandbox = %self.claim.sandbox, ?cause, "supervisor does not do what it must; killing the container");
                    overdue = Some(cause);
                    self.kill().await;
                }
                end => break end,
            }
        };
        self.claim.output_acked = pump.acked();
        self.claim.started_at_ms = pump.started_at_ms();
        let ended_by_us = overdue.or(pump.stop_cause());
        match end {
            RunEnd::Exited(exit) => {
                self.claim.phase = Phase::Exited(Box::new(exit.clone()));
                self.save_at_last().await;
                pump.acknowledge_exit();
                self.after_exit(exit).await
            }
            RunEnd::Gone(_) if overdue == Some(EndCause::Lost) => {
                self.lost("its supervisor fell silent before it had handed over what its process printed")
            }
            RunEnd::Gone(_) if ended_by_us.is_some() => {
                let cause = ended_by_us.unwrap_or(EndCause::Cancelled);
                End::result(outcome::result(cause, self.now_ms(), None))
            }
            RunEnd::Gone(ending) => self.ended_without_exit(&ending),
            RunEnd::Broken(fault) => {
                tracing::error!(code = fault.code, message = fault.message, "supervisor fault");
                End::result(outcome::result(EndCause::Lost, self.now_ms(), Some(fault)))
            }
            RunEnd::Dropped | RunEnd::Overdue(_) => End::Dropped,
        }
    }

    fn lost(&self, detail: &str) -> End {
        let fault = Fault::new(ErrorCode::InfrastructureLost, format!("the sandbox was lost: {detail}"));
        End::result(outcome::result(EndCause::Lost, self.now_ms(), Some(fault)))
    }

    fn ended_without_exit(&self, ending: &Ending) -> End {
        if ending.oom_killed {
            let fault = Fault::new(ErrorCode::StepOutOfMemory, "the sandbox ran out of memory");
            let mut result = outcome::result(EndCause::Oom, self.now_ms(), Some(fault));
            result.oom_seen = Some(true);
            return End::result(result);
        }
        self.lost(&ending.detail)
    }

    /// The process has ended and all of its output is through: the container ends, its tree is looked at.
    async fn after_exit(&mut self, exit: ProcessExited) -> End {
        let mut result = outcome::from_exit(&exit);
        self.kill().await;
        self.unmount().await;
        if !outcome::succeeded(&exit) {
            return End::result(result);
        }
        let began = Instant::now();
        let mut orders = self.orders.clone();
        let made = tokio::select! {
            made = self.harvest(&exit) => made,
            () = Self::ended_by_order(&mut orders) => {
                return self.ordered_end().unwrap_or(End::Dropped);
            }
        };
        self.capture_ms = Some(millis(began.elapsed()));
        match made {
            Ok(harvest) => {
                result.outputs_json = harvest.outputs;
                result.attrs_json = harvest.attrs;
                result.artifacts = harvest.artifacts;
                End::Result {
                    result: Box::new(result),
                    keep: true,
                }
            }
            Err(Spoiled::Dropped) => End::Dropped,
            Err(Spoiled::Because(cause, fault)) => {
                result.cause = cause.into();
                result.fault = Some(fault);
                End::result(result)
            }
        }
    }

    /// Outputs, artifacts, and the sealed layer.
    async fn harvest(&self, exit: &ProcessExited) -> Result<Harvest, Spoiled> {
        let plan = &self.claim.assignment.plan;
        let key = self.key();
        let broken = |fault: Fault| Spoiled::Because(EndCause::Contract, fault);
        let (outputs, attrs) = outcome::reports(exit, plan).map_err(broken)?;
        let patterns = Patterns::new(&plan.artifact_globs, &plan.required_artifacts).map_err(|e| broken(e.fault()))?;
        let mut artifacts: Vec<Artifact> = Vec::new();
        // Sealed by an earlier process, which died before it wrote the result down: its tree is read where it is now.
        if !patterns.is_empty() {
            let view = self
                .shared
                .workspaces
                .view(key)
                .await
                .map_err(Spoiled::from_workspace)?;
            let root = view.0.clone();
            let found = self
                .shared
                .tasks
                .spawn_blocking(move || capture::find(&root, &patterns))
                .await;
            let found = found
                .map_err(|error| Spoiled::internal(&error))?
                .map_err(Spoiled::from_capture)?;
            let stored = capture::store(
                &view.0,
                found,
                self.claim.assignee(),
                self.shared.config.node,
                self.shared.uplink.as_ref(),
            );
            artifacts = stored.await.map_err(Spoiled::from_capture)?;
        }
        self.shared
            .workspaces
            .seal(key, plan.last)
            .await
            .map_err(Spoiled::from_workspace)?;
        Ok(Harvest {
            outputs,
            attrs,
            artifacts,
        })
    }

    fn complete_result(&self, result: &mut StepResult) {
        result.started_at_ms = self.claim.started_at_ms;
        result.sandbox = Some(self.claim.sandbox);
        result.prepare_ms = Some(self.claim.prepare_ms);
        result.capture_ms = self.capture_ms;
        if result.last_seq.is_none() && self.claim.output_acked > 0 {
            result.last_seq = Some(self.claim.output_acked);
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------------------------------

    /// A result is there: nothing runs any more, and a layer that is not kept is gone.
    async fn close_sandbox_for_result(&mut self, keep: bool) {
        if keep {
            return;
        }
        self.kill().await;
        self.unmount().await;
        self.discard().await;
    }

    /// Tells the server until it has taken the result, then forgets the claim.
    async fn report(&mut self, result: StepResult) {
        let assignee = self.claim.assignee().clone();
        // A slot that is free is free before the server hears of the result, so that other work may come with its answer.
        self.shared.board.set_finished(&assignee, self.claim.occupies_slot());
        let mut told = 0;
        let stale = loop {
            let (taken, dropped) = {
                let orders = self.orders.borrow_and_update();
                (orders.result, orders.dropped)
            };
            // The answer to the result itself counts most: what it accepted may carry the next step.
            if let Some(stale) = taken {
                break stale;
            }
            if dropped {
                break true;
            }
            let session = self.session.borrow_and_update().clone();
            if let Some(session) = session.filter(|session| session.epoch != told) {
                told = session.epoch;
                let finished = StepFinished {
                    assignee: assignee.clone(),
                    result: result.clone(),
                };
                let telling = async {
                    self.shared.board.send_credits(&session).await;
                    session.send(Kind::StepFinished(finished)).await
                };
                tokio::select! {
                    _ = telling => {}
                    _ = self.session.changed() => {}
                }
                continue;
            }
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() { return },
                changed = self.session.changed() => if changed.is_err() { return },
            }
        };
        self.shared.board.free_slot(&assignee);
        if stale {
            self.discard().await;
        }
        self.destroy().await;
        self.forget().await;
    }

    /// Nothing ran: the server gives it to somebody else, and is told so before anything is cleaned up, which may have to wait for Docker. Until it is
    /// forgotten here every new session hears it again.
    async fn give_back(&mut self, fault: Fault) {
        let assignee = self.claim.assignee().clone();
        let refused = AssignmentRefused { assignee, fault };
        let mut session = self.session.clone();
        let mut told = 0;
        let board = &self.shared.board;
        let mut tell = async || {
            let Some(now) = session.borrow_and_update().clone().filter(|now| now.epoch != told) else {
                // The board is gone, and so is the node.
                if session.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                return;
            };
            told = now.epoch;
            let telling = async {
                board.send_credits(&now).await;
                now.send(Kind::AssignmentRefused(refused.clone())).await
            };
            tokio::select! {
                _ = telling => {}
                _ = session.changed() => {}
            }
        };
        if self.session.borrow().is_some() {
            tell().await;
        }
        let telling = async {
            loop {
                tell().await;
            }
        };
        tokio::select! {
            () = self.clean_up() => {}
            () = telling => {}
        }
    }

    /// Removes everything of the attempt but its claim.
    async fn clean_up(&self) {
        self.kill().await;
        self.unmount().await;
        self.destroy().await;
        self.discard().await;
    }

    /// Forgets the claim: the last act.
    async fn forget(&mut self) {
        let (claims, assignee) = (self.shared.claims.clone(), self.claim.assignee().clone());
        let mut backoff = Backoff::patient();
        loop {
            let (claims, assignee) = (claims.clone(), assignee.clone());
            let removed = self.shared.tasks.spawn_blocking(move || claims.remove(&assignee)).await;
            match removed {
                Ok(Err(error)) => tracing::error!(%error, "claim cannot be forgotten"),
                _ => break,
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        self.shared.uids.release(self.claim.uid);
        if let Some(task) = self.shared.board.remove(&assignee) {
            self.shared.release_workspace(task);
        }
    }

    // ---- parts that must succeed, however long it takes -------------------------------------------------------------------------------------

    async fn kill(&self) {
        let (fleet, id) = (&self.shared.fleet, self.claim.sandbox);
        patiently("kill the sandbox", || fleet.kill(id)).await;
    }

    async fn destroy(&self) {
        let (fleet, id) = (&self.shared.fleet, self.claim.sandbox);
        self.unmount().await;
        patiently("destroy the sandbox", || fleet.destroy(id)).await;
    }

    async fn unmount(&self) {
        let Some(place) = &self.claim.place else { return };
        let key = self.key();
        let workspaces = &self.shared.workspaces;
        stubbornly("unmount the workspace", || workspaces.unmount(key, &place.slot)).await;
    }

    async fn discard(&self) {
        let (key, workspaces) = (self.key(), &self.shared.workspaces);
        stubbornly("drop the layer", || workspaces.discard(key)).await;
    }

    async fn save(&self) -> Result<(), ClaimError> {
        let (claims, claim) = (self.shared.claims.clone(), self.claim.clone());
        let saved = self.shared.tasks.spawn_blocking(move || claims.save(&claim)).await;
        saved.unwrap_or_else(|error| {
            let path = self.shared.claims.path(self.claim.assignee());
            Err(ClaimError::Io {
                path,
                source: std::io::Error::other(error),
            })
        })
    }

    /// Writes the claim where there is no way back.
    async fn save_at_last(&self) {
        let mut backoff = Backoff::patient();
        while let Err(error) = self.save().await {
            tracing::error!(%error, "claim cannot be written; trying again");
            if error.is_disk_full() {
                self.shared
                    .board
                    .note_fault(Fault::new(ErrorCode::DiskFull, error.to_string()));
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

struct Harvest {
    outputs: Option<bytes::Bytes>,
    attrs: Option<bytes::Bytes>,
    artifacts: Vec<Artifact>,
}

/// Why a step that succeeded is none.
enum Spoiled {
    Because(EndCause, Fault),
    Dropped,
}

impl Spoiled {
    fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::Because(EndCause::Lost, Fault::new(ErrorCode::Internal, error.to_string()))
    }

    fn from_workspace(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::BadTree { .. } => Self::Because(EndCause::Contract, error.fault()),
            error => Self::Because(EndCause::Lost, error.fault()),
        }
    }

    fn from_capture(error: capture::CaptureError) -> Self {
        if error.is_stale() {
            return Self::Dropped;
        }
        let cause = if error.is_contract() {
            EndCause::Contract
        } else {
            EndCause::Lost
        };
        Self::Because(cause, error.fault())
    }
}

/// A fleet call that is repeated until it is done.
async fn patiently<T, Fut>(what: &str, call: impl Fn() -> Fut) -> T
where
    Fut: Future<Output = Result<T, FleetError>>,
{
    let mut backoff = Backoff::patient();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%error, what, "Docker did not do it; trying again"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// A fleet call that is repeated while Docker is away; any other error is an answer.
async fn while_away<T, Fut>(what: &str, call: impl Fn() -> Fut) -> Result<T, FleetError>
where
    Fut: Future<Output = Result<T, FleetError>>,
{
    patiently(what, || {
        let called = call();
        async {
            match called.await {
                Err(error) if error.code == ErrorCode::DockerUnavailable => Err(error),
                answer => Ok(answer),
            }
        }
    })
    .await
}

/// A workspace call without which nothing may go on.
async fn stubbornly<Fut>(what: &str, call: impl Fn() -> Fut)
where
    Fut: Future<Output = Result<(), WorkspaceError>>,
{
    let mut backoff = Backoff::patient();
    while let Err(error) = call().await {
        if matches!(error, WorkspaceError::Damaged { .. }) {
            tracing::error!(%error, what, "left as it is");
            return;
        }
        tracing::warn!(%error, what, "trying again");
        tokio::time::sleep(backoff.pause()).await;
    }
}
