//! Large pages for a program that holds a whole network's hosts in memory.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use tracing::debug;

/// Where the C library reads how its allocator works.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Asks it for transparent large pages (the GNU C library's manual, "Memory Allocation Tunables").
const LARGE: &str = "glibc.malloc.hugetlb";

/// Says that this is the second start: a program with rights of its own is not shown the other variable.
const BEGUN: &str = "_WELKIN_LARGE_PAGES";

/// Starts this program again, in the same process, with large pages for all that it allocates; returns
/// where they are on already, or can't be had.
///
/// A search and a heartbeat read memory in places that are far apart: with pages of 4 KiB of a gigabyte
/// each of these reads looks its address up in memory as well. The allocator is told by its environment
/// alone, before the program begins.
pub(crate) fn begin_again_with_large() {
    let tunables = std::env::var_os(TUNABLES).unwrap_or_default();
    if std::env::var_os(BEGUN).is_some() || tunables.to_string_lossy().contains(LARGE) {
        return;
    }
    let mut wanted = tunables;
    if !wanted.is_empty() {
        wanted.push(":");
    }
    wanted.push(LARGE);
    wanted.push("=1");
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("welkin"));
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(TUNABLES, wanted)
        .env(BEGUN, "1")
        .exec();
    debug!(%error, "the indexer goes without large pages");
}
