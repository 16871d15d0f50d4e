//! Chooses among the best: spread where it costs little, and never two of one host while another
//! host would do.

use std::collections::BTreeMap;

use super::Index;
use super::best::{Rank, cost_of, rank, row_of};
use super::query::{COUNT_MAX, Search, WIDTH_MAX};
use super::row::{QUALITY_MAX, RowId};
use super::search::{Effort, Scratch, Searcher};
use crate::spread::Stream;

/// The longest list that is drawn from.
const LISTED_MAX: usize = 64;
const _: () = assert!(WIDTH_MAX as usize <= LISTED_MAX && COUNT_MAX as usize <= LISTED_MAX);

/// What a candidate's cost is the sum of: weight times number, each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// For the price.
    pub price: u64,
    /// For the round trip.
    pub latency: u64,
    /// For what the online score lacks.
    pub quality: u64,
    /// For a cold start.
    pub cold: u64,
    /// For the slots that stay free.
    pub fragment: u64,
}

impl Terms {
    /// The cost.
    pub const fn sum(&self) -> u64 {
        self.price + self.latency + self.quality + self.cold + self.fragment
    }
}

/// A container that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The container.
    pub row: RowId,
    /// Its host's number.
    pub host: u32,
    /// What it costs, term by term.
    pub terms: Terms,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What was chosen, in order of preference; empty if nothing fits.
    pub chosen: Vec<Chosen>,
    /// What it was chosen from, best first: one list for each time that another had to be made
    /// because too few hosts were in those before.
    pub considered: Vec<Vec<RowId>>,
    /// What the search looked at.
    pub effort: Effort,
}

/// Finds and chooses; the search has been checked.
pub(super) fn find(index: &Index, scratch: &mut Scratch, search: &Search<'_>) -> Choice {
    let count = usize::from(search.count);
    let mut effort = Effort::default();
    let mut excluded = search.hosts_exclude.to_vec();
    let mut draw = Draw { drawn: std::mem::take(&mut scratch.drawn), ..Draw::new(search) };
    draw.drawn.clear();
    let mut considered = Vec::with_capacity(1);
    loop {
        let wanted = (count, usize::from(search.width));
        let spent = Searcher::run(index, search, &excluded, wanted, scratch);
        let ranks = &scratch.ranks;
        effort = Effort { rows: effort.rows + spent.rows, lists: effort.lists + spent.lists };
        draw.take(ranks, |row| index.records[row as usize].host);
        considered.push(ranks.iter().map(|rank| RowId(row_of(*rank))).collect());
        // A short list is all that there is.
        if draw.is_done() || ranks.len() < count {
            break;
        }
        excluded = [search.hosts_exclude, &draw.drawn.hosts].concat();
    }
    let chosen = draw.finish().iter().map(|(row, host)| Chosen {
        row: RowId(*row),
        host: *host,
        terms: index.terms(search, RowId(*row)),
    });
    let chosen = chosen.collect();
    scratch.drawn = draw.drawn;
    Choice { chosen, considered, effort }
}

/// Chooses among candidates that are known with cost and ring, as a search does; returns their
/// places.
pub(crate) fn choose_among<H: Ord>(
    search: &Search<'_>,
    candidates: &[(u64, u32)],
    hosts: &[H],
) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let numbered = (0_u32..).zip(hosts).map(|(place, host)| *numbers.entry(host).or_insert(place));
    let numbered: Vec<u32> = numbered.collect();
    let host_of = |row: u32| numbered.get(row as usize).copied().unwrap_or(u32::MAX);
    let places = (0_u32..).zip(candidates);
    let mut ranks: Vec<_> = places
        .map(|(place, (cost, ring))| rank(*cost, ring.wrapping_sub(search.point()), place))
        .collect();
    ranks.sort_unstable();
    let count = usize::from(search.count);
    let mut draw = Draw::new(search);
    while let Some(best) = ranks.first() {
        let near_max = search.near(cost_of(*best));
        let near = ranks.partition_point(|rank| cost_of(*rank) <= near_max);
        let near = near.min(search.width.into());
        draw.take(&ranks[..near.max(count).min(ranks.len())], host_of);
        if draw.is_done() || ranks.len() < count {
            break;
        }
        ranks.retain(|rank| !draw.drawn.hosts.contains(&host_of(row_of(*rank))));
    }
    draw.finish().iter().map(|(place, _)| *place as usize).collect()
}

/// Draws candidates from lists of ranks.
///
/// Among those that cost little more than a list's best, each draw takes the better of two places;
/// the others follow in order. A second container of a host that has been drawn waits until there
/// is no other host. So requests with different numbers go to different hosts, and still rarely to
/// a poor one: in a simulation with a picture 0.5 s old the first host asked refused 1.3 % of
/// them, instead of 40 % when all go to the best.
#[derive(Debug)]
pub(super) struct Draw<'a> {
    search: &'a Search<'a>,
    stream: Stream,
    drawn: Drawn,
}

/// What was drawn: rows and hosts. Searches use its memory again.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    rows: Vec<(u32, u32)>,
    /// Further rows of hosts that have been drawn.
    waiting: Vec<(u32, u32)>,
    hosts: Vec<u32>,
}

impl Drawn {
    fn clear(&mut self) {
        self.rows.clear();
        self.waiting.clear();
        self.hosts.clear();
    }
}

impl<'a> Draw<'a> {
    pub(super) fn new(search: &'a Search<'a>) -> Self {
        Self { search, stream: Stream::new(search.request), drawn: Drawn::default() }
    }

    fn is_done(&self) -> bool {
        self.drawn.rows.len() >= usize::from(self.search.count)
    }

    /// Draws from a list, best first, until there are enough.
    pub(super) fn take(&mut self, ranks: &[Rank], host_of: impl Fn(u32) -> u32) {
        let Some(best) = ranks.first() else { return };
        let near_max = self.search.near(cost_of(*best));
        let near = ranks.partition_point(|rank| cost_of(*rank) <= near_max);
        let mut near = near.min(self.search.width.into());
        // Places that have not been drawn, in order.
        let mut left = [0; LISTED_MAX];
        let ranks = &ranks[..ranks.len().min(LISTED_MAX)];
        (0_u8..).zip(&mut left).for_each(|(place, left)| *left = place);
        for drawn in 0..ranks.len() {
            if self.is_done() {
                break;
            }
            let place = match near {
                0 => 0,
                _ => self.stream.below(near).min(self.stream.below(near)),
            };
            near = near.saturating_sub(1);
            let row = row_of(ranks[usize::from(left[place])]);
            left.copy_within(place + 1..ranks.len() - drawn, place);
            let host = host_of(row);
            if self.drawn.hosts.contains(&host) {
                self.drawn.waiting.push((row, host));
            } else {
                self.drawn.hosts.push(host);
                self.drawn.rows.push((row, host));
            }
        }
    }

    /// What was drawn, with what waited where there are too few.
    pub(super) fn finish(&mut self) -> &[(u32, u32)] {
        let Drawn { rows, waiting, .. } = &mut self.drawn;
        let missing = usize::from(self.search.count).saturating_sub(rows.len());
        rows.extend(waiting.drain(..).take(missing));
        rows
    }
}

impl Index {
    /// What a container costs a search, term by term; nothing, if it is not known.
    pub fn terms(&self, search: &Search<'_>, row: RowId) -> Terms {
        if !self.is_known(row) {
            return Terms::default();
        }
        let record = &self.records[row.0 as usize];
        let weights = &search.weights;
        let is_cold = search.app.is_some_and(|app| !self.has_app(row.0, app));
        let latency = search.latency_to(usize::from(record.location));
        let lacking = QUALITY_MAX.saturating_sub(record.quality);
        let left = record.free.saturating_sub(search.slots);
        let times = |weight: u32, count: u64| u64::from(weight) * count;
        Terms {
            price: times(weights.price, record.price.into()),
            latency: times(weights.latency, latency.into()),
            quality: times(weights.quality, lacking.into()),
            cold: times(weights.cold, is_cold.into()),
            fragment: times(weights.fragment, left.into()),
        }
    }
}
