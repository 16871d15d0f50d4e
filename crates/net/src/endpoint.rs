//! One end of the network: a key, its sockets, and the connections to and from it.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::{
    EndpointAddr, EndpointId, RelayMap, RelayMode, SecretKey, Watcher as _,
    dns::DnsResolver,
    endpoint::{
        Builder, ConnectError as IrohConnectError, ConnectWithOptsError, ConnectingError,
        PortmapperConfig, presets,
    },
};
use iroh_relay::RelayQuicConfig;
use thiserror::Error;

use crate::{
    BoxFuture, Connection, ConnectionLost, Counters, Incoming, NodeAddr, RelayAddr, RelayAddrError,
    addr::DIRECT_ADDRS_MAX, counters::Tally, pin, transport, transport::STREAM_WINDOW_BYTES,
};

/// Most protocols that one endpoint speaks.
const ALPNS_MAX: usize = 16;

/// What an endpoint needs to know before it exists.
#[derive(Clone)]
pub struct EndpointConfig {
    /// The ed25519 secret key; the public key is the id. One live endpoint a key: two evict each
    /// other at the relay.
    pub secret: [u8; 32],
    /// Addresses to listen on, at most one of IPv4 and one of IPv6, port 0 for any; none means
    /// all interfaces with any port.
    pub listen: Vec<SocketAddr>,
    /// The protocols that incoming connections may speak; none refuses them all.
    pub alpns: Vec<Vec<u8>>,
    /// The relay at which this endpoint can be reached, if any.
    pub relay: Option<RelayAddr>,
    /// Uses no UDP socket at all, only relays.
    pub relay_only: bool,
    /// Addresses to advertise beside the bound ones, as of a router that forwards to us.
    pub extra_addrs: Vec<SocketAddr>,
    /// Bytes a peer may send on one stream before we read them; at most, and by default,
    /// [`STREAM_WINDOW_BYTES`].
    pub stream_window_bytes: u32,
}

/// Why an endpoint could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Two listen addresses of one family.
    #[error("more than one listen address of the family of {addr}")]
    TwoOfOneFamily {
        /// The second one.
        addr: SocketAddr,
    },
    /// Too many protocols or an empty one.
    #[error("{n} protocols, of which one is empty or more than {ALPNS_MAX}")]
    Alpns {
        /// How many there were.
        n: usize,
    },
    /// The relay address cannot be dialled.
    #[error("unusable relay address")]
    Relay(#[source] RelayAddrError),
    /// A socket could not be bound.
    #[error("failed to bind the endpoint")]
    Socket(#[source] io::Error),
}

/// Why a peer could not be connected to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The id is not an ed25519 public key.
    #[error("the peer's id is not a public key")]
    BadId,
    /// The address names neither a relay nor a direct address that can be used.
    #[error("the peer's address has no usable place")]
    NoAddress,
    /// The peer is this endpoint.
    #[error("the peer is this endpoint itself")]
    Itself,
    /// No connection within the deadline.
    #[error("no connection within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// Who answered could not prove the key that was asked for.
    #[error("who answered is not the peer that was asked for")]
    WrongPeer,
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the protocol")]
    WrongAlpn,
    /// The connection broke off or was refused.
    #[error("the connection broke off")]
    Lost(#[source] ConnectionLost),
    /// This endpoint is closed.
    #[error("the endpoint is closed")]
    EndpointClosed,
}

/// How this endpoint stands with its own relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStatus {
    /// It has none.
    None,
    /// Not connected, and trying.
    Connecting,
    /// The relay denies us; it is tried again, yet without a change there it will not work.
    Refused,
    /// Reachable through it.
    Connected,
}

/// One end of the network. Clones share it; call [`Endpoint::close`] at the end, so that peers
/// learn it at once.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: iroh::Endpoint,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    relay: Mutex<Option<RelayAddr>>,
    relay_only: bool,
    extra_addrs: Vec<SocketAddr>,
    tally: Arc<Tally>,
}

impl Endpoint {
    /// Binds the sockets and starts to listen. Contacts nobody but the configured relay, and
    /// does not wait for that.
    ///
    /// # Errors
    ///
    /// If the configuration is contradictory or a socket cannot be bound.
    pub fn bind(config: EndpointConfig) -> BoxFuture<'static, Result<Self, BindError>> {
        Box::pin(async move {
            let inner = builder(&config)?
                .bind()
                .await
                .map_err(|error| BindError::Socket(io::Error::other(error)))?;
            let shared = Shared {
                relay: Mutex::new(config.relay),
                relay_only: config.relay_only,
                extra_addrs: config.extra_addrs,
                tally: Arc::default(),
            };
            Ok(Self { inner, shared: Arc::new(shared) })
        })
    }

    /// Connects to the peer at `addr`, which must prove `addr.id`, over `alpn`, within
    /// `deadline`. The first path that works is used and a better one taken later.
    ///
    /// The peer's relay is dialled if it names one: give it only addresses of peers for which
    /// you would open a TCP connection to that host.
    ///
    /// # Errors
    ///
    /// If the peer cannot be reached in time, is another, or does not speak `alpn`.
    pub fn connect(
        &self,
        addr: &NodeAddr,
        alpn: &[u8],
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Connection, ConnectError>> {
        let addr = self.dial_addr(addr);
        let alpn = alpn.to_vec();
        Box::pin(async move {
            match tokio::time::timeout(deadline, self.inner.connect(addr?, &alpn)).await {
                Ok(Ok(connection)) => Ok(Connection::new(connection)),
                Ok(Err(error)) => Err(connect_error(error)),
                Err(_) => Err(ConnectError::TimedOut { after: deadline }),
            }
        })
    }

    /// Waits for the next connection that someone begins to open; `None` once closed.
    pub fn accept(&self) -> BoxFuture<'_, Option<Incoming>> {
        Box::pin(async {
            let incoming = self.inner.accept().await?;
            Some(Incoming::new(incoming, Arc::clone(&self.shared.tally)))
        })
    }

    /// Replaces the relay at which this endpoint can be reached.
    ///
    /// # Errors
    ///
    /// If the address cannot be dialled; the old relay then stays.
    pub fn set_relay(&self, relay: Option<RelayAddr>) -> BoxFuture<'_, Result<(), RelayAddrError>> {
        Box::pin(async move {
            let new = relay.as_ref().map(relay_config).transpose()?;
            let old = std::mem::replace(&mut *self.relay(), relay);
            if let Some(old) = old.as_ref().and_then(|relay| pin::relay_url(relay).ok()) {
                self.inner.remove_relay(&old).await;
            }
            if let Some(new) = new {
                self.inner.insert_relay(new.url.clone(), Arc::new(new)).await;
            }
            Ok(())
        })
    }

    /// Closes all connections (code 0) and the sockets, and waits until the peers were told or a
    /// few seconds have passed.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inner.close())
    }

    /// The public key.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        *self.inner.id().as_bytes()
    }

    /// Where peers reach this endpoint, as known now: the relay, the extra addresses, the bound
    /// ones (those of all interfaces in place of a wildcard), and what the relay saw of us.
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        let mut direct = Vec::new();
        if !self.shared.relay_only {
            let known = self.inner.addr();
            let found = known.ip_addrs().copied().filter(is_worth_telling);
            for addr in self.shared.extra_addrs.iter().copied().chain(found) {
                if direct.len() < DIRECT_ADDRS_MAX && !direct.contains(&addr) {
                    direct.push(addr);
                }
            }
        }
        NodeAddr { id: self.id(), relay: self.relay().clone(), direct }
    }

    /// The addresses of the sockets.
    #[must_use]
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.inner.bound_sockets()
    }

    /// What happened to incoming connections so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.tally.read()
    }

    /// How this endpoint stands with its relay. One that stays [`RelayStatus::Connecting`] for
    /// minutes while others reach the relay is wedged: bind a new one.
    #[must_use]
    pub fn relay_status(&self) -> RelayStatus {
        let known = self.inner.home_relay_status().get();
        self.judge(&known)
    }

    /// Waits until the relay status satisfies `until` or `deadline` has passed, and returns the
    /// status then.
    pub fn relay_status_until(
        &self,
        until: fn(RelayStatus) -> bool,
        deadline: Duration,
    ) -> BoxFuture<'_, RelayStatus> {
        Box::pin(async move {
            let mut watcher = self.inner.home_relay_status();
            let wait = async {
                let mut known = watcher.get();
                while !until(self.judge(&known)) {
                    match watcher.updated().await {
                        Ok(next) => known = next,
                        Err(_closed) => break,
                    }
                }
            };
            // Late or not, the answer is the status at that time.
            let _ = tokio::time::timeout(deadline, wait).await;
            self.relay_status()
        })
    }

    /// What last went wrong with the relay, for the log.
    #[must_use]
    pub fn relay_last_error(&self) -> Option<String> {
        let known = self.inner.home_relay_status().get();
        known.iter().find_map(|relay| relay.last_error().map(|error| format!("{error:#}")))
    }

    fn judge(&self, known: &[iroh::endpoint::RelayStatus]) -> RelayStatus {
        if self.relay().is_none() {
            RelayStatus::None
        } else if known.iter().any(iroh::endpoint::RelayStatus::is_connected) {
            RelayStatus::Connected
        } else if known.iter().any(|relay| relay.auth_denied_reason().is_some()) {
            RelayStatus::Refused
        } else {
            RelayStatus::Connecting
        }
    }

    fn dial_addr(&self, addr: &NodeAddr) -> Result<EndpointAddr, ConnectError> {
        let id = EndpointId::from_bytes(&addr.id).map_err(|_| ConnectError::BadId)?;
        if id == self.inner.id() {
            return Err(ConnectError::Itself);
        }
        let mut dial = EndpointAddr::new(id);
        if let Some(relay) = &addr.relay {
            dial = dial.with_relay_url(pin::relay_url(relay).map_err(|_| ConnectError::NoAddress)?);
        }
        if !self.shared.relay_only {
            for direct in addr.direct.iter().take(DIRECT_ADDRS_MAX) {
                dial = dial.with_ip_addr(*direct);
            }
        }
        if dial.is_empty() { Err(ConnectError::NoAddress) } else { Ok(dial) }
    }

    fn relay(&self) -> std::sync::MutexGuard<'_, Option<RelayAddr>> {
        // The lock guards a plain value that is never half-written.
        self.shared.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointConfig {
    /// A configuration with `secret` that listens nowhere in particular and speaks nothing yet.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            listen: Vec::new(),
            alpns: Vec::new(),
            relay: None,
            relay_only: false,
            extra_addrs: Vec::new(),
            stream_window_bytes: STREAM_WINDOW_BYTES,
        }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig")
            .field("listen", &self.listen)
            .field("relay", &self.relay)
            .field("relay_only", &self.relay_only)
            .field("extra_addrs", &self.extra_addrs)
            .finish_non_exhaustive()
    }
}

impl ConnectError {
    /// Whether the same call may work later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Lost(_))
    }
}

fn builder(config: &EndpointConfig) -> Result<Builder, BindError> {
    if config.alpns.len() > ALPNS_MAX || config.alpns.iter().any(Vec::is_empty) {
        return Err(BindError::Alpns { n: config.alpns.len() });
    }
    // The relay transport is always there, if only to dial the relays of peers.
    let relays = RelayMap::empty();
    if let Some(relay) = &config.relay {
        let relay = relay_config(relay).map_err(BindError::Relay)?;
        relays.insert(relay.url.clone(), Arc::new(relay));
    }
    let mut report = iroh::NetReportConfig::default();
    report.captive_portal_check = false;
    let mut builder = iroh::Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&config.secret))
        .alpns(config.alpns.clone())
        .transport_config(transport::config(config.stream_window_bytes.min(STREAM_WINDOW_BYTES)))
        .relay_mode(RelayMode::Custom(relays))
        .ca_tls_config(pin::tls_config())
        .dns_resolver(DnsResolver::custom(pin::PinResolver))
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(report);
    if config.relay_only {
        return Ok(builder.clear_ip_transports());
    }
    if !config.listen.is_empty() {
        builder = builder.clear_ip_transports();
    }
    for addr in &config.listen {
        builder =
            builder.bind_addr(*addr).map_err(|_| BindError::TwoOfOneFamily { addr: *addr })?;
    }
    for addr in &config.extra_addrs {
        builder = builder.external_addr(*addr);
    }
    Ok(builder)
}

fn relay_config(relay: &RelayAddr) -> Result<iroh_relay::RelayConfig, RelayAddrError> {
    let quic = RelayQuicConfig::new(relay.port());
    Ok(iroh_relay::RelayConfig::new(pin::relay_url(relay)?, Some(quic)))
}

/// Whether an address of ours can mean anything to another machine.
fn is_worth_telling(addr: &SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

fn connect_error(error: IrohConnectError) -> ConnectError {
    let lost: ConnectionLost = match error {
        IrohConnectError::Connection { source, .. }
        | IrohConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        } => source.into(),
        IrohConnectError::Connecting {
            source: ConnectingError::HandshakeFailure { .. }, ..
        } => return ConnectError::WrongPeer,
        IrohConnectError::Connect { source, .. } => {
            return match source {
                ConnectWithOptsError::SelfConnect { .. } => ConnectError::Itself,
                ConnectWithOptsError::InvalidAlpn { .. } => ConnectError::WrongAlpn,
                ConnectWithOptsError::EndpointClosed { .. }
                | ConnectWithOptsError::InternalConsistencyError { .. } => {
                    ConnectError::EndpointClosed
                }
                _ => ConnectError::NoAddress,
            };
        }
        _ => return ConnectError::EndpointClosed,
    };
    if lost.is_wrong_alpn() {
        ConnectError::WrongAlpn
    } else if lost.is_tls_refusal() {
        ConnectError::WrongPeer
    } else {
        ConnectError::Lost(lost)
    }
}
