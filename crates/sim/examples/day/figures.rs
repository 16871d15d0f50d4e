//! The pictures of a day.

use std::path::Path;

use welkin_sim::day::{HIDER, INDEXERS_PER_REGION, PRETENDER, REGIONS, Report, SURGES, Times};

use crate::conflicts::{AGES, CHOICES, Cell};
use crate::plot::{Axis, BLACK, COLOURS, Canvas, Chart, Line};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const WIDTH: i32 = 1_240;

pub(crate) fn all(report: &Report, cells: &[Cell], out: &Path) -> Outcome {
    course(report, &out.join("sim-day-course.png"))?;
    waiting(report, &out.join("sim-day-waiting.png"))?;
    conflicts(cells, &out.join("sim-day-conflicts.png"))?;
    indexers(report, &out.join("sim-day-indexers.png"))?;
    fairness(report, &out.join("sim-day-fairness.png"))
}

/// The hours of the day.
fn hours(report: &Report) -> Axis {
    let hours = report.config.minutes as f64 / 60.0;
    Axis::even("hour of the day, UTC", (0.0, hours), (hours / 12.0).ceil().max(1.0))
}

fn canvas(height: i32, title: &str, subtitle: &str) -> Canvas {
    let mut canvas = Canvas::new(WIDTH, height);
    canvas.text((16, 14), 3, BLACK, title);
    canvas.text((16, 50), 2, [110, 112, 118], subtitle);
    canvas
}

/// One value of every sample against the hour.
fn by_hour(report: &Report, value: impl Fn(&welkin_sim::day::Sample) -> f64) -> Vec<(f64, f64)> {
    let samples = report.samples.iter();
    samples.map(|sample| (sample.minute as f64 / 60.0, value(sample))).collect()
}

fn most(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).fold(0.0, f64::max)
}

fn course(report: &Report, path: &Path) -> Outcome {
    let mut canvas = canvas(
        1_060,
        "A day of the network",
        &format!(
            "{} containers, three regions, launches where marked; simulated, seed {}",
            report.config.containers, report.config.seed
        ),
    );
    let moments = SURGES
        .iter()
        .zip(["Americas", "Asia", "Europe"])
        .map(|(surge, region)| (surge.at_minutes as f64 / 60.0, format!("launch, {region}")));
    let moments: Vec<_> =
        moments.filter(|(hour, _)| *hour * 60.0 < report.config.minutes as f64).collect();
    let short = ["Asia, Pacific", "Europe, Africa", "Americas"];
    let mut leased: Vec<_> = (0..REGIONS.len())
        .map(|region| {
            let share = by_hour(report, |sample| sample.leased_permille[region] as f64 / 10.0);
            Line::new(short[region], COLOURS[region], share)
        })
        .collect();
    let all = by_hour(report, |sample| sample.leased_permille_all as f64 / 10.0);
    leased.push(Line { width: 4.0, ..Line::new("all", BLACK, all) });
    let requests = by_hour(report, |sample| sample.requests_tenths as f64 / 10.0);
    let requests = vec![Line::new("", COLOURS[0], requests)];
    let waiting = vec![Line::new("", COLOURS[1], by_hour(report, |sample| sample.waiting as f64))];
    let panels = [
        ("Leased slots", Axis::even("% of those there", (0.0, 100.0), 20.0), leased, 380),
        ("Requests", Axis::up_to("a second", most(&requests)), requests, 300),
        ("Buyers that wait in a queue", Axis::up_to("buyers", most(&waiting)), waiting, 300),
    ];
    let mut top = 76;
    for (title, y, lines, height) in panels {
        let (title, x) = (title.to_owned(), hours(report));
        // Named once is enough.
        let is_first = top == 76;
        let named = |(hour, name): &(f64, String)| {
            (*hour, if is_first { name.clone() } else { String::new() })
        };
        let moments = moments.iter().map(named).collect();
        Chart { title, x, y, lines, moments }.draw(&mut canvas, (0, top), (WIDTH, height));
        top += height;
    }
    canvas.write(path)
}

/// How many of all, in percent, take at most a time in seconds.
fn rising(times: &Times) -> Vec<(f64, f64)> {
    let all = times.count().max(1) as f64;
    let (mut points, mut last) = (Vec::new(), 0.0);
    for (time, count) in times.rising() {
        let (time, percent) = (time as f64 / 1e6, 100.0 * count as f64 / all);
        points.extend([(time, last), (time, percent)]);
        last = percent;
    }
    points
}

fn waiting(report: &Report, path: &Path) -> Outcome {
    let mut canvas = canvas(
        960,
        "How long buyers wait",
        "A line shows how many percent of the buyers waited at most so long; simulated day",
    );
    let marks = [
        (0.01, "10 ms"),
        (0.1, "100 ms"),
        (1.0, "1 s"),
        (10.0, "10 s"),
        (60.0, "1 min"),
        (600.0, "10 min"),
        (3_600.0, "1 h"),
    ];
    let axis = |label: &str| Axis {
        label: label.to_owned(),
        from: 0.01,
        to: 3_600.0,
        marks: marks.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
        is_log: true,
    };
    let purposes = report.purposes.iter().zip(COLOURS);
    let waits =
        purposes.map(|(purpose, colour)| Line::new(purpose.name, colour, rising(&purpose.waits)));
    let starts = [
        Line::new("application ready", COLOURS[2], rising(&report.warm_starts)),
        Line::new("not ready", COLOURS[1], rising(&report.cold_starts)),
    ];
    for (title, label, lines, top) in [
        ("Until a host has said yes", "time since the request", waits.collect::<Vec<_>>(), 80),
        (
            "Until the user sees something (second on)",
            "time since the request",
            starts.into_iter().collect(),
            520,
        ),
    ] {
        let y = Axis::even("% of those placed", (0.0, 100.0), 20.0);
        let chart = Chart { title: title.to_owned(), x: axis(label), y, lines, moments: vec![] };
        chart.draw(&mut canvas, (0, top), (WIDTH, 430));
    }
    canvas.write(path)
}

fn conflicts(cells: &[Cell], path: &Path) -> Outcome {
    let mut canvas = canvas(
        1_240,
        "Requests that the first host refuses",
        "because its last slot went while the indexer's picture of it was older than the change",
    );
    for (at, (age, name)) in (0_i32..).zip(AGES) {
        let lines = CHOICES.iter().zip(COLOURS).map(|((choosing, name), colour)| {
            let mine = cells.iter().filter(|cell| cell.age == age && cell.choosing == *choosing);
            let points = mine.map(|cell| (cell.load as f64 / 10.0, cell.failed_percent));
            Line { has_dots: true, ..Line::new(name, colour, points.collect()) }
        });
        let lines: Vec<_> = lines.collect();
        let chart = Chart {
            title: format!("A picture that is {name} old"),
            x: Axis::even("demand, % of the slots that suit it", (45.0, 100.0), 5.0),
            y: Axis::up_to("% of requests", most(&lines).max(0.1)),
            lines,
            moments: vec![],
        };
        chart.draw(&mut canvas, (0, 80 + at * 384), (WIDTH, 380));
    }
    canvas.write(path)
}

fn indexers(report: &Report, path: &Path) -> Outcome {
    let mut canvas = canvas(
        940,
        "Who lies is asked less",
        "Share of the region's requests that each of its three indexers gets; simulated day",
    );
    let from = report.config.lies_from.unwrap_or(0) as f64 / 60.0;
    for (panel, liar, what) in [
        (0, HIDER, "shows only its friends' containers"),
        (1, PRETENDER, "offers containers that are gone"),
    ] {
        let first = liar / INDEXERS_PER_REGION * INDEXERS_PER_REGION;
        let lines = (0..INDEXERS_PER_REGION).map(|number| {
            let points = by_hour(report, |sample| {
                let all = &sample.asked[first..first + INDEXERS_PER_REGION];
                100.0 * all[number] as f64 / all.iter().sum::<u64>().max(1) as f64
            });
            let is_liar = first + number == liar;
            let colour =
                if is_liar { COLOURS[1] } else { COLOURS[if number == 0 { 0 } else { 2 }] };
            let name = if is_liar { "liar" } else { "honest" };
            Line { width: if is_liar { 4.0 } else { 2.5 }, ..Line::new(name, colour, points) }
        });
        let chart = Chart {
            title: format!("{}: one {what}", REGIONS[first / INDEXERS_PER_REGION]),
            x: hours(report),
            y: Axis::even("% of requests", (0.0, 100.0), 20.0),
            lines: lines.collect(),
            moments: vec![(from, "the lie begins".to_owned())],
        };
        chart.draw(&mut canvas, (0, 80 + panel * 430), (WIDTH, 425));
    }
    canvas.write(path)
}

fn fairness(report: &Report, path: &Path) -> Outcome {
    let mut canvas = canvas(
        760,
        "How leases are shared out between hosts of one class",
        "Those with the fewest leases first; were all equal, the line would be straight",
    );
    let percent = |(part, share): &(f64, f64)| (part * 100.0, share * 100.0);
    let chart = Chart {
        title: format!(
            "All of a class: Gini {:.3}. Alike in city, price and quality too: Gini {:.3}",
            report.hosts_of_a_class.gini, report.hosts_alike.gini
        ),
        x: Axis::even("% of the hosts of a class", (0.0, 100.0), 10.0),
        y: Axis::even("% of its leased time", (0.0, 100.0), 20.0),
        lines: vec![
            Line::new("all equal", COLOURS[4], vec![(0.0, 0.0), (100.0, 100.0)]),
            Line {
                width: 4.0,
                ..Line::new("the day", COLOURS[0], report.lorenz.iter().map(percent).collect())
            },
        ],
        moments: vec![],
    };
    chart.draw(&mut canvas, (0, 80), (WIDTH, 670));
    canvas.write(path)
}
