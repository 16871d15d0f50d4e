//! TLS to the database, by rustls.
//!
//! `sslmode=verify-full` checks the server's certificate and its name, by the system's roots or those
//! of `sslrootcert=FILE`. `sslmode=require` without such a file takes any certificate, as elsewhere;
//! the login is then bound to it (SCRAM with `tls-server-end-point`), so that somebody in between who
//! does not know the password gains nothing from it.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};

/// What a certificate file may hold.
const ROOTS_MAX: usize = 1_024;

/// Why the roots can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The file can't be read, or is no certificate.
    #[error("the file is no list of certificates in PEM")]
    Pem(#[source] pem::Error),
    /// No certificate, or one that can't be a root.
    #[error("the file holds no certificate that can be a root")]
    None,
    /// The system's roots or this build's ciphers can't be used.
    #[error("this system's certificates can't be used")]
    System(#[source] rustls::Error),
}

/// Makes TLS connections to one database.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Checks certificate and name, by the roots of a file or the system's.
    pub(super) fn verified(roots: Option<&Path>) -> Result<Self, RootsError> {
        let builder = builder()?;
        let builder = match roots {
            None => builder.with_platform_verifier().map_err(RootsError::System)?,
            Some(path) => builder.with_root_certificates(read(path)?),
        };
        Ok(Self::of(builder.with_no_client_auth()))
    }

    /// Takes any certificate.
    pub(super) fn unverified() -> Result<Self, RootsError> {
        let verifier = Arc::new(AnyCertificate(ring::default_provider()));
        let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Self::of(builder.with_no_client_auth()))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Self { config: Arc::new(config) }
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, RootsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().map_err(RootsError::System)
}

fn read(path: &Path) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(RootsError::Pem)?;
    for certificate in certificates.take(ROOTS_MAX) {
        roots.add_parsable_certificates([certificate.map_err(RootsError::Pem)?]);
    }
    if roots.is_empty() { Err(RootsError::None) } else { Ok(roots) }
}

/// Checks that the server has its certificate's key, and nothing else.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type TlsConnect = Connector;
    type Error = std::convert::Infallible;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Connector, Self::Error> {
        // A socket has no name, and is asked for no handshake.
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(Connector { config: Arc::clone(&self.config), name })
    }
}

/// One handshake that is to be made.
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connector = tokio_rustls::TlsConnector::from(self.config);
        Box::pin(async move {
            let name = self.name.ok_or(io::ErrorKind::InvalidInput)?;
            let stream = connector.connect(name, stream).await?;
            Ok(TlsStream(Box::new(stream)))
        })
    }
}

/// A connection inside TLS.
pub(super) struct TlsStream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for TlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let first = session.peer_certificates().and_then(<[_]>::first);
        match first.filter(|certificate| is_signed_with_sha256(certificate)) {
            Some(certificate) => {
                ChannelBinding::tls_server_end_point(Sha256::digest(certificate).to_vec())
            }
            None => ChannelBinding::none(),
        }
    }
}

/// Whether the binding of a certificate is its SHA-256 (RFC 5929): it is signed with that by RSA or
/// ECDSA. With another hash there is no binding.
fn is_signed_with_sha256(certificate: &[u8]) -> bool {
    const OIDS: [&[u8]; 2] = [
        &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    ];
    // It stands near the beginning, after version and serial number.
    let head = &certificate[..certificate.len().min(64)];
    OIDS.iter().any(|oid| head.windows(oid.len()).any(|at| at == *oid))
}
