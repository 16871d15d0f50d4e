//! What one side's minute of a service is worth, from what that side measured.

use std::collections::BTreeMap;

use super::{Ppm, geometric_mean};

/// What kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// Games, desktops, phones.
    Stream,
    /// Models that answer.
    Inference,
    /// Work that runs to its end.
    Job,
}

/// Something that is measured each minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Frames shown, of those that should be, in thousandths.
    FrameRate,
    /// Pixels shown, of those that should be, in thousandths.
    Resolution,
    /// From an input to its picture, in milliseconds.
    ClickToPhoton,
    /// Without a new picture, in milliseconds of the minute.
    Freezes,
    /// Packets lost, in hundredths of a percent.
    Loss,
    /// To the first token, in milliseconds.
    FirstToken,
    /// Tokens a second, of what the class does, in thousandths.
    Tokens,
    /// Requests that failed, in thousandths.
    Errors,
    /// Time throttled, in thousandths.
    Throttled,
    /// Time preempted, in thousandths.
    Preempted,
}

/// How a metric counts: whole at `good` or better, nothing at `bad` or worse, linear between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which kind it belongs to.
    pub kind: ServiceKind,
    /// Which.
    pub metric: Metric,
    /// Its name in documents.
    pub name: &'static str,
    /// Where it is whole.
    pub good: u32,
    /// Where it is nothing.
    pub bad: u32,
    /// Its weight, in percent of its kind.
    pub weight: u32,
}

/// All metrics. The weights of a kind are 100 together.
pub const METRICS: [Service; 10] = [
    metric(ServiceKind::Stream, Metric::FrameRate, "frame rate", 980, 500, 25),
    metric(ServiceKind::Stream, Metric::Resolution, "resolution", 1_000, 250, 10),
    metric(ServiceKind::Stream, Metric::ClickToPhoton, "click to photon", 60, 300, 30),
    metric(ServiceKind::Stream, Metric::Freezes, "freezes", 0, 6_000, 25),
    metric(ServiceKind::Stream, Metric::Loss, "loss", 10, 1_000, 10),
    metric(ServiceKind::Inference, Metric::FirstToken, "first token", 300, 5_000, 40),
    metric(ServiceKind::Inference, Metric::Tokens, "tokens", 900, 200, 40),
    metric(ServiceKind::Inference, Metric::Errors, "errors", 0, 50, 20),
    metric(ServiceKind::Job, Metric::Throttled, "throttled", 10, 500, 60),
    metric(ServiceKind::Job, Metric::Preempted, "preempted", 0, 500, 40),
];

const fn metric(
    kind: ServiceKind,
    metric: Metric,
    name: &'static str,
    good: u32,
    bad: u32,
    weight: u32,
) -> Service {
    Service { kind, metric, name, good, bad, weight }
}

impl Service {
    /// What a measured value is worth.
    pub fn value(&self, measured: u32) -> Ppm {
        let (distance, range) = if self.good < self.bad {
            (self.bad.saturating_sub(measured), self.bad - self.good)
        } else {
            (measured.saturating_sub(self.bad), self.good - self.bad)
        };
        Ppm::of(u64::from(distance), u64::from(range))
    }
}

/// What one side measured in a minute. What the two of a session come to: `Said::quality`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Minute {
    /// Seconds that the service was there, at most 60.
    pub(super) available_seconds: u32,
    /// What was measured.
    pub(super) measured: BTreeMap<Metric, u32>,
}

/// How good a minute was: the weighted geometric mean over the metrics that were measured, times the
/// share of the minute that the service was there.
pub(super) fn minute_quality(kind: ServiceKind, minute: &Minute) -> Ppm {
    let values = METRICS.iter().filter(|service| service.kind == kind).filter_map(|service| {
        let measured = minute.measured.get(&service.metric)?;
        Some((service.value(*measured), service.weight))
    });
    let mut values = values.peekable();
    let quality = match values.peek() {
        Some(_) => geometric_mean(values),
        None => Ppm::ONE,
    };
    let seconds = u64::from(minute.available_seconds.min(60));
    Ppm::of(u64::from(quality.ppm()) * seconds, 60_000_000)
}
