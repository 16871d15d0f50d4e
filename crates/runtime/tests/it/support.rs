//! A helper of its own for each test, and short ways to run things in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use welkin_runtime::{
    Command, Exit, Image, Limits, Runtime, RuntimeConfig, SandboxId, SandboxSpec, StartOptions,
    Stdio,
};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs an async test, unless the machine does not allow it.
pub(crate) fn with_root<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, test()).await.expect("test deadline") });
}

/// A running helper; everything of it is removed at the end.
pub(crate) struct World {
    pub(crate) config: RuntimeConfig,
    pub(crate) runtime: Client,
}

/// A connection that can be taken away.
pub(crate) struct Client(pub(crate) Option<Runtime>);

impl std::ops::Deref for Client {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("connected")
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_grace(Duration::ZERO).await
    }

    pub(crate) async fn with_grace(grace: Duration) -> Self {
        Self::with(|config| config.orphan_grace = grace).await
    }

    /// A helper of another configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let mut config = RuntimeConfig::new([env!("CARGO_BIN_EXE_welkin-sandboxd")], &fresh_name());
        config.orphan_grace = Duration::ZERO;
        change(&mut config);
        Self::with_config(config).await
    }

    /// Starts the helper through a command that ends in executing its arguments.
    pub(crate) async fn started_by(words: &[&str], grace: Duration) -> Self {
        let name = fresh_name();
        let command = words.iter().copied().chain([env!("CARGO_BIN_EXE_welkin-sandboxd")]);
        let mut config = RuntimeConfig::new(command, &name);
        config.orphan_grace = grace;
        Self::with_config(config).await
    }

    pub(crate) async fn with_config(config: RuntimeConfig) -> Self {
        let runtime = Runtime::connect(&config).await.unwrap();
        Self { config, runtime: Client(Some(runtime)) }
    }

    pub(crate) async fn prepare(&self) -> SandboxId {
        self.prepare_with(limits()).await
    }

    pub(crate) async fn prepare_with(&self, limits: Limits) -> SandboxId {
        self.prepare_image(Image::HostDirs, limits).await
    }

    pub(crate) async fn prepare_image(&self, image: Image, limits: Limits) -> SandboxId {
        self.runtime.prepare(SandboxSpec::new(image, limits)).await.unwrap().id
    }

    /// Runs a shell script in a fresh sandbox to its end.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        let id = self.prepare().await;
        let output = self.run(id, Command::new(["/bin/sh", "-c", script])).await;
        self.runtime.destroy(id).await.unwrap();
        output
    }

    /// Runs a command in a prepared sandbox to its end.
    pub(crate) async fn run(&self, id: SandboxId, command: Command) -> Output {
        let (stdio, streams) = Streams::new();
        self.runtime.start(id, command, StartOptions::new(stdio)).await.unwrap();
        let exit = self.runtime.wait(id).await.unwrap();
        streams.finish(exit).await
    }

    /// Starts a shell script and leaves it running.
    pub(crate) async fn start_sh(&self, id: SandboxId, script: &str) -> Streams {
        let (stdio, streams) = Streams::new();
        let command = Command::new(["/bin/sh", "-c", script]);
        self.runtime.start(id, command, StartOptions::new(stdio)).await.unwrap();
        streams
    }

    /// Runs one more shell script in a running sandbox to its end.
    pub(crate) async fn exec_sh(&self, id: SandboxId, script: &str) -> Output {
        let (stdio, streams) = Streams::new();
        let command = Command::new(["/bin/sh", "-c", script]);
        let exec = self.runtime.exec(id, command, stdio).await.unwrap();
        let exit = self.runtime.wait_exec(exec).await.unwrap();
        streams.finish(exit).await
    }

    /// The process id of the helper, found by its lock.
    pub(crate) fn helper_pid(&self) -> i32 {
        self.find_helper().expect("the helper runs")
    }

    fn find_helper(&self) -> Option<i32> {
        let state = self.config.state.to_str().unwrap();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                let is_own_ns = status.is_ok_and(|text| {
                    text.lines().any(|line| {
                        line.starts_with("NSpid:") && line.split_whitespace().count() == 2
                    })
                });
                is_own_ns && line.contains("welkin-sandboxd") && line.contains(state)
            })
            .min()
    }

    /// Every process with this helper's arguments, inits of sandboxes included.
    pub(crate) fn processes(&self) -> Vec<String> {
        let state = self.config.state.to_str().unwrap();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str().map(str::to_owned))
            .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(state)
            })
            .collect()
    }

    /// The cgroup directories of this helper's sandboxes.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let digest = {
            use sha2::{Digest, Sha256};
            Sha256::digest(self.config.state.as_os_str().as_encoded_bytes())
        };
        let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let mut found = Vec::new();
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(Result::ok);
        let roots = roots.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        for root in roots {
            let Ok(dir) = std::fs::read_dir(root.join(format!("welkin-{short}"))) else { continue };
            found.extend(
                dir.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()),
            );
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.0 = None;
        if !std::thread::panicking() {
            // Asked, it does not wait for its grace.
            if let Some(pid) = self.find_helper().and_then(rustix::process::Pid::from_raw) {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
            wait_until("the helper ends", || !self.config.socket.exists());
            std::fs::remove_dir_all(&self.config.state).unwrap();
        }
    }
}

/// What a program wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Our ends of a program's streams.
pub(crate) struct Streams {
    pub(crate) stdin: Option<File>,
    stdout: Reading,
    stderr: Reading,
}

type Reading = std::thread::JoinHandle<String>;

impl Streams {
    pub(crate) fn new() -> (Stdio, Self) {
        let (stdin, stdin_ours) = std::io::pipe().unwrap();
        let (stdout_ours, stdout) = std::io::pipe().unwrap();
        let (stderr_ours, stderr) = std::io::pipe().unwrap();
        let stdio = Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
        let streams = Self {
            stdin: Some(File::from(OwnedFd::from(stdin_ours))),
            stdout: read_all(stdout_ours),
            stderr: read_all(stderr_ours),
        };
        (stdio, streams)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) async fn finish(mut self, exit: Exit) -> Output {
        self.stdin = None;
        let joined = tokio::task::spawn_blocking(|| {
            (self.stdout.join().unwrap(), self.stderr.join().unwrap())
        });
        let (stdout, stderr) = joined.await.unwrap();
        Output { exit, stdout, stderr }
    }
}

fn read_all(mut reader: impl Read + Send + 'static) -> Reading {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A name that no other helper has.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{count}", std::process::id())
}

/// Small limits, so that many tests fit beside each other.
pub(crate) fn limits() -> Limits {
    Limits {
        cpu_milli: 2000,
        memory_bytes: 64 << 20,
        pids: 64,
        scratch_bytes: 16 << 20,
        nofile: 256,
    }
}

/// Waits for something that has no event of its own.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
