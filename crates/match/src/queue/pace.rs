//! How fast those who wait for the same are served: the base of an estimate, and no more.

use std::collections::VecDeque;

use welkin_types::UnixMillis;

/// The most grants that are remembered.
const GRANTS_MAX: usize = 32;
/// Grants before which nothing is estimated.
const GRANTS_MIN: usize = 3;
/// Grants older than this say nothing of now, in milliseconds: two hours.
const AGE_MS_MAX: u64 = 7_200_000;

/// When the latest grants were.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    grants: VecDeque<UnixMillis>,
}

impl Pace {
    pub(super) fn granted(&mut self, now: UnixMillis) {
        self.grants.push_back(now);
        if self.grants.len() > GRANTS_MAX {
            self.grants.pop_front();
        }
    }

    pub(super) fn is_recent(&self, now: UnixMillis) -> bool {
        self.grants.back().is_some_and(|last| now.0.saturating_sub(last.0) <= AGE_MS_MAX)
    }

    /// The wait of one at this position, if it goes on as it went. A pause that is longer than the
    /// mean counts as well: things have become slower.
    pub(super) fn wait_ms(&self, now: UnixMillis, position: u32) -> Option<u64> {
        if self.grants.len() < GRANTS_MIN || !self.is_recent(now) {
            return None;
        }
        let (first, last) = (self.grants.front()?, self.grants.back()?);
        let between = u64::try_from(self.grants.len()).ok()?.saturating_sub(1).max(1);
        let mean = last.0.saturating_sub(first.0) / between;
        let since = now.0.saturating_sub(last.0);
        let mean = mean.max(now.0.saturating_sub(first.0) / (between + 1));
        Some(mean.saturating_mul(u64::from(position)).saturating_sub(since.min(mean)))
    }
}
