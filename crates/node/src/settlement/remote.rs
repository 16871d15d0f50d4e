//! The settlement service over the network.

use std::time::Duration;

use welkin_net::Endpoint;
use welkin_proto::settle::{SettleCall, SettleReply, SettleRequest};
use welkin_proto::{ALPN_SETTLE, Delegation, NodeAddr, SignedByAccount};

use super::{BoxFuture, Settlement, SettlementError};
use crate::connect::Caller;

/// How long one question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks a settlement service in the name of an account.
#[derive(Debug)]
pub struct RemoteSettlement {
    caller: Caller,
    delegation: SignedByAccount<Delegation>,
}

impl RemoteSettlement {
    /// Will connect at the first question, and again whenever the connection is lost.
    pub fn new(
        endpoint: Endpoint,
        addr: NodeAddr,
        delegation: SignedByAccount<Delegation>,
    ) -> Self {
        Self { caller: Caller::new(endpoint, addr, ALPN_SETTLE), delegation }
    }
}

impl Settlement for RemoteSettlement {
    fn call(&self, request: SettleRequest) -> BoxFuture<'_, Result<SettleReply, SettlementError>> {
        Box::pin(async move {
            let call = SettleCall { caller: self.delegation.clone(), request };
            self.caller.ask(&call, CALL_TIMEOUT).await.map_err(SettlementError::Unreachable)
        })
    }
}
