//! Answers to checkers.

use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::Signed;
use welkin_proto::check::{Probe, ProbeReply};
use welkin_types::NodeId;

use super::Host;
use crate::outside;
use crate::wire::{self, WireError};

/// How long a question may take to arrive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most questions of one connection.
const PROBES_MAX: u32 = 4_096;

/// Answers the probes of one connection, one after the other.
pub(crate) async fn serve(host: &Host, connection: Connection) {
    let checker = NodeId::from_bytes(connection.peer());
    let mut none = JoinSet::<()>::new();
    for count in 0..PROBES_MAX {
        let next = host.gate.next_stream(&connection, count == 0, &mut none).await;
        let Some((send, recv)) = next else { return };
        if let Err(error) = answer(host, checker, send, recv).await {
            tracing::debug!(%error, "a probe was not answered");
            if error.is_peers_fault() {
                connection.close(3, b"malformed probe");
                return;
            }
        }
    }
    connection.close(4, b"too many probes");
}

async fn answer(
    host: &Host,
    checker: NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let probe: Probe = wire::expect(&mut recv, PROBE_TIMEOUT).await?;
    let now = outside::now();
    let free = host.slots().all_unleased();
    let reply = ProbeReply { nonce: probe.nonce, checker, free, at: now };
    let signed = Signed::sign(&host.domain, &host.key, &reply).map_err(WireError::Malformed)?;
    wire::send(&mut send, &signed).await?;
    let _ = send.finish();
    Ok(())
}
