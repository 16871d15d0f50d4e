//! Helpers: endpoints on loopback, a pair of connections, an echo.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use welkin_net::{Connection, Endpoint, EndpointConfig, NodeAddr, RecvStream, SendStream};

/// The protocol of the tests.
pub(crate) const ALPN: &[u8] = b"welkin/test/1";

/// A deadline that is met unless something is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A secret that no other endpoint of this process has.
pub(crate) fn secret() -> [u8; 32] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    [NEXT.fetch_add(1, Ordering::Relaxed); 32]
}

/// A configuration that listens on loopback, any port.
pub(crate) fn config() -> EndpointConfig {
    EndpointConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        alpns: vec![ALPN.to_vec()],
        ..EndpointConfig::new(secret())
    }
}

/// An endpoint on loopback.
pub(crate) async fn endpoint() -> Endpoint {
    Endpoint::bind(config()).await.unwrap()
}

/// Accepts one connection.
pub(crate) async fn accept(endpoint: &Endpoint) -> Connection {
    endpoint.accept().await.unwrap().handshake().await.unwrap()
}

/// Connects `from` to `to` at `addr` and returns both ends.
pub(crate) async fn join(
    from: &Endpoint,
    to: &Endpoint,
    addr: &NodeAddr,
) -> (Connection, Connection) {
    let (near, far) = tokio::join!(from.connect(addr, ALPN, SOON), accept(to));
    (near.unwrap(), far)
}

/// Two endpoints and a connection between them.
pub(crate) struct Pair {
    pub(crate) a: Endpoint,
    pub(crate) b: Endpoint,
    /// The end at `a`.
    pub(crate) near: Connection,
    /// The end at `b`.
    pub(crate) far: Connection,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let (a, b) = tokio::join!(endpoint(), endpoint());
        let (near, far) = join(&a, &b, &b.addr()).await;
        Self { a, b, near, far }
    }

    /// A stream from `a` to `b`: what `a` writes to and what `b` reads from.
    pub(crate) async fn stream(&self) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
        let mut near = self.near.open().await.unwrap();
        near.0.write_all(b"!").await.unwrap();
        let mut far = self.far.accept().await.unwrap();
        assert_eq!(far.1.read_chunk(1).await.unwrap().unwrap(), "!");
        (near, far)
    }

    pub(crate) async fn close(self) {
        self.near.close(0, b"");
        tokio::join!(self.a.close(), self.b.close());
    }
}

/// Sends `text` one way and the same back.
pub(crate) async fn echo(near: &Connection, far: &Connection, text: &[u8]) {
    let ask = async {
        let (mut send, mut recv) = near.open().await.unwrap();
        send.write_all(text).await.unwrap();
        send.finish().unwrap();
        read_all(&mut recv).await
    };
    let answer = async {
        let (mut send, mut recv) = far.accept().await.unwrap();
        let text = read_all(&mut recv).await;
        send.write_all(&text).await.unwrap();
        send.finish().unwrap();
    };
    let (back, ()) = tokio::join!(ask, answer);
    assert_eq!(back, text);
}

/// Reads to the clean end.
pub(crate) async fn read_all(recv: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}
