//! JSON-RPC over HTTP/1.1.
//!
//! Pages of the web must not reach a chain on this machine. A request whose `Host` is not a name of
//! ours is refused, because a page can have its own name resolve to this machine; one with an
//! `Origin` that was not allowed is refused, whatever the browser makes of the answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::chain::Chain;
use crate::rpc::BODY_BYTES_MAX;

/// The most connections at a time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 256;
/// How long a body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Who may ask over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Origins of pages that may ask, as `https://wallet.example`; none by default.
    pub origins: Vec<String>,
    /// Names by which this server is called, beside those of the loopback, without port.
    pub hosts: Vec<String>,
}

/// Answers on a listener until the future is dropped.
///
/// # Errors
///
/// [`io::Error`] where the listener fails for good.
pub async fn serve_http(
    listener: TcpListener,
    chain: Arc<Chain>,
    config: HttpConfig,
) -> io::Result<()> {
    let app = Router::new()
        .route("/", post(answer).options(preflight))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Server { chain: Arc::downgrade(&chain), config }));
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    axum::serve(listener, app).await
}

struct Server {
    /// Weak: an idle connection must not keep the chain's file open after the server has ended.
    chain: Weak<Chain>,
    config: HttpConfig,
}

impl Server {
    /// Whether a request may be answered; its origin, where it has one.
    fn admit<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Refusal> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let name = host.map(without_port).unwrap_or_default();
        let is_loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
        if !is_loopback && !self.config.hosts.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Err(Refusal("the Host header names another server"));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
        if self.config.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            Ok(Some(origin))
        } else {
            Err(Refusal("pages of this origin may not ask"))
        }
    }
}

struct Refusal(&'static str);

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn answer(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Response {
    let origin = match server.admit(&headers) {
        Ok(origin) => origin,
        Err(Refusal(why)) => return (StatusCode::FORBIDDEN, why).into_response(),
    };
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
    let body: Bytes = match tokio::time::timeout(BODY_TIME_MAX, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let Some(chain) = server.chain.upgrade() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let answer = chain.rpc(&body).await;
    let kind = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, kind)], answer).into_response();
    allow(&mut response, origin);
    response
}

async fn preflight(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.admit(&headers) {
        Ok(origin) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            allow(&mut response, origin);
            response
        }
        Err(Refusal(why)) => (StatusCode::FORBIDDEN, why).into_response(),
    }
}

fn allow(response: &mut Response, origin: Option<&HeaderValue>) {
    let Some(origin) = origin else { return };
    let private = HeaderName::from_static("access-control-allow-private-network");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(private, HeaderValue::from_static("true"));
}

/// A listener with a bound on what it has accepted.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Place;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Place, SocketAddr) {
        loop {
            // The semaphore is never closed; if it were, waiting would be right.
            let Ok(permit) = Arc::clone(&self.places).acquire_owned().await else {
                std::future::pending().await
            };
            match TcpListener::accept(&self.listener).await {
                Ok((stream, address)) => {
                    // A connection that can't be made quick is slow.
                    let _ = stream.set_nodelay(true);
                    return (Place::new(stream, permit), address);
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

mod place;
use place::Place;
