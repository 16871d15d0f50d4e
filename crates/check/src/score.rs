//! The evaluation framework: how good a container and a service are, by what anybody can recompute.
//!
//! Evidence ages by half-lives ([`Beta`]), each dimension counts what it is worth with certainty
//! (Wilson's lower bound), and dimensions are joined by a weighted geometric mean, so that nothing
//! buys off a zero. A newcomer begins low and climbs by evidence. Everything is in integers; every
//! number stands in `docs/reference/evaluation.md` too, and a test compares the two.

mod agree;
mod service;
mod session;

use std::collections::BTreeMap;
use std::fmt;

pub use agree::{MEDIAN_MAX, OUTLIER, TRIM_PERCENT, agreed, outliers};
pub use service::{METRICS, Metric, Service, ServiceKind};
pub use session::{
    BOUND, CHECKERS_MIN, SILENT, Said, SessionQuality, checkers_agree, settled_value, side_value,
};
pub use welkin_types::evidence::{
    Beta, PAYER_WEIGHT_MAX, Ppm, Z_SQUARED_PPM, geometric_mean, payer_weight,
};

/// Which edition of formulas, weights and thresholds this is. Any change of a number raises it.
pub const VERSION: u32 = 4;
/// A good observation of so many millionths stands at the beginning of every dimension and does not age:
/// where nothing is known, 10 % is certain, so that who was never used is not as one that has failed.
pub const PRIOR_PPM: u32 = 430_000;
const DAY: u64 = 86_400;

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
    /// It does what was measured, where it says that it stands.
    Network,
    /// Passive health.
    Health,
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
pub const DIMENSIONS: [Rule; 7] = [
    rule(Dimension::Availability, "availability", 25, 30),
    rule(Dimension::Hardware, "hardware", 20, 7),
    rule(Dimension::Start, "start", 10, 7),
    rule(Dimension::Sessions, "sessions", 15, 7),
    rule(Dimension::Quality, "quality", 10, 7),
    rule(Dimension::Network, "network", 10, 7),
    rule(Dimension::Health, "health", 10, 7),
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
    (Grade::A, Ppm::new(950_000)),
    (Grade::B, Ppm::new(900_000)),
    (Grade::C, Ppm::new(800_000)),
    (Grade::D, Ppm::new(500_000)),
    (Grade::E, Ppm::ZERO),
];

impl Grade {
    /// The grade of a score.
    pub fn of(score: Ppm) -> Self {
        let reached = GRADES.iter().find(|(_, least)| score >= *least);
        reached.map_or(Self::E, |(grade, _)| *grade)
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
            let (count_milli, mean, mut whole) = (beta.count_milli(), beta.mean(), beta);
            whole.observe(half_life(rule.dimension), whole.at(), Ppm::ONE, PRIOR_PPM);
            Line { rule, count_milli, mean, lower: whole.lower() }
        });
        let score = geometric_mean(lines.iter().map(|line| (line.lower, line.rule.weight)));
        Explanation { version: VERSION, lines, score, grade: Grade::of(score) }
    }
}

fn half_life(dimension: Dimension) -> u64 {
    let rule = DIMENSIONS.iter().find(|rule| rule.dimension == dimension);
    rule.map_or(7, |rule| u64::from(rule.half_life_days)) * DAY
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
    pub lines: [Line; 7],
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
