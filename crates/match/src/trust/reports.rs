//! What accounts report of indexers, as one indexer keeps it.

use std::collections::BTreeMap;

use welkin_proto::gossip::{Evidence, Reported, Tally, day_of};
use welkin_types::{AccountId, NodeId, UnixMillis};

/// The most reports that are kept, one for each account and day.
pub const REPORTS_MAX: usize = 4_096;

#[derive(Clone, Debug)]
struct Kept {
    issued: UnixMillis,
    about: Vec<(NodeId, Tally)>,
    /// How many observations of a kind it may stand for, in millionths.
    weight: u32,
}

/// All reports of the last days.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    kept: BTreeMap<(u32, AccountId), Kept>,
}

impl Reports {
    /// Whether a report is new: of a day, of an account, and later than what is known.
    pub fn is_new(&self, account: AccountId, evidence: &Evidence) -> bool {
        let known = self.kept.get(&(evidence.day, account));
        known.is_none_or(|known| known.issued < evidence.issued)
    }

    /// Keeps a report, which the caller has checked with [`Evidence::check`]; `weight` is that of
    /// its payer. Where there is no room, the lightest one of the oldest day goes.
    pub fn add(&mut self, account: AccountId, evidence: Evidence, weight: u32) {
        if weight == 0 || !self.is_new(account, &evidence) {
            return;
        }
        let (key, issued) = ((evidence.day, account), evidence.issued);
        self.kept.insert(key, Kept { issued, about: evidence.about, weight });
        if self.kept.len() > REPORTS_MAX {
            let oldest = self.kept.keys().next().map_or(0, |(day, _)| *day);
            let of_it = self.kept.range((oldest, AccountId::from_bytes([0; 20]))..);
            let of_it = of_it.take_while(|((day, _), _)| *day == oldest);
            let lightest = of_it.min_by_key(|(_, kept)| kept.weight).map(|(key, _)| *key);
            lightest.and_then(|key| self.kept.remove(&key));
        }
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: UnixMillis) {
        let today = day_of(now);
        self.kept.retain(|(day, _), _| day.saturating_add(Evidence::DAYS_MAX) >= today);
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What is reported of each indexer, each report within its weight, at most `most` indexers.
    /// What an account observed counts half of what it observed of the same kind on a later day.
    pub fn together(&self, most: usize) -> Vec<Reported> {
        let mut sums: BTreeMap<NodeId, (std::collections::BTreeSet<AccountId>, [u64; 11])> =
            BTreeMap::new();
        let mut later: BTreeMap<(NodeId, AccountId), [u32; KINDS.len()]> = BTreeMap::new();
        for ((_, account), kept) in self.kept.iter().rev() {
            for (indexer, tally) in &kept.about {
                if sums.len() >= most && !sums.contains_key(indexer) {
                    continue;
                }
                let (accounts, sum) = sums.entry(*indexer).or_default();
                accounts.insert(*account);
                let later = later.entry((*indexer, *account)).or_default();
                let scaled = scaled(tally, kept.weight, later);
                sum.iter_mut().zip(scaled).for_each(|(sum, part)| *sum = sum.saturating_add(part));
            }
        }
        let reported = |(indexer, (accounts, sum)): (NodeId, (_, [u64; 11]))| {
            let accounts: std::collections::BTreeSet<AccountId> = accounts;
            Reported {
                indexer,
                accounts: u32::try_from(accounts.len()).unwrap_or(u32::MAX),
                tally: tally(sum),
            }
        };
        sums.into_iter().map(reported).collect()
    }
}

/// The places of the numbers that count the observations of each kind.
const KINDS: [&[usize]; 4] = [&[0, 1, 2, 3], &[4, 5], &[6, 7], &[8]];

/// A tally's numbers in thousandths, so that no kind counts more observations than the weight, and
/// half of that for each later report of the same kind.
fn scaled(tally: &Tally, weight: u32, later: &mut [u32; KINDS.len()]) -> [u64; 11] {
    let numbers = tally.numbers();
    let mut out = [0; 11];
    for (kind, later) in KINDS.into_iter().zip(later) {
        let weight = weight.checked_shr(*later).unwrap_or(0);
        *later += u32::from(kind.iter().any(|at| numbers[*at] > 0));
        let all: u64 = kind.iter().map(|at| u64::from(numbers[*at])).sum();
        // In thousandths of an observation, all together.
        let most = (u64::from(weight) / 1_000).min(all * 1_000);
        let rest: &[usize] = if kind == [8] { &[8, 9, 10] } else { kind };
        for at in rest {
            out[*at] = u64::from(numbers[*at]) * most / all.max(1);
        }
    }
    out
}

/// Whole observations from thousandths; what is left of a half or more counts.
fn tally(sum: [u64; 11]) -> Tally {
    let whole = |at: usize| {
        let rounded = sum[at].saturating_add(500) / 1_000;
        u32::try_from(rounded).unwrap_or(u32::MAX).min(Tally::COUNT_MAX)
    };
    let compared = whole(8);
    Tally {
        good: whole(0),
        dead: whole(1),
        stale: whole(2),
        wrong: whole(3),
        proved: whole(4),
        disproved: whole(5),
        shown: whole(6),
        hidden: whole(7),
        compared,
        own: whole(9).min(compared),
        own_expected_milli: u32::try_from(sum[10] / 1_000)
            .unwrap_or(u32::MAX)
            .min(compared.saturating_mul(1_000)),
    }
}
