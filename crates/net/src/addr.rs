//! Where a peer or a relay is reached.
//!
//! Both types come from strangers, so both are bounded when they are read: a [`NodeAddr`] has at
//! most [`DIRECT_ADDRS_MAX`] direct addresses and a [`RelayAddr`] a host of at most
//! [`RELAY_HOST_BYTES_MAX`] bytes that is an address or a plain name.

use std::{fmt, net::IpAddr, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest number of direct addresses in a [`NodeAddr`].
pub const DIRECT_ADDRS_MAX: usize = 16;

/// Longest relay host; the rest of a DNS name carries the pin (see `pin.rs`).
const RELAY_HOST_BYTES_MAX: usize = 128;

/// All that is needed to reach one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NodeAddrRow")]
pub struct NodeAddr {
    /// The ed25519 public key that the peer must prove.
    pub id: [u8; 32],
    /// The relay at which the peer listens, if it has one.
    pub relay: Option<RelayAddr>,
    /// Socket addresses at which the peer may be reached; at most [`DIRECT_ADDRS_MAX`].
    pub direct: Vec<SocketAddr>,
}

/// An address that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeAddrError {
    /// More direct addresses than [`DIRECT_ADDRS_MAX`].
    #[error("{n} direct addresses, at most {DIRECT_ADDRS_MAX} are allowed")]
    TooManyDirect {
        /// How many there were.
        n: usize,
    },
}

/// A relay: host, port, and the certificate that it must show.
///
/// As text it is `host:port#pin` with the pin in 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RelayAddrRow")]
pub struct RelayAddr {
    host: String,
    port: u16,
    cert_sha256: [u8; 32],
}

/// A relay address that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayAddrError {
    /// The host is neither an IP address nor a plain DNS name of bounded length.
    #[error("the relay host is neither an IP address nor a DNS name")]
    Host,
    /// The port is missing, zero or not a number.
    #[error("the relay port is not a number from 1 to 65535")]
    Port,
    /// The pin is not 64 hexadecimal digits.
    #[error("the relay pin is not 64 hexadecimal digits")]
    Pin,
}

impl NodeAddr {
    /// A peer that is reached at `direct` only.
    #[must_use]
    pub fn direct(id: [u8; 32], direct: Vec<SocketAddr>) -> Self {
        Self { id, relay: None, direct }
    }
}

impl RelayAddr {
    /// Makes a relay address of `host` (an IP address or a DNS name), `port` and the SHA-256 of
    /// the DER certificate that the relay shows.
    ///
    /// # Errors
    ///
    /// If the host or the port cannot be one.
    pub fn new(host: &str, port: u16, cert_sha256: [u8; 32]) -> Result<Self, RelayAddrError> {
        if host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
            return Err(RelayAddrError::Host);
        }
        if port == 0 {
            return Err(RelayAddrError::Port);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port, cert_sha256 })
    }

    /// The IP address (IPv6 without brackets) or DNS name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port of the relay and the UDP port of its address discovery.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SHA-256 of the DER certificate that the relay must show.
    #[must_use]
    pub fn cert_sha256(&self) -> &[u8; 32] {
        &self.cert_sha256
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}#", self.host, self.port)?;
        } else {
            write!(f, "{}:{}#", self.host, self.port)?;
        }
        f.write_str(&hex(&self.cert_sha256))
    }
}

impl FromStr for RelayAddr {
    type Err = RelayAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, pin) = text.split_once('#').ok_or(RelayAddrError::Pin)?;
        let (host, port) = place.rsplit_once(':').ok_or(RelayAddrError::Port)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| RelayAddrError::Port)?;
        Self::new(host, port, unhex(pin).ok_or(RelayAddrError::Pin)?)
    }
}

/// The wire form of [`NodeAddr`], before its bound is checked.
#[derive(Deserialize)]
struct NodeAddrRow {
    id: [u8; 32],
    relay: Option<RelayAddr>,
    direct: Vec<SocketAddr>,
}

impl TryFrom<NodeAddrRow> for NodeAddr {
    type Error = NodeAddrError;

    fn try_from(row: NodeAddrRow) -> Result<Self, Self::Error> {
        if row.direct.len() > DIRECT_ADDRS_MAX {
            return Err(NodeAddrError::TooManyDirect { n: row.direct.len() });
        }
        Ok(Self { id: row.id, relay: row.relay, direct: row.direct })
    }
}

/// The wire form of [`RelayAddr`], before it is checked.
#[derive(Deserialize)]
struct RelayAddrRow {
    host: String,
    port: u16,
    cert_sha256: [u8; 32],
}

impl TryFrom<RelayAddrRow> for RelayAddr {
    type Error = RelayAddrError;

    fn try_from(row: RelayAddrRow) -> Result<Self, Self::Error> {
        Self::new(&row.host, row.port, row.cert_sha256)
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes written as exactly `2 * N` hexadecimal digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn is_dns_name(name: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits would be read as an IPv4 address by some and as a name by others.
    let last_is_word =
        name.rsplit('.').next().is_some_and(|l| l.bytes().any(|b| b.is_ascii_alphabetic()));
    name.len() <= RELAY_HOST_BYTES_MAX && name.split('.').all(label_ok) && last_is_word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_addr_text_round_trips() {
        for host in ["127.0.0.1", "::1", "relay.example.org"] {
            let addr = RelayAddr::new(host, 7443, [0xab; 32]).unwrap();
            assert_eq!(addr.to_string().parse::<RelayAddr>().unwrap(), addr);
        }
    }

    #[test]
    fn bad_relay_hosts_are_refused() {
        let long = "a".repeat(64);
        let longer = "a.".repeat(80) + "b";
        for host in [
            "",
            ".",
            "a..b",
            "-a",
            "a b",
            "a/b",
            "1.2.3",
            "256.1.1.1",
            "[::1]",
            "é",
            &long,
            &longer,
        ] {
            assert!(RelayAddr::new(host, 1, [0; 32]).is_err(), "{host}");
        }
        assert!(RelayAddr::new("localhost", 0, [0; 32]).is_err());
    }

    #[test]
    fn node_addr_is_bounded_on_the_wire() {
        let mut addr =
            NodeAddr::direct([7; 32], vec!["127.0.0.1:1".parse().unwrap(); DIRECT_ADDRS_MAX]);
        let bytes = postcard::to_stdvec(&addr).unwrap();
        assert_eq!(postcard::from_bytes::<NodeAddr>(&bytes).unwrap(), addr);
        addr.direct.push("127.0.0.1:1".parse().unwrap());
        let bytes = postcard::to_stdvec(&addr).unwrap();
        assert!(postcard::from_bytes::<NodeAddr>(&bytes).is_err());
    }
}
