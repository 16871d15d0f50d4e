//! A network of real processes for each test, and short ways to use it.
//!
//! Every test has a folder and a sandbox folder of its own, so that tests that run side by side
//! never meet. Everything that was started ends with its handle.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use welkin_node::Shutdown;
use welkin_node::buyer::{Buyer, Home, KeptLease};
use welkin_proto::settle::{AccountView, Totals};
use welkin_proto::{Receipt, ReceiptFile};
use welkin_types::{AccountId, LeaseId, LeaseState, Reason};

/// How long anything may take that has no time of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);
/// How long a process may take to end after being asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// What a host of a test leases.
pub(crate) const CONTAINERS: &str = r#"
[[host.containers]]
cpu_milli = 1000
memory_mib = 512
disk_mib = 256
slots = 3
usd_per_hour = "0.36"
"#;

/// Looks until there is something to see.
pub(crate) fn eventually<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(STEP);
    }
}

/// As [`eventually`], of a yes or no.
pub(crate) fn until(within: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(within, what, || is_so().then_some(()));
}

/// Whether sandboxes can be made here; says so where they can't.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root, as sandboxes do");
    }
    is_root
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

type Shared = Arc<Mutex<Vec<u8>>>;

fn collect(mut source: impl Read + Send + 'static, sink: &Shared) -> JoinHandle<()> {
    let sink = Arc::clone(sink);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = source.read(&mut buffer) {
            sink.lock().unwrap().extend_from_slice(&buffer[..len]);
        }
    })
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with everything that was said unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let text = self.text();
        let end = text.char_indices().rev().nth(500).map_or(0, |(index, _)| index);
        let end = &text[end..];
        assert_eq!(self.code, code, "stdout ends in:\n{end}\nstderr:\n{}", self.stderr);
        self
    }

    /// Panics unless standard error has this in it.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "`{part}` is missing in:\n{}", self.stderr);
        self
    }
}

/// A process; killed when dropped.
pub(crate) struct Proc {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Shared,
    stderr: Shared,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Proc {
    /// Starts a command whose outputs are collected.
    pub(crate) fn spawn(command: Command) -> Self {
        let (mut process, stdout) = Self::spawn_unread(command);
        process.readers.push(collect(stdout, &process.stdout));
        process
    }

    /// Starts a command whose standard output is the caller's to read.
    pub(crate) fn spawn_unread(mut command: Command) -> (Self, std::process::ChildStdout) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (stdout, stderr) = (Shared::default(), Shared::default());
        let readers = vec![collect(child.stderr.take().unwrap(), &stderr)];
        let out = child.stdout.take().unwrap();
        let stdin = child.stdin.take();
        (Self { name, child, stdin, stdout, stderr, readers, ended: None }, out)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its standard input; [`Proc::close_stdin`] ends it.
    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().unwrap()
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.lock().unwrap().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// Waits until standard output has this in it.
    #[track_caller]
    pub(crate) fn wait_stdout(&mut self, part: &str) {
        self.wait_for(part, |process| process.stdout());
    }

    /// Waits until standard error has this in it.
    #[track_caller]
    pub(crate) fn wait_stderr(&mut self, part: &str) {
        self.wait_for(part, |process| process.stderr().into_bytes());
    }

    #[track_caller]
    fn wait_for(&mut self, part: &str, output: impl Fn(&Self) -> Vec<u8>) {
        let end = Instant::now() + DEADLINE;
        loop {
            // Looked at before the output, so that nothing printed last is missed.
            let is_running = self.is_running();
            if !is_running {
                self.join();
            }
            if contains(&output(self), part.as_bytes()) {
                return;
            }
            assert!(is_running, "ended without `{part}`: {}", self.report());
            assert!(Instant::now() < end, "no `{part}`: {}", self.report());
            std::thread::sleep(STEP);
        }
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    fn report(&self) -> String {
        let last = |text: &str| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        let mut text = format!("{}\n", self.name);
        let stdout = String::from_utf8_lossy(&self.stdout()).into_owned();
        let _ = writeln!(text, "stdout:\n{}\nstderr:\n{}", last(&stdout), last(&self.stderr()));
        text
    }

    /// Closes its input and waits for its end.
    #[track_caller]
    pub(crate) fn finish(self) -> Output {
        self.finish_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn finish_within(mut self, within: Duration) -> Output {
        self.close_stdin();
        self.ended_within(within)
    }

    /// Waits for its end with its input left open.
    #[track_caller]
    pub(crate) fn ended(self) -> Output {
        self.ended_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn ended_within(mut self, within: Duration) -> Output {
        use std::os::unix::process::ExitStatusExt as _;
        let end = Instant::now() + within;
        while self.is_running() {
            assert!(Instant::now() < end, "not within {within:?}: the end of {}", self.report());
            std::thread::sleep(STEP);
        }
        self.join();
        let status = self.ended.unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Output { code, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill_9(mut self) {
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}", self.report());
        }
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The folders of one test.
pub(crate) struct Place {
    dir: TempDir,
    sandboxes: PathBuf,
}

impl Place {
    /// Makes them; the configuration is [`CONTAINERS`] unless `config` is not empty.
    pub(crate) fn new(config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/run/welkin/test-{}-{count}", std::process::id());
        let place = Self { dir: tempfile::tempdir().unwrap(), sandboxes: PathBuf::from(name) };
        let has_containers = config.contains("[[host.containers]]");
        let text = if has_containers { config.to_owned() } else { format!("{config}{CONTAINERS}") };
        std::fs::write(place.config(), text).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("welkin.toml")
    }

    pub(crate) fn sandboxes(&self) -> &Path {
        &self.sandboxes
    }

    /// A `welkin` command in one of the place's folders.
    pub(crate) fn command(&self, dir: &Path, args: &[&str]) -> Command {
        self.command_in(None, dir, args)
    }

    /// The same in a network namespace.
    pub(crate) fn command_in(&self, netns: Option<&str>, dir: &Path, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_welkin");
        let mut command = match netns {
            Some(name) => {
                // Not `ip netns exec`: that one mounts another /sys, without control groups.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(program);
                command
            }
            None => Command::new(program),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WELKIN_") {
                command.env_remove(name);
            }
        }
        command
            .env("WELKIN_HOST__SANDBOX_DIR", &self.sandboxes)
            .env("WELKIN_HOST__POOL", "1")
            // What happened to the machine that tests run on is none of their business.
            .env("WELKIN_HOST__HEALTH__KERNEL_LOG", "")
            .arg("--config")
            .arg(self.config())
            .arg("--dir")
            .arg(dir)
            .args(args);
        command
    }

    /// Processes that belong to the sandbox helpers of this place, as the host sees them.
    pub(crate) fn helpers(&self) -> Vec<i32> {
        processes_with(&format!("{}/", self.sandboxes.display()))
    }

    /// The control groups of this place's sandboxes, of all hierarchies.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        use sha2::{Digest as _, Sha256};
        let mut found = Vec::new();
        for state in children(&self.sandboxes) {
            let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
            let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let name = format!("welkin-{short}");
            let root = PathBuf::from("/sys/fs/cgroup");
            for parent in std::iter::once(root.clone()).chain(children(&root)) {
                let groups = children(&parent.join(&name));
                found.extend(groups.into_iter().filter(|path| path.is_dir()));
            }
        }
        found
    }

    /// Mounts of sandboxes, in this namespace and in those of the helpers.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let mut tables = vec!["/proc/self/mountinfo".to_owned()];
        tables.extend(self.helpers().iter().map(|pid| format!("/proc/{pid}/mountinfo")));
        let marker = format!("{}/", self.sandboxes.display());
        let mut found = Vec::new();
        for table in tables {
            let text = std::fs::read_to_string(table).unwrap_or_default();
            let of_sandboxes = |line: &&str| line.contains(&marker) && line.contains("/sb/");
            found.extend(text.lines().filter(of_sandboxes).map(str::to_owned));
        }
        found
    }

    /// The folders of sandboxes.
    pub(crate) fn sandbox_folders(&self) -> Vec<PathBuf> {
        children(&self.sandboxes).iter().flat_map(|state| children(&state.join("sb"))).collect()
    }

    /// Asks every helper to end, and makes it.
    fn stop_helpers(&self) {
        let ask = |signal| {
            for pid in self.helpers().into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        };
        ask(Signal::TERM);
        let end = Instant::now() + STOP_TIMEOUT;
        while !self.helpers().is_empty() {
            if Instant::now() > end {
                ask(Signal::KILL);
            }
            std::thread::sleep(STEP);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name == "agent.log");
            for path in files_below(self.path()).into_iter().filter(is_log) {
                eprintln!("--- an agent:\n{}", std::fs::read_to_string(path).unwrap_or_default());
            }
        }
        // The helpers first: one that is killed leaves its sandboxes to a successor.
        self.stop_helpers();
        for pid in processes_with(&self.path().to_string_lossy()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.sandboxes);
    }
}

/// What is in a folder.
pub(crate) fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The processes with this in their arguments, without this one.
pub(crate) fn processes_with(part: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let numbers = children(Path::new("/proc"));
    let numbers = numbers.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    numbers
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            contains(&line, part.as_bytes())
        })
        .collect()
}

/// Files below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in children(folder) {
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => files.extend(files_below(&path)),
            Ok(meta) if meta.is_file() => files.push(path),
            _ => (),
        }
    }
    files
}

/// The memory of a process in KiB.
pub(crate) fn memory_kib(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A client of the library: sees what the program shows without reading its tables.
pub(crate) struct Observer {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) buyer: Buyer,
}

impl Observer {
    pub(crate) fn open(network: &Path, home: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let network = toml::from_str(&std::fs::read_to_string(network).unwrap()).unwrap();
        let open = Buyer::open(&network, Home::new(home), Shutdown::default());
        let buyer = runtime.block_on(open).unwrap();
        Self { runtime, buyer }
    }

    /// Free containers on offer.
    pub(crate) fn free(&self) -> u32 {
        let rows = self.runtime.block_on(self.buyer.offers(None)).unwrap_or_default();
        rows.iter().map(|row| row.free).sum()
    }

    pub(crate) fn balance(&self, account: AccountId) -> AccountView {
        self.runtime.block_on(self.buyer.settle().balance(account)).unwrap()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.runtime.block_on(self.buyer.settle().totals()).unwrap()
    }

    /// Nothing is held for anybody, and every cent is somewhere.
    #[track_caller]
    pub(crate) fn books_close(&self) {
        until(DEADLINE, "nothing is held any more", || self.totals().held.is_zero());
        let totals = self.totals();
        let sum = totals.available.checked_add(totals.treasury).unwrap();
        assert_eq!(sum, totals.deposited, "{totals:?}");
    }
}

/// A buyer's folder, as `welkin run` leaves it.
pub(crate) struct Leases(Home);

impl Leases {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self(Home::new(dir.join("buyer")))
    }

    pub(crate) fn account(&self) -> AccountId {
        self.0.account_key().unwrap().id()
    }

    pub(crate) fn all(&self) -> Vec<KeptLease> {
        let (leases, damaged) = self.0.leases().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        leases
    }

    /// The newest lease.
    #[track_caller]
    pub(crate) fn last(&self) -> KeptLease {
        self.all().into_iter().next().expect("there was a lease")
    }

    pub(crate) fn receipt_path(&self, lease: LeaseId) -> PathBuf {
        self.0.receipt_path(lease)
    }

    #[track_caller]
    pub(crate) fn receipt_file(&self, lease: LeaseId) -> ReceiptFile {
        self.0.receipt(lease).unwrap().expect("there is a receipt")
    }

    /// The newest lease's receipt, verified, signed by both sides, everything wiped.
    #[track_caller]
    pub(crate) fn last_receipt(&self) -> Receipt {
        let file = self.receipt_file(self.last().lease);
        let receipt = file.verify().unwrap();
        assert!(file.ack.is_some(), "the buyer did not sign");
        assert!(receipt.wipe.complete, "{:?}", receipt.wipe);
        receipt
    }

    /// Panics unless the newest lease ended so.
    #[track_caller]
    pub(crate) fn ended_as(&self, state: LeaseState, reason: Reason) -> Receipt {
        let receipt = self.last_receipt();
        let last = receipt.stages.last().unwrap();
        assert_eq!((last.state, last.reason), (state, reason), "{receipt:?}");
        receipt
    }
}

/// `welkin up`, with clients.
pub(crate) struct Network {
    up: Option<Proc>,
    place: Place,
}

impl Network {
    /// One host, no checker; `None` where there can be no sandboxes.
    pub(crate) fn start() -> Option<Self> {
        Self::with_config("")
    }

    /// The same with settings.
    pub(crate) fn with_config(config: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mut network = Self { up: None, place: Place::new(config) };
        network.up();
        Some(network)
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path().join("net")
    }

    /// Starts (again) and waits until its host is listed.
    pub(crate) fn up(&mut self) {
        let mut up = self.spawn(&["up", "--hosts", "1", "--checkers", "0"]);
        up.wait_stdout("Ctrl-C stops the network");
        self.up = Some(up);
        let observer = self.observer();
        until(DEADLINE, "the host is listed", || observer.free() > 0);
    }

    /// The process of the network.
    pub(crate) fn process(&mut self) -> &mut Proc {
        self.up.as_mut().unwrap()
    }

    /// Presses Ctrl-C and waits.
    #[track_caller]
    pub(crate) fn down(&mut self) -> Output {
        let up = self.up.take().unwrap();
        up.signal(Signal::INT);
        up.ended()
    }

    /// Waits for the end of a network that was asked to end.
    #[track_caller]
    pub(crate) fn down_already(&mut self) -> Output {
        self.up.take().unwrap().ended()
    }

    /// A client command with nothing on its standard input.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.spawn(args).finish()
    }

    /// A job of the shell, in the way a user would run it.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> Output {
        self.run(&["run", "--", "sh", "-c", script])
    }

    /// A client command that goes on.
    pub(crate) fn spawn(&self, args: &[&str]) -> Proc {
        Proc::spawn(self.command(args))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.place.command(&self.dir(), args)
    }

    pub(crate) fn leases(&self) -> Leases {
        Leases::in_dir(&self.dir())
    }

    pub(crate) fn observer(&self) -> Observer {
        let home = self.place.path().join("observer");
        Observer::open(&self.dir().join("network.toml"), home)
    }

    /// A job works, and no part of the network has panicked.
    #[track_caller]
    pub(crate) fn works(&mut self) {
        let output = self.run(&["run", "--", "echo", "works"]).expect(0);
        assert_eq!(output.text(), "works\n");
        let up = self.process();
        assert!(up.is_running(), "the network ended");
        assert!(!up.stderr().contains("panicked"), "{}", up.stderr());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            if up.is_running() {
                let _ = kill_process(up.pid(), Signal::INT);
            }
            let end = Instant::now() + STOP_TIMEOUT;
            while up.is_running() && Instant::now() < end {
                std::thread::sleep(STEP);
            }
        }
    }
}
