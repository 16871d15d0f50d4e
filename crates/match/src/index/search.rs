//! The search: opens the lists that can hold something better, the most promising first.
//!
//! A list's bound is what its cheapest free container would cost were it perfect otherwise. Lists
//! are opened by rising bound until no bound is below what is already found, so the answer is the
//! one of a full scan. A loose bound costs time and never correctness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::best::{Best, Rank};
use super::bounds::{GROUP, Level, level_of};
use super::choose::Drawn;
use super::query::Search;
use super::reach::Reach;
use super::ready::Ready;
use super::row::{PRICE_MAX, Sizes, print_of};
use super::run::{Cursor, Run};
use super::{Index, QUALITY_TIERS, TIERS};

/// Where a bound stands in the number by which rows and lists are ordered.
const BOUND_SHIFT: u32 = 19;
/// Marks a row of lists that have not been told apart.
const ROW: u64 = 1 << 18;
/// Marks a list of ready containers.
const READY: u64 = 1 << READY_SHIFT;
const READY_SHIFT: u32 = 17;

/// Classes whose least price is noted, modulo this.
const CLASSES_NOTED: usize = 64;
/// Rows that are compared at once.
const ROWS_AT_ONCE: usize = 64;

/// Memory that searches use again. What they find doesn't depend on it.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    heap: BinaryHeap<Reverse<u64>>,
    /// What the last search found, best first.
    pub(super) ranks: Vec<Rank>,
    pub(super) near: Vec<Rank>,
    pub(super) drawn: Drawn,
}

/// What a search looked at: the same on every run, so that a test can bound it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Entries looked at.
    pub rows: u64,
    /// Lists opened.
    pub lists: u64,
}

/// One search on its way.
pub(super) struct Searcher<'a> {
    pub(super) index: &'a Index,
    pub(super) search: &'a Search<'a>,
    pub(super) excluded: &'a [u32],
    pub(super) best: Best<'a>,
    pub(super) point: u32,
    pub(super) steps: [u16; 3],
    pub(super) are_vague: [bool; 3],
    pub(super) print: u8,
    /// Whether a record may have to be read to know whether a container fits.
    pub(super) is_record_read: bool,
    cold: u64,
    reach: Reach,
    bounds: &'a Level,
    /// No container of a wanted kind is cheaper.
    least: u32,
    /// What each class costs at least, where there is something eligible.
    leasts: [u32; CLASSES_NOTED],
    /// Rows and lists that can hold something better, by their bounds.
    heap: &'a mut BinaryHeap<Reverse<u64>>,
    pub(super) effort: Effort,
}

impl<'a> Searcher<'a> {
    /// Finds the best `count`, and those near them up to `width`: they stand in `scratch`.
    pub(super) fn run(
        index: &'a Index,
        search: &'a Search<'a>,
        excluded: &'a [u32],
        (count, width): (usize, usize),
        scratch: &'a mut Scratch,
    ) -> Effort {
        let Scratch { heap, ranks, near, .. } = scratch;
        // Asked for now, it has come from memory when the rows are collected.
        let ready = search.app.and_then(|app| index.ready.get(usize::from(app)));
        std::hint::black_box(ready.and_then(Ready::first_least));
        let are_vague = Sizes::are_vague(search.cpu, search.memory, search.disk);
        let has_lists = !excluded.is_empty()
            || !search.operators_allow.is_empty()
            || !search.operators_deny.is_empty();
        let mut searcher = Self {
            index,
            search,
            excluded,
            best: Best::new(search, (count, width), ranks, near),
            point: search.point(),
            steps: Sizes::of(search.cpu, search.memory, search.disk).steps(),
            are_vague,
            print: search.app.map_or(0, print_of),
            is_record_read: has_lists || are_vague != [false; 3],
            cold: search.app.map_or(0, |_| u64::from(search.weights.cold)),
            reach: Reach::new(search, index.locations),
            bounds: index.bounds.level(level_of(search.slots)),
            least: PRICE_MAX,
            leasts: [PRICE_MAX; CLASSES_NOTED],
            heap,
            effort: Effort::default(),
        };
        if searcher.reach.eligible != 0 {
            searcher.collect_rows();
            searcher.collect_ready();
            searcher.open();
        }
        searcher.best.finish();
        searcher.effort
    }

    /// Collects the rows of wanted classes and tiers that have something free.
    fn collect_rows(&mut self) {
        let search = self.search;
        let weight = u64::from(search.weights.price);
        let price_max = search.price_max.min(PRICE_MAX).cast_signed();
        let mut rows = std::mem::take(self.heap).into_vec();
        rows.clear();
        let nearest = self.reach.nearest + self.cold;
        let tiers = QUALITY_TIERS.iter().filter(|(_, best)| *best >= search.quality_min).count();
        let mut flaws = [0; TIERS];
        flaws.iter_mut().enumerate().for_each(|(tier, flaw)| *flaw = self.flaw(tier));
        let mut wanted = search.classes.iter().take_while(|class| *class < self.index.classes);
        let Some(first) = wanted.next() else {
            *self.heap = BinaryHeap::from(rows);
            return;
        };
        let last = wanted.last().unwrap_or(first);
        let (begin, count) = (usize::from(first) * TIERS, (usize::from(last) + 1) * TIERS);
        for first in (begin..count).step_by(ROWS_AT_ONCE) {
            let (leasts, sums) = self.least_of_rows(first, count.min(first + ROWS_AT_ONCE));
            let classes = first / TIERS..count.min(first + ROWS_AT_ONCE) / TIERS;
            for class in classes.filter_map(|class| u8::try_from(class).ok()) {
                if !search.classes.contains(class) {
                    continue;
                }
                for (tier, flaw) in flaws[..tiers].iter().enumerate() {
                    let row = usize::from(class) * TIERS + tier;
                    let (least, sum) = (leasts[row - first], sums[row - first]);
                    if least > price_max {
                        continue;
                    }
                    let (least, sum) = (least.cast_unsigned(), sum.cast_unsigned());
                    self.least = self.least.min(least);
                    let of_class = &mut self.leasts[usize::from(class) % CLASSES_NOTED];
                    *of_class = least.min(*of_class);
                    // What the way costs was rounded down to a price; the nearest is exact.
                    let bound = (weight * u64::from(sum) + self.cold)
                        .max(weight * u64::from(least) + nearest);
                    rows.push(Reverse((bound + flaw) << BOUND_SHIFT | ROW | (row << 7) as u64));
                }
            }
        }
        if search.is_app_required {
            rows.clear();
        }
        *self.heap = BinaryHeap::from(rows);
    }

    /// The least price of each row, and the least of price and way together, where there is
    /// something eligible.
    fn least_of_rows(&self, from: usize, to: usize) -> ([i32; ROWS_AT_ONCE], [i32; ROWS_AT_ONCE]) {
        let mut leasts = [i32::MAX; ROWS_AT_ONCE];
        let mut sums = [i32::MAX; ROWS_AT_ONCE];
        for (group, away) in self.reach.groups() {
            let lanes = leasts.iter_mut().zip(&mut sums);
            for (price, (least, sum)) in self.bounds.groups[*group][from..to].iter().zip(lanes) {
                *least = (*least).min(*price);
                *sum = (*sum).min(*price + *away);
            }
        }
        (leasts, sums)
    }

    /// Collects the lists of containers on which the application is ready.
    fn collect_ready(&mut self) {
        let Some(ready) = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)))
        else {
            return;
        };
        let wanted = self.search.classes.folded();
        for (location, list) in ready.lists() {
            if self.reach.eligible >> location & 1 == 0 || list.classes & wanted == 0 {
                continue;
            }
            // What is cheaper than any of its wanted kinds anywhere is of another kind.
            let (mut left, mut of_classes) = (list.classes & wanted, PRICE_MAX);
            while left != 0 {
                of_classes = of_classes.min(self.leasts[left.trailing_zeros() as usize]);
                left &= left - 1;
            }
            let least = list.least.max(of_classes);
            if least <= self.search.price_max {
                let price = u64::from(self.search.weights.price) * u64::from(least);
                let bound = self.reach.cost(location) + price;
                self.heap.push(Reverse(bound << BOUND_SHIFT | READY | location as u64));
            }
        }
    }

    /// Collects the lists of a row that can hold something better.
    fn collect_row(&mut self, row: usize) {
        let weight = u64::from(self.search.weights.price);
        let added = self.cold + self.flaw(row % TIERS);
        let price_max = self.search.price_max.min(PRICE_MAX).cast_signed();
        let left = self.best.cost_max().saturating_sub(added);
        let left = left.checked_div(weight).and_then(|left| i32::try_from(left).ok());
        let left = left.unwrap_or(i32::MAX);
        for (group, away) in self.reach.groups() {
            let least = self.bounds.groups[*group][row];
            if least > price_max || least + away > left {
                continue;
            }
            let first = *group * GROUP;
            let (Some(away), Some(cells)) = (
                self.reach.away[first..].first_chunk::<GROUP>(),
                self.bounds.cells[row][first..].first_chunk::<GROUP>(),
            ) else {
                continue;
            };
            let eligible = (self.reach.eligible >> first & 0xff) as u32;
            let mut places = wanted(away, cells, price_max, left) & eligible;
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                places &= places - 1;
                let location = first + place;
                let price = u64::from(cells[place].cast_unsigned());
                let bound = self.reach.cost(location) + added + weight * price;
                self.heap.push(Reverse(bound << BOUND_SHIFT | (row << 7 | location) as u64));
            }
        }
    }

    /// What the best quality of a tier adds to the cost.
    fn flaw(&self, tier: usize) -> u64 {
        flaw(self.search, QUALITY_TIERS[tier].1)
    }

    /// Opens rows and lists by rising bounds, until none can hold anything better.
    fn open(&mut self) {
        while let Some(Reverse(next)) = self.heap.pop() {
            if next >> BOUND_SHIFT > self.best.cost_max() {
                return;
            }
            if next & ROW != 0 {
                self.collect_row(((next & (ROW - 1)) >> 7) as usize);
            } else {
                self.open_list((next & (ROW - 1)) as usize);
            }
        }
    }

    fn run_of(&self, list: usize) -> Option<&'a Run> {
        if list >> READY_SHIFT == 0 {
            return self.index.cells.get(list);
        }
        let ready = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)))?;
        ready.run(list & 127)
    }

    fn open_list(&mut self, list: usize) {
        let Some(run) = self.run_of(list) else { return };
        self.effort.lists += 1;
        let base = self.reach.cost(list & 127);
        if list >> READY_SHIFT != 0 {
            self.scan::<true>(run, run.seek_price(self.least), base, 0);
        } else {
            self.scan::<false>(
                run,
                Cursor::START,
                base + self.cold,
                self.flaw((list >> 7) % TIERS),
            );
        }
    }
}

/// What a quality adds to the cost.
pub(super) fn flaw(search: &Search<'_>, quality: u16) -> u64 {
    let missing = super::row::QUALITY_MAX.saturating_sub(quality);
    u64::from(search.weights.quality) * u64::from(missing)
}

/// One bit for each price that is neither too high nor, with the way, above `left`. Written so
/// that it needs no branch.
fn wanted<const N: usize>(away: &[i32; N], prices: &[i32; N], price_max: i32, left: i32) -> u32 {
    let mut bits = [0_u32; N];
    for place in 0..N {
        let is_wanted = (prices[place] <= price_max) & (prices[place] + away[place] <= left);
        bits[place] = u32::from(is_wanted) << place;
    }
    bits.iter().fold(0, |all, bit| all | bit)
}
