//! A relay of our own: it passes encrypted packets between peers that cannot reach each other.
//!
//! It sees ids, addresses and volumes, never content. Who may use it is asked of [`Access`] once
//! the client has proved its key; its certificate is self-signed, kept on disk, and known to
//! clients by hash. The TCP port serves the relay over TLS; the UDP port of the same number
//! tells clients how their address looks from outside.

mod identity;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::EndpointId;
use iroh_relay::server::{
    self, AccessControl, CertConfig, ClientRateLimit, ClientRequest, ConnectionId, QuicConfig,
    ServerConfig, TlsConfig,
};
use thiserror::Error;

use self::identity::Identity;
use crate::{BoxFuture, RelayAddr, RelayAddrError, counters::count, pin};

/// How many ports are tried when any will do: the TCP and the UDP port must both be free.
const PORT_TRIES: usize = 16;

/// How long a shutdown may take before what is left is dropped.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether the port of a server that has ended is free.
const RELEASE_EVERY: Duration = Duration::from_millis(5);

/// What a relay needs to know before it exists.
#[derive(Clone)]
pub struct RelayConfig {
    /// Where to listen, TCP and UDP; port 0 for any.
    pub listen: SocketAddr,
    /// The IP address or DNS name to tell others; without it that of `listen`, which then must
    /// not be a wildcard.
    pub public_host: Option<String>,
    /// The folder of the certificate and its key, which are made there at first.
    pub dir: PathBuf,
    /// Who may use the relay.
    pub access: Arc<dyn Access>,
    /// Bytes a second that one client may send; unlimited without.
    pub client_bytes_per_second: Option<NonZeroU32>,
    /// Clients at once; further ones are refused.
    pub clients_max: usize,
}

/// Decides who may use a relay.
pub trait Access: Send + Sync + 'static {
    /// Whether the client that proved the key `id` may use the relay. Must not block.
    fn allow(&self, id: &[u8; 32]) -> bool;
}

/// Why a relay could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The certificate or its key could not be read, made or kept.
    #[error("failed to load or make the relay's certificate in {dir}")]
    Identity {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A port could not be bound.
    #[error("failed to listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No address to tell others.
    #[error("no usable address to tell others")]
    PublicHost(#[source] RelayAddrError),
}

/// A running relay; it stops when dropped.
#[derive(Debug)]
pub struct Relay {
    server: server::Server,
    listen: SocketAddr,
    addr: RelayAddr,
    gate: Arc<Gate>,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    ///
    /// If the certificate cannot be kept or the ports cannot be bound.
    pub fn spawn(config: RelayConfig) -> BoxFuture<'static, Result<Self, RelayError>> {
        Box::pin(async move {
            let identity = Identity::load_or_make(&config.dir)
                .map_err(|source| RelayError::Identity { dir: config.dir.clone(), source })?;
            let host = match &config.public_host {
                Some(host) => host.clone(),
                None if config.listen.ip().is_unspecified() => {
                    return Err(RelayError::PublicHost(RelayAddrError::Host));
                }
                None => config.listen.ip().to_string(),
            };
            let gate = Arc::new(Gate {
                access: Arc::clone(&config.access),
                clients_max: config.clients_max,
                clients: AtomicUsize::new(0),
                refused: AtomicU64::new(0),
            });
            let (server, listen) = listen(&config, &identity, &gate).await?;
            let addr = RelayAddr::new(&host, listen.port(), pin::cert_sha256(identity.cert_der()))
                .map_err(RelayError::PublicHost)?;
            Ok(Self { server, listen, addr, gate })
        })
    }

    /// What clients need to know to use this relay.
    #[must_use]
    pub fn addr(&self) -> RelayAddr {
        self.addr.clone()
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.gate.clients.load(Ordering::Relaxed)
    }

    /// How many clients were refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.gate.refused.load(Ordering::Relaxed)
    }

    /// Stops the relay and waits, a few seconds at most, until another may have its ports.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let stop = async {
                let stopped = self.server.shutdown().await;
                released(self.listen).await;
                stopped
            };
            match tokio::time::timeout(SHUTDOWN_GRACE, stop).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "relay stopped with an error"),
                Err(_) => tracing::warn!("relay did not stop in time"),
            }
        })
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig")
            .field("listen", &self.listen)
            .field("public_host", &self.public_host)
            .field("dir", &self.dir)
            .field("client_bytes_per_second", &self.client_bytes_per_second)
            .field("clients_max", &self.clients_max)
            .finish_non_exhaustive()
    }
}

/// The door: asks [`Access`] and counts who is inside.
struct Gate {
    access: Arc<dyn Access>,
    clients_max: usize,
    clients: AtomicUsize,
    refused: AtomicU64,
}

impl Gate {
    /// Lets a client in, or says why not.
    fn admit(&self, id: EndpointId) -> Result<(), &'static str> {
        let enter = |n: usize| (n < self.clients_max).then_some(n + 1);
        let admitted = if !self.access.allow(id.as_bytes()) {
            Err("this relay does not serve you")
        } else if self.clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_err() {
            Err("this relay has as many clients as it takes: try again later")
        } else {
            Ok(())
        };
        if admitted.is_err() {
            count(&self.refused);
        }
        admitted
    }
}

impl AccessControl for Gate {
    async fn on_connect(&self, request: &ClientRequest) -> server::Access {
        match self.admit(request.endpoint_id()) {
            Ok(()) => server::Access::Allow,
            Err(why) => server::Access::Deny { reason: Some(why.to_owned()) },
        }
    }

    fn on_disconnect(&self, _endpoint_id: EndpointId, _connection_id: ConnectionId) {
        self.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("clients", &self.clients).finish_non_exhaustive()
    }
}

/// Binds TCP and UDP on one port. With port 0 a free UDP port is picked first and the pair tried.
async fn listen(
    config: &RelayConfig,
    identity: &Identity,
    gate: &Arc<Gate>,
) -> Result<(server::Server, SocketAddr), RelayError> {
    let tries = if config.listen.port() == 0 { PORT_TRIES } else { 1 };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..tries {
        let addr = free_port(config.listen)
            .map_err(|source| RelayError::Listen { addr: config.listen, source })?;
        let server_config = server_config(config, addr, identity, gate).map_err(|error| {
            let source = io::Error::other(error);
            RelayError::Identity { dir: config.dir.clone(), source }
        })?;
        match server::Server::spawn(server_config).await {
            Ok(server) => return Ok((server, addr)),
            Err(error) => last = io::Error::other(error),
        }
    }
    Err(RelayError::Listen { addr: config.listen, source: last })
}

/// Waits for a server's ports: the tasks that drive its sockets keep them a moment longer than it.
async fn released(listen: SocketAddr) {
    let is_taken = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
    while TcpListener::bind(listen).is_err_and(is_taken)
        || UdpSocket::bind(listen).is_err_and(is_taken)
    {
        tokio::time::sleep(RELEASE_EVERY).await;
    }
}

fn free_port(listen: SocketAddr) -> io::Result<SocketAddr> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    UdpSocket::bind(listen)?.local_addr()
}

fn server_config(
    config: &RelayConfig,
    addr: SocketAddr,
    identity: &Identity,
    gate: &Arc<Gate>,
) -> Result<ServerConfig, rustls::Error> {
    let cert = CertConfig::Manual { server_config: identity.tls_config()? };
    // The plain HTTP side only answers captive-portal probes, which our clients do not send.
    let mut relay = server::RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
    relay.tls = Some(TlsConfig::new(addr, cert));
    relay.limits.client_rx = config.client_bytes_per_second.map(ClientRateLimit::new);
    relay.access = Arc::<Gate>::clone(gate);
    let mut server = ServerConfig::default();
    server.relay = Some(relay);
    server.quic = Some(QuicConfig::new(addr));
    Ok(server)
}
