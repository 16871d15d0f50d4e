//! `welkin host health`: how the parts of a host stand, out of the report that it keeps.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use welkin_check::health::RULES;
use welkin_node::host::{HealthReport, LogReport, UnitReport, UnitState, say_repaired};
use welkin_types::Fault;

use crate::doctor::{Check, Status};
use crate::{Context, Quit, Usage, cli, out};

/// Shows the report, or leaves word that a part is repaired. Leaves with 2 where a part is out of
/// service.
pub(crate) fn health(context: &Context, args: &cli::HostHealth) -> anyhow::Result<()> {
    if args.rules {
        return rules(context);
    }
    let dir = args.host_dir.clone().unwrap_or_else(|| host_dir(context));
    let report = HealthReport::load(&dir).with_context(|| {
        let dir = dir.display();
        format!("no report of a host's health in {dir}: is it started, and is this its folder?")
    })?;
    if let Some(unit) = &args.repaired {
        return repaired(&dir, &report, unit);
    }
    if context.is_json {
        out::json(&report)?;
    } else {
        out::text(&text(&report))?;
    }
    if report.units.iter().any(is_out) { Err(Quit(2).into()) } else { Ok(()) }
}

/// The host's folder: where `welkin host` or the first host of `welkin up` keeps its things.
fn host_dir(context: &Context) -> PathBuf {
    let own = &context.config.host.dir;
    if !own.as_os_str().is_empty() {
        return own.clone();
    }
    let (alone, first) = (context.dir.join("host"), context.dir.join("host-1"));
    if !alone.is_dir() && first.is_dir() { first } else { alone }
}

fn is_out(unit: &UnitReport) -> bool {
    !matches!(unit.state, UnitState::InService | UnitState::Degraded)
}

fn repaired(dir: &Path, report: &HealthReport, name: &str) -> anyhow::Result<()> {
    let unit = report.units.iter().find(|unit| unit.unit == name);
    match unit {
        Some(unit) if unit.state == UnitState::Retired => {
            say_repaired(dir, name)
                .with_context(|| format!("failed to leave word in {}", dir.display()))?;
            out::note(&format!("{name} is tested within seconds, and comes back if it passes"));
            Ok(())
        }
        Some(unit) => {
            let text = format!("{name} is not retired: {}", unit.state.as_str());
            Err(Usage::new(text, "others are tested by themselves").into())
        }
        None => {
            let names: Vec<_> = report.units.iter().map(|unit| unit.unit.as_str()).collect();
            let hint = format!("name one of: {}", names.join(", "));
            Err(Usage::new(format!("this host has no part `{name}`"), hint).into())
        }
    }
}

fn text(report: &HealthReport) -> String {
    let mut text = String::new();
    for unit in &report.units {
        text.push_str(&format!("{:<16} {}", unit.unit, unit.state.as_str()));
        if let Some(since) = unit.since {
            text.push_str(&format!(" since {since}"));
        }
        text.push('\n');
        let mut line = |of: &str| text.push_str(&format!("{:<16} {of}\n", ""));
        if let Some(reason) = &unit.reason {
            let fault = unit.fault.map_or("unknown", Fault::as_str);
            line(&format!("{reason}: {} (fault: {fault})", unit.meaning));
            line(&format!("-> {}", remedy(unit)));
        }
        if !unit.test.is_empty() {
            line(&format!("self-test {}: {}", unit.attempt, unit.test));
        }
        if let Some(next) = unit.next {
            line(&format!("next at {next} at the latest"));
        }
        if let Some(last) = unit.outages.last().filter(|_| !is_out(unit)) {
            let back = last.back.map_or_else(|| "?".to_owned(), |back| back.to_string());
            line(&format!("last out of service from {} to {back}: {}", last.seen, last.reason));
        }
    }
    text.push_str(&log_line(&report.log));
    text
}

fn remedy(unit: &UnitReport) -> String {
    match unit.state {
        UnitState::Retired => {
            format!("{}, then `welkin host health --repaired {}`", unit.remedy, unit.unit)
        }
        _ => unit.remedy.clone(),
    }
}

fn log_line(log: &LogReport) -> String {
    let path = log.path.display();
    let counters = log.counters;
    match &log.trouble {
        _ if log.path.as_os_str().is_empty() => "kernel log       not watched\n".to_owned(),
        Some(why) => format!(
            "kernel log       {path} can't be read: {why}\n{:<16} -> start the host as root with \
             `host.user` set: the log is opened before root is given up\n",
            ""
        ),
        None => format!(
            "kernel log       {path}: {} lines, {} of faults, {} missed, {} refused\n",
            counters.lines, counters.events, counters.missed, counters.malformed
        ),
    }
}

/// One rule, as it is printed.
#[derive(Serialize)]
struct Row {
    symptom: String,
    severity: String,
    fault: Fault,
    meaning: &'static str,
    remedy: &'static str,
    source: &'static str,
}

fn rules(context: &Context) -> anyhow::Result<()> {
    let rows = RULES.iter().map(|rule| Row {
        symptom: rule.symptom.code(),
        severity: format!("{:?}", rule.severity).to_lowercase(),
        fault: rule.fault,
        meaning: rule.meaning,
        remedy: rule.remedy,
        source: rule.source,
    });
    for row in rows {
        if context.is_json {
            out::json(&row)?;
        } else {
            let Row { symptom, severity, fault, meaning, remedy, .. } = row;
            out::text(&format!("{symptom:<22} {severity:<9} {fault:<8} {meaning}; {remedy}\n"))?;
        }
    }
    Ok(())
}

/// For `welkin doctor`: whether the kernel's log can be read, and how a host that runs here stands.
pub(crate) fn checks(context: &Context) -> Vec<Check> {
    let name = "health";
    let config = &context.config.host.health;
    let mut checks = vec![match welkin_node::host::open_kernel_log(config) {
        _ if config.kernel_log.as_os_str().is_empty() => {
            let remedy = "name it in `host.health.kernel_log` to see faults of GPUs early";
            Check::new("kernel log", Status::Skip, "not watched", remedy)
        }
        Ok(_) => Check::ok("kernel log", format!("{} is read", config.kernel_log.display())),
        Err(error) => {
            let found = format!("{} can't be read: {error}", config.kernel_log.display());
            let remedy = "start the host as root with `host.user` set, or set `kernel.dmesg_restrict` \
                          to 0 with sysctl; else faults of GPUs are noticed late";
            Check::new("kernel log", Status::Warn, found, remedy)
        }
    }];
    let Ok(report) = HealthReport::load(&host_dir(context)) else { return checks };
    for unit in report.units.iter().filter(|unit| unit.state != UnitState::InService) {
        let reason = unit.reason.as_deref().unwrap_or("not tested");
        let found = format!("{} is {}: {reason}, {}", unit.unit, unit.state.as_str(), unit.meaning);
        let status = if is_out(unit) { Status::Fail } else { Status::Warn };
        checks.push(Check::new(name, status, found, &remedy(unit)));
    }
    checks
}

/// The rules as a table of Markdown: what the page shows.
#[cfg(test)]
fn table() -> String {
    let mut text = String::from(
        "| symptom | severity | fault | what it means | what to do | source |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for rule in RULES {
        let severity = format!("{:?}", rule.severity).to_lowercase();
        text.push_str(&format!(
            "| `{}` | {severity} | {} | {} | {} | {} |\n",
            rule.symptom.code(),
            rule.fault,
            rule.meaning,
            rule.remedy,
            rule.source
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_rules_as_they_are() {
        let page = include_str!("../../../docs/reference/health.md");
        let table = table();
        assert!(page.contains(&table), "docs/reference/health.md must contain:\n{table}");
    }

    #[test]
    fn a_part_that_is_out_is_shown_with_its_remedy() {
        let rule = welkin_check::health::rule_of(welkin_check::health::Symptom::Xid(79));
        let unit = UnitReport {
            unit: "0000:3b:00.0".to_owned(),
            state: UnitState::Retired,
            reason: Some("xid_79".to_owned()),
            fault: Some(rule.fault),
            meaning: rule.meaning.to_owned(),
            remedy: rule.remedy.to_owned(),
            ..UnitReport::default()
        };
        let shown = text(&HealthReport { units: vec![unit], ..HealthReport::default() });
        assert!(shown.contains("xid_79: the GPU has fallen off the bus (fault: host)"), "{shown}");
        assert!(shown.contains("`welkin host health --repaired 0000:3b:00.0`"), "{shown}");
    }
}
