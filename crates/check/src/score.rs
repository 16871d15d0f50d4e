//! The evaluation framework: how good a container and a service are, by what anybody can recompute.
//!
//! Evidence ages by half-lives ([`Beta`]), each dimension counts what it is worth with certainty
//! (Wilson's lower bound), and dimensions are joined by a weighted geometric mean, so that nothing
//! buys off a zero. A newcomer begins low and climbs by evidence. Everything is in integers; every
//! number stands in `docs/reference/evaluation.md` too, and a test compares the two.

mod agree;
mod fixed;
mod service;

use std::collections::BTreeMap;
use std::fmt;

pub use agree::{
    MEDIAN_MAX, OUTLIER, PAYER_WEIGHT_MAX, TRIM_PERCENT, agreed, outliers, payer_weight,
};
use fixed::{Q32, half_lives, minus_log2, power_of_half};
pub use service::{METRICS, Metric, Minute, Service, ServiceKind, minute_quality, session_quality};

/// Which edition of formulas, weights and thresholds this is. Any change of a number raises it.
pub const VERSION: u32 = 1;
const DAY: u64 = 86_400;

/// A share in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(u32);

impl Ppm {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// All.
    pub const ONE: Self = Self(1_000_000);

    /// So many parts per million, at most all.
    pub const fn new(ppm: u32) -> Self {
        if ppm > 1_000_000 { Self::ONE } else { Self(ppm) }
    }

    /// `part` of `whole`, rounded down; nothing of nothing.
    pub fn of(part: u64, whole: u64) -> Self {
        let ppm = (u128::from(part) * 1_000_000).checked_div(u128::from(whole)).unwrap_or(0);
        Self::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    }

    /// The number.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// The same in basis points, rounded down.
    pub fn basis_points(self) -> u16 {
        u16::try_from(self.0 / 100).unwrap_or(10_000)
    }

    fn to_q32(self) -> u64 {
        u64::from(self.0) * Q32 / 1_000_000
    }

    fn from_q32(q32: u64) -> Self {
        let ppm = u128::from(q32) * 1_000_000 + u128::from(Q32 / 2);
        Self::new(u32::try_from(ppm / u128::from(Q32)).unwrap_or(u32::MAX))
    }
}

/// In percent, with two digits.
impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 10_000, self.0 / 100 % 100)
    }
}

/// What a container is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Answers its checkers.
    Availability,
    /// Its hardware is what it claims.
    Hardware,
    /// How quickly work starts.
    Start,
    /// Sessions end as the buyer wanted.
    Sessions,
    /// How good sessions were.
    Quality,
    /// Bandwidth, round trips and place are as claimed.
    Network,
    /// Passive health.
    Health,
    /// Isolation and attestation are as claimed.
    Security,
}

/// How a dimension counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which.
    pub dimension: Dimension,
    /// Its name in documents and output.
    pub name: &'static str,
    /// Its weight in the mean, in percent.
    pub weight: u32,
    /// The half-life of its evidence, in days.
    pub half_life_days: u32,
}

/// The dimensions. The weights are 100 together.
pub const DIMENSIONS: [Rule; 8] = [
    rule(Dimension::Availability, "availability", 25, 30),
    rule(Dimension::Hardware, "hardware", 20, 7),
    rule(Dimension::Start, "start", 10, 7),
    rule(Dimension::Sessions, "sessions", 15, 7),
    rule(Dimension::Quality, "quality", 10, 7),
    rule(Dimension::Network, "network", 8, 7),
    rule(Dimension::Health, "health", 7, 7),
    rule(Dimension::Security, "security", 5, 30),
];

const fn rule(dimension: Dimension, name: &'static str, weight: u32, half_life_days: u32) -> Rule {
    Rule { dimension, name, weight, half_life_days }
}

/// A class of service by score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// The best.
    A,
    /// Good.
    B,
    /// Fair.
    C,
    /// Poor.
    D,
    /// Not to be relied on, or not known yet.
    E,
}

/// The least score of each grade.
pub const GRADES: [(Grade, Ppm); 5] = [
    (Grade::A, Ppm(950_000)),
    (Grade::B, Ppm(900_000)),
    (Grade::C, Ppm(800_000)),
    (Grade::D, Ppm(500_000)),
    (Grade::E, Ppm(0)),
];

impl Grade {
    /// The grade of a score.
    pub fn of(score: Ppm) -> Self {
        let reached = GRADES.iter().find(|(_, least)| score >= *least);
        reached.map_or(Self::E, |(grade, _)| *grade)
    }
}

/// z² of Wilson's bound with z = 1.96, in millionths.
pub const Z_SQUARED_PPM: u64 = 3_841_600;

/// Decayed evidence for and against: a Beta distribution without its prior.
///
/// After `dt` seconds both sums are 2^(−dt/H) of what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beta {
    /// For it, in 2⁻³² of an observation.
    good: u64,
    /// In all.
    all: u64,
    /// When it was last observed, in seconds since 1970.
    at: u64,
}

impl Beta {
    /// Adds an observation of weight `weight_ppm` (a whole one is 1,000,000). One from before the
    /// last counts with its age.
    pub fn observe(&mut self, half_life_seconds: u64, at: u64, value: Ppm, weight_ppm: u32) {
        let mut weight = u64::from(weight_ppm) * Q32 / 1_000_000;
        if at >= self.at {
            let keep = half_lives(at - self.at, half_life_seconds);
            self.good = fixed::times(self.good, keep);
            self.all = fixed::times(self.all, keep);
            self.at = at;
        } else {
            weight = fixed::times(weight, half_lives(self.at - at, half_life_seconds));
        }
        self.all = self.all.saturating_add(weight);
        self.good = self.good.saturating_add(fixed::times(weight, value.to_q32())).min(self.all);
    }

    /// The same, aged to a later moment.
    #[must_use]
    pub fn aged(&self, half_life_seconds: u64, now: u64) -> Self {
        let keep = half_lives(now.saturating_sub(self.at), half_life_seconds);
        let aged = |sum| fixed::times(sum, keep);
        Self { good: aged(self.good), all: aged(self.all), at: self.at.max(now) }
    }

    /// How many observations count, rounded to thousandths.
    pub fn count_milli(&self) -> u64 {
        fixed::round(u128::from(self.all) * 1_000)
    }

    /// The mean.
    pub fn mean(&self) -> Ppm {
        Ppm::of(self.good, self.all)
    }

    /// Wilson's lower bound: what the share is at least, with 97.5 % certainty.
    ///
    /// ```
    /// use welkin_check::score::{Beta, Ppm};
    /// let mut beta = Beta::default();
    /// for _ in 0..10 {
    ///     beta.observe(86_400, 0, Ppm::ONE, 1_000_000);
    /// }
    /// assert_eq!(beta.lower().to_string(), "72.24 %");
    /// ```
    pub fn lower(&self) -> Ppm {
        if self.all == 0 {
            return Ppm::ZERO;
        }
        // (s + z²/2 − z·√(s(n − s)/n + z²/4)) / (n + z²), in 2⁻³².
        let (good, all) = (u128::from(self.good), u128::from(self.all));
        let z2 = u128::from(Z_SQUARED_PPM) * u128::from(Q32) / 1_000_000;
        let under = good * (all - good) / all + z2 / 4;
        let root = (under * z2).isqrt();
        let top = (good + z2 / 2).saturating_sub(root);
        let ppm = top * 1_000_000 / (all + z2);
        Ppm::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    }
}

/// Everything that is known of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    betas: BTreeMap<Dimension, Beta>,
}

impl Card {
    /// Adds an observation; see [`Beta::observe`].
    pub fn observe(&mut self, dimension: Dimension, at: u64, value: Ppm, weight_ppm: u32) {
        let half_life = half_life(dimension);
        self.betas.entry(dimension).or_default().observe(half_life, at, value, weight_ppm);
    }

    /// The score at a moment, with everything that it came from.
    pub fn explain(&self, now: u64) -> Explanation {
        let lines = DIMENSIONS.map(|rule| {
            let beta = self.betas.get(&rule.dimension).copied().unwrap_or_default();
            let beta = beta.aged(half_life(rule.dimension), now);
            Line { rule, count_milli: beta.count_milli(), mean: beta.mean(), lower: beta.lower() }
        });
        let score = geometric_mean(lines.iter().map(|line| (line.lower, line.rule.weight)));
        Explanation { version: VERSION, lines, score, grade: Grade::of(score) }
    }
}

fn half_life(dimension: Dimension) -> u64 {
    let rule = DIMENSIONS.iter().find(|rule| rule.dimension == dimension);
    rule.map_or(7, |rule| u64::from(rule.half_life_days)) * DAY
}

/// Π xᵢ^(wᵢ/Σw). Nothing if one of weight is nothing, or if there is no weight.
pub fn geometric_mean(parts: impl Iterator<Item = (Ppm, u32)>) -> Ppm {
    let (mut logs, mut weights) = (0_u128, 0_u128);
    for (value, weight) in parts.filter(|(_, weight)| *weight > 0) {
        if value == Ppm::ZERO {
            return Ppm::ZERO;
        }
        logs += u128::from(minus_log2(value.to_q32())) * u128::from(weight);
        weights += u128::from(weight);
    }
    let mean = logs.checked_div(weights).and_then(|mean| u64::try_from(mean).ok());
    mean.map_or(Ppm::ZERO, |mean| Ppm::from_q32(power_of_half(mean)))
}

/// One dimension of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it counts.
    pub rule: Rule,
    /// How many observations count now, in thousandths.
    pub count_milli: u64,
    /// Their mean.
    pub mean: Ppm,
    /// What of it is certain.
    pub lower: Ppm,
}

/// How a score came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// By which edition.
    pub version: u32,
    /// The dimensions.
    pub lines: [Line; 8],
    /// The weighted geometric mean of what is certain.
    pub score: Ppm,
    /// Its grade.
    pub grade: Grade,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<13} {:>9} {:>9} {:>9} {:>7}", "", "evidence", "mean", "certain", "weight")?;
        for line in &self.lines {
            let count = format!("{}.{}", line.count_milli / 1_000, line.count_milli / 100 % 10);
            let (mean, lower) = (line.mean.to_string(), line.lower.to_string());
            let name = line.rule.name;
            writeln!(f, "{name:<13} {count:>9} {mean:>9} {lower:>9} {:>5} %", line.rule.weight)?;
        }
        write!(f, "score {}, grade {:?}, evaluation {}", self.score, self.grade, self.version)
    }
}

#[cfg(test)]
mod tests;
