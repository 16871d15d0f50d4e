//! Requests on their way, in places that are used again.

use welkin_match::index::HoldId;

use super::demand::Arrival;
use super::indexer::Candidates;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A host is asked.
    Asking,
    /// It waits in its indexer's queue.
    Waiting,
    /// It has what it wants, or has given up.
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) arrival: Arrival,
    pub(super) since: u64,
    pub(super) indexer: u8,
    pub(super) state: State,
    pub(super) candidates: Candidates,
    /// Which candidate is asked.
    pub(super) at: u8,
    /// How often indexers were asked.
    pub(super) rounds: u8,
    pub(super) has_waited: bool,
    pub(super) hold: Option<HoldId>,
    /// An indexer that has shown nothing as good.
    pub(super) doubted: Option<u8>,
    /// Tells it from those that had the same place.
    pub(super) generation: u32,
}

impl Request {
    /// Whether the host that is asked is the first that was named.
    pub(super) const fn is_first_try(&self) -> bool {
        self.rounds == 1 && self.at == 0 && !self.has_waited
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    all: Vec<Request>,
    vacant: Vec<u32>,
}

impl Requests {
    pub(super) fn add(&mut self, arrival: Arrival, since: u64) -> u32 {
        let new = Request {
            arrival,
            since,
            indexer: 0,
            state: State::Asking,
            candidates: Candidates::default(),
            at: 0,
            rounds: 0,
            has_waited: false,
            hold: None,
            doubted: None,
            generation: 0,
        };
        match self.vacant.pop() {
            Some(place) => {
                let last = &mut self.all[place as usize];
                *last = Request { generation: last.generation + 1, ..new };
                place
            }
            None => {
                self.all.push(new);
                u32::try_from(self.all.len() - 1).unwrap_or(0)
            }
        }
    }

    pub(super) fn end(&mut self, number: u32) {
        self.all[number as usize].state = State::Done;
        self.vacant.push(number);
    }

    pub(super) fn at(&self, number: u32) -> &Request {
        &self.all[number as usize]
    }

    pub(super) fn at_mut(&mut self, number: u32) -> &mut Request {
        &mut self.all[number as usize]
    }

    /// Whether it still waits.
    pub(super) fn is_waiting(&self, number: u32, generation: u32) -> bool {
        let request = &self.all[number as usize];
        request.generation == generation && request.state == State::Waiting
    }
}
