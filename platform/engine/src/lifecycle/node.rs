//! The life of a node, as the engine sees it.

use super::{Edge, Lifecycle, states};

states! {
    /// Where a node stands.
    NodeState of "node" {
        /// Known, not connected.
        Offline = 5 "offline",
        /// Connected and has room.
        Online = 0 "online",
        /// Connected, every slot is taken.
        Busy = 1 "busy",
        /// Finishes what it holds and gets nothing new.
        Draining = 2 "draining",
        /// Connected, but cannot take work; see its fault.
        Degraded = 3 "degraded",
        /// Its stream broke; its leases run on until they expire.
        Disconnected = 4 "disconnected",
    }
}

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeTrigger {
    /// It registered.
    Connected,
    /// Every slot is taken.
    Filled,
    /// It has room again.
    Freed,
    /// An operator wants it empty.
    DrainAsked,
    /// The operator changed their mind.
    DrainLifted,
    /// It reports that it cannot work.
    Impaired,
    /// It reports that it can work again.
    Recovered,
    /// Its stream ended.
    Lost,
    /// It said goodbye.
    Left,
}

impl Lifecycle for NodeState {
    type Trigger = NodeTrigger;
    const ENTITY: &'static str = "node";
    const ALL: &'static [Self] = Self::STATES;
    const EDGES: &'static [Edge<Self>] = {
        use NodeState as S;
        use NodeTrigger as T;
        &[
            (S::Offline, T::Connected, S::Online),
            (S::Offline, T::Lost, S::Offline),
            (S::Offline, T::Left, S::Offline),
            (S::Disconnected, T::Connected, S::Online),
            (S::Disconnected, T::Lost, S::Disconnected),
            (S::Disconnected, T::Left, S::Offline),
            (S::Online, T::Connected, S::Online),
            (S::Online, T::Filled, S::Busy),
            (S::Online, T::DrainAsked, S::Draining),
            (S::Online, T::Impaired, S::Degraded),
            (S::Online, T::Lost, S::Disconnected),
            (S::Online, T::Left, S::Offline),
            (S::Busy, T::Connected, S::Online),
            (S::Busy, T::Freed, S::Online),
            (S::Busy, T::DrainAsked, S::Draining),
            (S::Busy, T::Impaired, S::Degraded),
            (S::Busy, T::Lost, S::Disconnected),
            (S::Busy, T::Left, S::Offline),
            (S::Draining, T::Connected, S::Online),
            (S::Draining, T::DrainLifted, S::Online),
            (S::Draining, T::Impaired, S::Degraded),
            (S::Draining, T::Lost, S::Disconnected),
            (S::Draining, T::Left, S::Offline),
            (S::Degraded, T::Connected, S::Online),
            (S::Degraded, T::Impaired, S::Degraded),
            (S::Degraded, T::Recovered, S::Online),
            (S::Degraded, T::DrainAsked, S::Draining),
            (S::Degraded, T::Lost, S::Disconnected),
            (S::Degraded, T::Left, S::Offline),
        ]
    };

    fn as_str(self) -> &'static str {
        self.text()
    }
}
