//! The search: opens the lists that can hold something better, the most promising first.
//!
//! A list's bound is what its cheapest free container would cost were it perfect otherwise. Lists
//! are opened by rising bound until no bound is below what is already found, so the answer is the
//! one of a full scan. A loose bound costs time and never correctness.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::best::{Best, Rank, rank};
use super::bounds::{GROUP, GROUPS, Level, level_of};
use super::query::Search;
use super::row::{Entry, LOCATIONS_MAX, MANY_APPS, PRICE_MAX, Sizes, print_of};
use super::run::{Cursor, Run};
use super::{Index, QUALITY_TIERS, TIERS};

/// So many entries of one price are looked at one by one; more are searched.
const EQUAL_MAX: usize = 16;
/// Where a bound stands in the number by which rows and lists are ordered.
const BOUND_SHIFT: u32 = 19;
/// Marks a row of lists that have not been told apart.
const ROW: u64 = 1 << 18;
/// Marks a list of ready containers.
const READY: u64 = 1 << 17;
/// Farther than any limit, in micro-dollars: a location that is not eligible.
const FAR: i32 = (1 << 30) - 1;

/// Rows that are compared at once.
const ROWS_AT_ONCE: usize = 64;
/// Room for as many rows and lists as most searches collect.
const ROOM: usize = 120;

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
    away: [i32; LOCATIONS_MAX],
    /// The groups of locations in which something is wanted, with the least way to each.
    groups: [(usize, i32); GROUPS],
    groups_len: usize,
    bounds: &'a Level,
    eligible: u128,
    /// No container of a wanted kind is cheaper.
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
        let (mut base, mut away) = ([0; LOCATIONS_MAX], [FAR; LOCATIONS_MAX]);
        let weight = u64::from(search.weights.latency);
        let mut eligible = 0;
        for (location, base) in base.iter_mut().enumerate().take(index.locations) {
            let latency = search.latency_to(location);
            *base = weight * u64::from(latency);
            eligible |= u128::from(latency <= search.latency_max) << location;
        }
        eligible &= search.locations;
        let mut left = eligible;
        while left != 0 {
            let location = left.trailing_zeros() as usize;
            left &= left - 1;
            let cost = base[location];
            let way = match search.weights.price {
                // Without a weight of the price no price is too high.
                0 => 0,
                1 => cost,
                weight => cost / u64::from(weight),
            };
            away[location] = i32::try_from(way).unwrap_or(FAR).min(FAR - 1);
        }
        let (groups, groups_len) = groups_of(&away);
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
            groups,
            groups_len,
            away,
            bounds: index.bounds.level(level_of(search.slots)),
            eligible,
            least: PRICE_MAX,
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
        let weight = u64::from(search.weights.price);
        let price_max = search.price_max.min(PRICE_MAX).cast_signed();
        let mut rows = Vec::with_capacity(ROOM);
        let nearest = self.base_least() + self.cold;
        let tiers = QUALITY_TIERS.iter().filter(|(_, best)| *best >= search.quality_min).count();
        let mut wanted = search.classes.iter().take_while(|class| *class < self.index.classes);
        let Some(first) = wanted.next() else { return };
        let last = wanted.last().unwrap_or(first);
        let (begin, count) = (usize::from(first) * TIERS, (usize::from(last) + 1) * TIERS);
        for first in (begin..count).step_by(ROWS_AT_ONCE) {
            let (leasts, sums) = self.least_of_rows(first, count.min(first + ROWS_AT_ONCE));
            let classes = first / TIERS..count.min(first + ROWS_AT_ONCE) / TIERS;
            for class in classes.filter_map(|class| u8::try_from(class).ok()) {
                if !search.classes.contains(class) {
                    continue;
                }
                for tier in 0..tiers {
                    let row = usize::from(class) * TIERS + tier;
                    let (least, sum) = (leasts[row - first], sums[row - first]);
                    if least > price_max {
                        continue;
                    }
                    let (least, sum) = (least.cast_unsigned(), sum.cast_unsigned());
                    self.least = self.least.min(least);
                    // What the way costs was rounded down to a price; the nearest is exact.
                    let bound = (weight * u64::from(sum) + self.cold)
                        .max(weight * u64::from(least) + nearest);
                    let bound = bound + self.flaw(tier);
                    rows.push(Reverse(bound << BOUND_SHIFT | ROW | (row << 7) as u64));
                }
            }
        }
        if search.is_app_required {
            rows.clear();
        }
        self.heap = BinaryHeap::from(rows);
    }

    /// The least price of each row, and the least of price and way together, where there is
    /// something eligible.
    fn least_of_rows(&self, from: usize, to: usize) -> ([i32; ROWS_AT_ONCE], [i32; ROWS_AT_ONCE]) {
        let mut leasts = [i32::MAX; ROWS_AT_ONCE];
        let mut sums = [i32::MAX; ROWS_AT_ONCE];
        for (group, away) in &self.groups[..self.groups_len] {
            let lanes = leasts.iter_mut().zip(&mut sums);
            for (price, (least, sum)) in self.bounds.groups[*group][from..to].iter().zip(lanes) {
                *least = (*least).min(*price);
                *sum = (*sum).min(*price + *away);
            }
        }
        (leasts, sums)
    }

    /// What the nearest location adds to the cost.
    fn base_least(&self) -> u64 {
        let mut eligible = self.eligible;
        let mut least = u64::MAX >> 1;
        while eligible != 0 {
            least = least.min(self.base[eligible.trailing_zeros() as usize]);
            eligible &= eligible - 1;
        }
        least
    }

    /// Collects the lists of containers on which the application is ready.
    fn collect_ready(&mut self) {
        let Some(ready) = self.search.app.and_then(|app| self.index.ready.get(usize::from(app)))
        else {
            return;
        };
        let wanted = self.search.classes.folded();
        for (location, least, classes, run) in ready.lists() {
            // What is cheaper than any wanted kind is of another kind.
            let least = least.cast_unsigned().max(self.least);
            let is_eligible = self.eligible >> location & 1 == 1;
            if is_eligible && classes & wanted != 0 && least <= self.search.price_max {
                let bound =
                    self.base[location] + u64::from(self.search.weights.price) * u64::from(least);
                self.heap.push(Reverse(bound << BOUND_SHIFT | READY | location as u64));
                // Most of these lists are opened: read now, they come from memory together.
                std::hint::black_box(run.first().map(|entry| entry.price));
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
        for (group, away) in &self.groups[..self.groups_len] {
            let least = self.bounds.groups[*group][row];
            if least > price_max || least + away > left {
                continue;
            }
            let first = *group * GROUP;
            let (Some(away), Some(cells)) = (
                self.away[first..].first_chunk::<GROUP>(),
                self.bounds.cells[row][first..].first_chunk::<GROUP>(),
            ) else {
                continue;
            };
            let eligible = (self.eligible >> first & 0xff) as u32;
            let mut places = wanted(away, cells, price_max, left) & eligible;
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                places &= places - 1;
                let location = first + place;
                let price = u64::from(cells[place].cast_unsigned());
                let bound = self.base[location] + added + weight * price;
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
                    let first = run.seek_price(self.least);
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
                return run.seek_price(price + 1);
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

/// The groups in which something is wanted, with the least of each, and how many there are.
fn groups_of(away: &[i32; LOCATIONS_MAX]) -> ([(usize, i32); GROUPS], usize) {
    let (mut groups, mut count) = ([(0, FAR); GROUPS], 0);
    for (number, away) in away.chunks_exact(GROUP).enumerate() {
        let least = away.iter().copied().min().unwrap_or(FAR);
        groups[count] = (number, least);
        count += usize::from(least < FAR);
    }
    (groups, count)
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
