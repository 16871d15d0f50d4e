//! Measures a sample of the market: the first of a fleet, and one of a fleet that was sampled before.
//!
//! `cargo run --release -p welkin-match --example prices -- [HOSTS]` prints one line,
//! `RESULT prices key=value …`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement stops at the first surprise, reads a clock and prints what it found"
)]

use std::time::Instant;

use welkin_match::Fleet;
use welkin_match::prices::Sampler;
use welkin_proto::{
    AccountKey, Capability, ContainerOffer, Delegation, Domain, NodeAddr, SignedByAccount,
};
use welkin_types::{ContainerId, Gpu, NodeId, Price, Resources, Tier, UnixMillis, Usd};

const MODELS: u64 = 40;
const REGIONS: u64 = 113;

fn main() {
    let hosts = std::env::args().nth(1).map_or(200_000, |word| word.parse().unwrap());
    let account = AccountKey::from_secret(&[7; 32]).unwrap();
    let node = NodeId::from_bytes([0; 32]);
    let delegation = Delegation { node, expires: UnixMillis(u64::MAX) };
    let operator = SignedByAccount::sign(&Domain::LOCAL, &account, delegation).unwrap();
    let mut fleet = Fleet::new(1);
    for number in 0..hosts {
        let said = capability(number, operator.clone());
        fleet.announce(UnixMillis(0), account.id(), said).unwrap();
    }
    let now = UnixMillis(1);
    let mut sampler = Sampler::default();
    let mut sample = || {
        let began = Instant::now();
        while sampler.count(&fleet, now, 256) {}
        let slots: u64 = sampler.finish().series().map(|(_, sample)| sample.total()).sum();
        // Each is counted in its region and in all of them together.
        assert_eq!(slots, 2 * hosts);
        began.elapsed().as_nanos() / u128::from(hosts)
    };
    let (first, then) = (sample(), sample());
    println!("RESULT prices hosts={hosts} first_ns={first} then_ns={then}");
}

fn capability(number: u64, operator: SignedByAccount<Delegation>) -> Capability {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let node = NodeId::from_bytes(bytes);
    let model = number % MODELS;
    let gpu = Gpu {
        model: format!("model{model}"),
        form: "pcie".to_owned(),
        vram_bytes: (8 + model) << 30,
        uuid: String::new(),
    };
    let price = Usd::from_micros(100_000 + model * 20_000 + number % 200 * 500);
    Capability {
        addr: NodeAddr { node, relay: None, direct: vec![([192, 0, 2, 1], 7_000).into()] },
        operator,
        region: format!("region-{}", number % REGIONS).parse().unwrap(),
        containers: vec![ContainerOffer {
            id: ContainerId::from_bytes([1; 16]),
            class: format!("model{model}").parse().unwrap(),
            resources: Resources {
                cpu_milli: 8_000,
                memory_bytes: 32 << 30,
                disk_bytes: 100 << 30,
                gpus: vec![gpu],
            },
            slots: 1,
            price: Price::per_hour(price),
            tier: Tier::Container,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        }],
        revision: 1,
        issued: UnixMillis(0),
        expires: UnixMillis(3_600_000),
    }
}
