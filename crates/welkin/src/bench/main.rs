//! Measurements of the whole path, on a network of its own: `welkin-bench start-warm | leases-200 |
//! stdout`. Each ends with one line `RESULT ID key=value …`. Not part of the product.

#![forbid(unsafe_code)]

mod data;
mod leases;
mod network;
mod start;
mod stdout;

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let id = std::env::args().nth(1).unwrap_or_default();
    let result = runtime.block_on(async {
        match id.as_str() {
            "start-warm" => start::warm().await,
            "leases-200" => leases::many(200).await,
            "stdout" => stdout::throughput().await,
            stdout::SERVE => {
                let name = std::env::args().nth(2).unwrap_or_default();
                return stdout::serve(&name).await.map(|()| None);
            }
            _ => anyhow::bail!("usage: welkin-bench start-warm | leases-200 | stdout"),
        }
        .map(Some)
    });
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(line)) => {
            say(&format!("RESULT {id} {line}"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stdout, reason = "the result is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a failure is told")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// The value below which this share of the sorted values lies, in milliseconds.
fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small count"
    )]
    let index = (share * last as f64).round() as usize;
    sorted.get(index).map_or(0.0, |value| value.as_secs_f64() * 1_000.0)
}
