//! The program `welkin-trace`: renders tiles, renders pictures, joins tiles.
//!
//! `tile` touches nothing but stdout (the tile) and stderr (progress), so that it runs in the
//! smallest sandbox.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod error;
mod progress;

use error::RunError;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1);
    match args::parse(words).map_err(RunError::Usage).and_then(commands::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
