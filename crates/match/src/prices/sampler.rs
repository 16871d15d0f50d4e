//! Counts a fleet again and again: what a container is offered as is read once for each of its
//! announcements, and after that only what is free is looked at.

use std::collections::BTreeMap;

use welkin_types::{CapacityType, UnixMillis, Usd};

use super::{Market, SERIES_MAX, Sample, Series};
use crate::fleet::Fleet;

/// No series, and no price.
const NONE: u32 = u32::MAX;

/// What is known of one container.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Of which announcement of which host.
    print: u64,
    /// Its series in its region; the one of all regions follows it.
    series: u32,
    /// Micro-dollars an hour.
    on_demand: u32,
    spot: u32,
    slots: u32,
}

const NOTHING: Known = Known { print: 0, series: NONE, on_demand: NONE, spot: NONE, slots: 0 };

/// Counts a fleet a piece at a time, and remembers what it has read.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    containers: Vec<Known>,
    series: Vec<Series>,
    /// Of each series of a region that of all regions.
    all_of: Vec<u32>,
    numbers: BTreeMap<Series, u32>,
    samples: Vec<Sample>,
    next: u32,
    /// Containers that were looked at and are not counted yet, with what of each is free.
    looked: Vec<(u32, u32)>,
}

impl Sampler {
    /// Counts the next containers of a fleet; `false` once all are counted.
    pub fn count(&mut self, fleet: &Fleet, now: UnixMillis, count_max: u32) -> bool {
        let has_more = self.look(fleet, now, count_max);
        self.add_up();
        has_more
    }

    /// Looks at the next containers of a fleet, so many at a time that nobody waits for long; `false`
    /// once all were looked at. [`Self::add_up`], which needs no fleet, counts them.
    pub fn look(&mut self, fleet: &Fleet, now: UnixMillis, count_max: u32) -> bool {
        let end = fleet.numbers_end().min(self.next.saturating_add(count_max));
        for number in self.next..end {
            let Some(print) = fleet.print_of(now, number) else { continue };
            let place = number as usize;
            if self.containers.len() <= place {
                self.containers.resize(place + 1, NOTHING);
            }
            if self.containers[place].print != print || self.containers[place].series == NONE {
                self.containers[place] = self.read(fleet, now, (number, print)).unwrap_or(NOTHING);
            }
            self.looked.push((number, fleet.unleased(now, number)));
        }
        self.next = end;
        end < fleet.numbers_end()
    }

    /// Counts what was looked at.
    pub fn add_up(&mut self) {
        for (number, free) in self.looked.drain(..) {
            let known = self.containers[number as usize];
            let prices = (usd(known.on_demand), usd(known.spot));
            let all = self.all_of.get(known.series as usize).copied().unwrap_or(NONE);
            for series in [known.series, all] {
                if let Some(sample) = self.samples.get_mut(series as usize) {
                    sample.add(prices.0, prices.1, free, known.slots);
                }
            }
        }
    }

    /// The market as it was counted; the next count begins anew.
    pub fn finish(&mut self) -> Market {
        self.add_up();
        let counted = self.series.iter().zip(&mut self.samples);
        let market = counted
            .filter(|(_, sample)| sample.total() > 0)
            .map(|(series, sample)| (series.clone(), std::mem::take(sample)))
            .collect();
        self.next = 0;
        if self.series.len() >= SERIES_MAX {
            // Names that nobody offers any more make room for others.
            *self = Self::default();
        }
        Market::of(market)
    }

    fn read(
        &mut self,
        fleet: &Fleet,
        now: UnixMillis,
        (number, print): (u32, u64),
    ) -> Option<Known> {
        let facts = fleet.facts_of(now, number, (None, CapacityType::OnDemand))?;
        let container = &facts.container;
        let (class, region) = (container.class.clone(), facts.region.clone());
        let all = self.number(Series { class: class.clone(), region: None });
        let series = self.number(Series { class, region: Some(region) })?;
        if let Some(place) = self.all_of.get_mut(series as usize) {
            *place = all.unwrap_or(NONE);
        }
        let micros = |price: Usd| u32::try_from(price.micros()).unwrap_or(NONE - 1).min(NONE - 1);
        let spot = container.price_of(CapacityType::Spot).map(|price| price.hour());
        Some(Known {
            print,
            series,
            on_demand: micros(container.price.hour()),
            spot: spot.map_or(NONE, micros),
            slots: container.slots,
        })
    }

    /// The number of a series, a new one while there is room.
    fn number(&mut self, series: Series) -> Option<u32> {
        if let Some(number) = self.numbers.get(&series) {
            return Some(*number);
        }
        let number =
            u32::try_from(self.series.len()).ok().filter(|_| self.series.len() < SERIES_MAX)?;
        self.numbers.insert(series.clone(), number);
        self.series.push(series);
        self.all_of.push(NONE);
        self.samples.push(Sample::default());
        Some(number)
    }
}

fn usd(micros: u32) -> Option<Usd> {
    (micros != NONE).then(|| Usd::from_micros(micros.into()))
}
