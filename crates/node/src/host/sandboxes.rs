//! The host's view of its sandboxes: those of `welkin-runtime`, with a new helper when one dies.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};
use welkin_lease::ResourcesUsed;
use welkin_proto::lease::{Launch, Secret};
use welkin_proto::{Exit, Wipe};
use welkin_runtime::inventory::Gpu;
use welkin_runtime::{
    Capabilities, Command, ExecId, FilesIn, Limits, Prepared, Pty, Runtime, RuntimeConfig,
    RuntimeError, SandboxId, SandboxSpec, SandboxState, StartOptions, Stdio,
};
use welkin_types::{CapacityType, LeaseId, Tier};

use super::lease::Survivor;
use super::stdio::Ours;
use crate::{Shutdown, chain};

/// What a lease keeps as memory of its own, however much of it is shared memory.
const MEMORY_BYTES_MIN: u64 = 4 << 20;
/// The most processes of a lease.
pub(crate) const PIDS_MAX: u32 = 512;
/// The most open files of each process.
pub(crate) const NOFILE_MAX: u64 = 4_096;
/// Where a command looks for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Pause between tries to start a new helper.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a lease waits for a new helper, which removes what a dead one left.
const NEW_HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks for a new helper.
const NEW_HELPER_PAUSE: Duration = Duration::from_millis(50);

/// How the privileged helper is started.
#[derive(Clone, Debug)]
pub struct SandboxdLaunch {
    /// The command that becomes the helper, for example `welkin sandboxd` or `sudo -n welkin
    /// sandboxd`.
    pub command: Vec<std::ffi::OsString>,
    /// Starts it instead, where this process gave up root.
    pub launcher: Option<welkin_runtime::Launcher>,
    /// Its folder.
    pub dir: PathBuf,
    /// Its name, different for each host of the machine.
    pub name: String,
    /// Where it keeps unpacked images: on a disk.
    pub images: PathBuf,
    /// How long its sandboxes outlive this process.
    pub grace: Duration,
}

/// Why the sandboxes can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox helper can't be used")]
pub struct SandboxesError(#[source] RuntimeError);

/// The sandboxes of this machine.
#[derive(Clone)]
pub struct Sandboxes(Arc<Inner>);

struct Inner {
    config: RuntimeConfig,
    runtime: RwLock<Arc<Runtime>>,
    capabilities: Capabilities,
    shutdown: Shutdown,
}

impl fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sandboxes({:?})", self.0.capabilities.tier)
    }
}

impl Sandboxes {
    /// Connects to the helper, starting it where none runs, and finds out what it can do.
    ///
    /// # Errors
    ///
    /// [`SandboxesError`] where it can't be started or a trial sandbox can't be run.
    pub async fn connect(
        launch: SandboxdLaunch,
        shutdown: Shutdown,
    ) -> Result<Self, SandboxesError> {
        let mut config = RuntimeConfig::new(launch.command, &launch.name);
        config.launcher = launch.launcher;
        config.state = launch.dir.join(format!("sandboxd-{}", launch.name));
        config.socket = config.state.join("socket");
        config.images = Some(launch.images);
        config.orphan_grace = launch.grace;
        let runtime = Runtime::connect(&config).await.map_err(SandboxesError)?;
        let capabilities = runtime.probe().await.map_err(SandboxesError)?;
        info!(tier = ?capabilities.tier, "sandboxes ready");
        for reason in &capabilities.reasons {
            warn!(code = %reason.code, text = %reason.text, "isolation is limited");
        }
        let runtime = RwLock::new(Arc::new(runtime));
        let inner = Inner { config, runtime, capabilities, shutdown: shutdown.clone() };
        let sandboxes = Self(Arc::new(inner));
        shutdown.spawn_until_asked("sandboxd", sandboxes.clone().keep_helper());
        Ok(sandboxes)
    }

    /// What the trial found.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// How strongly tenants are isolated.
    pub fn tier(&self) -> Tier {
        match self.0.capabilities.tier {
            welkin_runtime::Tier::None => Tier::None,
            welkin_runtime::Tier::Process => Tier::Process,
            welkin_runtime::Tier::Container => Tier::Container,
            welkin_runtime::Tier::Sandbox => Tier::Sandbox,
            welkin_runtime::Tier::Vm => Tier::Vm,
            welkin_runtime::Tier::Confidential => Tier::Confidential,
        }
    }

    fn runtime(&self) -> Arc<Runtime> {
        Arc::clone(&self.0.runtime.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces a helper that dies, for as long as this process lives.
    async fn keep_helper(self) {
        loop {
            self.runtime().closed().await;
            warn!("the sandbox helper is gone; starting another");
            loop {
                match Runtime::connect(&self.0.config).await {
                    Ok(runtime) => {
                        *self.0.runtime.write().unwrap_or_else(PoisonError::into_inner) =
                            Arc::new(runtime);
                        break;
                    }
                    Err(error) => warn!(error = %chain(&error), "no sandbox helper yet"),
                }
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            info!("a new sandbox helper runs");
        }
    }

    /// Asks the helper, or its successor where it has just died.
    async fn ask<T, F>(
        &self,
        mut question: impl FnMut(Arc<Runtime>) -> F,
    ) -> Result<T, RuntimeError>
    where
        F: Future<Output = Result<T, RuntimeError>>,
    {
        let end = Instant::now() + NEW_HELPER_TIMEOUT;
        loop {
            match question(self.runtime()).await {
                Err(RuntimeError::Disconnected) if Instant::now() < end => {
                    tokio::time::sleep(NEW_HELPER_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Makes a sandbox that waits for its command.
    /// A caller that goes away meanwhile leaves nothing behind: what was made is destroyed.
    pub(crate) async fn prepare(&self, spec: SandboxSpec) -> Result<RunningSandbox, RuntimeError> {
        let (done, made) = oneshot::channel();
        let sandboxes = self.clone();
        self.0.shutdown.spawn_until_asked("prepare", async move {
            if let Err(Ok(sandbox)) = done.send(sandboxes.make(spec).await) {
                sandbox.destroy().await;
            }
        });
        made.await.map_err(|_| RuntimeError::Disconnected)?
    }

    async fn make(&self, spec: SandboxSpec) -> Result<RunningSandbox, RuntimeError> {
        let make = |runtime: Arc<Runtime>| {
            let spec = spec.clone();
            async move { runtime.prepare(spec).await.map(|prepared| (prepared, Arc::clone(&runtime))) }
        };
        let (prepared, runtime) = self.ask(make).await?;
        Ok(RunningSandbox {
            sandboxes: self.clone(),
            runtime,
            id: prepared.id,
            prepared: Some(prepared),
            exit: None,
        })
    }

    /// The sandboxes of before a restart that were started.
    pub(crate) async fn survivors(&self) -> Result<Vec<Survivor>, SandboxesError> {
        let infos = self.runtime().list().await.map_err(SandboxesError)?;
        let mut survivors = Vec::new();
        for info in infos {
            if info.state == SandboxState::Created {
                // Nothing was ever started in it, so there is nothing to go on with.
                self.destroy_leftover(*info.id.as_bytes()).await;
                continue;
            }
            let mut kept = info.kept.into_iter();
            let ours = match (kept.next(), kept.next()) {
                (Some(out), Some(err)) => Some(Ours::Pipes(out, err)),
                (Some(pty), None) => Some(Ours::Pty(pty)),
                _ => None,
            };
            let exit = match info.state {
                SandboxState::Exited(exit) => Some(to_exit(exit)),
                SandboxState::Created | SandboxState::Running => None,
            };
            let sandbox = RunningSandbox {
                sandboxes: self.clone(),
                runtime: self.runtime(),
                id: info.id,
                prepared: None,
                exit,
            };
            survivors.push(Survivor { sandbox, ours });
        }
        Ok(survivors)
    }

    /// Destroys a sandbox of which only the id is known.
    pub(crate) async fn destroy_leftover(&self, id: [u8; 16]) -> Wipe {
        let id = SandboxId::from_bytes(id);
        match self.ask(|runtime| async move { runtime.destroy(id).await }).await {
            Ok(record) => to_wipe(&record),
            Err(error) => {
                warn!(error = %chain(&error), "a leftover sandbox is not destroyed");
                Wipe::default()
            }
        }
    }

    /// Opens a terminal in a sandbox.
    pub(crate) async fn terminal(&self, id: [u8; 16]) -> Result<Pty, RuntimeError> {
        self.runtime().terminal(SandboxId::from_bytes(id)).await
    }

    /// Runs one more command in a sandbox.
    pub(crate) async fn exec(
        &self,
        id: [u8; 16],
        command: Command,
        stdio: [OwnedFd; 3],
    ) -> Result<ExecId, RuntimeError> {
        let [stdin, stdout, stderr] = stdio;
        let stdio = Stdio { stdin, stdout, stderr };
        self.runtime().exec(SandboxId::from_bytes(id), command, stdio).await
    }

    /// Waits for one more command.
    pub(crate) async fn wait_exec(&self, exec: ExecId) -> Result<Exit, RuntimeError> {
        self.runtime().wait_exec(exec).await.map(to_exit)
    }

    /// Writes files from inside as a tar stream.
    pub(crate) async fn files_get(
        &self,
        id: [u8; 16],
        path: &str,
        output: OwnedFd,
    ) -> Result<(), RuntimeError> {
        self.runtime().files_get(SandboxId::from_bytes(id), path, output).await
    }

    /// Unpacks a tar stream inside.
    pub(crate) async fn files_put(
        &self,
        id: [u8; 16],
        dir: &str,
        input: OwnedFd,
    ) -> Result<(), RuntimeError> {
        self.runtime().files_put(SandboxId::from_bytes(id), dir, input).await
    }

    /// Connects to a port inside.
    pub(crate) async fn dial(&self, id: [u8; 16], port: u16) -> Result<OwnedFd, RuntimeError> {
        self.runtime().dial(SandboxId::from_bytes(id), port).await
    }

    /// What a sandbox uses now.
    pub(crate) async fn stats(&self, id: [u8; 16]) -> Option<welkin_runtime::Stats> {
        self.runtime().stats(SandboxId::from_bytes(id)).await.ok()
    }
}

/// What a command is started with.
#[derive(Debug)]
pub(crate) struct StartSpec<'a> {
    pub(crate) gpus: &'a [Gpu],
    pub(crate) launch: &'a Launch,
    pub(crate) lease: LeaseId,
    pub(crate) secrets: &'a [(String, Secret)],
    pub(crate) tty: bool,
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) kept: Vec<OwnedFd>,
    pub(crate) files: Option<OwnedFd>,
}

/// One sandbox, prepared or running. It is not destroyed by being dropped.
#[derive(Debug)]
pub(crate) struct RunningSandbox {
    sandboxes: Sandboxes,
    /// The helper that made it: a sandbox does not outlive its helper.
    runtime: Arc<Runtime>,
    id: SandboxId,
    prepared: Option<Prepared>,
    exit: Option<Exit>,
}

impl RunningSandbox {
    pub(crate) fn id(&self) -> [u8; 16] {
        *self.id.as_bytes()
    }

    pub(crate) const fn known_exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Whether its helper still lives.
    pub(crate) fn is_of_today(&self) -> bool {
        Arc::ptr_eq(&self.runtime, &self.sandboxes.runtime())
    }

    /// Opens a terminal in it.
    pub(crate) async fn terminal(&self) -> Result<Pty, RuntimeError> {
        self.runtime.terminal(self.id).await
    }

    pub(crate) async fn start(&mut self, spec: StartSpec<'_>) -> Result<(), String> {
        let image = self.prepared.take().map(|prepared| prepared.image).unwrap_or_default();
        let command = command_of(&spec, &image)?;
        let [stdin, stdout, stderr] = spec.theirs;
        let options = StartOptions {
            stdio: Stdio { stdin, stdout, stderr },
            limits: Some(limits_of(spec.launch)),
            files: spec.files.map(|stream| FilesIn { stream, dir: "/".to_owned() }),
            keep: spec.kept,
        };
        let started = self.runtime.start(self.id, command, options).await;
        started.map_err(|error| chain(&error))
    }

    /// Waits for the end; `None` if the helper died and the sandbox with it. Safe to cancel.
    pub(crate) async fn exited(&mut self) -> Option<Exit> {
        if let Some(exit) = self.exit {
            return Some(exit);
        }
        let exit = self.runtime.wait(self.id).await.ok().map(to_exit);
        self.exit = exit;
        exit
    }

    /// Sends a signal, without waiting for it to arrive.
    pub(crate) fn signal_soon(&self, shutdown: &Shutdown, signal: i32) {
        let (runtime, id) = (Arc::clone(&self.runtime), self.id);
        shutdown.spawn_until_asked("signal", async move {
            if let Err(error) = runtime.signal(id, signal).await {
                tracing::debug!(error = %chain(&error), "a signal did not arrive");
            }
        });
    }

    pub(crate) async fn kill(&self) {
        if let Err(error) = self.runtime.kill(self.id).await {
            warn!(error = %chain(&error), "a sandbox was not killed");
        }
    }

    /// Ends everything in it and wipes.
    pub(crate) async fn destroy(self) -> (Wipe, ResourcesUsed) {
        let stats = self.runtime.stats(self.id).await.ok();
        let used = stats.map_or_else(ResourcesUsed::default, |stats| ResourcesUsed {
            cpu_us: stats.cpu_usec,
            memory_peak_bytes: stats.memory_peak_bytes,
        });
        // A new helper removes what a dead one left, so the present one is the one to ask.
        let wipe = self.sandboxes.destroy_leftover(self.id()).await;
        (wipe, used)
    }
}

/// The limits of a lease. Scratch is memory of its own, and `/dev/shm` lies in it: what is asked for
/// as shared memory goes from the one to the other.
pub(crate) fn limits_of(launch: &Launch) -> Limits {
    let memory_bytes = launch.memory_bytes.saturating_sub(launch.shm_bytes);
    Limits {
        cpu_milli: launch.cpu_milli,
        memory_bytes: memory_bytes.max(MEMORY_BYTES_MIN.min(launch.memory_bytes)),
        pids: PIDS_MAX,
        scratch_bytes: launch.disk_bytes.saturating_add(launch.shm_bytes),
        nofile: NOFILE_MAX,
    }
}

fn command_of(
    spec: &StartSpec<'_>,
    image: &welkin_runtime::ImageConfig,
) -> Result<Command, String> {
    let argv = if spec.launch.argv.is_empty() {
        let own: Vec<String> = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
        if own.is_empty() {
            return Err("the image names no command: give one after `--`".to_owned());
        }
        own
    } else {
        spec.launch.argv.clone()
    };
    let mut env = vec![
        format!("PATH={PATH}"),
        "HOME=/work".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        format!("WELKIN_LEASE={}", spec.lease),
        format!("WELKIN_JOB={}", spec.launch.name),
        "WELKIN_NODES=1".to_owned(),
        "WELKIN_NODE_RANK=0".to_owned(),
        "WELKIN_CHECKPOINT_DIR=/work/ckpt".to_owned(),
    ];
    if spec.launch.terms.capacity == CapacityType::Spot {
        env.push(format!("WELKIN_PREEMPT_FILE={}", super::preempt::PREEMPT_FILE));
    }
    if spec.tty {
        env.push("TERM=xterm-256color".to_owned());
    }
    env.extend(image.env.iter().cloned());
    env.extend(gpu_env(spec.gpus));
    env.extend(spec.launch.env.iter().map(|(name, value)| format!("{name}={value}")));
    env.extend(spec.secrets.iter().map(|(name, value)| format!("{name}={}", value.expose())));
    let cwd = if spec.launch.cwd.is_empty() {
        image.working_dir.clone()
    } else {
        spec.launch.cwd.clone()
    };
    Ok(Command { argv, env: last_wins(env), cwd, tty: spec.tty })
}

/// What a command with GPUs is told of them. Images made for NVIDIA say `all` themselves, which holds
/// for the host that built them. `CUDA_VISIBLE_DEVICES` is left alone: CUDA counts the devices whose
/// nodes it can open, and those are the lease's.
fn gpu_env(gpus: &[Gpu]) -> Vec<String> {
    if gpus.is_empty() {
        return Vec::new();
    }
    let mut env = vec![format!("WELKIN_GPUS={}", gpus.len())];
    let uuids: Vec<&str> =
        gpus.iter().filter(|gpu| gpu.is_nvidia()).filter_map(|gpu| gpu.uuid.as_deref()).collect();
    if !uuids.is_empty() {
        env.push(format!("NVIDIA_VISIBLE_DEVICES={}", uuids.join(",")));
    }
    env
}

/// Of variables with the same name the last stays.
fn last_wins(env: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<String> = env
        .into_iter()
        .rev()
        .filter(|pair| seen.insert(pair.split('=').next().unwrap_or_default().to_owned()))
        .collect();
    kept.reverse();
    kept
}

fn to_exit(exit: welkin_runtime::Exit) -> Exit {
    Exit { code: exit.code, signal: exit.signal, oom: exit.oom }
}

fn to_wipe(record: &welkin_runtime::WipeRecord) -> Wipe {
    Wipe {
        complete: record.wiped,
        processes_killed: record.processes_killed,
        scratch_bytes: record.scratch_bytes,
        elapsed_ms: u64::try_from(record.elapsed.as_millis()).unwrap_or(u64::MAX),
    }
}
