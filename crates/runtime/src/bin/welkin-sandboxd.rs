//! The helper as a program of its own; the `welkin` binary has it as a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    welkin_runtime::sandboxd::main(std::env::args_os().skip(1))
}
