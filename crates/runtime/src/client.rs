//! The client half: an async handle to the helper.

mod connection;
mod launch;
mod launcher;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::error::{Failure, FailureCode, RuntimeError};
use crate::types::{
    Command, Event, ExecId, Exit, Image, ImageConfig, Limits, Prepared, SandboxId, SandboxSpec,
    SandboxState, Stats, WipeRecord,
};
use crate::wire::{Check, CheckResult, Family, HostFacts, Reply, Request};
use connection::Connection;

pub use launcher::{Launcher, LauncherConfig};

/// How the helper is found and started.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The words that start the helper, such as `welkin sandboxd` or `sudo -n welkin sandboxd`; its
    /// arguments are added.
    pub command: Vec<OsString>,
    /// Starts the helper instead, where this process gave up root.
    pub launcher: Option<Launcher>,
    /// The helper's state directory. Any user must be able to pass through it and what is above, so
    /// it cannot be in a private home.
    pub state: PathBuf,
    /// The helper's socket.
    pub socket: PathBuf,
    /// Where the helper keeps unpacked images; in its state directory when absent, which may be
    /// memory.
    pub images: Option<PathBuf>,
    /// Where the helper looks for the host's driver libraries; in `/` when absent.
    pub driver_root: Option<PathBuf>,
    /// How long sandboxes outlive this process.
    pub orphan_grace: Duration,
    /// How long a request may take that does not unpack images or move files.
    pub timeout: Duration,
}

impl RuntimeConfig {
    /// Uses `command` and the state directory `/run/welkin/sandboxd-NAME`.
    pub fn new<I, S>(command: I, name: &str) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let state = PathBuf::from(format!("/run/welkin/sandboxd-{name}"));
        Self {
            command: command.into_iter().map(Into::into).collect(),
            launcher: None,
            socket: state.join("socket"),
            state,
            images: None,
            driver_root: None,
            orphan_grace: crate::sandboxd::SandboxdConfig::ORPHAN_GRACE,
            timeout: Duration::from_secs(30),
        }
    }
}

/// The three standard streams of a program.
#[derive(Debug)]
pub struct Stdio {
    /// Read by the program.
    pub stdin: OwnedFd,
    /// Written by the program.
    pub stdout: OwnedFd,
    /// Written by the program.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Takes the terminal side of a pty for all three; set [`Command::tty`] as well.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be copied.
    pub fn from_terminal(terminal: OwnedFd) -> io::Result<Self> {
        Ok(Self { stdin: terminal.try_clone()?, stdout: terminal.try_clone()?, stderr: terminal })
    }

    /// Reads nothing and throws output away.
    ///
    /// # Errors
    ///
    /// When `/dev/null` does not open.
    pub fn null() -> io::Result<Self> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        Self::from_terminal(null.into())
    }

    fn into_fds(self) -> Vec<OwnedFd> {
        vec![self.stdin, self.stdout, self.stderr]
    }
}

/// The two ends of a terminal in a sandbox.
#[derive(Debug)]
pub struct Pty {
    /// What a person types goes in here, and what programs print comes out.
    pub master: OwnedFd,
    /// For a program: see [`Stdio::from_terminal`].
    pub slave: OwnedFd,
}

/// Files to put into a sandbox just before its command runs.
#[derive(Debug)]
pub struct FilesIn {
    /// A tar stream: a file, or the reading end of a pipe.
    pub stream: OwnedFd,
    /// Where to unpack it; relative paths begin at `/work`.
    pub dir: String,
}

/// How a command is started.
#[derive(Debug)]
pub struct StartOptions {
    /// Its streams.
    pub stdio: Stdio,
    /// Limits to set first; absent, those of the preparation stay.
    pub limits: Option<Limits>,
    /// Files to unpack first.
    pub files: Option<FilesIn>,
    /// Descriptors the helper keeps while the sandbox lives and hands back in
    /// [`Runtime::list`], at most 16: the other ends of the streams.
    pub keep: Vec<OwnedFd>,
}

impl StartOptions {
    /// Starts with these streams and nothing else.
    #[must_use]
    pub fn new(stdio: Stdio) -> Self {
        Self { stdio, limits: None, files: None, keep: Vec::new() }
    }
}

/// A sandbox found by [`Runtime::list`].
#[derive(Debug)]
pub struct SandboxInfo {
    /// Its name.
    pub id: SandboxId,
    /// Where it stands.
    pub state: SandboxState,
    /// Copies of the descriptors kept for it, in the order given.
    pub kept: Vec<OwnedFd>,
}

/// A handle to the helper. Dropping it ends the connection, not the sandboxes.
#[derive(Debug)]
pub struct Runtime {
    connection: Connection,
    timeout: Duration,
}

impl Runtime {
    /// Connects to the helper, and starts it in the background if it does not run.
    ///
    /// # Errors
    ///
    /// When it cannot be started or reached.
    pub async fn connect(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let mut launches_left = Self::LAUNCHES_MAX;
        let lock_end = Instant::now() + Self::LOCK_GRACE;
        let others_end = Instant::now() + config.orphan_grace + Self::OTHERS_GRACE;
        loop {
            let gone = match Self::attach(config).await {
                // One that serves another user ends some time after the process of that user.
                Err(RuntimeError::Connect { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied
                        && Instant::now() < others_end =>
                {
                    tracing::debug!("the helper of another user still runs");
                    tokio::time::sleep(Self::LAUNCH_PAUSE).await;
                    continue;
                }
                // A helper that dies just now still accepts, and then hangs up.
                Err(error @ (RuntimeError::Connect { .. } | RuntimeError::Disconnected)) => error,
                other => return other,
            };
            if launches_left == 0 {
                return Err(gone);
            }
            match launch::launch(config).await {
                Ok(()) => {
                    launches_left -= 1;
                    continue;
                }
                // One that is about to end no longer listens but still holds the directory, for as
                // long as it takes to unmount and remove.
                Err(error) if error.is_in_use() && Instant::now() < lock_end => {}
                Err(error) if launches_left == 1 => return Err(error),
                Err(_) => launches_left -= 1,
            }
            tokio::time::sleep(Self::LAUNCH_PAUSE).await;
        }
    }

    /// Connects to a running helper only.
    ///
    /// # Errors
    ///
    /// When none listens, or it serves another process already.
    pub async fn attach(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let socket = launch::open_socket(&config.socket)
            .map_err(|source| RuntimeError::Connect { path: config.socket.clone(), source })?;
        Self::over(socket, config.timeout).await
    }

    /// Speaks to a helper that was started with the other end of a `SOCK_SEQPACKET` pair, such as
    /// with `--fd 0`. That helper ends with the connection.
    ///
    /// # Errors
    ///
    /// When the helper does not answer.
    pub async fn over(socket: OwnedFd, timeout: Duration) -> Result<Self, RuntimeError> {
        let runtime = Self { connection: Connection::new(socket)?, timeout };
        let hello = Request::Hello { version: crate::wire::VERSION };
        runtime.done("greet", hello, Vec::new()).await?;
        Ok(runtime)
    }

    /// Receives what happens from now on. A slow receiver misses events; [`Runtime::wait`] does not.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.connection.events()
    }

    /// Builds a sandbox that waits for its command.
    ///
    /// # Errors
    ///
    /// When the description is refused, the image is bad, or the kernel refuses.
    pub async fn prepare(&self, spec: SandboxSpec) -> Result<Prepared, RuntimeError> {
        let drawn = SandboxId::random()
            .map_err(|source| RuntimeError::Io { doing: "draw a random id", source })?;
        let id = spec.id.unwrap_or(drawn);
        let request = Request::Prepare { id, spec };
        match self.call("prepare", request, Vec::new(), Self::LONG).await?.0 {
            Reply::Prepared(prepared) => Ok(prepared),
            _ => Err(RuntimeError::Protocol),
        }
    }

    /// Hands the command to a prepared sandbox. A program that cannot run exits with 126 or 127.
    ///
    /// # Errors
    ///
    /// When the sandbox does not wait for a command or cannot fork.
    pub async fn start(
        &self,
        id: SandboxId,
        command: Command,
        options: StartOptions,
    ) -> Result<(), RuntimeError> {
        let StartOptions { stdio, limits, files, keep } = options;
        let mut fds = stdio.into_fds();
        let (dir, stream) = files.map(|files| (files.dir, files.stream)).unzip();
        fds.extend(stream);
        fds.extend(keep);
        self.done("start", Request::Start { id, command, limits, files: dir }, fds).await
    }

    /// Waits until the command of a sandbox has ended; also when that was before this call, but in
    /// the time of this connection or seen by [`Runtime::list`].
    ///
    /// # Errors
    ///
    /// When the helper goes away first.
    pub async fn wait(&self, id: SandboxId) -> Result<Exit, RuntimeError> {
        self.connection.wait(id).await
    }

    /// Runs one more program in a running sandbox, as confined as the first.
    ///
    /// # Errors
    ///
    /// When the sandbox does not run or cannot fork.
    pub async fn exec(
        &self,
        id: SandboxId,
        command: Command,
        stdio: Stdio,
    ) -> Result<ExecId, RuntimeError> {
        let exec = ExecId::random()
            .map_err(|source| RuntimeError::Io { doing: "draw a random id", source })?;
        self.done("exec", Request::Exec { id, exec, command }, stdio.into_fds()).await?;
        Ok(exec)
    }

    /// Waits until an extra program has ended.
    ///
    /// # Errors
    ///
    /// When the helper goes away first.
    pub async fn wait_exec(&self, exec: ExecId) -> Result<Exit, RuntimeError> {
        self.connection.wait_exec(exec).await
    }

    /// Writes `path` from inside as a tar stream to `output`, and closes it.
    ///
    /// # Errors
    ///
    /// When the tenant's rights do not reach, or the stream breaks.
    pub async fn files_get(
        &self,
        id: SandboxId,
        path: &str,
        output: OwnedFd,
    ) -> Result<(), RuntimeError> {
        let request = Request::FilesGet { id, path: path.to_owned() };
        self.call("read files", request, vec![output], Self::LONG).await.map(drop)
    }

    /// Unpacks the tar stream `input` inside, under `dir`.
    ///
    /// # Errors
    ///
    /// When the tenant's rights do not reach, scratch is full, or the stream is malformed.
    pub async fn files_put(
        &self,
        id: SandboxId,
        dir: &str,
        input: OwnedFd,
    ) -> Result<(), RuntimeError> {
        let request = Request::FilesPut { id, dir: dir.to_owned() };
        self.call("write files", request, vec![input], Self::LONG).await.map(drop)
    }

    /// Connects to a TCP port on the loopback interface of a sandbox. The socket does not block.
    ///
    /// # Errors
    ///
    /// When nothing listens there.
    pub async fn dial(&self, id: SandboxId, port: u16) -> Result<OwnedFd, RuntimeError> {
        match self.dial_family(id, port, Family::V4).await {
            Err(RuntimeError::Failed { source, .. }) if source.code == FailureCode::Inside => {
                self.dial_family(id, port, Family::V6).await
            }
            other => other,
        }
    }

    async fn dial_family(
        &self,
        id: SandboxId,
        port: u16,
        family: Family,
    ) -> Result<OwnedFd, RuntimeError> {
        let request = Request::Dial { id, port, family };
        let (_, fds) = self.call("dial", request, Vec::new(), self.timeout).await?;
        let socket = fds.into_iter().next().ok_or(RuntimeError::Protocol)?;
        tokio::time::timeout(self.timeout, launch::connected(socket))
            .await
            .map_err(|_| RuntimeError::Timeout { request: "dial" })?
            .map_err(|error| {
                let text = format!("nothing listens on port {port}: {error}");
                let source = Failure::new(FailureCode::Inside, text);
                RuntimeError::Failed { request: "dial", source }
            })
    }

    /// Opens a terminal in the sandbox's own `/dev/pts`, where programs inside find it by its name.
    ///
    /// # Errors
    ///
    /// When the sandbox neither waits for a command nor runs one, or has too many terminals.
    pub async fn terminal(&self, id: SandboxId) -> Result<Pty, RuntimeError> {
        let request = Request::Terminal { id };
        let (_, fds) = self.call("open a terminal", request, Vec::new(), self.timeout).await?;
        let [master, slave] = fds.try_into().map_err(|_| RuntimeError::Protocol)?;
        Ok(Pty { master, slave })
    }

    /// Sends a signal to the command and its foreground group.
    ///
    /// # Errors
    ///
    /// When the sandbox does not run.
    pub async fn signal(&self, id: SandboxId, signal: i32) -> Result<(), RuntimeError> {
        self.done("signal", Request::Signal { id, signal }, Vec::new()).await
    }

    /// Kills every process of a sandbox at once, its init included.
    ///
    /// # Errors
    ///
    /// When there is no such sandbox.
    pub async fn kill(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.done("kill", Request::Kill { id }, Vec::new()).await
    }

    /// Stops every process of a sandbox until [`Runtime::resume`].
    ///
    /// # Errors
    ///
    /// When the kernel has no freezer.
    pub async fn pause(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.done("pause", Request::Pause { id }, Vec::new()).await
    }

    /// Continues a paused sandbox.
    ///
    /// # Errors
    ///
    /// When the kernel has no freezer.
    pub async fn resume(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.done("resume", Request::Resume { id }, Vec::new()).await
    }

    /// Reads the counters of a sandbox.
    ///
    /// # Errors
    ///
    /// When there is no such sandbox.
    pub async fn stats(&self, id: SandboxId) -> Result<Stats, RuntimeError> {
        match self.call("read stats", Request::Stats { id }, Vec::new(), self.timeout).await?.0 {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(RuntimeError::Protocol),
        }
    }

    /// Kills, unmounts and removes everything of a sandbox. A sandbox that does not exist is already
    /// destroyed.
    ///
    /// # Errors
    ///
    /// When the helper goes away; the next one finishes the work when it starts.
    pub async fn destroy(&self, id: SandboxId) -> Result<WipeRecord, RuntimeError> {
        let reply = self.call("destroy", Request::Destroy { id }, Vec::new(), self.timeout).await?;
        self.connection.forget(id);
        match reply.0 {
            Reply::Wiped(record) => Ok(record),
            _ => Err(RuntimeError::Protocol),
        }
    }

    /// Names every sandbox, with copies of the descriptors kept for it. Ends that happened before are
    /// told again as events.
    ///
    /// # Errors
    ///
    /// When the helper goes away.
    pub async fn list(&self) -> Result<Vec<SandboxInfo>, RuntimeError> {
        let (reply, _) = self.call("list", Request::List, Vec::new(), self.timeout).await?;
        let Reply::List(entries) = reply else { return Err(RuntimeError::Protocol) };
        let mut infos = Vec::new();
        for entry in entries {
            let request = Request::Reclaim { id: entry.id };
            let (_, kept) = self.call("reclaim", request, Vec::new(), self.timeout).await?;
            infos.push(SandboxInfo { id: entry.id, state: entry.state, kept });
        }
        Ok(infos)
    }

    /// Waits until the helper is gone.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Removes every sandbox and ends the helper; returns when it has ended.
    ///
    /// # Errors
    ///
    /// When the helper does not end in time.
    pub async fn shutdown(self) -> Result<(), RuntimeError> {
        self.done("shut down", Request::Shutdown, Vec::new()).await?;
        tokio::time::timeout(self.timeout, self.connection.closed())
            .await
            .map_err(|_| RuntimeError::Timeout { request: "shut down" })
    }

    /// Imports an image, so that later preparations are quick, and tells what it says.
    ///
    /// # Errors
    ///
    /// When the image is bad.
    pub async fn inspect_image(&self, image: Image) -> Result<ImageConfig, RuntimeError> {
        let request = Request::InspectImage { image };
        match self.call("read the image", request, Vec::new(), Self::LONG).await?.0 {
            Reply::Image(config) => Ok(config),
            _ => Err(RuntimeError::Protocol),
        }
    }

    pub(crate) async fn host_facts(&self) -> Result<HostFacts, RuntimeError> {
        let reply = self.call("read host facts", Request::HostFacts, Vec::new(), self.timeout);
        match reply.await?.0 {
            Reply::Host(facts) => Ok(facts),
            _ => Err(RuntimeError::Protocol),
        }
    }

    pub(crate) async fn diagnose(
        &self,
        id: SandboxId,
        check: Check,
    ) -> Result<CheckResult, RuntimeError> {
        let request = Request::Diagnose { id, check };
        match self.call("diagnose", request, Vec::new(), self.timeout).await?.0 {
            Reply::Diagnosed(result) => Ok(result),
            _ => Err(RuntimeError::Protocol),
        }
    }

    async fn done(
        &self,
        name: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(), RuntimeError> {
        self.call(name, request, fds, self.timeout).await.map(drop)
    }

    async fn call(
        &self,
        name: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
        timeout: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), RuntimeError> {
        tokio::time::timeout(timeout, self.connection.call(name, request, fds))
            .await
            .map_err(|_| RuntimeError::Timeout { request: name })?
    }

    /// Beyond the grace time, how long to wait for another user's helper to remove its sandboxes.
    const OTHERS_GRACE: Duration = Duration::from_secs(5);

    /// How long to wait for a helper that ends and still holds the directory.
    const LOCK_GRACE: Duration = Duration::from_secs(10);

    /// How often starting the helper is tried, and how long to wait in between.
    const LAUNCHES_MAX: u32 = 3;
    const LAUNCH_PAUSE: Duration = Duration::from_millis(100);

    /// How long images and files may take.
    const LONG: Duration = Duration::from_secs(900);
}
