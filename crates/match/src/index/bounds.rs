//! The cheapest free container of every list, by which a search knows which lists to open.
//!
//! One row for a class and tier, one column for a location, for each least number of free slots.
//! Every bound is exact at all times, and a row of them is compared without a branch.

use super::row::LOCATIONS_MAX;
use super::run::{Cursor, Run};

/// The numbers of free slots that have bounds of their own: 1, 2, 4 and 8.
pub(crate) const LEVELS: usize = 4;
/// Where nothing is free. No price is as high.
pub(crate) const NOTHING: i32 = 1 << 30;

/// The largest level that `slots` reach; 0 for none at all.
pub(crate) const fn level_of(slots: u16) -> usize {
    let log = match slots.checked_ilog2() {
        Some(log) => log as usize,
        None => 0,
    };
    if log < LEVELS { log } else { LEVELS - 1 }
}

/// Locations whose bounds are compared at once.
pub(crate) const GROUP: usize = 8;
pub(crate) const GROUPS: usize = LOCATIONS_MAX / GROUP;

/// Bounds at one level: rows of a class and tier each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level {
    /// For each group of locations the least of every row: rows side by side, so that many are
    /// compared at once.
    pub(crate) groups: [Vec<i32>; GROUPS],
    pub(crate) cells: Vec<[i32; LOCATIONS_MAX]>,
}

impl Level {
    fn set(&mut self, (row, column): (usize, usize), price: i32) {
        self.cells[row][column] = price;
        let group = column / GROUP;
        let cells = &self.cells[row][group * GROUP..(group + 1) * GROUP];
        self.groups[group][row] = cells.iter().copied().min().unwrap_or(NOTHING);
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    levels: [Level; LEVELS],
}

impl Bounds {
    pub(crate) const fn level(&self, level: usize) -> &Level {
        &self.levels[level]
    }

    /// Makes room for so many rows.
    pub(crate) fn grow(&mut self, rows: usize) {
        for level in &mut self.levels {
            if level.cells.len() < rows {
                level.groups.iter_mut().for_each(|group| group.resize(rows, NOTHING));
                level.cells.reserve_exact(rows - level.cells.len());
                level.cells.resize(rows, [NOTHING; LOCATIONS_MAX]);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let each = size_of::<[i32; GROUPS]>() + size_of::<[i32; LOCATIONS_MAX]>();
        self.levels.iter().map(|level| level.cells.capacity() * each).sum()
    }

    /// An entry with this price and so many free slots was inserted.
    pub(crate) fn lower(&mut self, place: (usize, usize), price: u32, free: u16) {
        let price = price.cast_signed();
        for level in &mut self.levels[..=level_of(free)] {
            if price < level.cells[place.0][place.1] {
                level.set(place, price);
            }
        }
    }

    /// An entry with this price and so many free slots was removed from its place in `run`.
    pub(crate) fn raise(
        &mut self,
        place: (usize, usize),
        (price, free): (u32, u16),
        run: &Run,
        removed: Cursor,
    ) {
        let price = price.cast_signed();
        for (number, level) in self.levels[..=level_of(free)].iter_mut().enumerate() {
            if level.cells[place.0][place.1] != price {
                continue;
            }
            // Nothing before the removed one reaches the level, for the bound was its price, or
            // what does has the same price.
            let next = match number {
                0 => run.first(),
                _ => first_with(run, removed, price, 1 << number),
            };
            level.set(place, next.map_or(NOTHING, |entry| entry.price.cast_signed()));
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
