//! Floor 2: endpoints, relay, streams.
//!
//! Everything that touches iroh is here, behind plain and boxed faces, so that its futures are
//! compiled once, in this crate. Two programs meet as [`Endpoint`]s: each is known by the
//! ed25519 key it proves in the handshake, reached directly when a packet can get there and
//! through a [`Relay`] of ours when not. Nothing outside is ever contacted: no public relay, no
//! name service for peers, no probe of the internet. A [`NodeAddr`] says all there is to know.
//!
//! Promises, each with a test in `tests/it`:
//!
//! - the peer that answers is the peer that was asked for, or there is no connection;
//! - a relay is accepted by the hash of its certificate and by nothing else;
//! - connecting ends by the caller's deadline, a handshake by [`HANDSHAKE_TIMEOUT`], a dead peer
//!   by [`IDLE_TIMEOUT`]; how long to wait for a *living* peer is the caller's to say;
//! - what a peer can make us hold is bounded by [`RECEIVE_WINDOW_BYTES`] and [`STREAMS_MAX`];
//! - a length from the network is compared with its limit before anything is allocated.
//!
//! [`DatagramSocket`] is the one way around QUIC: bare datagrams, for heartbeats.
//!
//! What it does not do: it starts no task of its own, knows no message of the protocol, retries
//! nothing and keeps no list of peers. Those belong to the roles.
#![forbid(unsafe_code)]

mod addr;
mod connection;
mod counters;
mod datagrams;
mod endpoint;
mod frame;
mod incoming;
mod pin;
mod relay;
mod stream;
mod transport;

use std::{future::Future, pin::Pin};

pub use bytes::{Bytes, BytesMut};

pub use crate::{
    addr::{DIRECT_ADDRS_MAX, NodeAddr, NodeAddrError, RelayAddr, RelayAddrError},
    connection::{Connection, ConnectionLost, PathInfo, PathKind, Traffic},
    counters::Counters,
    datagrams::{DatagramAnswers, DatagramBatch, DatagramPath, DatagramSocket},
    endpoint::{BindError, ConnectError, Endpoint, EndpointConfig, RelayStatus},
    frame::{FrameError, FrameReader, read_frame, write_frame},
    incoming::{HandshakeError, Incoming},
    relay::{Access, Relay, RelayConfig, RelayError},
    stream::{ReadError, RecvStream, SendStream, WriteError},
    transport::{
        HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, RECEIVE_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_MAX,
    },
};

/// A boxed future: the one shape in which this crate hands out work.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
