//! The buyer's walk through candidates: the next one at once, then other hosts, then wait.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use welkin_proto::Offer;
use welkin_proto::lease::RefusalCode;
use welkin_types::{LeaseState, NodeId, Reason, UnixMillis};

use crate::rounds::Rounds;

/// What the buyer does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Asks an indexer, excluding these hosts.
    Match(Vec<NodeId>),
    /// Opens the lease at this candidate.
    Try(Box<Offer>),
    /// Waits until then and asks again, all hosts allowed.
    Wait(UnixMillis),
    /// Gives up.
    GiveUp(Reason),
}

/// One search for a container.
#[derive(Debug)]
pub struct Placement {
    candidates: VecDeque<Offer>,
    rounds: Rounds,
}

impl Placement {
    /// Begins a search that may take until `deadline`.
    pub const fn new(deadline: UnixMillis) -> Self {
        Self { candidates: VecDeque::new(), rounds: Rounds::new(deadline) }
    }

    /// Takes an indexer's candidates in.
    pub fn offered(&mut self, offers: Vec<Offer>) {
        self.candidates = offers.into();
    }

    /// Whether another candidate is at hand. Then a silent one is not waited for as long.
    pub fn has_more(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// A host said no, or could not be reached (`None`). Returns a reason that other hosts would
    /// have, too.
    pub fn refused(&mut self, host: NodeId, code: Option<RefusalCode>) -> Option<RefusalCode> {
        self.rounds.refuse(host, code)
    }

    /// What to do now; `nothing` says that the last match found no container at all.
    pub fn next(&mut self, now: UnixMillis, nothing: bool) -> Step {
        while let Some(offer) = self.candidates.pop_front() {
            if offer.expires > now && !self.rounds.has_refused(offer.addr.node) {
                return Step::Try(Box::new(offer));
            }
        }
        if !nothing {
            return Step::Match(self.rounds.excluded());
        }
        self.rounds.next(now).map_or_else(Step::GiveUp, Step::Wait)
    }
}

/// When an ended lease is placed once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// After the host or its sandbox was lost.
    pub on_lost: bool,
    /// After the host took the container back.
    pub on_preempted: bool,
    /// After the command failed.
    pub on_failed: bool,
    /// How often at most.
    pub max: u32,
    /// And until when at most.
    pub until: Option<UnixMillis>,
}

impl Retry {
    /// Whether to place it again after `tries` retries.
    pub fn again(&self, state: LeaseState, tries: u32, now: UnixMillis) -> bool {
        let wanted = match state {
            LeaseState::Lost => self.on_lost,
            LeaseState::Preempted => self.on_preempted,
            LeaseState::Failed => self.on_failed,
            _ => false,
        };
        wanted && tries < self.max && self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_bounded_by_kind_number_and_time() {
        let retry = Retry { on_lost: true, max: 2, until: Some(UnixMillis(9)), ..Retry::default() };
        let lost = |tries, at| retry.again(LeaseState::Lost, tries, UnixMillis(at));
        assert!(lost(0, 0) && lost(1, 8));
        assert!(!lost(2, 0), "twice is enough");
        assert!(!lost(0, 9), "it is too late");
        assert!(!retry.again(LeaseState::Failed, 0, UnixMillis(0)), "nobody asked for that");
        assert!(!Retry { on_lost: false, ..retry }.again(LeaseState::Lost, 0, UnixMillis(0)));
    }
}
