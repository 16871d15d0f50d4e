//! Who found nothing waits at an indexer, in order, and is served when a container becomes free.
//!
//! Of those who wait longest and whom the container fits, the buyer comes first who has been
//! served least: one that asks for much does not keep the others out.

use welkin_match::index::Search;

use super::Day;
use super::config::{HABITS, LOOKED_AT_MAX, PURPOSES, SECOND, WAITING_MAX, place_of};
use super::events::Event;
use super::hosts::Container;
use super::indexer::{Candidate, Candidates, Waiting};
use super::requests::State;

/// Whether a container has what is looked for; the index says the same when it is asked.
fn fits(container: &Container, free: u16, search: &Search<'_>) -> bool {
    let trip = search.latency.get(usize::from(container.site)).copied().unwrap_or(u16::MAX);
    free >= search.slots
        && search.classes.contains(container.class)
        && trip <= search.latency_max
        && container.price <= search.price_max
        && container.quality >= search.quality_min
        && container.cpu >= search.cpu
        && container.memory >= search.memory
        && container.disk >= search.disk
        && container.features.meets(search.features)
}

impl Day {
    /// Waits at the indexer that was asked, until it is served or its patience ends.
    pub(super) fn wait(&mut self, number: u32) {
        let request = *self.requests.at(number);
        let place = place_of(request.arrival.purpose);
        let deadline = request.since + HABITS[place].patience_s * SECOND;
        if self.now >= deadline {
            self.give_up(number);
            return;
        }
        let waiting = Waiting { request: number, generation: request.generation };
        let requests = &self.requests;
        let queue = &mut self.indexers[usize::from(request.indexer)].waiting[place];
        if queue.len() >= WAITING_MAX {
            queue.retain(|waiting| requests.is_waiting(waiting.request, waiting.generation));
        }
        if queue.len() >= WAITING_MAX {
            self.stats.counts.refused += 1;
            self.stats.unplaced[place] += 1;
            self.requests.end(number);
            return;
        }
        if request.has_waited {
            queue.push_front(waiting);
        } else {
            queue.push_back(waiting);
            let generation = request.generation;
            self.push(deadline, Event::GiveUp { request: number, generation });
        }
        let request = self.requests.at_mut(number);
        (request.state, request.has_waited) = (State::Waiting, true);
    }

    /// A request has waited as long as it would.
    pub(super) fn give_up(&mut self, number: u32) {
        let place = place_of(self.requests.at(number).arrival.purpose);
        self.stats.counts.gave_up += 1;
        self.stats.unplaced[place] += 1;
        self.requests.end(number);
    }

    /// Serves those who wait at an indexer with a container that has become free.
    pub(super) fn serve(&mut self, by: u8, number: u32) {
        for place in 0..PURPOSES.len() {
            loop {
                let container = self.hosts.container(number);
                let free = self.indexers[usize::from(by)].index.free(container.row);
                if free == 0 {
                    return;
                }
                let Some(request) = self.next_waiting(by, place, number, free) else { break };
                self.offer(by, request, number);
            }
        }
    }

    /// Takes out of a queue whom a container serves next.
    fn next_waiting(&mut self, by: u8, place: usize, number: u32, free: u16) -> Option<u32> {
        let container = &self.hosts.containers[number as usize];
        let (requests, demand, served) = (&self.requests, &self.demand, &self.served);
        let queue = &mut self.indexers[usize::from(by)].waiting[place];
        while let Some(waiting) = queue.front()
            && !requests.is_waiting(waiting.request, waiting.generation)
        {
            queue.pop_front();
        }
        let chosen = queue
            .iter()
            .take(LOOKED_AT_MAX)
            .enumerate()
            .filter(|(_, waiting)| requests.is_waiting(waiting.request, waiting.generation))
            .map(|(at, waiting)| (at, requests.at(waiting.request).arrival))
            .filter(|(_, arrival)| fits(container, free, &demand.search(arrival)))
            .min_by_key(|(at, arrival)| (served[arrival.buyer as usize], *at))
            .map(|(at, _)| at)?;
        let waiting = queue.remove(chosen)?;
        Some(waiting.request)
    }

    fn offer(&mut self, by: u8, request: u32, number: u32) {
        let arrival = self.requests.at(request).arrival;
        let search = self.demand.search(&arrival);
        let row = self.hosts.container(number).row;
        let index = &self.indexers[usize::from(by)].index;
        let terms = index.terms(&search, row);
        let is_cold = search.app.is_none() || terms.cold > 0;
        self.served[arrival.buyer as usize] += u32::from(search.slots);
        let mut found = Candidates::default();
        let cost = terms.sum();
        found.push(Candidate { container: number, is_cold, is_taking: false, cost });
        let free = index.free(row);
        self.go(request, by, found, 0);
        if self.indexers[usize::from(by)].index.free(row) >= free {
            // No hold was to be had, so that nobody else is sent there with this beat.
            self.indexers[usize::from(by)].index.beat(row, self.now / SECOND, 0);
        }
    }
}
