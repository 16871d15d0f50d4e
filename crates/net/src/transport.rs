//! The QUIC parameters, each with its reason.

use std::time::Duration;

use iroh::endpoint::{QuicTransportConfig, VarInt};

/// Bytes a peer may send on one stream before we read them.
///
/// noq 1.4.0 gives a connection up ("too many gaps in stream buffer") when a stream holds more
/// than 1024 chunks that it cannot merge. 1 MiB is some 900 packets of the smallest size, so a
/// fast sender cannot get there; with 4 MiB the first 512 MiB on loopback fail every time. Over
/// loopback 512 KiB is as fast; over 80 ms one stream carries 12 MiB/s, so bulk takes several.
/// The test `bulk::hundred_mebibytes_arrive_whole` guards it.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes a peer may send on all streams of one connection before we read them: the most memory
/// that one peer can make us hold.
pub const RECEIVE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes that may be sent and not yet acknowledged on one connection.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// Streams that a peer may hold open at once; its next `open` waits until one ends.
pub const STREAMS_MAX: u32 = 256;

/// A connection without a packet for this long is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a silent connection sends a packet; iroh clamps it to at most five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The first guess of the round trip. The default of 333 ms makes a lost first packet cost a
/// second; a guess too low costs one packet more.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Longest wait for the handshake of an incoming connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of every connection. Unidirectional streams and datagrams are not used, so a
/// peer gets none.
pub(crate) fn config(stream_window_bytes: u32) -> QuicTransportConfig {
    // 15 000 ms always fits; without a limit here the per-path limit of iroh still ends it.
    let idle = IDLE_TIMEOUT.try_into().ok();
    QuicTransportConfig::builder()
        .stream_receive_window(VarInt::from_u32(stream_window_bytes))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(idle)
        .keep_alive_interval(KEEP_ALIVE)
        .initial_rtt(INITIAL_RTT)
        .build()
}
