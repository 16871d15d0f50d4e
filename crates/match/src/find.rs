//! Who can run a task: filter, rank, choose; or why nobody can.

use std::collections::BTreeSet;

use welkin_proto::Offer;
use welkin_proto::index::{CANDIDATES_MAX, Listing, WhyNot};
use welkin_types::task::{GpuAsk, Needs};
use welkin_types::{AccountId, CapacityType, NodeId, OfferId, Region, UnixMillis};

use crate::filter::{Facts, Wish, has_gpus, tenths_of};
use crate::fleet::Fleet;
use crate::fleet::rows::{self, OTHER_CLASS, OTHER_LOCATION, price_of};
use crate::index::{
    ClassSet, Considered, Features, LIST_MAX, LOCATIONS_MAX, PRICE_MAX, Receipt, RowId, Search,
    WIDTH_MAX, Weights, choose_among, ring_of,
};

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
    /// Round trips from the buyer to regions, at most [`LOCATIONS_MAX`]; where there are none they
    /// do not count. What is not among them is as far as can be.
    pub round_trips_us: &'a [(Region, u32)],
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
    pub(crate) const fn wish(&self) -> Wish<'_> {
        let round_trips_us = Some(self.round_trips_us);
        Wish { needs: self.needs, exclude: self.exclude, round_trips_us }
    }

    /// A search with how many are wanted and how they are chosen.
    pub(crate) fn search<'a>(&self, search: Search<'a>) -> Search<'a> {
        Search {
            weights: Weights::of(self.needs.policy),
            count: self.count.clamp(1, CANDIDATES_MAX),
            width: WIDTH_MAX,
            request: self.tie,
            ..search
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
            reserved: container.reserved.filter(|_| self.capacity == CapacityType::Reserved),
            price,
            tier: container.tier,
            region,
            online_bp,
            expires,
            matched: None,
        }
    }
}

/// The numbers that a search is given in lists.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) hosts: Vec<u32>,
    allow: Vec<u32>,
    deny: Vec<u32>,
    latency: Vec<u16>,
    /// Whether sizes are rounded up and shared classes left out, so that whatever is found fits;
    /// else so that whatever fits is found.
    pub(crate) is_sure: bool,
}

/// How often a search is repeated because something of what it found was not so.
pub(crate) const ROUNDS_MAX: usize = 16;

impl Fleet {
    /// Finds who can run a task.
    ///
    /// Ranked by the policy of the needs; equals follow each other on the ring from the request's
    /// point on, and those that cost little more than the best are spread by the power of two
    /// choices. Where there are more than are asked for, different hosts are preferred to a second
    /// container of one. Slots that are kept for the buyer itself are found only where there are no
    /// others, so that who asks twice finds again what was kept, and who asks often is spread.
    pub fn find(&mut self, now: UnixMillis, query: &Query<'_>) -> Found {
        self.candidates(now, query, None)
            .map(|(candidates, _)| candidates)
            .map_or_else(|| Found::WhyNot(self.why_not(now, query)), Found::Candidates)
    }

    /// The same without a word on why there are none, and with a receipt if a digest of the query
    /// is given.
    pub fn candidates(
        &mut self,
        now: UnixMillis,
        query: &Query<'_>,
        digest: Option<[u8; 32]>,
    ) -> Option<(Vec<Candidate>, Option<Receipt>)> {
        let is_settled = self.settle_a_little(now);
        let (mut chosen, mut receipt) = self.find_free(now, query, (is_settled, digest));
        if chosen.is_empty() {
            (chosen, receipt) = self.find_held(now, query, digest);
        }
        let chosen = self.as_candidates(now, query, chosen);
        (!chosen.is_empty()).then_some((chosen, receipt))
    }

    /// What is said of containers that were found.
    pub(crate) fn as_candidates(
        &self,
        now: UnixMillis,
        query: &Query<'_>,
        chosen: Vec<u32>,
    ) -> Vec<Candidate> {
        let way = query.needs.capacity;
        let candidates = chosen.into_iter().filter_map(|number| {
            let facts = self.facts_of(now, number, (None, way)).filter(|facts| facts.free > 0);
            let facts = facts.or_else(|| self.facts_of(now, number, (Some(query.buyer), way)))?;
            let listing = self.listing_of(facts)?;
            Some(Candidate { listing, buyer: query.buyer, capacity: way })
        });
        candidates.collect()
    }

    /// Free containers by the index.
    ///
    /// The index counts in whole units and may be a little behind the time, so what it finds is
    /// compared with what is so. What does not quite fit is left out and the search repeated; if
    /// that goes on for too long, only what surely fits is looked for.
    fn find_free(
        &mut self,
        now: UnixMillis,
        query: &Query<'_>,
        (is_settled, digest): (bool, Option<[u8; 32]>),
    ) -> (Vec<u32>, Option<Receipt>) {
        let mut lists = self.lists(&query.wish());
        for round in 0..ROUNDS_MAX {
            lists.is_sure |= round + 1 == ROUNDS_MAX;
            let search = query.search(self.search(query.needs, &lists));
            let Ok(choice) = self.index.find(&search) else { break };
            if !is_settled && self.freshen(now, choice.considered.iter().flatten()) {
                continue;
            }
            let owners = choice.chosen.iter().filter_map(|chosen| self.owner(chosen.row));
            let owners: Vec<_> = owners.collect();
            let unfit = self.unfit(now, query, &owners);
            if unfit.is_empty() {
                let receipt = digest.map(|query| self.index.receipt(&search, &choice, query));
                return (owners, receipt);
            }
            if lists.is_sure {
                break;
            }
            lists.is_sure = lists.hosts.len() + unfit.len() > LIST_MAX;
            if !lists.is_sure {
                lists.hosts.extend(unfit);
            }
        }
        (Vec::new(), None)
    }

    /// The hosts of those that do not quite fit.
    pub(crate) fn unfit(&self, now: UnixMillis, query: &Query<'_>, owners: &[u32]) -> Vec<u32> {
        let (wish, way) = (query.wish(), (None, query.needs.capacity));
        let unfit = owners.iter().filter_map(|number| match self.facts_of(now, *number, way) {
            Some(facts) => facts.fails(&wish).next().map(|_| facts.host),
            None => self.hosts.host_of(*number),
        });
        unfit.collect()
    }

    /// Brings up to date what is not, of these rows; whether there was any.
    pub(crate) fn freshen<'a>(
        &mut self,
        now: UnixMillis,
        rows: impl Iterator<Item = &'a RowId>,
    ) -> bool {
        let stale: Vec<_> = rows.filter(|row| !self.is_fresh(now, **row)).collect();
        for row in &stale {
            if let Some(number) = self.owner(**row) {
                self.write_rows(now, number);
            }
        }
        !stale.is_empty()
    }

    /// The numbers of hosts and operators that are known, and the round trips to locations.
    pub(crate) fn lists(&self, wish: &Wish<'_>) -> Lists {
        // An operator that is not known is not left out of the list of those allowed: an empty one
        // would allow all.
        let numbers = |accounts: &[AccountId]| -> Vec<u32> {
            let known = accounts.iter().map(|account| self.operator_number(*account));
            known.map(|number| number.unwrap_or(u32::MAX)).collect()
        };
        Lists {
            hosts: wish.exclude.iter().filter_map(|node| self.hosts.number(*node)).collect(),
            allow: numbers(&wish.needs.operators_allow),
            deny: numbers(&wish.needs.operators_deny),
            latency: self.latency(wish),
            is_sure: false,
        }
    }

    /// The round trip to each location; to one that regions share, the least of theirs.
    fn latency(&self, wish: &Wish<'_>) -> Vec<u16> {
        let Some(known @ [_, ..]) = wish.round_trips_us else { return Vec::new() };
        let mut latency = vec![u16::MAX; LOCATIONS_MAX];
        for (region, us) in known {
            let Some(number) = self.regions.get(region) else { continue };
            let to = &mut latency[usize::from(rows::location_of(number))];
            *to = tenths_of(*us).min(*to);
        }
        latency
    }

    /// What is needed, as the index is asked for it.
    pub(crate) fn search<'a>(&self, needs: &Needs, lists: &'a Lists) -> Search<'a> {
        let memory = needs.memory_bytes_min.max(needs.shm_bytes);
        let up = |size: u64, unit: u64| match lists.is_sure {
            true => size.saturating_add(unit - 1),
            false => size,
        };
        let cpu = u32::try_from(up(needs.cpu_milli_min.into(), 10)).unwrap_or(u32::MAX);
        let features = needs.features.iter().map(|feature| rows::feature_of(*feature));
        let features = features.fold(way_of(needs.capacity), |all, feature| all | feature);
        let driver = needs.driver_min.map(|least| up(least.into(), 5));
        let driver = driver.map_or(0, |least| u16::try_from(least).unwrap_or(u16::MAX));
        // Those that nobody has ready are cold everywhere.
        let app = |app| self.apps.get(&app).and_then(rows::app_of).unwrap_or(rows::NO_APP);
        Search {
            classes: self.classes(needs.gpu.as_ref(), lists.is_sure),
            cpu: rows::cpu_of(cpu),
            memory: rows::memory_of(up(memory, 1 << 16)),
            disk: rows::disk_of(up(needs.disk_bytes_min, 1 << 20)),
            price_max: needs.max_per_hour.map_or(PRICE_MAX, |most| price_of(most.micros())),
            features: Features::at_least(needs.isolation_min) | features | Features::driver(driver),
            quality_min: needs.reliability_min_bp,
            locations: self.locations(needs, lists.is_sure),
            latency: &lists.latency,
            latency_max: needs.rtt_us_max.map_or(u16::MAX, tenths_of),
            operators_allow: &lists.allow,
            operators_deny: &lists.deny,
            hosts_exclude: &lists.hosts,
            app: needs.app.map(app),
            is_app_required: needs.is_app_required,
            ..Search::ANY
        }
    }

    /// The kinds of hardware that are asked for, and perhaps others.
    fn classes(&self, ask: Option<&GpuAsk>, is_sure: bool) -> ClassSet {
        let Some(ask) = ask else { return ClassSet::ALL };
        let mut set = ClassSet::NONE;
        for (number, kind) in self.kinds.iter() {
            let class = rows::class_of(number);
            if class == OTHER_CLASS {
                if !is_sure {
                    set.insert(OTHER_CLASS);
                }
                break;
            }
            if has_gpus(&kind.0, ask) {
                set.insert(class);
            }
        }
        set
    }

    /// The regions that are asked for, and perhaps others.
    fn locations(&self, needs: &Needs, is_sure: bool) -> u128 {
        if needs.regions.is_empty() {
            return u128::MAX;
        }
        let known = needs.regions.iter().filter_map(|region| self.regions.get(region));
        let known = known.map(rows::location_of);
        let known = known.filter(|location| !is_sure || *location != OTHER_LOCATION);
        known.fold(0, |set, location| set | 1 << location)
    }

    /// Containers of which something is kept for the buyer.
    fn find_held(
        &self,
        now: UnixMillis,
        query: &Query<'_>,
        digest: Option<[u8; 32]>,
    ) -> (Vec<u32>, Option<Receipt>) {
        let (wish, way) = (query.wish(), (Some(query.buyer), query.needs.capacity));
        let held = self.held_for(now, query.buyer).into_iter();
        let facts = held.filter_map(|number| Some((number, self.facts_of(now, number, way)?)));
        let fits = |facts: &Facts<'_>| facts.fails(&wish).next().is_none();
        let held: Vec<_> = facts.filter(|(_, facts)| fits(facts)).collect();
        let (search, facts) = (query.search(Search::ANY), considered_of(&held, query));
        let chosen = rank(&held, &facts, &search);
        let receipt = digest.map(|query| {
            let lists = drawn_from(&search, &facts);
            let at = |place: &usize| {
                let numbered = (0_u8..).zip(&lists);
                numbered.into_iter().find_map(|(number, list)| {
                    let at = list.iter().position(|other| other == place)?;
                    Some((number, u8::try_from(at).ok()?))
                })
            };
            let chosen = chosen.iter().filter_map(at).collect();
            let of = |list: &Vec<usize>| list.iter().map(|place| facts[*place]).collect();
            Receipt {
                epoch: self.index.epoch(),
                query,
                weights: search.weights,
                count: search.count,
                width: search.width,
                slack: search.slack,
                request: search.request,
                considered: lists.iter().map(of).collect(),
                chosen,
            }
        });
        let number = |place: usize| held.get(place).map(|(number, _)| *number);
        (chosen.into_iter().filter_map(number).collect(), receipt)
    }
}

/// The feature that tells a way of leasing.
pub(crate) const fn way_of(capacity: CapacityType) -> Features {
    match capacity {
        CapacityType::OnDemand => Features::ON_DEMAND,
        CapacityType::Spot => Features::SPOT,
        CapacityType::Reserved => Features::RESERVED,
    }
}

/// The facts of a container by which it is weighed.
pub(crate) fn considered(facts: &Facts<'_>, query: &Query<'_>) -> Considered {
    let (needs, container) = (query.needs, &facts.container);
    let price = container.price_of(needs.capacity).unwrap_or(container.price);
    Considered {
        ring: ring_of(&[facts.node.as_bytes(), container.id.as_bytes()]),
        host: facts.host,
        price: price_of(price.hour().micros()),
        latency: query.wish().latency_to(facts.region),
        quality: facts.quality,
        is_cold: needs.app.is_some_and(|app| !container.apps.contains(&app)),
        left: rows::small(facts.free.saturating_sub(1)),
    }
}

fn considered_of(held: &[(u32, Facts<'_>)], query: &Query<'_>) -> Vec<Considered> {
    held.iter().map(|(_, facts)| considered(facts, query)).collect()
}

/// Chooses among containers that fit as the index does; their places.
fn rank(held: &[(u32, Facts<'_>)], facts: &[Considered], search: &Search<'_>) -> Vec<usize> {
    let ranked = facts.iter().map(|one| (one.terms(&search.weights).sum(), one.ring));
    let hosts: Vec<_> = held.iter().map(|(_, facts)| facts.node).collect();
    choose_among(search, &ranked.collect::<Vec<_>>(), &hosts)
}

/// The lists that [`choose_among`] draws from, as places, best first: what a receipt shows.
fn drawn_from(search: &Search<'_>, facts: &[Considered]) -> Vec<Vec<usize>> {
    let cost = |place: usize| facts[place].terms(&search.weights).sum();
    let mut left: Vec<usize> = (0..facts.len()).collect();
    left.sort_by_key(|place| {
        (cost(*place), facts[*place].ring.wrapping_sub(search.point()), *place)
    });
    let (mut lists, mut hosts) = (Vec::new(), BTreeSet::new());
    let count = usize::from(search.count);
    // All of a list are drawn unless there are enough hosts in it, and then there is no other.
    while let Some(best) = left.first().filter(|_| hosts.len() < count) {
        let near_max = search.near(cost(*best));
        let near = left.partition_point(|place| cost(*place) <= near_max);
        let near = near.min(search.width.into()).max(count).min(left.len());
        let (list, is_last) = (left[..near].to_vec(), left.len() < count);
        hosts.extend(list.iter().map(|place| facts[*place].host));
        left.retain(|place| !hosts.contains(&facts[*place].host));
        lists.push(list);
        if is_last {
            break;
        }
    }
    lists
}
