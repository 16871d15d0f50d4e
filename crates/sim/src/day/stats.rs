//! What is counted while a day runs.

use super::config::{INDEXERS, PURPOSES};

/// Each octave of times is told apart in so many steps: three percent each.
const STEPS: usize = 32;

/// Times in microseconds, counted in steps of three percent.
#[derive(Clone, Debug)]
pub struct Times {
    counts: Vec<u64>,
    sum: u64,
    all: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; 48 * STEPS], sum: 0, all: 0 }
    }
}

impl Times {
    pub(super) fn add(&mut self, time: u64) {
        let octave = time.max(STEPS as u64).ilog2() - STEPS.ilog2();
        let place = octave as usize * STEPS + usize::try_from(time >> octave).unwrap_or(0);
        let last = self.counts.len() - 1;
        self.counts[place.min(last)] += 1;
        self.sum = self.sum.saturating_add(time);
        self.all += 1;
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
        self.all += other.all;
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.all
    }

    /// The time in microseconds that so many of a thousand do not exceed.
    pub fn permille(&self, permille: u64) -> u64 {
        let wanted = (self.all * permille).div_ceil(1_000).max(1);
        self.rising().find(|(_, count)| *count >= wanted).map_or(0, |(time, _)| time)
    }

    /// Each time in microseconds with the number of those that do not exceed it, rising.
    pub fn rising(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(
            move |(place, count)| {
                sum += count;
                let (octave, step) = match place / STEPS {
                    0 => (0, place),
                    more => (more - 1, place - (more - 1) * STEPS),
                };
                ((step as u64) << octave, sum)
            },
        )
    }
}

/// What became of requests and leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that got a container.
    pub placed: u64,
    /// Of these, those that waited in a queue before.
    pub queued: u64,
    /// Requests whose time in the queue ran out.
    pub gave_up: u64,
    /// Requests that a full queue did not take.
    pub refused: u64,
    /// Requests that were given at least one candidate at first.
    pub tried: u64,
    /// Of these, those whose first host had no slot any more.
    pub busy: u64,
    /// Of these, those whose first host did not answer.
    pub silent: u64,
    /// `tried` at indexers that do not lie.
    pub honest_tried: u64,
    /// `busy` at indexers that do not lie.
    pub honest_busy: u64,
    /// `silent` at indexers that do not lie.
    pub honest_silent: u64,
    /// Leases on a container on which the application was ready.
    pub warm: u64,
    /// Spot leases that were taken back with notice.
    pub taken_back: u64,
    /// Spot leases that ended by themselves within their notice.
    pub ended_in_notice: u64,
    /// Leases whose host vanished.
    pub lost: u64,
    /// Requests that two indexers were asked.
    pub compared: u64,
    /// Beats that indexers took.
    pub beats: u64,
    /// Searches in an index.
    pub searches: u64,
    /// Entries that they looked at.
    pub looked_at: u64,
    /// The prices of those that came first, times their weight.
    pub price_first: u64,
    /// The prices of the best, likewise.
    pub price_best: u64,
    /// Searches that found nothing.
    pub empty_searches: u64,
    /// Entries that these looked at.
    pub empty_looked_at: u64,
    /// Requests that another region's indexer placed.
    pub elsewhere: u64,
}

/// The state of the network at a time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Minutes since midnight UTC.
    pub minute: u64,
    /// By region: of a thousand slots of hosts that are there so many are leased.
    pub leased_permille: Vec<u64>,
    /// The same of all regions.
    pub leased_permille_all: u64,
    /// Requests a second since the last sample, in tenths.
    pub requests_tenths: u64,
    /// Who waits in a queue.
    pub waiting: u64,
    /// Of a thousand requests so many were refused by the first host, since the last sample.
    pub failed_permille: u64,
    /// By indexer: requests since the last sample.
    pub asked: Vec<u64>,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) counts: Counts,
    /// From the request to the host's word, by purpose.
    pub(super) waits: [Times; PURPOSES.len()],
    /// Those that were not placed, by purpose.
    pub(super) unplaced: [u64; PURPOSES.len()],
    /// From the request to the first picture or answer: ready applications, and others.
    pub(super) warm_starts: Times,
    pub(super) cold_starts: Times,
    /// By indexer: requests, failed first tries, slot-microseconds delivered.
    pub(super) asked: [u64; INDEXERS],
    pub(super) failed: [u64; INDEXERS],
    pub(super) delivered: [u64; INDEXERS],
    /// By buyer: requests, and those that were placed.
    pub(super) buyers: Vec<(u32, u32)>,
    pub(super) samples: Vec<Sample>,
    /// Minutes of honest indexers in all, and those in which they were asked less than four fifths
    /// of what other honest ones of their region were.
    pub(super) honest_minutes: u64,
    pub(super) punished_minutes: u64,
    /// Leased and present slots, summed over samples.
    pub(super) leased: u64,
    pub(super) there: u64,
    last: (Counts, [u64; INDEXERS]),
}

impl Stats {
    pub(super) fn new(buyers: u32) -> Self {
        Self {
            counts: Counts::default(),
            waits: Default::default(),
            unplaced: [0; PURPOSES.len()],
            warm_starts: Times::default(),
            cold_starts: Times::default(),
            asked: [0; INDEXERS],
            failed: [0; INDEXERS],
            delivered: [0; INDEXERS],
            buyers: vec![(0, 0); buyers as usize],
            samples: Vec::new(),
            honest_minutes: 0,
            punished_minutes: 0,
            leased: 0,
            there: 0,
            last: (Counts::default(), [0; INDEXERS]),
        }
    }

    /// Takes a sample over the last `seconds`.
    pub(super) fn sample(
        &mut self,
        (minute, seconds): (u64, u64),
        (held, there): ([u64; 3], [u64; 3]),
        waiting: u64,
    ) {
        let permille = |part: u64, whole: u64| part * 1_000 / whole.max(1);
        let (last, last_asked) = &self.last;
        let tried = self.counts.tried - last.tried;
        let failed = self.counts.busy + self.counts.silent - last.busy - last.silent;
        self.samples.push(Sample {
            minute,
            leased_permille: held
                .iter()
                .zip(there)
                .map(|(held, all)| permille(*held, all))
                .collect(),
            leased_permille_all: permille(held.iter().sum(), there.iter().sum()),
            requests_tenths: (self.counts.requests - last.requests) * 10 / seconds.max(1),
            waiting,
            failed_permille: permille(failed, tried),
            asked: self.asked.iter().zip(last_asked).map(|(now, then)| now - then).collect(),
        });
        self.leased += held.iter().sum::<u64>();
        self.there += there.iter().sum::<u64>();
        self.last = (self.counts, self.asked);
    }
}
