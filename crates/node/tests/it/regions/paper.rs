//! A host on paper: it announces a container and says what it has; it runs nothing.

use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint};
use welkin_node::{identity, wire};
use welkin_proto::check::{Probe, ProbeReply};
use welkin_proto::index::{HostToIndexer, IndexHello};
use welkin_proto::{
    ALPN_CHECK, ALPN_INDEX, Capability, ContainerOffer, Domain, NodeAddr, NodeKey, Signed,
    container_id, container_ids,
};
use welkin_types::{ContainerId, Gpu, NodeId, Price, Region, Resources, Tier, UnixMillis, Usd};

use crate::world::{account, endpoint};

const LASTING: Duration = Duration::from_secs(600);

pub(crate) struct PaperHost {
    pub(crate) addr: NodeAddr,
    pub(crate) capability: Capability,
    _tasks: JoinSet<()>,
}

impl PaperHost {
    /// Host `n` with one container of this price in cents, announced to these indexers.
    pub(crate) async fn start(n: u8, region: &str, cents: u64, indexers: &[&NodeAddr]) -> Self {
        Self::start_with(n, indexers, |addr| capability(n, region, cents, addr)).await
    }

    /// The same, which is listed for so long and then no more.
    pub(crate) async fn start_lasting(n: u8, lasting: Duration, indexers: &[&NodeAddr]) -> Self {
        Self::start_with(n, indexers, |addr| {
            let capability = capability(n, "local", 4, addr);
            Capability { expires: capability.issued.after(lasting), ..capability }
        })
        .await
    }

    /// The same with as many containers as may be, of long words, and nowhere to be reached.
    pub(crate) async fn start_crowded(n: u8, indexers: &[&NodeAddr]) -> Self {
        Self::start_with(n, indexers, |addr| {
            let capability = capability(n, "local", 1, NodeAddr { direct: Vec::new(), ..addr });
            let gpu = Gpu {
                model: "RTX 4090".to_owned(),
                form: "pcie".to_owned(),
                vram_bytes: 24 << 30,
                uuid: "GPU-00000000-0000-0000-0000-000000000000".to_owned(),
            };
            let mut one = capability.containers[0].clone();
            one.resources.gpus = vec![gpu; 8];
            let ids = container_ids(capability.addr.node).into_iter();
            let containers = ids.map(|id| ContainerOffer { id, ..one.clone() }).collect();
            Capability { containers, ..capability }
        })
        .await
    }

    async fn start_with(
        n: u8,
        indexers: &[&NodeAddr],
        capability: impl FnOnce(NodeAddr) -> Capability,
    ) -> Self {
        let key = NodeKey::from_secret(&[n; 32]);
        let endpoint = endpoint([n; 32], &[ALPN_CHECK]).await;
        let addr = wire::from_net(&endpoint.addr());
        let capability = capability(addr.clone());
        let mut tasks = JoinSet::new();
        for indexer in indexers {
            let signed = Signed::sign(&Domain::LOCAL, &key, &capability).unwrap();
            let connection = endpoint
                .connect(&wire::to_net(indexer), ALPN_INDEX, Duration::from_secs(5))
                .await
                .unwrap();
            tasks.spawn(announce(connection, signed));
        }
        tasks.spawn(answer(endpoint, key, capability.containers[0].id));
        Self { addr, capability, _tasks: tasks }
    }
}

fn capability(n: u8, region: &str, cents: u64, addr: NodeAddr) -> Capability {
    let now = welkin_node::outside::now();
    let operator = account(n);
    Capability {
        operator: identity::delegate(&Domain::LOCAL, &operator, addr.node, LASTING).unwrap(),
        region: region.parse::<Region>().unwrap(),
        containers: vec![ContainerOffer {
            id: container_id(addr.node, 0),
            class: "cpu-8".parse().unwrap(),
            resources: Resources {
                cpu_milli: 8_000,
                memory_bytes: 8 << 30,
                disk_bytes: 8 << 30,
                gpus: Vec::new(),
            },
            slots: 4,
            price: Price::per_hour(Usd::from_micros(cents * 10_000)),
            tier: Tier::Container,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        }],
        addr,
        revision: 1,
        issued: now,
        expires: now.after(LASTING),
    }
}

/// Announces itself again and again instead of beating.
async fn announce(connection: Connection, signed: Signed<Capability>) {
    let (mut send, mut recv) = connection.open().await.unwrap();
    wire::send(&mut send, &IndexHello::Host(Box::new(signed.clone()))).await.unwrap();
    loop {
        // What the indexer says is read, so that it is not held up, and not acted on.
        let mut drop_it = async || while let Ok(Some(_)) = recv.read_chunk(4_096).await {};
        let _ = tokio::time::timeout(Duration::from_secs(3), drop_it()).await;
        let again = HostToIndexer::Announce(Box::new(signed.clone()));
        if wire::send(&mut send, &again).await.is_err() {
            return;
        }
    }
}

/// Says what it has to whoever asks.
async fn answer(endpoint: Endpoint, key: NodeKey, container: ContainerId) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.handshake().await else { continue };
        let Ok((mut send, mut recv)) = connection.accept().await else { continue };
        let Ok(probe) = wire::expect::<Probe>(&mut recv, Duration::from_secs(5)).await else {
            continue;
        };
        let reply = ProbeReply {
            nonce: probe.nonce,
            checker: NodeId::from_bytes(connection.peer()),
            free: vec![(container, 4)],
            at: UnixMillis(0),
        };
        let signed = Signed::sign(&Domain::LOCAL, &key, &reply).unwrap();
        if wire::send(&mut send, &signed).await.is_ok() {
            let _ = send.finish();
            let _ = tokio::time::timeout(Duration::from_secs(1), send.stopped()).await;
        }
    }
}
