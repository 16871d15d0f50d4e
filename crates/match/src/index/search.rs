//! The search: opens the lists that can hold something better, the most promising first.
//!
//! A list's bound is what its cheapest free container would cost were it perfect otherwise. Lists
//! are opened by rising bound until no bound is below what is already found, so the answer is the
//! one of a full scan. A loose bound costs time and never correctness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::best::{Best, Rank, rank};
use super::bounds::level_of;
use super::query::Search;
use super::row::{Entry, LOCATIONS_MAX, MANY_APPS, PRICE_MAX, Sizes, print_of};
use super::run::{Cursor, Run};
use super::{Index, QUALITY_TIERS, TIERS};

/// Locations whose bounds are compared at once.
const GROUP: usize = 8;
/// So many entries of one price are looked at one by one; more are searched.
const EQUAL_MAX: usize = 16;
/// Where a bound stands in the number by which rows and lists are ordered.
const BOUND_SHIFT: u32 = 19;
/// Marks a row of lists that have not been told apart.
const ROW: u64 = 1 << 18;
/// Marks a list of ready containers.
const READY: u64 = 1 << 17;
/// Farther than any limit, in micro-dollars: a location that is not eligible.
const FAR: u32 = i32::MAX.unsigned_abs();

/// Room for as many rows and lists as most searches collect.
const ROOM: usize = 256;

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
    /// What each location adds to the cost.
    base: [u64; LOCATIONS_MAX],
    /// The same as a price, rounded down; [`FAR`] where nothing is wanted.
    away: [u32; LOCATIONS_MAX],
    eligible: u128,
    /// The lowest price of a wanted kind.
    least: u32,
    /// Rows and lists that can hold something better, by their bounds.
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
        let weights = &search.weights;
        let (mut base, mut away) = ([0; LOCATIONS_MAX], [FAR; LOCATIONS_MAX]);
        let mut eligible = 0;
        for location in 0..index.locations {
            let latency = search.latency_to(location);
            if search.locations >> location & 1 == 1 && latency <= search.latency_max {
                let cost = u64::from(weights.latency) * u64::from(latency);
                base[location] = cost;
                away[location] = match weights.price {
                    // Without a weight of the price no price is too high.
                    0 => 0,
                    1 => u32::try_from(cost).map_or(FAR - 1, |cost| cost.min(FAR - 1)),
                    weight => u32::try_from(cost / u64::from(weight)).unwrap_or(FAR).min(FAR - 1),
                };
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
            away,
            eligible,
            least: FAR,
            heap: BinaryHeap::new(),
            effort: Effort::default(),
        }
    }

    /// The best, in order.
    pub(super) fn run(mut self) -> (Vec<Rank>, Effort) {
        if self.eligible != 0 {
            self.collect_rows();
            self.collect_ready();
            self.open();
        }
        (self.best.into_ranks(), self.effort)
    }

    /// Collects the rows of wanted classes and tiers that have something free.
    fn collect_rows(&mut self) {
        let search = self.search;
        let bounds = self.index.bounds.rows(level_of(search.slots));
        let near = (0..self.index.locations).filter(|at| self.eligible >> at & 1 == 1);
        let near = near.map(|at| self.base[at]).min().unwrap_or(0) + self.cold;
        let mut rows = Vec::with_capacity(ROOM);
        for class in search.classes.iter().take_while(|class| *class < self.index.classes) {
            let first = usize::from(class) * TIERS;
            for (tier, bounds) in bounds[first..first + TIERS].iter().enumerate() {
                let least = bounds.least.cast_unsigned();
                if least > search.price_max || QUALITY_TIERS[tier].1 < search.quality_min {
                    continue;
                }
                self.least = self.least.min(least);
                let bound = u64::from(search.weights.price) * u64::from(least);
                let bound = near + bound + self.flaw(tier);
                rows.push(Reverse(bound << BOUND_SHIFT | ROW | ((first + tier) << 7) as u64));
            }
        }
        if search.is_app_required {
            rows.clear();
        }
        self.heap = BinaryHeap::from(rows);
    }

    /// Collects the lists of containers on which the application is ready.
    fn collect_ready(&mut self) {
        let Some(ready) = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)))
        else {
            return;
        };
        for (location, least) in ready.leasts() {
            // What is cheaper than any wanted kind is of another kind.
            let least = least.cast_unsigned().max(self.least);
            if self.eligible >> location & 1 == 1 && least <= self.search.price_max {
                let bound =
                    self.base[location] + u64::from(self.search.weights.price) * u64::from(least);
                self.heap.push(Reverse(bound << BOUND_SHIFT | READY | location as u64));
            }
        }
    }

    /// Collects the lists of a row that can hold something better.
    fn collect_row(&mut self, row: usize) {
        let bounds = self.index.bounds.rows(level_of(self.search.slots));
        let weight = u64::from(self.search.weights.price);
        let added = self.cold + self.flaw(row % TIERS);
        let price_max = self.search.price_max.min(PRICE_MAX);
        let left = self.best.cost_max().saturating_sub(added);
        let left = left.checked_div(weight).unwrap_or(u64::MAX);
        let left = u32::try_from(left).unwrap_or(FAR - 1 + PRICE_MAX).min(FAR - 1 + PRICE_MAX);
        let groups = self.away.chunks_exact(GROUP).zip(bounds[row].cells.chunks_exact(GROUP));
        for (group, (away, cells)) in groups.take(self.index.locations.div_ceil(GROUP)).enumerate()
        {
            let is_wanted = |away: u32, cell: i32| {
                let cell = cell.cast_unsigned();
                (cell <= price_max) & (away < FAR) & (cell + away <= left)
            };
            let is_any = away
                .iter()
                .zip(cells)
                .fold(false, |any, (away, cell)| any | is_wanted(*away, *cell));
            if !is_any {
                continue;
            }
            for (place, (away, cell)) in away.iter().zip(cells).enumerate() {
                if is_wanted(*away, *cell) {
                    let location = group * GROUP + place;
                    let bound =
                        self.base[location] + added + weight * u64::from(cell.cast_unsigned());
                    self.heap.push(Reverse(bound << BOUND_SHIFT | (row << 7 | location) as u64));
                }
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
            let location = (next & 127) as usize;
            let row = ((next & (READY - 1)) >> 7) as usize;
            if next & ROW != 0 {
                self.collect_row(row);
                continue;
            }
            self.effort.lists += 1;
            if next & READY != 0 {
                let ready = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)));
                if let Some(run) = ready.and_then(|ready| ready.run(location)) {
                    let first = run.seek(u128::from(self.least) << 96);
                    self.scan::<true>(run, first, self.base[location], 0);
                }
            } else {
                let run = &self.index.cells[row * LOCATIONS_MAX + location];
                let base = self.base[location] + self.cold;
                self.scan::<false>(run, Cursor::START, base, self.flaw(row % TIERS));
            }
        }
    }

    /// Looks at the entries of a list while they can be wanted.
    fn scan<const IS_READY: bool>(
        &mut self,
        run: &'a Run,
        mut cursor: Cursor,
        base: u64,
        flaw: u64,
    ) {
        let price_max = self.search.price_max.min(PRICE_MAX);
        let weight = u64::from(self.search.weights.price);
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
