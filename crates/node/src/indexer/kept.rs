//! What an indexer takes from its directory at a start, and tells it from then on.

use std::sync::Arc;

use tracing::{info, warn};
use welkin_match::AnnounceRefusal;
use welkin_proto::{Capability, Signed};
use welkin_types::{AccountId, UnixMillis};

use super::directory::{Announced, KnownHost, load};
use super::{Indexer, Kept};
use crate::outside;

impl Kept {
    /// Tells the directory what became of an announcement.
    pub(super) fn note(
        &self,
        now: UnixMillis,
        operator: AccountId,
        capability: &Capability,
        signed: &Signed<Capability>,
        taken: &Result<(), AnnounceRefusal>,
    ) {
        let Some(records) = &self.records else { return };
        match taken {
            Ok(()) => {
                let sessions = &[];
                records.announced(&Announced { now, operator, capability, signed, sessions });
            }
            Err(why) => records.refused(now, operator, &why.to_string()),
        }
    }
}

/// Begins to write to the directory, and takes up the hosts that it knows. The indexer answers
/// meanwhile, from what it has.
pub(super) fn start(indexer: &Arc<Indexer>) {
    if indexer.kept.records.is_none() {
        return;
    }
    let writer = Arc::clone(indexer);
    indexer.shutdown.spawn_until_asked("directory", async move {
        if let Some(records) = &writer.kept.records {
            records.directory().keep_writing().await;
        }
    });
    if indexer.kept.records.as_ref().is_none_or(|records| !records.directory().is_shared()) {
        return;
    }
    let loader = Arc::clone(indexer);
    indexer.shutdown.spawn_until_asked("load", async move { take_up(&loader).await });
}

async fn take_up(indexer: &Indexer) {
    let Some(records) = &indexer.kept.records else { return };
    let began = outside::uptime();
    let taken = load(records.directory(), outside::now(), |hosts| restore(indexer, hosts)).await;
    let took_ms = outside::uptime().saturating_sub(began).as_millis();
    match taken {
        Ok(hosts) => info!(hosts, took_ms, "hosts of the directory are taken up"),
        Err(error) => warn!(
            error = %crate::chain(&error),
            "hosts of the directory are not taken up: they announce themselves again"
        ),
    }
}

fn restore(indexer: &Indexer, hosts: Vec<KnownHost>) {
    let now = outside::now();
    let mut fleet = indexer.fleet();
    for host in hosts {
        // A host that was faster to announce itself is the one that counts.
        if fleet.locate(host.capability.addr.node).is_none() {
            let _ = fleet.announce(now, host.operator, host.capability);
        }
    }
}
