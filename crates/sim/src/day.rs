//! A day of a whole network in virtual time.
//!
//! Containers in 95 countries, three regions with three indexers each, and their buyers. Every
//! indexer is a real [`Index`] that knows what beats have told it, late or never; it holds, it is
//! refused, it heals. The hosts decide. Two indexers lie, and buyers learn whom to ask.
//!
//! What does not change is no event: a beat that says what is known already is never simulated. A
//! change reaches each indexer after a delay of its own; a lost one, with the next regular beat.
//!
//! Everything follows from the seed, in integers.

mod ask;
mod config;
mod demand;
mod draw;
mod events;
mod hosts;
mod indexer;
mod queue;
mod report;
mod requests;
mod stats;
mod trust;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use welkin_match::index::Index;

pub use config::{
    Choosing, Config, HABITS, HIDER, Habit, INDEXERS_PER_REGION, NOTICE_S, PRETENDER, PURPOSES,
    REGIONS, SURGES, Staleness, Surge,
};
pub use report::{Fairness, IndexerReport, PurposeReport, Report};
pub use stats::{Counts, Sample, Times};

use config::{HOUR, INDEXERS, MINUTE, SECOND, presence_minutes};
use demand::Demand;
use draw::Draw;
use events::{Event, Timed};
use hosts::Hosts;
use indexer::{Indexer, Manner};
use requests::Requests;
use stats::Stats;
use trust::Trust;

/// A law that was broken: a fault of the program, never of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A slot was given to two leases.
    #[error("container {container} gave a slot to two leases")]
    LeasedTwice {
        /// Its number.
        container: u32,
    },
    /// Free slots and held ones are not what there is.
    #[error("container {container} has lost count of its slots")]
    SlotsLost {
        /// Its number.
        container: u32,
    },
    /// A host that is gone has leases.
    #[error("container {container} is gone and has leases")]
    LeasedWhileGone {
        /// Its number.
        container: u32,
    },
    /// A spot lease was taken back before its notice was over.
    #[error("spot lease {lease} was taken back before its notice was over")]
    NoNotice {
        /// Its number.
        lease: u32,
    },
    /// The fleet does not fit an index.
    #[error("the index does not take the fleet: {0}")]
    Fleet(#[from] welkin_match::index::RowError),
}

/// A network on its way through a day.
///
/// ```
/// use welkin_sim::day::{Config, Day};
/// let config = Config { containers: 500, minutes: 10, warm_up_minutes: 1, ..Config::DAY };
/// let report = Day::new(config)?.run()?;
/// assert!(report.counts.placed > 0);
/// # Ok::<(), welkin_sim::day::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Day {
    config: Config,
    now: u64,
    hosts: Hosts,
    indexers: Vec<Indexer>,
    /// By region: containers that spot leases could be taken back from.
    takeable: Vec<Index>,
    /// The first container of each region, and the end.
    firsts: [u32; 4],
    demand: Demand,
    requests: Requests,
    trust: Trust,
    stats: Stats,
    /// By buyer: slots that it got from queues.
    served: Vec<u32>,
    soon: BinaryHeap<Reverse<Timed>>,
    /// When leases end: time, number, generation.
    ends: BinaryHeap<Reverse<(u64, u32, u32)>>,
    order: u64,
    network: Draw,
    luck: Draw,
    churn: Draw,
    digest: u64,
}

impl Day {
    /// The network at the beginning: sessions run as they do on an average day.
    ///
    /// # Errors
    ///
    /// [`Violation`] where the fleet does not fit an index.
    pub fn new(config: Config) -> Result<Self, Violation> {
        let rows = hosts::fleet(config.seed, config.containers);
        let (mut shown, mut takeable) = (vec![Index::default(); 3], vec![Index::default(); 3]);
        let (mut ids, mut firsts) = (Vec::with_capacity(rows.len()), [0_u32; 4]);
        for (row, slots) in &rows {
            let region = usize::from(hosts::region_of(row.location.into()));
            let free = |free| welkin_match::index::Row { free, ..row.clone() };
            ids.push(shown[region].insert(&free(*slots))?);
            takeable[region].insert(&free(0))?;
            firsts[region + 1..].iter_mut().for_each(|first| *first += 1);
        }
        let hosts = Hosts::new(&rows, &ids);
        drop(rows);
        let demand = Demand::new(&config, &hosts, &shown);
        let of_indexer =
            |indexer: usize| Indexer::new(shown[indexer / INDEXERS_PER_REGION].clone());
        let indexers = (0..INDEXERS).map(of_indexer).collect();
        let stats = Stats::new(demand.buyers());
        let mut day = Self {
            now: 24 * HOUR - config.warm_up_minutes * MINUTE,
            hosts,
            indexers,
            takeable,
            firsts,
            served: vec![0; demand.buyers() as usize],
            demand,
            requests: Requests::default(),
            trust: Trust::new(),
            stats,
            soon: BinaryHeap::new(),
            ends: BinaryHeap::new(),
            order: 0,
            network: Draw::new(config.seed ^ 0x006e_6574),
            luck: Draw::new(config.seed ^ 0x6c75_636b),
            churn: Draw::new(config.seed ^ 0x6368_7572),
            digest: config.seed,
            config,
        };
        day.demand.set_time(&config, day.now);
        day.begin();
        Ok(day)
    }

    /// The same network at the same moment, whose buyers choose otherwise and whose indexers know
    /// later or sooner.
    #[must_use]
    pub fn with(&self, choosing: Choosing, staleness: Staleness) -> Self {
        let mut day = self.clone();
        (day.config.choosing, day.config.staleness) = (choosing, staleness);
        day
    }

    /// Some hosts are away, and sessions run.
    fn begin(&mut self) {
        let count = u32::try_from(self.hosts.containers.len()).unwrap_or(0);
        for number in 0..count {
            let (there, away) = presence_minutes(self.hosts.container(number).made_for);
            let is_away = self.churn.within(0, there + away) < away && self.config.has_churn;
            if is_away {
                self.hosts.leave(self.now, number, false);
                let wait = self.churn.exponential(away * MINUTE);
                self.push(self.now + wait, Event::Join { container: number });
            }
            self.tell_at_once(number);
        }
        for arrival in self.demand.running() {
            self.place_at_once(&arrival);
        }
        if self.config.has_churn {
            self.push(self.now, Event::Leave);
            self.push(self.now, Event::Blip);
        }
    }

    /// Two indexers begin to lie.
    fn lie(&mut self) {
        self.indexers[HIDER].manner = Manner::Hides;
        self.indexers[PRETENDER].manner = Manner::Pretends;
        let region = HIDER / INDEXERS_PER_REGION;
        for number in self.firsts[region]..self.firsts[region + 1] {
            let container = &self.hosts.containers[number as usize];
            if !self.indexers[HIDER].shows(container) {
                self.indexers[HIDER].beat(self.now, container, u32::MAX, 0);
            }
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.soon.push(Reverse(Timed { at, order: self.order, event }));
    }

    /// Runs the warm-up and the day.
    ///
    /// # Errors
    ///
    /// [`Violation`] naming the first law that was broken.
    pub fn run(mut self) -> Result<Report, Violation> {
        self.run_until(24 * HOUR)?;
        self.hosts.count_from(self.now);
        self.stats = Stats::new(self.demand.buyers());
        self.run_until(24 * HOUR + self.config.minutes * MINUTE)?;
        self.hosts.check()?;
        for (indexer, used) in self.hosts.count_to(self.now) {
            self.stats.delivered[usize::from(indexer)] += used;
        }
        Ok(report::report(&self))
    }

    fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        let mut next = self.demand.next();
        let mut arrives = next.map_or(u64::MAX, |(wait, _)| self.now + wait);
        let mut second = self.now + SECOND;
        loop {
            let soon = self.soon.peek().map_or(u64::MAX, |Reverse(timed)| timed.at);
            let ends = self.ends.peek().map_or(u64::MAX, |Reverse((at, _, _))| *at);
            let at = second.min(soon).min(ends).min(arrives);
            self.now = at.min(end);
            if at > end {
                return Ok(());
            }
            if at == second {
                second += SECOND;
                self.tick()?;
            } else if at == soon {
                if let Some(Reverse(timed)) = self.soon.pop() {
                    self.handle(timed.event);
                }
            } else if at == ends {
                if let Some(Reverse((_, lease, generation))) = self.ends.pop() {
                    self.end_lease(lease, generation);
                }
            } else {
                if let Some((_, arrival)) = next {
                    self.arrive(arrival);
                }
                next = self.demand.next();
                arrives = next.map_or(u64::MAX, |(wait, _)| self.now + wait);
            }
        }
    }

    /// A second has passed.
    fn tick(&mut self) -> Result<(), Violation> {
        for indexer in &mut self.indexers {
            indexer.index.expire_holds(self.now);
        }
        if !self.now.is_multiple_of(MINUTE) {
            return Ok(());
        }
        if self.config.lies_from.is_some_and(|from| self.now == (24 * 60 + from) * MINUTE) {
            self.lie();
        }
        self.demand.set_time(&self.config, self.now);
        self.trust.weigh(self.now);
        self.watch_honest();
        if self.config.is_checked_often || self.now.is_multiple_of(HOUR) {
            self.hosts.check()?;
        }
        let every = if self.config.minutes >= 600 { 5 } else { 1 };
        if self.now.is_multiple_of(every * MINUTE) {
            let waiting = self.indexers.iter().flat_map(|indexer| &indexer.waiting);
            let waiting = waiting
                .flatten()
                .filter(|waiting| self.requests.is_waiting(waiting.request, waiting.generation));
            let (waiting, minute) = (waiting.count() as u64, self.now / MINUTE);
            let when = (minute.saturating_sub(24 * 60), every * 60);
            self.stats.sample(when, (self.hosts.held, self.hosts.there), waiting);
        }
        Ok(())
    }

    /// Counts the minutes in which an honest indexer is asked much less than other honest ones.
    fn watch_honest(&mut self) {
        for first in (0..INDEXERS).step_by(INDEXERS_PER_REGION) {
            let all = first..first + INDEXERS_PER_REGION;
            let honest: Vec<_> = all
                .filter(|indexer| self.indexers[*indexer].manner == Manner::Honest)
                .map(|indexer| self.trust.weights[indexer])
                .collect();
            let count = honest.len() as u64;
            let fair = honest.iter().sum::<u64>() / count.max(1);
            self.stats.honest_minutes += count;
            let punished = honest.iter().filter(|weight| **weight * 5 < fair * 4);
            self.stats.punished_minutes += punished.count() as u64;
        }
    }
}
