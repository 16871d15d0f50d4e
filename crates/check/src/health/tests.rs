//! Recorded lines, attribution, and a container's way out of service and back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use welkin_types::Fault;

use super::*;

#[test]
fn recorded_lines_are_read() {
    let mut faults = Vec::new();
    let log = include_str!("../../vectors/kernel-log.txt");
    for entry in log.lines().filter(|line| !line.starts_with('#')) {
        let (expected, line) = entry.split_once(" | ").unwrap();
        let found = read_line(line).map_or("-".to_owned(), |event| {
            let pid = event.pid.map_or("-".to_owned(), |pid| pid.to_string());
            format!("{:?} {} {pid}", event.symptom, event.device.as_deref().unwrap_or("-"))
        });
        if found != expected {
            faults.push(format!("{found}\n  instead of {expected}\n  in {line}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn times_are_read_in_all_forms() {
    let time = |line: &str| read_line(line).unwrap().at_us;
    assert_eq!(
        time("[  12.000345] EXT4-fs (sda1): Remounting filesystem read-only"),
        Some(12_000_345)
    );
    assert_eq!(time("6,1,77,-;EXT4-fs (sda1): Remounting filesystem read-only"), Some(77));
    assert_eq!(time("EXT4-fs (sda1): Remounting filesystem read-only"), None);
}

proptest! {
    #[test]
    fn no_line_is_too_odd(line: String, head in 0..4_usize) {
        let heads = ["", "NVRM: Xid (", "EXT4-fs error (device ", "pcieport 0000:00:03.0: "];
        read_line(&format!("{}{line}", heads[head]));
        read_line(&"é".repeat(LINE_BYTES_MAX));
    }
}

#[test]
fn every_rule_is_there_once_and_says_all() {
    let symptoms: BTreeSet<_> = RULES.iter().map(|rule| rule.symptom).collect();
    assert_eq!(symptoms.len(), RULES.len());
    for rule in RULES {
        assert!(!rule.meaning.is_empty() && !rule.remedy.is_empty() && rule.source.len() > 20);
        // What work may cause takes no hardware out of service.
        assert!(rule.fault != Fault::Buyer || rule.severity == Severity::Note, "{rule:?}");
    }
    for symptom in symptoms.into_iter().chain([Symptom::Xid(999)]) {
        assert_eq!(Symptom::of_code(&symptom.code()), Some(symptom));
    }
    assert_eq!([Symptom::of_code("xid_x"), Symptom::of_code("")], [None; 2]);
    assert_eq!(rule_of(Symptom::Xid(999)).fault, Fault::Unknown);
}

fn lease(lines: &[&str], at_us: u64) -> Option<Attribution> {
    let events: Vec<_> = lines.iter().map(|line| read_line(line).unwrap()).collect();
    attribute(&events, at_us, &BTreeSet::from(["0000:3b:00.0".to_owned()]), &BTreeSet::from([7]))
}

const AT: u64 = 100_000_000;
const OWN: &str = "[100.0] NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=x, MMU Fault";
const OTHER: &str = "[100.0] NVRM: Xid (PCI:0000:3b:00): 31, pid=8, name=x, MMU Fault";
const BROKEN: &str = "[130.0] NVRM: Xid (PCI:0000:3b:00): 48, double bit error";
const LATER: &str = "[161.0] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";
const ELSEWHERE: &str = "[100.0] NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.";
const CORRECTED: &str =
    "[100.0] pcieport 0000:00:03.0: AER: Corrected error received: 0000:3b:00.0";
const HOT: &str = "[100.0] mce: CPU3: Core temperature above threshold, cpu clock throttled";
const LINK: &str = "[100.0] e1000e eth0: NIC Link is Down";

#[test]
fn work_is_blamed_only_for_its_own_errors_on_sound_hardware() {
    let fault = |lines: &[&str]| lease(lines, AT).map(|attribution| attribution.fault);
    assert_eq!(fault(&[OWN]), Some(Fault::Buyer));
    assert_eq!(fault(&[OTHER]), Some(Fault::Unknown));
    assert_eq!(fault(&[OWN, BROKEN]), Some(Fault::Host));
    assert_eq!(fault(&[BROKEN, OWN]), Some(Fault::Host));
    assert_eq!(fault(&[OWN, LATER]), Some(Fault::Buyer));
    assert_eq!(fault(&[OWN, ELSEWHERE]), Some(Fault::Buyer));
    assert_eq!(fault(&[ELSEWHERE]), None);
    assert_eq!(fault(&[OWN, CORRECTED]), Some(Fault::Buyer));
    assert_eq!(fault(&[OWN, HOT]), Some(Fault::Buyer), "slow hardware explains no failure");
    assert_ne!(fault(&[HOT]), Some(Fault::Host));
    assert_eq!(fault(&[]), None);
    let told = lease(&[OWN, BROKEN], AT).unwrap();
    assert_eq!((told.symptom, told.severity), (Symptom::Xid(48), Severity::Lost));
    let devices = BTreeSet::from(["eth0".to_owned()]);
    let link = attribute(&[read_line(LINK).unwrap()], AT, &devices, &BTreeSet::new()).unwrap();
    assert_eq!(link.fault, Fault::Network);
}

#[test]
fn sensors_have_thresholds() {
    let read = |sensor| read_sensor(&sensor);
    assert_eq!(read(Sensor::Throttle(Throttle(0x1))), None);
    assert_eq!(read(Sensor::Throttle(Throttle(0x4))), Some(Symptom::PowerCap));
    assert_eq!(read(Sensor::Throttle(Throttle(0x44))), Some(Symptom::Hot));
    assert_eq!(read(Sensor::Throttle(Throttle(0x80))), Some(Symptom::PowerBrake));
    assert_eq!(read(Sensor::Temperature { now_c: 87, slowdown_c: 90 }), None);
    assert_eq!(read(Sensor::Temperature { now_c: 88, slowdown_c: 90 }), Some(Symptom::Hot));
    let link =
        |width, generation| Sensor::Pcie { width, width_max: 16, generation, generation_max: 4 };
    assert_eq!(read(link(16, 4)), None);
    assert_eq!([read(link(8, 4)), read(link(16, 1))], [Some(Symptom::PcieNarrow); 2]);
    let power = |busy_percent, power_percent| Sensor::Power { busy_percent, power_percent };
    assert_eq!(read(power(100, 60)), None);
    assert_eq!(read(power(0, 5)), None);
    assert_eq!(read(power(100, 8)), Some(Symptom::BusyWithoutPower));
    let rows = |is_pending, has_failed| Sensor::Remapping { is_pending, has_failed };
    assert_eq!(read(rows(true, true)), Some(Symptom::RemapFailed));
    assert_eq!(read(rows(true, false)), Some(Symptom::RemapPending));
    assert_eq!(read(rows(false, false)), None);
    assert_eq!(read(Sensor::ClockSkew(500)), None);
    assert_eq!(read(Sensor::ClockSkew(501)), Some(Symptom::ClockSkew));
    assert_eq!(read(Sensor::Ecc(0)), None);
    assert_eq!(read(Sensor::Ecc(1)), Some(Symptom::EccUncorrected));
    assert_eq!(read(Sensor::MemoryPressure(19)), None);
    assert_eq!(read(Sensor::MemoryPressure(20)), Some(Symptom::MemoryPressure));
    assert_eq!(read(Sensor::DiskFree(0)), Some(Symptom::DiskFull));
}

const SECOND: u64 = 1_000_000;

fn outputs(watch: &mut Watch, now_s: u64, input: WatchInput) -> Vec<WatchOutput> {
    watch.handle(now_s * SECOND, input);
    std::iter::from_fn(|| match watch.poll() {
        WatchOutput::Idle { .. } => None,
        output => Some(output),
    })
    .collect()
}

fn seen(code: u16, fault: Fault) -> WatchInput {
    WatchInput::Seen { symptom: Symptom::Xid(code), fault }
}

#[test]
fn a_container_drains_is_tested_and_comes_back() {
    let mut watch = Watch::new(WatchConfig::default());
    let symptom = Symptom::Xid(63);
    assert_eq!(outputs(&mut watch, 0, seen(31, Fault::Buyer)), []);
    assert_eq!(outputs(&mut watch, 0, seen(48, Fault::Buyer)), []);
    assert_eq!(outputs(&mut watch, 1, seen(92, Fault::Host)), []);
    let until_us = 610 * SECOND;
    let drain = WatchOutput::Drain { until_us, symptom };
    assert_eq!(outputs(&mut watch, 10, seen(63, Fault::Host)), [drain]);
    assert_eq!(outputs(&mut watch, 11, seen(63, Fault::Host)), []);
    let wake_at = Some((until_us, "leases must have ended"));
    assert_eq!(watch.poll(), WatchOutput::Idle { wake_at });
    let test = |attempt| WatchOutput::Test { attempt };
    assert_eq!(outputs(&mut watch, 70, WatchInput::Drained), [test(1)]);
    assert_eq!(outputs(&mut watch, 80, WatchInput::Tested { passed: false }), []);
    assert_eq!(outputs(&mut watch, 139, WatchInput::Tick), []);
    assert_eq!(outputs(&mut watch, 140, WatchInput::Tick), [test(2)]);
    let back = WatchOutput::Back { out_us: 140 * SECOND, drain_us: 60 * SECOND };
    assert_eq!(outputs(&mut watch, 150, WatchInput::Tested { passed: true }), [back]);
    assert_eq!(watch.stage(), Stage::Healthy);
    assert_eq!(outputs(&mut watch, 151, WatchInput::Tested { passed: false }), []);
}

#[test]
fn what_is_lost_stops_at_once_and_what_never_passes_is_retired() {
    let mut watch = Watch::new(WatchConfig { attempts: 2, ..WatchConfig::default() });
    let symptom = Symptom::Xid(79);
    let (stop, test) = (WatchOutput::Stop { symptom }, |attempt| WatchOutput::Test { attempt });
    assert_eq!(outputs(&mut watch, 0, seen(79, Fault::Host)), [stop, test(1)]);
    // A test without an end fails, and so does one during which something is seen.
    assert_eq!(outputs(&mut watch, 300, WatchInput::Tick), []);
    assert_eq!(outputs(&mut watch, 360, WatchInput::Tick), [test(2)]);
    assert_eq!(outputs(&mut watch, 361, seen(79, Fault::Host)), [WatchOutput::Retired { symptom }]);
    assert_eq!(outputs(&mut watch, 9_999, WatchInput::Tick), []);
    assert_eq!(outputs(&mut watch, 10_000, WatchInput::Repaired), [test(1)]);
    let passed = outputs(&mut watch, 10_001, WatchInput::Tested { passed: true });
    assert!(matches!(passed[..], [WatchOutput::Back { .. }]));
}

#[test]
fn leases_that_do_not_end_are_stopped() {
    let mut watch = Watch::new(WatchConfig::default());
    outputs(&mut watch, 0, seen(63, Fault::Host));
    let out = outputs(&mut watch, 600, WatchInput::Tick);
    let symptom = Symptom::Xid(63);
    assert_eq!(out, [WatchOutput::Stop { symptom }, WatchOutput::Test { attempt: 1 }]);
    // Worse comes while draining.
    let mut watch = Watch::new(WatchConfig::default());
    outputs(&mut watch, 0, seen(63, Fault::Host));
    let out = outputs(&mut watch, 5, seen(79, Fault::Host));
    let symptom = Symptom::Xid(79);
    assert_eq!(out, [WatchOutput::Stop { symptom }, WatchOutput::Test { attempt: 1 }]);
}

/// What work may have caused is no relapse, and no pardon.
#[test]
fn a_fault_of_unknown_cause_takes_no_relapse_back() {
    let mut watch = Watch::new(WatchConfig::default());
    let mut now = 10;
    for (fault, relapses) in
        [(Fault::Host, 0), (Fault::Host, 1), (Fault::Unknown, 1), (Fault::Host, 2)]
    {
        outputs(&mut watch, now, seen(79, fault));
        assert_eq!(watch.relapses(), relapses);
        let kept = watch.kept().unwrap();
        // However often it relapsed, a restart shortens no wait.
        let again = Watch::restore(WatchConfig::default(), kept, now * SECOND);
        if let (Stage::Pausing { until_us }, Stage::Pausing { until_us: after }) =
            (watch.stage(), again.stage())
        {
            assert_eq!(until_us, after);
        } else {
            assert_eq!(relapses, 0);
        }
        while watch.stage() != Stage::Healthy {
            now += 60;
            outputs(&mut watch, now, WatchInput::Tick);
            outputs(&mut watch, now, WatchInput::Tested { passed: true });
        }
        now += 60;
    }
}

#[test]
fn a_restart_between_forgets_no_relapse() {
    let config = WatchConfig { attempts: 2, ..WatchConfig::default() };
    let (day, symptom) = (86_400, Symptom::Xid(79));
    let restarted = |watch: &Watch, back_s: u64, pause_s: u64| {
        let past = Past { back_ago_us: (back_s + pause_s) * SECOND, relapses: watch.relapses() };
        // The machine's own clock began anew.
        Watch::resume(config, past, SECOND)
    };
    let mut watch = Watch::new(config);
    for relapses in 0..2 {
        outputs(&mut watch, 10, seen(79, Fault::Host));
        outputs(&mut watch, 10 + 60, WatchInput::Tick);
        outputs(&mut watch, 80, WatchInput::Tested { passed: true });
        assert_eq!((watch.stage(), watch.relapses()), (Stage::Healthy, relapses));
        watch = restarted(&watch, 100, day / 2);
        assert_eq!((watch.stage(), watch.relapses()), (Stage::Healthy, relapses));
    }
    let mut late = restarted(&watch, 0, day);
    assert_eq!(late.relapses(), 0);
    let (stop, test) = (WatchOutput::Stop { symptom }, WatchOutput::Test { attempt: 1 });
    assert_eq!(outputs(&mut late, 10, seen(79, Fault::Host)), [stop, test]);
    let retired = WatchOutput::Retired { symptom };
    assert_eq!(outputs(&mut watch, 10, seen(79, Fault::Host)), [stop, retired]);
}

#[test]
fn what_fails_again_waits_longer_each_time_and_is_retired() {
    let mut watch = Watch::new(WatchConfig { attempts: 3, ..WatchConfig::default() });
    let symptom = Symptom::Xid(79);
    let (stop, test) = (WatchOutput::Stop { symptom }, WatchOutput::Test { attempt: 1 });
    let fails = |watch: &mut Watch, at| outputs(watch, at, seen(79, Fault::Host));
    let passes = |watch: &mut Watch, at| outputs(watch, at, WatchInput::Tested { passed: true });
    assert_eq!(fails(&mut watch, 0), [stop, test]);
    passes(&mut watch, 1);
    for (begin, pause) in [(10, 60), (200, 120)] {
        assert_eq!(fails(&mut watch, begin), [stop]);
        assert_eq!(outputs(&mut watch, begin + pause - 1, WatchInput::Tick), []);
        assert_eq!(outputs(&mut watch, begin + pause, WatchInput::Tick), [test]);
        passes(&mut watch, begin + pause + 1);
    }
    assert_eq!(fails(&mut watch, 400), [stop, WatchOutput::Retired { symptom }]);
    outputs(&mut watch, 500, WatchInput::Repaired);
    passes(&mut watch, 501);
    // A day later nothing is held against it.
    assert_eq!(fails(&mut watch, 86_901), [stop, test]);
}

proptest! {
    /// No restart brings a container back into service, and none gives it more tests.
    #[test]
    fn a_restart_brings_nothing_back(
        steps in proptest::collection::vec((0..400_u64, 0..6_u8), 1..40),
        restart in 0..40_usize,
    ) {
        let config = WatchConfig { attempts: 3, ..WatchConfig::default() };
        let (mut watch, mut now) = (Watch::new(config), 0);
        for (place, (pause, input)) in steps.into_iter().enumerate() {
            now += pause;
            let before = watch.stage();
            let input = match input {
                0 => seen(63, Fault::Host),
                1 => seen(79, Fault::Unknown),
                2 => WatchInput::Drained,
                3 => WatchInput::Tested { passed: false },
                4 => WatchInput::Tested { passed: true },
                _ => WatchInput::Tick,
            };
            let back = outputs(&mut watch, now, input)
                .iter()
                .any(|output| matches!(output, WatchOutput::Back { .. }));
            prop_assert_eq!(back, before != Stage::Healthy && watch.stage() == Stage::Healthy);
            let was_tested = matches!(before, Stage::Testing { .. });
            prop_assert!(!back || was_tested);
            if place == restart && let Some(kept) = watch.kept() {
                let later = now * SECOND + 5;
                let restored = Watch::restore(config, kept, later);
                prop_assert!(restored.stage() != Stage::Healthy);
                let is_tested = matches!(restored.stage(), Stage::Testing { .. });
                prop_assert!(!is_tested);
                let again = restored.kept().unwrap();
                prop_assert_eq!((again.attempt, again.symptom), (kept.attempt, kept.symptom));
                watch = restored;
                now += 1;
            }
        }
    }
}
