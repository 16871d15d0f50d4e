//! Adversaries against the real rules: a table, and one line of result.
//!
//! `cargo run --release -p welkin-sim --example adversaries -- [--seed N] [--days D] [--trials T]
//! [--write]`
//!
//! With `--write` the part between the markers of `docs/reference/adversaries.md` is replaced.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "it shows what it found")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use welkin_sim::adversaries::{Config, run};

const BEGIN: &str = "<!-- table begin -->";
const END: &str = "<!-- table end -->";
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/adversaries.md");

fn options() -> Result<(Config, bool), Box<dyn Error>> {
    let (mut config, mut is_written) = (Config::FULL, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--write" {
            is_written = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number: u64 =
            value.parse().map_err(|_| format!("{word} needs a number, not {value}"))?;
        match word.as_str() {
            "--seed" => config.seed = number,
            "--days" => config.days = u32::try_from(number)?.clamp(1, 90),
            "--trials" => config.trials = u32::try_from(number)?.clamp(1, 10_000),
            _ => {
                let known = "--seed N, --days D, --trials T, --write";
                return Err(format!("{word} is not an option: there are {known}").into());
            }
        }
    }
    Ok((config, is_written))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (config, is_written) = options()?;
    let began = Instant::now();
    let table = run(config);
    let markdown = table.markdown();
    println!("{markdown}");
    if is_written {
        put(Path::new(PAGE), &markdown)?;
    }
    let paying = table.rows.iter().filter(|row| row.pays()).count();
    let unknown = table.rows.iter().filter(|row| row.pays() && row.known.is_none()).count();
    println!(
        "RESULT adversaries detected_day_percent={:.1} paying_attacks={paying} \
         paying_unknown={unknown} false_positive_percent={:.3} honest_slashed={} seconds={:.1}",
        f64::from(table.worst_paying_day_permille()) / 10.0,
        table.false_positive_ppm() as f64 / 1e4,
        table.honest_slashed(),
        began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Replaces the part of a page between the markers.
fn put(path: &Path, table: &str) -> Result<(), Box<dyn Error>> {
    let page = std::fs::read_to_string(path)?;
    let missing = || format!("{} has no lines `{BEGIN}` and `{END}`", path.display());
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(std::fs::write(path, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))?)
}
