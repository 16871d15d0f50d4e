//! Strangers who send what they should not.

use tokio::{net::UdpSocket, runtime::Runtime};
use welkin_net::{ConnectionLost, IDLE_TIMEOUT};

use crate::world::{ALPN, Pair, SOON, accept, echo, endpoint, join};

/// Reproducible noise (xorshift), so that a failure can be repeated.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn packet(&mut self) -> Vec<u8> {
        let len = usize::try_from(self.next() % 1400).unwrap();
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_does_not_disturb_those_who_talk() {
    let pair = Pair::new().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = pair.b.bound()[0];
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..20 {
        for _ in 0..50 {
            let mut packet = noise.packet();
            // A third looks like the first packet of QUIC version 1, a third like a short one.
            match round % 3 {
                0 if packet.len() > 5 => packet[..5].copy_from_slice(b"\xc3\0\0\0\x01"),
                1 if !packet.is_empty() => packet[0] = 0x40 | (packet[0] & 0x3f),
                _ => {}
            }
            stranger.send_to(&packet, target).await.unwrap();
        }
        echo(&pair.near, &pair.far, b"still here").await;
    }
    // New ones still get in.
    let c = endpoint().await;
    let (near, far) = join(&c, &pair.b, &pair.b.addr()).await;
    echo(&near, &far, b"newcomer").await;
    assert_eq!(pair.b.counters().connected, 2);
    assert_eq!(pair.near.close_reason(), None);
    c.close().await;
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_leave_at_once_leave_nothing_behind() {
    let pair = Pair::new().await;
    for _ in 0..20 {
        let c = endpoint().await;
        let (near, far) = join(&c, &pair.b, &pair.b.addr()).await;
        near.close(3, b"");
        assert!(matches!(far.closed().await, ConnectionLost::ClosedByPeer { code: 3, .. }));
        c.close().await;
    }
    echo(&pair.near, &pair.far, b"still here").await;
    pair.close().await;
}

/// As when the power fails: one side stops without a word.
#[test]
fn a_peer_that_vanishes_is_lost_within_the_idle_limit() {
    let (here, there) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let (a, b) = (here.block_on(endpoint()), there.block_on(endpoint()));
    let addr = b.addr();
    let far = there.spawn(async move { (accept(&b).await, b) });
    let near = here.block_on(a.connect(&addr, ALPN, SOON)).unwrap();
    // Never dropped, so that it cannot say goodbye.
    std::mem::forget(there.block_on(far).unwrap());
    there.shutdown_background();
    let lost = here.block_on(async { tokio::time::timeout(2 * IDLE_TIMEOUT, near.closed()).await });
    assert_eq!(lost, Ok(ConnectionLost::Silent));
    here.block_on(a.close());
}
