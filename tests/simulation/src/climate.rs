//! What a run is like: each has its own mix of faults, so that some see one kind of trouble often and alone.

use crate::dice::Dice;

/// Rates in a thousand, and lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Climate {
    pub(crate) nodes: u64,
    pub(crate) partitions: u16,
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
    /// Mean pause between two acts.
    pub(crate) act_ms: u64,
    /// Of syncs: the process dies while the batch is not durable.
    pub(crate) crash_before_sync: u64,
    /// Of syncs: the process dies when the batch is durable and nobody knows.
    pub(crate) crash_after_sync: u64,
    /// Of syncs: the outcome is unknown to the process, which lives.
    pub(crate) unknown: u64,
    /// Of unknown outcomes: the store takes no further write.
    pub(crate) wedged: u64,
    pub(crate) sync_ms_max: u64,
    /// Longest way of a message.
    pub(crate) net_ms_max: u64,
    /// Of attempts: the sandbox dies before anything ran.
    pub(crate) stillborn: u64,
    /// Of messages of a node: said twice.
    pub(crate) repeat: u64,
    /// Of messages of a node: overtaken by one about another task.
    pub(crate) overtake: u64,
    /// Weight of what clients do with schedules: many runs have none, as they fill a run.
    pub(crate) schedules: u64,
    /// Weight of each fault among acts.
    pub(crate) faults: Faults,
}

/// Weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) kill_server: u64,
    pub(crate) stop_server: u64,
    pub(crate) restart_server: u64,
    pub(crate) disk_full: u64,
    pub(crate) clock_jump: u64,
    pub(crate) partition: u64,
    pub(crate) cut: u64,
    pub(crate) node_crash: u64,
    pub(crate) node_stop: u64,
    pub(crate) node_unfit: u64,
    pub(crate) node_gone: u64,
    pub(crate) flood: u64,
}

impl Climate {
    pub(crate) fn draw(dice: &Dice) -> Self {
        // One run in eight is calm: what works without faults must work.
        let calm = dice.chance(125);
        let rate = |permille: u64, max: u64| {
            if !calm && dice.chance(permille) {
                dice.between(1, max)
            } else {
                0
            }
        };
        let faults = Faults {
            kill_server: rate(500, 12),
            stop_server: rate(350, 8),
            restart_server: rate(250, 5),
            disk_full: rate(200, 5),
            clock_jump: rate(300, 8),
            partition: rate(400, 12),
            cut: rate(500, 20),
            node_crash: rate(500, 15),
            node_stop: rate(300, 10),
            node_unfit: rate(300, 10),
            node_gone: rate(80, 3),
            flood: if dice.chance(5) { 3 } else { 0 },
        };
        let heartbeat_ms = dice.between(1, 5) * 1_000;
        if dice.chance(30) {
            return Self::barren(dice);
        }
        Self {
            nodes: dice.between(1, 4),
            partitions: [1, 2, 2, 3][dice.index(4)],
            heartbeat_ms,
            lease_ms: heartbeat_ms * dice.between(3, 6),
            act_ms: dice.between(50, 1_200),
            crash_before_sync: rate(400, 8),
            crash_after_sync: rate(400, 8),
            unknown: rate(400, 15),
            wedged: rate(500, 500),
            sync_ms_max: [400, 400, 1_500, 4_500][dice.index(4)],
            net_ms_max: [3, 20, 400][dice.index(3)],
            stillborn: if calm { 0 } else { 10 },
            repeat: rate(500, 60),
            overtake: rate(500, 60),
            schedules: if dice.chance(200) { 8 } else { 0 },
            faults,
        }
    }

    /// One node, on which nearly nothing ever starts: what infrastructure loses again and again must fail in the end.
    fn barren(dice: &Dice) -> Self {
        Self {
            nodes: 1,
            partitions: 1,
            heartbeat_ms: 5_000,
            lease_ms: 20_000,
            act_ms: dice.between(20_000, 40_000),
            crash_before_sync: 0,
            crash_after_sync: 0,
            unknown: 0,
            wedged: 0,
            sync_ms_max: 400,
            net_ms_max: 3,
            stillborn: 970,
            repeat: 0,
            overtake: 0,
            schedules: 0,
            faults: Faults::default(),
        }
    }

    /// The same run with all faults gone.
    pub(crate) fn healed(self) -> Self {
        Self {
            crash_before_sync: 0,
            crash_after_sync: 0,
            unknown: 0,
            wedged: 0,
            sync_ms_max: 400,
            net_ms_max: 3,
            stillborn: 0,
            repeat: 0,
            overtake: 0,
            faults: Faults::default(),
            ..self
        }
    }
}
