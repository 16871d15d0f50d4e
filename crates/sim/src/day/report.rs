//! What a day came to: figures for tables, curves for plots.

use std::collections::BTreeMap;

use welkin_match::index::Features;
use welkin_match::synth::MODELS;

use super::Day;
use super::config::{Config, HABITS, INDEXERS, INDEXERS_PER_REGION, MINUTE, PURPOSES};
use super::hosts::Container;
use super::indexer::Manner;
use super::stats::{Counts, Sample, Times};

/// How evenly something is shared out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fairness {
    /// Jain's index: 1 where all get the same, 1/n where one gets all.
    pub jain: f64,
    /// Gini's coefficient: 0 where all get the same, near 1 where one gets all.
    pub gini: f64,
    /// How many were compared.
    pub count: usize,
}

impl Fairness {
    /// Of any shares.
    fn of(mut shares: Vec<f64>) -> Self {
        shares.sort_unstable_by(f64::total_cmp);
        let count = shares.len();
        let (n, sum) = (count as f64, shares.iter().sum::<f64>());
        let squares = shares.iter().map(|share| share * share).sum::<f64>();
        if sum <= 0.0 {
            return Self { jain: 1.0, gini: 0.0, count };
        }
        let ranked = shares.iter().zip(1_u32..).map(|(share, rank)| share * f64::from(rank));
        let gini = 2.0 * ranked.sum::<f64>() / (n * sum) - (n + 1.0) / n;
        Self { jain: sum * sum / (n * squares), gini, count }
    }

    /// The mean of several groups, each by its size.
    fn mean(groups: &[Self]) -> Self {
        let count = groups.iter().map(|group| group.count).sum::<usize>();
        if count == 0 {
            return Self { jain: 1.0, gini: 0.0, count };
        }
        let mean = |value: fn(&Self) -> f64| {
            let sum: f64 = groups.iter().map(|group| value(group) * group.count as f64).sum();
            sum / (count.max(1) as f64)
        };
        Self { jain: mean(|group| group.jain), gini: mean(|group| group.gini), count }
    }
}

/// What buyers of one purpose met.
#[derive(Clone, Debug)]
pub struct PurposeReport {
    /// The purpose.
    pub name: &'static str,
    /// From the request to the host's word.
    pub waits: Times,
    /// Those whose time in the queue ran out, or whom a full queue did not take.
    pub unplaced: u64,
}

/// What an indexer came to.
#[derive(Clone, Debug)]
pub struct IndexerReport {
    /// Region and number.
    pub name: String,
    /// What it does to its buyers: nothing if it is honest.
    pub lie: Option<&'static str>,
    /// Requests.
    pub asked: u64,
    /// Of the region's requests, in percent.
    pub asked_percent: f64,
    /// The same, from an hour after the lies begin to the end.
    pub asked_late_percent: f64,
    /// Of the region's leased time, in percent.
    pub delivered_percent: f64,
    /// First hosts that refused or were silent, in percent of its requests.
    pub failed_percent: f64,
    /// Its weight among the indexers of its region in the end, from 0 to 1.
    pub score: f64,
}

/// What a day came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was simulated.
    pub config: Config,
    /// How many slots there are.
    pub slots: u64,
    /// What became of requests and leases.
    pub counts: Counts,
    /// Leased slots of those of hosts that were there, on average, in percent.
    pub utilisation_percent: f64,
    /// By purpose.
    pub purposes: Vec<PurposeReport>,
    /// From the request to the host's word, of all.
    pub waits: Times,
    /// From the request to what the user sees first, where the application was ready.
    pub warm_starts: Times,
    /// The same, where it was not.
    pub cold_starts: Times,
    /// Between hosts of the same class: leased time for each time of presence.
    pub hosts_of_a_class: Fairness,
    /// The same between hosts of the same class, city, price and quality.
    pub hosts_alike: Fairness,
    /// Between buyers of at least 20 requests: how many of these were placed.
    pub buyers: Fairness,
    /// Shares of alike hosts, from nothing to the most, for a curve of Lorenz: the first part of
    /// the hosts of a class has the second part of its leased time.
    pub lorenz: Vec<(f64, f64)>,
    /// The nine.
    pub indexers: Vec<IndexerReport>,
    /// Time that honest indexers were asked less than four fifths of what others were, in percent.
    pub punished_percent: f64,
    /// Requests that fit nothing even if everything is free, in percent; they are told so, and
    /// left out.
    pub hopeless_percent: f64,
    /// The state of the network in the course of the day.
    pub samples: Vec<Sample>,
    /// Bytes that the nine indices take.
    pub index_bytes: usize,
    /// Follows from all that happened.
    pub digest: u64,
}

impl Report {
    /// Of all requests that were given a candidate, those whose first host did not take them, in
    /// percent.
    pub fn first_try_failed_percent(&self) -> f64 {
        percent(self.counts.busy + self.counts.silent, self.counts.tried)
    }

    /// How much more the first candidates cost an hour than the best would, in percent.
    pub fn dearer_percent(&self) -> f64 {
        let more = self.counts.price_first.saturating_sub(self.counts.price_best);
        percent(more, self.counts.price_best)
    }

    /// Of requests to honest indexers that were given a candidate, those whose first host did not
    /// take them, in percent.
    pub fn honest_failed_percent(&self) -> f64 {
        percent(self.counts.honest_busy + self.counts.honest_silent, self.counts.honest_tried)
    }

    /// The share of requests in its region that the liar who has most got from an hour after the
    /// lies began, in percent.
    pub fn liar_share_percent(&self) -> f64 {
        let liars = self.indexers.iter().filter(|indexer| indexer.lie.is_some());
        liars.map(|indexer| indexer.asked_late_percent).fold(0.0, f64::max)
    }
}

/// A share in percent.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

pub(super) fn report(day: &Day) -> Report {
    let stats = &day.stats;
    let mut waits = Times::default();
    stats.waits.iter().for_each(|times| waits.join(times));
    let purposes = HABITS.iter().zip(&stats.waits);
    let (of_a_class, lorenz) = hosts_of_a_class(&day.hosts.containers);
    let buyers = stats.buyers.iter().filter(|(asked, _)| *asked >= 20);
    let placed = |(asked, placed): &(u32, u32)| f64::from(*placed) / f64::from(*asked);
    Report {
        config: day.config,
        slots: day.hosts.containers.iter().map(|container| u64::from(container.slots)).sum(),
        counts: stats.counts,
        utilisation_percent: percent(stats.leased, stats.there),
        purposes: purposes
            .zip(stats.unplaced)
            .map(|((habit, waits), unplaced)| {
                let (name, waits) = (habit.name, waits.clone());
                PurposeReport { name, waits, unplaced }
            })
            .collect(),
        waits,
        warm_starts: stats.warm_starts.clone(),
        cold_starts: stats.cold_starts.clone(),
        hosts_of_a_class: of_a_class,
        hosts_alike: hosts_alike(&day.hosts.containers),
        buyers: Fairness::of(buyers.map(placed).collect()),
        lorenz,
        indexers: (0..INDEXERS).map(|indexer| indexer_report(day, indexer)).collect(),
        punished_percent: percent(stats.punished_minutes, stats.honest_minutes),
        hopeless_percent: day.demand.hopeless_permille as f64 / 10.0,
        samples: stats.samples.clone(),
        index_bytes: day.indexers.iter().map(|indexer| indexer.index.bytes()).sum(),
        digest: day.digest,
    }
}

fn indexer_report(day: &Day, number: usize) -> IndexerReport {
    let stats = &day.stats;
    let first = number / INDEXERS_PER_REGION * INDEXERS_PER_REGION;
    let region = |of: &[u64; INDEXERS]| of[first..first + INDEXERS_PER_REGION].iter().sum::<u64>();
    let from = day.config.lies_from.map_or(0, |from| from + 60);
    let mut late = [0; INDEXERS];
    for sample in stats.samples.iter().filter(|sample| sample.minute > from) {
        late.iter_mut().zip(&sample.asked).for_each(|(sum, asked)| *sum += asked);
    }
    let names = ["asia", "europe", "america"];
    IndexerReport {
        name: format!("{}-{}", names[number / INDEXERS_PER_REGION], number - first + 1),
        lie: match day.indexers[number].manner {
            Manner::Honest => None,
            Manner::Hides => Some("shows its friends' containers only"),
            Manner::Pretends => Some("offers containers that are gone"),
        },
        asked_late_percent: percent(late[number], region(&late)),
        asked: stats.asked[number],
        asked_percent: percent(stats.asked[number], region(&stats.asked)),
        delivered_percent: percent(stats.delivered[number], region(&stats.delivered)),
        failed_percent: percent(stats.failed[number], stats.asked[number]),
        score: day.trust.score(number) as f64 / 1e6,
    }
}

/// The leased part of a container's time, if it was there for half an hour or more and good enough
/// for most buyers.
fn share_of(container: &Container) -> Option<f64> {
    let all = container.online * u64::from(container.slots);
    let is_counted = container.online >= 30 * MINUTE && container.quality >= 7_000;
    is_counted.then(|| container.leased as f64 / all as f64)
}

fn hosts_of_a_class(containers: &[Container]) -> (Fairness, Vec<(f64, f64)>) {
    let mut groups: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
    for container in containers {
        if let Some(share) = share_of(container) {
            groups.entry(container.class).or_default().push(share);
        }
    }
    // Of every class the shares at each hundredth of its hosts, added up.
    let mut curve = vec![(0.0, 0.0); 101];
    for shares in groups.values_mut() {
        shares.sort_unstable_by(f64::total_cmp);
        let sum = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let size = shares.len() as f64;
        for (part, point) in curve.iter_mut().enumerate() {
            let count = shares.len() * part / 100;
            point.0 += size;
            point.1 += size * shares[..count].iter().sum::<f64>() / sum;
        }
    }
    let curve = curve.iter().enumerate();
    let curve = curve.map(|(part, (size, sum))| (part as f64 / 100.0, sum / size.max(1.0)));
    let fairness: Vec<_> = groups.into_values().map(Fairness::of).collect();
    (Fairness::mean(&fairness), curve.collect())
}

/// Alike: of the same class, city and number of slots, within a tenth of the price and of quality, with the same of what buyers ask for.
fn hosts_alike(containers: &[Container]) -> Fairness {
    let mut groups: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for container in containers {
        let band = container.price * 10 / MODELS[usize::from(container.class)].price;
        let wanted = [Features::AV1, Features::WINDOWS, Features::SPOT, Features::ATTESTED];
        let kind = (container.class, container.site, container.slots, band);
        let has = wanted.map(|feature| container.features.meets(feature));
        let kind = (kind, container.quality / 1_000, has);
        if let Some(share) = share_of(container) {
            groups.entry(kind).or_default().push(share);
        }
    }
    let large = groups.into_values().filter(|shares| shares.len() >= 5);
    Fairness::mean(&large.map(Fairness::of).collect::<Vec<_>>())
}

const _: () = assert!(PURPOSES.len() == HABITS.len());
