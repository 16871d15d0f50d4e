//! The helper's loop: one `poll` over the host process, the sandboxes and the workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::WaitOptions;
use sha2::{Digest, Sha256};

use super::cgroup::Hierarchies;
use super::config::{self, Endpoint, SandboxdConfig};
use super::create;
use super::mounts::{self, Skeletons};
use super::sandbox::{Phase, Sandbox, Waiter};
use super::worker::Worker;
use crate::error::{Failure, FailureCode, SandboxdError};
use crate::image::Store;
use crate::sys;
use crate::types::{Event, ImageConfig, SandboxId, SandboxState};
use crate::wire::{self, ClientMessage, Packet, Reply, ServerMessage, WireError};

/// Everything the helper holds.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) config: SandboxdConfig,
    pub(super) hierarchies: Hierarchies,
    /// The name of this helper's cgroup.
    pub(super) instance: String,
    pub(super) skeletons: Skeletons,
    pub(super) store: Store,
    pub(super) can_shift_owners: bool,
    pub(super) sandboxes: BTreeMap<SandboxId, Sandbox>,
    pub(super) slots: BTreeSet<u32>,
    pub(super) inspections: Vec<(Worker, Waiter)>,
    pub(super) next_task: u64,
    own_netns: OwnedFd,
    signals: OwnedFd,
    listener: Option<OwnedFd>,
    client: Option<Client>,
    connections: u64,
    orphan_since: Option<Instant>,
    is_stopping: bool,
    _lock: File,
}

/// The connected host process.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    connection: u64,
    queue: VecDeque<Packet>,
    is_greeted: bool,
}

/// What a ready descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signals,
    Listener,
    Client,
    Init(SandboxId),
    Creation(SandboxId),
    Inspections,
}

impl Daemon {
    /// Takes the state directory, removes what an earlier helper left, and listens.
    pub(super) fn new(config: &SandboxdConfig) -> Result<Self, SandboxdError> {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        config::make_state_dir(config).map_err(SandboxdError::io("make the state directory"))?;
        let lock = take_lock(&config.state)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| SandboxdError::io("become the reaper")(errno.into()))?;
        mounts::enter_private_namespace()
            .map_err(SandboxdError::io("leave the host's mount namespace"))?;
        create::allow_core_limit();
        let hierarchies =
            Hierarchies::detect().map_err(SandboxdError::io("read the cgroup mounts"))?;
        let instance = instance_name(&config.state);
        remove_leftovers(&config.state, &hierarchies, &instance)
            .map_err(SandboxdError::io("remove what an earlier helper left"))?;
        let skeletons = Skeletons::build(&config.state.join("skeleton"))
            .map_err(SandboxdError::io("build the skeleton of sandboxes"))?;
        let images = config.images.clone().unwrap_or_else(|| config.state.join("images"));
        let store = Store::open(&images).map_err(SandboxdError::io("open the image store"))?;
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(SandboxdError::io("watch signals"))?;
        let own_netns = super::create::open_netns(rustix::process::getpid().as_raw_nonzero().get())
            .map_err(SandboxdError::io("open the network namespace"))?;
        let mut daemon = Self {
            can_shift_owners: mounts::can_shift_owners(&config.state),
            config: config.clone(),
            hierarchies,
            instance,
            skeletons,
            store,
            sandboxes: BTreeMap::new(),
            slots: BTreeSet::new(),
            inspections: Vec::new(),
            next_task: 0,
            own_netns,
            signals,
            listener: None,
            client: None,
            connections: 0,
            orphan_since: Some(Instant::now()),
            is_stopping: false,
            _lock: lock,
        };
        daemon.listen().map_err(SandboxdError::io("listen"))?;
        Ok(daemon)
    }

    fn listen(&mut self) -> io::Result<()> {
        match self.config.endpoint.clone() {
            Endpoint::Inherited { fd } => {
                let socket = sys::adopt_fd(fd)?;
                rustix::io::ioctl_fionbio(&socket, true)?;
                self.adopt_client(socket);
                Ok(())
            }
            Endpoint::Listen { path, owner } => {
                let _ = std::fs::remove_file(&path);
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = rustix::net::socket_with(
                    AddressFamily::UNIX,
                    SocketType::SEQPACKET,
                    flags,
                    None,
                )?;
                // The mode is set by the mask, so that no other user can connect in between.
                let before = rustix::process::umask(Mode::from_raw_mode(0o177));
                let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?);
                rustix::process::umask(before);
                bound?;
                chown(&path, Some(owner), None)?;
                rustix::net::listen(&socket, 4)?;
                self.listener = Some(socket);
                Ok(())
            }
        }
    }

    /// Serves until stopped or orphaned, and everything is removed.
    pub(super) fn run(mut self) -> Result<(), SandboxdError> {
        tracing::info!(state = %self.config.state.display(), "sandbox helper ready");
        while !(self.is_stopping && self.sandboxes.is_empty()) {
            let ready =
                self.wait().map_err(|errno| SandboxdError::io("wait for work")(errno.into()))?;
            for token in ready {
                self.on_ready(token);
            }
            self.on_tick();
        }
        self.close();
        Ok(())
    }

    /// Waits for the next thing to do.
    fn wait(&self) -> rustix::io::Result<Vec<Token>> {
        let mut watched = vec![(Token::Signals, self.signals.as_fd(), PollFlags::IN)];
        // A client that has gone is let go before the next one, which may have come since, is looked at.
        if let Some(client) = &self.client {
            let out = if client.queue.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            watched.push((Token::Client, client.socket.as_fd(), PollFlags::IN | out));
        }
        if let Some(listener) = &self.listener {
            watched.push((Token::Listener, listener.as_fd(), PollFlags::IN));
        }
        for (id, sandbox) in &self.sandboxes {
            if let Some(control) = &sandbox.control {
                watched.push((Token::Init(*id), control.as_fd(), PollFlags::IN));
            }
            if let Phase::Creating { worker: Some(worker), .. } = &sandbox.phase {
                watched.push((Token::Creation(*id), worker.fd(), PollFlags::IN));
            }
        }
        for (worker, _) in &self.inspections {
            watched.push((Token::Inspections, worker.fd(), PollFlags::IN));
        }
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = self.timeout().try_into().ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(fds
            .iter()
            .zip(&watched)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, (token, ..))| *token)
            .collect())
    }

    /// How long nothing needs to be done.
    fn timeout(&self) -> Duration {
        let is_removing =
            self.sandboxes.values().any(|found| matches!(found.phase, Phase::Destroying(_)));
        if is_removing { TEARDOWN_STEP } else { IDLE_STEP }
    }

    fn on_ready(&mut self, token: Token) {
        match token {
            Token::Signals => self.on_signals(),
            Token::Listener => self.on_connect(),
            Token::Client => self.on_client(),
            Token::Init(id) => self.on_init(id),
            Token::Creation(id) => self.on_creation(id),
            Token::Inspections => self.on_inspections(),
        }
    }

    fn on_signals(&mut self) {
        let mut info = [0; 128];
        while rustix::io::read(&self.signals, &mut info).is_ok_and(|n| n == info.len()) {
            // The first field of `signalfd_siginfo` is the signal number.
            let [a, b, c, d, ..] = info;
            if i32::from_ne_bytes([a, b, c, d]) == libc::SIGTERM {
                tracing::info!("asked to stop");
                self.stop();
            }
        }
        // Ends of inits show as closed sockets; here they only leave the process table.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }

    /// Deadlines, removals, and the end of an orphan's grace.
    fn on_tick(&mut self) {
        let now = Instant::now();
        // Whoever started the helper needs a moment to connect.
        let first = if self.connections == 0 { FIRST_GRACE } else { Duration::ZERO };
        // Where no command runs there is nothing to keep for whoever comes back.
        let is_started = |sandbox: &Sandbox| {
            matches!(sandbox.state(), Some(SandboxState::Running | SandboxState::Exited(_)))
        };
        let own = if self.sandboxes.values().any(is_started) {
            self.config.orphan_grace
        } else {
            self.config.orphan_grace.min(IDLE_GRACE)
        };
        let grace = own.max(first);
        if let Some(since) = self.orphan_since
            && !self.is_stopping
            && now.duration_since(since) >= grace
        {
            tracing::warn!("no host process came back; removing every sandbox");
            self.stop();
        }
        let late: Vec<SandboxId> = self
            .sandboxes
            .values()
            .filter(|found| matches!(found.phase, Phase::Creating { .. }) && now > found.deadline)
            .map(|found| found.id)
            .collect();
        for id in late {
            self.fail_creation(id, Failure::new(FailureCode::Busy, "the creation took too long"));
        }
        let mut over = Vec::new();
        for sandbox in self.sandboxes.values_mut() {
            if let Some(record) = sandbox.poll_teardown() {
                over.push((sandbox.id, record));
            }
        }
        for (id, record) in over {
            let Some(sandbox) = self.sandboxes.remove(&id) else { continue };
            if record.wiped {
                self.slots.remove(&sandbox.slot);
            } else {
                tracing::error!(%id, ?record, "failed to remove a sandbox completely");
            }
            if let Phase::Destroying(teardown) = sandbox.phase {
                for waiter in teardown.waiters {
                    self.reply(waiter, Ok(Reply::Wiped(record.clone())));
                }
            }
        }
    }

    /// Takes no more work and removes every sandbox.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.listener = None;
        let ids: Vec<SandboxId> = self.sandboxes.keys().copied().collect();
        for id in ids {
            self.remove(id, Vec::new());
        }
        for (worker, _) in &self.inspections {
            worker.kill();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn close(&mut self) {
        if let Endpoint::Listen { path, .. } = &self.config.endpoint {
            let _ = std::fs::remove_file(path);
        }
        self.hierarchies.remove_parent(&self.instance);
        let _ = std::fs::remove_dir_all(self.config.state.join("skeleton"));
        tracing::info!("sandbox helper done");
    }

    fn on_connect(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(listener, flags) else { return };
        let Endpoint::Listen { owner, .. } = &self.config.endpoint else { return };
        let peer = rustix::net::sockopt::socket_peercred(&socket);
        let is_owner = peer.is_ok_and(|peer| peer.uid.as_raw() == *owner || peer.uid.is_root());
        if !is_owner || self.client.is_some() {
            let text = if is_owner { "another host process is connected" } else { "not the owner" };
            let result = Err(Failure::new(FailureCode::Busy, text));
            let message = ServerMessage::Reply { request_id: 0, result };
            if let Ok(packet) = Packet::new(&message, Vec::new()) {
                let _ = packet.send(socket.as_fd());
            }
            return;
        }
        self.adopt_client(socket);
    }

    fn adopt_client(&mut self, socket: OwnedFd) {
        self.connections += 1;
        self.orphan_since = None;
        let connection = self.connections;
        self.client =
            Some(Client { socket, connection, queue: VecDeque::new(), is_greeted: false });
    }

    fn on_client(&mut self) {
        self.flush();
        for _ in 0..BATCH_MAX {
            let Some(client) = &self.client else { return };
            match wire::recv::<ClientMessage>(client.socket.as_fd()) {
                Ok((message, fds)) => {
                    let waiter =
                        Waiter { connection: client.connection, request_id: message.request_id };
                    self.on_message(waiter, message.request, fds);
                }
                Err(WireError::WouldBlock) => return,
                Err(error) => {
                    tracing::info!(%error, "host process disconnected");
                    return self.drop_client();
                }
            }
        }
    }

    fn on_message(&mut self, waiter: Waiter, request: wire::Request, fds: Vec<OwnedFd>) {
        let Some(client) = &mut self.client else { return };
        if let wire::Request::Hello { version } = request {
            client.is_greeted = version == wire::VERSION;
            let wrong = || Failure::new(FailureCode::Invalid, "another version of the protocol");
            let result = if client.is_greeted { Ok(Reply::Done) } else { Err(wrong()) };
            return self.reply(waiter, result);
        }
        if !client.is_greeted {
            return self.drop_client();
        }
        if let Err(failure) = self.on_request(waiter, request, fds) {
            self.reply(waiter, Err(failure));
        }
    }

    fn drop_client(&mut self) {
        self.client = None;
        self.orphan_since = Some(Instant::now());
        if self.listener.is_none() {
            self.stop();
        }
    }

    /// Answers a request, unless its connection is gone.
    pub(super) fn reply(&mut self, waiter: Waiter, result: Result<Reply, Failure>) {
        self.reply_with(waiter, result, Vec::new());
    }

    /// Answers with descriptors.
    pub(super) fn reply_with(
        &mut self,
        waiter: Waiter,
        result: Result<Reply, Failure>,
        fds: Vec<OwnedFd>,
    ) {
        if self.client.as_ref().is_some_and(|client| client.connection == waiter.connection) {
            let request_id = waiter.request_id;
            self.send(&ServerMessage::Reply { request_id, result }, fds);
        }
    }

    /// Tells the host process, if there is one.
    pub(super) fn push(&mut self, event: Event) {
        self.send(&ServerMessage::Event(event), Vec::new());
    }

    fn send(&mut self, message: &ServerMessage, fds: Vec<OwnedFd>) {
        let Some(client) = &mut self.client else { return };
        match Packet::new(message, fds) {
            Ok(packet) => client.queue.push_back(packet),
            Err(error) => tracing::error!(%error, "failed to encode a message"),
        }
        self.flush();
    }

    /// Sends what the host process has room for. One that does not read is taken for dead.
    fn flush(&mut self) {
        while let Some(client) = &mut self.client {
            let Some(packet) = client.queue.front() else { return };
            match packet.send(client.socket.as_fd()) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(WireError::WouldBlock) if client.queue.len() < QUEUE_MAX => return,
                Err(error) => {
                    tracing::info!(%error, "host process lost");
                    return self.drop_client();
                }
            }
        }
    }

    fn on_inspections(&mut self) {
        let mut over = Vec::new();
        self.inspections.retain_mut(|(worker, waiter)| {
            let Some(result) = worker.poll::<ImageConfig>() else { return true };
            over.push((*waiter, result.map(Reply::Image)));
            false
        });
        for (waiter, result) in over {
            self.reply(waiter, result);
        }
    }

    /// Runs `body` in the network namespace `netns`.
    pub(super) fn in_netns<T>(
        &self,
        netns: BorrowedFd<'_>,
        body: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        sys::setns(netns, libc::CLONE_NEWNET)?;
        let result = body();
        if sys::setns(self.own_netns.as_fd(), libc::CLONE_NEWNET).is_err() {
            // Staying in a sandbox's network would be worse than ending.
            sys::exit_now(1);
        }
        result
    }
}

/// Two helpers in one directory would destroy each other's sandboxes.
fn take_lock(state: &Path) -> Result<File, SandboxdError> {
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(state.join("lock"))
        .map_err(SandboxdError::io("open the lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SandboxdError::Locked { state: state.to_owned() }),
        Err(TryLockError::Error(error)) => Err(SandboxdError::io("lock")(error)),
    }
}

/// The cgroup of a helper is named after its state directory, so that its successor finds it.
fn instance_name(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let short: String = hex::encode(digest).chars().take(8).collect();
    format!("welkin-{short}")
}

/// Kills, unmounts and removes what is named by cgroups and directories of an earlier helper.
fn remove_leftovers(state: &Path, hierarchies: &Hierarchies, instance: &str) -> io::Result<()> {
    let names = hierarchies.leftovers(instance);
    let end = Instant::now() + LEFTOVERS_MAX;
    for name in &names {
        let group = hierarchies.group(instance, name);
        while !group.processes().is_empty() && Instant::now() < end {
            group.kill();
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            std::thread::sleep(TEARDOWN_STEP);
        }
        while !group.remove() && Instant::now() < end {
            std::thread::sleep(TEARDOWN_STEP);
        }
    }
    let sandboxes = sandboxes_dir(state);
    for dir in [&sandboxes, &state.join("skeleton")] {
        if !mounts::unmount_below(dir, true) {
            return Err(io::Error::other(format!("{} is still mounted", dir.display())));
        }
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
    }
    if !names.is_empty() {
        tracing::warn!(count = names.len(), "removed sandboxes of an earlier helper");
    }
    mounts::make_dir(&sandboxes, 0o711)
}

/// Where the directories of sandboxes are.
pub(super) fn sandboxes_dir(state: &Path) -> PathBuf {
    state.join("sb")
}

const TEARDOWN_STEP: Duration = Duration::from_millis(2);
const IDLE_STEP: Duration = Duration::from_millis(250);
/// How long an unused helper outlives the connection of its host process.
const IDLE_GRACE: Duration = Duration::from_secs(2);
const FIRST_GRACE: Duration = Duration::from_secs(10);
const LEFTOVERS_MAX: Duration = Duration::from_secs(10);

/// Requests read in one round, so that sandboxes get their turn.
const BATCH_MAX: usize = 32;

/// Messages that may wait for a host process that reads slowly; one more and it is dropped.
const QUEUE_MAX: usize = 1024;
