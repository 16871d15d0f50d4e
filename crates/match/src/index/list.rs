//! Long lists of what fits, for people: the cheapest that is free, and some of what is not.

use welkin_proto::index::LISTED_MAX;

use super::Index;
use super::best::row_of;
use super::query::Search;
use super::row::{NO_APP, Row, RowId};
use super::search::{Scratch, Searcher};
use super::why::Barrier;

impl Index {
    /// The best of what is free, in order, without draws: at most [`LISTED_MAX`]. Nothing, where the search
    /// is out of bounds.
    pub(crate) fn cheapest(&self, search: &Search<'_>, count: usize) -> Vec<RowId> {
        if search.check().is_err() || count == 0 {
            return Vec::new();
        }
        let count = count.min(LISTED_MAX);
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

impl Index {
    /// A container's row as it was inserted, and how it stands.
    pub(crate) fn row(&self, row: RowId) -> Option<Row> {
        let record = self.records.get(row.number() as usize).filter(|_| self.is_known(row))?;
        let others = self.more_apps.get(&row.number()).map(Vec::as_slice).unwrap_or_default();
        let first = Some(record.app).filter(|app| *app != NO_APP);
        Some(Row {
            host: record.host,
            operator: record.operator,
            class: record.class,
            location: record.location,
            price: record.price,
            quality: record.quality,
            free: record.free,
            cpu: record.cpu,
            memory: record.memory,
            disk: record.disk,
            features: record.features,
            ring: record.ring,
            apps: first.into_iter().chain(others.iter().copied()).collect(),
        })
    }
}
