//! What happened to the connections that others opened to us.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of the counters of one endpoint; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// First packets that were well-formed QUIC and were handed out by `accept`.
    pub incoming: u64,
    /// Handshakes that ended in a connection.
    pub connected: u64,
    /// Handshakes in which the peer spoke none of our protocols.
    pub wrong_alpn: u64,
    /// Handshakes that broke off or were malformed.
    pub malformed: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Attempts that we refused before the handshake.
    pub refused: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) incoming: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) wrong_alpn: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Tally {
    pub(crate) fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            incoming: get(&self.incoming),
            connected: get(&self.connected),
            wrong_alpn: get(&self.wrong_alpn),
            malformed: get(&self.malformed),
            timed_out: get(&self.timed_out),
            refused: get(&self.refused),
        }
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
