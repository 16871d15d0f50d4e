//! What was found in a minute, until nothing more comes of it: then it is signed once, on one sheet.
//!
//! A signature and a proof have 160 bytes, a visit some 37: by itself each would take 350.

use std::collections::BTreeMap;

use welkin_proto::TurnProof;
use welkin_proto::check::{Finding, Report, Sheet, Visit};
use welkin_types::NodeId;

/// A minute, with what was drawn for it.
type Key = (u64, Option<TurnProof>);
/// What was found, by host and place.
type Found = BTreeMap<(NodeId, u8), Finding>;

/// Sheets that are being written: one for each minute, and one for those that are stood in for.
#[derive(Clone, Debug)]
pub struct Sheets {
    checker: NodeId,
    open: BTreeMap<Key, Found>,
}

impl Sheets {
    /// A checker's, nothing on them yet.
    pub const fn new(checker: NodeId) -> Self {
        Self { checker, open: BTreeMap::new() }
    }

    /// Writes a finding down; the sheet that is full by it. Of a container that stands on it already, or
    /// that is not named after its host, nothing is written.
    pub fn put(&mut self, report: &Report) -> Option<Sheet> {
        let visit = *Sheet::of(report)?.visits.first()?;
        let key = (report.minute, report.turn);
        let visits = self.open.entry(key).or_default();
        visits.entry((visit.host, visit.place)).or_insert(visit.finding);
        if visits.len() < Sheet::VISITS_MAX {
            return None;
        }
        self.open.remove(&key).map(|visits| sheet(self.checker, key, visits))
    }

    /// Those of minutes that are over.
    pub fn take(&mut self, is_over: impl Fn(u64) -> bool) -> Vec<Sheet> {
        let over: Vec<_> =
            self.open.keys().copied().filter(|(minute, _)| is_over(*minute)).collect();
        let taken = over.into_iter().filter_map(|key| Some((key, self.open.remove(&key)?)));
        let checker = self.checker;
        taken.map(|(key, visits)| sheet(checker, key, visits)).collect()
    }
}

fn sheet(checker: NodeId, (minute, turn): Key, visits: Found) -> Sheet {
    let visit = |((host, place), finding)| Visit { host, place, finding };
    Sheet { checker, minute, turn, visits: visits.into_iter().map(visit).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use welkin_proto::container_id;

    use super::*;

    fn report(minute: u64, host: u16, place: u32, has_drawn: bool) -> Report {
        let (mut bytes, checker) = ([0; 32], NodeId::from_bytes([1; 32]));
        bytes[..2].copy_from_slice(&host.to_be_bytes());
        let host = NodeId::from_bytes(bytes);
        let turn = has_drawn.then(|| TurnProof::from_bytes(&[3; 96]));
        let (container, finding) = (container_id(host, place), Finding::Unreachable);
        Report { checker, host, container, minute, finding, turn }
    }

    fn key(report: &Report) -> (u64, bool, NodeId, [u8; 16]) {
        let container = *report.container.as_bytes();
        (report.minute, report.turn.is_some(), report.host, container)
    }

    #[test]
    fn a_sheet_is_taken_when_its_minute_is_over_or_it_is_full() {
        let mut sheets = Sheets::new(NodeId::from_bytes([1; 32]));
        for host in 0..511 {
            assert_eq!(sheets.put(&report(7, host, 0, true)), None);
        }
        assert_eq!(sheets.put(&report(8, 0, 0, true)), None);
        assert_eq!(sheets.put(&report(7, 0, 0, true)), None);
        let full = sheets.put(&report(7, 511, 0, true)).unwrap();
        assert!(full.is_sound());
        assert_eq!((full.minute, full.visits.len()), (7, 512));
        assert_eq!(sheets.take(|minute| minute == 7), []);
        let [rest] = &sheets.take(|minute| minute == 8)[..] else { panic!("no sheet of minute 8") };
        assert_eq!((rest.minute, rest.visits.len()), (8, 1));
        assert_eq!(sheets.take(|_| true), []);
        // No container of that host has such a name.
        assert_eq!(sheets.put(&report(7, 0, 64, true)), None);
        assert_eq!(sheets.take(|_| true), []);
    }

    proptest! {
        /// Nothing is lost, nothing stands twice, and each sheet is sound.
        #[test]
        fn what_was_found_stands_on_one_sheet(
            found in prop::collection::vec((0..3_u64, 0..300_u16, 0..4_u32, any::<bool>()), 0..1_500),
        ) {
            let mut sheets = Sheets::new(NodeId::from_bytes([1; 32]));
            let mut expected = BTreeSet::new();
            let mut written = Vec::new();
            for (minute, host, place, has_drawn) in found {
                let report = report(minute, host, place, has_drawn);
                // A checker visits a container once in a minute.
                if expected.insert(key(&report)) {
                    written.extend(sheets.put(&report));
                }
            }
            written.extend(sheets.take(|_| true));
            prop_assert!(written.iter().all(Sheet::is_sound));
            let all: Vec<_> = written.iter().flat_map(Sheet::reports).map(|it| key(&it)).collect();
            prop_assert_eq!(all.len(), expected.len());
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
