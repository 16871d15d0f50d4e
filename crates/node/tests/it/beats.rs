//! Heartbeats between the real roles, and with hosts and strangers made by hand.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_node::buyer::Buyer;
use welkin_node::{Shutdown, identity, indexer, outside, wire};
use welkin_proto::heartbeat::{BEAT_BYTES, NOTE_BYTES, Note, Vitals, Welcome};
use welkin_proto::index::{HostToIndexer, IndexHello, IndexerToHost};
use welkin_proto::{
    ALPN_INDEX, Capability, ContainerOffer, Domain, NodeAddr, NodeKey, Signed, container_id,
};
use welkin_types::{ContainerId, Price, Resources, Tier, Usd};

use crate::world::{World, account, beats, endpoint, neighbourhood, settle};

const WITHIN: Duration = Duration::from_secs(20);

/// Waits for a condition that other tasks bring about.
pub(crate) async fn eventually<F: AsyncFnMut() -> bool>(is_so: F) {
    eventually_for(WITHIN, is_so).await.unwrap();
}

async fn eventually_for<F: AsyncFnMut() -> bool>(
    within: Duration,
    mut is_so: F,
) -> Result<(), tokio::time::error::Elapsed> {
    let all = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, all).await
}

/// An indexer that can be stopped alone.
pub(crate) struct Indexer {
    pub(crate) addr: NodeAddr,
    beats: indexer::Beats,
    endpoint: Endpoint,
    shutdown: Shutdown,
}

impl Indexer {
    pub(crate) async fn start(world: &World, at: Option<SocketAddr>, streams_max: usize) -> Self {
        let dir = world.dir.path().join("indexer-3");
        Self::with(world, at, beats(&dir, streams_max)).await
    }

    async fn with(world: &World, at: Option<SocketAddr>, beats: indexer::Beats) -> Self {
        let shutdown = Shutdown::default();
        let endpoint = endpoint_at([3; 32], at).await;
        let deps = indexer::Deps {
            endpoint: endpoint.clone(),
            key: NodeKey::from_secret(&[3; 32]),
            domain: Domain::LOCAL,
            settle: settle(&world.service, 3, &shutdown),
            beats: beats.clone(),
            neighbourhood: neighbourhood(3, "local", Vec::new()),
        };
        let addr = indexer::start(deps, &shutdown);
        Self { addr, beats, endpoint, shutdown }
    }

    pub(crate) fn counters(&self) -> indexer::BeatCounters {
        self.beats.counters()
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        let bound = self.endpoint.bound()[0];
        assert!(self.shutdown.finish(Duration::from_secs(10)).await);
        self.endpoint.close().await;
        bound
    }
}

async fn endpoint_at(secret: [u8; 32], at: Option<SocketAddr>) -> Endpoint {
    let mut config = welkin_net::EndpointConfig::new(secret);
    config.listen = vec![at.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())];
    config.alpns = vec![ALPN_INDEX.to_vec()];
    // The sockets of before may take a moment to go.
    let began = Instant::now();
    loop {
        match Endpoint::bind(config.clone()).await {
            Ok(endpoint) => return endpoint,
            Err(error) => assert!(began.elapsed() < WITHIN, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A network whose only indexer is this one.
pub(crate) async fn world(streams_max: usize) -> (World, Indexer) {
    let mut world = World::start().await;
    let indexer = Indexer::start(&world, None, streams_max).await;
    world.network.indexers = vec![indexer.addr.clone()];
    (world, indexer)
}

/// A host by hand: its containers have four slots each, and it leases nothing.
pub(crate) struct ByHand {
    _endpoint: Endpoint,
    _connection: Connection,
    send: SendStream,
    recv: RecvStream,
    pub(crate) welcome: Welcome,
    pub(crate) to: SocketAddr,
    counter: u64,
    announcement: Signed<Capability>,
}

impl ByHand {
    pub(crate) async fn enrol(indexer: &NodeAddr, n: u8) -> Self {
        Self::enrol_with(indexer, n, 1).await
    }

    /// With so many containers.
    pub(crate) async fn enrol_with(indexer: &NodeAddr, n: u8, containers: u32) -> Self {
        let endpoint = endpoint([n; 32], &[]).await;
        let key = NodeKey::from_secret(&[n; 32]);
        let now = outside::now();
        let lasting = Duration::from_secs(600);
        let delegation = identity::delegate(&Domain::LOCAL, &account(n), key.id(), lasting);
        let capability = Capability {
            addr: wire::from_net(&endpoint.addr()),
            operator: delegation.unwrap(),
            region: "local".parse().unwrap(),
            containers: (0..containers).map(|index| offer(container_id(key.id(), index))).collect(),
            revision: 1,
            issued: now,
            expires: now.after(lasting),
        };
        let signed = Signed::sign(&Domain::LOCAL, &key, &capability).unwrap();
        let connection =
            endpoint.connect(&wire::to_net(indexer), ALPN_INDEX, WITHIN).await.unwrap();
        let (mut send, mut recv) = connection.open().await.unwrap();
        let hello = IndexHello::Host(Box::new(signed.clone()));
        wire::send(&mut send, &hello).await.unwrap();
        let welcome = welcomed(&mut recv).await;
        let to = SocketAddr::new([127, 0, 0, 1].into(), welcome.port);
        let (_endpoint, _connection) = (endpoint, connection);
        let announcement = signed;
        Self { _endpoint, _connection, send, recv, welcome, to, counter: 0, announcement }
    }

    /// Announces itself over its open stream, as one that was poked does.
    pub(crate) async fn announce_again(&mut self) {
        let announcement = HostToIndexer::Announce(Box::new(self.announcement.clone()));
        wire::send(&mut self.send, &announcement).await.unwrap();
        self.welcome = welcomed(&mut self.recv).await;
        self.counter = 0;
    }

    pub(crate) fn vitals(free: u16) -> Vitals {
        Vitals { free, revision: 1, wants_note: true, ..Vitals::default() }
    }

    pub(crate) fn seal(&mut self, vitals: &Vitals) -> [u8; BEAT_BYTES] {
        self.seal_of(0, vitals)
    }

    /// A beat of one of its containers.
    pub(crate) fn seal_of(&mut self, container: usize, vitals: &Vitals) -> [u8; BEAT_BYTES] {
        self.counter += 1;
        let session = &self.welcome.sessions[container];
        vitals.seal(&session.key, session.session, self.counter)
    }

    /// Beats from this socket and waits for the answer.
    pub(crate) fn beat(&mut self, socket: &UdpSocket, vitals: &Vitals) -> Note {
        let beat = self.seal(vitals);
        socket.send_to(&beat, self.to).unwrap();
        let mut answer = [0; 256];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((length, from), (NOTE_BYTES, self.to));
        Note::open(&self.welcome.sessions[0].key, &answer[..length]).unwrap()
    }
}

async fn welcomed(recv: &mut RecvStream) -> Welcome {
    let answer = wire::expect(recv, WITHIN).await.unwrap();
    let IndexerToHost::Welcome(welcome) = answer else { panic!("{answer:?}") };
    *welcome
}

fn offer(id: ContainerId) -> ContainerOffer {
    let gib = 1 << 30;
    ContainerOffer {
        id,
        class: "cpu-1".parse().unwrap(),
        resources: Resources {
            cpu_milli: 1_000,
            memory_bytes: 8 * gib,
            disk_bytes: 64 * gib,
            gpus: Vec::new(),
        },
        slots: 4,
        price: Price::per_hour(Usd::from_micros(1_000)),
        tier: Tier::Container,
        features: Vec::new(),
        driver: None,
        apps: Vec::new(),
        spot: None,
        reserved: None,
    }
}

pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    socket
}

/// Slots that are offered of each host, in the order of their numbers.
/// The fewest first.
pub(crate) async fn free(buyer: &Buyer) -> Vec<u32> {
    let rows = buyer.offers(None).await.unwrap();
    let mut free: Vec<_> = rows.iter().map(|row| row.free).collect();
    free.sort_unstable();
    free
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_beats_by_datagrams_and_its_stream_is_let_go() {
    let (world, indexer) = world(0).await;
    let host = world.host(10).await;
    eventually(async || indexer.beats.counters().answered > 0).await;
    eventually(async || indexer.endpoint.counters().connected > 0).await;
    // Another announcement takes another, short stream, once the first has been let go: one that is
    // still open would be used.
    let is_let_go = async || {
        host.renew();
        let again = eventually_for(Duration::from_secs(1), async || host.welcomes() >= 2);
        again.await.is_ok()
    };
    eventually(is_let_go).await;
    // A change is told at once.
    let taken = indexer.beats.counters().taken;
    host.drain();
    eventually(async || indexer.beats.counters().taken > taken).await;
    let counters = indexer.beats.counters();
    assert_eq!((counters.framed, counters.poked, counters.gone), (0, 0, 0), "{counters:?}");
    assert_eq!(indexer.beats.sessions(), 1);
    // A host that stops says so.
    world.shutdown.finish(Duration::from_secs(5)).await;
    eventually(async || indexer.beats.sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_indexer_takes_no_datagrams_beats_come_over_the_stream() {
    let mut world = World::start().await;
    let config = indexer::BeatsConfig {
        dir: world.dir.path().join("indexer-3"),
        listen: None,
        streams_max: 0,
        standbys: Vec::new(),
    };
    let indexer = Indexer::with(&world, None, indexer::Beats::open(config).unwrap()).await;
    world.network.indexers = vec![indexer.addr.clone()];
    let host = world.host(10).await;
    eventually(async || indexer.beats.counters().framed > 0).await;
    host.drain();
    eventually(async || {
        let counters = indexer.beats.counters();
        counters.framed > 1 && counters.taken == counters.framed
    })
    .await;
    let counters = indexer.beats.counters();
    assert_eq!(counters.dropped(), 0, "{counters:?}");
    assert_eq!(host.welcomes(), 1, "the stream stays, though the indexer wants few");
}

/// The stream on which a host announces itself. Its questions, for which it has connections of their
/// own, are left without an answer.
async fn host_stream(endpoint: Endpoint) -> (JoinSet<()>, Connection, SendStream, RecvStream) {
    let (found, mut first) = tokio::sync::mpsc::channel(1);
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            let found = found.clone();
            connections.spawn(async move {
                let connection = incoming.handshake().await.unwrap();
                while let Ok((send, mut recv)) = connection.accept().await {
                    let hello = wire::expect(&mut recv, WITHIN).await;
                    if let Ok(IndexHello::Host(_)) = hello {
                        let _ = found.send((connection, send, recv)).await;
                        return;
                    }
                }
            });
        }
    });
    let (connection, send, recv) = first.recv().await.unwrap();
    (accepting, connection, send, recv)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_datagrams_are_swallowed_beats_come_over_the_stream() {
    let mut world = World::start().await;
    // A firewall: an address where everything ends.
    let (hole, standby) = (socket(), socket());
    let endpoint = endpoint_at([3; 32], None).await;
    world.network.indexers = vec![wire::from_net(&endpoint.addr())];
    let _host = world.host(10).await;
    let (_accepting, _connection, mut send, mut recv) = host_stream(endpoint).await;
    let container = ContainerId::from_bytes([1; 16]);
    let key = welkin_proto::heartbeat::SessionKey::from_bytes([7; 16]);
    let session = welkin_proto::heartbeat::Enrolment { container, session: 5, key: key.clone() };
    let welcome = Welcome {
        revision: 1,
        period_ms: 10_000,
        keeps_stream: false,
        port: hole.local_addr().unwrap().port(),
        // One where the network has nobody, which is not believed, and one that is.
        standbys: vec![([192, 0, 2, 1], 9).into(), standby.local_addr().unwrap()],
        key_epoch: 1,
        sessions: vec![session],
    };
    wire::send(&mut send, &IndexerToHost::Welcome(Box::new(welcome))).await.unwrap();
    let began = Instant::now();
    let message: HostToIndexer = wire::expect(&mut recv, WITHIN).await.unwrap();
    let HostToIndexer::Beats(frame) = message else { panic!("{message:?}") };
    assert_eq!(Vitals::open(&key, &frame).unwrap().revision, 1);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // It had been tried: one beat and three repeats, each with a counter of its own.
    let mut tried = [0; 256];
    for _ in 0..4 {
        assert_eq!(hole.recv(&mut tried).unwrap(), BEAT_BYTES);
        assert!(Vitals::open(&key, &tried[..BEAT_BYTES]).unwrap().wants_note);
        let mut same = [0; 256];
        assert_eq!(standby.recv(&mut same).unwrap(), BEAT_BYTES);
        assert_eq!(same, tried, "a standby hears every beat");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_indexer_hears_its_hosts() {
    let (world, indexer) = world(0).await;
    let host = world.host(10).await;
    eventually(async || indexer.beats.counters().answered > 0).await;
    let port = indexer.beats.port();
    let at = indexer.stop().await;
    let again = Indexer::start(&world, Some(at), 0).await;
    assert_eq!((again.beats.port(), again.beats.sessions()), (port, 1));
    host.drain();
    eventually(async || again.beats.counters().taken > 0).await;
    let counters = again.beats.counters();
    assert_eq!(counters.dropped(), 0, "{counters:?}");
    // What the host is stands in its announcement; it is asked for that where it is not known.
    eventually(async || counters.poked == 0 || host.welcomes() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_next_beat_counts_without_an_enrolment() {
    let (world, indexer) = world(4_096).await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    let own = socket();
    assert_eq!(host.beat(&own, &ByHand::vitals(3)), Note::Ack);
    let at = indexer.stop().await;
    let again = Indexer::start(&world, Some(at), 4_096).await;
    let note = host.beat(&own, &ByHand::vitals(2));
    let counters = again.beats.counters();
    assert_eq!((note, counters.enrolled, counters.dropped()), (Note::Ack, 0, 0), "{counters:?}");
    let buyer = world.buyer().await;
    assert_eq!(free(&buyer).await, [2]);
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_that_has_lost_everything_gets_its_hosts_back() {
    let (world, indexer) = world(4_096).await;
    let host = world.host(10).await;
    eventually(async || indexer.beats.counters().answered > 0).await;
    let at = indexer.stop().await;
    std::fs::remove_dir_all(world.dir.path().join("indexer-3")).unwrap();
    let again = Indexer::start(&world, Some(at), 4_096).await;
    eventually(async || host.welcomes() == 2).await;
    eventually(async || again.beats.counters().answered > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_follow_the_beats_wherever_they_come_from() {
    let (world, indexer) = world(4_096).await;
    let buyer = world.buyer().await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    assert_eq!(free(&buyer).await, [4]);
    let (one, other) = (socket(), socket());
    assert_eq!(host.beat(&one, &ByHand::vitals(3)), Note::Ack);
    assert_eq!(free(&buyer).await, [3]);
    // From another address, as after a change of the network: answers follow.
    assert_eq!(host.beat(&other, &ByHand::vitals(2)), Note::Ack);
    assert_eq!(free(&buyer).await, [2]);
    // Another revision than was announced: the host is asked to announce it.
    assert_eq!(host.beat(&other, &Vitals { revision: 2, ..ByHand::vitals(4) }), Note::Poke);
    assert_eq!(free(&buyer).await, [2]);
    // Over the stream, with the same keys and counters.
    let beat = host.seal(&ByHand::vitals(1));
    wire::send(&mut host.send, &HostToIndexer::Beats(beat.to_vec())).await.unwrap();
    let answer = wire::expect(&mut host.recv, WITHIN).await.unwrap();
    let IndexerToHost::Notes(notes) = answer else { panic!("{answer:?}") };
    assert_eq!(Note::open(&host.welcome.sessions[0].key, &notes), Ok(Note::Ack));
    assert_eq!(free(&buyer).await, [1]);
    // It drains, and then it goes.
    assert_eq!(host.beat(&one, &Vitals { is_draining: true, ..ByHand::vitals(4) }), Note::Ack);
    assert_eq!(free(&buyer).await, [0]);
    assert_eq!(host.beat(&one, &ByHand::vitals(4)), Note::Ack);
    assert_eq!(free(&buyer).await, [4]);
    host.beat(&one, &Vitals { is_leaving: true, ..ByHand::vitals(4) });
    eventually(async || free(&buyer).await.iter().all(|free| *free == 0)).await;
    assert_eq!(indexer.beats.sessions(), 0);
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_liars_change_nothing_and_are_not_answered() {
    let (world, indexer) = world(4_096).await;
    let buyer = world.buyer().await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    let mut liar = ByHand::enrol(&indexer.addr, 31).await;
    let (own, strangers) = (socket(), (0..64).map(|_| socket()).collect::<Vec<_>>());
    let recorded = host.seal(&ByHand::vitals(4));
    own.send_to(&recorded, host.to).unwrap();
    own.recv(&mut [0; 64]).expect("the first beat is answered, too");
    host.beat(&own, &ByHand::vitals(3));
    // Replayed, altered, cut off, too long, another's session, no session, noise.
    let mut altered = recorded;
    altered[5] = 0xff;
    let mut stolen = liar.seal(&ByHand::vitals(0));
    stolen[1..5].copy_from_slice(&host.welcome.sessions[0].session.to_le_bytes());
    stolen[5..13].copy_from_slice(&900_u64.to_le_bytes());
    let mut nobody = altered;
    nobody[1..5].copy_from_slice(&77_777_u32.to_le_bytes());
    let long = [&altered[..], &[1]].concat();
    let noise: [u8; 400] = outside::random();
    let bad = [&recorded[..], &altered, &altered[..68], &long, &stolen, &nobody, &noise, &[]];
    for stranger in &strangers {
        for datagram in bad {
            stranger.send_to(datagram, host.to).unwrap();
        }
    }
    let sent = strangers.len() as u64;
    let at_least = |count: u64| count >= sent;
    eventually(async || {
        let counters = indexer.beats.counters();
        let each = [counters.old, counters.forged, counters.unknown, counters.malformed];
        each.into_iter().all(at_least)
    })
    .await;
    assert_eq!(free(&buyer).await, [3, 4]);
    for stranger in &strangers {
        stranger.set_nonblocking(true).unwrap();
        assert!(stranger.recv(&mut [0; 9]).is_err(), "nobody is answered");
    }
    // The host is heard as before.
    assert_eq!(host.beat(&own, &ByHand::vitals(2)), Note::Ack);
    assert_eq!(free(&buyer).await, [2, 4]);
    // A frame that holds no beats ends the stream of who sent it, and no other.
    wire::send(&mut liar.send, &HostToIndexer::Beats(vec![1; 70])).await.unwrap();
    eventually(async || free(&buyer).await == [0, 2]).await;
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_blip_offers_come_back_with_the_next_beat() {
    let (world, indexer) = world(4_096).await;
    let buyer = world.buyer().await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    let own = socket();
    host.beat(&own, &ByHand::vitals(3));
    // All beats are lost for a while; the picture then says nothing of this host.
    eventually_within(Duration::from_secs(40), async || free(&buyer).await == [0]).await;
    assert_eq!(host.beat(&own, &ByHand::vitals(3)), Note::Ack, "no enrolment, no poke");
    assert_eq!(free(&buyer).await, [3]);
    assert_eq!(indexer.beats.counters().gone, 0);
    buyer.close().await;
}

async fn eventually_within<F: AsyncFnMut() -> bool>(within: Duration, mut is_so: F) {
    let all = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(within, all).await.unwrap();
}

#[test]
fn the_secret_and_the_sessions_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(beats(dir.path(), 0));
    assert_eq!(mode(&dir.path().join("heartbeat.key")), 0o600);
    std::fs::write(dir.path().join("sessions"), b"whb1 torn").unwrap();
    assert_eq!(beats(dir.path(), 0).sessions(), 0, "what can't be read is dropped");
}
