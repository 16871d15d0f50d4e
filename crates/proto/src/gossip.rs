//! What indexers say to each other, and what is said about them.
//!
//! 1. An indexer describes itself in an [`IndexerCard`], and what its region has in a [`Summary`].
//!    It signs both, so others may carry them and nobody can speak for another.
//! 2. Every few seconds it asks a few others with a [`Gossip`]: the versions it has, and what is new.
//!    The answer has what the asker lacks, and the versions that the answering side lacks, which a
//!    second question brings (push and pull).
//! 3. Buyers and checkers tell indexers what they met with, as signed [`Evidence`] of a day. A later
//!    one of the same account and day replaces an earlier one, so it may come twice.
//! 4. Hosts and buyers ask for the [`Directory`].
//!
//! [`homes`] says which indexers a host announces itself to; whoever has the cards can repeat it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{AccountId, Class, NodeId, Price, Region, UnixMillis};

use crate::addr::NodeAddr;
use crate::eip712::Domain;
use crate::order::{Delegation, SignedByAccount};
use crate::signed::{Signable, Signed};

/// The most cards, and the most summaries, of one message.
pub const CARDS_PER_MESSAGE: usize = 64;
/// The most evidence of one message.
pub const EVIDENCE_PER_MESSAGE: usize = 32;
/// The most versions of one message: one for each indexer that may be known.
pub const VERSIONS_PER_MESSAGE: usize = 512;
/// How many indexers a host announces itself to, where there are so many and it is not told else.
pub const HOMES: usize = 3;
/// The least and the most that it may be told. A buyer takes an indexer that is among the first
/// [`HOMES_MIN`] of a host for one that must know the host.
pub const HOMES_MIN: usize = 2;
/// See [`HOMES_MIN`].
pub const HOMES_MAX: usize = 16;

/// Why a card, a summary or evidence is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipRefusal {
    /// A list is too long, or a number is out of range.
    #[error("it is out of bounds: {0}")]
    Bounds(&'static str),
    /// It describes another node than the one that signed.
    #[error("it was signed by another node than it is about")]
    Node,
    /// No account vouches for the node.
    #[error("no account vouches for the node that signed")]
    Account,
    /// Too old, or of a time that has not come.
    #[error("it is not of this time")]
    Time,
}

/// An indexer, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexerCard {
    /// The indexer and the ways to it.
    pub addr: NodeAddr,
    /// Who runs it: the operator's permission for this node.
    pub operator: SignedByAccount<Delegation>,
    /// The part of the world that it serves.
    pub region: Region,
    /// When it was signed; a later one replaces it.
    pub issued: UnixMillis,
    /// When it ends unless renewed.
    pub expires: UnixMillis,
}

impl Signable for IndexerCard {
    const KIND: &'static str = "indexer-card";
}

/// How far clocks of two nodes may differ, in milliseconds.
pub const SKEW_MS: u64 = 60_000;

impl IndexerCard {
    /// The longest that a card may hold, in milliseconds: who is gone is forgotten after that.
    pub const LASTING_MS_MAX: u64 = 15 * 60_000;

    /// Checks bounds, times, signer and operator; returns the operator's account.
    ///
    /// # Errors
    ///
    /// [`GossipRefusal`] saying what is wrong.
    pub fn check(
        &self,
        domain: &Domain,
        signer: NodeId,
        now: UnixMillis,
    ) -> Result<AccountId, GossipRefusal> {
        if self.addr.node != signer {
            return Err(GossipRefusal::Node);
        }
        if !self.addr.is_bounded() {
            return Err(GossipRefusal::Bounds("too many addresses"));
        }
        let lasts = self.expires.0.saturating_sub(self.issued.0);
        let is_early = self.issued.0 > now.0.saturating_add(SKEW_MS);
        if self.expires < now || is_early || lasts > Self::LASTING_MS_MAX {
            return Err(GossipRefusal::Time);
        }
        self.operator.account(domain, signer, now).map_err(|_| GossipRefusal::Account)
    }
}

/// What an indexer has of one class of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassSummary {
    /// Which.
    pub class: Class,
    /// Slots known.
    pub slots: u64,
    /// Slots free.
    pub free: u64,
    /// The lowest price of a free one.
    pub cheapest: Option<Price>,
    /// The middle of all prices, slot by slot.
    pub median: Price,
}

/// What an indexer's region has, coarsely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Which region.
    pub region: Region,
    /// Rises with each summary of this indexer.
    pub version: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// By class, at most [`Self::CLASSES_MAX`], each once.
    pub classes: Vec<ClassSummary>,
}

impl Signable for Summary {
    const KIND: &'static str = "region-summary";
}

impl Summary {
    /// The most classes of one summary.
    pub const CLASSES_MAX: usize = 128;
    /// After so many milliseconds it tells nothing any more.
    pub const LASTING_MS: u64 = 2 * 60_000;

    /// Checks bounds and time. Whether its signer serves that region, its card says.
    ///
    /// # Errors
    ///
    /// [`GossipRefusal`] saying what is wrong.
    pub fn check(&self, now: UnixMillis) -> Result<(), GossipRefusal> {
        if self.classes.len() > Self::CLASSES_MAX {
            return Err(GossipRefusal::Bounds("too many classes"));
        }
        let names: BTreeSet<_> = self.classes.iter().map(|row| &row.class).collect();
        if names.len() != self.classes.len() {
            return Err(GossipRefusal::Bounds("a class is listed twice"));
        }
        if self.classes.iter().any(|row| row.free > row.slots) {
            return Err(GossipRefusal::Bounds("more slots are free than there are"));
        }
        let is_early = self.issued.0 > now.0.saturating_add(SKEW_MS);
        if is_early || now.since(self.issued).as_millis() > u128::from(Self::LASTING_MS) {
            return Err(GossipRefusal::Time);
        }
        Ok(())
    }
}

/// What somebody met with at one indexer in one day. Everything only counts up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Its offers that became leases, at their price.
    pub good: u32,
    /// Its offers whose host was not there.
    pub dead: u32,
    /// Its offers whose host was there, and busy.
    pub stale: u32,
    /// Its offers whose host asked for another price or had no such container.
    pub wrong: u32,
    /// Receipts of its choices that recompute.
    pub proved: u32,
    /// Receipts of its choices that don't.
    pub disproved: u32,
    /// Free containers of other indexers that it shows too, as it must.
    pub shown: u32,
    /// Free containers, asked for at their hosts, that it must know and does not show.
    pub hidden: u32,
    /// Offers that were compared with what there is.
    pub compared: u32,
    /// Of these, containers of its own operator.
    pub own: u32,
    /// Of these, how many would be of its own operator by its share of what fits, in thousandths.
    pub own_expected_milli: u32,
}

impl Tally {
    /// The largest of each number: more in a day says nothing more.
    pub const COUNT_MAX: u32 = 1_000_000;

    /// All numbers.
    pub const fn numbers(&self) -> [u32; 11] {
        [
            self.good,
            self.dead,
            self.stale,
            self.wrong,
            self.proved,
            self.disproved,
            self.shown,
            self.hidden,
            self.compared,
            self.own,
            self.own_expected_milli,
        ]
    }

    /// Whether nothing was met with.
    pub fn is_empty(&self) -> bool {
        self.numbers().iter().all(|number| *number == 0)
    }

    /// Whether the numbers can be true together.
    pub fn is_possible(&self) -> bool {
        let [.., expected] = self.numbers();
        let others = &self.numbers()[..10];
        others.iter().all(|number| *number <= Self::COUNT_MAX)
            && self.own <= self.compared
            && u64::from(expected) <= u64::from(self.compared) * 1_000
    }
}

/// What an account met with at indexers in one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The account's permission for the node that signed.
    pub reporter: SignedByAccount<Delegation>,
    /// The day (since 1970) that it is about.
    pub day: u32,
    /// When it was signed; a later one of the same account and day replaces it.
    pub issued: UnixMillis,
    /// By indexer, at most [`Self::INDEXERS_MAX`], each once.
    pub about: Vec<(NodeId, Tally)>,
}

impl Signable for Evidence {
    const KIND: &'static str = "indexer-evidence";
}

impl Evidence {
    /// The most indexers of one report.
    pub const INDEXERS_MAX: usize = 32;
    /// Evidence of so many days ago is not taken any more.
    pub const DAYS_MAX: u32 = 7;

    /// Checks bounds, time and reporter; returns the reporter's account.
    ///
    /// # Errors
    ///
    /// [`GossipRefusal`] saying what is wrong.
    pub fn check(
        &self,
        domain: &Domain,
        signer: NodeId,
        now: UnixMillis,
    ) -> Result<AccountId, GossipRefusal> {
        let subjects: BTreeSet<_> = self.about.iter().map(|(indexer, _)| indexer).collect();
        if self.about.len() > Self::INDEXERS_MAX || subjects.len() != self.about.len() {
            return Err(GossipRefusal::Bounds("indexers"));
        }
        if self.about.iter().any(|(_, tally)| !tally.is_possible()) {
            return Err(GossipRefusal::Bounds("counts"));
        }
        let today = day_of(now);
        let is_early = self.issued.0 > now.0.saturating_add(SKEW_MS);
        if is_early || self.day > day_of(self.issued) || self.day + Self::DAYS_MAX < today {
            return Err(GossipRefusal::Time);
        }
        // The permission of a client process may have ended since; it must have held then.
        self.reporter.account(domain, signer, self.issued).map_err(|_| GossipRefusal::Account)
    }
}

/// The day (since 1970) of a moment.
pub fn day_of(at: UnixMillis) -> u32 {
    u32::try_from(at.0 / 86_400_000).unwrap_or(u32::MAX)
}

/// Which versions of an indexer's statements one has; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Whose.
    pub node: NodeId,
    /// When its card was issued.
    pub card: UnixMillis,
    /// The version of its summary.
    pub summary: u64,
}

/// One side of an exchange between indexers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossip {
    /// In a question that pulls: all that the asker has. In an answer: what the answering side has
    /// of those of which the asker has later ones.
    pub versions: Vec<Versions>,
    /// Whether what `versions` does not name is lacking and wanted.
    pub pulls: bool,
    /// Cards that the other side lacks.
    pub cards: Vec<Signed<IndexerCard>>,
    /// Summaries that the other side lacks.
    pub summaries: Vec<Signed<Summary>>,
    /// Evidence that is new here.
    pub evidence: Vec<Signed<Evidence>>,
}

impl Gossip {
    /// Whether every list is within its bounds.
    pub fn is_bounded(&self) -> bool {
        self.versions.len() <= VERSIONS_PER_MESSAGE
            && self.cards.len() <= CARDS_PER_MESSAGE
            && self.summaries.len() <= CARDS_PER_MESSAGE
            && self.evidence.len() <= EVIDENCE_PER_MESSAGE
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
            && self.cards.is_empty()
            && self.summaries.is_empty()
            && self.evidence.is_empty()
    }
}

/// What an indexer knows of the others, for hosts and buyers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Cards, at most [`VERSIONS_PER_MESSAGE`]; its own is among them.
    pub cards: Vec<Signed<IndexerCard>>,
    /// Summaries, at most [`CARDS_PER_MESSAGE`].
    pub summaries: Vec<Signed<Summary>>,
    /// What others reported, weighted by the fees that they pay, at most [`VERSIONS_PER_MESSAGE`].
    pub reported: Vec<Reported>,
}

/// What is reported of an indexer, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Which.
    pub indexer: NodeId,
    /// By how many accounts that pay.
    pub accounts: u32,
    /// What they met with, each within its weight.
    pub tally: Tally,
}

/// An indexer that hosts may announce themselves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The indexer.
    pub node: NodeId,
    /// Who runs it.
    pub operator: AccountId,
}

/// The first `count` indexers of a host: by rendezvous hashing, so that an indexer that comes or
/// goes moves no host that did not have it; of different operators first, so that no operator has
/// all of a host's homes while there are others.
pub fn homes(host: NodeId, indexers: &[Home], count: usize) -> Vec<NodeId> {
    let mut ranked: Vec<_> = indexers.iter().map(|home| (rank(host, home.node), home)).collect();
    ranked.sort_unstable_by_key(|(rank, home)| (std::cmp::Reverse(*rank), home.node));
    ranked.dedup_by_key(|(_, home)| home.node);
    let mut operators = BTreeSet::new();
    let (first, second): (Vec<_>, Vec<_>) =
        ranked.into_iter().partition(|(_, home)| operators.insert(home.operator));
    first.into_iter().chain(second).map(|(_, home)| home.node).take(count).collect()
}

fn rank(host: NodeId, indexer: NodeId) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"welkin/home/1");
    hasher.update(host.as_bytes());
    hasher.update(indexer.as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(n: u8, operator: u8) -> Home {
        let (node, operator) = (NodeId::from_bytes([n; 32]), AccountId::from_bytes([operator; 20]));
        Home { node, operator }
    }

    #[test]
    fn homes_are_spread_stable_and_of_several_operators() {
        let all: Vec<_> = (0..12).map(|n| home(n, n / 4)).collect();
        let mut counts = [0; 12];
        for host in 0..=255 {
            let host = NodeId::from_bytes([host; 32]);
            let of = homes(host, &all, HOMES);
            for node in &of {
                counts[usize::from(node.as_bytes()[0])] += 1;
            }
            let operators: BTreeSet<_> = of.iter().map(|node| node.as_bytes()[0] / 4).collect();
            assert_eq!(operators.len(), 3, "one of each operator");
            // One that goes and is not among them moves nothing.
            let gone = all.iter().position(|home| !of.contains(&home.node)).unwrap();
            let mut fewer = all.clone();
            fewer.remove(gone);
            assert_eq!(homes(host, &fewer, HOMES), of);
        }
        assert!(counts.iter().all(|count| (32..=96).contains(count)), "{counts:?}");
        assert_eq!(homes(NodeId::from_bytes([1; 32]), &all[..2], 5).len(), 2);
    }

    #[test]
    fn numbers_that_can_not_be_true_are_refused() {
        assert!(Tally::default().is_possible() && Tally::default().is_empty());
        let tally = Tally { compared: 3, own: 4, ..Tally::default() };
        assert!(!tally.is_possible() && !tally.is_empty());
        assert!(!Tally { good: Tally::COUNT_MAX + 1, ..Tally::default() }.is_possible());
        let expected = Tally { compared: 2, own_expected_milli: 2_001, ..Tally::default() };
        assert!(!expected.is_possible());
    }
}
