//! One indexer: the real index over what beats have told it, its holds, and who waits at it.

use std::collections::VecDeque;

use welkin_match::index::{HoldId, Index, Search};

use super::config::{CANDIDATES, Choosing, FRIENDS, HOLD_S, PURPOSES, SECOND};
use super::draw::Draw;
use super::hosts::{Container, Hosts};

/// What an indexer does to its buyers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// Shows the containers of its friends only.
    Hides,
    /// Offers containers that are gone.
    Pretends,
}

/// A container that is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) container: u32,
    /// Whether the application must be started from nothing.
    pub(super) is_cold: bool,
    /// Whether spot leases have to end for it.
    pub(super) is_taking: bool,
    /// What it costs the buyer, by the weights of its search.
    pub(super) cost: u64,
}

/// Candidates, best first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidates {
    list: [Candidate; CANDIDATES],
    len: u8,
    /// Entries that the index looked at for them.
    pub(super) looked_at: u32,
    /// The price of the first one and of the best one, times its weight.
    pub(super) prices: (u64, u64),
}

impl Candidates {
    pub(super) fn push(&mut self, candidate: Candidate) {
        if let Some(place) = self.list.get_mut(usize::from(self.len)) {
            *place = candidate;
            self.len += 1;
        }
    }

    pub(super) fn all(&self) -> &[Candidate] {
        &self.list[..usize::from(self.len)]
    }
}

/// Who waits for a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: u32,
    pub(super) generation: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Indexer {
    pub(super) index: Index,
    pub(super) manner: Manner,
    /// Of each container the newest change that it knows.
    known: Vec<u32>,
    /// Of each container the application that it knows to be ready.
    ready: Vec<Option<u16>>,
    pub(super) waiting: [VecDeque<Waiting>; PURPOSES.len()],
}

impl Indexer {
    pub(super) fn new(index: Index) -> Self {
        let (known, ready) = (vec![0; index.len()], vec![None; index.len()]);
        Self { index, manner: Manner::Honest, known, ready, waiting: Default::default() }
    }

    /// Whether it shows a container at all.
    pub(super) const fn shows(&self, container: &Container) -> bool {
        !matches!(self.manner, Manner::Hides) || container.operator.is_multiple_of(FRIENDS)
    }

    /// Takes a beat; returns whether more is free than it knew.
    pub(super) fn beat(
        &mut self,
        now: u64,
        container: &Container,
        sequence: u32,
        free: u16,
    ) -> bool {
        let known = &mut self.known[container.row.number() as usize];
        if sequence < *known {
            return false;
        }
        *known = sequence;
        let before = self.index.free(container.row);
        let free = if self.shows(container) { free } else { 0 };
        let ready = &mut self.ready[container.row.number() as usize];
        if *ready != container.app {
            *ready = container.app;
            self.index.set_apps(container.row, container.app.as_slice());
        }
        self.index.beat(container.row, now / SECOND, free);
        free > before
    }

    pub(super) fn hold(&mut self, now: u64, container: &Container, slots: u16) -> Option<HoldId> {
        self.index.hold(now, container.row, slots, now + HOLD_S * SECOND).ok()
    }

    pub(super) fn is_anyone_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}

/// Asks an index; containers of its region begin at `first`.
pub(super) fn candidates(
    index: &Index,
    search: &Search<'_>,
    choosing: Choosing,
    (first, draw): (u32, &mut Draw),
) -> Candidates {
    let few = u8::try_from(CANDIDATES).unwrap_or(u8::MAX);
    let search = match choosing {
        Choosing::Best => Search { count: few, width: 1, ..*search },
        Choosing::AnyOfEight => Search { count: 8, width: 1, ..*search },
        Choosing::TwoOf(width, slack) => Search { count: few, width, slack, ..*search },
    };
    // A search within bounds is never refused, and these are.
    let choice = index.find(&search).unwrap_or_default();
    let mut chosen = choice.chosen;
    if choosing == Choosing::AnyOfEight {
        for at in (1..chosen.len()).rev() {
            let other = draw.below(u32::try_from(at + 1).unwrap_or(1));
            chosen.swap(at, other as usize);
        }
    }
    let looked_at = u32::try_from(choice.effort.rows).unwrap_or(u32::MAX);
    let mut candidates = Candidates { looked_at, ..Candidates::default() };
    let best = choice.considered.first().and_then(|list| list.first());
    if let (Some(first), Some(best)) = (chosen.first(), best) {
        candidates.prices = (first.terms.price, index.terms(&search, *best).price);
    }
    for chosen in &chosen {
        candidates.push(Candidate {
            container: first + chosen.row.number(),
            is_cold: search.app.is_none() || chosen.terms.cold > 0,
            is_taking: false,
            cost: chosen.terms.sum(),
        });
    }
    candidates
}

/// Puts containers that are gone in the place of some candidates.
pub(super) fn pretend(
    candidates: &mut Candidates,
    hosts: &Hosts,
    range: (u32, u32),
    draw: &mut Draw,
) {
    let len = usize::from(candidates.len);
    for candidate in &mut candidates.list[..len] {
        if !draw.permille(600) {
            continue;
        }
        let gone = (0..64)
            .map(|_| range.0 + draw.below(range.1 - range.0))
            .find(|number| !hosts.container(*number).is_online);
        if let Some(container) = gone {
            // As good as the one that it replaces, so that nothing shows before it is tried.
            candidate.container = container;
        }
    }
}
