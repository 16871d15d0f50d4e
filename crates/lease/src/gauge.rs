//! What one side sees of a session, minute by minute.

use std::time::Duration;

use welkin_proto::digest::{Figures, MinuteDigest, RoundTrip};
use welkin_types::UnixMillis;

use crate::figures::Reports;

const MINUTE_MS: u64 = 60_000;

/// What a connection has come to when the other side was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The round trip at that moment, in microseconds.
    pub rtt_us: Option<u32>,
    /// Packets sent since the connection was made, and lost of them.
    pub packets: Option<(u64, u64)>,
}

/// What the work's processors have come to since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Processor time in microseconds.
    pub used_us: u64,
    /// Time for which the limit of its control group held it back, in microseconds.
    pub throttled_us: u64,
    /// Time in which it waited for a processor, in microseconds.
    pub waited_us: u64,
}

/// Counts one session's minutes from when its command began to run.
///
/// Time counts as answered up to each moment when the other side was heard, unless that was silent for
/// longer than [`Self::SILENCE_MAX`] before: then none of the silence does. Minutes come out of
/// [`Self::take`] once they are over and the other side was heard again. Invariant: a minute has at most
/// 60 seconds watched, and no more answered than watched.
#[derive(Debug)]
pub struct Gauge {
    began: UnixMillis,
    /// Thousandths of a core that were bought; 0 where that is not known.
    cpu_milli: u32,
    at: UnixMillis,
    minute: u64,
    watched_ms: u64,
    answered_ms: u64,
    rtts_us: Vec<u32>,
    /// Packets sent and lost in this minute.
    packets: (u64, u64),
    /// The last reading of the connection's counters.
    counted: (u64, u64),
    /// When work was last read, what it was then, and both where the present minute began.
    worked: Option<(UnixMillis, Worked)>,
    worked_before: Option<(UnixMillis, Worked)>,
    reports: Reports,
    done: Vec<MinuteDigest>,
}

impl Gauge {
    /// Who says nothing for longer does not answer.
    pub const SILENCE_MAX: Duration = Duration::from_secs(6);
    /// The most round trips that are kept of a minute.
    const RTTS_MAX: usize = 64;
    /// The most minutes that wait to be taken.
    const DONE_MAX: usize = 1_024;

    /// Begins to look at `now` at a session that began to run at `began`; `cpu_milli` was bought.
    pub fn new(began: UnixMillis, now: UnixMillis, cpu_milli: u32) -> Self {
        let at = UnixMillis(now.0.max(began.0));
        Self {
            began,
            cpu_milli,
            at,
            minute: (at.0 - began.0) / MINUTE_MS,
            watched_ms: 0,
            answered_ms: 0,
            rtts_us: Vec::new(),
            packets: (0, 0),
            counted: (0, 0),
            worked: None,
            worked_before: None,
            reports: Reports::default(),
            done: Vec::new(),
        }
    }

    /// When the command began to run.
    pub const fn began(&self) -> UnixMillis {
        self.began
    }

    /// The other side was heard.
    pub fn heard(&mut self, now: UnixMillis, heard: Heard) {
        self.pass(now);
        if let Some(rtt_us) = heard.rtt_us.filter(|_| self.rtts_us.len() < Self::RTTS_MAX) {
            self.rtts_us.push(rtt_us);
        }
        if let Some((sent, lost)) = heard.packets {
            // A new connection counts from nothing.
            let (sent_before, lost_before) =
                if sent < self.counted.0 { (0, 0) } else { self.counted };
            self.packets.0 += sent - sent_before;
            self.packets.1 += lost.saturating_sub(lost_before);
            self.counted = (sent, lost);
        }
    }

    /// What its processors have come to. Two readings within a minute make a figure.
    pub fn worked(&mut self, now: UnixMillis, worked: Worked) {
        self.worked = Some((now, worked));
        self.worked_before.get_or_insert((now, worked));
    }

    /// What whoever uses it says of how well it serves, for the present minute.
    pub fn reported(&mut self, figures: Figures) {
        self.reports.add(figures);
    }

    /// The command has ended: the last minute is over.
    pub fn end(&mut self, now: UnixMillis) {
        self.pass(now);
        self.close();
        self.at = UnixMillis(u64::MAX);
    }

    /// The minutes that are over, the oldest first, each once.
    pub fn take(&mut self) -> Vec<MinuteDigest> {
        std::mem::take(&mut self.done)
    }

    fn pass(&mut self, now: UnixMillis) {
        let is_answered = now.since(self.at) <= Self::SILENCE_MAX;
        while self.at < now {
            let minute_end = self.began.0.saturating_add((self.minute + 1) * MINUTE_MS);
            let until = minute_end.min(now.0);
            let passed = until.saturating_sub(self.at.0);
            self.watched_ms += passed;
            self.answered_ms += if is_answered { passed } else { 0 };
            self.at = UnixMillis(until);
            if until == minute_end {
                self.close();
                // A machine that slept for days does not count every minute of them.
                let behind = now.0.saturating_sub(until) / MINUTE_MS;
                let skipped = behind.saturating_sub(u64::try_from(Self::DONE_MAX).unwrap_or(0));
                self.minute += 1 + skipped;
                self.at = UnixMillis(until + skipped * MINUTE_MS);
            }
        }
    }

    fn close(&mut self) {
        let seconds = |ms: u64| u8::try_from(ms.div_ceil(1_000).min(60)).unwrap_or(60);
        let watched = seconds(self.watched_ms);
        // A begun second counts as watched; as answered only if all of it was.
        let silent = seconds(self.watched_ms - self.answered_ms);
        let loss = match self.packets {
            (0, _) => None,
            (sent, lost) => u16::try_from(lost.min(sent) * 10_000 / sent).ok(),
        };
        let digest = MinuteDigest {
            minute: u32::try_from(self.minute).unwrap_or(u32::MAX),
            watched,
            answered: watched.saturating_sub(silent),
            round_trip: self.round_trip(),
            loss,
            figures: match self.reports.take() {
                Figures::None => self.figures(),
                reported => reported,
            },
        };
        if digest.watched > 0 && self.done.len() < Self::DONE_MAX {
            self.done.push(digest);
        }
        (self.watched_ms, self.answered_ms, self.packets) = (0, 0, (0, 0));
        self.rtts_us.clear();
        self.worked_before = self.worked;
    }

    fn round_trip(&mut self) -> Option<RoundTrip> {
        self.rtts_us.sort_unstable();
        let median_us = *self.rtts_us.get(self.rtts_us.len().checked_sub(1)? / 2)?;
        Some(RoundTrip { min_us: *self.rtts_us.first()?, median_us })
    }

    /// Only what was bought and not had counts: a command that its limit holds back while it uses all
    /// that was bought lacks nothing.
    fn figures(&self) -> Figures {
        let (Some((from, before)), Some((to, after))) = (self.worked_before, self.worked) else {
            return Figures::None;
        };
        let elapsed_us = to.0.saturating_sub(from.0) * 1_000;
        let bought_us = elapsed_us * u64::from(self.cpu_milli) / 1_000;
        if elapsed_us == 0 || bought_us == 0 {
            return Figures::None;
        }
        let used_us = after.used_us.saturating_sub(before.used_us);
        let lacking = bought_us.saturating_sub(used_us) * 1_000 / bought_us;
        let share = |part_us: u64| {
            let milli = part_us.saturating_mul(1_000) / elapsed_us;
            u16::try_from(milli.min(lacking)).ok()
        };
        Figures::Job {
            throttled_milli: share(after.throttled_us.saturating_sub(before.throttled_us)),
            preempted_milli: share(after.waited_us.saturating_sub(before.waited_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGAN: u64 = 1_000_000;

    fn at(ms: u64) -> UnixMillis {
        UnixMillis(BEGAN + ms)
    }

    fn steady(gauge: &mut Gauge, from_ms: u64, to_ms: u64) {
        for ms in (from_ms..=to_ms).step_by(2_000) {
            let packets = Some((ms / 100, ms / 10_000));
            gauge.heard(
                at(ms),
                Heard { rtt_us: Some(1_000 + u32::try_from(ms % 7).unwrap()), packets },
            );
        }
    }

    #[test]
    fn a_steady_session_is_whole_and_a_silence_is_not() {
        let mut gauge = Gauge::new(at(0), at(0), 1_000);
        steady(&mut gauge, 0, 60_000);
        steady(&mut gauge, 75_000, 90_000);
        gauge.end(at(90_500));
        let minutes = gauge.take();
        assert_eq!(minutes.len(), 2);
        assert_eq!((minutes[0].watched, minutes[0].answered), (60, 60));
        assert_eq!(minutes[0].loss, Some(86));
        let round_trip = minutes[0].round_trip.unwrap();
        assert!(round_trip.min_us == 1_000 && round_trip.median_us > 1_000);
        assert_eq!((minutes[1].minute, minutes[1].watched, minutes[1].answered), (1, 31, 16));
        assert_eq!(gauge.take(), []);
    }

    #[test]
    fn what_was_not_watched_is_neither() {
        let mut gauge = Gauge::new(at(0), at(130_000), 0);
        steady(&mut gauge, 132_000, 140_000);
        gauge.end(at(140_000));
        let minutes = gauge.take();
        assert_eq!(minutes.len(), 1);
        assert_eq!((minutes[0].minute, minutes[0].watched, minutes[0].answered), (2, 10, 10));
    }

    #[test]
    fn only_what_was_bought_and_not_had_is_throttled() {
        let figures = |used_us, throttled_us, waited_us| {
            let mut gauge = Gauge::new(at(0), at(0), 2_000);
            gauge.worked(at(0), Worked::default());
            gauge.worked(at(50_000), Worked { used_us, throttled_us, waited_us });
            gauge.end(at(50_000));
            gauge.take()[0].figures
        };
        let job = |throttled_milli, preempted_milli| Figures::Job {
            throttled_milli: Some(throttled_milli),
            preempted_milli: Some(preempted_milli),
        };
        // All that was bought: whatever its limit held back was never bought.
        assert_eq!(figures(100_000_000, 40_000_000, 40_000_000), job(0, 0));
        // Half of it, for that the group was held back and had to wait.
        assert_eq!(figures(50_000_000, 40_000_000, 10_000_000), job(500, 200));
        // It slept.
        assert_eq!(figures(0, 0, 0), job(0, 0));
    }

    #[test]
    fn what_is_reported_stands_in_its_minute_only() {
        let mut gauge = Gauge::new(at(0), at(0), 0);
        steady(&mut gauge, 0, 58_000);
        let report = Figures::Inference {
            first_token_ms: Some(240),
            tokens_milli: Some(950),
            errors_milli: Some(0),
        };
        gauge.reported(report);
        steady(&mut gauge, 60_000, 118_000);
        gauge.end(at(118_000));
        let minutes = gauge.take();
        assert_eq!(minutes.iter().map(|m| m.figures).collect::<Vec<_>>(), [report, Figures::None]);
    }

    proptest! {
        #[test]
        fn every_digest_is_in_bounds_and_time_is_counted_once(
            steps in prop::collection::vec((0..200_000_u64, 0..5_u32), 1..60),
            late in 0..300_000_u64,
        ) {
            let mut gauge = Gauge::new(at(0), at(late), 1_500);
            let (mut now, mut minutes) = (late, Vec::new());
            for (pause, rtt) in steps {
                now += pause;
                gauge.heard(at(now), Heard { rtt_us: Some(rtt), packets: Some((now, now / 3)) });
                gauge.worked(at(now), Worked { used_us: now, throttled_us: now, waited_us: 0 });
                minutes.extend(gauge.take());
            }
            gauge.end(at(now));
            minutes.extend(gauge.take());
            prop_assert!(minutes.windows(2).all(|pair| pair[0].minute < pair[1].minute));
            prop_assert!(minutes.iter().all(|m| m.watched <= 60 && m.answered <= m.watched));
            let watched: u64 = minutes.iter().map(|m| u64::from(m.watched)).sum();
            let count = u64::try_from(minutes.len()).unwrap();
            prop_assert!(watched * 1_000 + 1_000 * count >= now - late);
            prop_assert!(watched * 1_000 <= now - late + 1_000 * count);
        }
    }
}
