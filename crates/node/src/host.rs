//! The host: runs on a GPU owner's machine, leases its containers, runs, meters and wipes.
//!
//! The host alone decides over its slots. One task owns each lease (`lease`); connections
//! (`connection`) only pass messages to it and show its state. What a lease prints goes to files
//! first (`stdio`), and is read from there.

mod announce;
mod beats;
mod cashier;
mod config;
mod connection;
mod desk;
mod evidence;
mod exams;
mod exec;
mod gpus;
mod health;
mod homes;
mod input;
mod lease;
mod open;
mod pool;
mod preempt;
mod probe;
mod pulse;
mod quality;
mod ready;
mod registry;
mod reservation;
mod reservations;
mod reserve;
mod reserved;
mod restore;
mod sandboxes;
mod spool;
mod spot;
mod stdio;
mod streams;
mod terms;
mod told;
mod unsure;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tracing::{info, warn};
use welkin_lease::{Devices, Policy, Slots};
use welkin_net::{Connection, Endpoint};
use welkin_proto::{
    ALPN_CHECK, ALPN_EXAM, ALPN_LEASE, Capability, ContainerOffer, Delegation, Domain, NodeAddr,
    NodeKey, SignedByAccount,
};
use welkin_runtime::inventory::{Gpu, GpuSearch};
use welkin_store::{CommitError, Db, OpenError};
use welkin_types::{AccountId, Tier};

pub use config::{Config, ContainerConfig, HostContainer, containers_of, gpu_containers};
pub use exams::ExamCounters;
pub use health::{
    EventReport, HealthConfig, HealthReport, KERNEL_LOG, LogCounters, LogReport, Outage,
    UnitReport, UnitState, open_kernel_log, say_repaired,
};
pub use reserved::ReservedConfig;
pub use sandboxes::{SandboxdLaunch, Sandboxes, SandboxesError};
pub use spot::SpotConfig;

use crate::gate::{Gate, GateCounters, GateLimits, Pass};
use crate::settlement::Settle;
use crate::{Shutdown, outside};
use pool::Pool;
use registry::Registry;
use reservations::Reservations;
use unsure::Unsure;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 2_048;
/// The most tasks whose files are on their way at once.
const SPOOLS_MAX: usize = 256;
/// How often old leases are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How long a capability holds before it must be renewed.
const CAPABILITY_LASTING: Duration = Duration::from_secs(12 * 3_600);

/// What a host needs from outside.
#[derive(Debug)]
pub struct Deps {
    /// The transport, bound; its ALPNs include those of [`ALPNS`].
    pub endpoint: Endpoint,
    /// The host's key, the same as the endpoint's.
    pub key: NodeKey,
    /// Where signatures hold.
    pub domain: Domain,
    /// The operator's permission for this host, and its account.
    pub operator: (AccountId, SignedByAccount<Delegation>),
    /// The settlement service, in the operator's name.
    pub settle: Settle,
    /// Indexers that are known from the start; they name the others.
    pub indexers: Vec<NodeAddr>,
    /// The sandboxes; `None` where this machine can't isolate tenants.
    pub sandboxes: Option<Sandboxes>,
    /// The machine's GPUs, or this host's part of them.
    pub gpus: Vec<Gpu>,
    /// How their sensors are read.
    pub gpu_search: GpuSearch,
    /// The kernel's log, where it was opened while this process still might.
    pub kernel_log: Option<std::fs::File>,
}

/// What a host answers to.
pub const ALPNS: [&[u8]; 3] = [ALPN_LEASE, ALPN_CHECK, ALPN_EXAM];

/// Why a host could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Its database can't be opened.
    #[error("failed to open the host's database")]
    Open(#[source] OpenError),
    /// Its database can't be read.
    #[error("failed to read the host's leases")]
    Read(#[source] CommitError),
    /// The configuration offers something that can't be offered.
    #[error("the configured containers can't be offered: {0}")]
    Containers(String),
    /// The sandboxes of before can't be listed.
    #[error("failed to find the sandboxes of before the restart")]
    Sandboxes(#[source] SandboxesError),
}

/// The parts that all tasks of a host share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) dir: PathBuf,
    pub(crate) domain: Domain,
    pub(crate) key: NodeKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) operator: AccountId,
    pub(crate) delegation: SignedByAccount<Delegation>,
    pub(crate) settle: Settle,
    pub(crate) sandboxes: Option<Sandboxes>,
    pub(crate) pool: Option<Pool>,
    pub(crate) containers: Vec<ContainerOffer>,
    pub(crate) gpus: Vec<Gpu>,
    /// How their sensors are asked.
    pub(crate) gpu_search: GpuSearch,
    _gpus_reserved: gpus::Reserved,
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) db: Db,
    pub(crate) slots: Mutex<Slots>,
    /// The images that need not be fetched.
    pub(crate) ready: ready::Ready,
    /// Told whenever free slots change.
    pub(crate) changed: Notify,
    pub(crate) registry: Registry,
    pub(crate) reservations: Reservations,
    pub(crate) draining: AtomicBool,
    pub(crate) revision: AtomicU64,
    pub(crate) shutdown: Shutdown,
    /// How often an indexer has welcomed this host.
    pub(crate) welcomed: watch::Sender<u32>,
    /// Reservations that may be held for nothing.
    pub(crate) unsure: Arc<Unsure>,
    /// Files of tasks that may be on their way at once.
    pub(crate) spools: Semaphore,
    /// Who may connect.
    pub(crate) gate: Arc<Gate>,
    /// Challenges of its hardware.
    pub(crate) exams: exams::Exams,
    /// Receipts that indexers are told of.
    pub(crate) finished: evidence::Finished,
    /// What the machine says of itself.
    pub(crate) health: health::Health,
}

impl Host {
    /// What this host says of itself now.
    pub(crate) fn capability(&self) -> Capability {
        let now = outside::now();
        Capability {
            addr: crate::wire::from_net(&self.endpoint.addr()),
            operator: self.delegation.clone(),
            region: self.config.region.clone(),
            containers: self.offered(),
            revision: self.revision.load(Ordering::Acquire),
            issued: now,
            expires: now.after(CAPABILITY_LASTING),
        }
    }

    /// Its containers with what is ready on them now; none where tenants can't be isolated.
    fn offered(&self) -> Vec<ContainerOffer> {
        if self.sandboxes.is_none() {
            return Vec::new();
        }
        let apps = self.ready.apps();
        let containers = self.containers.iter().cloned();
        containers.map(|container| ContainerOffer { apps: apps.clone(), ..container }).collect()
    }

    /// The GPUs of a lease; `None` where the machine no longer has one of them.
    pub(crate) fn gpus(&self, devices: &Devices) -> Option<Vec<Gpu>> {
        let find = |id: &String| self.gpus.iter().find(|gpu| gpu.id == *id).cloned();
        devices.iter().map(find).collect()
    }

    pub(crate) fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running host, for its owner.
#[derive(Clone, Debug)]
pub struct HostHandle(Arc<Host>);

impl HostHandle {
    /// The ways to it.
    pub fn addr(&self) -> NodeAddr {
        crate::wire::from_net(&self.0.endpoint.addr())
    }

    /// What it leases.
    pub fn containers(&self) -> &[ContainerOffer] {
        &self.0.containers
    }

    /// Waits until an indexer lists this host; says whether one did in time.
    pub async fn announced(&self, within: Duration) -> bool {
        let mut welcomed = self.0.welcomed.subscribe();
        let listed = welcomed.wait_for(|count| *count > 0);
        tokio::time::timeout(within, listed).await.is_ok_and(|listed| listed.is_ok())
    }

    /// What has happened to connections that others opened.
    pub fn connections(&self) -> GateCounters {
        self.0.gate.counters()
    }

    /// What has happened to challenges of its hardware.
    pub fn exams(&self) -> ExamCounters {
        self.0.exams.counters()
    }

    /// How its parts stand, and what was seen of them.
    pub fn health(&self) -> HealthReport {
        self.0.health.report()
    }

    /// How often an indexer has taken this host in.
    pub fn welcomes(&self) -> u32 {
        *self.0.welcomed.borrow()
    }

    /// Tells all indexers anew what this host is, as is done every four hours.
    pub fn renew(&self) {
        announce::renew(&self.0);
    }

    /// Takes no new leases; running ones go on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

/// Starts a host: takes up the leases of before, announces itself, answers.
///
/// # Errors
///
/// [`HostError`] where its state can't be read or its containers can't be offered.
pub async fn start(
    config: Config,
    deps: Deps,
    shutdown: Shutdown,
) -> Result<HostHandle, HostError> {
    let dir = config.dir.clone();
    let db = Db::open(&dir.join("host.redb")).map_err(HostError::Open)?;
    let (gpus, gpus_reserved) = gpus::Reserved::take(deps.gpus);
    let containers = containers_of(&config, deps.key.id(), &gpus).map_err(HostError::Containers)?;
    let own = containers.iter().map(|container| (container.offer.id, container.slots.clone()));
    let own: Vec<_> = own.collect();
    let mut containers: Vec<ContainerOffer> = containers.into_iter().map(|c| c.offer).collect();
    for container in &mut containers {
        container.tier = tier(deps.sandboxes.as_ref());
    }
    let records = restore::load(&db)?;
    let fencing = restore::last_fencing(&db, &records)?;
    let mut slots = Slots::new(own, fencing);
    let folders = [&*dir, &*config.sandbox_dir, &*config.image_store];
    let health = health::Health::load(&dir, &config.health, deps.kernel_log, &gpus, folders);
    health.withdraw_from(&mut slots);
    let (operator, delegation) = deps.operator;
    let pool = deps.sandboxes.clone().map(|sandboxes| {
        Pool::start(sandboxes, config.pool, pool::default_limits(&containers), &shutdown)
    });
    let exams = exams::Exams::new(deps.settle.clone(), &containers);
    let unsure = Arc::new(Unsure::load(db.clone()).map_err(HostError::Read)?);
    let host = Arc::new(Host {
        dir,
        domain: deps.domain,
        key: deps.key,
        endpoint: deps.endpoint,
        operator,
        delegation,
        settle: deps.settle,
        sandboxes: deps.sandboxes,
        pool,
        containers,
        gpus,
        gpu_search: deps.gpu_search,
        _gpus_reserved: gpus_reserved,
        policy: policy_of(&config),
        config,
        db,
        slots: Mutex::new(slots),
        ready: ready::Ready::default(),
        changed: Notify::new(),
        registry: Registry::default(),
        reservations: Reservations::default(),
        draining: AtomicBool::new(false),
        // Rises over restarts, as time does.
        revision: AtomicU64::new(outside::now().0),
        shutdown: shutdown.clone(),
        welcomed: watch::channel(0).0,
        unsure: Arc::clone(&unsure),
        spools: Semaphore::new(SPOOLS_MAX),
        gate: Gate::new(GateLimits::of(CONNECTIONS_MAX)),
        exams,
        finished: evidence::Finished::default(),
        health,
    });
    let reserved = reservations::restore(&host)?;
    restore::take_up(&host, records).await?;
    reservations::take_up(&host, reserved).await;
    shutdown.spawn_until_asked("homes", homes::keep(Arc::clone(&host), deps.indexers));
    shutdown.spawn_until_asked("renew", announce::keep_renewing(Arc::clone(&host)));
    shutdown.spawn_until_asked("unsure", unsure.keep_closing(host.settle.clone()));
    shutdown.spawn_until_asked("forget", forget(Arc::clone(&host)));
    shutdown.spawn_until_asked("health", health::serve(Arc::clone(&host)));
    shutdown.spawn_until_asked("sensors", health::watch_sensors(Arc::clone(&host)));
    shutdown.spawn_until_asked("alive", reservations::keep_alive(Arc::clone(&host)));
    #[cfg(feature = "vulkan")]
    exams::warm(&host);
    shutdown.spawn_until_asked("accept", accept(Arc::clone(&host)));
    info!(containers = host.containers.len(), "host started");
    if host.sandboxes.is_none() {
        warn!("this machine can't isolate tenants: nothing is offered (see `welkin doctor`)");
    }
    Ok(HostHandle(host))
}

fn policy_of(config: &Config) -> Policy {
    let usual = Policy { exposure_seconds: config.exposure_seconds, ..Policy::default() };
    let notice = config.spot.as_ref().map(|spot| Duration::from_secs(spot.notice_seconds.into()));
    Policy { notice: notice.unwrap_or(usual.notice), ..usual }
}

/// Old leases and their logs go when their time is over, also where nobody restarts the host.
async fn forget(host: Arc<Host>) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        restore::forget_old(&host).await;
        reservations::forget_old(&host).await;
    }
}

async fn accept(host: Arc<Host>) {
    while let Some(incoming) = host.endpoint.accept().await {
        let server = Arc::clone(&host);
        host.shutdown.spawn_until_asked("connection", async move {
            if let Some((connection, pass)) = server.gate.admit(incoming).await {
                serve(&server, connection, pass).await;
            }
        });
    }
}

async fn serve(host: &Arc<Host>, connection: Connection, pass: Pass) {
    match connection.alpn() {
        ALPN_LEASE => connection::serve(Arc::clone(host), connection, pass).await,
        ALPN_CHECK => probe::serve(host, connection).await,
        ALPN_EXAM => exams::serve(host, connection).await,
        _ => connection.close(1, b"unknown protocol"),
    }
}

/// The strongest isolation that a host with these sandboxes offers.
pub(crate) fn tier(sandboxes: Option<&Sandboxes>) -> Tier {
    sandboxes.map_or(Tier::None, Sandboxes::tier)
}
