//! One session: its key, the last beat, and its rhythm.

use welkin_proto::heartbeat::SessionKey;
use welkin_types::UnixMillis;

use super::leases::Leases;
use super::{
    DEVIATION_MS_MIN, GONE_DEVIATIONS, GONE_PERIODS, NONE, PERIOD_MS, SUSPECT_DEVIATIONS,
    SUSPECT_PERIODS, Standing,
};

const KEYLESS: [u8; 16] = [0; 16];

#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Zeros until the first beat after a load.
    pub(super) key: SessionKey,
    /// Of the last beat.
    pub(super) counter: u64,
    /// When it was last heard.
    pub(super) heard: UnixMillis,
    /// Where the caller has its container.
    pub(super) place: u32,
    pub(super) epoch: u16,
    /// Mean and mean deviation of the times between regular beats, in milliseconds.
    pub(super) mean_ms: u16,
    pub(super) deviation_ms: u16,
    pub(super) leases: Leases,
    /// `None`: the number is nobody's.
    pub(super) standing: Option<Standing>,
}

impl Row {
    pub(super) fn new(now: UnixMillis, epoch: u16, key: SessionKey) -> Self {
        Self {
            key,
            counter: 0,
            heard: now,
            place: NONE,
            epoch,
            mean_ms: clamped(PERIOD_MS),
            deviation_ms: DEVIATION_MS_MIN,
            leases: Leases::UNKNOWN,
            standing: Some(Standing::Alive),
        }
    }

    pub(super) const fn vacant() -> Self {
        Self {
            key: SessionKey::from_bytes(KEYLESS),
            counter: 0,
            heard: UnixMillis(0),
            place: NONE,
            epoch: 0,
            mean_ms: 0,
            deviation_ms: 0,
            leases: Leases::UNKNOWN,
            standing: None,
        }
    }

    pub(super) fn is_keyless(&self) -> bool {
        *self.key.as_bytes() == KEYLESS
    }

    /// Learns the rhythm from a beat. Beats at once on a change come out of it and say nothing
    /// about it, nor does the first one after a silence.
    pub(super) fn learn(&mut self, now: UnixMillis) {
        let apart = now.0.saturating_sub(self.heard.0);
        if self.counter == 0 || !(PERIOD_MS / 2..=PERIOD_MS * 2).contains(&apart) {
            return;
        }
        let off = apart.abs_diff(u64::from(self.mean_ms));
        // Moving averages of 8 beats.
        self.mean_ms = clamped((u64::from(self.mean_ms) * 7 + apart) / 8);
        let deviation = clamped((u64::from(self.deviation_ms) * 7 + off) / 8);
        self.deviation_ms = deviation.max(DEVIATION_MS_MIN);
    }

    /// What its silence alone says.
    pub(super) fn silence(&self, now: UnixMillis) -> Standing {
        let silent = now.0.saturating_sub(self.heard.0);
        if silent <= SUSPECT_PERIODS * PERIOD_MS {
            return Standing::Alive;
        }
        let beyond = silent.saturating_sub(u64::from(self.mean_ms));
        let is_beyond = |deviations: u64, periods: u64| {
            beyond > deviations * u64::from(self.deviation_ms) && silent > periods * PERIOD_MS
        };
        if is_beyond(GONE_DEVIATIONS, GONE_PERIODS) {
            Standing::Gone
        } else if is_beyond(SUSPECT_DEVIATIONS, SUSPECT_PERIODS) {
            Standing::Suspect
        } else {
            Standing::Alive
        }
    }
}

fn clamped(ms: u64) -> u16 {
    u16::try_from(ms).unwrap_or(u16::MAX)
}
