//! The relay: carries encrypted packets between nodes that can't reach each other directly.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;
use welkin_net::{Access, Relay, RelayConfig, RelayError};
use welkin_proto::RelayAddr;
use welkin_types::NodeId;

/// A relay's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where its certificate is kept. Empty: `relay` in the data folder.
    pub dir: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: String,
    /// The name or address by which others reach it; empty: the listening address.
    pub public_host: String,
    /// Nodes that it serves; empty: all.
    pub allow: Vec<NodeId>,
    /// The most bytes a second that it takes from one client; 0: no limit.
    pub client_bytes_per_second: u32,
    /// The most clients at once.
    pub clients_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            listen: "127.0.0.1:0".to_owned(),
            public_host: String::new(),
            allow: Vec::new(),
            client_bytes_per_second: 0,
            clients_max: 4_096,
        }
    }
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayStartError {
    /// The address to listen on is none.
    #[error("`relay.listen` is `{0}`, not an IP address with a port")]
    Listen(String),
    /// The transport refuses.
    #[error("failed to start the relay")]
    Start(#[source] RelayError),
}

#[derive(Debug)]
struct AllowList(Vec<NodeId>);

impl Access for AllowList {
    fn allow(&self, id: &[u8; 32]) -> bool {
        self.0.is_empty() || self.0.contains(&NodeId::from_bytes(*id))
    }
}

/// Starts a relay. It stops when the returned handle is dropped.
///
/// # Errors
///
/// [`RelayStartError`] where it can't listen or keep its certificate.
pub async fn start(config: Config) -> Result<(Relay, RelayAddr), RelayStartError> {
    let listen =
        config.listen.parse().map_err(|_| RelayStartError::Listen(config.listen.clone()))?;
    let relay = Relay::spawn(RelayConfig {
        listen,
        public_host: (!config.public_host.is_empty()).then_some(config.public_host),
        dir: config.dir,
        access: Arc::new(AllowList(config.allow)),
        client_bytes_per_second: NonZeroU32::new(config.client_bytes_per_second),
        clients_max: config.clients_max,
    })
    .await
    .map_err(RelayStartError::Start)?;
    let addr = crate::wire::from_net_relay(&relay.addr());
    info!(relay = %addr.host, "relay started");
    Ok((relay, addr))
}
