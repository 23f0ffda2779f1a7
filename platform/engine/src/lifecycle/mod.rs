//! What states things have and which changes are legal: one file per entity, the transition table as data.
//!
//! Every change of state goes through [`Lifecycle::step`]; an edge that is not in the table is refused with [`IllegalTransition`].

pub mod bulk;
pub mod node;
pub mod sandbox;
pub mod task;
pub mod workflow;

/// A change that the transition table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {entity} that is {from} cannot go on by {trigger}")]
pub struct IllegalTransition {
    /// What kind of thing.
    pub entity: &'static str,
    /// The state it is in.
    pub from: &'static str,
    /// What was tried.
    pub trigger: String,
}

/// One edge: state, what happens, next state.
pub type Edge<L> = (L, <L as Lifecycle>::Trigger, L);

/// A state machine given by its table.
pub trait Lifecycle: Copy + Eq + std::fmt::Debug + Sized + 'static {
    /// What can happen to it.
    type Trigger: Copy + Eq + std::fmt::Debug + 'static;
    /// What it is the lifecycle of, for messages.
    const ENTITY: &'static str;
    /// Every state.
    const ALL: &'static [Self];
    /// Every legal edge, once.
    const EDGES: &'static [Edge<Self>];

    /// The state in snake_case.
    fn as_str(self) -> &'static str;

    /// The state after `trigger`.
    ///
    /// # Errors
    /// When the table has no such edge.
    fn step(self, trigger: Self::Trigger) -> Result<Self, IllegalTransition> {
        Self::EDGES
            .iter()
            .find(|(from, by, _)| *from == self && *by == trigger)
            .map(|(_, _, to)| *to)
            .ok_or_else(|| IllegalTransition {
                entity: Self::ENTITY,
                from: self.as_str(),
                trigger: format!("{trigger:?}"),
            })
    }

    /// Whether nothing can follow.
    fn is_final(self) -> bool {
        Self::EDGES.iter().all(|(from, _, _)| *from != self)
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{got}` is no state of a {entity}; there are: {known}")]
pub struct UnknownState {
    /// What kind of thing.
    pub entity: &'static str,
    /// What was given.
    pub got: String,
    /// All states.
    pub known: String,
}

/// Declares the enum of states with its texts; numbers are stored, so they never change.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident of $entity:literal { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration, serde::Serialize,
            serde::Deserialize, utoipa::ToSchema,
        )]
        #[serde(rename_all = "snake_case")]
        #[repr(i32)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $number,)*
        }

        impl $name {
            /// Every state, in the order of the life.
            pub const STATES: &'static [Self] = &[$(Self::$variant),*];

            /// The state in snake_case, as it is shown and filtered by.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.text())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::lifecycle::UnknownState;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::STATES.iter().copied().find(|state| state.text() == text).ok_or_else(|| {
                    $crate::lifecycle::UnknownState {
                        entity: $entity,
                        got: text.chars().take(64).collect(),
                        known: Self::STATES.iter().map(|state| state.text()).collect::<Vec<_>>().join(", "),
                    }
                })
            }
        }
    };
}
pub(crate) use states;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Prints the table, and checks that every state can be reached from the first and that no edge stands twice.
    fn check<L: Lifecycle>(texts: impl Fn(&str) -> Option<L>) {
        let mut reached = vec![L::ALL[0]];
        let mut at = 0;
        while at < reached.len() {
            for (from, _, to) in L::EDGES {
                if *from == reached[at] && !reached.contains(to) {
                    reached.push(*to);
                }
            }
            at += 1;
        }
        let mut seen = BTreeSet::new();
        for (from, by, to) in L::EDGES {
            println!("{}: {} --{by:?}--> {}", L::ENTITY, from.as_str(), to.as_str());
            assert!(
                seen.insert(format!("{from:?} {by:?}")),
                "{from:?} by {by:?} stands twice"
            );
            assert_eq!(from.step(*by), Ok(*to));
        }
        for state in L::ALL {
            assert!(
                reached.contains(state),
                "{} {} cannot be reached",
                L::ENTITY,
                state.as_str()
            );
            assert_eq!(texts(state.as_str()), Some(*state), "text round trip");
        }
        let any_trigger = L::EDGES[0].1;
        for state in L::ALL.iter().filter(|state| state.is_final()) {
            assert!(state.step(any_trigger).is_err(), "final states refuse everything");
        }
    }

    #[test]
    fn every_table_is_sound() {
        check::<task::TaskState>(|text| text.parse().ok());
        check::<workflow::WorkflowState>(|text| text.parse().ok());
        check::<node::NodeState>(|text| text.parse().ok());
        check::<bulk::BulkState>(|text| text.parse().ok());
        check::<sandbox::SandboxState>(|text| text.parse().ok());
    }

    #[test]
    fn counts_are_those_of_the_design() {
        assert_eq!(task::TaskState::ALL.len(), 10);
        assert_eq!(workflow::WorkflowState::ALL.len(), 6);
        assert_eq!(node::NodeState::ALL.len(), 6);
        assert_eq!(sandbox::SandboxState::ALL.len(), 10);
    }

    #[test]
    fn illegal_edges_say_what_was_tried() {
        let refused = task::TaskState::Completed.step(task::TaskTrigger::Claimed).unwrap_err();
        assert_eq!(refused.to_string(), "a task that is completed cannot go on by Claimed");
    }
}
