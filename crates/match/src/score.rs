//! How often checks found a container online, over the last day.
//!
//! A checker counts once a minute. Minutes that are alike are kept as one run, so that a day takes
//! at most [`WINDOW_MINUTES`] entries of 8 bytes and mostly a few.

use std::collections::VecDeque;

use welkin_proto::check::{Finding, Report};
use welkin_types::{NodeId, UnixMillis};

/// How many minutes count: a day.
pub const WINDOW_MINUTES: u64 = 24 * 60;
/// How many minutes a report may come late: until the end of the next one. What is later is void.
pub const LATE_MINUTES_MAX: u64 = 1;
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
///
/// Minutes with the same numbers are one run: a container that is always there takes a few bytes
/// for its whole day.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    /// In order of time, those that take no more reports.
    runs: VecDeque<Run>,
    /// In order of time, behind all runs.
    open: Vec<Run>,
    /// Sums over all entries.
    online: u32,
    checks: u32,
    /// Who has reported on the minutes that still take reports.
    recent: Vec<(u64, NodeId)>,
}

/// Minutes that follow each other, with the same numbers of checks each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first minute since 1970.
    pub(crate) from: u32,
    /// How many minutes.
    pub(crate) len: u16,
    pub(crate) online: u8,
    pub(crate) checks: u8,
}

impl Run {
    const fn end(&self) -> u64 {
        self.from as u64 + self.len as u64
    }

    /// How many of its minutes are no longer counted.
    fn over(&self, now: UnixMillis) -> u16 {
        let over = (minute_of(now) + 1).saturating_sub(u64::from(self.from) + WINDOW_MINUTES);
        u16::try_from(over).unwrap_or(u16::MAX).min(self.len)
    }

    fn sums(&self, minutes: u16) -> (u32, u32) {
        let times = |count: u8| u32::from(count) * u32::from(minutes);
        (times(self.online), times(self.checks))
    }
}

impl Score {
    /// Counts a report.
    pub(crate) fn add(&mut self, now: UnixMillis, report: &Report) -> Result<(), ReportRefusal> {
        let to = minute_of(now).saturating_add(1);
        let from = minute_of(now).saturating_sub(LATE_MINUTES_MAX);
        let from = from.max(self.runs.back().map_or(0, Run::end));
        let minute = report.minute;
        let time = ReportRefusal::Time { minute, from, to };
        let Ok(number) = u32::try_from(minute) else { return Err(time) };
        if !(from..=to).contains(&minute) {
            return Err(time);
        }
        self.prune(now);
        self.close(from);
        self.recent.retain(|(minute, _)| *minute >= from);
        if self.recent.contains(&(minute, report.checker)) {
            return Err(ReportRefusal::Repeated);
        }
        let is_online = matches!(report.finding, Finding::Online { .. });
        let place = self.open.partition_point(|entry| entry.from < number);
        if self.open.get(place).is_none_or(|entry| entry.from != number) {
            self.open.insert(place, Run { from: number, len: 1, online: 0, checks: 0 });
        }
        let Some(entry) = self.open.get_mut(place) else { return Ok(()) };
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

    /// Minutes before this take no more reports.
    fn close(&mut self, from: u64) {
        let closed = self.open.partition_point(|entry| u64::from(entry.from) < from);
        for entry in self.open.drain(..closed) {
            match self.runs.back_mut() {
                Some(last)
                    if last.end() == u64::from(entry.from)
                        && (last.online, last.checks) == (entry.online, entry.checks)
                        && last.len < u16::MAX =>
                {
                    last.len += 1;
                }
                _ => self.runs.push_back(entry),
            }
        }
    }

    /// Forgets what is older than the window.
    pub(crate) fn prune(&mut self, now: UnixMillis) {
        while let Some(first) = self.runs.front_mut() {
            let over = first.over(now);
            let (online, checks) = first.sums(over);
            (self.online, self.checks) = (self.online - online, self.checks - checks);
            first.from += u32::from(over);
            first.len -= over;
            if first.len > 0 {
                break;
            }
            self.runs.pop_front();
        }
        while let Some(first) = self.open.first().filter(|first| first.over(now) > 0) {
            let (online, checks) = first.sums(1);
            (self.online, self.checks) = (self.online - online, self.checks - checks);
            self.open.remove(0);
        }
    }

    /// When the window next loses a check.
    pub(crate) fn next_change(&self) -> Option<UnixMillis> {
        let first = self.entries().next()?;
        Some(UnixMillis((u64::from(first.from) + WINDOW_MINUTES) * 60_000))
    }

    /// Whether no check is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// The share that was online in hundredths of a percent, and the number of checks.
    pub(crate) fn window(&self, now: UnixMillis) -> (Option<u16>, u32) {
        let (mut online, mut checks) = (self.online, self.checks);
        for (entry, over) in self.entries().map(|entry| (entry, entry.over(now))) {
            if over == 0 {
                break;
            }
            let sums = entry.sums(over);
            (online, checks) = (online - sums.0, checks - sums.1);
        }
        let share = (u64::from(online) * 10_000).checked_div(u64::from(checks));
        (share.and_then(|share| u16::try_from(share).ok()), checks)
    }

    /// What is counted, in order of time.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().chain(&self.open)
    }

    /// A score from its entries; none where they are not in order or count what can't be.
    pub(crate) fn from_entries(entries: &[Run]) -> Option<Self> {
        let is_sound = |run: &Run| {
            run.len > 0
                && u64::from(run.len) <= WINDOW_MINUTES + LATE_MINUTES_MAX + 2
                && run.online <= run.checks
                && (1..=CHECKS_PER_MINUTE_MAX).contains(&run.checks)
        };
        let is_ordered = entries.windows(2).all(|two| two[0].end() <= u64::from(two[1].from));
        let minutes: u64 = entries.iter().map(|run| u64::from(run.len)).sum();
        if !entries.iter().all(is_sound) || !is_ordered || minutes > 2 * WINDOW_MINUTES {
            return None;
        }
        let (mut online, mut checks) = (0, 0);
        for sums in entries.iter().map(|run| run.sums(run.len)) {
            (online, checks) = (online + sums.0, checks + sums.1);
        }
        let runs = entries.iter().copied().collect();
        Some(Self { runs, open: Vec::new(), online, checks, recent: Vec::new() })
    }
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
            turn: None,
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
        assert!(score.entries().count() < 10, "{score:?}");
        let entries: Vec<_> = score.entries().copied().collect();
        let again = Score::from_entries(&entries).unwrap();
        assert_eq!(again.window(at(13_100)), score.window(at(13_100)));
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
        assert_eq!(score.add(at(101), &report(1, 100, false)), Err(ReportRefusal::Repeated));
        let late = ReportRefusal::Time { minute: 100, from: 101, to: 103 };
        assert_eq!(score.add(at(102), &report(2, 100, false)), Err(late));
        assert!(score.add(at(100), &report(2, 102, false)).is_err());
        assert!(score.add(at(0), &report(2, u64::MAX, false)).is_err());
        score.add(at(100), &report(2, 99, false)).unwrap();
        assert_eq!(score.window(at(101)), (Some(5_000), 2));
        for checker in 3..18 {
            score.add(at(100), &report(checker, 100, true)).unwrap();
        }
        assert_eq!(score.add(at(100), &report(99, 100, true)), Err(ReportRefusal::TooMany));
    }
}
