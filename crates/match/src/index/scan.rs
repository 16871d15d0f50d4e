//! Looking through a list: by rising price, as long as something can be wanted.

use super::best::rank;
use super::row::{Entry, MANY_APPS, PRICE_MAX};
use super::run::{Cursor, Run};
use super::search::{Searcher, flaw};

/// So many entries of one price are looked at one by one; more are searched.
const EQUAL_MAX: usize = 16;

impl<'a> Searcher<'a> {
    /// Looks at the entries of a list while they can be wanted.
    pub(super) fn scan<const IS_READY: bool>(
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
            // The far one is read only where the next has the same price: it is seldom in the cache.
            let is_equal =
                |place: usize| chunk.get(place).is_some_and(|other| other.price == entry.price);
            let is_long = is_equal(cursor.at + 1) && is_equal(cursor.at + EQUAL_MAX);
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
            & (steps[2] >= self.steps[2])
            & (!IS_READY || search.classes.contains(entry.class));
        if !fits {
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
