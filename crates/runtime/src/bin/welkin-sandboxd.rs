//! The helper as a program of its own; the `welkin` binary has it as a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == "list-gpus").is_some() {
        return welkin_runtime::inventory::list_gpus(args.next().as_deref());
    }
    welkin_runtime::sandboxd::main(args)
}
