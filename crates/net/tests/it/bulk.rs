//! Much data over one stream.

use welkin_net::{Bytes, BytesMut, ReadError, STREAM_WINDOW_BYTES};

use crate::world::{Pair, SOON};

/// How often a test looks whether something has come.
const POLL: std::time::Duration = std::time::Duration::from_micros(200);

const MIB: usize = 1024 * 1024;

/// What stands at `offset` of the long message: a pattern whose period divides no chunk size.
fn byte_at(offset: usize) -> u8 {
    u8::try_from(offset % 251).unwrap()
}

/// Regression: a reader that comes late finds a full window, and with one of 4 MiB or more noq
/// has by then given the connection up. So this reader is late by most of a window.
#[tokio::test(flavor = "multi_thread")]
async fn hundred_mebibytes_arrive_whole() {
    const TOTAL: usize = 100 * MIB;
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    let pattern: Bytes = (0..MIB + 251).map(byte_at).collect();
    let expected = pattern.clone();

    // Before anything is written: what had come by then would have to come once more.
    let before = pair.far.traffic().received_bytes;
    let write = async {
        for offset in (0..TOTAL).step_by(MIB) {
            let start = offset % 251;
            send.write_chunk(pattern.slice(start..start + MIB)).await.unwrap();
        }
        send.finish().unwrap();
        assert_eq!(send.stopped().await.unwrap(), None);
    };
    let read = async {
        let window = usize::try_from(STREAM_WINDOW_BYTES).unwrap();
        let mut offset = 0;
        while offset < TOTAL {
            // What is received beyond the offset waits for us. Not the whole window, for the last
            // eighth may not be granted yet; headers count too, so the first rounds are latest.
            let full = before + (TOTAL.min(offset + window * 3 / 4)) as u64;
            while pair.far.traffic().received_bytes < full {
                assert_eq!(pair.far.close_reason(), None);
                // A loop without a pause would take the core that the packets need.
                tokio::time::sleep(POLL).await;
            }
            let end = TOTAL.min(offset + window);
            while offset < end {
                let chunk = far_recv.read_chunk(MIB.min(end - offset)).await.unwrap().unwrap();
                let start = offset % 251;
                assert!(chunk == expected[start..start + chunk.len()], "wrong bytes at {offset}");
                offset += chunk.len();
            }
        }
        assert_eq!(far_recv.read_chunk(1).await.unwrap(), None);
    };
    tokio::time::timeout(2 * SOON, async { tokio::join!(write, read) }).await.unwrap();
    assert_eq!(pair.far.close_reason(), None);
    assert!(pair.near.traffic().sent_bytes > TOTAL as u64);
    assert!(pair.far.traffic().received_bytes > TOTAL as u64);
    pair.close().await;
}

/// A reader that stops reading holds up the writer at the window, not in memory without bound.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stream_holds_up_its_writer() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    let chunk = Bytes::from(vec![9; MIB]);
    // The send window and the stream window together are 9 MiB.
    let mut n = 0;
    let stuck = std::time::Duration::from_millis(500);
    while n < 32 && tokio::time::timeout(stuck, send.write_all(&chunk)).await.is_ok() {
        n += 1;
    }
    assert!(n <= 10, "{n} MiB were taken though nobody reads");
    // It goes on as soon as someone reads.
    let read = async { while far_recv.read_chunk(MIB).await.unwrap().is_some() {} };
    let write = async {
        send.write_chunk(chunk.clone()).await.unwrap();
        send.finish().unwrap();
    };
    tokio::time::timeout(SOON, async { tokio::join!(read, write) }).await.unwrap();
    pair.close().await;
}

/// What has come is appended, never more than was asked for; an end and a reset are told apart.
#[tokio::test]
async fn a_buffer_is_filled_up_to_the_bound() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    send.write_all(b"one two").await.unwrap();
    send.finish().unwrap();
    let mut buf = BytesMut::from("> ");
    while buf.len() < 5 {
        let max = 5 - buf.len();
        assert!(far_recv.read_buf(&mut buf, max).await.unwrap().unwrap() <= max);
    }
    assert_eq!(buf, "> one");
    while far_recv.read_buf(&mut buf, 100).await.unwrap().is_some() {}
    assert_eq!(buf, "> one two");

    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    send.reset(7);
    assert_eq!(far_recv.read_buf(&mut buf, 100).await.unwrap_err(), ReadError::Reset { code: 7 });
    pair.close().await;
}
