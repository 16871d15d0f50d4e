//! What the helper does with each request, and with what sandboxes say.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::config::Endpoint;
use super::create::{self, Created, Dirs, Job};
use super::daemon::{Daemon, sandboxes_dir};
use super::mounts::{self, ID_RANGE};
use super::sandbox::{Phase, Sandbox, TaskKind, Waiter};
use super::terminal::Terminals;
use super::validate;
use super::worker::Worker;
use crate::error::{Failure, FailureCode};
use crate::types::{
    Command, Event, Exit, Image, ImageConfig, Limits, Prepared, SandboxId, SandboxSpec, WipeRecord,
};
use crate::wire::{
    self, CheckResult, Ended, Family, HostFacts, InitEvent, InitRequest, ListEntry, Packet, Reply,
    Request, WireError,
};

impl Daemon {
    /// Begins to serve one request; what it returns as an error is the answer.
    pub(super) fn on_request(
        &mut self,
        waiter: Waiter,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        match request {
            Request::Hello { .. } => Ok(()),
            Request::Prepare { id, spec } => self.prepare(waiter, id, &spec),
            Request::Start { id, command, limits, files } => {
                self.start(waiter, id, command, limits, files, fds)
            }
            Request::Exec { id, exec, command } => {
                validate::command(&command)?;
                let sandbox = self.live(id, &["running"])?;
                if sandbox.execs.contains_key(&exec) || sandbox.execs.len() >= EXECS_MAX {
                    return Err(Failure::new(FailureCode::Busy, "too many processes"));
                }
                expect_fds(&fds, 3)?;
                let kind = TaskKind::Exec(exec);
                self.ask_init(waiter, id, kind, fds, |task| InitRequest::Exec {
                    task,
                    exec,
                    command,
                })
            }
            Request::FilesGet { id, path } => {
                validate::inside(&path)?;
                expect_fds(&fds, 1)?;
                self.ask_init(waiter, id, TaskKind::Plain, fds, |task| InitRequest::FilesGet {
                    task,
                    path,
                })
            }
            Request::FilesPut { id, dir } => {
                validate::inside(&dir)?;
                expect_fds(&fds, 1)?;
                self.ask_init(waiter, id, TaskKind::Plain, fds, |task| InitRequest::FilesPut {
                    task,
                    dir,
                })
            }
            Request::Diagnose { id, check } => {
                self.ask_init(waiter, id, TaskKind::Diagnose, Vec::new(), |task| {
                    InitRequest::Diagnose { task, check }
                })
            }
            Request::Signal { id, signal } => {
                validate::signal(signal)?;
                let sandbox = self.live(id, &["running"])?;
                send_init(sandbox, &InitRequest::Signal { signal }, Vec::new())?;
                self.reply(waiter, Ok(Reply::Done));
                Ok(())
            }
            other => self.on_simple(waiter, other),
        }
    }

    /// Requests that need no word from inside.
    fn on_simple(&mut self, waiter: Waiter, request: Request) -> Result<(), Failure> {
        let mut fds = Vec::new();
        let reply = match request {
            Request::Dial { id, port, family } => {
                fds.push(self.dial(id, port, family)?);
                Reply::Done
            }
            Request::Terminal { id } => {
                fds.extend(self.terminal(id)?);
                Reply::Done
            }
            Request::Kill { id } => {
                self.find(id)?.cgroup.kill();
                Reply::Done
            }
            Request::Pause { id } => self.freeze(id, true)?,
            Request::Resume { id } => self.freeze(id, false)?,
            Request::Stats { id } => Reply::Stats(self.find(id)?.stats()),
            Request::Destroy { id } => {
                if self.sandboxes.contains_key(&id) {
                    self.remove(id, vec![waiter]);
                } else {
                    self.reply(waiter, Ok(Reply::Wiped(WipeRecord::nothing())));
                }
                return Ok(());
            }
            Request::List => return self.list(waiter),
            Request::Reclaim { id } => {
                for fd in &self.find(id)?.kept {
                    fds.push(fd.try_clone().map_err(|e| Failure::host("copy a descriptor", e))?);
                }
                Reply::Kept(u32::try_from(fds.len()).unwrap_or(u32::MAX))
            }
            Request::InspectImage { image } => return self.inspect(waiter, image),
            Request::HostFacts => Reply::Host(HostFacts {
                cgroup: self.hierarchies.version(),
                controllers: self.hierarchies.controllers(),
                idmap: self.can_shift_owners,
            }),
            Request::Shutdown => {
                self.stop();
                Reply::Done
            }
            Request::Hello { .. }
            | Request::Prepare { .. }
            | Request::Start { .. }
            | Request::Exec { .. }
            | Request::FilesGet { .. }
            | Request::FilesPut { .. }
            | Request::Diagnose { .. }
            | Request::Signal { .. } => Reply::Done,
        };
        self.reply_with(waiter, Ok(reply), fds);
        Ok(())
    }

    fn owner(&self) -> u32 {
        match &self.config.endpoint {
            Endpoint::Listen { owner, .. } => *owner,
            Endpoint::Inherited { .. } => 0,
        }
    }

    fn prepare(
        &mut self,
        waiter: Waiter,
        id: SandboxId,
        spec: &SandboxSpec,
    ) -> Result<(), Failure> {
        validate::spec(spec)?;
        if self.is_stopping() || self.sandboxes.len() >= SANDBOXES_MAX {
            return Err(Failure::new(FailureCode::Busy, "no more sandboxes"));
        }
        if self.sandboxes.contains_key(&id) {
            return Err(Failure::new(FailureCode::WrongState, "the id is in use"));
        }
        let slot = (0..).find(|slot| !self.slots.contains(slot)).unwrap_or(u32::MAX);
        let dirs = Dirs::new(sandboxes_dir(&self.config.state).join(id.to_string()));
        let cgroup = self.hierarchies.group(&self.instance, &id.to_string());
        let (control, inits_end) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| Failure::host("make a socket", error))?;
        rustix::io::ioctl_fionbio(&control, true).map_err(|e| Failure::host("make a socket", e))?;
        let job = Job {
            name: id.to_string(),
            spec,
            dirs: &dirs,
            skeletons: &self.skeletons,
            store: &self.store,
            driver_root: &self.config.driver_root,
            cgroup: &cgroup,
            cgroup_version: self.hierarchies.version(),
            base: FIRST_ID + slot * ID_RANGE,
            owner: self.owner(),
            control: &inits_end,
        };
        // The worker makes the directories; what is left of a failure goes with the sandbox.
        let worker = Worker::spawn(&[inits_end.as_raw_fd()], || job.run())?;
        self.slots.insert(slot);
        let sandbox = Sandbox {
            id,
            slot,
            limits: spec.limits,
            dirs,
            cgroup,
            phase: Phase::Creating {
                worker: Some(worker),
                prepared: None,
                is_ready: false,
                waiter,
            },
            control: Some(control),
            netns: None,
            terminals: None,
            kept: Vec::new(),
            tasks: BTreeMap::new(),
            execs: BTreeMap::new(),
            ended_execs: VecDeque::new(),
            is_paused: false,
            deadline: Instant::now() + CREATION_MAX,
            oom_baseline: 0,
        };
        self.sandboxes.insert(id, sandbox);
        Ok(())
    }

    /// A worker said something or ended.
    pub(super) fn on_creation(&mut self, id: SandboxId) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Phase::Creating { worker, prepared, .. } = &mut sandbox.phase else { return };
        let Some(result) = worker.as_mut().and_then(Worker::poll::<Created>) else { return };
        *worker = None;
        let opened = result.and_then(|created| {
            let netns = create::open_netns(created.pid)
                .map_err(|error| Failure::host("open the network namespace", error))?;
            let terminals = Terminals::open(created.pid, FIRST_ID + sandbox.slot * ID_RANGE)
                .map_err(|error| Failure::host("open the terminals", error))?;
            Ok((created, netns, terminals))
        });
        match opened {
            Ok((created, netns, terminals)) => {
                sandbox.netns = Some(netns);
                sandbox.terminals = Some(terminals);
                *prepared = Some(Prepared { id, image: created.image, idmapped: created.idmapped });
                self.finish_creation(id);
            }
            Err(failure) => self.fail_creation(id, failure),
        }
    }

    /// Answers when both the worker and init have spoken.
    fn finish_creation(&mut self, id: SandboxId) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Phase::Creating { prepared: Some(prepared), is_ready: true, waiter, .. } =
            &sandbox.phase
        else {
            return;
        };
        let (prepared, waiter) = (prepared.clone(), *waiter);
        sandbox.phase = Phase::Created;
        sandbox.oom_baseline = sandbox.cgroup.oom_kills();
        self.reply(waiter, Ok(Reply::Prepared(prepared)));
    }

    /// Answers with the failure and removes what was built.
    pub(super) fn fail_creation(&mut self, id: SandboxId, failure: Failure) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Phase::Creating { waiter, .. } = &sandbox.phase else { return };
        let waiter = *waiter;
        sandbox.begin_teardown(Vec::new());
        self.reply(waiter, Err(failure));
    }

    /// Begins to remove a sandbox, whatever it does, and tells everyone who waits for it.
    pub(super) fn remove(&mut self, id: SandboxId, waiters: Vec<Waiter>) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let creator = match &sandbox.phase {
            Phase::Creating { waiter, .. } => Some(*waiter),
            Phase::Created | Phase::Running | Phase::Exited(_) | Phase::Destroying(_) => None,
        };
        let was_alive = matches!(sandbox.phase, Phase::Created | Phase::Running);
        let execs = std::mem::take(&mut sandbox.execs);
        sandbox.begin_teardown(waiters);
        if let Some(creator) = creator {
            let failure = Failure::new(FailureCode::Died, "the sandbox is being removed");
            self.reply(creator, Err(failure));
        }
        self.fail_tasks(id, "the sandbox is being removed");
        let exit = Exit { code: None, signal: Some(libc::SIGKILL), oom: false };
        for (exec, ()) in execs {
            self.push(Event::ExecExited { id, exec, exit });
        }
        if was_alive {
            self.push(Event::Exited { id, exit });
        }
    }

    fn start(
        &mut self,
        waiter: Waiter,
        id: SandboxId,
        command: Command,
        limits: Option<Limits>,
        files: Option<String>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        validate::command(&command)?;
        files.as_deref().map_or(Ok(()), validate::inside)?;
        let for_init = 3 + usize::from(files.is_some());
        if fds.len() < for_init {
            return Err(Failure::new(FailureCode::Invalid, "descriptors are missing"));
        }
        let sandbox = self.live(id, &["created"])?;
        if let Some(limits) = limits.filter(|limits| *limits != sandbox.limits) {
            validate::limits(&limits)?;
            apply_limits(sandbox, limits)
                .map_err(|error| Failure::host("change the limits", error))?;
        }
        let kept = fds.split_off(for_init);
        sandbox.kept = kept;
        sandbox.phase = Phase::Running;
        let asked = self.ask_init(waiter, id, TaskKind::Start, fds, |task| InitRequest::Start {
            task,
            command,
            files,
        });
        if asked.is_err()
            && let Some(sandbox) = self.sandboxes.get_mut(&id)
        {
            sandbox.phase = Phase::Created;
            sandbox.kept.clear();
        }
        asked
    }

    /// Sends a task to init; its answer will answer the request.
    fn ask_init(
        &mut self,
        waiter: Waiter,
        id: SandboxId,
        kind: TaskKind,
        fds: Vec<OwnedFd>,
        request: impl FnOnce(u64) -> InitRequest,
    ) -> Result<(), Failure> {
        self.next_task += 1;
        let task = self.next_task;
        let sandbox = self.live(id, &["created", "running", "exited"])?;
        if sandbox.tasks.len() >= TASKS_MAX {
            return Err(Failure::new(FailureCode::Busy, "too many requests of one sandbox"));
        }
        send_init(sandbox, &request(task), fds)?;
        sandbox.tasks.insert(task, (waiter, kind));
        if let TaskKind::Exec(exec) = kind {
            sandbox.execs.insert(exec, ());
        }
        Ok(())
    }

    /// The init of a sandbox said something or ended.
    pub(super) fn on_init(&mut self, id: SandboxId) {
        for _ in 0..EVENTS_MAX {
            let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
            let Some(control) = &sandbox.control else { return };
            // Descriptors from inside are dropped unseen.
            match wire::recv::<InitEvent>(control.as_fd()).map(|(event, _)| event) {
                Ok(InitEvent::Ready) => {
                    if let Phase::Creating { is_ready, .. } = &mut sandbox.phase {
                        *is_ready = true;
                    }
                    self.finish_creation(id);
                }
                Ok(InitEvent::TaskDone { task, result }) => self.on_task(id, task, result),
                Ok(InitEvent::JobExited(ended)) => self.on_job_exit(id, ended),
                Ok(InitEvent::ExecExited { exec, ended }) => {
                    if sandbox.execs.remove(&exec).is_some() {
                        let exit = ended.with_oom(sandbox.had_oom());
                        sandbox.remember_exec(exec, exit);
                        self.push(Event::ExecExited { id, exec, exit });
                    }
                }
                Err(WireError::WouldBlock) => return,
                Err(error) => {
                    if !matches!(error, WireError::Closed) {
                        tracing::warn!(%id, %error, "init of a sandbox sent nonsense");
                    }
                    return self.on_init_gone(id);
                }
            }
        }
    }

    fn on_task(&mut self, id: SandboxId, task: u64, result: Result<Vec<u8>, String>) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        let Some((waiter, kind)) = sandbox.tasks.remove(&task) else { return };
        let result = result.map_err(|text| {
            let text = text.chars().take(TEXT_MAX).collect::<String>();
            Failure::new(FailureCode::Inside, text)
        });
        match kind {
            TaskKind::Start if result.is_err() => sandbox.phase = Phase::Created,
            TaskKind::Exec(exec) if result.is_err() => {
                sandbox.execs.remove(&exec);
            }
            TaskKind::Start | TaskKind::Exec(_) | TaskKind::Plain | TaskKind::Diagnose => {}
        }
        let reply = result.and_then(|bytes| match kind {
            TaskKind::Diagnose => postcard::from_bytes::<CheckResult>(&bytes)
                .map(Reply::Diagnosed)
                .map_err(|_| Failure::new(FailureCode::Inside, "a result is malformed")),
            TaskKind::Start | TaskKind::Exec(_) | TaskKind::Plain => Ok(Reply::Done),
        });
        self.reply(waiter, reply);
    }

    fn on_job_exit(&mut self, id: SandboxId, ended: Ended) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        if matches!(sandbox.phase, Phase::Running) {
            let exit = ended.with_oom(sandbox.had_oom());
            sandbox.phase = Phase::Exited(exit);
            self.push(Event::Exited { id, exit });
        }
    }

    /// Without init nothing runs inside any more; the kernel saw to that.
    fn on_init_gone(&mut self, id: SandboxId) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.control = None;
        sandbox.cgroup.kill();
        if let Phase::Creating { .. } = &sandbox.phase {
            // The worker knows better what went wrong, if it still can tell.
            return self.on_creation_init_gone(id);
        }
        let killed = Ended { code: None, signal: Some(libc::SIGKILL) };
        let exit = killed.with_oom(sandbox.had_oom());
        let execs = std::mem::take(&mut sandbox.execs);
        for (exec, ()) in execs {
            self.push(Event::ExecExited { id, exec, exit });
        }
        self.fail_tasks(id, "the sandbox died");
        self.end_with(id, exit);
    }

    fn on_creation_init_gone(&mut self, id: SandboxId) {
        let is_alone = self
            .sandboxes
            .get(&id)
            .is_some_and(|sandbox| matches!(&sandbox.phase, Phase::Creating { worker: None, .. }));
        if is_alone {
            self.fail_creation(id, Failure::new(FailureCode::Died, "the sandbox died at birth"));
        }
    }

    fn end_with(&mut self, id: SandboxId, exit: Exit) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        if matches!(sandbox.phase, Phase::Created | Phase::Running) {
            sandbox.phase = Phase::Exited(exit);
            self.push(Event::Exited { id, exit });
        }
    }

    /// Answers whatever a sandbox still owes.
    pub(super) fn fail_tasks(&mut self, id: SandboxId, text: &str) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        for (waiter, _) in std::mem::take(&mut sandbox.tasks).into_values() {
            self.reply(waiter, Err(Failure::new(FailureCode::Died, text)));
        }
    }

    /// Makes a socket in the sandbox's network and begins to connect it.
    fn dial(&mut self, id: SandboxId, port: u16, family: Family) -> Result<OwnedFd, Failure> {
        let sandbox = self.live(id, &["created", "running", "exited"])?;
        let Some(netns) = sandbox.netns.as_ref().map(AsFd::as_fd) else {
            return Err(Failure::new(FailureCode::WrongState, "the sandbox has no network"));
        };
        let netns = netns.try_clone_to_owned().map_err(|e| Failure::host("dial", e))?;
        let refused =
            |_| Failure::new(FailureCode::Inside, format!("nothing listens on port {port}"));
        self.in_netns(netns.as_fd(), || connect_local(port, family)).map_err(refused)
    }

    /// Opens a terminal in the sandbox: master, and the side for a program.
    fn terminal(&mut self, id: SandboxId) -> Result<[OwnedFd; 2], Failure> {
        let sandbox = self.live(id, &["created", "running"])?;
        let Some(terminals) = &sandbox.terminals else {
            return Err(Failure::new(FailureCode::WrongState, "the sandbox has no terminals"));
        };
        let (master, slave) =
            terminals.create().map_err(|error| Failure::host("open a terminal", error))?;
        Ok([master, slave])
    }

    fn freeze(&mut self, id: SandboxId, frozen: bool) -> Result<Reply, Failure> {
        let sandbox = self.live(id, &["created", "running", "exited"])?;
        sandbox.cgroup.freeze(frozen).map_err(|error| Failure::host("freeze", error))?;
        sandbox.is_paused = frozen;
        Ok(Reply::Done)
    }

    /// Names the sandboxes, then tells every end again: the host process may have missed it.
    fn list(&mut self, waiter: Waiter) -> Result<(), Failure> {
        let mut entries = Vec::new();
        let mut events = Vec::new();
        for (id, sandbox) in &self.sandboxes {
            let Some(state) = sandbox.state() else { continue };
            entries.push(ListEntry { id: *id, state });
            for (exec, exit) in &sandbox.ended_execs {
                events.push(Event::ExecExited { id: *id, exec: *exec, exit: *exit });
            }
            if let Phase::Exited(exit) = sandbox.phase {
                events.push(Event::Exited { id: *id, exit });
            }
        }
        self.reply(waiter, Ok(Reply::List(entries)));
        for event in events {
            self.push(event);
        }
        Ok(())
    }

    fn inspect(&mut self, waiter: Waiter, image: Image) -> Result<(), Failure> {
        validate::image(&image)?;
        if self.inspections.len() >= INSPECTIONS_MAX {
            return Err(Failure::new(FailureCode::Busy, "too many images are being read"));
        }
        let (owner, store) = (self.owner(), &self.store);
        let worker = Worker::spawn(&[], || match &image {
            Image::HostDirs | Image::Rootfs(_) => Ok(ImageConfig::default()),
            Image::OciLayout(_) | Image::DockerTar(_) => {
                store.import(&image, owner).map(|imported| imported.config)
            }
        })?;
        self.inspections.push((worker, waiter));
        Ok(())
    }

    fn find(&mut self, id: SandboxId) -> Result<&mut Sandbox, Failure> {
        self.sandboxes
            .get_mut(&id)
            .ok_or_else(|| Failure::new(FailureCode::NotFound, format!("no sandbox {id}")))
    }

    /// Finds a sandbox whose init lives and whose state is one of `states`.
    fn live(&mut self, id: SandboxId, states: &[&str]) -> Result<&mut Sandbox, Failure> {
        let sandbox = self.find(id)?;
        let state = match &sandbox.phase {
            Phase::Creating { .. } => "being created",
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Exited(_) => "exited",
            Phase::Destroying(_) => "being removed",
        };
        if !states.contains(&state) || sandbox.control.is_none() {
            let text = format!("the sandbox is {state}");
            return Err(Failure::new(FailureCode::WrongState, text));
        }
        Ok(sandbox)
    }
}

fn apply_limits(sandbox: &mut Sandbox, limits: Limits) -> io::Result<()> {
    sandbox.cgroup.set_limits(&limits)?;
    if limits.scratch_bytes != sandbox.limits.scratch_bytes {
        mounts::resize_scratch(&sandbox.dirs.scratch, limits.scratch_bytes)?;
    }
    sandbox.limits = limits;
    Ok(())
}

fn send_init(sandbox: &Sandbox, request: &InitRequest, fds: Vec<OwnedFd>) -> Result<(), Failure> {
    let gone = || Failure::new(FailureCode::Died, "the sandbox is dead");
    let control = sandbox.control.as_ref().ok_or_else(gone)?;
    let sent = Packet::new(request, fds).and_then(|packet| packet.send(control.as_fd()));
    sent.map_err(|error| match error {
        WireError::WouldBlock => Failure::new(FailureCode::Busy, "the sandbox does not listen"),
        WireError::Closed => gone(),
        WireError::Malformed | WireError::Io(_) => Failure::host("talk to the sandbox", error),
    })
}

fn expect_fds(fds: &[OwnedFd], count: usize) -> Result<(), Failure> {
    if fds.len() == count {
        Ok(())
    } else {
        Err(Failure::new(FailureCode::Invalid, "wrong number of descriptors"))
    }
}

/// Begins to connect to a port of this network namespace.
fn connect_local(port: u16, family: Family) -> io::Result<OwnedFd> {
    let (domain, address) = match family {
        Family::V4 => (AddressFamily::INET, SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Family::V6 => (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// The first user id of the first sandbox.
const FIRST_ID: u32 = 2_000_000;

/// Bounds; above them a request is refused as busy.
const SANDBOXES_MAX: usize = 256;
const TASKS_MAX: usize = 64;
const EXECS_MAX: usize = 64;
const INSPECTIONS_MAX: usize = 4;

/// Messages taken from one sandbox in one round.
const EVENTS_MAX: usize = 16;

/// The longest text taken from a sandbox.
const TEXT_MAX: usize = 1000;

/// Images may have to be unpacked meanwhile.
const CREATION_MAX: Duration = Duration::from_secs(600);
