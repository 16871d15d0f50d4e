//! A small network in this process: settlement, indexer, one host that can't isolate.

use std::path::Path;
use std::sync::Arc;

use welkin_net::{Endpoint, EndpointConfig};
use welkin_node::buyer::{Buyer, Home};
use welkin_node::network::Network;
use welkin_node::settlement::{
    EvmConfig, EvmSettlement, Line, LocalChain, Service, ServiceConfig, Settle,
};
use welkin_node::{Shutdown, checker, host, identity, indexer, settlement, wire};
use welkin_proto::{ALPN_SETTLE, AccountKey, Domain, NodeAddr, NodeKey};

pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) service: Arc<Service>,
    pub(crate) shutdown: Shutdown,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) async fn endpoint(secret: [u8; 32], alpns: &[&[u8]]) -> Endpoint {
    endpoint_at(([127, 0, 0, 1], 0).into(), secret, alpns).await
}

/// Of an endpoint at this address.
pub(crate) fn config_at(
    listen: std::net::SocketAddr,
    secret: [u8; 32],
    alpns: &[&[u8]],
) -> EndpointConfig {
    let mut config = EndpointConfig::new(secret);
    config.listen = vec![listen];
    config.alpns = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config
}

/// At this address, as soon as who had it before has left it.
pub(crate) async fn endpoint_at(
    listen: std::net::SocketAddr,
    secret: [u8; 32],
    alpns: &[&[u8]],
) -> Endpoint {
    let config = config_at(listen, secret, alpns);
    for _ in 0..500 {
        if let Ok(endpoint) = Endpoint::bind(config.clone()).await {
            return endpoint;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Endpoint::bind(config).await.unwrap()
}

pub(crate) fn account(n: u8) -> AccountKey {
    AccountKey::from_secret(&[n; 32]).unwrap()
}

/// Long, so that a test is in one epoch.
const EPOCH_SECONDS: u64 = 3_600;

/// The present epoch.
pub(crate) fn epoch() -> u64 {
    welkin_node::outside::now().0 / 1_000 / EPOCH_SECONDS
}

/// The settlement service with its chain in this folder.
pub(crate) async fn service(dir: &Path) -> Arc<Service> {
    service_founded(dir, std::time::Duration::ZERO).await
}

/// The same, where those check from the first epoch on who register so soon after the first one.
async fn service_founded(dir: &Path, founding: std::time::Duration) -> Arc<Service> {
    let admin = account(250).id();
    let faucet_max = "10000".parse().unwrap();
    let chain = LocalChain { admin, faucet_max }.open(dir).unwrap();
    let config = ServiceConfig { domain: Domain::LOCAL, epoch_seconds: EPOCH_SECONDS, founding };
    Arc::new(Service::open(&dir.join("checkers.redb"), chain, config).await.unwrap())
}

/// Settlement in the name of account `n`.
pub(crate) fn settle(service: &Arc<Service>, n: u8, shutdown: &Shutdown) -> Settle {
    let node = NodeKey::from_secret(&[n; 32]).id();
    settle_by(Line::local(Arc::clone(service), node), n, shutdown)
}

fn settle_by(line: Line, n: u8, shutdown: &Shutdown) -> Settle {
    let config = EvmConfig::of(Domain::LOCAL);
    Settle::new(EvmSettlement::new(line, account(n), config, shutdown))
}

/// Heartbeats of an indexer with its state in this folder.
pub(crate) fn beats(dir: &Path, streams_max: usize) -> indexer::Beats {
    let listen = Some(([127, 0, 0, 1], 0).into());
    let config =
        indexer::BeatsConfig { dir: dir.to_owned(), listen, streams_max, standbys: Vec::new() };
    indexer::Beats::open(config).unwrap()
}

/// Where indexer `n` stands; account `n` runs it.
pub(crate) fn neighbourhood(n: u8, region: &str, seeds: Vec<NodeAddr>) -> indexer::Neighbourhood {
    let (node, lasting) =
        (NodeKey::from_secret(&[n; 32]).id(), std::time::Duration::from_secs(600));
    let operator = identity::delegate(&Domain::LOCAL, &account(n), node, lasting).unwrap();
    indexer::Neighbourhood { operator, region: region.parse().unwrap(), seeds }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_in("local").await
    }

    /// With its indexer, which has number 2, in this region.
    pub(crate) async fn start_in(region: &str) -> Self {
        Self::start_founded(region, std::time::Duration::ZERO).await
    }

    /// The same, where those check from the first epoch on who register so soon after the first one.
    pub(crate) async fn start_founded(region: &str, founding: std::time::Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = service_founded(dir.path(), founding).await;
        Self::start_over(region, dir, service).await
    }

    /// Over this settlement service, with everything else in the same folder.
    pub(crate) async fn start_over(
        region: &str,
        dir: tempfile::TempDir,
        service: Arc<Service>,
    ) -> Self {
        let shutdown = Shutdown::default();
        let settle_endpoint = endpoint([1; 32], &[ALPN_SETTLE]).await;
        let settle_addr = wire::from_net(&settle_endpoint.addr());
        let serving = settlement::serve(Arc::clone(&service), settle_endpoint, shutdown.clone());
        shutdown.spawn_until_asked("settlement", serving);
        let key = NodeKey::from_secret(&[2; 32]);
        let settle = settle(&service, 2, &shutdown);
        let index_endpoint = endpoint([2; 32], &indexer::ALPNS).await;
        let beats = beats(&dir.path().join("indexer-2"), 4_096);
        let neighbourhood = neighbourhood(2, region, Vec::new());
        let (endpoint, domain) = (index_endpoint, Domain::LOCAL);
        let deps = indexer::Deps { endpoint, key, domain, settle, beats, neighbourhood };
        let indexer = indexer::start(deps, &shutdown);
        let network = Network {
            chain_id: Domain::LOCAL.chain_id,
            contract: Domain::LOCAL.contract,
            settlement: settle_addr,
            rpc: None,
            indexers: vec![indexer],
            relay: None,
            first_block: 0,
            contracts: None,
        };
        Self { network, service, shutdown, dir }
    }

    /// One more indexer, with this number as its key.
    pub(crate) async fn indexer(&mut self, n: u8) {
        let (addr, _) = self.indexer_in(n, "local").await;
        self.network.indexers.push(addr);
    }

    /// An indexer on this endpoint.
    pub(crate) fn indexer_on(&self, endpoint: Endpoint, n: u8, shutdown: &Shutdown) -> NodeAddr {
        self.indexer_at(endpoint, n, "local", shutdown)
    }

    /// One more indexer, of an operator of its own, in this region. It knows of the network's, and
    /// is not in the network's file. It falls silent when it is stopped.
    pub(crate) async fn indexer_in(&self, n: u8, region: &str) -> (NodeAddr, Shutdown) {
        let shutdown = self.shutdown.child();
        let endpoint = endpoint([n; 32], &indexer::ALPNS).await;
        (self.indexer_at(endpoint, n, region, &shutdown), shutdown)
    }

    fn indexer_at(&self, endpoint: Endpoint, n: u8, region: &str, shutdown: &Shutdown) -> NodeAddr {
        let key = NodeKey::from_secret(&[n; 32]);
        let settle = settle(&self.service, n, &self.shutdown);
        let beats = beats(&self.dir.path().join(format!("indexer-{n}")), 4_096);
        let neighbourhood = neighbourhood(n, region, self.network.indexers.clone());
        let domain = Domain::LOCAL;
        let deps = indexer::Deps { endpoint, key, domain, settle, beats, neighbourhood };
        indexer::start(deps, shutdown)
    }

    /// A host without sandboxes: it announces itself and offers nothing.
    pub(crate) async fn host(&self, n: u8) -> host::HostHandle {
        self.host_in(n, "local").await
    }

    /// The same, in this region.
    pub(crate) async fn host_in(&self, n: u8, region: &str) -> host::HostHandle {
        self.host_with(n, region, Vec::new()).await
    }

    /// The same, with these GPUs.
    pub(crate) async fn host_with(
        &self,
        n: u8,
        region: &str,
        gpus: Vec<welkin_runtime::inventory::Gpu>,
    ) -> host::HostHandle {
        self.host_as(n, (region, gpus), host::Config::default()).await
    }

    /// A host with these containers.
    pub(crate) async fn host_offering(
        &self,
        n: u8,
        containers: Vec<host::ContainerConfig>,
    ) -> host::HostHandle {
        let config = host::Config { containers, ..host::Config::default() };
        self.host_as(n, ("local", Vec::new()), config).await
    }

    async fn host_as(
        &self,
        n: u8,
        (region, gpus): (&str, Vec<welkin_runtime::inventory::Gpu>),
        config: host::Config,
    ) -> host::HostHandle {
        let key = NodeKey::from_secret(&[n; 32]);
        let operator = account(n);
        let lasting = std::time::Duration::from_secs(60);
        let delegation = identity::delegate(&Domain::LOCAL, &operator, key.id(), lasting).unwrap();
        let endpoint = endpoint([n; 32], &host::ALPNS).await;
        let addr = self.network.settlement.clone();
        let line = Line::remote(endpoint.clone(), addr, delegation.clone());
        let settle = settle_by(line, n, &self.shutdown);
        let deps = host::Deps {
            endpoint,
            key,
            domain: Domain::LOCAL,
            operator: (operator.id(), delegation),
            settle,
            indexers: self.network.indexers.clone(),
            sandboxes: None,
            gpus,
            gpu_search: welkin_runtime::inventory::GpuSearch::default(),
            kernel_log: None,
        };
        // The log of the machine that tests run on is nobody's business here.
        let health = host::HealthConfig { kernel_log: "".into(), ..host::HealthConfig::default() };
        let config = host::Config {
            health,
            dir: self.dir.path().join(format!("host-{n}")),
            region: region.parse().unwrap(),
            ..config
        };
        host::start(config, deps, self.shutdown.clone()).await.unwrap()
    }

    pub(crate) async fn checker(&self, n: u8) {
        self.checker_that_looks(n, checker::LOOK_EVERY).await;
    }

    /// A checker that looks at indexers so often.
    pub(crate) async fn checker_that_looks(&self, n: u8, look_every: std::time::Duration) {
        let deps = checker::Deps { look_every, ..self.checker_deps(n).await };
        checker::start(deps, &self.shutdown);
    }

    /// What a checker is started with that neither challenges nor signs epochs.
    pub(crate) async fn checker_deps(&self, n: u8) -> checker::Deps {
        let key = NodeKey::from_secret(&[n; 32]);
        let settle = settle(&self.service, n, &self.shutdown);
        checker::Deps {
            endpoint: endpoint([n; 32], &[]).await,
            key,
            domain: Domain::LOCAL,
            vrf: welkin_check::sortition::VrfKey::from_seed(&[n; 32]).unwrap(),
            settle,
            indexers: self.network.indexers.clone(),
            delegation: neighbourhood(n, "local", Vec::new()).operator,
            look_every: checker::LOOK_EVERY,
            exam_percent: 0,
            cosign_mib_max: 0,
            roots: None,
            mystery: None,
            region: None,
        }
    }

    pub(crate) async fn buyer(&self) -> Buyer {
        self.buyer_named("buyer").await
    }

    /// A buyer with an account of its own.
    pub(crate) async fn buyer_named(&self, name: &str) -> Buyer {
        let home = Home::new(self.dir.path().join(name));
        Buyer::open(&self.network, home, self.shutdown.clone()).await.unwrap()
    }
}

/// Waits for all of a few futures, side by side.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, output) in pending.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(ready) => *output = Some(ready),
                std::task::Poll::Pending => is_ready = false,
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}
