//! What there is, and why nothing fits: off the path of matches, and bounded.
//!
//! A small fleet is looked at container by container, as it was announced. Of a large one the index
//! says it, in its own units, and beyond its bound by looking at some and scaling.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::index::{Filter, GangAsk, LISTED_MAX, Listing, Nearest, Together, WhyNot};
use welkin_types::task::Needs;
use welkin_types::{CapacityType, UnixMillis};

use super::Fleet;
use crate::filter::{Facts, Wish};
use crate::find::{Query, way_of};
use crate::index::{Barrier, Features, Search};

/// Fleets of so many containers are looked at one by one.
pub(super) const LOOKED_AT_MAX: usize = 1_024;
/// How many containers an explanation shows.
const NEAREST_MAX: usize = 3;

impl Fleet {
    /// Lists containers of the wanted kind, be they free or not, cheapest first. Of a large fleet
    /// it lists the cheapest that are free, and then some of those that are not.
    pub fn listing(
        &mut self,
        now: UnixMillis,
        needs: Option<&Needs>,
        count_max: usize,
    ) -> Vec<Listing> {
        self.settle_a_little(now);
        let count_max = count_max.min(LISTED_MAX);
        let way = needs.map_or(CapacityType::OnDemand, |needs| needs.capacity);
        let is_wanted = |facts: &Facts<'_>| needs.is_none_or(|needs| facts.is_wanted(needs));
        let mut wanted: Vec<_> = if self.containers() <= LOOKED_AT_MAX {
            self.facts(now, way).filter(is_wanted).collect()
        } else {
            let places = self.places_of(needs, count_max).into_iter();
            let facts = places.filter_map(|at| self.facts_of(now, at, (None, way)));
            facts.filter(is_wanted).collect()
        };
        wanted.sort_by_cached_key(merit);
        let listed = wanted.into_iter().take(count_max);
        listed.filter_map(|facts| self.listing_of(facts)).collect()
    }

    /// Containers that are worth listing, in a large fleet.
    fn places_of(&self, needs: Option<&Needs>, count: usize) -> Vec<u32> {
        let default = Needs::default();
        let lists = self.lists(&Wish::anywhere(needs.unwrap_or(&default)));
        let any = Search { features: Features::ON_DEMAND, ..Search::ANY };
        let search = needs.map_or(any, |needs| self.search(needs, &lists));
        let free = self.index.cheapest(&search, count);
        let mut places: Vec<_> = free.into_iter().filter_map(|row| self.owner(row)).collect();
        if places.len() < count {
            let some = self.index.some_busy(&search, count - places.len(), LOOKED_AT_MAX * 16);
            places.extend(some.into_iter().filter_map(|row| self.owner(row)));
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Why nothing fits.
    pub fn why_not(&self, now: UnixMillis, query: &Query<'_>) -> WhyNot {
        if self.containers() <= LOOKED_AT_MAX {
            return self.why_not_one(now, query);
        }
        let lists = self.lists(&query.wish());
        let containers = count_of(self.containers());
        let of = way_of(query.needs.capacity);
        let Ok(why) = self.index.explain_of(&self.search(query.needs, &lists), of) else {
            return WhyNot { containers, ..WhyNot::default() };
        };
        let mut removed = BTreeMap::new();
        for (barrier, count) in why.removed {
            *removed.entry(filter_of(barrier, query.needs)).or_insert(0) += count_of(count);
        }
        let others = containers.saturating_sub(count_of(why.containers));
        if others > 0 {
            removed.insert(Filter::Capacity, others);
        }
        let rows = why.nearest.into_iter().map(|near| near.row);
        let way = (None, query.needs.capacity);
        let facts = rows.filter_map(|row| self.facts_of(now, self.owner(row)?, way));
        WhyNot {
            containers,
            removed: removed.into_iter().collect(),
            nearest: facts.filter_map(|facts| self.nearest(query, facts)).collect(),
        }
    }

    /// Why there is no whole gang. Where there would be if what is taken were free, those that fit
    /// alone count as taken; else it is said that too few fit together. Of a large fleet it is not
    /// looked whether there would be.
    pub fn why_not_gang(&self, now: UnixMillis, query: &Query<'_>, ask: &GangAsk) -> WhyNot {
        let mut why = self.why_not(now, query);
        let alone = why.containers - why.removed.iter().map(|(_, count)| *count).sum::<u32>();
        let filter =
            if self.is_room_for(now, query, ask) { Filter::Free } else { Filter::Together };
        if alone > 0 || filter == Filter::Together {
            match why.removed.iter_mut().find(|(known, _)| *known == filter) {
                Some((_, count)) => *count += alone,
                None => why.removed.push((filter, alone)),
            }
        }
        why
    }

    /// Whether the gang would fit if nothing were taken.
    fn is_room_for(&self, now: UnixMillis, query: &Query<'_>, ask: &GangAsk) -> bool {
        if self.containers() > LOOKED_AT_MAX {
            return true;
        }
        let wish = query.wish();
        let (mut slots, mut hosts) = (BTreeMap::new(), BTreeSet::new());
        for facts in self.facts(now, query.needs.capacity) {
            let is_passing = |filter| matches!(filter, Filter::Free | Filter::Excluded);
            if !facts.fails(&wish).all(is_passing) {
                continue;
            }
            let is_another = hosts.insert(facts.host) || !ask.is_spread;
            let region = (ask.together == Together::Site).then_some(facts.region);
            let carried = if ask.is_spread { 1 } else { facts.container.slots };
            if is_another {
                let sum = slots.entry(region).or_insert(0_u32);
                *sum = sum.saturating_add(carried);
            }
        }
        slots.values().any(|sum| *sum >= u32::from(ask.members))
    }

    /// The same by looking at every container.
    fn why_not_one(&self, now: UnixMillis, query: &Query<'_>) -> WhyNot {
        let mut containers = 0;
        let mut removed = BTreeMap::new();
        let mut nearest = Vec::with_capacity(NEAREST_MAX + 1);
        let wish = query.wish();
        for facts in self.facts(now, query.needs.capacity) {
            let mut fails = facts.fails(&wish).peekable();
            containers += 1;
            if let Some(first) = fails.peek() {
                *removed.entry(*first).or_insert(0) += 1;
            }
            let container = &facts.container;
            let key = (fails.count(), container.price, facts.node, container.id);
            let place = nearest.partition_point(|(other, _)| *other < key);
            if place < NEAREST_MAX {
                nearest.insert(place, (key, facts));
                nearest.truncate(NEAREST_MAX);
            }
        }
        let nearest = nearest.into_iter().filter_map(|(_, facts)| self.nearest(query, facts));
        WhyNot { containers, removed: removed.into_iter().collect(), nearest: nearest.collect() }
    }

    fn nearest(&self, query: &Query<'_>, facts: Facts<'_>) -> Option<Nearest> {
        let fails = facts.fails(&query.wish()).collect();
        Some(Nearest { fails, listing: self.listing_of(facts)? })
    }
}

fn count_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The filter that stands for a barrier of the index.
fn filter_of(barrier: Barrier, needs: &Needs) -> Filter {
    match barrier {
        Barrier::Class => Filter::Gpu,
        Barrier::Cpu => Filter::Cpu,
        Barrier::Memory => Filter::Memory,
        Barrier::Disk => Filter::Disk,
        Barrier::Features if !needs.features.is_empty() => Filter::Feature,
        Barrier::Features if needs.driver_min.is_some() => Filter::Driver,
        Barrier::Features => Filter::Isolation,
        Barrier::Location => Filter::Region,
        Barrier::Latency => Filter::RoundTrip,
        Barrier::Operator => Filter::Operator,
        Barrier::Price => Filter::Price,
        Barrier::Quality => Filter::Reliability,
        Barrier::Excluded => Filter::Excluded,
        Barrier::App => Filter::App,
        Barrier::Free => Filter::Free,
    }
}

/// Sorts best first; what is equal in every respect, by name.
fn merit(facts: &Facts<'_>) -> impl Ord + use<> {
    let container = &facts.container;
    let quality = (Reverse(facts.online_bp), Reverse(facts.free));
    (container.price, quality, facts.node, container.id)
}
