//! Long lists of what fits, for people: the cheapest that is free, and some of what is not.

use super::Index;
use super::best::row_of;
use super::query::Search;
use super::row::RowId;
use super::search::{Scratch, Searcher};
use super::why::Barrier;

/// The longest list.
const ROWS_LISTED_MAX: usize = 1_000;

impl Index {
    /// The best of what is free, in order, without draws: at most 1 000. Nothing, where the search
    /// is out of bounds.
    pub(crate) fn cheapest(&self, search: &Search<'_>, count: usize) -> Vec<RowId> {
        if search.check().is_err() || count == 0 {
            return Vec::new();
        }
        let count = count.min(ROWS_LISTED_MAX);
        let mut scratch = Scratch::default();
        Searcher::run(self, search, search.hosts_exclude, (count, 1), &mut scratch);
        scratch.ranks.iter().map(|rank| RowId(row_of(*rank))).collect()
    }

    /// Some of what would fit were it free, of as many evenly picked ones as may be looked at.
    pub(crate) fn some_busy(&self, search: &Search<'_>, count: usize, most: usize) -> Vec<RowId> {
        let step = self.records.len().div_ceil(most.max(1)).max(1);
        let numbered = (0_u32..).zip(&self.records).step_by(step);
        let busy = numbered.filter(|(_, record)| record.location != super::VACANT);
        let busy = busy.filter(|(row, record)| {
            record.free < search.slots
                && self.barriers(search, RowId(*row), record) == [Barrier::Free]
        });
        busy.map(|(row, _)| RowId(row)).take(count).collect()
    }
}
