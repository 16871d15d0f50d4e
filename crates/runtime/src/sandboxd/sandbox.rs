//! One sandbox as the helper sees it.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::create::Dirs;
use super::mounts;
use super::terminal::Terminals;
use super::worker::Worker;
use crate::types::{
    ExecId, Exit, Limits, Prepared, SandboxId, SandboxState, ScratchKind, Stats, WipeRecord,
};

/// Whom to answer: a request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) connection: u64,
    pub(super) request_id: u64,
}

/// What is expected of a task of init.
#[derive(Clone, Copy, Debug)]
pub(super) enum TaskKind {
    /// The command.
    Start,
    /// A further process.
    Exec(ExecId),
    /// Something that only succeeds or fails.
    Plain,
    /// Something that returns a result.
    Diagnose,
}

/// Where a sandbox stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// A worker builds it; both its result and init's first word are awaited.
    Creating { worker: Option<Worker>, prepared: Option<Prepared>, is_ready: bool, waiter: Waiter },
    /// It waits for its command.
    Created,
    /// Its command runs.
    Running,
    /// Its command ended.
    Exited(Exit),
    /// It is being removed.
    Destroying(Teardown),
}

/// The state of a removal.
#[derive(Debug)]
pub(super) struct Teardown {
    since: Instant,
    processes_killed: u32,
    scratch_bytes: u64,
    was_paused: bool,
    pub(super) waiters: Vec<Waiter>,
}

/// One sandbox.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) id: SandboxId,
    pub(super) slot: u32,
    pub(super) limits: Limits,
    pub(super) dirs: Dirs,
    pub(super) cgroup: Cgroup,
    pub(super) phase: Phase,
    /// The socket to init; gone when init is.
    pub(super) control: Option<OwnedFd>,
    pub(super) netns: Option<OwnedFd>,
    /// Its `/dev/pts`.
    pub(super) terminals: Option<Terminals>,
    /// Descriptors held for the host process.
    pub(super) kept: Vec<OwnedFd>,
    pub(super) tasks: BTreeMap<u64, (Waiter, TaskKind)>,
    pub(super) execs: BTreeMap<ExecId, ()>,
    /// Ends of processes, to be told again after a reconnect.
    pub(super) ended_execs: VecDeque<(ExecId, Exit)>,
    pub(super) is_paused: bool,
    pub(super) deadline: Instant,
    /// Kills by the memory limit before the command started.
    pub(super) oom_baseline: u64,
}

impl Sandbox {
    /// The state as the host process names it; nothing while it comes or goes.
    pub(super) fn state(&self) -> Option<SandboxState> {
        match self.phase {
            Phase::Created => Some(SandboxState::Created),
            Phase::Running => Some(SandboxState::Running),
            Phase::Exited(exit) => Some(SandboxState::Exited(exit)),
            Phase::Creating { .. } | Phase::Destroying(_) => None,
        }
    }

    /// Whether the memory limit killed something since the command started.
    pub(super) fn had_oom(&self) -> bool {
        self.cgroup.oom_kills() > self.oom_baseline
    }

    /// Reads the counters.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.cgroup.stats();
        stats.scratch_used_bytes = self.scratch_used();
        stats.oom_kills = stats.oom_kills.saturating_sub(self.oom_baseline);
        stats
    }

    fn scratch_used(&self) -> u64 {
        // Without a mount the numbers would be those of the file system below.
        if mounts::mounts_below(&self.dirs.scratch).is_empty() {
            return 0;
        }
        rustix::fs::statvfs(&self.dirs.scratch)
            .map_or(0, |found| found.f_blocks.saturating_sub(found.f_bfree) * found.f_frsize)
    }

    /// Remembers the end of a process, up to a bound.
    pub(super) fn remember_exec(&mut self, exec: ExecId, exit: Exit) {
        self.ended_execs.push_back((exec, exit));
        if self.ended_execs.len() > ENDED_EXECS_MAX {
            self.ended_execs.pop_front();
        }
    }

    /// Begins the removal: everything inside is killed, nothing is waited for.
    pub(super) fn begin_teardown(&mut self, waiters: Vec<Waiter>) {
        if let Phase::Destroying(teardown) = &mut self.phase {
            teardown.waiters.extend(waiters);
            return;
        }
        if let Phase::Creating { worker: Some(worker), .. } = &self.phase {
            worker.kill();
        }
        let scratch_bytes = self.scratch_used();
        // Counted before init notices that its socket is closed, and ends with all the others.
        let processes_killed = self.cgroup.kill();
        self.kept.clear();
        self.control = None;
        self.netns = None;
        self.terminals = None;
        self.phase = Phase::Destroying(Teardown {
            since: Instant::now(),
            processes_killed,
            scratch_bytes,
            was_paused: self.is_paused,
            waiters,
        });
    }

    /// Goes on with the removal; the record when it is over, well or not.
    pub(super) fn poll_teardown(&mut self) -> Option<WipeRecord> {
        let Phase::Destroying(teardown) = &mut self.phase else { return None };
        let is_late = teardown.since.elapsed() > TEARDOWN_MAX;
        let is_empty = self.cgroup.processes().is_empty();
        if !is_empty {
            let more = self.cgroup.kill();
            teardown.processes_killed = teardown.processes_killed.max(more);
            if !is_late {
                return None;
            }
        }
        let unmounted = mounts::unmount_below(&self.dirs.top, is_late);
        if !unmounted && !is_late {
            return None;
        }
        let cgroup_removed = self.cgroup.remove();
        if !cgroup_removed && !is_late {
            return None;
        }
        // Never reach through a mount that is still there.
        let top = &self.dirs.top;
        let removed = unmounted && (!top.exists() || std::fs::remove_dir_all(top).is_ok());
        tracing::debug!(was_paused = teardown.was_paused, removed, "sandbox removed");
        Some(WipeRecord {
            processes_killed: teardown.processes_killed,
            scratch_kind: ScratchKind::Tmpfs,
            scratch_bytes: teardown.scratch_bytes,
            unmounted: unmounted && !is_late,
            cgroup_removed,
            key_destroyed: None,
            wiped: is_empty && unmounted && !is_late && cgroup_removed && removed,
            elapsed: teardown.since.elapsed(),
        })
    }
}

/// After this long a removal is given up and recorded as failed.
const TEARDOWN_MAX: Duration = Duration::from_secs(10);

/// How many ends of processes are remembered; older ones are forgotten.
const ENDED_EXECS_MAX: usize = 64;
