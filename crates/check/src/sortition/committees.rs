//! Who checks what in the minutes of an epoch: who has drawn it, and who stands in.
//!
//! - A checker proves each minute ([`Committees::ticket`]) with the key that was registered before the
//!   seed was known. What it has drawn ([`Lot`]) nobody else can compute; whoever is shown the proof
//!   can verify it at once ([`Committees::shown`]), and learns of that minute only.
//! - Where there are no more checkers than a committee, all check everything and nothing is to be
//!   shown: there is nothing that could be kept from a host.
//! - In the last minute of a period [`Committees::stand_ins`] are publicly named for each container, by
//!   rendezvous hashing, in an order. They come whether they are needed or not, for nobody can tell
//!   before all is published. Their word counts only where fewer than a committee have spoken, and only
//!   as many as fill it, in that order: so who is silent is replaced by the next.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use welkin_proto::epoch::Span;
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{Seating, Turn, TurnProof};
use welkin_types::{ContainerId, NodeId};

use super::lot::{self, Lot};
use super::rendezvous::heaviest;
use super::{Proof, Ticket, VrfPublic};

/// Who checks in an epoch, and how it is told who checks what.
#[derive(Clone, Debug)]
pub struct Committees {
    epoch: u64,
    seed: [u8; 32],
    span: Span,
    size: usize,
    /// By key.
    checkers: BTreeMap<NodeId, Listed>,
    /// In the order of their numbers, with a hash each.
    numbered: Vec<NodeId>,
    hashes: Vec<u64>,
    /// How much of the circle an arc has.
    arc: u64,
}

impl Committees {
    /// Those of an epoch, of so many checkers each.
    pub fn new(view: &EpochView, size: usize) -> Self {
        // Of one that stands there twice the same one counts, in whatever order a file has them.
        let mut checkers = BTreeMap::new();
        for listed in view.checkers.iter().copied().collect::<BTreeSet<_>>() {
            checkers.entry(listed.node).or_insert(listed);
        }
        let mut numbered: Vec<_> = checkers.values().map(|it| (it.number, it.node)).collect();
        numbered.sort_unstable();
        let of_epoch = |domain: &[u8]| {
            let hash = Sha256::new().chain_update(domain).chain_update(view.seed);
            hash.chain_update(view.epoch.to_be_bytes())
        };
        let base = of_epoch(b"welkin/stand-in/licence/1\0");
        let hash = |number: u32| lot::first(base.clone().chain_update(number.to_be_bytes()));
        let all = u128::try_from(checkers.len().max(1)).unwrap_or(1);
        let share = (u128::try_from(size).unwrap_or(0) << 64) / all;
        Self {
            epoch: view.epoch,
            seed: view.seed,
            span: Span::of(view.epoch, view.epoch_seconds),
            size,
            hashes: numbered.iter().map(|(number, _)| hash(*number)).collect(),
            numbered: numbered.into_iter().map(|(_, node)| node).collect(),
            checkers,
            arc: u64::try_from(share).unwrap_or(u64::MAX),
        }
    }

    /// Whether all check everything.
    pub fn are_all(&self) -> bool {
        self.checkers.len() <= self.size
    }

    /// How many checkers a committee has here.
    pub fn size(&self) -> usize {
        self.size.min(self.checkers.len())
    }

    /// How many checkers there are.
    pub fn checkers(&self) -> u32 {
        u32::try_from(self.checkers.len()).unwrap_or(u32::MAX)
    }

    /// When the epoch is.
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// What a checker proves for a minute of the epoch, and with which key.
    pub fn ticket(&self, checker: NodeId, minute: u64) -> Option<(Ticket, VrfPublic)> {
        let listed = self.checkers.get(&checker)?;
        self.span.period_of(minute)?;
        let seed = Sha256::new()
            .chain_update(b"welkin/check/minute/1\0")
            .chain_update(self.seed)
            .chain_update(self.epoch.to_be_bytes())
            .chain_update(minute.to_be_bytes());
        let ticket = Ticket { seed: seed.finalize().into(), at: minute, licence: listed.number };
        Some((ticket, VrfPublic(listed.vrf)))
    }

    /// What a turn shows that a checker has drawn, if it is its own.
    pub fn shown(&self, checker: NodeId, turn: &Turn) -> Option<Lot> {
        let (ticket, key) = self.ticket(checker, turn.minute)?;
        Proof(turn.proof.to_bytes()).verify(&key, &ticket).map(Lot::new)
    }

    /// Whether a lot has a container on its arc.
    pub fn visits(&self, lot: &Lot, minute: u64, container: ContainerId) -> bool {
        let place = lot::place(&self.seed, minute, container);
        self.are_all() || place.wrapping_sub(lot.start()) < self.arc
    }

    /// Who stands in for a container in the last minute of a period, in this order: nobody in any other
    /// one, or where all check everything.
    pub fn stand_ins(&self, minute: u64, container: ContainerId) -> Vec<NodeId> {
        if self.are_all() || !self.span.is_last_minute(minute) {
            return Vec::new();
        }
        let hash = Sha256::new()
            .chain_update(b"welkin/stand-in/container/1\0")
            .chain_update(self.seed)
            .chain_update(minute.to_be_bytes())
            .chain_update(container.as_bytes());
        // Twice a committee less one: as many may be silent as leave it a majority and more.
        let wanted = (2 * self.size).saturating_sub(1);
        let places = heaviest(&self.hashes, lot::first(hash), wanted);
        places.into_iter().filter_map(|place| self.numbered.get(place).copied()).collect()
    }

    /// How a checker comes to a container in a minute, with the lot that it has shown.
    pub fn seating(
        &self,
        checker: NodeId,
        minute: u64,
        container: ContainerId,
        lot: Option<&Lot>,
    ) -> Seating {
        if !self.checkers.contains_key(&checker) || self.span.period_of(minute).is_none() {
            return Seating::Nobody;
        }
        if self.are_all() || lot.is_some_and(|lot| self.visits(lot, minute, container)) {
            return Seating::Drawn;
        }
        let stand_ins = self.stand_ins(minute, container);
        let rank = stand_ins.iter().position(|node| *node == checker);
        rank.and_then(|rank| u8::try_from(rank).ok()).map_or(Seating::Nobody, Seating::StandIn)
    }

    /// The same of a report, with its proof.
    pub fn seating_of(
        &self,
        checker: NodeId,
        minute: u64,
        container: ContainerId,
        proof: Option<TurnProof>,
    ) -> Seating {
        let lot = proof.and_then(|proof| self.shown(checker, &Turn { minute, proof }));
        self.seating(checker, minute, container, lot.as_ref())
    }

    /// Containers by their places in a minute, so that those of many lots are found.
    pub fn map(&self, minute: u64, containers: &[ContainerId]) -> Map {
        let place = |container: &ContainerId| lot::place(&self.seed, minute, *container);
        let mut places: Vec<_> = containers.iter().map(place).zip(0..).collect();
        places.sort_unstable();
        Map { places, arc: if self.are_all() { u64::MAX } else { self.arc } }
    }
}

/// Containers in the order of their places in a minute.
#[derive(Clone, Debug)]
pub struct Map {
    places: Vec<(u64, u32)>,
    arc: u64,
}

impl Map {
    /// Which of them a lot visits, by their place in the list that the map was made of.
    pub fn visited(&self, lot: &Lot) -> impl Iterator<Item = u32> + '_ {
        let (start, arc) = (lot.start(), self.arc);
        let from = self.places.partition_point(|(place, _)| *place < start);
        let (before, after) = self.places.split_at(from);
        let on_arc =
            move |(place, _): &&(u64, u32)| place.wrapping_sub(start) < arc || arc == u64::MAX;
        after.iter().chain(before).take_while(on_arc).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests;
