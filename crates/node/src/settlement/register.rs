//! The register of checkers: who checks in an epoch, in lists that never change once they are shown.
//!
//! A list is *closed* before it is shown, and so is every seed: the service shows both together.
//!
//! 1. In an epoch check those who registered before it began. Who registers later changes nothing.
//! 2. Where that would be nobody, since the network's first checker came in this very epoch, those
//!    check who registered within the founding time after the first one. Until that has passed the
//!    epoch is not shown.
//! 3. Without any checker the present epoch is not shown; a past one is shown without checkers.
//!
//! Numbers are given in the order of registration and never again. Nobody chooses one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_proto::settle::{CHECKERS_MAX, Listed, SettleRefusal};
use welkin_types::NodeId;

/// What is kept of a checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    number: u32,
    /// When it registered, in milliseconds since 1970.
    since: u64,
    vrf: [u8; 32],
}

/// All checkers. Time never goes backwards here, whatever the clock does.
#[derive(Clone, Debug)]
pub(super) struct Register {
    rows: BTreeMap<NodeId, Row>,
    epoch_ms: u64,
    founding_ms: u64,
    now: u64,
    /// A time that is kept: after a start it is at least as late.
    noted: u64,
}

impl Register {
    /// The register of what was kept, at the earliest at the time of the last [`Self::to_note`].
    pub(super) fn new(
        rows: impl IntoIterator<Item = (NodeId, Row)>,
        epoch_seconds: u64,
        founding: Duration,
        noted: u64,
    ) -> Self {
        let rows: BTreeMap<_, _> = rows.into_iter().collect();
        let now = rows.values().map(|row| row.since).max().unwrap_or(0).max(noted);
        let epoch_ms = epoch_seconds.max(1).saturating_mul(1_000);
        let founding_ms = u64::try_from(founding.as_millis()).unwrap_or(u64::MAX);
        Self { rows, epoch_ms, founding_ms, now, noted }
    }

    /// What is to be kept of a checker before it is taken in with [`Self::insert`]; nothing if it is
    /// known. The key for its draws stays what it was: nobody tries keys when a seed is known.
    pub(super) fn row(
        &mut self,
        node: NodeId,
        vrf: [u8; 32],
        now: u64,
    ) -> Result<Option<Row>, SettleRefusal> {
        self.now = self.now.max(now);
        if let Some(row) = self.rows.get(&node) {
            return if row.vrf == vrf { Ok(None) } else { Err(SettleRefusal::NotAllowed) };
        }
        if self.rows.len() >= CHECKERS_MAX {
            return Err(SettleRefusal::Range);
        }
        let last = self.rows.values().map(|row| row.number).max().unwrap_or(0);
        let number = last.checked_add(1).ok_or(SettleRefusal::Range)?;
        Ok(Some(Row { number, since: self.now, vrf }))
    }

    /// Takes a checker in.
    pub(super) fn insert(&mut self, node: NodeId, row: Row) {
        self.rows.insert(node, row);
    }

    /// Who checks in an epoch, in the order of their keys.
    pub(super) fn list(&mut self, epoch: u64, now: u64) -> Result<Vec<Listed>, SettleRefusal> {
        self.now = self.now.max(now);
        let present = self.now / self.epoch_ms;
        if epoch > present {
            return Err(SettleRefusal::NotYet);
        }
        let Some((first, founded)) = self.founded() else {
            return if epoch < present { Ok(Vec::new()) } else { Err(SettleRefusal::NotYet) };
        };
        let is_founded = epoch >= first / self.epoch_ms;
        if is_founded && self.now <= founded {
            return Err(SettleRefusal::NotYet);
        }
        let is_in =
            |row: &Row| row.since / self.epoch_ms < epoch || (is_founded && row.since <= founded);
        let rows = self.rows.iter().filter(|(_, row)| is_in(row));
        Ok(rows
            .map(|(node, row)| Listed { node: *node, number: row.number, vrf: row.vrf })
            .collect())
    }

    /// When the first one came, and until when others were founders with it.
    fn founded(&self) -> Option<(u64, u64)> {
        let first = self.rows.values().map(|row| row.since).min()?;
        Some((first, first.saturating_add(self.founding_ms)))
    }

    /// The time to keep before a list is shown, if what is kept is too old: else a clock that is set back
    /// between two starts would bring somebody into a list that was shown.
    pub(super) fn to_note(&self) -> Option<u64> {
        let founded = self.founded().map_or(u64::MAX, |(_, founded)| founded);
        let is_newer = self.now / self.epoch_ms > self.noted / self.epoch_ms
            || (self.noted <= founded && self.now > founded);
        is_newer.then_some(self.now)
    }

    /// That time is kept.
    pub(super) const fn note(&mut self, at: u64) {
        self.noted = at;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const EPOCH_SECONDS: u64 = 60;
    const FOUNDING: Duration = Duration::from_secs(5);

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn empty() -> Register {
        Register::new([], EPOCH_SECONDS, FOUNDING, 0)
    }

    fn register(register: &mut Register, number: u8, now: u64) {
        if let Some(row) = register.row(node(number), [number; 32], now).unwrap() {
            register.insert(node(number), row);
        }
    }

    fn numbers(list: Result<Vec<Listed>, SettleRefusal>) -> Vec<u32> {
        list.unwrap().iter().map(|listed| listed.number).collect()
    }

    #[test]
    fn the_first_epoch_is_its_founders_and_later_ones_whose_came_before() {
        let mut all = empty();
        let start = 100 * 60_000;
        assert_eq!(all.list(100, start), Err(SettleRefusal::NotYet));
        assert_eq!(all.list(101, start), Err(SettleRefusal::NotYet));
        assert!(numbers(all.list(99, start)).is_empty());
        register(&mut all, 9, start + 10_000);
        register(&mut all, 1, start + 15_000);
        assert_eq!(all.list(100, start + 15_000), Err(SettleRefusal::NotYet));
        assert!(numbers(all.list(99, start + 15_000)).is_empty());
        // By their keys; their numbers follow the order in which they came.
        assert_eq!(numbers(all.list(100, start + 15_001)), [2, 1]);
        register(&mut all, 5, start + 15_001);
        register(&mut all, 1, start + 15_001);
        assert_eq!(numbers(all.list(100, start + 59_999)), [2, 1]);
        assert_eq!(numbers(all.list(101, start + 60_000)), [2, 3, 1]);
        // A clock that is set back does not bring anybody into a list that was shown.
        register(&mut all, 7, start);
        assert_eq!(numbers(all.list(101, start)), [2, 3, 1]);
        assert_eq!(numbers(all.list(100, start)), [2, 1]);
        // Nor another key for its draws.
        assert_eq!(all.row(node(9), [8; 32], start), Err(SettleRefusal::NotAllowed));
        assert_eq!(all.list(100, start).unwrap()[1].vrf, [9; 32]);
    }

    proptest! {
        /// Whatever comes when: what was shown of an epoch is shown of it for ever, also by a
        /// service that was started again under a clock that was set back, and nobody has another's
        /// number.
        #[test]
        fn a_list_that_was_shown_never_changes(
            steps in prop::collection::vec((0..20_000_u64, 0..40_u8, 0..4_u64, any::<bool>()), 1..80),
        ) {
            let (mut all, mut now) = (empty(), 50 * 60_000);
            let mut shown: BTreeMap<u64, Vec<Listed>> = BTreeMap::new();
            let mut noted = 0;
            for (wait, number, back, is_restarted) in steps {
                now += wait;
                if is_restarted {
                    all = Register::new(all.rows, EPOCH_SECONDS, FOUNDING, noted);
                    now -= 4 * wait;
                }
                if number < 20 {
                    register(&mut all, number, now);
                }
                let epoch = now / 60_000 - back.min(now / 60_000);
                if let Ok(list) = all.list(epoch, now) {
                    if let Some(at) = all.to_note() {
                        all.note(at);
                        noted = at;
                    }
                    prop_assert_eq!(shown.entry(epoch).or_insert_with(|| list.clone()), &list);
                }
                let next = all.list(all.now / 60_000 + 1, now);
                prop_assert_eq!(next, Err(SettleRefusal::NotYet));
            }
            for (epoch, list) in shown {
                prop_assert_eq!(all.list(epoch, now).unwrap(), list);
            }
            let distinct: BTreeSet<_> = all.rows.values().map(|row| row.number).collect();
            prop_assert_eq!(distinct.len(), all.rows.len());
        }
    }
}
