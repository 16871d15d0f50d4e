//! How often checks found a container online, over the last day.
//!
//! One small entry a minute, at most [`WINDOW_MINUTES`] of them; a checker counts once a minute.

use std::collections::VecDeque;

use welkin_proto::check::{Finding, Report};
use welkin_types::{NodeId, UnixMillis};

/// How many minutes count: a day.
pub const WINDOW_MINUTES: u64 = 24 * 60;
/// How many minutes a report may come late.
pub const LATE_MINUTES_MAX: u64 = 2;
/// The most checks of one container in one minute that are counted.
pub const CHECKS_PER_MINUTE_MAX: u8 = 16;

/// Why a report does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportRefusal {
    /// The container is not known.
    #[error("no such container")]
    Unknown,
    /// The minute is over for long, or still to come.
    #[error("minute {minute} is not between {from} and {to}")]
    Time {
        /// The report's minute.
        minute: u64,
        /// The first minute that is taken.
        from: u64,
        /// The last minute that is taken.
        to: u64,
    },
    /// The checker has reported on this minute.
    #[error("the checker has reported on this minute already")]
    Repeated,
    /// More checks than there may be.
    #[error("more than {CHECKS_PER_MINUTE_MAX} checks in one minute")]
    TooMany,
}

/// The minute (since 1970) of a moment.
pub(crate) const fn minute_of(now: UnixMillis) -> u64 {
    now.0 / 60_000
}

/// The checks of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    /// In order of time.
    minutes: VecDeque<Minute>,
    /// Sums over all entries.
    online: u32,
    checks: u32,
    /// Who has reported on the minutes that still take reports.
    recent: Vec<(u64, NodeId)>,
}

#[derive(Clone, Copy, Debug)]
struct Minute {
    minute: u64,
    online: u8,
    checks: u8,
}

impl Score {
    /// Counts a report.
    pub(crate) fn add(&mut self, now: UnixMillis, report: &Report) -> Result<(), ReportRefusal> {
        let to = minute_of(now).saturating_add(1);
        let from = minute_of(now).saturating_sub(LATE_MINUTES_MAX);
        let minute = report.minute;
        if !(from..=to).contains(&minute) {
            return Err(ReportRefusal::Time { minute, from, to });
        }
        self.prune(now);
        self.recent.retain(|(minute, _)| *minute >= from);
        if self.recent.contains(&(minute, report.checker)) {
            return Err(ReportRefusal::Repeated);
        }
        let is_online = matches!(report.finding, Finding::Online { .. });
        let place = self.minutes.partition_point(|entry| entry.minute < minute);
        if self.minutes.get(place).is_none_or(|entry| entry.minute != minute) {
            self.minutes.insert(place, Minute { minute, online: 0, checks: 0 });
        }
        let Some(entry) = self.minutes.get_mut(place) else { return Ok(()) };
        if entry.checks >= CHECKS_PER_MINUTE_MAX {
            return Err(ReportRefusal::TooMany);
        }
        entry.checks += 1;
        entry.online += u8::from(is_online);
        self.checks += 1;
        self.online += u32::from(is_online);
        self.recent.push((minute, report.checker));
        Ok(())
    }

    /// Forgets what is older than the window.
    pub(crate) fn prune(&mut self, now: UnixMillis) {
        while let Some(first) = self.minutes.front().filter(|entry| is_over(entry, now)) {
            self.online -= u32::from(first.online);
            self.checks -= u32::from(first.checks);
            self.minutes.pop_front();
        }
    }

    /// When the window next loses a check.
    pub(crate) fn next_change(&self) -> Option<UnixMillis> {
        let first = self.minutes.front()?;
        Some(UnixMillis(first.minute.saturating_add(WINDOW_MINUTES).saturating_mul(60_000)))
    }

    /// Whether no check is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.minutes.is_empty()
    }

    /// The share that was online in hundredths of a percent, and the number of checks.
    pub(crate) fn window(&self, now: UnixMillis) -> (Option<u16>, u32) {
        let (mut online, mut checks) = (self.online, self.checks);
        for entry in self.minutes.iter().take_while(|entry| is_over(entry, now)) {
            online -= u32::from(entry.online);
            checks -= u32::from(entry.checks);
        }
        let share = (u64::from(online) * 10_000).checked_div(u64::from(checks));
        (share.and_then(|share| u16::try_from(share).ok()), checks)
    }
}

fn is_over(entry: &Minute, now: UnixMillis) -> bool {
    entry.minute.saturating_add(WINDOW_MINUTES) <= minute_of(now)
}

#[cfg(test)]
mod tests {
    use welkin_types::ContainerId;

    use super::*;

    fn report(checker: u8, minute: u64, is_online: bool) -> Report {
        Report {
            checker: NodeId::from_bytes([checker; 32]),
            host: NodeId::from_bytes([0; 32]),
            container: ContainerId::from_bytes([0; 16]),
            minute,
            finding: if is_online { Finding::Online { rtt_us: 1 } } else { Finding::Unreachable },
        }
    }

    fn at(minute: u64) -> UnixMillis {
        UnixMillis(minute * 60_000)
    }

    #[test]
    fn a_day_is_counted_and_no_more() {
        let mut score = Score::default();
        assert_eq!(score.window(at(0)), (None, 0));
        for minute in 10_000..13_000 {
            score.add(at(minute), &report(1, minute, !(11_000..12_000).contains(&minute))).unwrap();
        }
        assert_eq!(score.minutes.len(), 1_440);
        assert_eq!(score.window(at(12_999)), (Some(6_944), 1_440));
        // Without further reports the window moves on by itself.
        assert_eq!(score.window(at(13_439)), (Some(10_000), 1_000));
        assert_eq!(score.window(at(20_000)), (None, 0));
        score.prune(at(20_000));
        assert!(score.is_empty());
    }

    #[test]
    fn repeated_late_and_early_reports_do_not_count() {
        let mut score = Score::default();
        score.add(at(100), &report(1, 100, true)).unwrap();
        assert_eq!(score.add(at(102), &report(1, 100, false)), Err(ReportRefusal::Repeated));
        let late = ReportRefusal::Time { minute: 100, from: 101, to: 104 };
        assert_eq!(score.add(at(103), &report(2, 100, false)), Err(late));
        assert!(score.add(at(100), &report(2, 102, false)).is_err());
        assert!(score.add(at(0), &report(2, u64::MAX, false)).is_err());
        score.add(at(101), &report(2, 99, false)).unwrap();
        assert_eq!(score.window(at(101)), (Some(5_000), 2));
        for checker in 3..18 {
            score.add(at(100), &report(checker, 100, true)).unwrap();
        }
        assert_eq!(score.add(at(100), &report(99, 100, true)), Err(ReportRefusal::TooMany));
    }
}
