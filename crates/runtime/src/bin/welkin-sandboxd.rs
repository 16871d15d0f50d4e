//! The helper as a program of its own; the `welkin` binary has it as a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == "list-vulkan") {
        return welkin_runtime::inventory::list_vulkan();
    }
    welkin_runtime::sandboxd::main(args)
}
