//! JSON-RPC over HTTP and HTTPS: any node of an EVM chain, one's own or a provider's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::rpc::{ANSWER_BYTES_MAX, BoxFuture, Transport, TransportError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question may take in all.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A node that is asked by HTTP.
///
/// Addresses of providers often carry a key in their path: only scheme, host and port are ever
/// shown.
#[derive(Clone)]
pub struct Http {
    client: Client,
    url: Url,
    shown: String,
}

/// A node's address as it stands in a configuration; empty for none. What may be secret in it is
/// neither shown nor written.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct NodeUrl(String);

impl NodeUrl {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }

    /// The way there; none where there is no address.
    ///
    /// # Errors
    ///
    /// [`HttpError`] where it is no address of a node.
    pub fn http(&self) -> Result<Option<Http>, HttpError> {
        if self.is_empty() { Ok(None) } else { Http::new(&self.0).map(Some) }
    }

    fn shown(&self) -> String {
        match self.http() {
            Ok(Some(http)) => http.shown,
            Ok(None) => String::new(),
            Err(_) => "(not a URL)".to_owned(),
        }
    }
}

impl From<&str> for NodeUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUrl({})", self.shown())
    }
}

impl Serialize for NodeUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// Why a node can't be asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It is no address of a node.
    #[error("{0}: a node's address is as http://127.0.0.1:8545 or https://host/path")]
    Address(&'static str),
    /// The machine's certificates or the client can't be set up.
    #[error("failed to set up HTTP: {0}")]
    Setup(String),
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.shown)
    }
}

impl Http {
    /// A way to the node at this address.
    ///
    /// # Errors
    ///
    /// [`HttpError`] where it is no address of a node. Whether one answers there is not looked at.
    pub fn new(url: &str) -> Result<Self, HttpError> {
        let url = Url::parse(url.trim()).map_err(|_| HttpError::Address("not a URL"))?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            "ws" | "wss" => return Err(HttpError::Address("WebSocket is not spoken here")),
            _ => return Err(HttpError::Address("neither http nor https")),
        };
        let host = url.host_str().ok_or(HttpError::Address("it names no host"))?;
        let is_near = is_loopback(&url);
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let shown = format!("{}://{host}{port}", url.scheme());
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls(is_tls)?);
        if is_near {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| HttpError::Setup(plain(error)))?;
        Ok(Self { client, url, shown })
    }

    /// The address without what may be secret in it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    async fn post(&self, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let sent = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(request)
            .send();
        let mut response = sent.await.map_err(plain)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(plain)? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        // Some nodes answer a refused question with 4xx and JSON-RPC's own words for it.
        let is_answer = body.first() == Some(&b'{');
        if status.is_success() || (is_answer && status.as_u16() != 429) {
            return Ok(body);
        }
        Err(match status.as_u16() {
            429 => "it says that it was asked too often (HTTP 429)".to_owned(),
            401 | 403 => format!("it does not let us in (HTTP {})", status.as_u16()),
            code => format!("it answers with HTTP {code}"),
        })
    }
}

impl Transport for Http {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            let sent = self.post(request).await;
            sent.map_err(|why| TransportError(format!("{}: {why}", self.shown)))
        })
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The machine's own certificates; none are loaded where they are not needed.
fn tls(is_needed: bool) -> Result<ClientConfig, HttpError> {
    let setup = |error: rustls::Error| HttpError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    if is_needed {
        return Ok(builder.with_platform_verifier().map_err(setup)?.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// An error's causes in one line, without the address.
fn plain(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_their_secrets_not_shown() {
        for (url, shown) in [
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            ("http://[::1]:8545/", "http://[::1]:8545"),
            ("https://me:word@node.example/v3/secret?key=x", "https://node.example"),
        ] {
            let http = Http::new(url).unwrap();
            assert_eq!(http.shown(), shown);
            assert_eq!(format!("{http:?}"), format!("Http({shown})"));
            let named = NodeUrl::from(url);
            assert_eq!(format!("{named:?}"), format!("NodeUrl({shown})"));
            assert_eq!(serde_json::to_value(&named).unwrap(), shown);
        }
        for url in ["", "node.example", "ws://node.example", "ftp://node.example", "http://"] {
            assert!(matches!(Http::new(url), Err(HttpError::Address(_))), "{url}");
        }
    }
}
