//! A whole network in one process: settlement, relay, indexer, hosts, checkers.
//!
//! Real cryptography, real sandboxes, real connections over loopback; only the process is shared.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use welkin_net::{Endpoint, Relay};
use welkin_node::host::{ContainerConfig, HostHandle};
use welkin_node::network::Network;
use welkin_node::settlement::Service;
use welkin_node::{Shutdown, checker, host, indexer, wire};
use welkin_proto::Domain;
use welkin_runtime::inventory::{self, Gpu};
use welkin_types::Usd;

use crate::cli::Up;
use crate::{Context, Usage, client, demo, out, roles};

mod committee;

/// The most hosts of one `up`.
const HOSTS_MAX: u32 = 16;
/// How long hosts may take to be listed.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most checkers of one `up`.
pub(crate) const CHECKERS_MAX: u32 = 64;

/// `welkin up`
pub(crate) async fn up(context: &Context, args: &Up) -> anyhow::Result<()> {
    let _lock = lock(&context.dir)?;
    let shutdown = Shutdown::default();
    let running = start(context, args, &shutdown).await?;
    let result = if args.demo {
        demo::run(context, &running).await
    } else {
        welcome(context, &running)?;
        roles::stop_signal().await
    };
    if !args.demo {
        out::note("stopping; what is stored stays for the next `welkin up`");
    }
    if !shutdown.finish(roles::GRACE).await {
        tracing::warn!("some tasks did not stop in time");
    }
    let closing = running.endpoints.iter().map(Endpoint::close);
    let _ = tokio::time::timeout(roles::GRACE, join_all(closing)).await;
    running.relay.shutdown().await;
    result
}

/// A running network.
pub(crate) struct Running {
    pub(crate) network: Network,
    pub(crate) hosts: Vec<HostHandle>,
    pub(crate) checkers: u32,
    endpoints: Vec<Endpoint>,
    relay: Relay,
}

/// Two networks must not share a folder.
fn lock(dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let path = dir.join("up.lock");
    let file = File::create(&path).with_context(|| format!("failed to make {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let text = format!("a network runs already in {}", dir.display());
        return Err(Usage::new(text, "use it, stop it, or take another folder with --dir").into());
    }
    Ok(file)
}

fn any_port(ip: IpAddr) -> String {
    SocketAddr::new(ip, 0).to_string()
}

async fn start(context: &Context, args: &Up, shutdown: &Shutdown) -> anyhow::Result<Running> {
    let config = &context.config;
    if !config.settlement.chain_rpc.is_empty() {
        let text = "`welkin up` has a chain of its own, and `settlement.chain_rpc` names another";
        let hint =
            "run the roles by themselves (`welkin settlement`, `welkin host`, …), or unset it";
        return Err(Usage::new(text, hint).into());
    }
    let hosts = bounded("hosts", args.hosts.unwrap_or(config.up.hosts), HOSTS_MAX)?;
    let checkers = args.checkers.unwrap_or(config.up.checkers);
    let checkers = if checkers == 0 { 0 } else { bounded("checkers", checkers, CHECKERS_MAX)? };
    let domain = Domain::LOCAL;
    let listen = any_port(config.up.listen_ip);
    let dir = roles::dir_or(&config.settlement.dir, context, "settlement");
    let roles::Settlement { service: settlement, endpoint: settlement_endpoint, rpc } =
        roles::start_settlement(&config.settlement, &dir, domain, &listen, shutdown).await?;
    let mut relay_config = config.relay.clone();
    relay_config.dir = roles::dir_or(&relay_config.dir, context, "relay");
    relay_config.listen.clone_from(&listen);
    let (relay, relay_addr) = roles::start_relay(relay_config).await?;
    let mut network = Network {
        chain_id: domain.chain_id,
        contract: domain.contract,
        settlement: wire::from_net(&settlement_endpoint.addr()),
        rpc,
        indexers: Vec::new(),
        relay: Some(relay_addr),
        first_block: 0,
        contracts: None,
    };
    let indexer = start_indexer(context, &mut network, &listen, &settlement, shutdown);
    let mut endpoints = vec![settlement_endpoint, indexer.await?];
    let mut handles = Vec::new();
    let gpus = roles::find_gpus(&config.host).await?;
    let mut nodes = Vec::new();
    for number in 1..=hosts {
        nodes.push(host_node(context, &network, number, part(&gpus, number, hosts)).await?);
    }
    for node in &nodes {
        endpoints.push(node.node.endpoint.clone());
    }
    // Each tries its isolation first, which takes a second: all at once.
    let starting = nodes
        .into_iter()
        .map(|node| start_host(context, &network, &settlement, node, hosts, shutdown.clone()));
    for handle in join_all(starting).await {
        handles.push(handle?);
    }
    // Before they look who it is.
    let seated = committee::seat(context, (&settlement, &dir), checkers, shutdown).await;
    if let Err(error) = seated {
        let error = format!("{error:#}");
        tracing::warn!(error, "the checkers are not the committee: they sign no roots of epochs");
    }
    for number in 1..=checkers {
        let started = start_checker(context, &network, &listen, &settlement, number, shutdown);
        endpoints.push(started.await?);
    }
    // What is printed as running can be leased at once.
    let listed = handles.iter().map(|handle| handle.announced(ANNOUNCE_TIMEOUT));
    if join_all(listed).await.contains(&false) {
        tracing::warn!("a host is not listed by the indexer yet");
    }
    write_network(context, &network)?;
    credit(context, &settlement, shutdown).await?;
    Ok(Running { network, hosts: handles, checkers, endpoints, relay })
}

fn bounded(what: &str, count: u32, max: u32) -> anyhow::Result<u32> {
    if (1..=max).contains(&count) {
        return Ok(count);
    }
    Err(Usage::new(format!("{count} {what}: 1 to {max} are possible"), "").into())
}

async fn start_indexer(
    context: &Context,
    network: &mut Network,
    listen: &str,
    settlement: &Arc<Service>,
    shutdown: &Shutdown,
) -> anyhow::Result<Endpoint> {
    let domain = network.domain();
    let dir = roles::dir_or(&context.config.indexer.dir, context, "indexer");
    let node = roles::node(&dir, &domain, listen, &indexer::ALPNS, None).await?;
    let settle = node.local_settle(settlement, shutdown);
    let endpoint = node.endpoint.clone();
    let beats = roles::beats(&context.config.indexer, dir, &endpoint)?;
    let neighbourhood = indexer::Neighbourhood {
        operator: node.delegation,
        region: context.config.indexer.region.clone(),
        seeds: network.indexers.clone(),
    };
    let (endpoint_of, key) = (node.endpoint, node.key);
    let deps = indexer::Deps { endpoint: endpoint_of, key, domain, settle, beats, neighbourhood };
    network.indexers.push(indexer::start(deps, shutdown));
    Ok(endpoint)
}

/// A host that is about to start.
struct HostNode {
    number: u32,
    config: host::Config,
    node: roles::Node,
    gpus: Vec<Gpu>,
}

/// One host's part of the machine's GPUs: dealt out one by one.
fn part(gpus: &[Gpu], number: u32, of: u32) -> Vec<Gpu> {
    let turns = (1..=of).cycle().zip(gpus);
    turns.filter(|(turn, _)| *turn == number).map(|(_, gpu)| gpu.clone()).collect()
}

async fn host_node(
    context: &Context,
    network: &Network,
    number: u32,
    gpus: Vec<Gpu>,
) -> anyhow::Result<HostNode> {
    let mut config = context.config.host.clone();
    config.dir = context.dir.join(format!("host-{number}"));
    config.listen = any_port(context.config.up.listen_ip);
    let (domain, relay) = (network.domain(), network.relay.as_ref());
    let node = roles::node(&config.dir, &domain, &config.listen, &host::ALPNS, relay).await?;
    Ok(HostNode { number, config, node, gpus })
}

async fn start_host(
    context: &Context,
    network: &Network,
    settlement: &Arc<Service>,
    host: HostNode,
    of: u32,
    shutdown: Shutdown,
) -> anyhow::Result<HostHandle> {
    let HostNode { number, mut config, node, gpus } = host;
    if config.containers.is_empty() {
        config.containers = share(number, of, &gpus);
    }
    let settle = node.local_settle(settlement, &shutdown);
    roles::start_host(config, context, node, gpus, network, settle, &shutdown).await
}

/// Waits for all of a few futures, side by side.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|ctx| {
        let mut is_ready = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(ctx) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

/// One host's share of this machine: one container for each of its GPUs; without GPUs slots of one
/// core, at least two. Half of the memory in all. Cores are shared; memory is not.
fn share(number: u32, of: u32, gpus: &[Gpu]) -> Vec<ContainerConfig> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).unwrap_or(1);
    let memory_mib = (inventory::memory_bytes() >> 20) / 2 / u64::from(of);
    let with_gpus = host::gpu_containers(gpus, (cores / of).max(1) * 1_000, memory_mib);
    if !with_gpus.is_empty() {
        return with_gpus;
    }
    let slots = (cores / of).max(2);
    let memory_mib = (memory_mib / u64::from(slots)).clamp(256, 4_096);
    vec![ContainerConfig {
        cpu_milli: 1_000,
        memory_mib,
        disk_mib: memory_mib / 2,
        gpus: 0,
        slots,
        // The second host asks a little more, so that prices can be seen to matter.
        usd_per_hour: if number == 1 { "0.04".to_owned() } else { "0.05".to_owned() },
        features: Vec::new(),
    }]
}

fn checker_dir(context: &Context, number: u32) -> PathBuf {
    context.dir.join(format!("checker-{number}"))
}

async fn start_checker(
    context: &Context,
    network: &Network,
    listen: &str,
    settlement: &Arc<Service>,
    number: u32,
    shutdown: &Shutdown,
) -> anyhow::Result<Endpoint> {
    let dir = checker_dir(context, number);
    let domain = network.domain();
    let node = roles::node(&dir, &domain, listen, &checker::ALPNS, network.relay.as_ref()).await?;
    let settle = node.local_settle(settlement, shutdown);
    let endpoint = node.endpoint.clone();
    let deps = checker::Deps {
        endpoint: node.endpoint,
        key: node.key,
        domain,
        vrf: welkin_node::identity::vrf_key(&dir.join("vrf.key"))?,
        settle,
        indexers: network.indexers.clone(),
        delegation: node.delegation,
        look_every: checker::LOOK_EVERY,
        exam_percent: context.config.checker.exam_percent,
        cosign_mib_max: context.config.checker.cosign_mib_max,
        roots: roles::roots(context, node.account, &dir),
        mystery: roles::mystery(context, network, &dir)?,
        region: roles::checker_region(context)?,
    };
    checker::start(deps, shutdown);
    Ok(endpoint)
}

fn write_network(context: &Context, network: &Network) -> anyhow::Result<()> {
    let file = client::network_file(context);
    let draft = file.with_extension("new");
    let text = toml::to_string(network)?;
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, &file))
        .with_context(|| format!("failed to write {}", file.display()))
}

/// A new account gets test money, once.
async fn credit(
    context: &Context,
    settlement: &Arc<Service>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let amount: Usd = context
        .config
        .up
        .credit_usd
        .parse()
        .map_err(|error| Usage::new(format!("up.credit_usd: {error}"), ""))?;
    let key = client::home(context).account_key()?;
    let node = welkin_types::NodeId::from_bytes([0; 32]);
    let account = key.id();
    let settle = roles::local_settle(settlement, node, key, shutdown);
    if settle.balance(account).await?.deposited.is_zero() && !amount.is_zero() {
        settle.fund(account, amount).await?;
    }
    Ok(())
}

fn welcome(context: &Context, running: &Running) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(&running.network);
    }
    let dir = context.dir.display();
    let mut text = format!("network     {dir}\n");
    text.push_str(&format!("settlement  {}\n", running.network.settlement));
    if let Some(rpc) = &running.network.rpc {
        let chain = running.network.chain_id;
        text.push_str(&format!("chain       {rpc}  (JSON-RPC, chain {chain}, gas is free)\n"));
    }
    for indexer in &running.network.indexers {
        text.push_str(&format!("indexer     {indexer}\n"));
    }
    if let Some(relay) = &running.network.relay {
        text.push_str(&format!("relay       {relay}\n"));
    }
    for host in &running.hosts {
        for container in host.containers() {
            let (class, slots, price) = (&container.class, container.slots, container.price);
            text.push_str(&format!(
                "host        {}  {slots} x {class} ({}), {price}\n",
                out::short(&host.addr().node),
                container.resources
            ));
        }
    }
    text.push_str(&format!("checkers    {}\n\n", running.checkers));
    text.push_str("next, in another terminal:\n");
    text.push_str("  welkin run -- echo hello      run a command\n");
    text.push_str("  welkin offers                 see what is on offer\n");
    text.push_str("  welkin balance                see your money\n");
    text.push_str("Ctrl-C stops the network; its state stays.\n");
    out::text(&text)
}
