//! The settlement service's side of the network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use welkin_net::{Connection, Endpoint, RecvStream, SendStream};
use welkin_proto::settle::{SettleCall, SettleRefusal, SettleReply};
use welkin_types::NodeId;

use super::Service;
use crate::gate::{CODE_TOO_MANY, Gate, GateLimits, Pass};
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};

/// How long a question may take to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections at once.
const CONNECTIONS_MAX: usize = 8_192;

/// Takes connections and answers their questions until it is asked to stop.
pub async fn serve(service: Arc<Service>, endpoint: Endpoint, shutdown: Shutdown) {
    let gate = Gate::new(GateLimits::of(CONNECTIONS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let (gate, service, inner) = (Arc::clone(&gate), Arc::clone(&service), shutdown.clone());
        shutdown.spawn_until_asked("settle-connection", async move {
            if let Some((connection, pass)) = gate.admit(incoming).await {
                answer_all(&gate, &service, connection, Arc::new(pass), &inner).await;
            }
        });
    }
}

async fn answer_all(
    gate: &Gate,
    service: &Arc<Service>,
    connection: Connection,
    pass: Arc<Pass>,
    shutdown: &Shutdown,
) {
    let node = NodeId::from_bytes(connection.peer());
    let mut questions = JoinSet::new();
    let mut is_first = true;
    while let Some((send, recv)) = gate.next_stream(&connection, is_first, &mut questions).await {
        is_first = false;
        while questions.try_join_next().is_some() {}
        let (service, pass, connection) =
            (Arc::clone(service), Arc::clone(&pass), connection.clone());
        // A task of the service's own: begun, it ends also when the connection does before.
        let (done, answered) = oneshot::channel::<()>();
        shutdown.spawn_until_asked("settle", async move {
            let _done = done;
            let peer = Peer { node, pass, connection };
            if let Err(error) = answer(&service, &peer, send, recv).await {
                tracing::debug!(%error, "a settlement question was not answered");
            }
        });
        questions.spawn(async move { drop(answered.await) });
    }
}

/// Who is at the other end of a connection.
struct Peer {
    node: NodeId,
    pass: Arc<Pass>,
    connection: Connection,
}

async fn answer(
    service: &Service,
    peer: &Peer,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let call: SettleCall = wire::expect(&mut recv, QUESTION_TIMEOUT).await?;
    let reply = match call.caller.account(service.domain(), peer.node, outside::now()) {
        Ok(account) => {
            if let Err(why) = peer.pass.identify(account) {
                peer.connection.close(CODE_TOO_MANY, why.to_string().as_bytes());
                return Ok(());
            }
            service.call(peer.node, call.request).await
        }
        Err(_) => SettleReply::Refused(SettleRefusal::Signature),
    };
    wire::send(&mut send, &reply).await?;
    let _ = send.finish();
    Ok(())
}
