//! The first process inside every sandbox.
//!
//! libcontainer builds the confinement (namespaces, user ids, no capabilities, no new privileges,
//! system call filter, cgroup) and then calls [`InitExecutor`] in the confined process instead of
//! executing a program. That process stays as process 1: it reaps orphans, starts the command and
//! any further process as its own children, so that all of them inherit the same confinement by
//! construction, and reports their ends over one socket to the helper. It ends when that socket
//! closes, and the kernel then kills everything else inside.
//!
//! The process is not dumpable and holds no program of the tenant, so a tenant, although of the same
//! user, can neither trace it nor open its descriptors. It still runs with the tenant's rights only:
//! whatever it says is believed no more than the tenant.

mod battery;
mod files;
mod job;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use crate::sys;
use crate::types::ExecId;
use crate::wire::{self, Ended, InitEvent, InitRequest, Packet, WireError};

/// Turns the confined process that libcontainer made into our init.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitExecutor {
    /// The socket to the helper, inherited through the forks.
    pub(crate) control: RawFd,
}

impl Executor for InitExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let code = match Init::new(self.control).and_then(Init::run) {
            Ok(()) => 0,
            Err(_) => 1,
        };
        sys::exit_now(code)
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // Commands bring their whole environment; init itself reads none.
        Ok(())
    }
}

/// What a child of init was started for.
#[derive(Clone, Copy, Debug)]
enum Child {
    /// The command of the sandbox.
    Job,
    /// One more process.
    Exec(ExecId),
    /// Our own code, which reports by itself unless it dies.
    Task(u64),
}

#[derive(Debug)]
struct Init {
    control: OwnedFd,
    signals: OwnedFd,
    children: BTreeMap<i32, Child>,
    job: Option<Pid>,
}

impl Init {
    fn new(control: RawFd) -> std::io::Result<Self> {
        let control = sys::move_fd(control, CONTROL_FD)?;
        sys::close_all_but(&[CONTROL_FD]);
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::thread::set_name(c"welkin-init")?;
        sys::confine_further()?;
        let mut wanted = vec![libc::SIGCHLD];
        wanted.extend(FORWARDED);
        let signals = sys::signal_fd(&wanted)?;
        rustix::io::ioctl_fionbio(&control, false)?;
        Ok(Self { control, signals, children: BTreeMap::new(), job: None })
    }

    /// Serves the helper until it closes the socket.
    fn run(mut self) -> std::io::Result<()> {
        self.tell(&InitEvent::Ready);
        loop {
            let mut fds = [
                PollFd::new(&self.control, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let [control, signals] = fds.map(|fd| !fd.revents().is_empty());
            if signals {
                self.on_signals();
            }
            if control {
                match wire::recv::<InitRequest>(self.control.as_fd()) {
                    Ok((request, fds)) => self.on_request(request, fds),
                    Err(WireError::WouldBlock) => {}
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    fn on_request(&mut self, request: InitRequest, fds: Vec<OwnedFd>) {
        match request {
            InitRequest::Start { task, command, files } => {
                let result = self.spawn(Child::Job, || job::exec(&command, fds, files.as_deref()));
                self.job = result.as_ref().ok().copied();
                self.answer(task, result);
            }
            InitRequest::Exec { task, exec, command } => {
                let result = self.spawn(Child::Exec(exec), || job::exec(&command, fds, None));
                self.answer(task, result);
            }
            InitRequest::FilesGet { task, path } => {
                self.run_task(task, move || files::get(&path, fds).map(|()| Vec::new()));
            }
            InitRequest::FilesPut { task, dir } => {
                self.run_task(task, move || files::put(&dir, fds).map(|()| Vec::new()));
            }
            InitRequest::Diagnose { task, check } => {
                self.run_task(task, move || battery::check(check));
            }
            InitRequest::Signal { signal } => self.signal_job(signal),
        }
    }

    /// Forks a child that ends with what `body` returns.
    fn spawn(&mut self, kind: Child, body: impl FnOnce() -> i32) -> std::io::Result<Pid> {
        let pid = sys::fork(|| {
            sys::reset_signals();
            body()
        })?;
        self.children.insert(pid.as_raw_nonzero().get(), kind);
        Ok(pid)
    }

    /// Runs our own code in a child, which answers by itself.
    fn run_task(&mut self, task: u64, body: impl FnOnce() -> Result<Vec<u8>, String>) {
        let control = self.control.as_raw_fd();
        let spawned = self.spawn(Child::Task(task), move || {
            let result = body();
            let event = InitEvent::TaskDone { task, result };
            let sent = sys::adopt_fd(control).is_ok_and(|control| send(&control, &event).is_ok());
            i32::from(!sent)
        });
        if let Err(error) = spawned {
            let result = Err(format!("cannot start a process in the sandbox: {error}"));
            self.tell(&InitEvent::TaskDone { task, result });
        }
    }

    fn answer(&self, task: u64, result: std::io::Result<Pid>) {
        let result = result
            .map(|_| Vec::new())
            .map_err(|error| format!("cannot start a process in the sandbox: {error}"));
        self.tell(&InitEvent::TaskDone { task, result });
    }

    fn on_signals(&mut self) {
        let mut info = [0; 128];
        while rustix::io::read(&self.signals, &mut info).is_ok_and(|n| n == info.len()) {
            // The first field of `signalfd_siginfo` is the signal number.
            let [a, b, c, d, ..] = info;
            let signal = i32::from_ne_bytes([a, b, c, d]);
            if signal != libc::SIGCHLD {
                self.signal_job(signal);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ended = Ended { code: status.exit_status(), signal: status.terminating_signal() };
            match self.children.remove(&pid.as_raw_nonzero().get()) {
                Some(Child::Job) => self.on_job_exit(ended),
                Some(Child::Exec(exec)) => self.tell(&InitEvent::ExecExited { exec, ended }),
                Some(Child::Task(task)) if ended.code != Some(0) => {
                    let result = Err(DIED.to_owned());
                    self.tell(&InitEvent::TaskDone { task, result });
                }
                Some(Child::Task(_)) | None => {}
            }
        }
    }

    /// The end of the command ends everything else inside; only then is it told.
    fn on_job_exit(&mut self, ended: Ended) {
        self.job = None;
        kill_all_others();
        // Orphans become children of process 1, so no child left means nobody left.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::empty()) {
            let ended = Ended { code: status.exit_status(), signal: status.terminating_signal() };
            self.on_killed(pid.as_raw_nonzero().get(), ended);
        }
        self.tell(&InitEvent::JobExited(ended));
    }

    fn on_killed(&mut self, pid: i32, ended: Ended) {
        match self.children.remove(&pid) {
            Some(Child::Exec(exec)) => self.tell(&InitEvent::ExecExited { exec, ended }),
            Some(Child::Task(task)) if ended.code != Some(0) => {
                self.tell(&InitEvent::TaskDone { task, result: Err(DIED.to_owned()) });
            }
            Some(Child::Task(_) | Child::Job) | None => {}
        }
    }

    /// The command leads its own session, so its group holds what it started in the foreground.
    fn signal_job(&self, signal: i32) {
        if let (Some(job), Some(signal)) = (self.job, Signal::from_named_raw(signal)) {
            let _ = rustix::process::kill_process_group(job, signal)
                .or_else(|_| rustix::process::kill_process(job, signal));
        }
    }

    fn tell(&self, event: &InitEvent) {
        // The helper reads at once or is gone, and then the socket says so in the next round.
        let _ = send(&self.control, event);
    }
}

fn send(control: &OwnedFd, event: &InitEvent) -> Result<(), WireError> {
    Packet::new(event, Vec::new())?.send(control.as_fd())
}

/// Kills every process of the sandbox but this one, which only process 1 of a namespace can ask for.
fn kill_all_others() {
    let _ = sys::raw(libc::SYS_kill, [-1, i64::from(libc::SIGKILL), 0, 0, 0, 0]);
}

/// The number of the control socket in init.
const CONTROL_FD: RawFd = 3;

/// What is passed on to the command when a process inside sends it to process 1.
const FORWARDED: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// What is said of a task that the kernel ended.
const DIED: &str = "the operation was killed in the sandbox";
