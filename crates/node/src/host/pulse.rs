//! When a host beats, and how it finds out that its datagrams do not arrive. Pure: time comes in.
//!
//! A beat goes out every period, give or take a fifth, and at once on a change. Every sixth asks to be
//! acknowledged, and each that tells of a change does; what asks is repeated after 100, 200 and 400 ms
//! until it is answered. Three such rounds without an answer (one, where there never was any) mean
//! that datagrams do not pass: then beats are framed, over the stream, and now and then a datagram
//! tries whether the way is open again.

/// Beats from one that asks to the next.
const ASK_EVERY: u8 = 6;
/// The pauses before what asks is sent again, and until it counts as unanswered.
const REPEAT_MS: [u64; 4] = [100, 200, 400, 800];
/// Rounds without an answer until datagrams count as lost, where some were answered before.
const UNANSWERED_MAX: u8 = 3;
/// Changes that follow each other closer than this are told together.
const APART_MS: u64 = 20;

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fire {
    /// Nothing.
    Rest,
    /// Beat for every container.
    Beat {
        /// As a datagram. A framed beat that also asks goes out both ways.
        is_datagram: bool,
        /// Over the stream.
        is_framed: bool,
        /// An answer is wanted.
        asks: bool,
    },
    /// Beat again for those that are not answered yet.
    Repeat,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    period_ms: u64,
    /// When the next beat is due.
    regular: u64,
    /// Of the round under way: how often it was repeated, and when that is due again.
    round: Option<(usize, u64)>,
    last: u64,
    has_changed: bool,
    unasked: u8,
    unanswered: u8,
    is_proven: bool,
    is_framed: bool,
}

impl Pulse {
    /// Beats at once; whether datagrams arrive is not known yet. Where there is no address for them
    /// beats are framed.
    pub(super) const fn new(now: u64, period_ms: u64, has_address: bool) -> Self {
        Self {
            period_ms,
            regular: now,
            round: None,
            last: 0,
            has_changed: true,
            unasked: 0,
            unanswered: 0,
            is_proven: false,
            is_framed: !has_address,
        }
    }

    /// Something is other than the last beat said.
    pub(super) fn changed(&mut self, now: u64) {
        self.has_changed = true;
        self.regular = self.regular.min(now.max(self.last + APART_MS));
    }

    /// When [`Self::fire`] is to be called.
    pub(super) fn next(&self) -> u64 {
        self.round.map_or(self.regular, |(_, at)| at.min(self.regular))
    }

    /// Says what is due; `jitter` is of 0 to 1000.
    pub(super) fn fire(&mut self, now: u64, jitter: u64) -> Fire {
        if now >= self.regular {
            return self.beat(now, jitter);
        }
        let Some((count, at)) = self.round.filter(|(_, at)| now >= *at) else { return Fire::Rest };
        if let Some(pause) = REPEAT_MS.get(count + 1) {
            self.round = Some((count + 1, at.max(now) + pause));
            return Fire::Repeat;
        }
        self.round = None;
        self.unanswered = self.unanswered.saturating_add(1);
        let most = if self.is_proven { UNANSWERED_MAX } else { 1 };
        if self.unanswered >= most && !self.is_framed {
            self.is_framed = true;
            // What went nowhere is said over the stream at once.
            self.regular = now;
        }
        Fire::Rest
    }

    fn beat(&mut self, now: u64, jitter: u64) -> Fire {
        let is_sixth = self.unasked + 1 >= ASK_EVERY;
        let asks = is_sixth || (!self.is_framed && (self.has_changed || self.unanswered > 0));
        self.unasked = if asks { 0 } else { self.unasked + 1 };
        if asks && !self.is_framed {
            self.round = Some((0, now + REPEAT_MS[0]));
        }
        self.has_changed = false;
        self.last = now;
        self.regular = now + self.period_ms * (800 + jitter.min(1_000) * 2 / 5) / 1_000;
        Fire::Beat { is_datagram: asks || !self.is_framed, is_framed: self.is_framed, asks }
    }

    /// All that asked was answered.
    pub(super) const fn answered(&mut self) {
        self.round = None;
        self.unanswered = 0;
        self.is_proven = true;
        self.is_framed = false;
    }

    /// Whether beats go over the stream.
    pub(super) const fn is_framed(&self) -> bool {
        self.is_framed
    }

    /// Whether datagrams are known to arrive.
    pub(super) const fn is_proven(&self) -> bool {
        self.is_proven && !self.is_framed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 10_000;

    /// Runs to a time; tells what was done when, and answers those rounds that `answers` says.
    fn run(pulse: &mut Pulse, until: u64, answers: impl Fn(u64) -> bool) -> Vec<(u64, Fire)> {
        let mut done = Vec::new();
        while pulse.next() <= until {
            let now = pulse.next();
            let fire = pulse.fire(now, now * 7_919 % 1_001);
            let asks = matches!(fire, Fire::Beat { asks: true, is_datagram: true, .. });
            if (asks || fire == Fire::Repeat) && answers(now) {
                pulse.answered();
            }
            done.push((now, fire));
        }
        done
    }

    fn beats(done: &[(u64, Fire)]) -> Vec<u64> {
        let is_beat = |(_, fire): &&(u64, Fire)| matches!(fire, Fire::Beat { .. });
        done.iter().filter(is_beat).map(|(at, _)| *at).collect()
    }

    #[test]
    fn every_sixth_beat_asks_and_all_vary_by_a_fifth() {
        let mut pulse = Pulse::new(0, PERIOD, true);
        let done = run(&mut pulse, 600_000, |_| true);
        let asked = done.iter().filter(|(_, fire)| matches!(fire, Fire::Beat { asks: true, .. }));
        let (asked, beats) = (asked.count(), beats(&done));
        assert_eq!(asked, beats.len().div_ceil(6));
        let apart: Vec<_> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|apart| (8_000..=12_000).contains(apart)), "{apart:?}");
        assert!(
            apart.iter().any(|apart| *apart < 9_000) && apart.iter().any(|apart| *apart > 11_000)
        );
        assert!(pulse.is_proven());
    }

    #[test]
    fn a_change_is_told_at_once_and_repeated_until_answered() {
        let mut pulse = Pulse::new(0, PERIOD, true);
        run(&mut pulse, 1_000, |_| true);
        pulse.changed(1_000);
        let done = run(&mut pulse, 3_000, |now| now >= 1_700);
        let beat = Fire::Beat { is_datagram: true, is_framed: false, asks: true };
        let repeats =
            [(1_000, beat), (1_100, Fire::Repeat), (1_300, Fire::Repeat), (1_700, Fire::Repeat)];
        assert_eq!(done, repeats);
    }

    #[test]
    fn a_flapping_state_is_told_fifty_times_a_second_at_most() {
        let mut pulse = Pulse::new(0, PERIOD, true);
        let mut count = 0;
        for now in 0..1_000 {
            pulse.changed(now);
            count += usize::from(matches!(pulse.fire(now, 0), Fire::Beat { .. }));
        }
        assert!(count <= 51, "{count}");
    }

    #[test]
    fn where_datagrams_never_pass_beats_are_framed_within_two_seconds() {
        let mut pulse = Pulse::new(0, PERIOD, true);
        let done = run(&mut pulse, 200_000, |_| false);
        let framed =
            done.iter().find(|(_, fire)| matches!(fire, Fire::Beat { is_framed: true, .. }));
        assert!(framed.is_some_and(|(at, _)| *at <= 2_000), "{done:?}");
        // Now and then a datagram tries, and none is repeated in vain.
        let tried = done.iter().filter(|(at, fire)| {
            *at > 2_000 && matches!(fire, Fire::Beat { is_datagram: true, .. })
        });
        assert!((2..=5).contains(&tried.count()), "{done:?}");
        assert!(!done.iter().any(|(at, fire)| *at > 2_000 && *fire == Fire::Repeat));
        let framed_before = pulse.is_framed();
        run(&mut pulse, 300_000, |_| true);
        assert!(framed_before && pulse.is_proven(), "it returns to datagrams once one is answered");
    }

    #[test]
    fn a_blip_changes_nothing_and_a_lasting_silence_does() {
        let mut pulse = Pulse::new(0, PERIOD, true);
        let blip = |now| !(100_000..125_000).contains(&now);
        run(&mut pulse, 300_000, blip);
        assert!(pulse.is_proven());
        run(&mut pulse, 450_000, |_| false);
        assert!(pulse.is_framed());
    }

    #[test]
    fn without_an_address_nothing_is_sent_as_a_datagram_but_tries() {
        let mut pulse = Pulse::new(0, PERIOD, false);
        let first = pulse.fire(0, 0);
        assert_eq!(first, Fire::Beat { is_datagram: false, is_framed: true, asks: false });
    }
}
