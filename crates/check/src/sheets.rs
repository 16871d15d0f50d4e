//! What was found in a minute, until nothing more comes of it: then it is signed once, on one sheet, or
//! on as few as hold it.
//!
//! A signature and a proof have 230 bytes with all that names them, a visit some 37: by itself each would
//! take 350. Where a minute needs several sheets a hash says which visit stands on which: an indexer that
//! has no room for all of them keeps a sample by chance, and not those that ended first or last.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use welkin_proto::TurnProof;
use welkin_proto::check::{Finding, Report, Sheet, Visit};
use welkin_types::NodeId;

/// So full are sheets on average where there are several: chance fills none above what it may hold.
const VISITS_MEAN: usize = Sheet::VISITS_MAX * 3 / 4;

/// A minute, with what was drawn for it.
type Key = (u64, Option<TurnProof>);
/// What was found, by host and place.
type Found = BTreeMap<(NodeId, u8), Finding>;

/// Sheets that are being written: of each minute what was drawn, and what is stood in for.
#[derive(Clone, Debug)]
pub struct Sheets {
    checker: NodeId,
    /// No more than there are visits in a minute or two.
    open: BTreeMap<Key, Found>,
}

impl Sheets {
    /// A checker's, nothing on them yet.
    pub const fn new(checker: NodeId) -> Self {
        Self { checker, open: BTreeMap::new() }
    }

    /// Writes a finding down. Of a container that stands there already, or that is not named after its
    /// host, nothing is written.
    pub fn put(&mut self, report: &Report) {
        let Some(visit) = Visit::of(report) else { return };
        let found = self.open.entry((report.minute, report.turn)).or_default();
        found.entry((visit.host, visit.place)).or_insert(visit.finding);
    }

    /// Those of minutes that are over.
    pub fn take(&mut self, is_over: impl Fn(u64) -> bool) -> Vec<Sheet> {
        let over: Vec<_> =
            self.open.keys().copied().filter(|(minute, _)| is_over(*minute)).collect();
        let taken = over.into_iter().filter_map(|key| Some((key, self.open.remove(&key)?)));
        let checker = self.checker;
        taken.flat_map(|(key, found)| sheets(checker, key, found)).collect()
    }
}

/// The sheets of what was found, each in order; none is empty.
fn sheets(checker: NodeId, (minute, turn): Key, found: Found) -> Vec<Sheet> {
    let count = if found.len() > Sheet::VISITS_MAX { found.len().div_ceil(VISITS_MEAN) } else { 1 };
    let mut parts = vec![Vec::new(); count];
    for ((host, place), finding) in found {
        let part = if count == 1 { 0 } else { part(minute, host, place, count) };
        parts[part].push(Visit { host, place, finding });
    }
    // Where chance has filled one above all bounds it is cut.
    let parts = parts.iter().flat_map(|visits| visits.chunks(Sheet::VISITS_MAX));
    parts.map(|visits| Sheet { checker, minute, turn, visits: visits.to_vec() }).collect()
}

/// On which of several sheets a visit stands: another one each minute.
fn part(minute: u64, host: NodeId, place: u8, count: usize) -> usize {
    let hash = Sha256::new()
        .chain_update(b"welkin/check/sheet/1\0")
        .chain_update(minute.to_be_bytes())
        .chain_update(host.as_bytes())
        .chain_update([place]);
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0) % count.max(1)
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
    fn a_minute_stands_on_one_sheet_where_it_has_room() {
        let mut sheets = Sheets::new(NodeId::from_bytes([1; 32]));
        (0..512).for_each(|host| sheets.put(&report(7, host, 0, true)));
        // The same once more, and one that no container of that host is named.
        sheets.put(&report(7, 0, 0, true));
        sheets.put(&report(7, 0, 64, true));
        sheets.put(&report(8, 0, 0, true));
        assert_eq!(sheets.take(|_| false), []);
        let [sheet] = &sheets.take(|minute| minute == 7)[..] else { panic!("not one sheet") };
        assert!(sheet.is_sound());
        assert_eq!((sheet.minute, sheet.visits.len()), (7, 512));
        let [rest] = &sheets.take(|_| true)[..] else { panic!("no sheet of minute 8") };
        assert_eq!((rest.minute, rest.visits.len()), (8, 1));
        assert_eq!(sheets.take(|_| true), []);
    }

    /// Who keeps only one of them has some of all, and others in the next minute.
    #[test]
    fn where_a_minute_needs_several_chance_says_which_visit_stands_on_which() {
        let first = |minute| {
            let mut sheets = Sheets::new(NodeId::from_bytes([1; 32]));
            (0..2_000).for_each(|host| sheets.put(&report(minute, host, 0, true)));
            let sheets = sheets.take(|_| true);
            assert_eq!(sheets.len(), 6);
            let lengths: Vec<_> = sheets.iter().map(|sheet| sheet.visits.len()).collect();
            assert!(lengths.iter().all(|length| (260..410).contains(length)), "{lengths:?}");
            sheets[0].visits.iter().map(|visit| visit.host).collect::<BTreeSet<_>>()
        };
        let (one, next) = (first(7), first(8));
        let both = one.intersection(&next).count();
        assert!((20..110).contains(&both), "{both} of {}", one.len());
        // Low keys and high ones.
        let low = one.iter().filter(|host| **host < NodeId::from_bytes([4; 32])).count();
        assert!(low * 10 > one.len() * 3 && low * 10 < one.len() * 7, "{low} of {}", one.len());
    }

    proptest! {
        /// Nothing is lost, nothing stands twice, and each sheet is sound.
        #[test]
        fn what_was_found_stands_on_one_sheet(
            found in prop::collection::vec((0..3_u64, 0..300_u16, 0..4_u32, any::<bool>()), 0..1_500),
        ) {
            let mut sheets = Sheets::new(NodeId::from_bytes([1; 32]));
            let mut expected = BTreeSet::new();
            for (minute, host, place, has_drawn) in found {
                let report = report(minute, host, place, has_drawn);
                // A checker visits a container once in a minute.
                if expected.insert(key(&report)) {
                    sheets.put(&report);
                }
            }
            let written = sheets.take(|_| true);
            prop_assert!(written.iter().all(Sheet::is_sound));
            let all: Vec<_> = written.iter().flat_map(Sheet::reports).map(|it| key(&it)).collect();
            prop_assert_eq!(all.len(), expected.len());
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
