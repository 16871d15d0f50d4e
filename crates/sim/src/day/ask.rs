//! A buyer asks an indexer, then the hosts that it names, one after the other.

use welkin_match::index::Search;
use welkin_match::trust::Finding;

use super::Day;
use super::config::{
    ANSWER_MAX, CANDIDATES, DEARER_PERMILLE, DOUBT_ONE_IN, INDEXERS_PER_REGION, NOTICE_S,
    PROBE_ONE_IN, ROUNDS_MAX, SECOND, place_of,
};
use super::demand::Arrival;
use super::events::Event;
use super::hosts::{Answer, Order};
use super::indexer::{Candidate, Candidates, Manner, candidates, pretend};
use super::requests::State;

impl Day {
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        self.stats.counts.requests += 1;
        self.stats.buyers[arrival.buyer as usize].0 += 1;
        let request = self.requests.add(arrival, self.now);
        self.ask(request);
    }

    /// Asks the indexers of one region after the other; where none knows anything free, takes spot
    /// capacity back, and else waits.
    pub(super) fn ask(&mut self, number: u32) {
        let request = *self.requests.at(number);
        let arrival = request.arrival;
        let regions = self.demand.templates[arrival.template as usize].regions;
        let mut excluded = [0; CANDIDATES];
        let tried = request.candidates.all();
        for (host, candidate) in excluded.iter_mut().zip(tried) {
            *host = self.hosts.container(candidate.container).host;
        }
        let excluded = &excluded[..tried.len()];
        self.requests.at_mut(number).rounds += 1;
        let mut delay = 0;
        let mut home = None;
        for region in regions.into_iter().flatten().map(usize::from) {
            let but = (request.rounds > 0).then_some(request.indexer);
            let first = self.trust.choose(&mut self.luck, region, but);
            home.get_or_insert(first);
            let (by, found, doubted) = match home {
                Some(home) if home != first => {
                    (first, self.consult(first, &arrival, excluded), None)
                }
                _ => self.consult_two(first, &arrival, excluded),
            };
            if !found.all().is_empty() {
                let is_elsewhere = home != Some(first);
                self.stats.counts.elsewhere += u64::from(is_elsewhere);
                self.requests.at_mut(number).doubted = doubted;
                self.go(number, by, found, delay);
                return;
            }
            // Another region is a round trip away.
            delay += 150_000;
        }
        let home = home.unwrap_or(0);
        if let Some(candidate) = self.takeable(home, &arrival) {
            let mut found = Candidates::default();
            found.push(candidate);
            self.go(number, home, found, delay);
            return;
        }
        self.requests.at_mut(number).indexer = home;
        self.wait(number);
    }

    /// Asks one indexer, and now and then another to compare. Returns whose
    /// answer is better, the answer, and who has shown nothing as good.
    fn consult_two(
        &mut self,
        first: u8,
        arrival: &Arrival,
        excluded: &[u32],
    ) -> (u8, Candidates, Option<u8>) {
        let found = self.consult(first, arrival, excluded);
        let one_in = if found.all().is_empty() { DOUBT_ONE_IN } else { PROBE_ONE_IN };
        if self.config.lies_from.is_none() || self.luck.below(one_in) != 0 {
            return (first, found, None);
        }
        self.stats.counts.compared += 1;
        let region = usize::from(first) / INDEXERS_PER_REGION;
        let second = self.trust.choose(&mut self.luck, region, Some(first));
        let other = self.consult(second, arrival, excluded);
        let (Some(a), Some(b)) = (found.all().first(), other.all().first()) else {
            return match (found.all(), other.all()) {
                ([], []) => (first, found, None),
                ([], _) => (second, other, Some(first)),
                _ => (first, found, Some(second)),
            };
        };
        let is_dearer = |a: u64, b: u64| a * 1_000 > b * (1_000 + DEARER_PERMILLE);
        if is_dearer(a.cost, b.cost) {
            (second, other, Some(first))
        } else if is_dearer(b.cost, a.cost) {
            (first, found, Some(second))
        } else {
            self.trust.observe(self.now, first, Finding::Shown(1));
            self.trust.observe(self.now, second, Finding::Shown(1));
            (first, found, None)
        }
    }

    fn consult(&mut self, by: u8, arrival: &Arrival, excluded: &[u32]) -> Candidates {
        self.stats.asked[usize::from(by)] += 1;
        let region = usize::from(by) / INDEXERS_PER_REGION;
        let search = Search { hosts_exclude: excluded, ..self.demand.search(arrival) };
        let indexer = &self.indexers[usize::from(by)];
        let range = (self.firsts[region], self.firsts[region + 1]);
        let mut found =
            candidates(&indexer.index, &search, self.config.choosing, (range.0, &mut self.luck));
        let counts = &mut self.stats.counts;
        let is_empty = found.all().is_empty();
        counts.searches += 1;
        counts.price_first += found.prices.0;
        counts.price_best += found.prices.1;
        counts.looked_at += u64::from(found.looked_at);
        counts.empty_searches += u64::from(is_empty);
        counts.empty_looked_at += if is_empty { u64::from(found.looked_at) } else { 0 };
        if indexer.manner == Manner::Pretends {
            pretend(&mut found, &self.hosts, range, &mut self.luck);
        }
        found
    }

    /// A container on which spot leases can make room.
    fn takeable(&mut self, home: u8, arrival: &Arrival) -> Option<Candidate> {
        if arrival.is_spot {
            return None;
        }
        let region = usize::from(home) / INDEXERS_PER_REGION;
        let search = self.demand.search(arrival);
        let draw = (self.firsts[region], &mut self.luck);
        let found = candidates(&self.takeable[region], &search, self.config.choosing, draw);
        found.all().first().map(|found| Candidate { is_taking: true, ..*found })
    }

    /// Sets out to the first candidate, for which its indexer keeps the slots.
    pub(super) fn go(&mut self, number: u32, by: u8, found: Candidates, delay: u64) {
        let slots = self.slots(&self.requests.at(number).arrival);
        let first = found.all().first().map_or(0, |first| first.container);
        let container = self.hosts.container(first);
        let hold = self.indexers[usize::from(by)].hold(self.now, container, slots);
        let request = self.requests.at_mut(number);
        (request.indexer, request.candidates, request.at) = (by, found, 0);
        (request.hold, request.state) = (hold, State::Asking);
        let answer = self.network.within(10_000, 40_000);
        let way = self.round_trip(number, first) / 2;
        self.push(self.now + delay + answer + way, Event::Claim { request: number });
    }

    fn slots(&self, arrival: &Arrival) -> u16 {
        self.demand.search(arrival).slots
    }

    /// From a buyer to a container and back, in microseconds.
    fn round_trip(&self, request: u32, container: u32) -> u64 {
        let arrival = self.requests.at(request).arrival;
        self.trip_of(&arrival, container)
    }

    fn trip_of(&self, arrival: &Arrival, container: u32) -> u64 {
        let site = usize::from(self.hosts.container(container).site);
        let trip = self.demand.search(arrival).latency.get(site).copied();
        u64::from(trip.unwrap_or(u16::MAX)) * 100
    }

    /// A request reaches a host, which decides.
    pub(super) fn claim(&mut self, number: u32) {
        let request = *self.requests.at(number);
        let Some(candidate) = request.candidates.all().get(usize::from(request.at)) else { return };
        let order = Order {
            arrival: request.arrival,
            since: request.since,
            indexer: request.indexer,
            slots: self.slots(&request.arrival),
            is_cold: candidate.is_cold,
            has_waited: request.has_waited,
        };
        let container = candidate.container;
        let answer = self.hosts.claim(self.now, container, order, candidate.is_taking);
        if request.is_first_try() && !candidate.is_taking {
            self.count_first(request.indexer, &answer);
        }
        match answer {
            Answer::Accepted(lease) => self.begun(lease),
            Answer::Noticed { told, .. } => {
                for lease in told {
                    let generation = self.hosts.leases[lease as usize].generation;
                    let at = self.now + NOTICE_S * SECOND;
                    self.push(at, Event::TakeBack { lease, generation });
                }
            }
            Answer::Busy(free) => return self.refused(number, container, Some(free)),
            Answer::Silence => return self.refused(number, container, None),
        }
        if let Some(doubted) = request.doubted.filter(|_| request.at == 0) {
            self.trust.observe(self.now, doubted, Finding::Hidden);
        }
        // What followed the first candidate was not held.
        let hold = request.hold.filter(|_| request.at == 0);
        self.tell(container, hold.map(|hold| (request.indexer, hold)));
        self.requests.end(number);
    }

    fn count_first(&mut self, by: u8, answer: &Answer) {
        let is_honest = self.indexers[usize::from(by)].manner == Manner::Honest;
        let (is_busy, is_silent) =
            (matches!(answer, Answer::Busy(_)), matches!(answer, Answer::Silence));
        let counts = &mut self.stats.counts;
        let (busy, silent) = (u64::from(is_busy), u64::from(is_silent));
        counts.tried += 1;
        counts.busy += busy;
        counts.silent += silent;
        if is_honest {
            counts.honest_tried += 1;
            counts.honest_busy += busy;
            counts.honest_silent += silent;
        }
        self.stats.failed[usize::from(by)] += busy + silent;
        let finding = match answer {
            Answer::Accepted(_) | Answer::Noticed { .. } => Finding::Good,
            Answer::Busy(_) => Finding::Stale,
            Answer::Silence => Finding::Dead,
        };
        self.trust.observe(self.now, by, finding);
    }

    /// A host has refused, or is silent: the next candidate, another indexer, or the queue.
    fn refused(&mut self, number: u32, container: u32, free: Option<u16>) {
        let request = *self.requests.at(number);
        if let Some(hold) = request.hold.filter(|_| request.at == 0) {
            let (indexer, free) = (request.indexer, free.unwrap_or(0));
            self.push(self.now + 20_000, Event::Refused { indexer, hold, free });
        }
        let truth = self.hosts.container(container);
        if free.is_none() && truth.is_online {
            // It is only out of reach: its next beat says that it is there.
            let next = truth.blip_until.max(self.now) + self.network.within(SECOND, 10 * SECOND);
            self.push(next, Event::Regular { indexer: request.indexer, container });
        }
        let lost = if free.is_none() { ANSWER_MAX } else { 0 };
        let back = lost + self.round_trip(number, container) / 2;
        let next = request.candidates.all().get(usize::from(request.at) + 1).copied();
        if let Some(next) = next {
            let there = self.round_trip(number, next.container) / 2;
            self.requests.at_mut(number).at += 1;
            self.push(self.now + back + there, Event::Claim { request: number });
        } else if request.rounds < ROUNDS_MAX && !request.has_waited {
            self.push(self.now + back + 20_000, Event::Ask { request: number });
        } else {
            self.wait(number);
        }
    }

    /// A lease runs.
    pub(super) fn begun(&mut self, number: u32) {
        let lease = self.hosts.leases[number as usize];
        let (order, arrival) = (lease.order, lease.order.arrival);
        self.note(lease.container);
        let app = arrival.app.or(self.demand.search(&arrival).app);
        if app.is_some() {
            self.hosts.container_mut(lease.container).app = app;
        }
        self.ends.push(std::cmp::Reverse((self.now + arrival.length, number, lease.generation)));
        let wait = self.now.saturating_sub(order.since);
        let counts = &mut self.stats.counts;
        counts.placed += 1;
        counts.queued += u64::from(order.has_waited);
        counts.warm += u64::from(!order.is_cold);
        self.stats.waits[place_of(arrival.purpose)].add(wait);
        self.stats.buyers[arrival.buyer as usize].1 += 1;
        // The buyer hears it, connects in two round trips, the application starts, and what it
        // shows comes back.
        let trip = self.trip_of(&arrival, lease.container);
        let connect = trip * 3 + self.network.within(20_000, 80_000);
        let luck = &mut self.luck;
        if order.is_cold {
            // A fifth has to fetch the image first.
            let fetch = if luck.permille(200) { luck.log_normal(8 * SECOND) } else { 0 };
            let start = luck.log_normal(2 * SECOND);
            self.stats.cold_starts.add(wait + connect + fetch + start);
        } else {
            let start = luck.within(100_000, 450_000);
            self.stats.warm_starts.add(wait + connect + start);
        }
    }

    /// Places a session that runs from the beginning.
    pub(super) fn place_at_once(&mut self, arrival: &Arrival) {
        let regions = self.demand.templates[arrival.template as usize].regions;
        for region in regions.into_iter().flatten().map(usize::from) {
            let by = self.trust.choose(&mut self.luck, region, None);
            // The first indexer of each region is honest.
            let asked = &self.indexers[region * INDEXERS_PER_REGION].index;
            let search = self.demand.search(arrival);
            let range = (self.firsts[region], &mut self.luck);
            let found = candidates(asked, &search, self.config.choosing, range);
            let Some(first) = found.all().first().copied() else { continue };
            let order = Order {
                arrival: *arrival,
                since: self.now,
                indexer: by,
                slots: search.slots,
                is_cold: first.is_cold,
                has_waited: false,
            };
            if let Answer::Accepted(lease) =
                self.hosts.claim(self.now, first.container, order, false)
            {
                self.begun(lease);
                self.tell_at_once(first.container);
            }
            return;
        }
    }
}
