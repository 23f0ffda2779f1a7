//! Taking keys apart.

use gantry_proto::{BulkId, NodeId, PartitionId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId};

use super::{ID, Kind};

/// A parsed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the constructors above
pub enum Parsed {
    /// See [`log`].
    Log {
        partition: PartitionId,
        first_seq: u64,
        tenant: TenantId,
    },
    /// See [`schedule`].
    Schedule {
        partition: PartitionId,
        tenant: TenantId,
        schedule: ScheduleId,
    },
    /// See [`data_key`].
    DataKey {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`workflow`].
    Workflow {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`task`].
    Task {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
        task: TaskId,
    },
    /// See [`activation`](super::activation).
    Activation {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
        activation: [u8; ID],
    },
    /// See [`active`].
    Active {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`timeline`].
    Timeline {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
        first_seq: u64,
    },
    /// See [`idempotency`].
    Idempotency {
        partition: PartitionId,
        tenant: TenantId,
        key_hash: [u8; 32],
    },
    /// See [`node`].
    Node {
        partition: PartitionId,
        tenant: TenantId,
        node: NodeId,
    },
    /// See [`archive`].
    Archive {
        partition: PartitionId,
        tenant: TenantId,
        table: u8,
        day: u32,
        epoch: u64,
        from_seq: u64,
        generation: u32,
    },
    /// See [`sealed`].
    Sealed { partition: PartitionId, tenant: TenantId },
    /// See [`ended`].
    Ended {
        partition: PartitionId,
        tenant: TenantId,
        end_seq: u64,
        workflow: WorkflowId,
    },
    /// See [`bulk`].
    Bulk {
        partition: PartitionId,
        tenant: TenantId,
        bulk: BulkId,
    },
    /// See [`closed`].
    Closed {
        partition: PartitionId,
        tenant: TenantId,
        state: u8,
        workflow: WorkflowId,
    },
    /// See [`hold`].
    Hold {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`erased`].
    Erased {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`destroy`].
    Destroy {
        partition: PartitionId,
        tenant: TenantId,
        workflow: WorkflowId,
    },
    /// See [`upload`].
    Upload {
        partition: PartitionId,
        tenant: TenantId,
        upload: UploadId,
    },
    /// See [`outbox`].
    Outbox {
        partition: PartitionId,
        tenant: TenantId,
        to: PartitionId,
        number: u64,
    },
    /// See [`limit_rate`](super::limit_rate).
    LimitRate {
        partition: PartitionId,
        tenant: TenantId,
        limit: [u8; ID],
    },
    /// See [`limit_claim`](super::limit_claim).
    LimitClaim {
        partition: PartitionId,
        tenant: TenantId,
        limit: [u8; ID],
        workflow: WorkflowId,
        task: TaskId,
    },
    /// See [`paused_scope`](super::paused_scope).
    PausedScope {
        partition: PartitionId,
        tenant: TenantId,
        scope: [u8; ID],
    },
    /// See [`sent`].
    Sent { partition: PartitionId, to: PartitionId },
    /// See [`received`].
    Received { partition: PartitionId, from: PartitionId },
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn partition(&mut self) -> Option<PartitionId> {
        self.take().map(u16::from_be_bytes).and_then(PartitionId::new)
    }
}

/// The tenant comes last here.
fn parse_log(mut rest: Cursor<'_>, partition: PartitionId) -> Option<Parsed> {
    let first_seq = rest.u64()?;
    let tenant = TenantId::from_bytes(rest.take()?);
    rest.0.is_empty().then_some(Parsed::Log {
        partition,
        first_seq,
        tenant,
    })
}

/// Takes a key apart; `None` when it is not one of the layouts above, the store's own keys included.
#[must_use]
#[allow(clippy::too_many_lines)] // one arm for each kind of key
pub fn parse(key: &[u8]) -> Option<Parsed> {
    let mut rest = Cursor(key);
    let [kind] = rest.take::<1>()?;
    let partition = PartitionId::new(u16::from_be_bytes(rest.take()?))?;
    if kind == Kind::Log as u8 {
        return parse_log(rest, partition);
    }
    let tenant = TenantId::from_bytes(rest.take()?);
    if let Some(parsed) = parse_numbered(kind, partition, tenant, &mut rest) {
        return rest.0.is_empty().then_some(parsed);
    }
    let mut id = || rest.take::<ID>();
    let parsed = match kind {
        k if k == Kind::DataKey as u8 => Parsed::DataKey {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Activation as u8 => Parsed::Activation {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
            activation: id()?,
        },
        k if k == Kind::Workflow as u8 => Parsed::Workflow {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Task as u8 => {
            let workflow = WorkflowId::from_bytes(id()?);
            Parsed::Task {
                partition,
                tenant,
                workflow,
                task: TaskId::from_bytes(id()?),
            }
        }
        k if k == Kind::Active as u8 => Parsed::Active {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Timeline as u8 => {
            let workflow = WorkflowId::from_bytes(id()?);
            Parsed::Timeline {
                partition,
                tenant,
                workflow,
                first_seq: rest.u64()?,
            }
        }
        k if k == Kind::Idempotency as u8 => Parsed::Idempotency {
            partition,
            tenant,
            key_hash: rest.take()?,
        },
        k if k == Kind::Node as u8 => Parsed::Node {
            partition,
            tenant,
            node: NodeId::from_bytes(id()?),
        },
        k if k == Kind::Schedule as u8 => Parsed::Schedule {
            partition,
            tenant,
            schedule: ScheduleId::from_bytes(id()?),
        },
        k if k == Kind::Bulk as u8 => Parsed::Bulk {
            partition,
            tenant,
            bulk: BulkId::from_bytes(id()?),
        },
        k if k == Kind::Sealed as u8 => Parsed::Sealed { partition, tenant },
        k if k == Kind::Hold as u8 => Parsed::Hold {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Erased as u8 => Parsed::Erased {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Destroy as u8 => Parsed::Destroy {
            partition,
            tenant,
            workflow: WorkflowId::from_bytes(id()?),
        },
        k if k == Kind::Upload as u8 => Parsed::Upload {
            partition,
            tenant,
            upload: UploadId::from_bytes(id()?),
        },
        _ => return None,
    };
    rest.0.is_empty().then_some(parsed)
}

/// Keys that hold numbers beside ids.
fn parse_numbered(kind: u8, partition: PartitionId, tenant: TenantId, rest: &mut Cursor<'_>) -> Option<Parsed> {
    if kind == Kind::Archive as u8 {
        let ([table], day, from_seq, epoch) = (rest.take::<1>()?, rest.take()?, rest.u64()?, rest.u64()?);
        let generation = rest.take()?;
        return Some(Parsed::Archive {
            partition,
            tenant,
            table,
            day: u32::from_be_bytes(day),
            epoch,
            from_seq,
            generation: u32::from_be_bytes(generation),
        });
    }
    if kind == Kind::Ended as u8 {
        let end_seq = rest.u64()?;
        let workflow = WorkflowId::from_bytes(rest.take()?);
        return Some(Parsed::Ended {
            partition,
            tenant,
            end_seq,
            workflow,
        });
    }
    if kind == Kind::Closed as u8 {
        let [state] = rest.take::<1>()?;
        let workflow = WorkflowId::from_bytes(rest.take()?);
        return Some(Parsed::Closed {
            partition,
            tenant,
            state,
            workflow,
        });
    }
    if kind == Kind::Outbox as u8 {
        let to = rest.partition()?;
        let number = rest.u64()?;
        return Some(Parsed::Outbox {
            partition,
            tenant,
            to,
            number,
        });
    }
    if kind == Kind::LimitRate as u8 {
        let limit = rest.take()?;
        return Some(Parsed::LimitRate {
            partition,
            tenant,
            limit,
        });
    }
    if kind == Kind::PausedScope as u8 {
        let scope = rest.take()?;
        return Some(Parsed::PausedScope {
            partition,
            tenant,
            scope,
        });
    }
    if kind == Kind::LimitClaim as u8 {
        return Some(Parsed::LimitClaim {
            partition,
            tenant,
            limit: rest.take()?,
            workflow: WorkflowId::from_bytes(rest.take()?),
            task: TaskId::from_bytes(rest.take()?),
        });
    }
    // These belong to no tenant.
    if kind == Kind::Sent as u8 && tenant.is_nil() {
        let to = rest.partition()?;
        return Some(Parsed::Sent { partition, to });
    }
    if kind == Kind::Received as u8 && tenant.is_nil() {
        let from = rest.partition()?;
        return Some(Parsed::Received { partition, from });
    }
    None
}
