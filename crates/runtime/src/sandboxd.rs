//! The privileged helper: a small root process with one thread that owns every sandbox.
//!
//! It speaks to one unprivileged host process over a local socket and survives its death: sandboxes
//! keep running for a grace time, within which a new host process may take them over. It owns
//! mounts, namespaces, cgroups and libcontainer, and nothing else: no network, no async runtime.
//!
//! Invariants:
//! - It never waits: slow work is done by workers, inside sandboxes, or step by step in the loop.
//! - What a sandbox has on the host (a directory, a cgroup) is named after it, and made in that
//!   order, so that what a killed helper left behind is found and removed by the next one.
//! - Descriptors of the helper reach neither workers nor sandboxes, unless named.

mod cgroup;
mod config;
mod create;
mod daemon;
mod devices;
mod driver;
mod launcher;
mod mounts;
mod requests;
mod sandbox;
mod seccomp;
mod spec;
mod terminal;
mod validate;
mod worker;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub use config::{Endpoint, SandboxdConfig};

use crate::error::SandboxdError;

/// Runs the helper as a program: `--state DIR [--images DIR] [--driver-root DIR] --socket PATH
/// --owner UID [--grace SECONDS] [--foreground]`, or `--fd N` instead of `--socket` and `--owner`.
///
/// Without `--foreground` it returns as soon as the helper listens, in the background. With
/// `--launcher` as the first argument it starts helpers for a [`Launcher`](crate::Launcher).
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter().peekable();
    let result = if args.next_if(|first| first == "--launcher").is_some() {
        launcher::Launcher::parse(args).and_then(launcher::Launcher::run)
    } else {
        SandboxdConfig::parse(args).and_then(|config| run(&config))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the helper until its work is over.
///
/// # Errors
///
/// When it cannot take its state directory, lacks privileges, or a system call fails at the start.
pub fn run(config: &SandboxdConfig) -> Result<(), SandboxdError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SandboxdError::NotRoot);
    }
    let threads = crate::sys::thread_count().map_err(SandboxdError::io("count threads"))?;
    if threads != 1 {
        return Err(SandboxdError::Threads);
    }
    if config.is_foreground {
        return daemon::Daemon::new(config)?.run();
    }
    config::run_in_background(config, |ready| {
        let daemon = daemon::Daemon::new(config)?;
        ready()?;
        daemon.run()
    })
}

/// Which control group hierarchy the kernel offers.
pub(crate) fn cgroup_version() -> crate::types::CgroupVersion {
    cgroup::Hierarchies::detect().map_or(crate::types::CgroupVersion::None, |found| found.version())
}
