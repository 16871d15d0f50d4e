//! When an epoch is, and how it is divided into periods: what checkers, indexers and settlement go by.

/// How many periods an epoch of a day has.
const PERIODS: u64 = 24;
/// A period is no shorter.
const PERIOD_SECONDS_MIN: u64 = 60;
/// A statement may come so long after its epoch at least, in seconds.
const CLOSING_SECONDS_MIN: u64 = 120;

/// When an epoch is, and how it is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first second since 1970.
    pub start: u64,
    /// How many seconds it lasts.
    pub seconds: u64,
    /// Its periods.
    pub periods: u8,
    /// The seconds of a period.
    pub period_seconds: u16,
}

impl Span {
    /// An epoch of so many seconds: 24 periods, or fewer of at least a minute.
    pub fn of(epoch: u64, epoch_seconds: u64) -> Self {
        let seconds = epoch_seconds.max(1);
        let periods = (seconds / PERIOD_SECONDS_MIN).clamp(1, PERIODS);
        Self {
            start: epoch.saturating_mul(seconds),
            seconds,
            periods: u8::try_from(periods).unwrap_or(1),
            period_seconds: u16::try_from(seconds / periods).unwrap_or(u16::MAX),
        }
    }

    /// The first second after it.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.seconds)
    }

    /// When its evidence closes: one period after its end, at least two minutes.
    pub const fn closes(&self) -> u64 {
        let period = self.period_seconds as u64;
        let wait = if period < CLOSING_SECONDS_MIN { CLOSING_SECONDS_MIN } else { period };
        self.end().saturating_add(wait)
    }

    /// The period in which a minute begins, if that is in this epoch.
    pub fn period_of(&self, minute: u64) -> Option<u8> {
        let second = minute.checked_mul(60)?.checked_sub(self.start)?;
        let period = (second / u64::from(self.period_seconds.max(1))).min(self.last_period());
        (second < self.seconds).then(|| u8::try_from(period).unwrap_or(u8::MAX))
    }

    /// Whether a minute is the last one that begins in its period: then those stand in who are
    /// publicly named for it.
    pub fn is_last_minute(&self, minute: u64) -> bool {
        let period = self.period_of(minute);
        period.is_some() && self.period_of(minute.saturating_add(1)) != period
    }

    /// The number of the last period.
    fn last_period(&self) -> u64 {
        u64::from(self.periods.saturating_sub(1))
    }

    /// The milliseconds of a period.
    pub fn bounds(&self, period: u8) -> (u64, u64) {
        let start = |number: u64| {
            let seconds = number.saturating_mul(u64::from(self.period_seconds));
            self.start.saturating_add(seconds).saturating_mul(1_000)
        };
        let from = start(u64::from(period));
        let is_last = u64::from(period) == self.last_period();
        let to =
            if is_last { self.end().saturating_mul(1_000) } else { start(u64::from(period) + 1) };
        (from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_any_length_are_divided() {
        let day = Span::of(20_000, 86_400);
        assert_eq!((day.periods, day.period_seconds, day.closes() - day.end()), (24, 3_600, 3_600));
        let minute = Span::of(7, 60);
        assert_eq!((minute.periods, minute.period_seconds), (1, 60));
        assert_eq!(minute.closes() - minute.end(), 120);
        assert_eq!(minute.period_of(7), Some(0));
        assert_eq!(minute.period_of(8), None);
        assert_eq!(Span::of(u64::MAX, 0).period_of(u64::MAX), None);
        assert_eq!(Span::of(0, u64::MAX).periods, 24);
    }

    #[test]
    fn every_period_has_one_last_minute() {
        for seconds in [60, 120, 180, 7_200, 86_400] {
            let span = Span::of(1_000, seconds);
            let minutes = span.start / 60..span.end() / 60;
            let last: Vec<_> = minutes.filter(|minute| span.is_last_minute(*minute)).collect();
            assert_eq!(last.len(), usize::from(span.periods), "{seconds}");
        }
        assert!(!Span::of(1_000, 60).is_last_minute(1_001));
    }
}
