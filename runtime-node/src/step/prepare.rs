//! Everything that comes before a step's process: claim file, workspace, sandbox.

use gantry_fleet_manager::{FleetError, Image, Profile, Sandbox};
use gantry_proto::ErrorCode;
use gantry_proto::v1::{EndCause, Fault, GetArtifactRequest, InputPlan};

use super::{End, Step, outcome};
use crate::capture::Patterns;
use crate::claims::{Phase, Place};
use crate::uplink::{ByteStream, Uplink, UplinkError};
use crate::workspace::{FetchInput, WorkspaceError};

impl Step {
    /// A sandbox with the workspace in its slot; the claim file says `running`.
    pub(super) async fn prepare(&mut self) -> Result<(Sandbox, u32, Image), End> {
        let plan = self.claim.assignment.plan.clone();
        self.claim.phase = Phase::Claimed;
        self.claim.place = None;
        self.claim.image = None;
        self.save().await.map_err(|error| self.not_saved(&error))?;
        if let Err(error) = Patterns::new(&plan.artifact_globs, &plan.required_artifacts) {
            return Err(self.invalid(error.fault()));
        }
        let inputs = Inputs {
            uplink: self.shared.uplink.as_ref(),
            step: self,
        };
        let profile_of = |image: &Image| Profile {
            image: image.id.clone(),
            resources: plan.resources,
            runtime: self.shared.config.runtime.clone(),
        };
        let mut orders = self.orders.clone();
        let sandbox = async {
            let image = self.shared.fleet.image(&plan.image).await?;
            let sandbox = self.shared.fleet.claim(self.claim.sandbox, &profile_of(&image)).await?;
            Ok::<_, FleetError>((image, sandbox))
        };
        let workspace = async {
            // A workspace may take minutes and nobody else waits for it; a claim has its own deadline, and dropping it half-way could leave a container.
            tokio::select! {
                prepared = self.shared.workspaces.prepare(self.key(), &plan, &inputs) => Some(prepared),
                () = Self::ended_by_order(&mut orders) => None,
            }
        };
        let (workspace, sandbox) = tokio::join!(workspace, sandbox);
        let Some(workspace) = workspace else {
            return Err(self.ordered_end().unwrap_or(End::Dropped));
        };
        let (image, sandbox) = sandbox.map_err(|error| self.no_sandbox(error))?;
        let place = Place {
            container: sandbox.container.clone(),
            nonce: sandbox.nonce,
            slot: sandbox.slot.clone(),
        };
        self.claim.place = Some(place);
        self.claim.image = Some(image.id.0.clone());
        let gid = workspace.map_err(|error| self.no_workspace(&error))?;
        self.claim.phase = Phase::Running;
        self.save().await.map_err(|error| self.not_saved(&error))?;
        let mounted = self.shared.workspaces.mount(self.key(), &sandbox.slot).await;
        mounted.map_err(|error| self.no_workspace(&error))?;
        match self.ordered_end() {
            Some(end) => Err(end),
            None => Ok((sandbox, gid, image)),
        }
    }

    fn invalid(&self, fault: Fault) -> End {
        End::result(outcome::result(EndCause::Invalid, self.now_ms(), Some(fault)))
    }

    fn lost_with(&self, fault: Fault) -> End {
        End::result(outcome::result(EndCause::Lost, self.now_ms(), Some(fault)))
    }

    /// Nothing ran, and the node is not fit for it: no credits until it is.
    fn unfit(&self, fault: Fault) -> End {
        self.shared.board.note_fault(fault.clone());
        End::Refused(fault)
    }

    fn not_saved(&self, error: &crate::claims::ClaimError) -> End {
        tracing::error!(%error, "claim cannot be written");
        let code = if error.is_disk_full() {
            ErrorCode::DiskFull
        } else {
            ErrorCode::Internal
        };
        self.unfit(Fault::new(code, error.to_string()))
    }

    fn no_sandbox(&self, error: FleetError) -> End {
        match error.code {
            ErrorCode::ImageNotFound | ErrorCode::ImageRefused | ErrorCode::StepCannotStart => {
                self.invalid(error.into())
            }
            ErrorCode::DockerUnavailable | ErrorCode::DiskFull => self.unfit(error.into()),
            _ => self.lost_with(error.into()),
        }
    }

    fn no_workspace(&self, error: &WorkspaceError) -> End {
        match error {
            WorkspaceError::Refused { .. } | WorkspaceError::BadTree { .. } | WorkspaceError::Fetch { .. } => {
                self.invalid(error.fault())
            }
            WorkspaceError::DiskFull { .. } => self.unfit(error.fault()),
            WorkspaceError::Stale => End::Dropped,
            // The node's or the server's fault, never the step's.
            _ => self.lost_with(error.fault()),
        }
    }
}

/// Inputs of a step, from the server.
struct Inputs<'a> {
    uplink: &'a dyn Uplink,
    step: &'a Step,
}

#[async_trait::async_trait]
impl FetchInput for Inputs<'_> {
    async fn fetch(&self, input: &InputPlan) -> Result<ByteStream, UplinkError> {
        let request = GetArtifactRequest {
            assignee: self.step.claim.assignee().clone(),
            artifact: input.artifact,
            node: self.step.shared.config.node,
        };
        self.uplink.get_artifact(request).await
    }
}
