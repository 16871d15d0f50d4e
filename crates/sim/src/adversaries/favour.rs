//! An indexer that favours its own operator's hosts, among honest ones, by the buyers' own rules.

use welkin_match::synth::Chance;
use welkin_match::trust::{Finding, Ledger, Mark, draw, standing};
use welkin_types::evidence::Ppm;
use welkin_types::{NodeId, UnixMillis};

const INDEXERS: u8 = 4;
const START_MS: u64 = 20_000 * 86_400_000;
/// One question in twenty is compared with another indexer, and of the list so many offers.
const COMPARED_PERCENT: u32 = 5;
const OFFERS: u32 = 8;
/// Offers whose host is busy or gone, though the indexer is honest, in thousandths.
const STALE_PERMILLE: u32 = 13;

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Favour {
    /// The second in which its standing first bore the mark.
    pub marked_second: Option<u32>,
    /// Its share of questions on the last day, in thousandths.
    pub asked_permille: u64,
    /// The share of all matches that went to its operator's hosts, in thousandths.
    pub own_permille: u64,
    /// Honest indexers that bore a mark at the end.
    pub wrongly_marked: u32,
}

fn node(indexer: u8) -> NodeId {
    NodeId::from_bytes([indexer; 32])
}

/// Plays so many days with so many questions an hour by all buyers together, who report. The
/// operator has a fifth of what fits; its indexer (number 0) offers its own in so many of a hundred.
pub(super) fn play(own_percent: u32, an_hour: u32, days: u32, seed: u64) -> Favour {
    let mut chance = Chance::new(seed);
    let mut ledger = Ledger::default();
    let mut came = Favour::default();
    let (mut asked, mut own, mut all) = ((0_u64, 0_u64), 0_u64, 0_u64);
    let mut weights = Vec::new();
    for question in 0..days * 24 * an_hour {
        let second = question * (3_600 / an_hour.max(1));
        let now = UnixMillis(START_MS + u64::from(second) * 1_000);
        if question % an_hour.max(1) == 0 || weights.is_empty() {
            let all = (0..INDEXERS).map(|n| (node(n), standing(&ledger, &[], node(n), now)));
            let all: Vec<_> = all.collect();
            if all[0].1.marks.contains(&Mark::Favours) {
                came.marked_second.get_or_insert(second);
            }
            weights = all.into_iter().map(|(node, standing)| (node, standing.weight)).collect();
        }
        let order = draw(weights.clone(), chance.word());
        let first = order.first().copied().unwrap_or(node(0));
        let is_liar = first == node(0);
        let percent = if is_liar { own_percent } else { 20 };
        let is_own = chance.below(100) < percent;
        (own, all) = (own + u64::from(is_own), all + 1);
        if second >= (days.saturating_sub(1)) * 86_400 {
            asked = (asked.0 + u64::from(is_liar), asked.1 + 1);
        }
        let is_stale = chance.below(1_000) < STALE_PERMILLE;
        ledger.note(now, first, if is_stale { Finding::Stale } else { Finding::Good });
        ledger.note(now, first, Finding::Proved);
        if chance.below(100) < COMPARED_PERCENT {
            for _ in 0..OFFERS {
                let is_own = chance.below(100) < percent;
                let expected = Ppm::new(200_000);
                ledger.note(now, first, Finding::Compared { is_own, expected });
            }
        }
    }
    let end = UnixMillis(START_MS + u64::from(days) * 86_400_000);
    for honest in 1..INDEXERS {
        let marks = standing(&ledger, &[], node(honest), end).marks;
        came.wrongly_marked += u32::from(marks.contains(&Mark::Favours));
    }
    came.asked_permille = asked.0 * 1_000 / asked.1.max(1);
    came.own_permille = own * 1_000 / all.max(1);
    came
}
