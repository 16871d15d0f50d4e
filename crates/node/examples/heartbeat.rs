//! Measures what a heartbeat costs an indexer: authenticated datagrams over loopback into the role's
//! own loop, its sessions and its fleet; beside it a loop that only receives them, and the least that
//! can be done with them: opened with keys that lie in one array, and acknowledged, in batches as large.
//!
//! `cargo run --release -p welkin-node --example heartbeat [hosts] [beats a second] [rounds]`
//!
//! Costs are processor time of the receiving thread, as the kernel counts it, so that the sender and
//! other programs do not count. Of ten beats one says that a slot is taken, by a lease, and the next one
//! that it is free again; of six one asks to be acknowledged. The datagrams are made before the clock runs, and
//! come from 256 addresses.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement stops at the first surprise and prints what it found"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use welkin_match::index::Row;
use welkin_match::synth::{self, MODELS, SITES};
use welkin_match::{Fleet, Presence};
use welkin_net::{DatagramAnswers, DatagramBatch, DatagramSocket};
use welkin_node::{Shutdown, identity, indexer, outside};
use welkin_proto::heartbeat::{BEAT_BYTES, Enrolment, Header, Note, Secret, SessionKey, Vitals};
use welkin_proto::{AccountKey, Capability, ContainerOffer, Domain, NodeAddr, NodeKey};
use welkin_types::{ContainerId, Gpu, NodeId, Price, Resources, Tier, Usd};

/// As the program's.
#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

/// Addresses that beats come from.
const SOURCES: usize = 256;
/// Beats that are sent together; then the sender waits until more are due.
const BURST: usize = 100;

type Sealed = Vec<[u8; BEAT_BYTES]>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<usize>().ok());
    let hosts = arguments.next().unwrap_or(1_000_000);
    let rate = arguments.next().unwrap_or(100_000);
    let rounds = arguments.next().unwrap_or(5);
    let sources: Vec<_> =
        (0..SOURCES).map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();

    let mut presence = Presence::new(Secret::from_bytes(outside::random()));
    let fleet = Arc::new(Mutex::new(Fleet::default()));
    let sessions = enrol(&mut presence, &mut fleet.lock().unwrap(), hosts);
    let bytes = presence.bytes() as f64 / hosts as f64;
    println!("# {hosts} hosts are enrolled");

    let dir = tempfile::tempdir().unwrap();
    let config = indexer::BeatsConfig {
        dir: dir.path().to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        streams_max: 0,
        standbys: Vec::new(),
    };
    let beats = indexer::Beats::with(config, presence).unwrap();
    let shutdown = Shutdown::default();
    beats.serve(&fleet, &shutdown);
    let to = SocketAddr::from(([127, 0, 0, 1], beats.port()));
    let mut ours = Vec::new();
    let mut lost = 0;
    for round in 0..rounds {
        let sealed = seal(&sessions, round);
        let sent = || send(&sealed, &sources, to, rate);
        let (cpu_us, taken) = cost("heartbeats", || beats.counters().taken, sent);
        println!("# round {round}: {taken} taken, {cpu_us:.3} us each");
        ours.push(cpu_us);
        lost += sealed.len() as u64 - taken;
    }
    let counters = beats.counters();
    let unwanted = (counters.dropped(), counters.poked, counters.missed);
    assert_eq!(unwanted, (0, 0, 0), "{counters:?}");

    shutdown.finish(Duration::from_secs(30)).await;
    let floor = floor(&seal(&sessions, rounds), &sources, rate);
    let least = least(&sessions, rounds, &sources, rate);
    ours.sort_by(f64::total_cmp);
    let cpu_us = ours[ours.len() / 2];
    println!(
        "RESULT heartbeat cpu_us={cpu_us:.3} bytes_per_session={bytes:.1} per_s_per_core={:.0} \
         floor_us={floor:.3} ratio_vs_floor={:.2} least_us={least:.3} ratio_vs_least={:.2} lost={lost} answered={} hosts={hosts}",
        1e6 / cpu_us,
        cpu_us / floor,
        cpu_us / least,
        counters.answered,
    );
}

/// Announces and enrols so many hosts of the synthetic fleet, with one container each; the slots that
/// are free go with them.
fn enrol(presence: &mut Presence, fleet: &mut Fleet, hosts: usize) -> Vec<(Enrolment, u16)> {
    let now = outside::now();
    let account = AccountKey::from_secret(&[7; 32]).unwrap();
    let lasting = Duration::from_secs(86_400);
    let node = NodeKey::from_secret(&[7; 32]).id();
    let operator = identity::delegate(&Domain::LOCAL, &account, node, lasting).unwrap();
    let mut enrolled = Vec::with_capacity(hosts);
    for (number, row) in (0_u64..).zip(synth::Fleet::new(7).take(hosts)) {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        id[8..16].copy_from_slice(&number.to_le_bytes());
        let node = NodeId::from_bytes(id);
        let container = offer(number, &row);
        let (id, free) = (container.id, u32::from(row.free).min(container.slots));
        let capability = Capability {
            addr: NodeAddr {
                node,
                relay: None,
                direct: vec![SocketAddr::from(([192, 0, 2, 1], 7_400))],
            },
            operator: operator.clone(),
            region: SITES[usize::from(row.location)].name.parse().unwrap(),
            containers: vec![container],
            revision: 1,
            issued: now,
            expires: now.after(lasting),
        };
        fleet.announce(now, account.id(), capability).unwrap();
        let session = presence.enrol(now, node, &[id], 5).unwrap().remove(0);
        enrolled.push((session, u16::try_from(free).unwrap()));
    }
    enrolled
}

fn offer(number: u64, row: &Row) -> ContainerOffer {
    let model = &MODELS[usize::from(row.class)];
    let mut id = [1; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let gpu = Gpu {
        model: model.name.to_owned(),
        form: "pcie".to_owned(),
        vram_bytes: u64::from(model.vram_gb) << 30,
        uuid: format!("GPU-{number:08x}-5f6e-4c1b-9d3a-000000000000"),
    };
    ContainerOffer {
        id: ContainerId::from_bytes(id),
        class: model.name.parse().unwrap(),
        resources: Resources {
            cpu_milli: u32::from(row.cpu) * 10,
            memory_bytes: u64::from(row.memory) << 16,
            disk_bytes: u64::from(row.disk) << 20,
            gpus: vec![gpu],
        },
        slots: if model.is_multiple { 4 } else { 1 },
        price: Price::per_hour(Usd::from_micros(row.price.into())),
        tier: Tier::Vm,
        features: Vec::new(),
        driver: Some(550),
        apps: Vec::new(),
        spot: None,
        reserved: None,
    }
}

/// A round's beats: one of each session, in an order in which neighbours are far apart.
fn seal(sessions: &[(Enrolment, u16)], round: usize) -> Sealed {
    let count = sessions.len();
    let step = (0..).map(|n| 7_919 + n).find(|step| gcd(*step, count) == 1).unwrap();
    let seal = |place: usize| {
        let number = place * step % count;
        let (Enrolment { session, key, .. }, free) = &sessions[number];
        // One of ten is taken in a round and given back in the next.
        let is_taken = |round: usize| (number + round).is_multiple_of(10);
        let changes = (1..=round).filter(|round| is_taken(*round) != is_taken(round - 1)).count();
        let vitals = Vitals {
            free: if is_taken(round) { free.saturating_sub(1) } else { *free },
            revision: 1,
            wants_note: (number + round).is_multiple_of(6),
            lease_epoch: u32::try_from(changes).unwrap(),
            lease_digest: if is_taken(round) { key.as_bytes()[0].into() } else { 0 },
            ..Vitals::default()
        };
        vitals.seal(key, *session, round as u64 + 1)
    };
    (0..count).map(seal).collect()
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Sends beats at a rate.
fn send(sealed: &Sealed, sources: &[UdpSocket], to: SocketAddr, rate: usize) {
    let began = Instant::now();
    for (burst, beats) in sealed.chunks(BURST).enumerate() {
        let due = began + Duration::from_secs_f64((burst * BURST) as f64 / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for (number, beat) in beats.iter().enumerate() {
            sources[(burst * BURST + number) % SOURCES].send_to(beat, to).unwrap();
        }
    }
}

/// What it costs only to receive them, one by one.
fn floor(sealed: &Sealed, sources: &[UdpSocket], rate: usize) -> f64 {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let to = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let receive = move || {
        let mut buffer = [0; 1_500];
        loop {
            match socket.recv_from(&mut buffer) {
                Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                Err(_) if count.load(Ordering::Relaxed) == u64::MAX => return,
                Err(_) => (),
            }
        }
    };
    std::thread::Builder::new().name("floor".to_owned()).spawn(receive).unwrap();
    cost("floor", || taken.load(Ordering::Relaxed), || send(sealed, sources, to, rate)).0
}

/// What it costs to open them and to acknowledge those that ask for it: keys and counters of all sessions
/// lie side by side, and nobody learns what the beats say. The first of two rounds is to touch the memory.
fn least(sessions: &[(Enrolment, u16)], round: usize, sources: &[UdpSocket], rate: usize) -> f64 {
    let socket = DatagramSocket::bind(([127, 0, 0, 1], 0).into(), 8 << 20).unwrap();
    let to = socket.local_addr().unwrap();
    let mut rows: Vec<Option<(SessionKey, u64)>> = vec![None; sessions.len()];
    for (Enrolment { session, key, .. }, _) in sessions {
        rows[usize::try_from(*session).unwrap()] = Some((key.clone(), 0));
    }
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let receive = move || {
        let (mut batch, mut answers) = (DatagramBatch::new(), DatagramAnswers::new());
        while socket.wait(Duration::from_secs(30)).unwrap() {
            std::thread::sleep(Duration::from_millis(2));
            let mut has_more = true;
            while has_more {
                has_more = socket.receive(&mut batch).unwrap();
                for (way, datagram) in batch.iter() {
                    let Header { session, counter, .. } = Header::of_beat(datagram).unwrap();
                    let (key, last) = rows[session as usize].as_mut().unwrap();
                    assert!(counter > *last);
                    let vitals = Vitals::open(key, datagram).unwrap();
                    *last = counter;
                    if vitals.wants_note {
                        answers.push(way, &Note::Ack.seal(key, session, counter));
                    }
                }
                count.fetch_add(batch.iter().count() as u64, Ordering::Relaxed);
                let _ = socket.send(&mut answers);
            }
        }
    };
    std::thread::Builder::new().name("least".to_owned()).spawn(receive).unwrap();
    let [_, measured] = [round, round + 1].map(|round| {
        let sealed = seal(sessions, round);
        cost("least", || taken.load(Ordering::Relaxed), || send(&sealed, sources, to, rate)).0
    });
    measured
}

/// Microseconds of a thread's processor time for each beat that it takes of those that are sent, and
/// how many these are.
fn cost(thread: &str, taken: impl Fn() -> u64, send: impl FnOnce()) -> (f64, u64) {
    let before = (cpu_of(thread), taken());
    send();
    std::thread::sleep(Duration::from_millis(300));
    let count = taken() - before.1;
    ((cpu_of(thread) - before.0).as_secs_f64() * 1e6 / count as f64, count)
}

/// The processor time of this process's thread of that name.
fn cpu_of(name: &str) -> Duration {
    let is_its = |task: &std::path::Path| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let Some(task) = tasks.find(|task| is_its(task)) else { return Duration::ZERO };
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
