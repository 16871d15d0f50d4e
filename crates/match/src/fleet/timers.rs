//! When which host next changes by the passing of time.
//!
//! A wheel of a quarter of a second a spoke, with the present spoke in a heap: a million hosts are
//! re-armed by a push into a list. A host's entry is not moved when it beats: what fires too early
//! is armed again. So what is armed is never later than what is due, and the work of one call is
//! bounded by its budget.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SPOKE_MS: u64 = 250;
const SPOKES: usize = 1 << 10;

#[derive(Clone, Debug)]
pub(super) struct Timers {
    spokes: Vec<Vec<(u64, u32)>>,
    /// The number of the present spoke since 1970.
    present: u64,
    /// What belongs to the present spoke or to one before.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// What is still in spokes.
    waiting: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Self { spokes: vec![Vec::new(); SPOKES], present: 0, due: BinaryHeap::new(), waiting: 0 }
    }
}

impl Timers {
    pub(super) fn push(&mut self, now: u64, at: u64, host: u32) {
        if self.waiting == 0 && self.due.is_empty() {
            self.present = self.present.max(now / SPOKE_MS);
        }
        self.put(at, host);
    }

    fn put(&mut self, at: u64, host: u32) {
        let spoke = at / SPOKE_MS;
        if spoke <= self.present {
            self.due.push(Reverse((at, host)));
            return;
        }
        // What is farther than the wheel reaches is looked at again when it has turned.
        let ahead = (spoke - self.present).min(SPOKES as u64 - 1);
        self.spokes[place(self.present + ahead)].push((at, host));
        self.waiting += 1;
    }

    /// The next entry whose time has come. Takes from `budget` what it costs; with nothing left in
    /// it, there may be more.
    pub(super) fn pop(&mut self, now: u64, budget: &mut usize) -> Option<(u64, u32)> {
        loop {
            *budget = budget.checked_sub(1)?;
            if let Some(Reverse((at, host))) = self.due.peek().copied()
                && at <= now
            {
                self.due.pop();
                return Some((at, host));
            }
            let last = now / SPOKE_MS;
            if self.present >= last {
                return None;
            }
            if self.waiting == 0 {
                self.present = last;
            } else {
                self.turn(last, budget);
            }
        }
    }

    /// Goes on to the next spoke that has something, as far as the budget reaches.
    fn turn(&mut self, last: u64, budget: &mut usize) {
        let far = self.present.saturating_add(SPOKES as u64).min(last);
        let next = (self.present + 1..=far).find(|spoke| !self.spokes[place(*spoke)].is_empty());
        let Some(next) = next else {
            // Whatever waits lies within one turn: here it is all behind `far`.
            self.present = far;
            return;
        };
        let spoke = &mut self.spokes[place(next)];
        let moved = spoke.len().min(*budget + 1);
        let mut taken = spoke.split_off(spoke.len() - moved);
        let is_empty = spoke.is_empty();
        if is_empty {
            // A spoke that was once long gives its room back.
            spoke.shrink_to(64);
            self.present = next;
        } else {
            self.present = next - 1;
        }
        self.waiting -= moved;
        *budget = budget.saturating_sub(moved);
        let reached = next;
        for (at, host) in taken.drain(..) {
            if at / SPOKE_MS <= reached {
                self.due.push(Reverse((at, host)));
            } else {
                self.put(at, host);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let spokes: usize = self.spokes.iter().map(Vec::capacity).sum();
        (spokes + self.due.capacity()) * size_of::<(u64, u32)>()
    }
}

fn place(spoke: u64) -> usize {
    usize::try_from(spoke % SPOKES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the budget, what is due comes out, once, and nothing else does.
        #[test]
        fn nothing_fires_early_or_never(
            steps in prop::collection::vec(
                (prop_oneof![4 => 0..3_000_u64, 1 => 0..900_000_u64],
                 prop::collection::vec(prop_oneof![0..40_000_u64, 0..2_000_000_u64], 0..20),
                 2..40_usize),
                1..40),
            begin in prop_oneof![Just(0_u64), Just(1_700_000_000_000)],
        ) {
            let (mut timers, mut model, mut now) = (Timers::default(), Vec::new(), begin);
            let mut number = 0;
            for (wait, added, budget) in steps {
                for ahead in added {
                    timers.push(now, now + ahead, number);
                    model.push((now + ahead, number));
                    number += 1;
                }
                now += wait;
                let mut fired = Vec::new();
                loop {
                    let mut left = budget;
                    while let Some(entry) = timers.pop(now, &mut left) {
                        prop_assert!(entry.0 <= now);
                        fired.push(entry);
                    }
                    if left > 0 {
                        break;
                    }
                }
                let mut due: Vec<_> = model.iter().copied().filter(|(at, _)| *at <= now).collect();
                model.retain(|(at, _)| *at > now);
                fired.sort_unstable();
                due.sort_unstable();
                prop_assert_eq!(fired, due);
            }
        }
    }
}
