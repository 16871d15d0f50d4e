//! The trust in a relay: its certificate, by hash.
//!
//! A TLS verifier is told the name that was dialled and the certificate that was shown, not the
//! port, and one verifier serves all relays of an endpoint. So the pin is *in the name*: the
//! relay at `192.0.2.7` is dialled as
//!
//! ```text
//! <32 hex digits>.<32 hex digits>.ip4-192-0-2-7.relay.invalid
//! ```
//!
//! where the first two labels are the SHA-256 of the certificate. [`PinVerifier`] compares the
//! certificate with the name and [`PinResolver`] turns the name back into the address. There is
//! no table of accepted pins that a stranger's address could add to or displace: whoever
//! publishes a false pin for a relay has named another relay.
//!
//! Invariant **pin-or-nothing**: a name of any other form is refused by both.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use iroh::{
    RelayUrl,
    dns::{BoxIter, DnsError, Resolver, TxtRecordData},
};
use iroh_relay::tls::CaTlsConfig;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};

use crate::{
    BoxFuture,
    addr::{RelayAddr, RelayAddrError, hex, unhex},
};

/// The end of every pinned name. `.invalid` is never delegated (RFC 6761), so a name that
/// escapes to a real resolver finds nothing.
const SUFFIX: &str = ".relay.invalid";

/// The URL under which iroh knows the relay.
pub(crate) fn relay_url(relay: &RelayAddr) -> Result<RelayUrl, RelayAddrError> {
    let url = format!("https://{}:{}/", pinned_name(relay), relay.port());
    url.parse().map_err(|_| RelayAddrError::Host)
}

/// SHA-256 of a certificate.
pub(crate) fn cert_sha256(cert_der: &[u8]) -> [u8; 32] {
    Sha256::digest(cert_der).into()
}

/// TLS settings that accept pinned relays and nothing else.
pub(crate) fn tls_config() -> CaTlsConfig {
    CaTlsConfig::custom_server_cert_verifier(Arc::new(|provider| {
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(PinVerifier { provider });
        io::Result::Ok(verifier)
    }))
}

/// Accepts a server if the hash of its certificate is in the name that was dialled.
#[derive(Debug)]
struct PinVerifier {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let ServerName::DnsName(name) = server_name else {
            return Err(CertificateError::NotValidForName.into());
        };
        let Some((pin, _)) = parse_name(name.as_ref()) else {
            return Err(CertificateError::NotValidForName.into());
        };
        if !intermediates.is_empty() || !is_equal(&cert_sha256(end_entity), &pin) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Turns pinned names back into addresses; asks the system only for relays that have a name.
#[derive(Debug)]
pub(crate) struct PinResolver;

impl Resolver for PinResolver {
    fn lookup_ipv4(&self, host: String) -> BoxFuture<'static, Result<BoxIter<Ipv4Addr>, DnsError>> {
        Box::pin(async move {
            let ips = resolve(&host).await;
            let v4 = |ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
            Ok(Box::new(ips.into_iter().filter_map(v4)) as BoxIter<Ipv4Addr>)
        })
    }

    fn lookup_ipv6(&self, host: String) -> BoxFuture<'static, Result<BoxIter<Ipv6Addr>, DnsError>> {
        Box::pin(async move {
            let ips = resolve(&host).await;
            let v6 = |ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None };
            Ok(Box::new(ips.into_iter().filter_map(v6)) as BoxIter<Ipv6Addr>)
        })
    }

    fn lookup_txt(
        &self,
        _host: String,
    ) -> BoxFuture<'static, Result<BoxIter<TxtRecordData>, DnsError>> {
        Box::pin(async { Ok(Box::new(std::iter::empty()) as BoxIter<TxtRecordData>) })
    }

    fn clear_cache(&self) {}

    fn reset(&self) -> Box<dyn Resolver> {
        Box::new(Self)
    }
}

/// The host of a relay as it stands in a pinned name.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

async fn resolve(pinned: &str) -> Vec<IpAddr> {
    match parse_name(pinned) {
        None => Vec::new(),
        Some((_, Host::Ip(ip))) => vec![ip],
        Some((_, Host::Name(name))) => match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(addrs) => addrs.map(|addr| addr.ip()).collect(),
            Err(error) => {
                tracing::debug!(%error, "relay name not resolved");
                Vec::new()
            }
        },
    }
}

fn pinned_name(relay: &RelayAddr) -> String {
    let mut name = hex(relay.cert_sha256());
    name.insert(32, '.');
    // Writing into a string cannot fail.
    let _ = match relay.host().parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            write!(name, ".ip4-{a}-{b}-{c}-{d}")
        }
        Ok(IpAddr::V6(ip)) => write!(name, ".ip6-{}", hex(&ip.octets())),
        Err(_) => write!(name, ".{}.name", relay.host()),
    };
    name.push_str(SUFFIX);
    name
}

fn parse_name(name: &str) -> Option<([u8; 32], Host)> {
    let mut labels = name.strip_suffix(SUFFIX)?.splitn(3, '.');
    let (high, low, host) = (labels.next()?, labels.next()?, labels.next()?);
    let (high, low): ([u8; 16], [u8; 16]) = (unhex(high)?, unhex(low)?);
    let mut pin = [0; 32];
    pin[..16].copy_from_slice(&high);
    pin[16..].copy_from_slice(&low);
    let host = if let Some(name) = host.strip_suffix(".name") {
        Host::Name(name.to_owned())
    } else if let Some(ip) = host.strip_prefix("ip4-") {
        Host::Ip(ip.replace('-', ".").parse::<Ipv4Addr>().ok()?.into())
    } else {
        let octets: [u8; 16] = unhex(host.strip_prefix("ip6-")?)?;
        Host::Ip(Ipv6Addr::from(octets).into())
    };
    Some((pin, host))
}

/// Compares without stopping at the first difference.
fn is_equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(name: &str, cert: &[u8], intermediates: &[CertificateDer<'_>]) -> bool {
        let verifier = PinVerifier { provider: Arc::new(rustls::crypto::ring::default_provider()) };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let cert = CertificateDer::from(cert.to_vec());
        verifier.verify_server_cert(&cert, intermediates, &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn names_round_trip_through_the_url() {
        let pin = cert_sha256(b"certificate");
        for host in ["192.0.2.7", "2001:db8::1", "relay.example.org", "localhost"] {
            let relay = RelayAddr::new(host, 7443, pin).unwrap();
            let url = relay_url(&relay).unwrap();
            let (found, place) = parse_name(url.host_str().unwrap()).unwrap();
            assert_eq!((found, url.port()), (pin, Some(7443)));
            let expected = match host.parse() {
                Ok(ip) => Host::Ip(ip),
                Err(_) => Host::Name(host.to_owned()),
            };
            assert_eq!(place, expected);
        }
    }

    #[test]
    fn only_the_pinned_certificate_is_accepted() {
        let relay = RelayAddr::new("127.0.0.1", 1, cert_sha256(b"right")).unwrap();
        let name = pinned_name(&relay);
        assert!(verify(&name, b"right", &[]));
        assert!(!verify(&name, b"wrong", &[]));
        assert!(!verify(&name, b"right", &[CertificateDer::from(vec![1])]));
    }

    #[test]
    fn a_name_without_pin_is_refused() {
        for name in
            ["127.0.0.1", "relay.example.org", "relay.invalid", "a.b.ip4-1-2-3-4.relay.invalid"]
        {
            assert!(!verify(name, b"right", &[]), "{name}");
        }
    }

    #[test]
    fn equality_sees_each_byte() {
        let a = [5; 32];
        assert!(is_equal(&a, &a));
        for i in 0..32 {
            let mut b = a;
            b[i] ^= 1;
            assert!(!is_equal(&a, &b));
        }
    }
}
