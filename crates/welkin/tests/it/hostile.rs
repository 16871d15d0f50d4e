//! Peers that mean harm, as raw clients: what they send is refused, and everybody else goes on.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use welkin_net::{Connection, ConnectionLost, Endpoint, EndpointConfig, RecvStream, SendStream};
use welkin_node::{CODE_IDLE, identity, outside, wire};
use welkin_proto::index::IndexHello;
use welkin_proto::lease::{
    FromHost, Launch, LogFrame, LogFrom, Open, Output, RefusalCode, StreamHello, ToHost,
};
use welkin_proto::{
    ALPN_CHECK, ALPN_INDEX, ALPN_LEASE, ALPN_SETTLE, AccountKey, Delegation, Domain,
    FRAME_BYTES_MAX, NodeAddr, NodeKey, Offer, Order, SignedByAccount, Terms, Voucher, encode,
};
use welkin_types::task::TaskSpec;
use welkin_types::{LeaseId, LeaseState, NodeId, Reason, UnixMillis, Usd};

use crate::services::{HERE, Services};
use crate::support::{Observer, Proc, memory_kib, until};

const WITHIN: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3_600);
const DOMAIN: Domain = Domain::LOCAL;

/// A network with one host, and a client without manners.
struct Target {
    services: Services,
    host: Proc,
    host_addr: NodeAddr,
    observer: Observer,
}

/// A node with an account of its own.
pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
    pub(crate) key: NodeKey,
    pub(crate) account: AccountKey,
}

impl Raw {
    async fn new() -> Self {
        Self::at("127.0.0.1").await
    }

    /// A node at this address of the machine.
    async fn at(ip: &str) -> Self {
        Self::bound(ip, Vec::new()).await
    }

    /// One that others may connect to.
    pub(crate) async fn accepting(alpns: Vec<Vec<u8>>) -> Self {
        Self::bound("127.0.0.1", alpns).await
    }

    async fn bound(ip: &str, alpns: Vec<Vec<u8>>) -> Self {
        let key = NodeKey::from_secret(&outside::random());
        let listen = vec![format!("{ip}:0").parse().unwrap()];
        let config = EndpointConfig { alpns, listen, ..EndpointConfig::new(*key.secret()) };
        let endpoint = Endpoint::bind(config).await.unwrap();
        let account = AccountKey::from_secret(&outside::random()).unwrap();
        Self { endpoint, key, account }
    }

    pub(crate) async fn connect(&self, addr: &NodeAddr, alpn: &[u8]) -> Connection {
        self.endpoint.connect(&wire::to_net(addr), alpn, WITHIN).await.unwrap()
    }

    pub(crate) fn delegation(&self) -> SignedByAccount<Delegation> {
        identity::delegate(&DOMAIN, &self.account, self.key.id(), HOUR).unwrap()
    }

    /// A control stream on which a good hello was said.
    async fn hello(&self, addr: &NodeAddr) -> Control {
        let connection = self.connect(addr, ALPN_LEASE).await;
        let (send, recv) = connection.open().await.unwrap();
        let mut control = Control { connection, send, recv };
        control.say(&ToHost::Hello(self.delegation())).await;
        control
    }

    fn order(&self, offer: &Offer, launch: &[u8]) -> Order {
        let now = outside::now();
        Order {
            lease: LeaseId::from_bytes(outside::random()),
            buyer: self.account.id(),
            operator: offer.operator,
            host: offer.addr.node,
            container: offer.container,
            price: offer.price,
            budget: Usd::from_micros(1_000_000),
            task_sha256: Sha256::digest(launch).into(),
            issued: now,
            expires: now.after(Duration::from_secs(60)),
        }
    }

    fn open(&self, order: Order, launch: Vec<u8>) -> Open {
        let order = SignedByAccount::sign(&DOMAIN, &self.account, order).unwrap();
        let secrets = Vec::new();
        Open {
            order,
            offer: None,
            launch,
            secrets,
            tty: None,
            stdin: false,
            files: false,
            may_preempt: false,
            matched: None,
        }
    }
}

struct Control {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Control {
    async fn say(&mut self, message: &ToHost) {
        wire::send(&mut self.send, message).await.unwrap();
    }

    async fn hear(&mut self) -> FromHost {
        wire::expect(&mut self.recv, WITHIN).await.unwrap()
    }

    async fn refusal(&mut self, open: Open) -> (RefusalCode, String) {
        self.say(&ToHost::Open(Box::new(open))).await;
        loop {
            match self.hear().await {
                FromHost::Refused(refusal) => return (refusal.code, refusal.detail),
                FromHost::Accepted(accepted) => panic!("accepted: {accepted:?}"),
                _ => (),
            }
        }
    }
}

fn launch(script: &str) -> Vec<u8> {
    let launch = Launch {
        image: "host".to_owned(),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: String::new(),
        cpu_milli: 1_000,
        memory_bytes: 64 << 20,
        disk_bytes: 16 << 20,
        shm_bytes: 0,
        run_seconds_max: 0,
        start_seconds_max: 60,
        name: "raw".to_owned(),
        terms: Terms::ON_DEMAND,
        checkpoint: None,
    };
    encode(&launch).unwrap()
}

impl Target {
    fn start() -> Option<Self> {
        let services = Services::start("", HERE)?;
        let mut host = services.host("host", HERE);
        host.wait_stdout("\n");
        let text = String::from_utf8(host.stdout()).unwrap();
        let host_addr = text.trim().parse().unwrap();
        services.fund("5");
        let observer = services.observer();
        services.wait_free(&observer, 3);
        Some(Self { services, host, host_addr, observer })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.observer.runtime.block_on(future)
    }

    /// An offer of the host, for nobody in particular.
    fn offer(&self) -> Offer {
        let needs = TaskSpec::default().needs();
        let found = self.block_on(self.observer.buyer.candidates(&needs, 1, false, Vec::new()));
        found.unwrap().remove(0)
    }

    fn fund(&self, raw: &Raw) {
        let settle = self.observer.buyer.settle();
        self.block_on(settle.fund(raw.account.id(), Usd::from_micros(5_000_000))).unwrap();
    }

    /// Everybody lives and a normal job works.
    #[track_caller]
    fn works(&mut self) {
        self.services.run(&["run", "--", "true"]).expect(0);
        assert!(self.host.is_running());
        assert!(!self.host.stderr().contains("panicked"), "{}", self.host.stderr());
        self.services.are_well();
        self.observer.books_close();
    }
}

/// Reads until the far end gives up, which it must in time. Answers are allowed.
async fn given_up(recv: &mut RecvStream) {
    let all = async { while let Ok(Some(_)) = wire_frame(recv).await {} };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the far end waits for ever");
}

async fn wire_frame(recv: &mut RecvStream) -> Result<Option<Vec<u8>>, welkin_net::FrameError> {
    welkin_net::read_frame(recv, FRAME_BYTES_MAX).await
}

#[test]
fn garbage_is_refused_by_everybody() {
    let Some(mut target) = Target::start() else { return };
    let network = target.services.network();
    let everybody = [
        (target.host_addr.clone(), ALPN_LEASE),
        (target.host_addr.clone(), ALPN_CHECK),
        (network.indexers[0].clone(), ALPN_INDEX),
        (network.settlement.clone(), ALPN_SETTLE),
    ];
    target.block_on(async {
        let raw = Raw::new().await;
        for (addr, alpn) in &everybody {
            let mut frames: Vec<Vec<u8>> = (0..64)
                .map(|i| {
                    let noise: [u8; 64] = outside::random();
                    let mut frame = u32::try_from(i).unwrap().to_le_bytes().to_vec();
                    frame.extend_from_slice(&noise[..i]);
                    frame
                })
                .collect();
            // Nothing, half a length, too much, less than announced, a length of collections.
            frames.extend([vec![], vec![1, 0], vec![0xff; 4], vec![255, 255, 15, 0, 1, 2, 3]]);
            frames.push([vec![20, 0, 0, 0], vec![0xff; 20]].concat());
            for frame in frames {
                let connection = raw.connect(addr, alpn).await;
                let Ok((mut send, mut recv)) = connection.open().await else { continue };
                let _ = send.write_all(&frame).await;
                let _ = send.finish();
                given_up(&mut recv).await;
                connection.close(0, b"next");
            }
        }
        // A protocol that nobody speaks.
        let addr = wire::to_net(&target.host_addr);
        assert!(raw.endpoint.connect(&addr, b"welkin/none/1", WITHIN).await.is_err());
    });
    target.works();
}

#[test]
fn announced_lengths_cost_no_memory() {
    let Some(mut target) = Target::start() else { return };
    target.works();
    let before = memory_kib(target.host.pid());
    let (raw, connections) = target.block_on(async {
        let raw = Raw::new().await;
        let mut kept = Vec::new();
        for _ in 0..8 {
            let mut control = raw.hello(&target.host_addr).await;
            // A resume is answered, so the hello was read.
            control.say(&ToHost::Resume(LeaseId::from_bytes([7; 16]))).await;
            control.hear().await;
            for _ in 0..100 {
                let (mut send, recv) = control.connection.open().await.unwrap();
                let len = u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes();
                send.write_all(&[&len[..], &[0; 16]].concat()).await.unwrap();
                kept.push((control.connection.clone(), send, recv));
            }
        }
        (raw, kept)
    });
    target.works();
    let grown = memory_kib(target.host.pid()).saturating_sub(before);
    assert!(grown < 200 << 10, "800 half frames cost {grown} KiB");
    drop(connections);
    target.block_on(raw.endpoint.close());
}

#[test]
fn who_is_not_vouched_for_is_sent_away() {
    let Some(mut target) = Target::start() else { return };
    target.block_on(async {
        let raw = Raw::new().await;
        let other = NodeKey::from_secret(&outside::random()).id();
        let of = |domain: &Domain, node, expires| {
            let message = Delegation { node, expires };
            ToHost::Hello(SignedByAccount::sign(domain, &raw.account, message).unwrap())
        };
        let later = outside::now().after(HOUR);
        let elsewhere = Domain { chain_id: DOMAIN.chain_id + 1, ..DOMAIN };
        let mut forged = raw.delegation();
        forged.message.expires = forged.message.expires.after(HOUR);
        let offers = [
            ("another node's", of(&DOMAIN, other, later)),
            ("an expired one", of(&DOMAIN, raw.key.id(), UnixMillis(1))),
            ("no hello", ToHost::Resume(LeaseId::from_bytes([1; 16]))),
        ];
        for (what, hello) in offers {
            let connection = raw.connect(&target.host_addr, ALPN_LEASE).await;
            let (mut send, mut recv) = connection.open().await.unwrap();
            wire::send(&mut send, &hello).await.unwrap();
            given_up(&mut recv).await;
            let closed = tokio::time::timeout(WITHIN, connection.closed()).await;
            assert!(closed.is_ok(), "{what}: not closed");
        }
        // These recover to some account that nobody owns: it has no leases and no money.
        for hello in [of(&elsewhere, raw.key.id(), later), ToHost::Hello(forged)] {
            let connection = raw.connect(&target.host_addr, ALPN_LEASE).await;
            let (send, recv) = connection.open().await.unwrap();
            let mut control = Control { connection, send, recv };
            control.say(&hello).await;
            control.say(&ToHost::Resume(LeaseId::from_bytes([1; 16]))).await;
            let answer = control.hear().await;
            assert!(
                matches!(&answer, FromHost::Refused(why) if why.code == RefusalCode::Unknown),
                "{answer:?}"
            );
        }
    });
    target.works();
}

#[test]
fn orders_hold_once_and_only_as_signed() {
    let Some(mut target) = Target::start() else { return };
    let offer = target.offer();
    let raw = target.block_on(Raw::new());
    let stranger = target.block_on(Raw::new());
    target.fund(&raw);
    target.fund(&stranger);
    target.block_on(async {
        let bytes = launch("exit 0");
        let mut control = raw.hello(&target.host_addr).await;
        let good = raw.order(&offer, &bytes);

        let invalid = |order: Order| raw.open(order, bytes.clone());
        let mut wrong = Vec::new();
        let expires = UnixMillis(outside::now().0 - 1_000);
        wrong.push(("expired", invalid(Order { expires, ..good.clone() })));
        let node = NodeId::from_bytes([9; 32]);
        wrong.push(("another host", invalid(Order { host: node, ..good.clone() })));
        let operator = stranger.account.id();
        wrong.push(("another operator", invalid(Order { operator, ..good.clone() })));
        let buyer = stranger.account.id();
        wrong.push(("another's account", invalid(Order { buyer, ..good.clone() })));
        wrong.push(("another task", raw.open(good.clone(), launch("exit 1"))));
        let mut altered = raw.open(good.clone(), bytes.clone());
        altered.order.message.budget = Usd::from_micros(2_000_000);
        wrong.push(("altered after the signature", altered));
        let mut foreign = raw.open(good.clone(), bytes.clone());
        foreign.order = SignedByAccount::sign(&DOMAIN, &stranger.account, good.clone()).unwrap();
        wrong.push(("signed by another", foreign));
        let price = welkin_types::Price::per_hour(Usd::from_micros(1));
        wrong.push(("a lower price", invalid(Order { price, ..good.clone() })));
        let container = welkin_types::ContainerId::from_bytes([3; 16]);
        wrong.push(("another container", invalid(Order { container, ..good.clone() })));
        let budget = Usd::from_micros(1);
        wrong.push(("no budget", invalid(Order { budget, ..good.clone() })));
        let mut junk = good.clone();
        junk.task_sha256 = Sha256::digest([0xff; 40]).into();
        wrong.push(("a malformed task", raw.open(junk, vec![0xff; 40])));
        for (what, open) in wrong {
            let (code, detail) = control.refusal(open).await;
            assert!(code != RefusalCode::Internal, "{what}: {code:?} {detail}");
        }

        let open = raw.open(good, bytes.clone());
        let lease = open.order.message.lease;
        control.say(&ToHost::Open(Box::new(open.clone()))).await;
        let mut is_accepted = false;
        loop {
            match control.hear().await {
                FromHost::Accepted(accepted) => is_accepted = accepted.lease == lease,
                FromHost::Receipt { .. } => break,
                FromHost::Refused(refusal) => panic!("{refusal:?}"),
                _ => (),
            }
        }
        assert!(is_accepted);
        // The same order again, here and on a connection of its own.
        let (code, detail) = control.refusal(open.clone()).await;
        assert_eq!((code, detail.as_str()), (RefusalCode::Invalid, "the lease id is in use"));
        let mut second = raw.hello(&target.host_addr).await;
        assert_eq!(second.refusal(open.clone()).await.0, RefusalCode::Invalid);
        let mut thief = stranger.hello(&target.host_addr).await;
        assert_eq!(thief.refusal(open).await.0, RefusalCode::Invalid);
    });
    target.works();
}

#[test]
fn promises_of_others_pay_nothing() {
    let Some(mut target) = Target::start() else { return };
    let offer = target.offer();
    let raw = target.block_on(Raw::new());
    let stranger = target.block_on(Raw::new());
    target.fund(&raw);
    let receipt = target.block_on(async {
        let bytes = launch("sleep 600");
        let mut control = raw.hello(&target.host_addr).await;
        let order = raw.order(&offer, &bytes);
        let (lease, price) = (order.lease, order.price);
        control.say(&ToHost::Open(Box::new(raw.open(order, bytes)))).await;
        let good = |seconds| {
            let operator = offer.operator;
            Voucher { lease, operator, amount: price.cost(seconds), seconds }
        };
        let sign = |key: &AccountKey, voucher| {
            let signed = SignedByAccount::sign(&DOMAIN, key, voucher).unwrap();
            ToHost::Voucher(Box::new(signed))
        };
        let elsewhere = Domain { chain_id: 5, ..DOMAIN };
        let foreign = SignedByAccount::sign(&elsewhere, &raw.account, good(500)).unwrap();
        let vouchers = [
            sign(&stranger.account, good(500)),
            sign(&raw.account, Voucher { operator: stranger.account.id(), ..good(500) }),
            sign(&raw.account, Voucher { amount: Usd::from_micros(1), ..good(500) }),
            sign(&raw.account, good(1_000_000)),
            ToHost::Voucher(Box::new(foreign)),
        ];
        let mut covered_most = 0;
        loop {
            match control.hear().await {
                FromHost::Usage { covered, .. } => {
                    covered_most = covered_most.max(covered);
                    for voucher in &vouchers {
                        control.say(voucher).await;
                    }
                }
                FromHost::Refused(refusal) => panic!("{refusal:?}"),
                FromHost::Receipt { receipt, .. } => {
                    assert_eq!(covered_most, 0);
                    return receipt.open_by(&DOMAIN, offer.addr.node).unwrap();
                }
                _ => (),
            }
        }
    });
    let last = receipt.stages.last().unwrap();
    assert_eq!((last.state, last.reason), (LeaseState::Expired, Reason::Uncovered));
    assert_eq!((receipt.usage.seconds, receipt.cost), (0, Usd::ZERO));
    assert!(receipt.running_seconds() <= 14, "{receipt:?}");
    target.works();
}

#[test]
fn a_lease_of_another_is_as_good_as_none() {
    let Some(mut target) = Target::start() else { return };
    let script = "echo secret; sleep 600";
    let mut job = target.services.client("buyer", HERE, &["run", "--", "sh", "-c", script]);
    job.wait_stdout("secret\n");
    let lease = target.services.leases().last().lease;
    target.block_on(async {
        let thief = Raw::new().await;
        let mut control = thief.hello(&target.host_addr).await;
        let tries = [
            ToHost::Resume(lease),
            ToHost::Stop { lease, grace_ms: 0 },
            ToHost::Signal { lease, signal: 9 },
            ToHost::Remove(lease),
        ];
        for message in tries {
            control.say(&message).await;
            let answer = control.hear().await;
            assert!(
                matches!(&answer, FromHost::Refused(why) if why.code == RefusalCode::Unknown),
                "{message:?}: {answer:?}"
            );
        }
        let (mut send, mut recv) = control.connection.open().await.unwrap();
        let (output, from) = (Output::Stdout, LogFrom::Start);
        let hello = StreamHello::Logs { lease, output, from, follow: false };
        wire::send(&mut send, &hello).await.unwrap();
        let answer: LogFrame = wire::expect(&mut recv, WITHIN).await.unwrap();
        assert!(matches!(answer, LogFrame::Failed(_)), "{answer:?}");
        let streams = [
            StreamHello::Exec {
                lease,
                argv: vec!["id".to_owned()],
                env: Vec::new(),
                cwd: String::new(),
                tty: None,
            },
            StreamHello::Get { lease, path: "/work".to_owned() },
            StreamHello::Forward { lease, port: 1 },
            StreamHello::Info(None),
        ];
        for hello in streams {
            let (mut send, mut recv) = control.connection.open().await.unwrap();
            wire::send(&mut send, &hello).await.unwrap();
            let _ = send.finish();
            let answer = wire_frame(&mut recv).await.unwrap_or_default().unwrap_or_default();
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.is_empty() || text.contains("no such lease"), "{hello:?}: {text}");
        }
        // Nor is its money anybody's.
        let closed = target.observer.buyer.settle().close(lease, None).await;
        assert!(closed.is_err(), "{closed:?}");
        let released = target.observer.buyer.settle().release(lease).await;
        assert!(released.is_err(), "{released:?}");
    });
    assert!(job.is_running());
    job.signal(rustix::process::Signal::INT);
    job.ended().expect(130);
    target.works();
}

#[test]
fn crowds_do_not_keep_others_out() {
    let Some(mut target) = Target::start() else { return };
    let (raw, kept) = target.block_on(async {
        let mut kept = Vec::new();
        // Connections that say nothing, and streams that say nothing.
        let raw = Raw::new().await;
        for _ in 0..100 {
            kept.push(raw.connect(&target.host_addr, ALPN_LEASE).await);
        }
        let control = raw.hello(&target.host_addr).await;
        for _ in 0..500 {
            let open = tokio::time::timeout(Duration::from_millis(20), control.connection.open());
            let Ok(Ok((mut send, _recv))) = open.await else { break };
            let _ = send.write_all(&[1]).await;
        }
        kept.push(control.connection);
        // Questions without end to the indexer.
        let indexer = raw.connect(&target.services.network().indexers[0], ALPN_INDEX).await;
        let question =
            IndexHello::Ask(Box::new(welkin_proto::index::IndexRequest::Offers { needs: None }));
        for _ in 0..500 {
            let Ok((mut send, _)) = indexer.open().await else { break };
            let _ = wire::send(&mut send, &question).await;
        }
        (raw, (kept, indexer))
    });
    target.works();
    drop(kept);
    until(WITHIN, "all slots are free", || target.observer.free() == 3);
    target.block_on(raw.endpoint.close());
}

/// Opens so many connections and holds them without a word.
async fn crowd(raw: &Raw, addr: &NodeAddr, alpn: &[u8], count: usize) -> Vec<Connection> {
    let mut kept = Vec::new();
    let mut opening = tokio::task::JoinSet::<Option<Connection>>::new();
    for _ in 0..count {
        // A few at a time: packets that the system drops cost seconds.
        if opening.len() >= 16 {
            kept.extend(opening.join_next().await.and_then(Result::unwrap));
        }
        let (endpoint, addr, alpn) = (raw.endpoint.clone(), wire::to_net(addr), alpn.to_vec());
        opening.spawn(async move { endpoint.connect(&addr, &alpn, WITHIN).await.ok() });
    }
    while let Some(opened) = opening.join_next().await {
        kept.extend(opened.unwrap());
    }
    kept
}

#[test]
fn a_peer_that_holds_hundreds_of_connections_keeps_nobody_else_out() {
    let Some(mut target) = Target::start() else { return };
    let network = target.services.network();
    // Its endpoint is kept as well: without it nothing is held.
    let (raw, held) = target.block_on(async {
        let raw = Raw::at("127.0.0.2").await;
        let mut held = Vec::new();
        let everybody = [
            (&target.host_addr, ALPN_CHECK),
            (&network.indexers[0], ALPN_INDEX),
            (&network.settlement, ALPN_SETTLE),
            (&target.host_addr, ALPN_LEASE),
        ];
        for (addr, alpn) in everybody {
            held.extend(crowd(&raw, addr, alpn, 150).await);
        }
        // Another one is served at once, while all of that is held.
        let other = Raw::at("127.0.0.3").await;
        let mut control = other.hello(&target.host_addr).await;
        control.say(&ToHost::Resume(LeaseId::from_bytes([1; 16]))).await;
        assert!(matches!(control.hear().await, FromHost::Refused(_)));
        (raw, held)
    });
    // Also with a whole lease, from its offer to its last cent.
    target.works();
    target.block_on(async {
        let all = async {
            for connection in &held {
                connection.closed().await;
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(40), all).await;
        // With what was asked for, and where each stands among those that were opened.
        let open: Vec<_> = (0..)
            .zip(&held)
            .filter(|(_, held)| held.close_reason().is_none())
            .map(|(at, held): (u32, _)| (at, String::from_utf8_lossy(held.alpn()), held.path()))
            .collect();
        assert!(all.is_ok(), "of {} these are kept without a word: {open:?}", held.len());
        raw.endpoint.close().await;
    });
}

#[test]
fn a_connection_on_which_nothing_is_under_way_is_closed() {
    let Some(target) = Target::start() else { return };
    target.block_on(async {
        let raw = Raw::new().await;
        // Who said hello may take its time, and is gone in the end.
        let mut control = raw.hello(&target.host_addr).await;
        control.say(&ToHost::Resume(LeaseId::from_bytes([1; 16]))).await;
        assert!(matches!(control.hear().await, FromHost::Refused(_)));
        let began = std::time::Instant::now();
        let lost = tokio::time::timeout(Duration::from_secs(100), control.connection.closed());
        let lost = lost.await.expect("an idle connection is kept");
        assert!(began.elapsed() > Duration::from_secs(30), "{lost:?}");
        let is_idle = matches!(lost, ConnectionLost::ClosedByPeer { code, .. }
            if code == u64::from(CODE_IDLE));
        assert!(is_idle, "{lost:?}");
    });
}
