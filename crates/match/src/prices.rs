//! What containers cost by class and region: samples of the market, folded into minutes, hours and
//! days.
//!
//! [`Prices`] holds no history, only what the open hour and day are made of; whoever keeps the
//! points puts each under [`slot`], so that a series takes [`Span::kept`] places of each span and
//! never more. [`Rings`] does so in memory.

use std::collections::BTreeMap;

use welkin_proto::prices::{POINTS_MAX, PricePoint, Span};
use welkin_types::{Class, Region, UnixMillis, Usd};

mod sample;
mod sampler;

pub use sample::{Market, Sample};
pub use sampler::Sampler;

/// The most series: classes, each by region and in all regions together.
pub const SERIES_MAX: usize = 8_192;

/// Names a series: a class in one region, or in all together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The class.
    pub class: Class,
    /// The region; `None` for all together.
    pub region: Option<Region>,
}

/// A point of a series, to be kept in place of an older one of the same [`slot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of which series.
    pub series: Series,
    /// How long a time it stands for.
    pub span: Span,
    /// The point.
    pub point: PricePoint,
}

/// The place of a point among those of its series and span.
pub const fn slot(span: Span, at: UnixMillis) -> u64 {
    at.0 / span.ms() % span.kept()
}

/// Whether a point is still one of those that are kept.
pub const fn is_kept(span: Span, at: UnixMillis, now: UnixMillis) -> bool {
    let (point, present) = (at.0 / span.ms(), now.0 / span.ms());
    point <= present && present - point < span.kept()
}

/// What the open hour and day of a series are made of.
#[derive(Clone, Debug, Default)]
struct Open {
    minutes: Vec<PricePoint>,
    hours: Vec<PricePoint>,
}

/// The open hours and days of all series.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    open: BTreeMap<Series, Open>,
}

impl Prices {
    /// Takes what the market was in the minute of `now`. Returns the points to be kept: the minute,
    /// and the hour and the day as far as they have come. Series beyond [`SERIES_MAX`] are left out.
    pub fn record(&mut self, now: UnixMillis, market: &Market) -> Vec<Record> {
        let mut records = Vec::with_capacity(3 * market.len());
        for (series, sample) in market.series() {
            if self.open.len() >= SERIES_MAX && !self.open.contains_key(series) {
                continue;
            }
            let point = sample.point(Span::Minute.begin(now));
            let open = self.open.entry(series.clone()).or_default();
            open.minute(point).into_iter().for_each(|(span, point)| {
                records.push(Record { series: series.clone(), span, point });
            });
        }
        // A series that nothing was offered of since yesterday needs no place.
        let today = Span::Day.begin(now);
        self.open.retain(|_, open| open.is_of(today));
        records
    }

    /// Takes in what was kept of a series before a restart: minutes of the present hour and hours
    /// of the present day; others are left out.
    pub fn restore(
        &mut self,
        now: UnixMillis,
        series: Series,
        minutes: &[PricePoint],
        hours: &[PricePoint],
    ) {
        if self.open.len() >= SERIES_MAX && !self.open.contains_key(&series) {
            return;
        }
        let (hour, day) = (Span::Hour.begin(now), Span::Day.begin(now));
        let of = |points: &[PricePoint], span: Span, begin: UnixMillis, before: UnixMillis| {
            let mut kept: BTreeMap<UnixMillis, PricePoint> = BTreeMap::new();
            let present = points.iter().filter(|point| point.at >= begin && point.at <= before);
            kept.extend(present.map(|point| (span.begin(point.at), *point)));
            kept.into_values().collect::<Vec<_>>()
        };
        let minutes = of(minutes, Span::Minute, hour, now);
        let mut hours = of(hours, Span::Hour, day, now);
        // The open hour is folded from its minutes.
        hours.retain(|point| point.at < hour);
        if !minutes.is_empty() || !hours.is_empty() {
            self.open.insert(series, Open { minutes, hours });
        }
    }

    /// How many series are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Open {
    fn minute(&mut self, point: PricePoint) -> [(Span, PricePoint); 3] {
        let (hour, day) = (Span::Hour.begin(point.at), Span::Day.begin(point.at));
        let is_new_hour = self.minutes.last().is_some_and(|last| Span::Hour.begin(last.at) != hour);
        if is_new_hour {
            let ended = self.minutes.first().map(|first| Span::Hour.begin(first.at));
            if let Some(folded) = ended.and_then(|at| PricePoint::of(at, &self.minutes)) {
                self.hours.push(folded);
            }
            self.minutes.clear();
        }
        self.hours.retain(|point| Span::Day.begin(point.at) == day);
        // A clock that was set back does not count a minute twice.
        self.minutes.retain(|minute| minute.at < point.at);
        self.hours.retain(|point| point.at < hour);
        self.minutes.push(point);
        let hour = PricePoint::of(hour, &self.minutes).unwrap_or(PricePoint { at: hour, ..point });
        let parts: Vec<_> = self.hours.iter().chain([&hour]).copied().collect();
        let day = PricePoint::of(day, &parts).unwrap_or(PricePoint { at: day, ..point });
        [(Span::Minute, point), (Span::Hour, hour), (Span::Day, day)]
    }

    fn is_of(&self, today: UnixMillis) -> bool {
        self.minutes.iter().chain(&self.hours).any(|point| point.at >= today)
    }
}

/// A history in memory: the same places as on a disk, for a role without a folder.
#[derive(Clone, Debug, Default)]
pub struct Rings {
    points: BTreeMap<Series, BTreeMap<(Span, u64), PricePoint>>,
}

impl Rings {
    /// Keeps points, each in place of the one that had its [`slot`]. New series beyond
    /// [`SERIES_MAX`] are left out.
    pub fn append(&mut self, records: &[Record]) {
        for Record { series, span, point } in records {
            if self.points.len() >= SERIES_MAX && !self.points.contains_key(series) {
                continue;
            }
            let ring = self.points.entry(series.clone()).or_default();
            ring.insert((*span, slot(*span, point.at)), *point);
        }
    }

    /// The points of a series from a moment on that are still kept, the oldest first.
    pub fn read(
        &self,
        now: UnixMillis,
        series: &Series,
        span: Span,
        since: UnixMillis,
    ) -> Vec<PricePoint> {
        let Some(ring) = self.points.get(series) else { return Vec::new() };
        let all = ring.range((span, 0)..=(span, u64::MAX)).map(|(_, point)| *point);
        chosen(all.collect(), now, span, since)
    }
}

/// Of the points of a series those from a moment on that are still kept, the oldest first, and of
/// too many the latest.
pub fn chosen(
    mut points: Vec<PricePoint>,
    now: UnixMillis,
    span: Span,
    since: UnixMillis,
) -> Vec<PricePoint> {
    let since = span.begin(since);
    points.retain(|point| point.at >= since && is_kept(span, point.at, now));
    points.sort_unstable_by_key(|point| point.at);
    points.split_off(points.len().saturating_sub(POINTS_MAX))
}

/// An amount that fits the market's arithmetic.
fn bounded(price: Usd) -> Usd {
    price.min(Usd::MAX)
}

#[cfg(test)]
mod tests;
