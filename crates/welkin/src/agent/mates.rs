//! Nodes of one task: where one fails, the agent stops the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use welkin_node::buyer::{Home, KeptLease};
use welkin_types::{GangId, LeaseState};

/// The tasks of several nodes that are kept, each with whether one of its nodes has failed. One is
/// forgotten with its last node.
#[derive(Clone, Debug, Default)]
pub(super) struct Mates(Arc<Mutex<BTreeMap<GangId, watch::Sender<bool>>>>);

/// What one node hears of the others; of a lease that is alone, nothing.
#[derive(Debug)]
pub(super) struct Others {
    has_failed: Option<watch::Receiver<bool>>,
    is_told: bool,
}

/// Whether a node that ended so ends its task.
fn is_failure(kept: &KeptLease) -> bool {
    let (state, _) = kept.state();
    state.is_final() && state != LeaseState::Succeeded
}

impl Mates {
    /// The others of this lease's task. Those that have failed before count, too.
    pub(super) fn of(&self, home: &Home, kept: &KeptLease) -> Others {
        let Some(gang) = kept.gang.map(|member| member.gang) else {
            return Others { has_failed: None, is_told: false };
        };
        let leases = home.leases().map(|(leases, _)| leases).unwrap_or_default();
        let is_mate = |other: &&KeptLease| other.gang.is_some_and(|member| member.gang == gang);
        let has_failed = leases.iter().filter(is_mate).any(is_failure);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, failed| failed.receiver_count() > 0);
        let failed = known.entry(gang).or_insert_with(|| watch::Sender::new(false));
        let receiver = failed.subscribe();
        if has_failed {
            failed.send_replace(true);
        }
        Others { has_failed: Some(receiver), is_told: false }
    }

    /// A node is over.
    pub(super) fn ended(&self, kept: &KeptLease) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = kept.gang.filter(|_| is_failure(kept))
            && let Some(failed) = known.get(&member.gang)
        {
            failed.send_replace(true);
        }
    }
}

impl Others {
    /// Completes once another node has failed; a second time only after [`Others::tell_again`].
    pub(super) async fn failed(&mut self) {
        let is_told = self.is_told;
        let Some(receiver) = self.has_failed.as_mut().filter(|_| !is_told) else {
            return std::future::pending().await;
        };
        if receiver.wait_for(|has_failed| *has_failed).await.is_err() {
            return std::future::pending().await;
        }
        self.is_told = true;
    }

    /// What was said may not have reached the host.
    pub(super) const fn tell_again(&mut self) {
        self.is_told = false;
    }
}
