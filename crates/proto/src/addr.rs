//! Where a node can be reached.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use welkin_types::NodeId;

/// A relay: where it listens and the certificate it must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAddr {
    /// `host:port` of its TLS listener, at most 255 bytes.
    pub host: String,
    /// SHA-256 of its certificate (DER). No public authority is asked.
    #[serde(with = "crate::hexed")]
    pub cert_sha256: [u8; 32],
}

/// A node and the ways to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddr {
    /// Who must answer.
    pub node: NodeId,
    /// The relay it keeps a connection to, if any.
    pub relay: Option<RelayAddr>,
    /// Socket addresses to try directly, at most [`Self::DIRECT_MAX`].
    pub direct: Vec<SocketAddr>,
}

impl NodeAddr {
    /// The most direct addresses that a node may name.
    pub const DIRECT_MAX: usize = 16;

    /// Whether the lists are within their bounds.
    pub fn is_bounded(&self) -> bool {
        self.direct.len() <= Self::DIRECT_MAX
            && self.relay.as_ref().is_none_or(|relay| relay.host.len() <= 255)
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a node address: expected nod_…@IP:PORT[,IP:PORT…][+RELAY:PORT#CERTIFICATE_HASH]"
)]
pub struct AddrError(String);

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.node)?;
        for (index, direct) in self.direct.iter().enumerate() {
            write!(f, "{}{direct}", if index == 0 { "" } else { "," })?;
        }
        match &self.relay {
            Some(relay) => write!(f, "+{relay}"),
            None => Ok(()),
        }
    }
}

impl FromStr for NodeAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = || AddrError(text.chars().take(120).collect());
        let (node, rest) = text.split_once('@').ok_or_else(error)?;
        let (direct, relay) = match rest.split_once('+') {
            Some((direct, relay)) => (direct, Some(relay.parse().map_err(|_| error())?)),
            None => (rest, None),
        };
        let direct: Result<Vec<SocketAddr>, _> =
            direct.split(',').filter(|part| !part.is_empty()).map(str::parse).collect();
        let node = node.parse().map_err(|_| error())?;
        let addr = Self { node, relay, direct: direct.map_err(|_| error())? };
        if addr.is_bounded() { Ok(addr) } else { Err(error()) }
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#", self.host)?;
        self.cert_sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for RelayAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = || AddrError(text.chars().take(120).collect());
        let (host, pin) = text.split_once('#').ok_or_else(error)?;
        // A node id has the same form as a pin.
        let pin: NodeId = format!("nod_{pin}").parse().map_err(|_| error())?;
        if host.len() > 255 || !host.contains(':') {
            return Err(error());
        }
        Ok(Self { host: host.to_owned(), cert_sha256: *pin.as_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let addr = NodeAddr {
            node: NodeId::from_bytes([7; 32]),
            relay: Some(RelayAddr { host: "relay.test:443".to_owned(), cert_sha256: [9; 32] }),
            direct: vec![([127, 0, 0, 1], 7_400).into(), ([10, 0, 0, 1], 1).into()],
        };
        assert_eq!(addr.to_string().parse(), Ok(addr.clone()));
        let bare = NodeAddr { relay: None, direct: Vec::new(), ..addr };
        assert_eq!(bare.to_string().parse(), Ok(bare));
        for bad in ["", "@", "nod_00@1.2.3.4:5", "x@y"] {
            assert!(bad.parse::<NodeAddr>().is_err(), "{bad}");
        }
    }
}
