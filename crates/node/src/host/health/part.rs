//! One part of a host: its watch, and the times that are shown.

use welkin_check::health::{
    Kept, Past, Severity, Stage, Symptom, Watch, WatchConfig, WatchInput, WatchOutput, rule_of,
};
use welkin_kernels::Stop;
use welkin_types::{Fault, UnixMillis};

use super::report::{Outage, PAST_MAX, UnitReport, UnitState};

/// What only degrades a part is forgotten when it has not been seen for so long.
pub(super) const DEGRADED_MS: u64 = 3_600_000;

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
        let ago = |at: UnixMillis| u64::try_from(now.1.since(at).as_micros()).unwrap_or(u64::MAX);
        if matches!(report.state, UnitState::InService | UnitState::Degraded) {
            if let Some(back) = part.outages.last().and_then(|outage| outage.back) {
                let past = Past { back_ago_us: ago(back), relapses: report.relapses };
                part.watch = Watch::resume(config, past, now.0);
            }
            return part;
        }
        // A reason that this version does not know is no reason to be in service, nor another one.
        let symptom = report.reason.as_deref().and_then(Symptom::of_code);
        let symptom = symptom.unwrap_or(Symptom::ReportUnreadable);
        let seen = report.since.unwrap_or(now.1);
        if part.outages.last().is_none_or(|outage| outage.back.is_some()) {
            part.begin_outage(symptom, seen);
        }
        let kept = Kept {
            is_draining: report.state == UnitState::Draining,
            is_retired: report.state == UnitState::Retired,
            symptom,
            seen_ago_us: ago(seen),
            attempt: report.attempt,
            relapses: report.relapses,
        };
        part.watch = Watch::restore(config, kept, now.0);
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
            self.begin_outage(symptom, wall);
        }
    }

    fn begin_outage(&mut self, symptom: Symptom, seen: UnixMillis) {
        if self.outages.len() >= PAST_MAX {
            self.outages.remove(0);
        }
        self.outages.push(Outage { reason: symptom.code(), seen, drained: None, back: None });
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
            relapses: self.watch.relapses(),
            test: self.found.clone(),
            outages: self.outages.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 86_400_000;
    const FAULT: WatchInput =
        WatchInput::Seen { symptom: Symptom::MachineCheck, fault: Fault::Host };

    /// The time of day, with a clock of the machine that began a minute ago.
    fn at(wall: u64) -> (u64, UnixMillis) {
        (MINUTE_MS * 1_000, UnixMillis(wall))
    }

    fn restarted(part: &Part, wall: u64) -> Part {
        let report = serde_json::to_vec(&part.report("host", at(wall))).unwrap();
        let report = serde_json::from_slice(&report).unwrap();
        Part::restore(WatchConfig::default(), report, at(wall))
    }

    fn comes_back(part: &mut Part, (mut now, wall): (u64, UnixMillis)) {
        part.handle((now, wall), WatchInput::Drained);
        let waits = part.report("host", (now, wall));
        if let Some(next) = waits.next.filter(|_| waits.state == UnitState::Waiting) {
            now += (next.0 - wall.0) * 1_000;
            part.handle((now, wall), WatchInput::Tick);
        }
        part.handle((now, wall), WatchInput::Tested { passed: true });
    }

    #[test]
    fn what_fails_again_is_retired_although_its_host_is_started_anew_each_time() {
        let mut part = Part::new(WatchConfig::default());
        for round in 0..6_u32 {
            let wall = DAY_MS * 9 + DAY_MS / 2 * u64::from(round);
            part = restarted(&part, wall);
            part.handle(at(wall), FAULT);
            assert_eq!(part.report("host", at(wall)).relapses, round);
            comes_back(&mut part, at(wall));
            assert_eq!(part.is_retired(), round == 5);
        }
        assert!(restarted(&part, DAY_MS * 99).is_retired());
        let mut part = Part::new(WatchConfig::default());
        part.handle(at(0), FAULT);
        comes_back(&mut part, at(0));
        part = restarted(&part, DAY_MS);
        part.handle(at(DAY_MS), FAULT);
        assert_eq!(part.report("host", at(DAY_MS)).relapses, 0, "a day later all is forgotten");
    }

    #[test]
    fn a_reason_that_is_not_known_here_is_shown_as_such_and_keeps_out_of_service() {
        for reason in [None, Some("of_tomorrow".to_owned())] {
            let state = UnitState::Waiting;
            let report = UnitReport { state, reason, ..UnitReport::default() };
            let mut part = Part::restore(WatchConfig::default(), report, at(DAY_MS));
            let shown = part.report("host", at(DAY_MS));
            assert_eq!(shown.state, UnitState::Waiting);
            assert_eq!(shown.reason.as_deref(), Some("report_unreadable"));
            assert_eq!(shown.since, Some(UnixMillis(DAY_MS)));
            comes_back(&mut part, at(DAY_MS + 1));
            let shown = part.report("host", at(DAY_MS + 1));
            assert_eq!((shown.state, shown.reason), (UnitState::InService, None));
            assert_eq!(shown.outages[0].back, Some(UnixMillis(DAY_MS + 1)));
        }
    }
}
