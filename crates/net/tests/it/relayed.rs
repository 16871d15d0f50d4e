//! Through a relay of ours: the pin, the door, the way without UDP.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tempfile::TempDir;
use welkin_net::{
    Access, ConnectError, Endpoint, EndpointConfig, NodeAddr, PathKind, Relay, RelayAddr,
    RelayConfig, RelayError, RelayStatus,
};

use crate::world::{ALPN, SOON, accept, config, echo, endpoint, join};

/// Lets in all but one.
struct AllBut(Option<[u8; 32]>);

impl Access for AllBut {
    fn allow(&self, id: &[u8; 32]) -> bool {
        self.0.as_ref() != Some(id)
    }
}

fn relay_config(dir: &TempDir) -> RelayConfig {
    RelayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        public_host: None,
        dir: dir.path().to_owned(),
        access: Arc::new(AllBut(None)),
        client_bytes_per_second: None,
        clients_max: 16,
    }
}

async fn relay() -> (Relay, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Relay::spawn(relay_config(&dir)).await.unwrap(), dir)
}

/// An endpoint without UDP, at `relay`, not yet connected to it.
async fn hidden(relay: RelayAddr) -> Endpoint {
    let config =
        EndpointConfig { listen: vec![], relay: Some(relay), relay_only: true, ..config() };
    Endpoint::bind(config).await.unwrap()
}

fn wrong_pin(relay: &RelayAddr) -> RelayAddr {
    let mut pin = *relay.cert_sha256();
    pin[31] ^= 1;
    RelayAddr::new(relay.host(), relay.port(), pin).unwrap()
}

async fn connected(endpoint: &Endpoint) {
    let status = endpoint.relay_status_until(|s| s == RelayStatus::Connected, SOON).await;
    assert_eq!(status, RelayStatus::Connected, "{:?}", endpoint.relay_last_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_without_udp_meet_at_the_relay() {
    let (relay, _dir) = relay().await;
    let (a, b) = tokio::join!(hidden(relay.addr()), hidden(relay.addr()));
    assert_eq!(b.addr(), NodeAddr { id: b.id(), relay: Some(relay.addr()), direct: vec![] });
    // Nobody waits for the relay first: the dial works straight after the bind.
    let (near, far) = join(&a, &b, &b.addr()).await;
    echo(&near, &far, b"hello").await;
    assert_eq!(near.path().unwrap().kind, PathKind::Relay);
    assert_eq!((near.remote_addr(), far.remote_addr()), (None, None));
    connected(&b).await;
    assert_eq!(relay.clients(), 2);
    tokio::join!(a.close(), b.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_relay_reaches_one_with() {
    let (relay, _dir) = relay().await;
    let b = hidden(relay.addr()).await;
    connected(&b).await;
    let a = endpoint().await;
    let (near, far) = join(&a, &b, &b.addr()).await;
    echo(&near, &far, b"hello").await;
    assert_eq!(near.path().unwrap().kind, PathKind::Relay);
    assert_eq!(a.relay_status(), RelayStatus::None);
    tokio::join!(a.close(), b.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_with_different_relays_meet_at_the_one_that_is_dialled() {
    let ((one, _one), (two, _two)) = tokio::join!(relay(), relay());
    assert_ne!(one.addr().cert_sha256(), two.addr().cert_sha256());
    let (a, b) = tokio::join!(hidden(one.addr()), hidden(two.addr()));
    tokio::join!(connected(&a), connected(&b));
    let (near, far) = join(&a, &b, &b.addr()).await;
    echo(&near, &far, b"hello").await;
    assert_eq!((one.clients(), two.clients()), (1, 2));
    tokio::join!(a.close(), b.close());
    tokio::join!(one.shutdown(), two.shutdown());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_left_for_the_direct_way() {
    let (relay, _dir) = relay().await;
    let with_relay = || EndpointConfig { relay: Some(relay.addr()), ..config() };
    let (a, b) = tokio::join!(Endpoint::bind(with_relay()), Endpoint::bind(with_relay()));
    let (a, b) = (a.unwrap(), b.unwrap());
    tokio::join!(connected(&a), connected(&b));
    assert_eq!(b.addr().direct, b.bound());
    let (near, far) = join(&a, &b, &b.addr()).await;
    let direct = async {
        while !matches!(near.path().unwrap().kind, PathKind::Direct(_)) {
            echo(&near, &far, b"hello").await;
        }
    };
    tokio::time::timeout(SOON, direct).await.unwrap();
    assert_eq!(near.remote_addr(), Some(b.bound()[0]));
    tokio::join!(a.close(), b.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_another_certificate_is_not_used() {
    let (relay, _dir) = relay().await;
    let b = hidden(relay.addr()).await;
    connected(&b).await;

    // As the relay of the peer: nothing is said through it.
    let a = endpoint().await;
    let addr = NodeAddr { relay: Some(wrong_pin(&relay.addr())), ..b.addr() };
    let error = a.connect(&addr, ALPN, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    assert_eq!(relay.clients(), 1);

    // The false address displaced nothing: the true one still works from the same endpoint. The
    // goodbye of the first attempt may come this way too and is passed over.
    let addr = b.addr();
    let (near, far) = tokio::join!(a.connect(&addr, ALPN, SOON), async {
        loop {
            if let Ok(far) = b.accept().await.unwrap().handshake().await {
                return far;
            }
        }
    });
    echo(&near.unwrap(), &far, b"hello").await;

    // As the own relay: it is never joined.
    let c = hidden(wrong_pin(&relay.addr())).await;
    let status =
        c.relay_status_until(|s| s == RelayStatus::Connected, Duration::from_secs(3)).await;
    assert_eq!(status, RelayStatus::Connecting);
    assert_eq!(relay.clients(), 2);

    // And can be put right without a new endpoint.
    c.set_relay(Some(relay.addr())).await.unwrap();
    connected(&c).await;
    tokio::join!(a.close(), b.close(), c.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pin_outlives_a_restart() {
    let (relay, dir) = relay().await;
    let before = relay.addr();
    relay.shutdown().await;
    let listen = (before.host().parse::<std::net::IpAddr>().unwrap(), before.port()).into();
    let again = Relay::spawn(RelayConfig { listen, ..relay_config(&dir) }).await.unwrap();
    assert_eq!(again.addr(), before);
    let a = hidden(before).await;
    connected(&a).await;
    a.close().await;
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_refuses_whom_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let banned = config();
    let banned_id = Endpoint::bind(banned.clone()).await.unwrap();
    let id = banned_id.id();
    banned_id.close().await;
    let access = Arc::new(AllBut(Some(id)));
    let relay = Relay::spawn(RelayConfig { access, ..relay_config(&dir) }).await.unwrap();

    let banned = EndpointConfig { relay: Some(relay.addr()), relay_only: true, ..banned };
    let (a, b) = tokio::join!(Endpoint::bind(banned), hidden(relay.addr()));
    let a = a.unwrap();
    connected(&b).await;
    let status = a.relay_status_until(|s| s != RelayStatus::Connecting, SOON).await;
    assert_eq!(status, RelayStatus::Refused);
    assert!(a.relay_last_error().is_some());
    let error = a.connect(&b.addr(), ALPN, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    assert_eq!(relay.clients(), 1);
    assert!(relay.refused() >= 1);
    tokio::join!(a.close(), b.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_relay_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::spawn(RelayConfig { clients_max: 1, ..relay_config(&dir) }).await.unwrap();
    let a = hidden(relay.addr()).await;
    connected(&a).await;
    let b = hidden(relay.addr()).await;
    assert_eq!(
        b.relay_status_until(|s| s != RelayStatus::Connecting, SOON).await,
        RelayStatus::Refused
    );
    assert_eq!(relay.clients(), 1);
    // A place is free again once the first has left.
    a.close().await;
    connected(&b).await;
    b.close().await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_held_to_its_rate() {
    const RATE: u32 = 256 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let limited =
        RelayConfig { client_bytes_per_second: NonZeroU32::new(RATE), ..relay_config(&dir) };
    let relay = Relay::spawn(limited).await.unwrap();
    let (a, b) = tokio::join!(hidden(relay.addr()), hidden(relay.addr()));
    let (near, far) = join(&a, &b, &b.addr()).await;
    let started = std::time::Instant::now();
    echo(&near, &far, &vec![1; 4 * RATE as usize]).await;
    // Four seconds' worth of bytes; the first burst may be free.
    assert!(started.elapsed() > Duration::from_secs(2), "{:?}", started.elapsed());
    tokio::join!(a.close(), b.close());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gone_relay_is_noticed_and_does_not_break_direct_talk() {
    let (relay, _dir) = relay().await;
    let with_relay = EndpointConfig { relay: Some(relay.addr()), ..config() };
    let (a, b) = tokio::join!(endpoint(), Endpoint::bind(with_relay));
    let b = b.unwrap();
    connected(&b).await;
    let addr = NodeAddr::direct(b.id(), b.bound());
    let (near, far) = tokio::join!(a.connect(&addr, ALPN, SOON), accept(&b));
    let near = near.unwrap();
    relay.shutdown().await;
    let status = b.relay_status_until(|s| s != RelayStatus::Connected, SOON).await;
    assert_eq!(status, RelayStatus::Connecting);
    echo(&near, &far, b"still here").await;
    tokio::join!(a.close(), b.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_may_have_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let named = RelayConfig { public_host: Some("localhost".to_owned()), ..relay_config(&dir) };
    let relay = Relay::spawn(named).await.unwrap();
    assert_eq!(relay.addr().host(), "localhost");
    let a = hidden(relay.addr()).await;
    connected(&a).await;
    a.close().await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = RelayConfig { listen: "0.0.0.0:0".parse().unwrap(), ..relay_config(&dir) };
    let error = Relay::spawn(nowhere).await.unwrap_err();
    assert!(matches!(error, RelayError::PublicHost(_)), "{error:?}");

    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let error =
        Relay::spawn(RelayConfig { listen: taken, ..relay_config(&dir) }).await.unwrap_err();
    assert!(matches!(error, RelayError::Listen { addr, .. } if addr == taken), "{error:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let no_dir = RelayConfig { dir: file.path().to_owned(), ..relay_config(&dir) };
    let error = Relay::spawn(no_dir).await.unwrap_err();
    assert!(matches!(error, RelayError::Identity { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_can_be_given_up() {
    let (relay, _dir) = relay().await;
    let a = Endpoint::bind(EndpointConfig { relay: Some(relay.addr()), ..config() }).await.unwrap();
    connected(&a).await;
    a.set_relay(None).await.unwrap();
    assert_eq!(a.relay_status(), RelayStatus::None);
    assert_eq!(a.addr().relay, None);
    a.close().await;
    relay.shutdown().await;
}
