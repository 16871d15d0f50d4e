//! The three ends of a command: pipes or a terminal, and the pumps from them into log files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use welkin_proto::lease::{Output, TermSize};
use welkin_runtime::Pty;
use welkin_store::{LogError, LogLimits, LogWriter, Watch};

use super::input::Stdin;
use crate::outside;

/// How long a pump waits before it tries a full disk again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(500);

/// Bytes that a pipe of an output holds, where the system grants it. A whole megabyte would not stay
/// in the cache of a core until the log has it: `make bench ID=stdout` is a tenth slower then.
const PIPE_BYTES: usize = 512 << 10;

/// The name of an output's log.
pub(crate) const fn log_name(output: Output) -> &'static str {
    match output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    }
}

/// The readers that follow a log and how far they are: the command waits for the slowest.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// The command is over: what it printed goes into the log whoever reads.
    is_over: AtomicBool,
    positions: Mutex<(u64, BTreeMap<u64, u64>)>,
    moved: Notify,
}

impl Attached {
    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, BTreeMap<u64, u64>)> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a reader in.
    pub(crate) fn join(self: &Arc<Self>, position: u64) -> Reader {
        let mut positions = self.lock();
        positions.0 += 1;
        let id = positions.0;
        positions.1.insert(id, position);
        Reader { attached: Arc::clone(self), id }
    }

    /// Nobody is waited for any more.
    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Waits until no reader is further behind than allowed.
    async fn caught_up(&self, end: u64, behind_max: u64) {
        loop {
            let moved = self.moved.notified();
            let slowest = self.lock().1.values().min().copied();
            let slowest = slowest.filter(|_| !self.is_over.load(Ordering::Acquire));
            if slowest.is_none_or(|position| end.saturating_sub(position) <= behind_max) {
                return;
            }
            moved.await;
        }
    }
}

/// One reader; counted out when dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    attached: Arc<Attached>,
    id: u64,
}

impl Reader {
    /// It has read so far.
    pub(crate) fn moved(&self, position: u64) {
        self.attached.lock().1.insert(self.id, position);
        self.attached.moved.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.attached.lock().1.remove(&self.id);
        self.attached.moved.notify_waiters();
    }
}

/// What connections need of a running command's ends.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    /// Where the logs grow: standard output, standard error.
    pub(crate) logs: [watch::Receiver<Watch>; 2],
    /// Who follows them.
    pub(crate) attached: [Arc<Attached>; 2],
    /// Where standard input goes.
    pub(crate) input: Arc<Stdin>,
}

/// The ends for the command, and those that stay here.
#[derive(Debug)]
pub(crate) struct Stdio {
    /// For the command: standard input, output, error.
    pub(crate) theirs: [OwnedFd; 3],
    /// For the helper, which keeps them over a restart of this process.
    pub(crate) kept: Vec<OwnedFd>,
    /// Ours.
    pub(crate) ours: Ours,
}

/// The ends that stay with the host.
#[derive(Debug)]
pub(crate) enum Ours {
    /// Read ends of output and error.
    Pipes(OwnedFd, OwnedFd),
    /// A terminal's master.
    Pty(OwnedFd),
}

impl Ours {
    /// The end for standard input, where it is one of these.
    pub(crate) fn input(&self) -> Option<OwnedFd> {
        match self {
            Self::Pipes(..) => None,
            Self::Pty(master) => master.try_clone().ok(),
        }
    }
}

/// Makes pipes for a command.
pub(crate) fn pipes(stdin: bool) -> io::Result<(Stdio, Option<OwnedFd>)> {
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let (input, ours) = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&write)?;
        (read, Some(write))
    } else {
        (OwnedFd::from(File::open("/dev/null")?), None)
    };
    let kept = vec![out_read.try_clone()?, err_read.try_clone()?];
    let stdio = Stdio {
        theirs: [input, out_write, err_write],
        kept,
        ours: Ours::Pipes(out_read, err_read),
    };
    Ok((stdio, ours))
}

/// A pipe whose read end never blocks and whose write end does.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    set_nonblocking(&read)?;
    // A larger pipe means fewer switches between the command and the pump. A system that grants
    // less works as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&read, PIPE_BYTES);
    Ok((read, write))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Tells a terminal its size.
pub(crate) fn resize(master: &OwnedFd, size: TermSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}

/// Makes a terminal of the sandbox the ends of a command.
pub(crate) fn terminal(pty: Pty, size: TermSize) -> io::Result<(Stdio, Option<OwnedFd>)> {
    let Pty { master, slave } = pty;
    resize(&master, size)?;
    set_nonblocking(&master)?;
    let input = master.try_clone()?;
    let stdio = Stdio {
        theirs: [slave.try_clone()?, slave.try_clone()?, slave],
        kept: vec![master.try_clone()?],
        ours: Ours::Pty(master),
    };
    Ok((stdio, Some(input)))
}

/// The logs of a lease with the pumps that fill them.
#[derive(Debug)]
pub(crate) struct Pumps {
    pub(crate) terminal: Terminal,
    master: Option<OwnedFd>,
    /// Read ends of output and error, by which write ends can be had once more.
    pipes: Option<[OwnedFd; 2]>,
    tasks: tokio::task::JoinSet<()>,
    /// Ends pumps whose command is over while somebody still holds its output open.
    enough: CancellationToken,
}

impl Pumps {
    /// Opens the logs in the folder and starts to fill them.
    pub(crate) fn start(
        folder: &Path,
        ours: Ours,
        input: Stdin,
        limits: LogLimits,
    ) -> Result<Self, LogError> {
        let mut out = LogWriter::open(folder, log_name(Output::Stdout), limits)?;
        let mut err = LogWriter::open(folder, log_name(Output::Stderr), limits)?;
        let terminal = Terminal {
            logs: [out.watch(), err.watch()],
            attached: [Arc::default(), Arc::default()],
            input: Arc::new(input),
        };
        let [out_attached, err_attached] = terminal.attached.clone();
        let mut tasks = tokio::task::JoinSet::new();
        let enough = CancellationToken::new();
        let (mut master, mut pipes) = (None, None);
        match ours {
            Ours::Pipes(out_pipe, err_pipe) => {
                let both = (out_pipe.try_clone().ok(), err_pipe.try_clone().ok());
                pipes = both.0.zip(both.1).map(|(out, err)| [out, err]);
                let stop = enough.clone();
                tasks.spawn(async move {
                    let pump = pump_pipe(out_pipe, &mut out, &out_attached, limits);
                    finish(stop.run_until_cancelled(pump).await, &mut out);
                });
                let stop = enough.clone();
                tasks.spawn(async move {
                    let pump = pump_pipe(err_pipe, &mut err, &err_attached, limits);
                    finish(stop.run_until_cancelled(pump).await, &mut err);
                });
            }
            Ours::Pty(pty) => {
                err.close();
                master = pty.try_clone().ok();
                let stop = enough.clone();
                tasks.spawn(async move {
                    let pump = pump_pty(pty, &mut out, &out_attached, limits);
                    finish(stop.run_until_cancelled(pump).await, &mut out);
                });
            }
        }
        Ok(Self { terminal, master, pipes, tasks, enough })
    }

    /// Tells the terminal, if there is one, its size.
    pub(crate) fn resize(&self, size: TermSize) {
        if let Some(master) = &self.master
            && let Err(error) = resize(master, size)
        {
            tracing::debug!(%error, "a terminal was not resized");
        }
    }

    /// Ends for the output and the error of one more command, whose print goes into the same logs.
    pub(crate) fn outputs(&self) -> io::Result<[OwnedFd; 2]> {
        if let Some(master) = &self.master {
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let slave = rustix::pty::ioctl_tiocgptpeer(master, flags)?;
            return Ok([slave.try_clone()?, slave]);
        }
        let [out, err] = self.pipes.as_ref().ok_or_else(|| io::Error::other("no pipes"))?;
        Ok([write_end(out)?, write_end(err)?])
    }

    /// Waits until everything printed is in the logs, at most so long; returns how much there is.
    pub(crate) async fn drained(mut self, within: Duration) -> (u64, u64) {
        self.terminal.input.close().await;
        self.master = None;
        self.pipes = None;
        self.terminal.attached.iter().for_each(|attached| attached.end());
        let tasks = &mut self.tasks;
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("an output did not end with its command");
            // Their logs are closed: a follower would wait for a writer that never comes.
            self.enough.cancel();
            while self.tasks.join_next().await.is_some() {}
        }
        let end = |log: &watch::Receiver<Watch>| log.borrow().end;
        (end(&self.terminal.logs[0]), end(&self.terminal.logs[1]))
    }
}

/// The other end of a pipe of which this is the read end.
fn write_end(read: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    Ok(File::options().write(true).open(path)?.into())
}

fn finish(result: Option<io::Result<()>>, log: &mut LogWriter) {
    if let Some(Err(error)) = result {
        tracing::warn!(%error, "an output broke");
    }
    log.close();
}

/// Watches an owned end for readiness.
pub(crate) fn register<T: AsRawFd>(end: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(deprecated, reason = "both callers own the file: its descriptor stays the same")]
    AsyncFd::with_interest(end, interest)
}

async fn pump_pipe(
    pipe: OwnedFd,
    log: &mut LogWriter,
    attached: &Attached,
    limits: LogLimits,
) -> io::Result<()> {
    let pipe = register(pipe, Interest::READABLE)?;
    loop {
        attached.caught_up(log.end(), limits.behind_max).await;
        let mut ready = pipe.readable().await?;
        match ready.try_io(|pipe| log.splice_from(pipe.as_fd(), outside::now())) {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) | Err(_) => (),
            Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                // Nothing is lost: it stays in the pipe and the command waits.
                tokio::time::sleep(FULL_DISK_PAUSE).await;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(Err(error)) => return Err(error),
        }
    }
}

async fn pump_pty(
    pty: OwnedFd,
    log: &mut LogWriter,
    attached: &Attached,
    limits: LogLimits,
) -> io::Result<()> {
    let pty = register(File::from(pty), Interest::READABLE)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        attached.caught_up(log.end(), limits.behind_max).await;
        let mut ready = pty.readable().await?;
        match ready.try_io(|pty| pty.get_ref().read(&mut buffer)) {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(len)) => log.append(&buffer[..len], outside::now()).map_err(io::Error::other)?,
            // The last slave was closed: a terminal's way of saying that it is over.
            Ok(Err(error)) if error.raw_os_error() == Some(5) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => (),
        }
    }
}
