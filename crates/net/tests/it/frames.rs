//! Frames: whole, empty, too long, cut off.

use std::time::Duration;

use tokio::time::timeout;
use welkin_net::{FrameError, FrameReader, ReadError, read_frame, write_frame};

use crate::world::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn frames_round_trip_until_the_clean_end() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    let frames = [0, 1, 4, 65_535, 65_536, 65_537, 1_000_000]
        .map(|len| (0..len).map(|i: u32| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>());
    let write = async {
        for frame in &frames {
            write_frame(&mut send, frame).await.unwrap();
        }
        send.finish().unwrap();
    };
    let read = async {
        for frame in &frames {
            assert_eq!(read_frame(&mut far_recv, 1_000_000).await.unwrap().as_ref(), Some(frame));
        }
        assert_eq!(read_frame(&mut far_recv, 1_000_000).await.unwrap(), None);
    };
    tokio::join!(write, read);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    // No payload follows: the refusal cannot have waited for it.
    send.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let error = read_frame(&mut far_recv, 1024).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLong { len: 0xffff_ffff, max: 1024 }), "{error:?}");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_at_the_limit_passes_and_one_byte_more_does_not() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    write_frame(&mut send, &[1; 8]).await.unwrap();
    write_frame(&mut send, &[1; 9]).await.unwrap();
    assert_eq!(read_frame(&mut far_recv, 8).await.unwrap().unwrap(), [1; 8]);
    let error = read_frame(&mut far_recv, 8).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLong { len: 9, max: 8 }), "{error:?}");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_inside_a_frame_is_an_error() {
    for (bytes, missing) in [(&b"\x08\0"[..], 2), (b"\x08\0\0\0", 8), (b"\x08\0\0\0abc", 5)] {
        let pair = Pair::new().await;
        let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
        send.write_all(bytes).await.unwrap();
        // Also what a drop does.
        drop(send);
        let error = read_frame(&mut far_recv, 1024).await.unwrap_err();
        assert!(
            matches!(error, FrameError::Truncated { missing: m } if m == missing),
            "{bytes:?}: {error:?}"
        );
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_inside_a_frame_keeps_its_code() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, mut far_recv)) = pair.stream().await;
    send.write_all(b"\x08\0\0\0abc").await.unwrap();
    send.reset(5);
    let error = read_frame(&mut far_recv, 1024).await.unwrap_err();
    assert!(matches!(error, FrameError::Read(ReadError::Reset { code: 5 })), "{error:?}");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_reader_loses_nothing() {
    let pair = Pair::new().await;
    let ((mut send, _recv), (_far_send, far_recv)) = pair.stream().await;
    let mut reader = FrameReader::new(far_recv);
    let frame: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut wire = 100_000u32.to_le_bytes().to_vec();
    wire.extend_from_slice(&frame);
    let (last, rest) = wire.split_last().unwrap();
    for part in rest.chunks(9_999) {
        send.write_all(part).await.unwrap();
        // Interrupted each time, wherever it is: the last byte is not sent yet.
        assert!(timeout(Duration::from_millis(5), reader.next(100_000)).await.is_err());
    }
    send.write_all(&[*last]).await.unwrap();
    assert_eq!(reader.next(100_000).await.unwrap(), Some(frame));
    write_frame(&mut send, b"next").await.unwrap();
    send.finish().unwrap();
    assert_eq!(reader.next(4).await.unwrap().unwrap(), b"next");
    assert_eq!(reader.next(4).await.unwrap(), None);
    pair.close().await;
}
