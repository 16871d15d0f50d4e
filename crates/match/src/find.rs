//! Who can run a task: filter, rank, choose; or why nobody can.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use welkin_proto::Offer;
use welkin_proto::index::{CANDIDATES_MAX, LISTED_MAX, Listing, Nearest, WhyNot};
use welkin_types::task::Needs;
use welkin_types::{AccountId, CapacityType, NodeId, OfferId, UnixMillis};

use crate::filter::Facts;
use crate::fleet::Fleet;
use crate::index::{
    Considered, Features, PRICE_MAX, Search, WIDTH_MAX, Weights, choose_among, ring_of,
};
use crate::mirror::{self, price_of};

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
    /// On what terms.
    pub capacity: CapacityType,
}

impl Query<'_> {
    /// The part of the search that does not depend on what is needed.
    fn search(&self) -> Search<'static> {
        Search {
            weights: Weights::of(self.needs.policy),
            count: self.count.clamp(1, CANDIDATES_MAX),
            width: WIDTH_MAX,
            request: self.tie,
            ..Search::ANY
        }
    }
}

impl Candidate {
    /// The offer of this container.
    pub fn offer(&self, id: OfferId, expires: UnixMillis) -> Offer {
        let Listing { addr, operator, container, region, online_bp, .. } = self.listing.clone();
        let price = container.price_of(self.capacity).unwrap_or(container.price);
        let is_spot = self.capacity == CapacityType::Spot;
        let notice = container.spot.filter(|_| is_spot).map_or(0, |terms| terms.notice_seconds);
        Offer {
            id,
            buyer: self.buyer,
            addr,
            operator,
            container: container.id,
            class: container.class,
            resources: container.resources,
            capacity: self.capacity,
            notice_seconds: notice,
            price,
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
    /// Ranked by the policy of the needs; equals follow each other on the ring from the request's
    /// point on, and those that cost little more than the best are spread by the power of two
    /// choices. Where there are more than are asked for, different hosts are preferred to a second
    /// container of one. Slots that are kept for the buyer itself are found only where there are no
    /// others, so that who asks twice finds again what was kept, and who asks often is spread.
    pub fn find(&mut self, now: UnixMillis, query: &Query<'_>) -> Found {
        let mut mirror = std::mem::take(&mut self.mirror);
        mirror.refresh(self, now);
        self.mirror = mirror;
        let chosen = self.find_free(now, query);
        let chosen = if chosen.is_empty() { self.find_held(now, query) } else { chosen };
        if chosen.is_empty() {
            return Found::WhyNot(self.why_not(now, query));
        }
        let candidates = chosen.iter().filter_map(|facts| {
            let listing = self.listing_of(now, facts)?;
            Some(Candidate { listing, buyer: query.buyer, capacity: query.needs.capacity })
        });
        Found::Candidates(candidates.collect())
    }

    /// Free containers by the index; by a scan where the index can't tell.
    fn find_free(&self, now: UnixMillis, query: &Query<'_>) -> Vec<Facts<'_>> {
        let mirror = &self.mirror;
        let hosts = mirror.hosts(query.exclude);
        let allow = mirror.operators(&query.needs.operators_allow);
        let deny = mirror.operators(&query.needs.operators_deny);
        let needs = query.needs;
        let search = Search {
            classes: mirror.classes(needs.gpu.as_ref()),
            // Rounded down like what containers have: what fits is found, and perhaps a little
            // that does not quite fit.
            cpu: mirror::cpu_of(needs.cpu_milli_min),
            memory: mirror::memory_of(needs.memory_bytes_min.max(needs.shm_bytes)),
            disk: mirror::disk_of(needs.disk_bytes_min),
            price_max: needs.max_per_hour.map_or(PRICE_MAX, |most| price_of(most.micros())),
            features: Features::at_least(needs.isolation_min),
            quality_min: needs.reliability_min_bp,
            locations: mirror.locations(needs),
            operators_allow: &allow,
            operators_deny: &deny,
            hosts_exclude: &hosts,
            ..query.search()
        };
        let is_fitting = |facts: &Facts<'_>| facts.fails(needs, query.exclude).next().is_none();
        if let Ok(choice) = mirror.index.find(&search) {
            let owners = choice.chosen.iter().filter_map(|chosen| mirror.owner(chosen.row));
            let facts: Vec<_> =
                owners.filter_map(|owner| self.facts_of(now, owner, None)).collect();
            if facts.len() == choice.chosen.len() && facts.iter().all(is_fitting) {
                return facts;
            }
        }
        rank(self.facts(now, None).filter(is_fitting).collect(), query)
    }

    /// Containers of which something is kept for the buyer.
    fn find_held(&self, now: UnixMillis, query: &Query<'_>) -> Vec<Facts<'_>> {
        let held = self.held_for(query.buyer).into_iter();
        let facts = held.filter_map(|owner| self.facts_of(now, owner, Some(query.buyer)));
        let fits = |facts: &Facts<'_>| facts.fails(query.needs, query.exclude).next().is_none();
        rank(facts.filter(fits).collect(), query)
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

/// Chooses among containers that fit as the index does.
fn rank<'a>(facts: Vec<Facts<'a>>, query: &Query<'_>) -> Vec<Facts<'a>> {
    let search = query.search();
    let ring = |facts: &Facts<'_>| ring_of(&[facts.node.as_bytes(), facts.container.id.as_bytes()]);
    let ranked = facts.iter().map(|facts| {
        let terms = Considered {
            ring: ring(facts),
            host: 0,
            price: price_of(facts.container.price.hour().micros()),
            latency: 0,
            quality: facts.online_bp.unwrap_or(0),
            is_cold: false,
            left: 0,
        };
        (terms.terms(&search.weights).sum(), terms.ring)
    });
    let hosts: Vec<_> = facts.iter().map(|facts| facts.node).collect();
    let chosen = choose_among(&search, &ranked.collect::<Vec<_>>(), &hosts);
    chosen.into_iter().filter_map(|place| facts.get(place).copied()).collect()
}
