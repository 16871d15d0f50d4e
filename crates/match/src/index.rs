//! An exact index over the containers of a region, in memory.
//!
//! Free containers stand in lists by hardware kind, tier of quality and location, sorted by price;
//! busy ones stand in none. The cheapest price of every list is kept in rows that are compared many
//! at a time, so a search opens the few lists that can hold what it wants. What is ready to run an
//! application stands in lists of its own.
//!
//! One owner writes and reads; applying a beat takes a fraction of a microsecond, so there is
//! nothing to share. What does not fit one processor is split by region into several indexes.
//!
//! The index is a hint: the host alone decides about its slots. It never offers a container twice
//! in one answer, and what it knows wrongly heals with the next beat or refusal.

mod best;
mod bounds;
mod build;
mod choose;
mod dump;
mod gang;
mod gang_receipt;
mod hold;
mod kept;
mod list;
mod query;
mod reach;
mod ready;
mod receipt;
mod row;
mod run;
mod scan;
mod search;
mod why;

use std::collections::BTreeMap;

pub(crate) use choose::choose_among;
pub use choose::{Choice, Chosen, Terms};
pub use dump::LoadError;
pub use gang::{GANG_MAX, Gang, GangChoice, Together};
pub use gang_receipt::GangReceipt;
pub use hold::{HoldError, HoldId, INDEX_HOLDS_MAX};
pub use query::{
    COUNT_MAX, ClassSet, LIST_MAX, SLACK_DEFAULT, Search, SearchError, WIDTH_MAX, Weights,
};
pub use receipt::{Considered, Receipt, ReceiptError};
pub use row::{
    APPS_MAX, APPS_PER_ROW_MAX, CLASSES_MAX, Features, LOCATIONS_MAX, PRICE_MAX, QUALITY_MAX,
    ROWS_MAX, Row, RowId, SLOTS_MAX,
};
pub use search::{Effort, Scratch};
pub use why::{Barrier, EXACT_MAX, Explanation, NEAREST_MAX, Near};

use bounds::Bounds;
use hold::Holds;
use ready::Ready;
use row::{NO_APP, Record, print_with};
use run::Run;

/// Ranges of quality, best first: the least and the best of each.
const QUALITY_TIERS: [(u16, u16); TIERS] =
    [(9_500, QUALITY_MAX), (8_500, 9_499), (7_000, 8_499), (0, 6_999)];
const TIERS: usize = 4;

/// Which row of lists a container of this quality is in.
fn tier_of(quality: u16) -> usize {
    QUALITY_TIERS.iter().position(|(least, _)| quality >= *least).unwrap_or(TIERS - 1)
}

/// Why a container is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// There are as many as there may be.
    #[error("this index has {ROWS_MAX} containers and takes no more")]
    Full,
    /// A number is larger than any that makes sense.
    #[error("the {what} is {given}, and may be at most {most}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        given: usize,
        /// How large it may be.
        most: usize,
    },
}

/// The index.
///
/// ```
/// use welkin_match::index::{Features, Index, Row, Search};
/// let mut index = Index::default();
/// let row = Row {
///     host: 1, operator: 1, class: 0, location: 0, price: 360_000, quality: 9_900, free: 1,
///     cpu: 800, memory: 1 << 18, disk: 100 << 10, features: Features::NVENC, ring: 7,
///     apps: vec![],
/// };
/// let id = index.insert(&row).unwrap();
/// let search = Search { features: Features::NVENC, ..Search::ANY };
/// assert_eq!(index.find(&search).unwrap().chosen[0].row, id);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Index {
    records: Vec<Record>,
    vacant: Vec<u32>,
    /// Lists by class, tier and location.
    cells: Vec<Run>,
    bounds: Bounds,
    /// Lists by application and location.
    ready: Vec<Ready>,
    /// Further applications of those that have more than one.
    more_apps: BTreeMap<u32, Vec<u16>>,
    holds: Holds,
    classes: u8,
    locations: usize,
    epoch: u64,
}

impl Index {
    /// Takes a container in.
    ///
    /// # Errors
    ///
    /// [`RowError`] saying why not; then nothing is changed.
    pub fn insert(&mut self, row: &Row) -> Result<RowId, RowError> {
        check(row)?;
        let next = self.vacant.last().copied();
        let id = match next {
            Some(id) => id,
            None => u32::try_from(self.records.len())
                .ok()
                .filter(|id| (*id as usize) < ROWS_MAX)
                .ok_or(RowError::Full)?,
        };
        self.grow(row.class, row.location);
        let apps = distinct(&row.apps);
        let record = Record::new(row, apps.first().copied().unwrap_or(NO_APP));
        if next.is_some() {
            self.vacant.pop();
            self.records[id as usize] = record;
        } else {
            if self.records.len() == self.records.capacity() {
                self.records.reserve_exact(self.records.len() / 8 + 64);
            }
            self.records.push(record);
        }
        if apps.len() > 1 {
            self.more_apps.insert(id, apps[1..].to_vec());
        }
        self.set_free(id, row.free);
        Ok(RowId(id))
    }

    /// Forgets a container and what was kept of it.
    pub fn remove(&mut self, row: RowId) {
        if !self.is_known(row) {
            return;
        }
        self.holds.forget(row);
        self.set_free(row.0, 0);
        self.more_apps.remove(&row.0);
        let record = &mut self.records[row.0 as usize];
        (record.location, record.app) = (VACANT, NO_APP);
        self.vacant.push(row.0);
    }

    /// Takes a beat: so many slots are free, those that holds keep included.
    pub fn beat(&mut self, row: RowId, second: u64, free: u16) {
        if !self.is_known(row) {
            return;
        }
        self.records[row.0 as usize].seen = (second & 0xffff) as u16;
        let free = free.min(SLOTS_MAX);
        let free = self.holds.reported(row, free).unwrap_or(free);
        self.set_free(row.0, free);
    }

    /// Changes a container's price; above [`PRICE_MAX`] it counts as that.
    pub fn reprice(&mut self, row: RowId, price: u32) {
        self.change(row, |record| record.price = price.min(PRICE_MAX));
    }

    /// Changes a container's online score.
    pub fn set_quality(&mut self, row: RowId, quality: u16) {
        self.change(row, |record| record.quality = quality.min(QUALITY_MAX));
    }

    /// Changes which applications are ready on a container; those beyond
    /// [`APPS_PER_ROW_MAX`] are left out.
    pub fn set_apps(&mut self, row: RowId, apps: &[u16]) {
        if !self.is_known(row) {
            return;
        }
        let free = self.records[row.0 as usize].free;
        self.set_free(row.0, 0);
        let apps = distinct(apps);
        self.records[row.0 as usize].app = apps.first().copied().unwrap_or(NO_APP);
        self.more_apps.remove(&row.0);
        if apps.len() > 1 {
            self.more_apps.insert(row.0, apps[1..].to_vec());
        }
        self.set_free(row.0, free);
    }

    /// Finds the best and chooses among them: see [`Search`].
    ///
    /// # Errors
    ///
    /// [`SearchError`] where the search is out of bounds.
    pub fn find(&self, search: &Search<'_>) -> Result<Choice, SearchError> {
        self.find_with(&mut Scratch::default(), search)
    }

    /// Does the same in memory that was used before, which is a little faster.
    ///
    /// # Errors
    ///
    /// [`SearchError`] where the search is out of bounds.
    pub fn find_with(
        &self,
        scratch: &mut Scratch,
        search: &Search<'_>,
    ) -> Result<Choice, SearchError> {
        search.check()?;
        Ok(choose::find(self, scratch, search))
    }

    /// How many containers it has.
    pub fn len(&self) -> usize {
        self.records.len() - self.vacant.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rises with each change of what a search can find.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Slots that a search may find.
    pub fn free(&self, row: RowId) -> u16 {
        if self.is_known(row) { self.records[row.0 as usize].free } else { 0 }
    }

    /// The host's number, if the container is known.
    pub fn host(&self, row: RowId) -> Option<u32> {
        self.is_known(row).then(|| self.records[row.0 as usize].host)
    }

    /// Something of a container's record, to have it in the processor's cache.
    pub(crate) fn touched(&self, row: RowId) -> u64 {
        self.records
            .get(row.0 as usize)
            .map_or(0, |record| u64::from(record.price ^ record.ring) ^ u64::from(record.free))
    }

    /// Seconds since the last beat at `second`, of the last 18 hours.
    pub fn silence(&self, row: RowId, second: u64) -> u16 {
        let seen = self.records.get(row.0 as usize).map_or(0, |record| record.seen);
        ((second & 0xffff) as u16).wrapping_sub(seen)
    }

    /// Bytes of memory that it takes, unused room included.
    pub fn bytes(&self) -> usize {
        let cells: usize = self.cells.iter().map(Run::bytes).sum();
        let ready: usize = self.ready.iter().map(Ready::bytes).sum();
        let more: usize = self.more_apps.values().map(|apps| 32 + apps.capacity() * 2).sum();
        self.records.capacity() * size_of::<Record>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.cells.capacity() * size_of::<Run>()
            + self.ready.capacity() * size_of::<Ready>()
            + (cells + ready + more + self.bounds.bytes() + self.holds.bytes())
            + size_of::<Self>()
    }

    fn is_known(&self, row: RowId) -> bool {
        self.records.get(row.0 as usize).is_some_and(|record| record.location != VACANT)
    }

    /// Makes room for a class and a location.
    fn grow(&mut self, class: u8, location: u8) {
        self.locations = self.locations.max(usize::from(location) + 1);
        self.classes = self.classes.max(class.saturating_add(1));
        let rows = (usize::from(class) + 1) * TIERS;
        self.bounds.grow(rows);
        if self.cells.len() < rows * LOCATIONS_MAX {
            self.cells.reserve_exact(rows * LOCATIONS_MAX - self.cells.len());
            self.cells.resize(rows * LOCATIONS_MAX, Run::default());
        }
    }

    fn change(&mut self, row: RowId, change: impl FnOnce(&mut Record)) {
        if !self.is_known(row) {
            return;
        }
        let free = self.records[row.0 as usize].free;
        self.set_free(row.0, 0);
        change(&mut self.records[row.0 as usize]);
        self.set_free(row.0, free);
    }

    /// Whether an application is ready on a container.
    fn has_app(&self, row: u32, app: u16) -> bool {
        self.records[row as usize].app == app
            || self.more_apps.get(&row).is_some_and(|apps| apps.contains(&app))
    }

    /// Takes a container out of its lists and puts it back with so many free slots.
    fn set_free(&mut self, row: u32, free: u16) {
        let record = self.records[row as usize];
        if record.free == free {
            return;
        }
        self.epoch += 1;
        let has_more = !self.more_apps.is_empty() && self.more_apps.contains_key(&row);
        let print = print_with(record.app, has_more);
        let cell = (
            usize::from(record.class) * TIERS + tier_of(record.quality),
            usize::from(record.location),
        );
        let run = &mut self.cells[cell.0 * LOCATIONS_MAX + cell.1];
        if record.free > 0 {
            let entry = record.entry(row, print);
            if let Some(removed) = run.remove(entry.key()) {
                self.bounds.raise(cell, (entry.price, entry.free), run, removed);
            }
        }
        self.records[row as usize].free = free;
        let entry = self.records[row as usize].entry(row, print);
        if free > 0 {
            run.insert(entry);
            self.bounds.lower(cell, entry.price, free);
        }
        if print != 0 {
            let (ready, more) = (&mut self.ready, &self.more_apps);
            let others = more.get(&row).map(Vec::as_slice).unwrap_or_default();
            for app in std::iter::once(&record.app).chain(others) {
                ready::update(
                    ready,
                    *app,
                    record.location,
                    (record.free, record.entry(row, print)),
                    entry,
                );
            }
        }
    }
}

/// The applications without repetition, as many as there may be: who stands in a list twice would
/// be found twice.
fn distinct(apps: &[u16]) -> Vec<u16> {
    let mut apps = apps.to_vec();
    apps.sort_unstable();
    apps.dedup();
    apps.retain(|app| *app != NO_APP);
    apps.truncate(APPS_PER_ROW_MAX);
    apps
}

/// The location of no container: a number that is free to be used again.
const VACANT: u8 = u8::MAX;

fn check(row: &Row) -> Result<(), RowError> {
    for (what, given, most) in [
        ("price in micro-dollars an hour", row.price as usize, PRICE_MAX as usize),
        ("location's number", row.location.into(), LOCATIONS_MAX - 1),
        ("class's number", row.class.into(), CLASSES_MAX - 2),
        ("online score", row.quality.into(), QUALITY_MAX.into()),
        ("number of free slots", row.free.into(), SLOTS_MAX.into()),
        ("number of applications", row.apps.len(), APPS_PER_ROW_MAX),
        (
            "number of an application",
            row.apps.iter().copied().max().unwrap_or(0).into(),
            APPS_MAX - 1,
        ),
    ] {
        if given > most {
            return Err(RowError::TooLarge { what, given, most });
        }
    }
    Ok(())
}

/// A container's place on the ring by which ties are broken, from the bytes that name it: anybody
/// who knows the names can recompute the order of equally good candidates.
///
/// Equally good containers follow each other from the request's own point on, so that requests
/// spread evenly and the first of a long list of equals is found without reading all of it.
pub fn ring_of(names: &[&[u8]]) -> u32 {
    let mut state = 0x7765_6c6b_696e_u64;
    for byte in names.iter().copied().flatten() {
        state = crate::spread::Stream::new(state ^ u64::from(*byte)).word();
    }
    u32::try_from(state >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests;
