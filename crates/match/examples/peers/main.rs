//! The index beside what a user would otherwise take: our side of `bench/run match-peers`.
//!
//! `peers CONTAINERS SEARCHES FOLDER` writes the fleet and the searches with their exact answers
//! into the folder, for the peers that are other programs, and then answers lines of its input:
//! `process`, `tcp` or `scan`, each with a first search and how many. It prints for each how long
//! they took, all together and in the median: what runs in process by the thread's processor time,
//! so that other programs on the machine don't count, and the rest by the clock.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement stops at the first surprise, uses files, sockets and clocks, and prints"
)]

mod scan;
mod wire;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use welkin_match::index::{Index, Row, Scratch, Search};
use welkin_match::synth::{Demand, Fleet, Wanted};

/// How many of the best are wanted.
const BEST: u8 = 8;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(count), Some(searches), Some(folder)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        println!("usage: peers CONTAINERS SEARCHES FOLDER");
        return;
    };
    let rows: Vec<_> = Fleet::new(7).take(count.parse().unwrap()).collect();
    let wanted: Vec<_> = Demand::new(11).take(searches.parse().unwrap()).collect();
    let index = Index::build(rows.iter().cloned()).unwrap();
    let columns = scan::Columns::new(&rows);
    let exact: Vec<_> = wanted.iter().map(|wanted| costs(&index, wanted)).collect();
    for (wanted, exact) in wanted.iter().zip(&exact) {
        assert_eq!(&columns.find(&search_of(wanted)), exact, "the scan and the index disagree");
    }
    write_rows(Path::new(&folder), &rows);
    write_searches(Path::new(&folder), &wanted, &exact);
    drop(rows);
    let mut line = wire::Line::new(index.clone());
    let mut scratch = Scratch::default();
    println!("ready");
    for command in std::io::stdin().lock().lines() {
        let command = command.unwrap();
        let mut words = command.split(' ');
        let which = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        let (first, many) = (number(), number());
        let mut times = Vec::with_capacity(many);
        let begun = spent();
        for place in (0..wanted.len()).cycle().skip(first).take(many) {
            let search = search_of(&wanted[place]);
            let clock = Instant::now();
            let best = match which {
                "process" => index.find_with(&mut scratch, &search).unwrap().chosen.len(),
                "tcp" => line.find(&search).len(),
                "scan" => columns.find(&search).len(),
                other => panic_on(other),
            };
            times.push(clock.elapsed());
            assert_eq!(best, exact[place].len());
        }
        let all = match which {
            "tcp" => times.iter().sum(),
            _ => spent() - begun,
        };
        let all = all.as_secs_f64();
        times.sort_unstable();
        println!("{all:.6} {:.2}", times[many / 2].as_secs_f64() * 1e6);
    }
}

/// The thread's processor time.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn panic_on(word: &str) -> usize {
    println!("no contestant is called {word}");
    std::process::abort()
}

/// The best themselves, for peers have no draws.
fn search_of(wanted: &Wanted) -> Search<'_> {
    Search { count: BEST, width: 1, ..wanted.search() }
}

fn costs(index: &Index, wanted: &Wanted) -> Vec<u64> {
    let choice = index.find(&search_of(wanted)).unwrap();
    choice.chosen.iter().map(|chosen| chosen.terms.sum()).collect()
}

/// Tables: number, location, class, price, quality, free slots, cpu, memory, disk, properties,
/// driver, application.
fn write_rows(folder: &Path, rows: &[Row]) {
    let mut file = BufWriter::new(File::create(folder.join("rows.tsv")).unwrap());
    for (number, row) in rows.iter().enumerate() {
        let app = row.apps.first().map_or(-1, |app| i32::from(*app));
        let bits = row.features.bits();
        writeln!(
            file,
            "{number}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{app}",
            row.location,
            row.class,
            row.price,
            row.quality,
            row.free,
            row.cpu,
            row.memory,
            row.disk,
            bits & ((1 << 26) - 1),
            bits >> 26,
        )
        .unwrap();
    }
    file.flush().unwrap();
}

/// One search a line, as JSON; only locations near enough are in it.
fn write_searches(folder: &Path, wanted: &[Wanted], exact: &[Vec<u64>]) {
    let mut text = String::new();
    for (wanted, exact) in wanted.iter().zip(exact) {
        let search = search_of(wanted);
        let near: Vec<_> = (0..)
            .zip(search.latency)
            .filter(|(_, latency)| **latency <= search.latency_max)
            .collect::<Vec<(usize, &u16)>>();
        let bits = search.features.bits();
        let weights = &search.weights;
        writeln!(
            text,
            "{{\"classes\":{:?},\"locations\":{:?},\"latencies\":{:?},\"slots\":{},\"cpu\":{},\
             \"memory\":{},\"disk\":{},\"price_max\":{},\"quality_min\":{},\"bits\":{},\
             \"driver\":{},\"app\":{},\"weights\":[{},{},{},{},{}],\"costs\":{exact:?}}}",
            search.classes.iter().take_while(|class| *class < 64).collect::<Vec<_>>(),
            near.iter().map(|(location, _)| *location).collect::<Vec<_>>(),
            near.iter().map(|(_, latency)| **latency).collect::<Vec<_>>(),
            search.slots,
            search.cpu,
            search.memory,
            search.disk,
            search.price_max,
            search.quality_min,
            bits & ((1 << 26) - 1),
            bits >> 26,
            search.app.map_or(-2, i32::from),
            weights.price,
            weights.latency,
            weights.quality,
            weights.cold,
            weights.fragment,
        )
        .unwrap();
    }
    std::fs::write(folder.join("searches.jsonl"), text).unwrap();
}
