//! What running seconds cost, and how much of it nothing covers.

use welkin_types::{Price, UnixMillis, Usd};

/// Counts the time in `running` over any number of intervals.
///
/// Rounds once: the total of milliseconds up to whole seconds, and their cost down.
///
/// ```
/// use welkin_ledger::Meter;
/// use welkin_types::{Price, UnixMillis, Usd};
/// let mut meter = Meter::new(Price::per_hour(Usd::from_micros(3_600_000)));
/// meter.start(UnixMillis(1_000));
/// meter.stop(UnixMillis(1_400));
/// meter.start(UnixMillis(9_000));
/// assert_eq!(meter.seconds(UnixMillis(9_600)), 1);
/// assert_eq!(meter.owed(UnixMillis(9_601)), Usd::from_micros(2_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    price: Price,
    /// Milliseconds in ended intervals.
    ended_ms: u64,
    /// When the present interval began.
    started: Option<UnixMillis>,
}

impl Meter {
    /// A meter that has not run.
    pub const fn new(price: Price) -> Self {
        Self::restored(price, 0)
    }

    /// A stopped meter that has run before.
    pub const fn restored(price: Price, ran_ms: u64) -> Self {
        Self { price, ended_ms: ran_ms, started: None }
    }

    /// Begins an interval; nothing if one has begun.
    pub fn start(&mut self, now: UnixMillis) {
        self.started.get_or_insert(now);
    }

    /// Ends the interval; nothing if none has begun. A clock that went backwards counts nothing.
    pub fn stop(&mut self, now: UnixMillis) {
        self.ended_ms = self.ran_ms(now);
        self.started = None;
    }

    /// Whether an interval has begun.
    pub const fn is_running(&self) -> bool {
        self.started.is_some()
    }

    /// The price.
    pub const fn price(&self) -> Price {
        self.price
    }

    /// Milliseconds in all intervals.
    pub fn ran_ms(&self, now: UnixMillis) -> u64 {
        let open = self.started.map_or(0, |started| now.0.saturating_sub(started.0));
        self.ended_ms.saturating_add(open)
    }

    /// Whole seconds in all intervals together, a begun one counted.
    pub fn seconds(&self, now: UnixMillis) -> u64 {
        self.ran_ms(now).div_ceil(1_000)
    }

    /// What these seconds cost.
    pub fn owed(&self, now: UnixMillis) -> Usd {
        self.price.cost(self.seconds(now))
    }
}

/// How far work may run ahead of what vouchers cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The most seconds that nothing covers.
    pub bound_seconds: u64,
}

impl Default for Exposure {
    /// Ten seconds.
    fn default() -> Self {
        Self { bound_seconds: 10 }
    }
}

impl Exposure {
    /// The seconds that nothing covers.
    pub const fn uncovered(&self, seconds: u64, covered_seconds: u64) -> u64 {
        seconds.saturating_sub(covered_seconds)
    }

    /// Whether the work must stop.
    pub const fn is_exceeded(&self, seconds: u64, covered_seconds: u64) -> bool {
        self.uncovered(seconds, covered_seconds) > self.bound_seconds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price() -> Price {
        Price::per_hour(Usd::from_micros(777_777))
    }

    proptest! {
        /// However the time is cut up, the seconds are those of the total.
        #[test]
        fn intervals_add_up_before_rounding(cuts in prop::collection::vec((0..5_000_u64, 0..5_000_u64), 0..50)) {
            let mut meter = Meter::new(price());
            let (mut now, mut ran) = (0, 0);
            for (run, pause) in cuts {
                let before = meter.seconds(UnixMillis(now));
                meter.start(UnixMillis(now));
                meter.start(UnixMillis(now + 1));
                now += run;
                ran += run;
                meter.stop(UnixMillis(now));
                meter.stop(UnixMillis(now + 9));
                now += pause;
                prop_assert!(meter.seconds(UnixMillis(now)) >= before);
            }
            prop_assert_eq!(meter.seconds(UnixMillis(now)), ran.div_ceil(1_000));
            prop_assert_eq!(meter.owed(UnixMillis(now)), price().cost(ran.div_ceil(1_000)));
            let restored = Meter::restored(price(), meter.ran_ms(UnixMillis(now)));
            prop_assert_eq!(restored, meter);
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_counts_nothing() {
        let mut meter = Meter::new(price());
        meter.start(UnixMillis(5_000));
        meter.stop(UnixMillis(1));
        assert_eq!(meter.seconds(UnixMillis(u64::MAX)), 0);
        meter.start(UnixMillis(0));
        assert_eq!(meter.owed(UnixMillis(u64::MAX)), Usd::MAX);
    }

    #[test]
    fn exposure_stops_above_the_bound() {
        let exposure = Exposure::default();
        assert!(!exposure.is_exceeded(20, 10));
        assert!(exposure.is_exceeded(21, 10));
        assert_eq!(exposure.uncovered(5, 10), 0);
    }
}
