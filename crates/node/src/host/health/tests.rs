//! The page says what the code does, and a report that can't be read is told as that.

use welkin_check::health::{
    BUSY_PERCENT, CLOCK_SKEW_MS_MAX, DISK_FREE_PERCENT, IDLE_POWER_PERCENT,
    MEMORY_PRESSURE_PERCENT, TEMPERATURE_MARGIN_C,
};

use super::part::DEGRADED_MS;
use super::sensors::{DISK_TIMEOUT, FREE_BYTES_LEAST, PROBE_BYTES, WORKING_PERCENT};
use super::*;

/// The thresholds as a table of Markdown: what the page shows.
fn thresholds() -> String {
    let seconds = |micros: u64| format!("{} s", micros / 1_000_000);
    let own = HealthConfig::default();
    let watch = own.watch();
    let rows = [
        (
            "`hot`, GPU",
            format!(
                "{TEMPERATURE_MARGIN_C} °C below where it slows down, or it says that it slows down for heat"
            ),
        ),
        (
            "`busy_without_power`",
            format!(
                "less than {IDLE_POWER_PERCENT} % of its power limit at {BUSY_PERCENT} % utilisation or more"
            ),
        ),
        (
            "`pcie_narrow`",
            format!(
                "fewer lanes or a lower generation than card and slot both have, at {WORKING_PERCENT} % utilisation or more"
            ),
        ),
        ("`ecc_uncorrected`", "1 more since the last reading".to_owned()),
        (
            "`memory_pressure`",
            format!(
                "all work waited for memory during {MEMORY_PRESSURE_PERCENT} % of the last minute"
            ),
        ),
        (
            "`disk_full`",
            format!(
                "less than {DISK_FREE_PERCENT} % and less than {} MiB free, or a write that finds none",
                FREE_BYTES_LEAST >> 20
            ),
        ),
        (
            "`disk_error`, sensor",
            format!(
                "a write of {PROBE_BYTES} bytes with `fsync` that fails or takes more than {} s",
                DISK_TIMEOUT.as_secs()
            ),
        ),
        (
            "`clock_skew`",
            format!(
                "more than {CLOCK_SKEW_MS_MAX} ms from the middle of other hosts' clocks (`welkin host check` only)"
            ),
        ),
        (
            "pause between two looks at the sensors",
            format!("{} s (`host.health.sensor_seconds`)", own.sensor_pause().as_secs()),
        ),
        ("time to drain", format!("{} (`host.health.drain_seconds`)", seconds(watch.drain_us))),
        ("time for a self-test", seconds(watch.test_us)),
        (
            "pause before the second test",
            format!(
                "{} (`host.health.retest_seconds`), doubled each time",
                seconds(watch.pause_us)
            ),
        ),
        ("self-tests, and relapses, until a part is retired", watch.attempts.to_string()),
        ("a fault is a relapse", format!("within {} of the return", seconds(watch.relapse_us))),
        (
            "a part is shown as degraded",
            format!("for {} s after it was seen last", DEGRADED_MS / 1_000),
        ),
        ("a fault explains a failed command", format!("within {}", seconds(WINDOW_US))),
    ];
    let rows = rows.map(|(what, threshold)| format!("| {what} | {threshold} |\n"));
    format!("| what | threshold |\n| --- | --- |\n{}", rows.concat())
}

#[test]
fn the_page_shows_the_thresholds_as_they_are() {
    let page = include_str!("../../../../../docs/reference/health.md");
    let table = thresholds();
    assert!(page.contains(&table), "docs/reference/health.md must contain:\n{table}");
}

#[test]
fn a_report_that_can_not_be_read_takes_every_part_out_of_service_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let load = || {
        let config = HealthConfig { kernel_log: "".into(), ..HealthConfig::default() };
        Health::load(dir.path(), &config, None, &[], [dir.path(); 3]).report()
    };
    assert_eq!(load().units[0].state, UnitState::InService, "there was none");
    std::fs::create_dir(dir.path().join("health")).unwrap();
    let path = dir.path().join("health/report.json");
    for text in ["", "{", "{\"units\":[{\"unit\":\"host\",\"state\":\"of_tomorrow\"}]}"] {
        std::fs::write(&path, text).unwrap();
        let unit = &load().units[0];
        assert_eq!(unit.state, UnitState::Waiting);
        assert_eq!(unit.reason.as_deref(), Some("report_unreadable"));
        assert!(unit.next.is_some() && unit.since.is_some(), "{unit:?}");
    }
    std::fs::write(&path, "{\"units\":[{\"unit\":\"host\"}]}").unwrap();
    assert_eq!(load().units[0].state, UnitState::InService);
}
