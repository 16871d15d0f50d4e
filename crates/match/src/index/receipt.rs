//! What an indexer shows for a choice, so that anybody can compute it again.
//!
//! The caller signs it. Who has the offers of the containers that were considered compares their
//! prices, scores and names with the facts in it, and [`Receipt::recompute`] repeats the rest: the
//! costs, the order of equals, the draws. What it can't show is that nothing was left out; reports
//! of buyers who know a better container show that.

use serde::{Deserialize, Serialize};

use super::best::{Rank, rank};
use super::choose::{Choice, Draw, Terms};
use super::query::{COUNT_MAX, Search, SearchError, WIDTH_MAX, Weights};
use super::row::{QUALITY_MAX, RowId};
use super::{Index, SLOTS_MAX};

/// The facts of a container that was considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Its place on the ring: [`ring_of`](super::ring_of) its names.
    pub ring: u32,
    /// A number for its host: equal for containers of one host.
    pub host: u32,
    /// Micro-dollars an hour.
    pub price: u32,
    /// The round trip in tenths of a millisecond.
    pub latency: u16,
    /// The online score in hundredths of a percent.
    pub quality: u16,
    /// Whether the wanted application is not ready.
    pub is_cold: bool,
    /// Slots that stay free.
    pub left: u16,
}

impl Considered {
    /// What it costs, term by term.
    pub fn terms(&self, weights: &Weights) -> Terms {
        let times = |weight: u32, count: u64| u64::from(weight) * count;
        let lacking = QUALITY_MAX.saturating_sub(self.quality);
        Terms {
            price: times(weights.price, self.price.into()),
            latency: times(weights.latency, self.latency.into()),
            quality: times(weights.quality, lacking.into()),
            cold: times(weights.cold, self.is_cold.into()),
            fragment: times(weights.fragment, self.left.into()),
        }
    }
}

/// A choice with all that it followed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The index's epoch.
    pub epoch: u64,
    /// A digest of the query, as the caller computes it.
    pub query: [u8; 32],
    /// How was weighed.
    pub weights: Weights,
    /// How many candidates were wanted.
    pub count: u8,
    /// Among how many they were drawn.
    pub width: u8,
    /// How much more than the best they might cost.
    pub slack: u16,
    /// The request's number.
    pub request: u64,
    /// The lists that were drawn from, best first.
    pub considered: Vec<Vec<Considered>>,
    /// What was chosen: a list's number and a place in it.
    pub chosen: Vec<(u8, u8)>,
}

/// Why a receipt is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// A number is out of bounds.
    #[error("the receipt is out of bounds")]
    Bounds(#[source] SearchError),
    /// A list is too long.
    #[error("the receipt lists more than was drawn from")]
    Long,
    /// A list is not in the order of cost and ring.
    #[error("list {list} is not in order at place {place}")]
    Order {
        /// The list.
        list: usize,
        /// The place of the one that should stand before.
        place: usize,
    },
    /// The gang costs less elsewhere, by the receipt's own numbers.
    #[error("the gang costs less elsewhere")]
    Dearer,
    /// The draws give others.
    #[error("the draws choose other containers than the receipt names")]
    Chosen,
}

impl Receipt {
    /// Computes the choice again.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] saying what does not follow.
    pub fn recompute(&self) -> Result<(), ReceiptError> {
        let search = Search {
            weights: self.weights,
            count: self.count,
            width: self.width,
            slack: self.slack,
            request: self.request,
            ..Search::ANY
        };
        search.check().map_err(ReceiptError::Bounds)?;
        let longest = usize::from(WIDTH_MAX.max(COUNT_MAX));
        let is_long = self.considered.iter().any(|list| list.len() > longest);
        if is_long || self.considered.len() > usize::from(COUNT_MAX) {
            return Err(ReceiptError::Long);
        }
        let mut draw = Draw::new(&search);
        for (number, list) in self.considered.iter().enumerate() {
            let ranks = ranks_of(&search, number, list)?;
            draw.take(&ranks, |place| list[(place & 0xff) as usize].host);
        }
        let again = draw.finish().iter().map(|(place, _)| (place >> 8, place & 0xff));
        let chosen = self.chosen.iter().map(|(list, at)| (u32::from(*list), u32::from(*at)));
        if again.eq(chosen) { Ok(()) } else { Err(ReceiptError::Chosen) }
    }
}

/// The ranks of a list's containers, which must stand in their order.
pub(super) fn ranks_of(
    search: &Search<'_>,
    number: usize,
    list: &[Considered],
) -> Result<Vec<Rank>, ReceiptError> {
    let rank_of = |(at, one): (usize, &Considered)| {
        let tie = one.ring.wrapping_sub(search.point());
        // Equals of one name are of one container, which stands in no list twice.
        let place = u32::try_from(number << 8 | at).unwrap_or(u32::MAX);
        rank(one.terms(&search.weights).sum(), tie, place)
    };
    let ranks: Vec<_> = list.iter().enumerate().map(rank_of).collect();
    match (1..ranks.len()).find(|at| ranks[*at] < ranks[at - 1]) {
        Some(place) => Err(ReceiptError::Order { list: number, place }),
        None => Ok(ranks),
    }
}

/// In which list, and where in it, a container stands.
pub(super) fn place_in(considered: &[Vec<RowId>], row: RowId) -> Option<(u8, u8)> {
    (0_u8..).zip(considered).find_map(|(number, list)| {
        let place = list.iter().position(|other| *other == row)?;
        Some((number, u8::try_from(place).ok()?))
    })
}

impl Index {
    /// The facts of a container as a receipt shows them.
    pub(super) fn facts(&self, search: &Search<'_>, row: RowId) -> Considered {
        let record = &self.records[row.0 as usize];
        Considered {
            ring: record.ring,
            host: record.host,
            price: record.price,
            latency: search.latency_to(usize::from(record.location)),
            quality: record.quality,
            is_cold: search.app.is_some_and(|app| !self.has_app(row.0, app)),
            left: record.free.saturating_sub(search.slots).min(SLOTS_MAX),
        }
    }

    /// The receipt of a choice that this index, unchanged since, made for this search.
    pub fn receipt(&self, search: &Search<'_>, choice: &Choice, query: [u8; 32]) -> Receipt {
        let facts = |row: &RowId| self.facts(search, *row);
        let place_of = |row| place_in(&choice.considered, row);
        Receipt {
            epoch: self.epoch,
            query,
            weights: search.weights,
            count: search.count,
            width: search.width,
            slack: search.slack,
            request: search.request,
            considered: choice.considered.iter().map(|l| l.iter().map(facts).collect()).collect(),
            chosen: choice.chosen.iter().filter_map(|chosen| place_of(chosen.row)).collect(),
        }
    }
}
