//! The account's leases: listing, showing, stopping and forgetting them.
//!
//! What is remembered here may be old: the process that kept a lease may be gone. So whoever shows
//! a lease that has not ended asks its host, and says so where the host can't be reached.

mod end;
mod list;
mod measure;
mod quality;
mod show;

use std::time::Duration;

use tokio::time::timeout;
use welkin_node::buyer::{Buyer, BuyerError};
use welkin_proto::lease::LeaseInfo;
use welkin_proto::{Exit, NodeAddr};
use welkin_types::LeaseId;

pub(crate) use end::{rm, stop};
pub(crate) use list::ps;
pub(crate) use measure::measure;
pub(crate) use show::show;

/// How long a host may take to say how its leases stand.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a host says of this account's leases; `None` if it does not answer in time.
async fn ask_host(
    buyer: &Buyer,
    host: &NodeAddr,
    lease: Option<LeaseId>,
) -> Option<Vec<LeaseInfo>> {
    let asking = async {
        let session = buyer.connect(host).await?;
        let infos = session.info(lease).await?;
        session.close();
        Ok::<_, BuyerError>(infos)
    };
    match timeout(ASK_TIMEOUT, asking).await {
        Ok(Ok(infos)) => Some(infos),
        Ok(Err(error)) => {
            tracing::debug!(error = %welkin_node::chain(&error), "a host does not answer");
            None
        }
        Err(_) => None,
    }
}

/// How a command ended: `code 3`, `signal 9 (out of memory)`.
pub(crate) fn exit_text(exit: &Exit) -> String {
    let mut text = match (exit.code, exit.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "not known".to_owned(),
    };
    if exit.oom {
        text.push_str(" (out of memory)");
    }
    text
}

#[cfg(test)]
mod tests {
    use welkin_node::buyer::KeptLease;
    use welkin_proto::{AccountKey, Domain, Order, SignedByAccount, StageTime, Terms};
    use welkin_types::{
        AccountId, ContainerId, LeaseState, NodeId, Price, Reason, UnixMillis, Usd,
    };

    use super::*;

    /// A lease that was ordered at second 1 and has got this far.
    pub(super) fn kept(state: LeaseState) -> KeptLease {
        let key = AccountKey::from_secret(&[3; 32]).unwrap();
        let node = NodeId::from_bytes([7; 32]);
        let order = Order {
            lease: LeaseId::from_bytes([1; 16]),
            buyer: key.id(),
            operator: AccountId::from_bytes([2; 20]),
            host: node,
            container: ContainerId::from_bytes([5; 16]),
            price: Price::per_hour(Usd::from_micros(40_000)),
            budget: Usd::from_micros(5_000_000),
            task_sha256: [0; 32],
            issued: UnixMillis(1_000),
            expires: UnixMillis(61_000),
        };
        let stage = |state, at| StageTime { state, reason: Reason::Normal, at: UnixMillis(at) };
        KeptLease {
            lease: order.lease,
            name: "train".to_owned(),
            command: "python train.py --epochs 3 --resume auto".to_owned(),
            host: NodeAddr { node, relay: None, direct: vec![([127, 0, 0, 1], 7_401).into()] },
            order: SignedByAccount::sign(&Domain::LOCAL, &key, order).unwrap(),
            stages: vec![stage(LeaseState::Pulling, 1_012), stage(state, 1_260)],
            detail: None,
            promised: 60,
            by_agent: true,
            running_since: None,
            tries: 0,
            replaces: None,
            gang: None,
            checkpoint: None,
            terms: Terms::ON_DEMAND,
            matched: None,
        }
    }

    #[test]
    fn exits_read_well() {
        let exit = Exit { code: Some(3), signal: None, oom: false };
        assert_eq!(exit_text(&exit), "code 3");
        let killed = Exit { code: None, signal: Some(9), oom: true };
        assert_eq!(exit_text(&killed), "signal 9 (out of memory)");
    }
}
