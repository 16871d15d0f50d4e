//! The search: opens the lists that can hold something better, the most promising first.
//!
//! A list's bound is what its cheapest free container would cost were it perfect otherwise. Lists
//! are opened by rising bound until no bound is below what is already found, so the answer is the
//! one of a full scan. A loose bound costs time and never correctness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::best::{Best, Rank, rank};
use super::bounds::{BoundRow, NOTHING, level_of};
use super::query::Search;
use super::row::{Entry, LOCATIONS_MAX, MANY_APPS, PRICE_MAX, Sizes, print_of};
use super::run::{Cursor, Run};
use super::{Index, QUALITY_TIERS, TIERS};

/// Locations whose bounds are compared at once.
const GROUP: usize = 8;
/// Lists that are collected before the most promising are opened.
const COLLECTED_MAX: usize = 192;
/// So many entries of one price are looked at one by one; more are searched.
const EQUAL_MAX: usize = 16;
/// Where a list's bound stands in the number by which lists are ordered.
const BOUND_SHIFT: u32 = 18;
/// Marks a list of ready containers.
const READY: u64 = 1 << 17;

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
    index: &'a Index,
    search: &'a Search<'a>,
    excluded: &'a [u32],
    best: Best<'a>,
    point: u32,
    steps: [u16; 3],
    are_vague: [bool; 3],
    print: u8,
    /// Whether a record may have to be read to know whether a container fits.
    is_record_read: bool,
    cold: u64,
    base: [u64; LOCATIONS_MAX],
    eligible: u128,
    limits: [[i32; LOCATIONS_MAX]; TIERS],
    heap: BinaryHeap<Reverse<u64>>,
    pub(super) effort: Effort,
}

impl<'a> Searcher<'a> {
    pub(super) fn new(
        index: &'a Index,
        search: &'a Search<'a>,
        excluded: &'a [u32],
        (count, width): (usize, usize),
    ) -> Self {
        let mut base = [0; LOCATIONS_MAX];
        let mut eligible = 0;
        for (location, base) in base.iter_mut().enumerate().take(index.locations) {
            let latency = search.latency_to(location);
            if search.locations >> location & 1 == 1 && latency <= search.latency_max {
                *base = u64::from(search.weights.latency) * u64::from(latency);
                eligible |= 1 << location;
            }
        }
        let are_vague = Sizes::are_vague(search.cpu, search.memory, search.disk);
        let has_lists = !excluded.is_empty()
            || !search.operators_allow.is_empty()
            || !search.operators_deny.is_empty();
        Self {
            index,
            search,
            excluded,
            best: Best::new(search, count, width),
            point: search.point(),
            steps: Sizes::of(search.cpu, search.memory, search.disk).steps(),
            are_vague,
            print: search.app.map_or(0, print_of),
            is_record_read: has_lists || are_vague != [false; 3],
            cold: search.app.map_or(0, |_| u64::from(search.weights.cold)),
            base,
            eligible,
            limits: [[-1; LOCATIONS_MAX]; TIERS],
            heap: BinaryHeap::with_capacity(COLLECTED_MAX + LOCATIONS_MAX),
            effort: Effort::default(),
        }
    }

    /// The best, in order.
    pub(super) fn run(mut self) -> (Vec<Rank>, Effort) {
        self.collect_ready();
        if !self.search.is_app_required {
            self.collect_cold();
        }
        self.open_collected();
        (self.best.into_ranks(), self.effort)
    }

    /// Lists of containers on which the application is ready.
    fn collect_ready(&mut self) {
        let Some(ready) = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)))
        else {
            return;
        };
        let price_max = self.search.price_max.min(PRICE_MAX);
        for (location, least) in ready.leasts() {
            if self.eligible >> location & 1 == 1 && least.cast_unsigned() <= price_max {
                let bound = self.base[location]
                    + u64::from(self.search.weights.price) * u64::from(least.cast_unsigned());
                self.heap.push(Reverse(bound << BOUND_SHIFT | READY | location as u64));
            }
        }
    }

    fn collect_cold(&mut self) {
        let weights = &self.search.weights;
        let bounds = self.index.bounds.rows(level_of(self.search.slots));
        let mut rows = Vec::with_capacity(128);
        for class in self.search.classes.iter().take_while(|class| *class < self.index.classes) {
            for (tier, (_, best)) in QUALITY_TIERS.iter().enumerate() {
                let row = usize::from(class) * TIERS + tier;
                let least = bounds.get(row).map_or(NOTHING, |bounds| bounds.least);
                if least == NOTHING || *best < self.search.quality_min {
                    continue;
                }
                let bound =
                    u64::from(weights.price) * u64::from(least.cast_unsigned()) + self.flaw(tier);
                rows.push(bound << BOUND_SHIFT | row as u64);
            }
        }
        rows.sort_unstable();
        let mut nearest = u64::MAX;
        let mut groups = 0_u32;
        for (location, base) in self.base.iter().enumerate() {
            if self.eligible >> location & 1 == 1 {
                nearest = nearest.min(*base);
                groups |= 1 << (location / GROUP);
            }
        }
        if groups == 0 {
            return;
        }
        let nearest = nearest + self.cold;
        self.set_limits();
        for row in rows {
            let (bound, row) = (row >> BOUND_SHIFT, row & ((1 << BOUND_SHIFT) - 1));
            if nearest + bound > self.best.cost_max() {
                break;
            }
            let Ok(row) = usize::try_from(row) else { continue };
            self.collect_row(row, &bounds[row], groups);
            if self.heap.len() >= COLLECTED_MAX {
                self.open_collected();
                self.set_limits();
            }
        }
    }

    /// Collects the lists of one class and tier that can hold something better.
    fn collect_row(&mut self, row: usize, bounds: &BoundRow, mut groups: u32) {
        let tier = row % TIERS;
        let added = self.cold + self.flaw(tier);
        while groups != 0 {
            let first = groups.trailing_zeros() as usize * GROUP;
            groups &= groups - 1;
            let cells = &bounds.cells[first..first + GROUP];
            let limits = &self.limits[tier][first..first + GROUP];
            let is_any =
                cells.iter().zip(limits).fold(false, |any, (cell, most)| any | (cell <= most));
            if !is_any {
                continue;
            }
            for (place, (cell, most)) in cells.iter().zip(limits).enumerate() {
                if cell <= most {
                    let location = first + place;
                    let price =
                        u64::from(self.search.weights.price) * u64::from(cell.cast_unsigned());
                    let bound = self.base[location] + added + price;
                    self.heap.push(Reverse(bound << BOUND_SHIFT | (row << 7 | location) as u64));
                }
            }
        }
    }

    /// For each location and tier the highest price that can still be wanted.
    fn set_limits(&mut self) {
        let price_max = u64::from(self.search.price_max.min(PRICE_MAX));
        let weight = u64::from(self.search.weights.price);
        // A reciprocal that is a little too large gives limits that are a little too high.
        let reciprocal = (1_u64 << 20).checked_div(weight).map(|inverse| inverse + 1);
        let cost_max = self.best.cost_max().min(1 << 43);
        for tier in 0..TIERS {
            let added = self.cold + self.flaw(tier);
            let mut eligible = self.eligible;
            while eligible != 0 {
                let location = eligible.trailing_zeros() as usize;
                eligible &= eligible - 1;
                let limit = match (cost_max.checked_sub(self.base[location] + added), reciprocal) {
                    (None, _) => -1,
                    (Some(_), None) => price_max.cast_signed(),
                    (Some(left), Some(inverse)) => {
                        price_max.min(((left + 1) * inverse) >> 20).cast_signed()
                    }
                };
                self.limits[tier][location] = i32::try_from(limit).unwrap_or(NOTHING - 1);
            }
        }
    }

    /// What the best quality of a tier adds to the cost.
    fn flaw(&self, tier: usize) -> u64 {
        flaw(self.search, QUALITY_TIERS[tier].1)
    }

    fn open_collected(&mut self) {
        while let Some(Reverse(list)) = self.heap.pop() {
            if list >> BOUND_SHIFT > self.best.cost_max() {
                self.heap.clear();
                return;
            }
            self.effort.lists += 1;
            let location = (list & 127) as usize;
            if list & READY != 0 {
                let ready = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)));
                if let Some(run) = ready.and_then(|ready| ready.run(location)) {
                    self.scan::<true>(run, self.base[location], 0);
                }
            } else {
                let place = ((list & (READY - 1)) >> 7) as usize;
                let run = &self.index.cells[place * LOCATIONS_MAX + location];
                self.scan::<false>(run, self.base[location] + self.cold, self.flaw(place % TIERS));
            }
        }
    }

    /// Looks at the entries of a list while they can be wanted.
    fn scan<const IS_READY: bool>(&mut self, run: &'a Run, base: u64, flaw: u64) {
        let price_max = self.search.price_max.min(PRICE_MAX);
        let weight = u64::from(self.search.weights.price);
        let mut cursor = Cursor::START;
        while let Some(chunk) = run.chunk(cursor.chunk) {
            let Some(entry) = chunk.get(cursor.at) else {
                if cursor.at == 0 {
                    return;
                }
                cursor = Cursor { chunk: cursor.chunk + 1, at: 0 };
                continue;
            };
            let bound = base + flaw + weight * u64::from(entry.price);
            if entry.price > price_max || bound > self.best.cost_max() {
                return;
            }
            let is_long =
                chunk.get(cursor.at + EQUAL_MAX).is_some_and(|far| far.price == entry.price);
            if is_long {
                cursor = self.scan_equal::<IS_READY>(run, cursor, base);
            } else {
                self.weigh::<IS_READY>(entry, base);
                cursor.at += 1;
            }
        }
    }

    /// Looks at many entries of one price: those of equal cost are not all looked at, and none
    /// that cost too much. Returns the place of the next price.
    fn scan_equal<const IS_READY: bool>(
        &mut self,
        run: &'a Run,
        mut cursor: Cursor,
        base: u64,
    ) -> Cursor {
        let Some(price) = run.get(cursor).map(|entry| entry.price) else { return cursor };
        let weights = &self.search.weights;
        while let Some(entry) = run.get(cursor).filter(|entry| entry.price == price) {
            let bound = base
                + u64::from(weights.price) * u64::from(price)
                + flaw(self.search, entry.quality);
            if bound > self.best.cost_max() {
                return run.seek(u128::from(price + 1) << 96);
            }
            let group = entry.group();
            let far = Cursor { at: cursor.at + self.best.width(), ..cursor };
            let far = run.get(far).or_else(|| run.chunk(cursor.chunk + 1)?.first());
            if far.is_some_and(|far| far.group() == group) {
                self.walk_ring::<IS_READY>(run, cursor, group, base);
                cursor = run.seek(u128::from(group + 1) << 64);
            } else {
                self.weigh::<IS_READY>(entry, base);
                cursor = run.next(cursor);
            }
        }
        cursor
    }

    /// Looks at entries of equal cost in the order of the ring, until enough are found.
    fn walk_ring<const IS_READY: bool>(
        &mut self,
        run: &'a Run,
        first: Cursor,
        group: u64,
        base: u64,
    ) {
        let mut left = self.best.width();
        let begin = run.seek(u128::from(group) << 64 | u128::from(self.point) << 32);
        for (mut cursor, end) in [(begin, None), (first, Some(begin))] {
            while left > 0
                && Some(cursor) != end
                && let Some(entry) = run.get(cursor).filter(|entry| entry.group() == group)
            {
                left -= usize::from(self.weigh::<IS_READY>(entry, base));
                cursor = run.next(cursor);
            }
        }
    }

    /// Adds an entry to the best if it fits, and says whether it fits.
    #[inline]
    fn weigh<const IS_READY: bool>(&mut self, entry: &Entry, base: u64) -> bool {
        self.effort.rows += 1;
        let (search, steps) = (self.search, entry.sizes.steps());
        let fits = entry.features.meets(search.features)
            & (entry.quality >= search.quality_min)
            & (entry.free >= search.slots)
            & (steps[0] >= self.steps[0])
            & (steps[1] >= self.steps[1])
            & (steps[2] >= self.steps[2]);
        if !fits || (IS_READY && !search.classes.contains(entry.class)) {
            return false;
        }
        let cost = base
            + u64::from(search.weights.price) * u64::from(entry.price)
            + flaw(search, entry.quality)
            + u64::from(search.weights.fragment) * u64::from(entry.free - search.slots);
        let rank = rank(cost, entry.ring.wrapping_sub(self.point), entry.row);
        if !self.fits_record::<IS_READY>(entry) {
            return false;
        }
        self.best.push(rank);
        true
    }

    /// The tests for which the entry does not suffice.
    fn fits_record<const IS_READY: bool>(&self, entry: &Entry) -> bool {
        // Where the application is ready, the list of ready ones has the container, at less cost.
        if !IS_READY && self.print != 0 && (entry.apps == self.print || entry.apps == MANY_APPS) {
            let app = self.search.app.unwrap_or_default();
            if self.index.has_app(entry.row, app) {
                return false;
            }
        }
        !self.is_record_read || self.fits_lists(entry)
    }

    #[cold]
    fn fits_lists(&self, entry: &Entry) -> bool {
        let record = &self.index.records[entry.row as usize];
        let search = self.search;
        let [cpu, memory, disk] = self.are_vague;
        (!cpu || record.cpu >= search.cpu)
            && (!memory || record.memory >= search.memory)
            && (!disk || record.disk >= search.disk)
            && !self.excluded.contains(&record.host)
            && !search.operators_deny.contains(&record.operator)
            && (search.operators_allow.is_empty()
                || search.operators_allow.contains(&record.operator))
    }
}

/// What a quality adds to the cost.
fn flaw(search: &Search<'_>, quality: u16) -> u64 {
    let missing = super::row::QUALITY_MAX.saturating_sub(quality);
    u64::from(search.weights.quality) * u64::from(missing)
}
