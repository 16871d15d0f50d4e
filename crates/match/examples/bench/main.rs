//! Measures the index on a synthetic fleet, on one processor.
//!
//! `cargo run --release -p welkin-match --example bench [match-1m|match-growth|index-load] [containers]`
//!
//! Rates are per second of the thread's processor time, so that other programs on the machine do
//! not count; times of one match are by the clock, and heartbeats are applied between matches at
//! 100 000 a second of processor time. The best of several rounds is printed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a measurement stops at the first surprise, reads clocks and prints what it found"
)]

mod plot;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use welkin_match::index::{HoldId, Index, RowId, Scratch, Search};
use welkin_match::synth::{Chance, Demand, Fleet, Purpose, Wanted};

/// As the program's.
#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

/// Heartbeats for each second of processor time.
const BEATS_PER_SECOND: u64 = 100_000;
/// Slots that are claimed at a time, before the oldest claim is given back; fewer where the fleet is
/// small, so that there is something left to find.
const CLAIMED_MAX: usize = 5_000;
const SEARCHES: usize = 20_000;
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let which = arguments.next().unwrap_or_else(|| "match-1m".to_owned());
    let count = arguments.next().and_then(|count| count.parse().ok());
    match which.as_str() {
        "match-1m" => match_1m(count.unwrap_or(1_000_000)),
        "profile" => profile(count.unwrap_or(1_000_000)),
        "index-load" => index_load(count.unwrap_or(1_000_000)),
        "match-growth" => match_growth(count.unwrap_or(10_000_000)),
        other => {
            println!("no measurement is called {other}: try match-1m, match-growth or index-load")
        }
    }
}

/// The thread's processor time.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

struct World {
    index: Index,
    scratch: Scratch,
    rows: Vec<(RowId, u16, u32)>,
    chance: Chance,
    beats: u64,
    build: Duration,
}

impl World {
    fn new(count: usize) -> Self {
        let rows: Vec<_> = Fleet::new(7).take(count).collect();
        let begun = spent();
        let mut index = Index::default();
        let ids: Vec<_> = rows.iter().map(|row| index.insert(row).unwrap()).collect();
        let build = spent() - begun;
        let rows = ids.into_iter().zip(&rows).map(|(id, row)| (id, row.free.max(1), row.price));
        let scratch = Scratch::default();
        Self { rows: rows.collect(), index, scratch, chance: Chance::new(99), beats: 0, build }
    }

    /// One heartbeat: of ten one says that something has changed, of two hundred one has a new
    /// price.
    fn beat(&mut self) {
        self.beats += 1;
        let count = self.rows.len() as u64;
        let number = usize::try_from(self.beats.wrapping_mul(0x9e37_79b1) % count).unwrap();
        let (row, slots, price) = self.rows[number];
        let said = match self.chance.below(1_000) {
            0..65 => 0,
            65..100 => slots,
            _ => self.index.free(row),
        };
        self.index.beat(row, self.beats / BEATS_PER_SECOND, said);
        if self.chance.below(1_000) < 5 {
            self.index.reprice(row, price / 1_000 * (900 + self.chance.below(200)));
        }
    }

    /// Applies the heartbeats that are due after so much processor time.
    fn beat_until(&mut self, begun: u64, spent: Duration) {
        let due = begun + u64::try_from(spent.as_micros()).unwrap() * BEATS_PER_SECOND / 1_000_000;
        while self.beats < due {
            self.beat();
        }
    }
}

/// Times of single matches, in nanoseconds.
#[derive(Default)]
struct Times(Vec<u32>);

impl Times {
    fn at(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let place = self.0.len() * percent / 100;
        f64::from(self.0[place.min(self.0.len() - 1)]) / 1_000.0
    }
}

struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
}

/// Matches and heartbeats in turns. The rate is of the whole, heartbeats included.
fn measure(
    world: &mut World,
    wanted: &[Wanted],
    matches: usize,
    mut run: impl FnMut(&mut World, &Search<'_>, usize),
) -> Measured {
    let (begun, beats) = (spent(), world.beats);
    let mut times = Times(Vec::with_capacity(matches));
    for number in 0..matches {
        let search = wanted[number % wanted.len()].search();
        let clock = Instant::now();
        run(world, &search, number);
        times.0.push(u32::try_from(clock.elapsed().as_nanos()).unwrap_or(u32::MAX));
        if number % 16 == 0 {
            world.beat_until(beats, spent() - begun);
        }
    }
    let taken = spent() - begun;
    Measured {
        per_second: matches as f64 / taken.as_secs_f64(),
        p50: times.at(50),
        p99: times.at(99),
    }
}

/// Of several rounds the one with the highest rate.
fn best(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds.pop().unwrap()
}

fn find(world: &mut World, search: &Search<'_>, count: u8, width: u8) {
    let search = Search { count, width, ..*search };
    black_box(world.index.find_with(&mut world.scratch, &search).unwrap());
}

/// Finds, and holds a slot of the first candidate; older claims end after a while.
fn claim(
    world: &mut World,
    claims: &mut VecDeque<HoldId>,
    search: &Search<'_>,
    number: usize,
) -> bool {
    let now = number as u64;
    let search = Search { count: 8, width: 64, ..*search };
    let choice = world.index.find_with(&mut world.scratch, &search).unwrap();
    let claimed = choice.chosen.iter().find_map(|chosen| {
        world.index.hold(now, chosen.row, search.slots, now + 1_000_000_000).ok()
    });
    claims.extend(claimed);
    if claims.len() > CLAIMED_MAX.min(world.rows.len() / 200) {
        claims.pop_front().into_iter().for_each(|oldest| world.index.release(oldest));
    }
    claimed.is_some()
}

/// What each kind of search costs, with and without an application.
fn profile(count: usize) {
    let mut world = World::new(count);
    let wanted: Vec<_> = Demand::new(11).take(SEARCHES).collect();
    for purpose in [Purpose::Game, Purpose::Inference, Purpose::Phone, Purpose::Training] {
        for with_app in [true, false] {
            let (mut least, mut rows, mut lists, mut searches) = (f64::MAX, 0, 0, 0);
            for _ in 0..8 {
                (rows, lists, searches) = (0, 0, 0);
                let begun = spent();
                for wanted in wanted.iter().filter(|wanted| wanted.purpose == purpose) {
                    let search = Search { count: 8, width: 64, ..wanted.search() };
                    let app = search.app.filter(|_| with_app);
                    let search = Search { app, ..search };
                    let found = world.index.find_with(&mut world.scratch, &search);
                    let effort = found.unwrap().effort;
                    (rows, lists, searches) =
                        (rows + effort.rows, lists + effort.lists, searches + 1);
                }
                least = least.min((spent() - begun).as_secs_f64());
            }
            println!(
                "{purpose:?}, application {with_app}: {} rows in {} lists, {:.2} us",
                rows / searches,
                lists / searches,
                least * 1e6 / searches as f64
            );
        }
    }
}

fn match_1m(count: usize) {
    let mut world = World::new(count);
    let bytes = world.index.bytes() as f64 / count as f64;
    println!("{count} containers, built in {:?} of processor time", world.build);
    let wanted: Vec<_> = Demand::new(11).take(SEARCHES).collect();
    let mut none = 0;
    let (mut rows, mut lists) = (0, 0);
    for wanted in &wanted {
        let choice = world.index.find(&Search { count: 8, width: 64, ..wanted.search() }).unwrap();
        none += usize::from(choice.chosen.is_empty());
        rows += choice.effort.rows;
        lists += choice.effort.lists;
    }
    let each = |sum: u64| sum as f64 / SEARCHES as f64;
    println!("a match looks at {:.1} rows in {:.1} lists", each(rows), each(lists));
    println!("{none} of {SEARCHES} searches find nothing");
    let mut rounds = |name: &str, wanted: &[Wanted], (k, width): (u8, u8)| {
        let run = |world: &mut World, search: &Search<'_>, _| find(world, search, k, width);
        let measured = (0..ROUNDS).map(|_| measure(&mut world, wanted, 100_000, run)).collect();
        let best = best(measured);
        println!(
            "{name:<34} {:>9.0} matches/cpu-s  p50 {:>6.2} us  p99 {:>6.2} us",
            best.per_second, best.p50, best.p99
        );
        best
    };
    let spread = rounds("8 drawn from the best 64", &wanted, (8, 64));
    rounds("the 8 best", &wanted, (8, 1));
    for purpose in [Purpose::Game, Purpose::Inference, Purpose::Phone, Purpose::Training] {
        let some: Vec<_> = wanted.iter().filter(|w| w.purpose == purpose).cloned().collect();
        rounds(&format!("8 from 64, {purpose:?}"), &some, (8, 64));
    }
    let mut claims = VecDeque::new();
    let mut failed = 0;
    let measured = (0..ROUNDS).map(|_| {
        measure(&mut world, &wanted, 100_000, |world, search, number| {
            failed += u32::from(!claim(world, &mut claims, search, number));
        })
    });
    let claimed = best(measured.collect());
    println!(
        "{:<34} {:>9.0} claims/cpu-s   p50 {:>6.2} us  p99 {:>6.2} us",
        "find and claim", claimed.per_second, claimed.p50, claimed.p99
    );
    println!("{failed} of {} found nothing to claim", 100_000 * ROUNDS);
    let (begun, before) = (spent(), world.beats);
    while spent() - begun < Duration::from_secs(1) {
        (0..1_000).for_each(|_| world.beat());
    }
    let beats = (world.beats - before) as f64 / (spent() - begun).as_secs_f64();
    println!(
        "RESULT match-1m p50_us={:.2} p99_us={:.2} matches_per_cpu_s={:.0} claims_per_cpu_s={:.0} \
         bytes_per_container={bytes:.1} heartbeats_per_s={beats:.0}",
        spread.p50, spread.p99, spread.per_second, claimed.per_second
    );
}

/// An index as bytes and back, and built at once.
fn index_load(count: usize) {
    let rows: Vec<_> = Fleet::new(7).take(count).collect();
    let times = |run: &mut dyn FnMut()| {
        let mut times: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let begun = spent();
                run();
                (spent() - begun).as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let grown_ms = times(&mut || {
        let mut index = Index::default();
        for row in &rows {
            index.insert(row).unwrap();
        }
        black_box(index);
    });
    let build_ms = times(&mut || drop(black_box(Index::build(rows.iter().cloned()).unwrap())));
    let index = Index::build(rows.iter().cloned()).unwrap();
    let mut bytes = Vec::new();
    let dump_ms = times(&mut || {
        bytes.clear();
        index.dump(&mut bytes);
    });
    let load_ms = times(&mut || drop(black_box(Index::load(&bytes).unwrap())));
    let each = bytes.len() as f64 / count as f64;
    println!(
        "RESULT index-load load_ms={load_ms:.1} dump_ms={dump_ms:.1} build_ms={build_ms:.1} \
         grown_ms={grown_ms:.1} bytes_per_container={each:.1}"
    );
}

/// What was measured at one size.
struct Grown {
    count: usize,
    found: Measured,
    claimed: Measured,
    bytes: f64,
    build: Duration,
}

fn grown(count: usize, wanted: &[Wanted]) -> Grown {
    let mut world = World::new(count);
    let bytes = world.index.bytes() as f64 / count as f64;
    let run = |world: &mut World, search: &Search<'_>, _| find(world, search, 8, 64);
    let rounds = (0..ROUNDS).map(|_| measure(&mut world, wanted, 40_000, run)).collect();
    let found = best(rounds);
    let mut claims = VecDeque::new();
    let claimed = (0..ROUNDS).map(|_| {
        measure(&mut world, wanted, 40_000, |world, search, number| {
            claim(world, &mut claims, search, number);
        })
    });
    let claimed = best(claimed.collect());
    Grown { count, found, claimed, bytes, build: world.build }
}

/// A table, and the picture of it in `docs/figures/match-growth.svg`.
fn match_growth(most: usize) {
    let wanted: Vec<_> = Demand::new(11).take(SEARCHES).collect();
    println!(
        "| containers | matches/cpu-s | p50 us | p99 us | claims/cpu-s | bytes each | build ms |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut all = Vec::new();
    for count in [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000] {
        if count > most {
            break;
        }
        let one = grown(count, &wanted);
        println!(
            "| {count} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} | {} |",
            one.found.per_second,
            one.found.p50,
            one.found.p99,
            one.claimed.per_second,
            one.bytes,
            one.build.as_millis()
        );
        all.push(one);
    }
    let line = |name, unit, of: fn(&Grown) -> f64| plot::Line {
        name,
        unit,
        points: all.iter().map(|one| (one.count as f64, of(one))).collect(),
    };
    let picture = plot::log_log(
        "Matching by the number of containers, one processor",
        "containers",
        &[
            line("matches", "a processor second", |one| one.found.per_second),
            line("find and claim", "a processor second", |one| one.claimed.per_second),
            line("p99", "us", |one| one.found.p99),
            line("p50", "us", |one| one.found.p50),
        ],
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/figures/match-growth.svg");
    std::fs::write(path, picture).unwrap();
    println!("the picture is in docs/figures/match-growth.svg");
    if let Some(last) = all.last() {
        println!(
            "RESULT match-growth containers={} matches_per_cpu_s={:.0} p99_us={:.2} \
             bytes_per_container={:.1}",
            last.count, last.found.per_second, last.found.p99, last.bytes
        );
    }
}
