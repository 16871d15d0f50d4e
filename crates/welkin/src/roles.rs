//! Roles as processes of their own, and the parts that `up` starts them from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tracing::info;
use welkin_chain::deployment::Deployment;
use welkin_chain::http::Http;
use welkin_chain::node::NodeError;
use welkin_evm::{Chain, HttpConfig};
use welkin_net::{BindError, Endpoint, EndpointConfig, Relay};
use welkin_node::host::{SandboxdLaunch, Sandboxes};
use welkin_node::network::Network;
use welkin_node::relay::RelayStartError;
use welkin_node::settlement::{
    self, ChainConfig, ChainConfigError, EvmConfig, EvmSettlement, Line, LocalChain, Service,
    ServiceConfig, Settle,
};
use welkin_node::{Shutdown, checker, host, identity, indexer, relay, wire};
use welkin_proto::{
    ALPN_SETTLE, AccountKey, Delegation, Domain, NodeAddr, NodeKey, RelayAddr, SignedByAccount,
};
use welkin_runtime::inventory::{self, Gpu, GpuSearch};

use welkin_runtime::Launcher;
use welkin_types::{AccountId, NodeId, Region, Usd};

use crate::config::SettlementConfig;
use crate::{Context, Usage, client, out};

/// How long a stop may take.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long an operator vouches for its node at a start.
const DELEGATION_LASTING: Duration = Duration::from_secs(365 * 86_400);
/// How long sandboxes outlive their host's process.
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_secs(25);

/// The first argument with which this program asks drivers for GPUs and ends.
pub(crate) const LIST_GPUS: &str = "list-gpus";

/// A role's keys and transport.
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) account: AccountKey,
    pub(crate) delegation: SignedByAccount<Delegation>,
    pub(crate) endpoint: Endpoint,
}

/// Opens the keys of a role in its folder and binds its transport.
pub(crate) async fn node(
    dir: &Path,
    domain: &Domain,
    listen: &str,
    alpns: &[&[u8]],
    relay: Option<&RelayAddr>,
) -> anyhow::Result<Node> {
    let key = identity::node_key(&dir.join("node.key"))?;
    let account = identity::account_key(&dir.join("account.key"))?;
    let delegation = identity::delegate(domain, &account, key.id(), DELEGATION_LASTING)?;
    let listen = socket_addr(listen)?;
    let mut config = EndpointConfig::new(*key.secret());
    config.alpns = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.relay = relay.and_then(wire::to_net_relay);
    let endpoint =
        bind(config, dir, listen).await.with_context(|| format!("failed to listen on {listen}"))?;
    Ok(Node { key, account, delegation, endpoint })
}

pub(crate) fn socket_addr(text: &str) -> Result<SocketAddr, Usage> {
    text.parse()
        .map_err(|_| Usage::new(format!("`{text}` is no address to listen on"), "use IP:PORT"))
}

/// Binds a transport. Where any port will do, the one of the last start is taken if it is still
/// free, so that peers find this node where it was.
async fn bind(
    mut config: EndpointConfig,
    dir: &Path,
    listen: SocketAddr,
) -> Result<Endpoint, BindError> {
    if let Some(before) = last_port(dir, listen) {
        config.listen = vec![before];
        if let Ok(endpoint) = Endpoint::bind(config.clone()).await {
            return Ok(endpoint);
        }
    }
    config.listen = vec![listen];
    let endpoint = Endpoint::bind(config).await?;
    if let Some(bound) = endpoint.bound().first() {
        remember_port(dir, bound.port());
    }
    Ok(endpoint)
}

/// The address with the port of the last start, where any port will do and there was one.
fn last_port(dir: &Path, listen: SocketAddr) -> Option<SocketAddr> {
    let port = std::fs::read_to_string(dir.join("port")).ok()?.trim().parse().ok()?;
    (listen.port() == 0).then(|| SocketAddr::new(listen.ip(), port))
}

fn remember_port(dir: &Path, port: u16) {
    if let Err(error) = std::fs::write(dir.join("port"), format!("{port}\n")) {
        tracing::debug!(%error, "the port is not remembered");
    }
}

/// Starts a relay, at the port of the last start where any will do.
pub(crate) async fn start_relay(
    config: relay::Config,
) -> Result<(Relay, RelayAddr), RelayStartError> {
    let dir = config.dir.clone();
    let before = config.listen.parse().ok().and_then(|listen| last_port(&dir, listen));
    if let Some(before) = before {
        let config = relay::Config { listen: before.to_string(), ..config.clone() };
        if let Ok(started) = relay::start(config).await {
            return Ok(started);
        }
    }
    let (relay, addr) = relay::start(config).await?;
    remember_port(&dir, relay.addr().port());
    Ok((relay, addr))
}

impl Node {
    /// The ways to it.
    pub(crate) fn addr(&self) -> NodeAddr {
        wire::from_net(&self.endpoint.addr())
    }

    /// The settlement service over the network, in this node's account.
    pub(crate) fn remote_settle(
        &self,
        chain: &ChainConfig,
        network: &Network,
        shutdown: &Shutdown,
    ) -> Result<Settle, ChainConfigError> {
        let (endpoint, addr) = (self.endpoint.clone(), network.settlement.clone());
        let line = Line::remote(endpoint, addr, self.delegation.clone());
        chain.settle(network, line, self.account.clone(), shutdown)
    }

    /// The settlement service in this process, in this node's account.
    pub(crate) fn local_settle(&self, service: &Arc<Service>, shutdown: &Shutdown) -> Settle {
        local_settle(service, self.key.id(), self.account.clone(), shutdown)
    }
}

/// An account's settlement with the service in this process.
pub(crate) fn local_settle(
    service: &Arc<Service>,
    node: NodeId,
    account: AccountKey,
    shutdown: &Shutdown,
) -> Settle {
    let line = Line::local(Arc::clone(service), node);
    let config = EvmConfig::of(*service.domain());
    Settle::new(EvmSettlement::new(line, account, config, shutdown))
}

/// A folder of the configuration, or its place in the network's folder.
pub(crate) fn dir_or(named: &Path, context: &Context, name: &str) -> PathBuf {
    if named.as_os_str().is_empty() { context.dir.join(name) } else { named.to_owned() }
}

/// Opens the chain and answers questions about it.
pub(crate) async fn start_settlement(
    config: &SettlementConfig,
    dir: &Path,
    domain: Domain,
    listen: &str,
    shutdown: &Shutdown,
) -> anyhow::Result<Settlement> {
    let faucet_max: Usd = config
        .faucet_usd_max
        .parse()
        .map_err(|error| Usage::new(format!("settlement.faucet_usd_max: {error}"), ""))?;
    // First the key: it makes the folder, and makes it private.
    let node = node(dir, &domain, listen, &[ALPN_SETTLE], None).await?;
    let setup = LocalChain { admin: node.account.id(), faucet_max };
    let chain = setup.open(dir)?;
    let service = service_config(domain, config);
    let rpc = start_rpc(config, dir, &chain, shutdown).await?;
    let service = Service::open(&dir.join("checkers.redb"), chain, service).await?;
    Ok(serve(service, node, rpc, shutdown))
}

const fn service_config(domain: Domain, config: &SettlementConfig) -> ServiceConfig {
    let (epoch_seconds, founding) = (config.epoch_seconds, ServiceConfig::FOUNDING);
    ServiceConfig { domain, epoch_seconds, founding }
}

fn serve(service: Service, node: Node, rpc: Option<String>, shutdown: &Shutdown) -> Settlement {
    let service = Arc::new(service);
    let endpoint = node.endpoint.clone();
    let serving = settlement::serve(Arc::clone(&service), node.endpoint, shutdown.clone());
    shutdown.spawn_until_asked("settlement", serving);
    Settlement { service, endpoint, rpc }
}

/// Passes questions about the chain on to another node.
async fn start_remote_settlement(
    config: &SettlementConfig,
    node_of_chain: Http,
    dir: &Path,
    shutdown: &Shutdown,
) -> anyhow::Result<Settlement> {
    if config.deployment.as_os_str().is_empty() {
        let text = "`settlement.chain_rpc` names a node, and `settlement.deployment` no contracts";
        let hint = "name the file that `welkin chain deploy` wrote";
        return Err(Usage::new(text, hint).into());
    }
    let deployment = Deployment::load(&config.deployment)?;
    let domain = domain(&deployment);
    let node = node(dir, &domain, &config.listen, &[ALPN_SETTLE], None).await?;
    let shown = node_of_chain.shown().to_owned();
    let service = service_config(domain, config);
    let service = Service::remote(&dir.join("checkers.redb"), node_of_chain, service).await?;
    match service.check().await {
        Ok(()) => info!(node = %shown, chain = domain.chain_id, "the chain is there"),
        // It may come: those who ask are told meanwhile.
        Err(error @ NodeError::Ask(_)) => {
            tracing::warn!(error = %welkin_node::chain(&error), "the chain's node does not answer yet");
        }
        Err(error) => {
            let text = format!("{shown}: {error}");
            let hint = "set `settlement.chain_rpc` and `settlement.deployment` to what belong \
                        together; `welkin chain verify` shows what stands on a chain";
            return Err(Usage::new(text, hint).into());
        }
    }
    Ok(serve(service, node, None, shutdown))
}

fn domain(deployment: &Deployment) -> Domain {
    let contract = AccountId::from_bytes(deployment.contracts.escrow.0.0);
    Domain { chain_id: deployment.chain_id, contract }
}

/// A settlement service at work.
pub(crate) struct Settlement {
    /// The service.
    pub(crate) service: Arc<Service>,
    /// Where it listens.
    pub(crate) endpoint: Endpoint,
    /// Where its chain answers JSON-RPC over HTTP, if it does.
    pub(crate) rpc: Option<String>,
}

/// Answers JSON-RPC over HTTP; at the port of the last start where any will do.
async fn start_rpc(
    config: &SettlementConfig,
    dir: &Path,
    chain: &Arc<Chain>,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<String>> {
    if config.rpc_listen.is_empty() {
        return Ok(None);
    }
    let wanted = socket_addr(&config.rpc_listen)?;
    let dir = dir.join("rpc");
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let listener = match last_port(&dir, wanted) {
        Some(before) => TcpListener::bind(before).await.ok(),
        None => None,
    };
    let listener = match listener {
        Some(listener) => listener,
        None => TcpListener::bind(wanted)
            .await
            .with_context(|| format!("failed to listen on {wanted} for JSON-RPC"))?,
    };
    let addr = listener.local_addr()?;
    remember_port(&dir, addr.port());
    let http = HttpConfig { origins: config.rpc_origins.clone(), ..HttpConfig::default() };
    let chain = Arc::clone(chain);
    shutdown.spawn_until_asked("json-rpc", async move {
        if let Err(error) = welkin_evm::serve_http(listener, chain, http).await {
            tracing::error!(%error, "JSON-RPC over HTTP has ended");
        }
    });
    Ok(Some(format!("http://{addr}")))
}

/// Starts the sandbox helper of a host; `None`, with the reason logged, where it can't isolate.
pub(crate) async fn start_sandboxes(
    config: &host::Config,
    launcher: Option<&Launcher>,
    name: &str,
    shutdown: &Shutdown,
) -> Option<Sandboxes> {
    let store = &config.image_store;
    let is_own = store.as_os_str().is_empty();
    let launch = SandboxdLaunch {
        command: sandboxd_command().ok()?,
        launcher: launcher.cloned(),
        dir: config.sandbox_dir.clone(),
        name: name.to_owned(),
        images: if is_own { config.dir.join("images") } else { store.join(name) },
        grace: ORPHAN_GRACE,
    };
    match Sandboxes::connect(launch, shutdown.clone()).await {
        Ok(sandboxes) => Some(sandboxes),
        Err(error) => {
            tracing::warn!(error = %welkin_node::chain(&error), "no sandboxes: see `welkin doctor`");
            None
        }
    }
}

/// The command that becomes the privileged helper: this program, through `sudo` where needed.
pub(crate) fn sandboxd_command() -> anyhow::Result<Vec<std::ffi::OsString>> {
    let program = std::env::current_exe().context("failed to find this program's file")?;
    let mut command: Vec<std::ffi::OsString> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        command.extend(["sudo".into(), "-n".into()]);
    }
    command.extend([program.into(), "sandboxd".into()]);
    Ok(command)
}

/// The machine's GPUs. Drivers that are slow to answer hold up nobody else.
pub(crate) async fn find_gpus(config: &host::Config) -> anyhow::Result<Vec<Gpu>> {
    let search = gpu_search(config)?;
    tokio::task::spawn_blocking(move || inventory::gpus(&search))
        .await
        .context("failed to look for GPUs")
}

/// Drivers are asked by this program in processes of their own.
pub(crate) fn gpu_search(config: &host::Config) -> anyhow::Result<GpuSearch> {
    let program = std::env::current_exe().context("failed to find this program's file")?;
    let command = vec![program.into(), LIST_GPUS.into()];
    Ok(GpuSearch { command, software: config.software_gpus })
}

/// A name for a host's helper that no other host of this machine has.
pub(crate) fn sandboxd_name(key: &NodeKey) -> String {
    key.id().to_string().chars().skip(4).take(16).collect()
}

pub(crate) async fn until_stopped(shutdown: Shutdown, endpoint: Endpoint) -> anyhow::Result<()> {
    stop_signal().await?;
    info!("stopping");
    if !shutdown.finish(GRACE).await {
        tracing::warn!(grace = ?GRACE, "some tasks did not stop in time");
    }
    // Peers learn it at once instead of by silence.
    let _ = tokio::time::timeout(GRACE, endpoint.close()).await;
    Ok(())
}

/// Completes at Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for a signal")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("failed to wait for a signal"),
        _ = terminate.recv() => Ok(()),
    }
}

/// Prints the address that others need, as the first line on standard output.
pub(crate) fn announce(context: &Context, role: &str, addr: &str) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(&serde_json::json!({ "role": role, "addr": addr }));
    }
    out::text(&format!("{addr}\n"))
}

/// `welkin settlement`
pub(crate) async fn settlement(context: &Context) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let config = &context.config.settlement;
    let dir = dir_or(&config.dir, context, "settlement");
    let node = config.chain_rpc.http();
    let node = node.map_err(|error| Usage::new(format!("settlement.chain_rpc: {error}"), ""))?;
    let settlement = match node {
        Some(node) => start_remote_settlement(config, node, &dir, &shutdown).await?,
        None => start_settlement(config, &dir, Domain::LOCAL, &config.listen, &shutdown).await?,
    };
    let endpoint = settlement.endpoint.clone();
    if let Some(rpc) = &settlement.rpc {
        tracing::info!(%rpc, "the chain answers JSON-RPC over HTTP");
    }
    announce(context, "settlement", &wire::from_net(&endpoint.addr()).to_string())?;
    until_stopped(shutdown, endpoint).await
}

/// `welkin relay`
pub(crate) async fn relay(context: &Context) -> anyhow::Result<()> {
    let mut config = context.config.relay.clone();
    config.dir = dir_or(&config.dir, context, "relay");
    let (relay, addr) = start_relay(config).await?;
    announce(context, "relay", &addr.to_string())?;
    stop_signal().await?;
    relay.shutdown().await;
    Ok(())
}

/// Opens an indexer's heartbeats at the address of its endpoint.
pub(crate) fn beats(
    config: &indexer::Config,
    dir: PathBuf,
    endpoint: &Endpoint,
) -> anyhow::Result<indexer::Beats> {
    let ip = endpoint.bound().first().map(SocketAddr::ip);
    Ok(indexer::Beats::open(config.beats(dir, ip))?)
}

/// Mystery sessions of a checker in this folder, where they are on.
pub(crate) fn mystery(
    context: &Context,
    network: &Network,
    dir: &Path,
) -> anyhow::Result<Option<checker::MysteryDeps>> {
    let bounds = context.config.checker.mystery.bounds().map_err(|error| {
        Usage::new(format!("checker.mystery: {error}"), "write amounts like \"0.25\"")
    })?;
    Ok(bounds.map(|bounds| checker::MysteryDeps {
        bounds,
        network: network.clone(),
        chain: context.config.chain.clone(),
        dir: dir.join("mystery"),
    }))
}

/// The book of epochs of a checker in this folder, where it keeps one.
pub(crate) fn roots(
    context: &Context,
    account: AccountKey,
    dir: &Path,
) -> Option<checker::RootsDeps> {
    let dir = dir.join("roots");
    context.config.checker.roots.then_some(checker::RootsDeps { account, dir })
}

/// `welkin checker`
pub(crate) async fn checker(context: &Context) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let network = client::network(context)?;
    let dir = context.dir.join("checker");
    let listen = &context.config.checker.listen;
    let node =
        node(&dir, &network.domain(), listen, &checker::ALPNS, network.relay.as_ref()).await?;
    let addr = node.addr().to_string();
    let mystery = mystery(context, &network, &dir)?;
    let (settle, endpoint) =
        (node.remote_settle(&context.config.chain, &network, &shutdown)?, node.endpoint.clone());
    let deps = checker::Deps {
        endpoint: node.endpoint,
        key: node.key,
        domain: network.domain(),
        vrf: welkin_node::identity::vrf_key(&dir.join("vrf.key"))?,
        settle,
        indexers: network.indexers,
        delegation: node.delegation,
        look_every: checker::LOOK_EVERY,
        exam_percent: context.config.checker.exam_percent,
        cosign_mib_max: context.config.checker.cosign_mib_max,
        roots: roots(context, node.account, &dir),
        mystery,
        region: checker_region(context)?,
    };
    checker::start(deps, &shutdown);
    announce(context, "checker", &addr)?;
    until_stopped(shutdown, endpoint).await
}

/// Where a checker stands, if it says so.
pub(crate) fn checker_region(context: &Context) -> anyhow::Result<Option<Region>> {
    let name = &context.config.checker.region;
    if name.is_empty() {
        return Ok(None);
    }
    let region = name.parse().with_context(|| format!("`checker.region` is `{name}`"))?;
    Ok(Some(region))
}

/// `welkin host`
pub(crate) async fn host(context: &Context) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let network = client::network(context)?;
    let mut config = context.config.host.clone();
    config.dir = dir_or(&config.dir, context, "host");
    let node =
        node(&config.dir, &network.domain(), &config.listen, &host::ALPNS, network.relay.as_ref())
            .await?;
    let (settle, endpoint) =
        (node.remote_settle(&context.config.chain, &network, &shutdown)?, node.endpoint.clone());
    let gpus = find_gpus(&config).await?;
    let handle = start_host(config, context, node, gpus, &network, settle, &shutdown).await?;
    announce(context, "host", &handle.addr().to_string())?;
    until_stopped(shutdown, endpoint).await
}

/// Starts a host from its parts.
pub(crate) async fn start_host(
    config: host::Config,
    context: &Context,
    node: Node,
    gpus: Vec<Gpu>,
    network: &Network,
    settle: Settle,
    shutdown: &Shutdown,
) -> anyhow::Result<host::HostHandle> {
    let launcher = context.launcher.as_ref();
    let gpu_search = gpu_search(&config)?;
    let kernel_log = context.kernel_logs.lock().ok().and_then(|mut logs| logs.pop());
    let sandboxes = start_sandboxes(&config, launcher, &sandboxd_name(&node.key), shutdown).await;
    let deps = host::Deps {
        endpoint: node.endpoint,
        operator: (node.account.id(), node.delegation),
        key: node.key,
        domain: network.domain(),
        settle,
        indexers: network.indexers.clone(),
        sandboxes,
        gpus,
        gpu_search,
        kernel_log,
    };
    Ok(host::start(config, deps, shutdown.clone()).await?)
}

/// `welkin network`
pub(crate) fn network(args: &crate::cli::NetworkArgs) -> anyhow::Result<()> {
    let parse =
        |text: &String| text.parse::<NodeAddr>().map_err(|error| Usage::new(error.to_string(), ""));
    let indexers: Result<Vec<_>, _> = args.indexer.iter().map(parse).collect();
    let relay = args.relay.as_ref().map(|text| {
        text.parse::<RelayAddr>()
            .map_err(|_| Usage::new(format!("`{text}` is no relay"), "use HOST:PORT#HASH"))
    });
    let deployment = args.deployment.as_deref().map(Deployment::load).transpose()?;
    let domain = deployment.as_ref().map_or(Domain::LOCAL, domain);
    let network = Network {
        chain_id: domain.chain_id,
        contract: domain.contract,
        settlement: parse(&args.settlement)?,
        rpc: None,
        indexers: indexers?,
        relay: relay.transpose()?,
        first_block: deployment.map_or(0, |deployment| deployment.first_block),
        contracts: deployment.map(|deployment| deployment.contracts),
    };
    out::text(&toml::to_string(&network)?)
}
