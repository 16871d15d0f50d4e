//! One part of a host: its watch, and the times that are shown.

use welkin_check::health::{
    Kept, Severity, Stage, Symptom, Watch, WatchConfig, WatchInput, WatchOutput, rule_of,
};
use welkin_kernels::Stop;
use welkin_types::{Fault, UnixMillis};

use super::report::{Outage, PAST_MAX, UnitReport, UnitState};

/// What only degrades a part is forgotten when it has not been seen for so long.
const DEGRADED_MS: u64 = 3_600_000;

/// A self-test of a part.
#[derive(Debug, Default)]
pub(super) enum Test {
    /// None.
    #[default]
    Idle,
    /// To begin once nothing runs.
    Wanted,
    /// Under way.
    Running(Stop),
}

/// A GPU, or the machine.
#[derive(Debug)]
pub(super) struct Part {
    watch: Watch,
    degraded: Option<(Symptom, UnixMillis, UnixMillis)>,
    outages: Vec<Outage>,
    attempt: u32,
    found: String,
    pub(super) test: Test,
}

impl Part {
    pub(super) fn new(config: WatchConfig) -> Self {
        Self {
            watch: Watch::new(config),
            degraded: None,
            outages: Vec::new(),
            attempt: 0,
            found: String::new(),
            test: Test::Idle,
        }
    }

    /// Takes a part up as it was written down.
    pub(super) fn restore(config: WatchConfig, report: UnitReport, now: (u64, UnixMillis)) -> Self {
        let mut part = Self {
            outages: report.outages,
            attempt: report.attempt,
            found: report.test,
            ..Self::new(config)
        };
        part.outages.truncate(PAST_MAX);
        let is_out = !matches!(report.state, UnitState::InService | UnitState::Degraded);
        let symptom = report.reason.as_deref().and_then(Symptom::of_code);
        if is_out {
            // A reason that this version does not know is no reason to be in service.
            let seen = report.since.unwrap_or(now.1);
            let ago = u64::try_from(now.1.since(seen).as_micros()).unwrap_or(u64::MAX);
            let kept = Kept {
                is_draining: report.state == UnitState::Draining,
                is_retired: report.state == UnitState::Retired,
                symptom: symptom.unwrap_or(Symptom::Lockup),
                seen_ago_us: ago,
                attempt: report.attempt,
                relapses: report.relapses,
            };
            part.watch = Watch::restore(config, kept, now.0);
        }
        part
    }

    pub(super) fn is_in_service(&self) -> bool {
        self.watch.stage() == Stage::Healthy
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.watch.stage(), Stage::Draining { .. })
    }

    pub(super) fn is_retired(&self) -> bool {
        self.watch.stage() == Stage::Retired
    }

    /// Whether what runs has to end: it is out of service, and the time to end in order is over.
    pub(super) fn is_stopping(&self) -> bool {
        !self.is_in_service() && !self.is_draining()
    }

    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Why it is out of service.
    pub(super) fn symptom(&self) -> Option<Symptom> {
        self.watch.kept().map(|kept| kept.symptom)
    }

    /// When it was seen that it must leave service.
    pub(super) fn out_since(&self) -> Option<UnixMillis> {
        self.outages.last().filter(|outage| outage.back.is_none()).map(|outage| outage.seen)
    }

    /// What a self-test found.
    pub(super) fn found(&mut self, text: String) {
        self.found = text;
    }

    /// Lets the watch take an input; what it wants then.
    pub(super) fn handle(
        &mut self,
        (now, wall): (u64, UnixMillis),
        input: WatchInput,
    ) -> Vec<WatchOutput> {
        if let WatchInput::Seen { symptom, fault } = input {
            self.seen(symptom, fault, wall);
        }
        self.watch.handle(now, input);
        let outputs = std::iter::from_fn(|| match self.watch.poll() {
            WatchOutput::Idle { .. } => None,
            output => Some(output),
        });
        let outputs: Vec<_> = outputs.collect();
        for output in &outputs {
            self.note(output, wall);
        }
        let is_healthy = self.is_in_service();
        if !is_healthy && !self.is_draining() && self.last(|outage| outage.drained.is_none()) {
            self.with_last(|outage| outage.drained = Some(wall));
        }
        outputs
    }

    fn seen(&mut self, symptom: Symptom, fault: Fault, wall: UnixMillis) {
        let severity = rule_of(symptom).severity;
        if severity == Severity::Degraded && fault != Fault::Buyer {
            let since = self.degraded.filter(|(same, ..)| *same == symptom);
            let since = since.map_or(wall, |(_, since, _)| since);
            self.degraded = Some((symptom, since, wall));
        }
        let is_fault = fault != Fault::Buyer && severity >= Severity::Drain;
        if is_fault && self.is_in_service() {
            self.found.clear();
            self.attempt = 0;
            if self.outages.len() >= PAST_MAX {
                self.outages.remove(0);
            }
            let (drained, back) = (None, None);
            self.outages.push(Outage { reason: symptom.code(), seen: wall, drained, back });
        }
    }

    fn note(&mut self, output: &WatchOutput, wall: UnixMillis) {
        match output {
            WatchOutput::Test { attempt } => {
                self.attempt = *attempt;
                // One that hangs is asked to end; the next begins after it.
                match &self.test {
                    Test::Running(stop) => stop.stop(),
                    Test::Idle | Test::Wanted => self.test = Test::Wanted,
                }
            }
            WatchOutput::Back { .. } => self.with_last(|outage| outage.back = Some(wall)),
            WatchOutput::Drain { .. }
            | WatchOutput::Stop { .. }
            | WatchOutput::Retired { .. }
            | WatchOutput::Idle { .. } => (),
        }
    }

    fn last(&self, is_so: impl Fn(&Outage) -> bool) -> bool {
        self.outages.last().is_some_and(|outage| outage.back.is_none() && is_so(outage))
    }

    fn with_last(&mut self, change: impl FnOnce(&mut Outage)) {
        if let Some(outage) = self.outages.last_mut() {
            change(outage);
        }
    }

    /// How it stands.
    pub(super) fn report(&self, unit: &str, (now, wall): (u64, UnixMillis)) -> UnitReport {
        let degraded =
            self.degraded.filter(|(_, _, last)| wall.0.saturating_sub(last.0) < DEGRADED_MS);
        let (state, until) = match self.watch.stage() {
            Stage::Healthy if degraded.is_some() => (UnitState::Degraded, None),
            Stage::Healthy => (UnitState::InService, None),
            Stage::Draining { until_us } => (UnitState::Draining, Some(until_us)),
            Stage::Testing { until_us } => (UnitState::Testing, Some(until_us)),
            Stage::Pausing { until_us } => (UnitState::Waiting, Some(until_us)),
            Stage::Retired => (UnitState::Retired, None),
        };
        let kept = self.watch.kept();
        let symptom = kept.map(|kept| kept.symptom).or(degraded.map(|(symptom, ..)| symptom));
        let rule = symptom.map(rule_of);
        let last = self.outages.last().filter(|_| kept.is_some()).map(|outage| outage.seen);
        UnitReport {
            unit: unit.to_owned(),
            state,
            reason: symptom.map(Symptom::code),
            fault: rule.map(|rule| rule.fault),
            meaning: rule.map_or_else(String::new, |rule| rule.meaning.to_owned()),
            remedy: rule.map_or_else(String::new, |rule| rule.remedy.to_owned()),
            since: last.or(degraded.map(|(_, since, _)| since)),
            next: until.map(|until| UnixMillis(wall.0 + until.saturating_sub(now) / 1_000)),
            attempt: self.attempt,
            relapses: kept.map_or(0, |kept| kept.relapses),
            test: self.found.clone(),
            outages: self.outages.clone(),
        }
    }
}
