//! Made-up hosts and buyers, for measurements of an indexer's role.

use std::net::SocketAddr;
use std::time::Duration;

use welkin_match::index::Row;
use welkin_match::synth::{Chance, MODELS, Purpose, SITES, Wanted};
use welkin_net::{Endpoint, EndpointConfig};
use welkin_proto::index::MatchRequest;
use welkin_proto::{
    AccountSignature, Capability, ContainerOffer, Delegation, NodeAddr, SignedByAccount,
};
use welkin_types::task::Needs;
use welkin_types::{
    AccountId, AppId, ContainerId, Feature, Gpu, NodeId, Policy, Price, Region, Resources, Tier,
    UnixMillis, Usd,
};

/// Announcements and permissions of a measurement outlast it.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// The key of a host, which is nobody's.
pub(crate) fn node_of(number: u32) -> NodeId {
    let mut chance = Chance::new(u64::from(number) << 8 | 1);
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&chance.word().to_le_bytes()));
    NodeId::from_bytes(bytes)
}

/// The name of each host's one container.
pub(crate) const CONTAINER: ContainerId = ContainerId::from_bytes([1; 16]);

fn app_of(number: u16) -> AppId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    AppId::from_bytes(bytes)
}

/// What the host of a synthetic row would announce.
pub(crate) fn capability(number: u32, row: &Row, now: UnixMillis) -> (AccountId, Capability, u32) {
    let model = &MODELS[usize::from(row.class)];
    let slots = if model.is_multiple { 4 } else { 1 };
    let gpu = Gpu {
        model: model.name.to_owned(),
        form: "pcie".to_owned(),
        vram_bytes: u64::from(model.vram_gb) << 30,
        uuid: format!("GPU-{number:08x}-5f6e-4c1b-9d3a-000000000000"),
    };
    let container = ContainerOffer {
        id: CONTAINER,
        class: model.name.parse().unwrap(),
        resources: Resources {
            cpu_milli: u32::from(row.cpu) * 10,
            memory_bytes: u64::from(row.memory) << 16,
            disk_bytes: u64::from(row.disk) << 20,
            gpus: vec![gpu],
        },
        slots,
        price: Price::per_hour(Usd::from_micros(row.price.into())),
        tier: Tier::Vm,
        features: if row.ring.is_multiple_of(2) {
            vec![Feature::H264, Feature::Av1]
        } else {
            vec![]
        },
        driver: Some(550),
        apps: row.apps.iter().map(|app| app_of(*app)).collect(),
        spot: None,
        reserved: None,
    };
    let node = node_of(number);
    let mut operator = [0; 20];
    operator[..4].copy_from_slice(&row.operator.to_le_bytes());
    let signature = AccountSignature { r: [0; 32], s: [0; 32], v: 27 };
    let expires = now.after(HOUR);
    let ip = (0x0a00_0000 | number).to_be_bytes();
    let capability = Capability {
        addr: NodeAddr { node, relay: None, direct: vec![(ip, 4_433).into()] },
        operator: SignedByAccount { message: Delegation { node, expires }, signature },
        region: SITES[usize::from(row.location)].name.parse().unwrap(),
        containers: vec![container],
        revision: 1,
        issued: now,
        expires,
    };
    (AccountId::from_bytes(operator), capability, u32::from(row.free).min(slots))
}

/// An endpoint on this machine; port 0 takes a free one.
pub(crate) async fn endpoint(secret: [u8; 32], port: u16, alpns: &[&[u8]]) -> Endpoint {
    let mut config = EndpointConfig::new(secret);
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    config.alpns = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    Endpoint::bind(config).await.unwrap()
}

/// A synthetic search as a buyer would send it.
pub(crate) fn request(buyer: SignedByAccount<Delegation>, wanted: &Wanted) -> MatchRequest {
    let search = wanted.search();
    let models: Vec<_> =
        search.classes.iter().map(|class| MODELS[usize::from(class)].name).collect();
    let gpu = models.iter().take(16).copied().collect::<Vec<_>>().join("|");
    let needs = Needs {
        cpu_milli_min: u32::from(search.cpu) * 10,
        memory_bytes_min: u64::from(search.memory) << 16,
        disk_bytes_min: u64::from(search.disk) << 20,
        shm_bytes: 0,
        gpu: gpu.parse().ok(),
        max_per_hour: Some(Usd::from_micros(search.price_max.into())),
        rtt_us_max: (wanted.purpose == Purpose::Game).then_some(40_000),
        app: search.app.map(app_of),
        policy: Policy::Best,
        ..Needs::default()
    };
    let trips = SITES.iter().zip(search.latency);
    let trips = trips
        .map(|(site, tenths)| (site.name.parse::<Region>().unwrap(), u32::from(*tenths) * 100));
    MatchRequest {
        buyer,
        needs,
        count: 3,
        hold: true,
        exclude: Vec::new(),
        from: None,
        round_trips_us: trips.collect(),
        gang: None,
        receipt: true,
    }
}
