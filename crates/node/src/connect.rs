//! One kept connection to a service, dialled again when it is lost, and questions over it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use welkin_net::{ConnectError, Connection, ConnectionLost, Endpoint};
use welkin_proto::NodeAddr;

use crate::gate::{CODE_IDLE, CODE_TOO_MANY};
use crate::wire::{self, WireError};

/// How long dialling may take.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a question brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no way to the service.
    #[error("failed to connect to {node}")]
    Connect {
        /// Whom.
        node: welkin_types::NodeId,
        /// Why.
        #[source]
        source: Arc<ConnectError>,
    },
    /// The connection was lost.
    #[error("the connection was lost")]
    Lost(#[source] ConnectionLost),
    /// The conversation failed.
    #[error("the conversation failed")]
    Wire(#[source] WireError),
    /// The service takes no more connections from this side.
    #[error("it says: {0}")]
    TooMany(String),
    /// The chain's node does not answer.
    #[error("the chain's node does not answer")]
    Node(#[source] welkin_chain::rpc::TransportError),
}

/// Asks one service; keeps the connection.
///
/// Whoever comes while the service is being dialled waits for that dial, and fails with it: so a
/// service that is gone costs each question one dial at most, however many ask.
pub struct Caller {
    endpoint: Endpoint,
    addr: NodeAddr,
    alpn: &'static [u8],
    /// Held for a few lines, never while something is waited for.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Connection>,
    dialling: Option<watch::Receiver<Option<Dialled>>>,
}

type Dialled = Result<Connection, Arc<ConnectError>>;

/// What someone who needs a connection does.
enum Part {
    Use(Connection),
    Dial(watch::Sender<Option<Dialled>>),
    Wait(watch::Receiver<Option<Dialled>>),
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.addr.node)
    }
}

impl Caller {
    /// Will connect at the first question.
    pub fn new(endpoint: Endpoint, addr: NodeAddr, alpn: &'static [u8]) -> Self {
        Self { endpoint, addr, alpn, state: Mutex::default() }
    }

    /// Whom it asks.
    pub const fn addr(&self) -> &NodeAddr {
        &self.addr
    }

    /// The round trip on the kept connection, as the transport estimates it.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let kept = self.state().kept.clone()?;
        kept.path().map(|path| path.rtt)
    }

    /// The kept connection, dialled where there is none.
    ///
    /// # Errors
    ///
    /// [`CallError::Connect`] where the service can't be reached.
    pub async fn connection(&self) -> Result<Connection, CallError> {
        loop {
            let dialled = match self.part() {
                Part::Use(connection) => return Ok(connection),
                Part::Dial(tell) => {
                    let addr = wire::to_net(&self.addr);
                    let dial = self.endpoint.connect(&addr, self.alpn, DIAL_TIMEOUT);
                    let dialled = dial.await.map_err(Arc::new);
                    let mut state = self.state();
                    state.dialling = None;
                    state.kept = dialled.as_ref().ok().cloned();
                    tell.send_replace(Some(dialled.clone()));
                    dialled
                }
                Part::Wait(mut dialling) => {
                    let dialled = dialling.wait_for(Option::is_some).await;
                    match dialled.ok().and_then(|dialled| dialled.clone()) {
                        Some(dialled) => dialled,
                        // Who dialled has given up.
                        None => continue,
                    }
                }
            };
            return dialled.map_err(|source| CallError::Connect { node: self.addr.node, source });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self) -> Part {
        let mut state = self.state();
        if let Some(connection) = state.kept.as_ref().filter(|kept| kept.close_reason().is_none()) {
            return Part::Use(connection.clone());
        }
        if let Some(dialling) = state.dialling.as_ref().filter(|tell| tell.has_changed().is_ok()) {
            return Part::Wait(dialling.clone());
        }
        let (tell, dialling) = watch::channel(None);
        state.dialling = Some(dialling);
        Part::Dial(tell)
    }

    /// Asks one question on a stream of its own.
    ///
    /// # Errors
    ///
    /// [`CallError`] where there is no answer in time.
    pub async fn ask<Q, A>(&self, question: &Q, within: Duration) -> Result<A, CallError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let asking = async {
            let connection = self.connection().await?;
            let answer = ask_on(&connection, question, within).await;
            // A connection that nobody used for a while may be closed just when it is used again;
            // every question may be asked twice.
            if answer.is_err() && is_closed_as_idle(&connection) {
                return ask_on(&self.connection().await?, question, within).await;
            }
            answer.map_err(|error| told_why(&connection).unwrap_or(error))
        };
        let late = |_| CallError::Wire(WireError::Late(within));
        tokio::time::timeout(within, asking).await.map_err(late)?
    }
}

async fn ask_on<Q, A>(
    connection: &Connection,
    question: &Q,
    within: Duration,
) -> Result<A, CallError>
where
    Q: Serialize + Sync,
    A: DeserializeOwned,
{
    let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
    wire::send(&mut send, question).await.map_err(CallError::Wire)?;
    let _ = send.finish();
    wire::expect(&mut recv, within).await.map_err(CallError::Wire)
}

fn is_closed_as_idle(connection: &Connection) -> bool {
    let idle = u64::from(CODE_IDLE);
    matches!(connection.close_reason(), Some(ConnectionLost::ClosedByPeer { code, .. }) if code == idle)
}

/// Why the service does not want this connection, where it said so. Its words are not trusted.
fn told_why(connection: &Connection) -> Option<CallError> {
    match connection.close_reason()? {
        ConnectionLost::ClosedByPeer { code, reason } if code == u64::from(CODE_TOO_MANY) => {
            let text = crate::quoted(&String::from_utf8_lossy(&reason));
            Some(CallError::TooMany(text))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use welkin_net::EndpointConfig;
    use welkin_types::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_dead_service_costs_each_question_one_dial() {
        // An open socket that never answers, as a machine that has fallen silent.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = EndpointConfig::new([1; 32]);
        config.listen = vec![([127, 0, 0, 1], 0).into()];
        let endpoint = Endpoint::bind(config).await.unwrap();
        let other = welkin_proto::NodeKey::from_secret(&[2; 32]).id();
        let addr = NodeAddr {
            node: NodeId::from_bytes(*other.as_bytes()),
            relay: None,
            direct: vec![silent.local_addr().unwrap()],
        };
        let caller = Caller::new(endpoint, addr, b"none");
        let began = Instant::now();
        let asked =
            async { tokio::join!(caller.connection(), caller.connection(), caller.connection()) };
        let (one, two, three) = asked.await;
        assert!(one.is_err() && two.is_err() && three.is_err());
        assert!(began.elapsed() < 2 * DIAL_TIMEOUT, "{:?}", began.elapsed());
        // One that gives up early does not leave the others waiting.
        let brief = tokio::time::timeout(Duration::from_millis(50), caller.connection());
        let (brief, patient) = tokio::join!(brief, caller.connection());
        assert!(brief.is_err() && patient.is_err());
    }
}
