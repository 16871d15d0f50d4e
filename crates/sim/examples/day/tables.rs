//! The tables of a day, in Markdown.

use std::fmt::Write as _;

use welkin_sim::day::{Report, Times};

use crate::conflicts::{AGES, CHOICES, Cell, LOADS};

/// A time, with a unit that suits it.
fn time(micros: u64) -> String {
    let seconds = micros as f64 / 1e6;
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..100.0 => format!("{seconds:.1} s"),
        100.0..6_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

fn times(times: &Times) -> String {
    let [a, b, c, d] = [500, 900, 950, 990].map(|permille| time(times.permille(permille)));
    format!("{a} | {b} | {c} | {d}")
}

fn per(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole.max(1) as f64)
}

pub(crate) fn all(report: &Report, cells: &[Cell]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = network(&mut text, report)
        .and_then(|()| waiting(&mut text, report))
        .and_then(|()| indexers(&mut text, report))
        .and_then(|()| conflicts(&mut text, cells));
    text
}

fn network(text: &mut String, report: &Report) -> std::fmt::Result {
    let (counts, config) = (&report.counts, &report.config);
    let hours = config.minutes / 60;
    writeln!(text, "### The network\n\n| what | figure |\n| --- | --- |")?;
    let alike = &report.hosts_alike;
    let of_a_class = &report.hosts_of_a_class;
    let placed = counts.placed;
    for (what, figure) in [
        ("containers, slots", format!("{}, {}", config.containers, report.slots)),
        ("seed, hours, digest", format!("{}, {hours}, `{:016x}`", config.seed, report.digest)),
        (
            "slots leased, of those there, on average",
            format!("{:.1} %", report.utilisation_percent),
        ),
        (
            "requests, a second on average",
            format!(
                "{}, {:.1}",
                counts.requests,
                counts.requests as f64 / (hours as f64 * 3_600.0)
            ),
        ),
        (
            "placed, of these after waiting in a queue",
            format!("{placed}, {}", share(counts.queued, placed)),
        ),
        (
            "gave up waiting, refused by a full queue",
            format!("{}, {}", counts.gave_up, counts.refused),
        ),
        ("placed in another region than the nearest", share(counts.elsewhere, placed)),
        (
            "first host refused, was silent; of requests to honest indexers",
            format!(
                "{}, {}",
                share(counts.honest_busy, counts.honest_tried),
                share(counts.honest_silent, counts.honest_tried)
            ),
        ),
        ("the same, of all requests", share(counts.busy + counts.silent, counts.tried)),
        ("the application was ready on the container", share(counts.warm, placed)),
        (
            "spot leases taken back after their notice, ended within it",
            format!("{}, {}", counts.taken_back, counts.ended_in_notice),
        ),
        ("leases lost with their host", counts.lost.to_string()),
        (
            "hosts of one class, leased share of their time: Jain, Gini",
            format!("{:.3}, {:.3} ({} hosts)", of_a_class.jain, of_a_class.gini, of_a_class.count),
        ),
        (
            "hosts alike in class, city, price, quality: Jain, Gini",
            format!("{:.3}, {:.3} ({} hosts)", alike.jain, alike.gini, alike.count),
        ),
        (
            "buyers, placed share of their requests: Jain, Gini",
            format!(
                "{:.3}, {:.3} ({} buyers)",
                report.buyers.jain, report.buyers.gini, report.buyers.count
            ),
        ),
        ("honest indexers punished, of their time", format!("{:.2} %", report.punished_percent)),
        (
            "searches, entries that one looked at on average",
            format!("{}, {:.0}", counts.searches, per(counts.looked_at, counts.searches)),
        ),
        (
            "of these found nothing, entries that one of them looked at",
            format!(
                "{}, {:.0}",
                share(counts.empty_searches, counts.searches),
                per(counts.empty_looked_at, counts.empty_searches)
            ),
        ),
        ("beats that changed something", counts.beats.to_string()),
        (
            "memory of the nine indices",
            format!("{:.0} MiB", report.index_bytes as f64 / f64::from(1 << 20)),
        ),
    ] {
        writeln!(text, "| {what} | {figure} |")?;
    }
    writeln!(text)
}

fn waiting(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "### Waiting\n\nFrom the request to the host's word.\n")?;
    writeln!(text, "| purpose | placed | not placed | p50 | p90 | p95 | p99 |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for purpose in &report.purposes {
        let (placed, lost) = (purpose.waits.count(), purpose.unplaced);
        let unplaced = share(lost, placed + lost);
        writeln!(text, "| {} | {placed} | {unplaced} | {} |", purpose.name, times(&purpose.waits))?;
    }
    writeln!(text, "| all | {} | | {} |\n", report.waits.count(), times(&report.waits))?;
    writeln!(text, "From the request to what the user sees first (\"second on\").\n")?;
    writeln!(text, "| application | starts | within 1 s | p50 | p90 | p95 | p99 |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for (name, starts) in [("ready", &report.warm_starts), ("not ready", &report.cold_starts)] {
        let within = starts.rising().take_while(|(time, _)| *time <= 1_000_000).last();
        let within = share(within.map_or(0, |(_, count)| count), starts.count());
        writeln!(text, "| {name} | {} | {within} | {} |", starts.count(), times(starts))?;
    }
    writeln!(text)
}

fn indexers(text: &mut String, report: &Report) -> std::fmt::Result {
    let from = report.config.lies_from.map_or(String::new(), |from| {
        format!("Two begin to lie at {:02}:{:02} UTC. ", from / 60, from % 60)
    });
    writeln!(text, "### Indexers\n\n{from}Shares are of the region.\n")?;
    writeln!(
        text,
        "| indexer | lie | requests | an hour after it began, to the end | leased time | first \
         host failed | weight in the end |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for indexer in &report.indexers {
        writeln!(
            text,
            "| {} | {} | {:.1} % | {:.1} % | {:.1} % | {:.2} % | {:.3} |",
            indexer.name,
            indexer.lie.unwrap_or(""),
            indexer.asked_percent,
            indexer.asked_late_percent,
            indexer.delivered_percent,
            indexer.failed_percent,
            indexer.score,
        )?;
    }
    writeln!(text)
}

fn conflicts(text: &mut String, cells: &[Cell]) -> std::fmt::Result {
    writeln!(text, "### Requests that needed a second candidate\n")?;
    write!(text, "| picture | choice |")?;
    for load in LOADS {
        let leased = cells.iter().find(|cell| cell.load == load);
        let leased = leased.map_or(0.0, |cell| cell.leased_percent);
        write!(text, " demand {} %, leased {leased:.0} % |", load / 10)?;
    }
    writeln!(text, " dearer than the best |\n|{}", " --- |".repeat(3 + LOADS.len()))?;
    for (age, picture) in AGES {
        for (choosing, name) in CHOICES {
            write!(text, "| {picture} | {name} |")?;
            let row = || cells.iter().filter(|cell| (cell.age, cell.choosing) == (age, choosing));
            for cell in row() {
                write!(text, " {:.2} % |", cell.failed_percent)?;
            }
            let dearer: f64 = row().map(|cell| cell.dearer_percent).sum();
            writeln!(text, " {:.2} % |", dearer / LOADS.len() as f64)?;
        }
    }
    Ok(())
}
