//! A day of a whole network in virtual time: tables, pictures and one line of result.
//!
//! `cargo run --release -p welkin-sim --example day -- [--seed N] [--containers N] [--hours H]
//! [--out DIR] [--page FILE]`
//!
//! Pictures go to `--out`; in `--page` the part between the two markers is replaced by the tables.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "it shows what it found")]

mod conflicts;
mod figures;
mod font;
mod plot;
mod tables;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use welkin_sim::day::{Config, Day};

const BEGIN: &str = "<!-- sim-day: begin -->";
const END: &str = "<!-- sim-day: end -->";

struct Options {
    config: Config,
    out: Option<PathBuf>,
    page: Option<PathBuf>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { config: Config::DAY, out: None, page: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} needs a number, not {value}"));
        match word.as_str() {
            "--seed" => options.config.seed = number()?,
            "--containers" => {
                options.config.containers = usize::try_from(number()?)?.clamp(1_000, 10_000_000);
            }
            "--hours" => options.config.minutes = number()?.clamp(1, 24 * 7) * 60,
            "--out" => options.out = Some(PathBuf::from(value)),
            "--page" => options.page = Some(PathBuf::from(value)),
            _ => {
                let known = "--seed N, --containers N, --hours H, --out DIR, --page FILE";
                return Err(format!("{word} is not an option: there are {known}").into());
            }
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let began = Instant::now();
    // The day and the conflicts share nothing: each has a processor of its own.
    let (day, cells) = std::thread::scope(|scope| {
        let cells = scope.spawn(|| conflicts::measure(options.config));
        let day = Day::new(options.config)?.run().map(|report| (report, began.elapsed()));
        let cells = cells.join().map_err(|_| "the conflicts were not measured")?;
        Ok::<_, Box<dyn Error>>((day?, cells?))
    })?;
    let (report, day_s) = (day.0, day.1.as_secs_f64());
    let tables = tables::all(&report, &cells);
    println!("{tables}");
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out)?;
        figures::all(&report, &cells, out)?;
    }
    if let Some(page) = &options.page {
        put(page, &tables)?;
    }
    println!("digest {:016x}, the day alone {day_s:.0} s", report.digest);
    println!(
        "RESULT sim-day seconds={:.0} cpu_s={:.0} rss_mib={:.0} utilisation_percent={:.1} \
         first_try_failed_percent={:.2} wait_p50_s={:.3} wait_p99_s={:.1} jain={:.3} \
         liar_share_percent={:.2}",
        began.elapsed().as_secs_f64(),
        cpu_s().unwrap_or(0.0),
        rss_mib().unwrap_or(0.0),
        report.utilisation_percent,
        report.honest_failed_percent(),
        report.waits.permille(500) as f64 / 1e6,
        report.waits.permille(990) as f64 / 1e6,
        report.hosts_alike.jain,
        report.liar_share_percent(),
    );
    Ok(())
}

/// Replaces the part of a page between the markers.
fn put(path: &Path, tables: &str) -> Result<(), Box<dyn Error>> {
    let page = std::fs::read_to_string(path)?;
    let missing = || format!("{} has no lines `{BEGIN}` and `{END}`", path.display());
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(std::fs::write(path, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))?)
}

/// The most memory that this process has had.
fn rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1_024.0)
}

/// The processor time of this process, which counts in hundredths of a second.
fn cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    Some(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
}
