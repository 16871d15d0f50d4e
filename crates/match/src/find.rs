//! Who can run a task: filter, rank, choose; or why nobody can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::Offer;
use welkin_proto::index::{CANDIDATES_MAX, LISTED_MAX, Listing, Nearest, WhyNot};
use welkin_types::task::Needs;
use welkin_types::{AccountId, NodeId, OfferId, UnixMillis};

use crate::filter::Facts;
use crate::fleet::Fleet;
use crate::spread::{Stream, spread};

/// How many containers an explanation shows.
const NEAREST_MAX: usize = 3;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What is needed.
    pub needs: &'a Needs,
    /// Hosts not wanted.
    pub exclude: &'a [NodeId],
    /// Who asks.
    pub buyer: AccountId,
    /// How many candidates, from 1 to [`CANDIDATES_MAX`]; other numbers are taken as the nearest.
    pub count: u8,
    /// A random number of the caller's, by which equally cheap candidates are spread.
    pub tie: u64,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Best first; never empty.
    Candidates(Vec<Candidate>),
    /// Nothing fits.
    WhyNot(WhyNot),
}

/// A container that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The container, where it is and how it stands.
    pub listing: Listing,
    /// Who asked.
    pub buyer: AccountId,
}

impl Candidate {
    /// The offer of this container.
    pub fn offer(&self, id: OfferId, expires: UnixMillis) -> Offer {
        let Listing { addr, operator, container, region, online_bp, .. } = self.listing.clone();
        Offer {
            id,
            buyer: self.buyer,
            addr,
            operator,
            container: container.id,
            class: container.class,
            resources: container.resources,
            price: container.price,
            tier: container.tier,
            region,
            online_bp,
            expires,
        }
    }
}

impl Fleet {
    /// Finds who can run a task.
    ///
    /// Ranked by price, then share of checks that found it online, then free slots; equally cheap
    /// ones are then spread by the power of two choices. Where there are more than are asked for,
    /// different hosts are preferred to a second container of one. Slots that are kept for the
    /// buyer itself are found only where there are no others, so that who asks twice finds again
    /// what was kept, and who asks often is spread.
    pub fn find(&self, now: UnixMillis, query: &Query<'_>) -> Found {
        let fits = |facts: &Facts<'_>| facts.fails(query.needs, query.exclude).next().is_none();
        let mut fitting: Vec<_> = self.facts(now, None).filter(fits).collect();
        if fitting.is_empty() {
            fitting = self.facts(now, Some(query.buyer)).filter(fits).collect();
        }
        if fitting.is_empty() {
            return Found::WhyNot(self.why_not(now, query));
        }
        let count = usize::from(query.count.clamp(1, CANDIDATES_MAX));
        let chosen = choose(rank(fitting, query.tie), count);
        let candidates = chosen.iter().filter_map(|facts| {
            let listing = self.listing_of(now, facts)?;
            Some(Candidate { listing, buyer: query.buyer })
        });
        Found::Candidates(candidates.collect())
    }

    /// Lists containers of the wanted kind, be they free or not, cheapest first.
    pub fn listing(
        &self,
        now: UnixMillis,
        needs: Option<&Needs>,
        count_max: usize,
    ) -> Vec<Listing> {
        let is_wanted = |facts: &Facts<'_>| needs.is_none_or(|needs| facts.is_wanted(needs));
        let mut wanted: Vec<_> = self.facts(now, None).filter(is_wanted).collect();
        wanted.sort_by_key(merit);
        let listed = wanted.iter().take(count_max.min(LISTED_MAX));
        listed.filter_map(|facts| self.listing_of(now, facts)).collect()
    }

    /// Why nothing fits.
    fn why_not(&self, now: UnixMillis, query: &Query<'_>) -> WhyNot {
        let mut containers = 0;
        let mut removed = BTreeMap::new();
        let mut nearest: Vec<(Facts<'_>, Vec<_>)> = Vec::with_capacity(NEAREST_MAX + 1);
        for facts in self.facts(now, None) {
            let fails: Vec<_> = facts.fails(query.needs, query.exclude).collect();
            containers += 1;
            if let Some(first) = fails.first() {
                *removed.entry(*first).or_insert(0) += 1;
            }
            let key = (fails.len(), facts.container.price);
            let place =
                nearest.partition_point(|(near, fails)| (fails.len(), near.container.price) <= key);
            nearest.insert(place, (facts, fails));
            nearest.truncate(NEAREST_MAX);
        }
        let near = |(facts, fails): (Facts<'_>, _)| {
            Some(Nearest { listing: self.listing_of(now, &facts)?, fails })
        };
        WhyNot {
            containers,
            removed: removed.into_iter().collect(),
            nearest: nearest.into_iter().filter_map(near).collect(),
        }
    }
}

/// Sorts best first; what is equal in every respect, by name.
fn merit(facts: &Facts<'_>) -> impl Ord + use<> {
    let container = facts.container;
    let quality = (Reverse(facts.online_bp), Reverse(facts.free));
    (container.price, quality, facts.node, container.id)
}

/// Orders by merit, then spreads those of one price.
fn rank(mut facts: Vec<Facts<'_>>, tie: u64) -> Vec<Facts<'_>> {
    facts.sort_by_key(merit);
    let mut stream = Stream::new(tie);
    let groups = facts.chunk_by(|a, b| a.container.price == b.container.price);
    groups.flat_map(|group| spread(group.to_vec(), &mut stream)).collect()
}

/// Takes `count` in order: first of different hosts, then, if these are too few, others.
fn choose(ranked: Vec<Facts<'_>>, count: usize) -> Vec<Facts<'_>> {
    let mut hosts = BTreeSet::new();
    let is_first: Vec<bool> = ranked.iter().map(|facts| hosts.insert(facts.node)).collect();
    let (mut firsts, mut others) = (count.min(hosts.len()), count.saturating_sub(hosts.len()));
    let mut take = |is_first: bool| {
        let left = if is_first { &mut firsts } else { &mut others };
        let is_taken = *left > 0;
        *left = left.saturating_sub(1);
        is_taken
    };
    ranked.into_iter().zip(is_first).filter(|(_, first)| take(*first)).map(|(f, _)| f).collect()
}
