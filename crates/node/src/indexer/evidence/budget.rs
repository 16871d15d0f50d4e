//! How much of an epoch's log each kind of statement may take, and each host of it.
//!
//! Each kind has a share of its own, so that what costs nothing to make fills no other's place: a
//! stranger's receipts leave the room for probes untouched. Within the receipts no host takes the
//! others' place: while less than half of the share is used, a host may have a sixteenth of it, and
//! after that a 1 024th. What challenges and measurements find is charged to the host that it is about, for its owner may
//! have checkers, too: a host may have a quarter of what is left, so that there is always some for the
//! next one. Of n hosts with as much each has nearly its nth: all together n of n + 4 parts. And all of
//! it is there only in the epoch's last period, of the n-th of 24 a share of n / 24: else who has spent
//! its part in the morning could not be found silent in the evening.
//!
//! A sheet is about many hosts, and charged to the checker that signs it: all draw as much, so of n
//! checkers each may have an nth of what is there, of which a minute's part comes in every minute. So no
//! checker's sheets take the place of another's, and none of the morning that of the evening. Where a
//! network is larger than a log, each checker's sheets are kept in some minutes: what is left out is
//! chance, for nobody chooses whom it visits in which minute, and all containers lose alike. Of one minute
//! a checker has at most [`SMALL_SHEETS_MAX`] that are small: these cost more than they say.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use welkin_proto::encode;
use welkin_proto::epoch::Statement;
use welkin_proto::exam::ExamReport;
use welkin_proto::site::SiteReport;
use welkin_types::{ContainerId, NodeId};

/// The most rolls of one node in an epoch: it makes a new one where it is started again with other
/// containers.
const ROLLS_OF_NODE: u32 = 8;

/// A sheet with fewer visits is small: of its bytes more than a tenth are not visits.
const SMALL_VISITS: usize = 64;
/// The most small sheets of one checker and minute: what it has drawn, what it stands in for, as many where
/// it was started again, and some where containers came late.
const SMALL_SHEETS_MAX: u8 = 8;

/// What is kept apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Roll,
    Sheet,
    Exam,
    Site,
    Lease,
    Digests,
}

/// The most of one kind in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) bytes: u64,
    pub(super) statements: u32,
}

impl Kind {
    pub(super) const fn share(self) -> Share {
        let (mib, statements) = match self {
            Self::Roll => (64, 1 << 18),
            Self::Sheet => (144, 1 << 20),
            Self::Exam => (32, 1 << 18),
            Self::Site => (8, 1 << 16),
            Self::Lease => (64, 1 << 18),
            Self::Digests => (64, 1 << 19),
        };
        Share { bytes: mib << 20, statements }
    }
}

/// What a statement is about and to whom it is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    /// What it is about, in 8 bytes of a hash: it is kept once.
    pub(super) matter: u64,
    /// The node whose room it takes, likewise.
    node: u64,
    /// The minute of a sheet that is small.
    minute: Option<u64>,
    /// How much of the share of findings is there already.
    released: Released,
}

/// So many of so many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) parts: u64,
    pub(super) of: u64,
    /// Between how many checkers it is shared.
    pub(super) authors: u32,
}

impl Released {
    pub(super) const ALL: Self = Self { parts: 1, of: 1, authors: 1 };

    fn of(self, whole: u64) -> u64 {
        (whole / self.of.max(1)).saturating_mul(self.parts.min(self.of.max(1)))
    }

    /// What one checker may have of it.
    fn of_author(self, whole: u64) -> u64 {
        self.of(whole) / u64::from(self.authors.max(1))
    }
}

impl Subject {
    /// None where the statement can't be read.
    pub(super) fn of(statement: &Statement) -> Option<Self> {
        let mut small = None;
        let (kind, node, about) = match statement {
            Statement::Roll(roll) => {
                let issued = roll.read_unverified().ok()?.issued.0.to_be_bytes();
                let signer = roll.signer();
                (Kind::Roll, signer, hash(0, &[signer.as_bytes(), &issued]))
            }
            Statement::Sheet(signed) => {
                let sheet = signed.read_unverified().ok()?;
                let (minute, visits) = (sheet.minute.to_be_bytes(), encode(&sheet.visits).ok()?);
                small = Some(sheet.minute).filter(|_| sheet.visits.len() < SMALL_VISITS);
                let parts: [&[u8]; 3] = [sheet.checker.as_bytes(), &minute, &visits];
                (Kind::Sheet, sheet.checker, hash(1, &parts))
            }
            Statement::Exam(signed) => {
                let ExamReport { checker, host, container, minute, .. } =
                    signed.read_unverified().ok()?;
                (Kind::Exam, host, visit(2, checker, container, minute))
            }
            Statement::Site(signed) => {
                let SiteReport { checker, host, container, minute, .. } =
                    signed.read_unverified().ok()?;
                (Kind::Site, host, visit(7, checker, container, minute))
            }
            Statement::Lease(file) => {
                let order = &file.order.message;
                let is_acked = [u8::from(file.ack.is_some())];
                let (lease, buyer) = (order.lease.as_bytes(), order.buyer.as_bytes());
                // A buyer that sends a promise of nothing first keeps no better one out.
                let promised = file.voucher.as_ref().map_or(0, |voucher| voucher.message.seconds);
                let promised = promised.to_be_bytes();
                let parts: [&[u8]; 5] = [lease, buyer, order.host.as_bytes(), &is_acked, &promised];
                (Kind::Lease, order.host, hash(3, &parts))
            }
            Statement::Digests(digests) => {
                let series = &digests.series;
                let place = [series.side as u8, u8::try_from(series.part).ok()?];
                // Who says more later is heard.
                let count = u64::try_from(series.minutes.len()).ok()?.to_be_bytes();
                let by = digests.checker().unwrap_or(series.host);
                let (lease, host) = (series.lease.as_bytes(), series.host.as_bytes());
                let buyer = series.buyer.as_bytes();
                let parts: [&[u8]; 6] = [lease, host, buyer, &place, &count, by.as_bytes()];
                (Kind::Digests, by, hash(6, &parts))
            }
        };
        let node = hash(4, &[node.as_bytes()]);
        Some(Self { kind, matter: about, node, minute: small, released: Released::ALL })
    }

    /// The same at a time when not all of the share is there.
    pub(super) const fn when(self, released: Released) -> Self {
        Self { released, ..self }
    }
}

/// The containers that a roll names, or that a sheet is about, each in 8 bytes of a hash: what a host
/// shows of itself in an epoch, it is held to.
pub(super) fn enrolled(statement: &Statement) -> Vec<u64> {
    match statement {
        Statement::Roll(signed) => {
            let Ok(roll) = signed.read_unverified() else { return Vec::new() };
            let containers = roll.containers.iter();
            containers.map(|(container, _)| place(*container)).collect()
        }
        Statement::Sheet(signed) => {
            let Ok(sheet) = signed.read_unverified() else { return Vec::new() };
            sheet.visits.iter().map(|visit| place(visit.container())).collect()
        }
        Statement::Exam(_) | Statement::Site(_) | Statement::Lease(_) | Statement::Digests(_) => {
            Vec::new()
        }
    }
}

/// A container in 8 bytes of a hash.
pub(super) fn place(container: ContainerId) -> u64 {
    hash(5, &[container.as_bytes()])
}

fn visit(kind: u8, checker: NodeId, container: ContainerId, minute: u64) -> u64 {
    hash(kind, &[checker.as_bytes(), container.as_bytes(), &minute.to_be_bytes()])
}

fn hash(kind: u8, parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new().chain_update([kind]);
    parts.iter().for_each(|part| hash.update(part));
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What is used of one share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    statements: u32,
}

/// What is used of an epoch's log.
#[derive(Debug, Default)]
pub(super) struct Budget {
    kinds: BTreeMap<Kind, Used>,
    /// By nodes: each has a bound of its own.
    nodes: BTreeMap<(Kind, u64), Used>,
    /// Small sheets, by checker and minute.
    small: BTreeMap<(u64, u64), u8>,
}

impl Budget {
    /// Whether there is room for a statement of so many bytes.
    pub(super) fn has_room(&self, of: Subject, bytes: u64) -> bool {
        let share = of.kind.share();
        let used = self.kinds.get(&of.kind).copied().unwrap_or_default();
        if used.bytes + bytes > share.bytes || used.statements >= share.statements {
            return false;
        }
        let own = self.nodes.get(&(of.kind, of.node)).copied().unwrap_or_default();
        match of.kind {
            // Whoever has none takes no part, so the second half is for first ones.
            Kind::Roll if used.bytes < share.bytes / 2 => own.statements < ROLLS_OF_NODE,
            Kind::Roll => own.statements == 0,
            Kind::Lease | Kind::Digests if used.bytes < share.bytes / 2 => {
                own.bytes + bytes <= share.bytes / 16
            }
            Kind::Lease | Kind::Digests => own.bytes + bytes <= share.bytes / 1_024,
            Kind::Sheet => {
                let small = of.minute.and_then(|minute| self.small.get(&(of.node, minute)));
                let is_one_of_few = small.is_none_or(|count| *count < SMALL_SHEETS_MAX);
                is_one_of_few && own.bytes + bytes <= of.released.of_author(share.bytes)
            }
            // Only who is assigned says these, each once for its matter; and whose, they may be both.
            Kind::Exam | Kind::Site => {
                let statements = of.released.of(share.statements.into());
                let left = of.released.of(share.bytes).saturating_sub(used.bytes);
                let others = statements.saturating_sub(used.statements.into());
                own.bytes + bytes <= left / 4 && u64::from(own.statements) < others / 4
            }
        }
    }

    /// A statement was written.
    pub(super) fn take(&mut self, of: Subject, bytes: u64) {
        let add = |used: &mut Used| {
            used.bytes += bytes;
            used.statements += 1;
        };
        add(self.kinds.entry(of.kind).or_default());
        add(self.nodes.entry((of.kind, of.node)).or_default());
        if let Some(minute) = of.minute {
            let count = self.small.entry((of.node, minute)).or_default();
            *count = count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Kind; 6] =
        [Kind::Roll, Kind::Sheet, Kind::Exam, Kind::Site, Kind::Lease, Kind::Digests];

    fn fill(budget: &mut Budget, kind: Kind, node: u64, bytes: u64) -> u32 {
        let of = Subject { kind, matter: 0, node, minute: None, released: Released::ALL };
        let mut count = 0;
        while budget.has_room(of, bytes) {
            budget.take(of, bytes);
            count += 1;
        }
        count
    }

    #[test]
    fn one_kind_fills_no_others_place_and_one_host_not_the_others() {
        let mut budget = Budget::default();
        let receipt = 1_500;
        // One host has its part, and what is left is for the others.
        assert_eq!(fill(&mut budget, Kind::Lease, 1, receipt), (4 << 20) / 1_500);
        assert_eq!(fill(&mut budget, Kind::Lease, 2, receipt), (4 << 20) / 1_500);
        for host in 3..12 {
            fill(&mut budget, Kind::Lease, host, receipt);
        }
        // More than half is used: an honest host that comes late still has some.
        assert_eq!(fill(&mut budget, Kind::Lease, 99, receipt), (64 << 10) / 1_500);
        let mut host = 100;
        while fill(&mut budget, Kind::Lease, host, receipt) > 0 {
            host += 1;
        }
        assert!(host > 500, "{host}");
        // All others have their room.
        for kind in [Kind::Roll, Kind::Sheet, Kind::Exam, Kind::Site, Kind::Digests] {
            let of = Subject { kind, matter: 0, node: 1, minute: None, released: Released::ALL };
            assert!(budget.has_room(of, 4_096), "{kind:?}");
        }
        assert_eq!(fill(&mut budget, Kind::Roll, 1, 300), ROLLS_OF_NODE);
        assert_eq!(fill(&mut budget, Kind::Roll, 2, 300), ROLLS_OF_NODE);
    }

    /// A host and a checker of one owner: whatever they say of each other, it takes nobody's place.
    #[test]
    fn what_is_found_of_one_host_leaves_room_for_what_is_found_of_others() {
        let (kind, mut budget, report) = (Kind::Exam, Budget::default(), 270);
        let whole = u32::try_from(kind.share().bytes / report).unwrap();
        let whole = whole.min(kind.share().statements);
        // One host has a fifth of all, so that it has a quarter of what is left.
        let first = fill(&mut budget, kind, 1, report);
        assert!(first.abs_diff(whole / 5) < 4, "{first} of {whole}");
        assert_eq!(fill(&mut budget, kind, 1, report), 0);
        // Ten more that take all they can leave the next one a hundredth.
        for host in 2..12 {
            assert!(fill(&mut budget, kind, host, report) > 0);
        }
        let next = fill(&mut budget, kind, 12, report);
        assert!(next > whole / 100, "{next} of {whole}");
        // A hundred with as much each have nearly all of it together.
        let mut budget = Budget::default();
        let of = |node| Subject { kind, matter: 0, node, minute: None, released: Released::ALL };
        let each = (0..whole).find(|_| {
            let has_room = (0..100).all(|host| budget.has_room(of(host), report));
            (0..100).for_each(|host| budget.take(of(host), report));
            !has_room
        });
        let all = each.unwrap() * 100;
        assert!(all > whole / 100 * 94, "{all} of {whole}");
    }

    /// A hundred checkers that all have more to say than there is room for, ten of them all they can, and
    /// first: in every hour something of each is kept, of all alike.
    #[test]
    fn in_every_hour_there_is_room_for_every_checker() {
        let (mut budget, mut kept) = (Budget::default(), [[0_u32; 24]; 100]);
        for minute in 0..1_440 {
            for (node, kept) in (0..).zip(&mut kept) {
                let released = Released { parts: minute + 1, of: 1_440, authors: 100 };
                let of = Subject { kind: Kind::Sheet, matter: 0, node, minute: None, released };
                let most = if node < 10 { u32::MAX } else { 1 };
                let mut count = 0;
                while count < most && budget.has_room(of, 4_000) {
                    budget.take(of, 4_000);
                    count += 1;
                }
                kept[usize::try_from(minute).unwrap() / 60] += count;
            }
        }
        // Of each hour all have a hundredth, but for what is rounded.
        let part = u32::try_from(Kind::Sheet.share().bytes / 24 / 100 / 4_000).unwrap();
        let even = |count: &u32| (part - 1..=part + 1).contains(count);
        assert!(kept.as_flattened().iter().all(even), "{part}: {kept:?}");
    }

    /// One visit on each of many sheets would cost seven times what it says.
    #[test]
    fn of_one_minute_a_checker_has_few_small_sheets() {
        let mut budget = Budget::default();
        let released = Released { parts: 1, of: 1, authors: 3 };
        let of = |node, minute| Subject { kind: Kind::Sheet, matter: 0, node, minute, released };
        for _ in 0..8 {
            assert!(budget.has_room(of(1, Some(7)), 300));
            budget.take(of(1, Some(7)), 300);
        }
        assert!(!budget.has_room(of(1, Some(7)), 300));
        // Others, other minutes and large ones have their room.
        assert!(budget.has_room(of(2, Some(7)), 300) && budget.has_room(of(1, Some(8)), 300));
        assert!(budget.has_room(of(1, None), 300));
    }

    /// Who has spent its part is found silent all the same, in each later period.
    #[test]
    fn in_every_period_there_is_room_for_every_host() {
        let mut budget = Budget::default();
        for period in 1..=24 {
            for host in 0..3 {
                let released = Released { parts: period, of: 24, authors: 1 };
                let of =
                    Subject { kind: Kind::Exam, matter: 0, node: host, minute: None, released };
                let mut count = 0;
                while budget.has_room(of, 270) {
                    budget.take(of, 270);
                    count += 1;
                }
                assert!(count > 500, "{count} in period {period}");
            }
        }
    }

    proptest! {
        /// Whatever comes: no kind has more than its share.
        #[test]
        fn no_kind_has_more_than_its_share(
            all in prop::collection::vec((0..6_usize, 0..40_u64, 1..60_000_u64), 0..3_000),
        ) {
            let mut budget = Budget::default();
            for (kind, node, bytes) in all {
                let of = Subject { kind: ALL[kind], matter: 0, node, minute: None, released: Released::ALL };
                if budget.has_room(of, bytes) {
                    budget.take(of, bytes);
                }
            }
            for (kind, used) in budget.kinds {
                prop_assert!(used.bytes <= kind.share().bytes);
                prop_assert!(used.statements <= kind.share().statements);
            }
        }
    }
}
