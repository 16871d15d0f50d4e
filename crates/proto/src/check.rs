//! What checkers and hosts say to each other, and what a checker reports.
//!
//! 1. The checker opens a stream with [`Probe`]: a nonce and the minute for which it is assigned.
//! 2. The host answers [`ProbeReply`], signed, with the nonce and what is free.
//! 3. The checker takes the round trip by its own clock. What it found in a minute it signs on a [`Sheet`]
//!    and sends to indexers.
//!
//! A probe asks what anybody may ask, so it shows the host nothing of what was drawn: the sheet does.

use serde::{Deserialize, Serialize};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use crate::capability::{Capability, container_id};
use crate::signed::Signable;
use crate::turn::TurnProof;

/// A checker's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Fresh random bytes.
    pub nonce: [u8; 16],
    /// The minute (since 1970) for which the checker is assigned.
    pub minute: u64,
}

/// A host's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// The checker's nonce.
    pub nonce: [u8; 16],
    /// Who asked.
    pub checker: NodeId,
    /// The containers and their free slots.
    pub free: Vec<(ContainerId, u32)>,
    /// The host's time.
    pub at: UnixMillis,
}

impl Signable for ProbeReply {
    const KIND: &'static str = "probe-reply";
}

/// What a checker found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Finding {
    /// Answered in time; the round trip in microseconds by the checker's clock.
    Online {
        /// Round trip in microseconds.
        rtt_us: u32,
    },
    /// Could not be reached, or did not answer in time.
    Unreachable,
    /// Answered something that is not an answer.
    Malformed,
    /// Answered, but does not know the container.
    NotListed,
}

/// A checker's finding about one container in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who found it.
    pub checker: NodeId,
    /// Where the container is.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The minute (since 1970).
    pub minute: u64,
    /// What was found.
    pub finding: Finding,
    /// What it has drawn for the minute: it shows that it was to come. Without it, it has stood in.
    pub turn: Option<TurnProof>,
}

/// A container on a [`Sheet`], and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Visit {
    /// Where.
    pub host: NodeId,
    /// The container's place in its host's list, below [`Capability::CONTAINERS_MAX`]: it is named
    /// after both.
    pub place: u8,
    /// What was found.
    pub finding: Finding,
}

impl Visit {
    /// Of a report; none of a container that is not named after its host.
    pub fn of(report: &Report) -> Option<Self> {
        let Report { host, container, finding, .. } = *report;
        let place = (0_u8..)
            .take(Capability::CONTAINERS_MAX)
            .find(|place| container_id(host, (*place).into()) == container)?;
        Some(Self { host, place, finding })
    }

    /// Which container.
    pub fn container(&self) -> ContainerId {
        container_id(self.host, self.place.into())
    }
}

/// A checker's findings of one minute, signed once: of some 37 bytes a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sheet {
    /// Who found it.
    pub checker: NodeId,
    /// The minute (since 1970).
    pub minute: u64,
    /// What it has drawn for the minute: it shows that it was to come. Without it, it has stood in.
    pub turn: Option<TurnProof>,
    /// By host and place, each container once; at least one, at most [`Sheet::VISITS_MAX`].
    pub visits: Vec<Visit>,
}

impl Sheet {
    /// The most visits of one sheet: some 19 KiB.
    pub const VISITS_MAX: usize = 512;

    /// The sheet of one report. A container that is not named after its host stands on none.
    pub fn of(report: &Report) -> Option<Self> {
        let Report { checker, minute, turn, .. } = *report;
        Some(Self { checker, minute, turn, visits: vec![Visit::of(report)?] })
    }

    /// Whether its visits are in order, each once, and as many as there may be.
    pub fn is_sound(&self) -> bool {
        let question = |visit: &Visit| (visit.host, visit.place);
        (1..=Self::VISITS_MAX).contains(&self.visits.len())
            && self.visits.iter().all(|visit| usize::from(visit.place) < Capability::CONTAINERS_MAX)
            && self.visits.windows(2).all(|pair| question(&pair[0]) < question(&pair[1]))
    }

    /// What it says, container by container.
    pub fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        let Self { checker, minute, turn, .. } = *self;
        self.visits.iter().map(move |visit| {
            let (host, container, finding) = (visit.host, visit.container(), visit.finding);
            Report { checker, host, container, minute, finding, turn }
        })
    }
}

impl Signable for Sheet {
    const KIND: &'static str = "sheet";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(place: u32, finding: Finding) -> Report {
        let (checker, host) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([9; 32]));
        let container = container_id(host, place);
        Report { checker, host, container, minute: 7, finding, turn: None }
    }

    #[test]
    fn a_sheet_says_what_was_reported() {
        let reported = report(63, Finding::Online { rtt_us: 900 });
        let sheet = Sheet::of(&reported).unwrap();
        assert!(sheet.is_sound());
        assert_eq!(sheet.reports().collect::<Vec<_>>(), [reported]);
        assert_eq!(Sheet::of(&report(64, Finding::Unreachable)), None);
    }

    #[test]
    fn each_container_stands_on_it_once_and_in_order() {
        let sheet = |places: &[u8]| {
            let mut sheet = Sheet::of(&report(0, Finding::Unreachable)).unwrap();
            let visit = sheet.visits[0];
            sheet.visits = places.iter().map(|place| Visit { place: *place, ..visit }).collect();
            sheet
        };
        assert!(sheet(&[0, 5, 63]).is_sound());
        for bad in [&[][..], &[0, 0], &[5, 0], &[64]] {
            assert!(!sheet(bad).is_sound(), "{bad:?}");
        }
        // The same container with two findings.
        let mut twice = sheet(&[5, 5]);
        twice.visits[1].finding = Finding::NotListed;
        assert!(!twice.is_sound());
        let host = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            Visit { host: NodeId::from_bytes(bytes), place: 0, finding: Finding::Unreachable }
        };
        let mut many = sheet(&[0]);
        many.visits = (0..512).map(host).collect();
        assert!(many.is_sound());
        many.visits.push(host(512));
        assert!(!many.is_sound());
    }
}
