//! Who meets whom: identity, protocol, closing, streams.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt},
    time::timeout,
};
use welkin_net::{
    BindError, ConnectError, ConnectionLost, Endpoint, EndpointConfig, HandshakeError, NodeAddr,
    PathKind, ReadError, RelayStatus, STREAMS_MAX, WriteError,
};

use crate::world::{ALPN, Pair, SOON, accept, config, echo, endpoint, read_all, secret};

#[tokio::test(flavor = "multi_thread")]
async fn two_meet_and_talk() {
    let pair = Pair::new().await;
    assert_eq!((pair.near.peer(), pair.far.peer()), (pair.b.id(), pair.a.id()));
    assert_eq!((pair.near.alpn(), pair.far.alpn()), (ALPN, ALPN));
    echo(&pair.near, &pair.far, b"hello").await;
    echo(&pair.far, &pair.near, b"and back").await;

    let path = pair.near.path().unwrap();
    assert_eq!(path.kind, PathKind::Direct(pair.b.bound()[0]));
    assert!(path.rtt < Duration::from_secs(1));
    assert_eq!(pair.far.remote_addr(), Some(pair.a.bound()[0]));
    assert_eq!(pair.a.relay_status(), RelayStatus::None);

    let counters = pair.b.counters();
    assert_eq!((counters.incoming, counters.connected), (1, 1));
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_expected_is_no_connection() {
    let (a, b) = tokio::join!(endpoint(), endpoint());
    let stranger = endpoint().await;
    let addr = NodeAddr::direct(stranger.id(), b.bound());
    let (near, far) = tokio::join!(a.connect(&addr, ALPN, SOON), async {
        b.accept().await.unwrap().handshake().await
    });
    assert!(matches!(near, Err(ConnectError::WrongPeer)), "{near:?}");
    assert!(matches!(far, Err(HandshakeError::Broken(_))), "{far:?}");
    let counters = b.counters();
    assert_eq!((counters.connected, counters.malformed), (0, 1));
    tokio::join!(a.close(), b.close(), stranger.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused() {
    let (a, b) = tokio::join!(endpoint(), endpoint());
    let addr = b.addr();
    let (near, far) = tokio::join!(a.connect(&addr, b"welkin/other/1", SOON), async {
        b.accept().await.unwrap().handshake().await
    });
    assert!(matches!(near, Err(ConnectError::WrongAlpn)), "{near:?}");
    assert!(matches!(far, Err(HandshakeError::WrongAlpn)), "{far:?}");
    assert_eq!(b.counters().wrong_alpn, 1);
    tokio::join!(a.close(), b.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_addresses_fail_at_once() {
    let a = endpoint().await;
    let nowhere =
        NodeAddr { id: Endpoint::bind(config()).await.unwrap().id(), relay: None, direct: vec![] };
    let error = a.connect(&nowhere, ALPN, SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAddress), "{error:?}");
    let error = a.connect(&a.addr(), ALPN, SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::Itself), "{error:?}");
    // 2 is the y coordinate of no point of the curve.
    let mut id = [0; 32];
    id[0] = 2;
    let error = a.connect(&NodeAddr::direct(id, a.bound()), ALPN, SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::BadId), "{error:?}");
    a.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_timeout() {
    let a = endpoint().await;
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = endpoint().await;
    let addr = NodeAddr::direct(other.id(), vec![silent.local_addr().unwrap()]);
    let error = a.connect(&addr, ALPN, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }) && error.is_retryable(), "{error:?}");
    tokio::join!(a.close(), other.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_attempt_is_told() {
    let (a, b) = tokio::join!(endpoint(), endpoint());
    let addr = b.addr();
    let (near, ()) = tokio::join!(a.connect(&addr, ALPN, SOON), async {
        let incoming = b.accept().await.unwrap();
        assert_eq!(incoming.remote_addr(), Some(a.bound()[0]));
        incoming.refuse();
    });
    assert!(
        matches!(near, Err(ConnectError::Lost(ConnectionLost::BrokenByPeer { .. }))),
        "{near:?}"
    );
    assert_eq!(b.counters().refused, 1);
    tokio::join!(a.close(), b.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_attempt_comes_back_validated() {
    let (a, b) = tokio::join!(endpoint(), endpoint());
    let addr = b.addr();
    let (near, _far) = tokio::join!(a.connect(&addr, ALPN, SOON), async {
        let first = b.accept().await.unwrap();
        assert!(!first.is_validated());
        first.retry().unwrap();
        let second = b.accept().await.unwrap();
        assert!(second.is_validated());
        second.handshake().await.unwrap()
    });
    near.unwrap();
    tokio::join!(a.close(), b.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_seen_with_its_code() {
    let pair = Pair::new().await;
    let (_near, mut far) = pair.stream().await;
    pair.near.close(42, b"enough");
    let lost = ConnectionLost::ClosedByPeer { code: 42, reason: "enough".into() };
    assert_eq!(pair.far.closed().await, lost);
    assert_eq!(far.1.read_chunk(1).await.unwrap_err(), ReadError::Lost(lost.clone()));
    assert_eq!(far.0.write_all(b"x").await.unwrap_err(), WriteError::Lost(lost.clone()));
    assert_eq!(pair.far.accept().await.unwrap_err(), lost);
    assert_eq!(pair.far.close_reason(), Some(lost));
    assert_eq!(pair.far.path(), None);
    assert_eq!(pair.near.closed().await, ConnectionLost::ClosedHere);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_endpoint_closes_its_connections() {
    let pair = Pair::new().await;
    pair.a.close().await;
    assert!(matches!(pair.far.closed().await, ConnectionLost::ClosedByPeer { code: 0, .. }));
    assert!(pair.a.accept().await.is_none());
    let error = pair.a.connect(&pair.b.addr(), ALPN, SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::EndpointClosed), "{error:?}");
    pair.b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_and_stop_carry_their_codes() {
    let pair = Pair::new().await;
    let ((mut send, mut recv), (mut far_send, mut far_recv)) = pair.stream().await;
    send.reset(7);
    assert_eq!(far_recv.read_chunk(1).await.unwrap_err(), ReadError::Reset { code: 7 });
    recv.stop(8);
    assert_eq!(far_send.stopped().await.unwrap(), Some(8));
    assert_eq!(far_send.write_all(b"x").await.unwrap_err(), WriteError::Stopped { code: 8 });
    assert_eq!(send.finish().unwrap_err(), WriteError::Closed);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_tokio_streams() {
    let pair = Pair::new().await;
    let ((mut send, mut recv), (mut far_send, mut far_recv)) = pair.stream().await;
    let answer = async {
        tokio::io::copy(&mut far_recv, &mut far_send).await.unwrap();
        far_send.shutdown().await.unwrap();
    };
    let ask = async {
        AsyncWriteExt::write_all(&mut send, b"through tokio").await.unwrap();
        send.shutdown().await.unwrap();
        let mut text = String::new();
        recv.read_to_string(&mut text).await.unwrap();
        text
    };
    let ((), text) = tokio::join!(answer, ask);
    assert_eq!(text, "through tokio");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_streams_go_through_two_hundred_and_fifty_six_slots() {
    let pair = Pair::new().await;
    let mut open = Vec::new();
    for n in 0..STREAMS_MAX {
        let (mut send, recv) = pair.near.open().await.unwrap();
        send.write_all(&n.to_le_bytes()).await.unwrap();
        open.push((send, recv));
    }
    // No stream has ended, so no slot can be free.
    assert!(timeout(Duration::ZERO, pair.near.open()).await.is_err());

    let far = pair.far.clone();
    let serve = async {
        for _ in 0..500 {
            let (mut send, mut recv) = far.accept().await.unwrap();
            let text = read_all(&mut recv).await;
            send.write_all(&text).await.unwrap();
            send.finish().unwrap();
        }
    };
    let ask = async {
        for (n, (mut send, mut recv)) in (0u32..).zip(open) {
            send.finish().unwrap();
            assert_eq!(read_all(&mut recv).await, n.to_le_bytes());
        }
        for n in STREAMS_MAX..500 {
            let (mut send, mut recv) = pair.near.open().await.unwrap();
            send.write_all(&n.to_le_bytes()).await.unwrap();
            send.finish().unwrap();
            assert_eq!(read_all(&mut recv).await, n.to_le_bytes());
        }
    };
    timeout(SOON, async { tokio::join!(serve, ask) }).await.unwrap();
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_told_as_they_can_be_dialled() {
    let extra = "192.0.2.9:4444".parse().unwrap();
    let b = Endpoint::bind(EndpointConfig {
        listen: vec![(Ipv4Addr::UNSPECIFIED, 0).into()],
        alpns: vec![ALPN.to_vec()],
        extra_addrs: vec![extra],
        ..EndpointConfig::new(secret())
    })
    .await
    .unwrap();
    let addr = b.addr();
    assert_eq!(addr.direct[0], extra);
    assert!(addr.direct.iter().all(|a| !a.ip().is_unspecified()), "{addr:?}");
    assert!(addr.direct[1..].iter().all(|a| a.port() == b.bound()[0].port()), "{addr:?}");
    b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictory_configurations_are_refused() {
    let two = vec!["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let error = Endpoint::bind(EndpointConfig { listen: two, ..config() }).await.unwrap_err();
    assert!(matches!(error, BindError::TwoOfOneFamily { .. }), "{error:?}");
    let error =
        Endpoint::bind(EndpointConfig { alpns: vec![vec![]], ..config() }).await.unwrap_err();
    assert!(matches!(error, BindError::Alpns { n: 1 }), "{error:?}");
    let a = endpoint().await;
    let error = Endpoint::bind(EndpointConfig { listen: a.bound(), ..config() }).await.unwrap_err();
    assert!(matches!(error, BindError::Socket(_)), "{error:?}");
    a.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_does_not_hold_up_the_next() {
    let (a, b, c) = tokio::join!(endpoint(), endpoint(), endpoint());
    let addr = b.addr();
    let (near, ()) = tokio::join!(a.connect(&addr, ALPN, SOON), async {
        let slow = b.accept().await.unwrap();
        // The first is not completed before the second has come and gone.
        let (second, far) = tokio::join!(c.connect(&addr, ALPN, SOON), accept(&b));
        echo(&second.unwrap(), &far, b"second").await;
        slow.handshake().await.unwrap();
    });
    near.unwrap();
    tokio::join!(a.close(), b.close(), c.close());
}
