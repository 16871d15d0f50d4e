//! What containers cost in the past, by class and region.

use serde::{Deserialize, Serialize};
use welkin_types::{Class, Region, UnixMillis, Usd};

/// The most points of one answer.
pub const POINTS_MAX: usize = 1_440;

/// "What did this class cost since then?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricesAsked {
    /// Which class.
    pub class: Class,
    /// In which region; `None`: in all together.
    pub region: Option<Region>,
    /// How finely.
    pub span: Span,
    /// From this moment on.
    pub since: UnixMillis,
}

/// The length of time that a point stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// A minute; kept for a day.
    Minute,
    /// An hour; kept for 31 days.
    Hour,
    /// A day, in UTC; kept for two years.
    Day,
}

impl Span {
    /// Every span, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length in milliseconds.
    pub const fn ms(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// How many points are kept.
    pub const fn kept(self) -> u64 {
        match self {
            Self::Minute => 1_440,
            Self::Hour => 744,
            Self::Day => 731,
        }
    }

    /// The beginning of the span in which a moment lies.
    pub const fn begin(self, at: UnixMillis) -> UnixMillis {
        UnixMillis(at.0 - at.0 % self.ms())
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// What a class cost in one span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricePoint {
    /// When it began.
    pub at: UnixMillis,
    /// Prices an hour without notice; `None` where there were none.
    pub on_demand: Option<Spread>,
    /// Prices an hour of what may be taken back.
    pub spot: Option<Spread>,
    /// Slots that were free: of a longer span, the median of its parts.
    pub free: u32,
    /// Slots in all, likewise.
    pub total: u32,
}

/// The spread of some prices an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The lowest.
    pub min: Usd,
    /// The one in the middle, each slot counted; of a longer span, of its parts' medians.
    pub median: Usd,
    /// The highest.
    pub max: Usd,
}

impl PricePoint {
    /// A longer span of its parts; `None` of none.
    pub fn of(at: UnixMillis, parts: &[Self]) -> Option<Self> {
        let spread = |of: fn(&Self) -> Option<Spread>| {
            let spreads: Vec<_> = parts.iter().filter_map(of).collect();
            Some(Spread {
                min: spreads.iter().map(|spread| spread.min).min()?,
                median: median(spreads.iter().map(|spread| spread.median).collect())?,
                max: spreads.iter().map(|spread| spread.max).max()?,
            })
        };
        Some(Self {
            at,
            on_demand: spread(|point| point.on_demand),
            spot: spread(|point| point.spot),
            free: median(parts.iter().map(|point| point.free).collect())?,
            total: median(parts.iter().map(|point| point.total).collect())?,
        })
    }
}

/// The lower one of the two in the middle.
fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}
