//! The market at one moment, taken from a fleet a piece at a time.

use std::collections::BTreeMap;

use welkin_proto::prices::{PricePoint, Spread};
use welkin_types::{Class, Region, UnixMillis, Usd};

use super::{SERIES_MAX, Series, bounded};

/// The most different prices of a series that are told apart; more are counted with the nearest
/// lower one.
const PRICES_MAX: usize = 256;

/// The prices and slots of a series at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    on_demand: BTreeMap<Usd, u64>,
    spot: BTreeMap<Usd, u64>,
    free: u64,
    total: u64,
    /// The lowest price on demand of a free slot.
    cheapest: Option<Usd>,
}

impl Sample {
    /// Counts slots that are to be had at a price an hour, or for spot at another.
    pub fn add(&mut self, on_demand: Option<Usd>, spot: Option<Usd>, free: u32, total: u32) {
        for (prices, price) in [(&mut self.on_demand, on_demand), (&mut self.spot, spot)] {
            let Some(price) = price.map(bounded) else { continue };
            let near = match prices.len() >= PRICES_MAX {
                true => prices.range(..=price).next_back().map_or(price, |(near, _)| *near),
                false => price,
            };
            if prices.len() < PRICES_MAX || prices.contains_key(&near) {
                *prices.entry(near).or_default() += u64::from(total);
            }
        }
        self.free += u64::from(free);
        self.total += u64::from(total);
        let offered = on_demand.filter(|_| free > 0);
        self.cheapest = self.cheapest.into_iter().chain(offered).min();
    }

    /// Slots, free or not.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Slots free.
    pub const fn free(&self) -> u64 {
        self.free
    }

    /// The lowest price on demand of a free slot, an hour.
    pub const fn cheapest(&self) -> Option<Usd> {
        self.cheapest
    }

    /// The median price on demand, slot by slot, an hour.
    pub fn median(&self) -> Option<Usd> {
        spread(&self.on_demand).map(|spread| spread.median)
    }

    /// The point of this sample.
    pub fn point(&self, at: UnixMillis) -> PricePoint {
        let count = |slots: u64| u32::try_from(slots).unwrap_or(u32::MAX);
        PricePoint {
            at,
            on_demand: spread(&self.on_demand),
            spot: spread(&self.spot),
            free: count(self.free),
            total: count(self.total),
        }
    }
}

fn spread(prices: &BTreeMap<Usd, u64>) -> Option<Spread> {
    let all: u64 = prices.values().sum();
    let mut before = 0;
    let median = prices.iter().find_map(|(price, slots)| {
        before += slots;
        (2 * before >= all).then_some(*price)
    });
    Some(Spread {
        min: *prices.first_key_value()?.0,
        median: median?,
        max: *prices.last_key_value()?.0,
    })
}

/// The market at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Market {
    samples: BTreeMap<Series, Sample>,
}

impl Market {
    /// Of samples that were taken elsewhere.
    pub(super) const fn of(samples: BTreeMap<Series, Sample>) -> Self {
        Self { samples }
    }

    /// Counts slots of a class in a region.
    pub fn add(
        &mut self,
        class: &Class,
        region: &Region,
        (on_demand, spot): (Option<Usd>, Option<Usd>),
        (free, total): (u32, u32),
    ) {
        for region in [Some(region.clone()), None] {
            let series = Series { class: class.clone(), region };
            if self.samples.len() >= SERIES_MAX && !self.samples.contains_key(&series) {
                continue;
            }
            self.samples.entry(series).or_default().add(on_demand, spot, free, total);
        }
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The series, in order.
    pub fn series(&self) -> impl Iterator<Item = (&Series, &Sample)> {
        self.samples.iter()
    }
}
