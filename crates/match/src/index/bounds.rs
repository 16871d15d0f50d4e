//! The cheapest free container of every list, by which a search knows which lists to open.
//!
//! One row for a class and tier, one column for a location, for each least number of free slots.
//! Every bound is exact at all times, and a row of them is compared without a branch.

use super::row::LOCATIONS_MAX;
use super::run::{Cursor, Run};

/// The numbers of free slots that have bounds of their own: 1, 2, 4 and 8.
pub(crate) const LEVELS: usize = 4;
/// Where nothing is free. No price is as high.
pub(crate) const NOTHING: i32 = i32::MAX;

/// The largest level that `slots` reach; 0 for none at all.
pub(crate) const fn level_of(slots: u16) -> usize {
    let log = match slots.checked_ilog2() {
        Some(log) => log as usize,
        None => 0,
    };
    if log < LEVELS { log } else { LEVELS - 1 }
}

/// Bounds of one class and tier at one level.
#[derive(Clone, Debug)]
pub(crate) struct BoundRow {
    pub(crate) least: i32,
    pub(crate) cells: [i32; LOCATIONS_MAX],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    levels: [Vec<BoundRow>; LEVELS],
}

impl Bounds {
    pub(crate) fn rows(&self, level: usize) -> &[BoundRow] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
    }

    /// Makes room for so many rows.
    pub(crate) fn grow(&mut self, rows: usize) {
        for level in &mut self.levels {
            if level.len() < rows {
                level.reserve_exact(rows - level.len());
                level.resize(rows, BoundRow { least: NOTHING, cells: [NOTHING; LOCATIONS_MAX] });
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| level.capacity() * size_of::<BoundRow>()).sum()
    }

    /// An entry with this price and so many free slots was inserted.
    pub(crate) fn lower(&mut self, (row, column): (usize, usize), price: u32, free: u16) {
        let price = price.cast_signed();
        for level in &mut self.levels[..=level_of(free)] {
            let bounds = &mut level[row];
            bounds.cells[column] = bounds.cells[column].min(price);
            bounds.least = bounds.least.min(price);
        }
    }

    /// An entry with this price and so many free slots was removed from its place in `run`.
    pub(crate) fn raise(
        &mut self,
        (row, column): (usize, usize),
        (price, free): (u32, u16),
        run: &Run,
        removed: Cursor,
    ) {
        let price = price.cast_signed();
        for (number, level) in self.levels[..=level_of(free)].iter_mut().enumerate() {
            let bounds = &mut level[row];
            if bounds.cells[column] != price {
                continue;
            }
            // Nothing before the removed one reaches the level, for the bound was its price, or
            // what does has the same price.
            let next = match number {
                0 => run.first(),
                _ => first_with(run, removed, price, 1 << number),
            };
            let next = next.map_or(NOTHING, |entry| entry.price.cast_signed());
            bounds.cells[column] = next;
            if bounds.least == price && next != price {
                bounds.least = bounds.cells.iter().copied().min().unwrap_or(NOTHING);
            }
        }
    }
}

/// The first entry with at least `free` slots: one of this price, or one behind `removed`.
fn first_with(run: &Run, removed: Cursor, price: i32, free: u16) -> Option<&super::row::Entry> {
    let mut at = run.seek(u128::from(price.cast_unsigned()) << 96).min(removed);
    loop {
        match run.get(at) {
            Some(entry) if entry.free >= free => return Some(entry),
            Some(_) => at = run.next(at),
            None if run.chunk(at.chunk + 1).is_none() => return None,
            None => at = Cursor { chunk: at.chunk + 1, at: 0 },
        }
    }
}
