//! The best that a search has found so far, and the bound that follows from it.

use super::query::Search;

/// A candidate's rank: cost, then distance on the ring, then number.
pub(crate) type Rank = u128;

pub(crate) const fn rank(cost: u64, tie: u32, row: u32) -> Rank {
    (cost as u128) << 64 | (tie as u128) << 32 | row as u128
}

pub(crate) const fn cost_of(rank: Rank) -> u64 {
    (rank >> 64) as u64
}

pub(crate) const fn row_of(rank: Rank) -> u32 {
    (rank & 0xffff_ffff) as u32
}

/// How many ranks beyond what is kept are collected before the worst are dropped.
const SURPLUS_MAX: usize = 32;

/// The `count` best, and besides up to `width` that cost little more than the best.
#[derive(Debug)]
pub(crate) struct Best<'a> {
    search: &'a Search<'a>,
    count: usize,
    width: usize,
    /// The best, in order.
    top: &'a mut Vec<Rank>,
    /// Those near the best that are not in `top`, in no order.
    near: &'a mut Vec<Rank>,
    /// No more is kept of those near the best above this.
    near_max: Rank,
    /// The highest rank that is near the best.
    near_bound: Rank,
    /// What ranks above this is not wanted.
    worst: Rank,
}

impl<'a> Best<'a> {
    /// None yet, in memory that was used before.
    pub(crate) fn new(
        search: &'a Search<'a>,
        (count, width): (usize, usize),
        top: &'a mut Vec<Rank>,
        near: &'a mut Vec<Rank>,
    ) -> Self {
        top.clear();
        near.clear();
        let width = width.max(count);
        let (near_max, near_bound, worst) = (Rank::MAX, Rank::MAX, Rank::MAX);
        Self { search, count, width, top, near, near_max, near_bound, worst }
    }

    /// The highest cost that is still wanted.
    pub(crate) const fn cost_max(&self) -> u64 {
        cost_of(self.worst)
    }

    /// So many of one cost are enough.
    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn push(&mut self, rank: Rank) {
        if rank > self.worst {
            return;
        }
        // The worst of the best, if it is not among them any more.
        let mut next = rank;
        if self.top.len() < self.count {
            self.top.push(rank);
        } else if let Some(last) = self.top.last_mut().filter(|last| rank < **last) {
            next = std::mem::replace(last, rank);
        } else {
            self.keep_near(rank);
            return;
        }
        let mut place = self.top.len() - 1;
        while place > 0 && self.top[place] < self.top[place - 1] {
            self.top.swap(place, place - 1);
            place -= 1;
        }
        if next != rank {
            self.keep_near(next);
        }
        self.bound();
    }

    /// Keeps a rank that is not among the best, if it is near.
    fn keep_near(&mut self, rank: Rank) {
        if self.width > self.count && rank <= self.near_bound {
            self.near.push(rank);
            if self.near.len() >= self.width - self.count + SURPLUS_MAX {
                self.drop_surplus();
                self.bound();
            }
        }
    }

    /// Leaves all that is kept, best first, among the best.
    pub(crate) fn finish(self) {
        let bound = self.near_bound;
        self.near.retain(|rank| *rank <= bound);
        self.near.sort_unstable();
        self.near.truncate(self.width - self.count);
        self.top.append(self.near);
    }

    fn bound(&mut self) {
        let Some(best) = self.top.first() else { return };
        let near = self.search.near(cost_of(*best));
        self.near_bound = rank(near, u32::MAX, u32::MAX).min(self.near_max);
        let Some(last) = self.top.get(self.count - 1) else { return };
        self.worst = if self.width > self.count { self.near_bound.max(*last) } else { *last };
    }

    fn drop_surplus(&mut self) {
        let bound = self.near_bound;
        self.near.retain(|rank| *rank <= bound);
        let kept = self.width - self.count;
        if self.near.len() > kept {
            let (_, last, _) = self.near.select_nth_unstable(kept - 1);
            self.near_max = *last;
            self.near.truncate(kept);
        }
    }
}
