//! How much of its time a host gives to challenges.
//!
//! Time for challenges grows by a share of the time that goes by, up to a bound, and what a
//! challenge took is taken from it. A challenge begins only while some is left, so that over any
//! time T challenges take at most share·T + bound + the longest challenge.

use welkin_proto::epoch::COMMITTEE;

/// The share, in ten-thousandths: 1 %.
const SHARE_BP: u64 = 100;
/// The most time that is saved up, in microseconds: five seconds, earned in eight minutes.
const SAVED_US_MAX: u64 = 5_000_000;
/// One checker has an nth of the share: so many come to a container in a minute, on average. It saves up
/// as much as there is, so that it may ask again what was slow.
const CHECKERS: u64 = COMMITTEE as u64;

/// One device's time for challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    share_bp: u64,
    /// What is left, in microseconds of work times 10,000; below zero after a long challenge.
    left: i128,
    now_us: u64,
}

impl Default for Budget {
    /// All of a device's time for challenges, with all saved up that can be.
    fn default() -> Self {
        Self::new(SHARE_BP)
    }
}

impl Budget {
    /// What one checker may have of it, so that none takes all for long.
    pub fn of_checker() -> Self {
        Self::new(SHARE_BP / CHECKERS)
    }

    fn new(share_bp: u64) -> Self {
        Self { share_bp, left: most(), now_us: 0 }
    }

    /// Whether all is saved up that can be: then it is as a new one.
    pub fn is_whole(&mut self, now_us: u64) -> bool {
        self.pass(now_us);
        self.left == most()
    }

    /// Whether a challenge may begin now.
    pub fn may_begin(&mut self, now_us: u64) -> bool {
        self.pass(now_us);
        self.left > 0
    }

    /// Takes what a challenge took.
    pub fn spend(&mut self, now_us: u64, took_us: u64) {
        self.pass(now_us);
        self.left -= i128::from(took_us) * 10_000;
    }

    /// A time before the last one is taken as the last one.
    fn pass(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(now_us);
        let grown = i128::from(passed) * i128::from(self.share_bp);
        self.left = (self.left + grown).min(most());
    }
}

fn most() -> i128 {
    i128::from(SAVED_US_MAX) * 10_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks, and however often: the share is kept.
        #[test]
        fn no_more_than_the_share_is_spent(
            asks in prop::collection::vec((0..60_000_000_u64, 0..20_000_000_u64), 1..200),
        ) {
            let mut budget = Budget::default();
            let (mut now, mut spent, mut longest) = (0, 0, 0);
            for (pause, took) in asks {
                now += pause;
                if budget.may_begin(now) {
                    now += took;
                    budget.spend(now, took);
                    spent += took;
                    longest = longest.max(took);
                }
                prop_assert!(spent <= now / 100 + 1 + SAVED_US_MAX + longest);
            }
        }
    }

    #[test]
    fn a_checker_has_a_third_of_it() {
        let mut budget = Budget::of_checker();
        assert!(budget.is_whole(0));
        // Without end, an hour long, always for a second.
        let spent = (0..3_600).filter(|second| {
            let now = second * 1_000_000;
            let may = budget.may_begin(now);
            budget.spend(now, if may { 1_000_000 } else { 0 });
            may
        });
        assert_eq!(spent.count(), 17);
        assert!(!budget.is_whole(3_600_000_000));
        assert!(budget.is_whole(5_200_000_000));
    }

    #[test]
    fn what_was_spent_comes_back_with_time() {
        let mut budget = Budget::default();
        assert!(budget.may_begin(0));
        budget.spend(0, 6_000_000);
        assert!(!budget.may_begin(99_000_000));
        assert!(!budget.may_begin(50_000_000));
        assert!(budget.may_begin(101_000_000));
    }
}
