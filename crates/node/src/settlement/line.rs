//! The way to the settlement service: in this process, over the network, or a plain chain node.

use std::sync::Arc;
use std::time::Duration;

use welkin_chain::rpc::{BoxFuture, Transport, TransportError};
use welkin_net::Endpoint;
use welkin_proto::settle::{RPC_BYTES_MAX, SettleCall, SettleReply, SettleRequest};
use welkin_proto::{ALPN_SETTLE, Delegation, NodeAddr, SignedByAccount};
use welkin_types::NodeId;

use super::{Service, SettlementError};
use crate::connect::Caller;

/// How long one question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One node's way to the settlement service.
#[derive(Clone, Debug)]
pub struct Line(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Local { service: Arc<Service>, node: NodeId },
    Remote { caller: Box<Caller>, delegation: Box<SignedByAccount<Delegation>> },
}

impl Line {
    /// To the service in this process.
    pub fn local(service: Arc<Service>, node: NodeId) -> Self {
        Self(Arc::new(Kind::Local { service, node }))
    }

    /// To a service over the network; connects at the first question, and again whenever the
    /// connection is lost.
    pub fn remote(
        endpoint: Endpoint,
        addr: NodeAddr,
        delegation: SignedByAccount<Delegation>,
    ) -> Self {
        let caller = Box::new(Caller::new(endpoint, addr, ALPN_SETTLE));
        Self(Arc::new(Kind::Remote { caller, delegation: Box::new(delegation) }))
    }

    /// Asks one question.
    ///
    /// # Errors
    ///
    /// [`SettlementError::Unreachable`] where the service does not answer.
    pub(super) async fn ask(&self, request: SettleRequest) -> Result<SettleReply, SettlementError> {
        match &*self.0 {
            Kind::Local { service, node } => Ok(service.call(*node, request).await),
            Kind::Remote { caller, delegation } => {
                let call = SettleCall { caller: (**delegation).clone(), request };
                caller.ask(&call, CALL_TIMEOUT).await.map_err(SettlementError::Unreachable)
            }
        }
    }
}

impl Transport for Line {
    fn send(&self, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            let lost = |error: String| TransportError(error);
            if request.len() > RPC_BYTES_MAX {
                return Err(lost(format!("a request of {} bytes is too large", request.len())));
            }
            match self.ask(SettleRequest::Rpc(request)).await {
                Ok(SettleReply::Rpc(answer)) => Ok(answer),
                Ok(SettleReply::Refused(why)) => Err(lost(why.to_string())),
                Ok(_) => Err(lost("it gave an answer to another question".to_owned())),
                Err(error) => Err(lost(crate::chain(&error))),
            }
        })
    }
}
