//! The settlement service's side of the network.

use std::sync::Arc;
use std::time::Duration;

use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::settle::{SettleCall, SettleRefusal, SettleReply};
use welkin_types::NodeId;

use super::Embedded;
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};

/// How long a question may take to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the questions of one connection until it ends.
pub async fn serve(service: Arc<Embedded>, connection: Connection, shutdown: Shutdown) {
    let node = NodeId::from_bytes(connection.peer());
    while let Ok((send, recv)) = connection.accept().await {
        let service = Arc::clone(&service);
        shutdown.spawn_until_asked("settle", async move {
            if let Err(error) = answer(&service, node, send, recv).await {
                tracing::debug!(%error, "a settlement question was not answered");
            }
        });
    }
}

async fn answer(
    service: &Embedded,
    node: NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let call: SettleCall = wire::expect(&mut recv, QUESTION_TIMEOUT).await?;
    let reply = match call.caller.account(service.domain(), node, outside::now()) {
        Ok(account) => service.call(account, node, call.request).await,
        Err(_) => SettleReply::Refused(SettleRefusal::Signature),
    };
    wire::send(&mut send, &reply).await?;
    let _ = send.finish();
    Ok(())
}
