//! What an indexer takes from its directory at a start, and tells it from then on.

use std::sync::Arc;

use tracing::{info, warn};
use welkin_directory::{HostRow, SessionRow};
use welkin_match::{AnnounceRefusal, Block, Fleet};
use welkin_proto::{Capability, Signed};
use welkin_types::{AccountId, UnixMillis};

use super::directory::{KnownHost, load};
use super::{Indexer, Kept};
use crate::outside;

impl Kept {
    /// What the directory is to know of an announcement that may be taken; nothing without one.
    pub(super) fn noted(&self, operator: AccountId, capability: &Capability) -> Option<HostRow> {
        self.records.as_ref().map(|_| HostRow {
            node: capability.addr.node,
            operator,
            revision: capability.revision,
            issued: capability.issued,
            expires: capability.expires,
            capability: Vec::new(),
            sessions: Vec::new(),
        })
    }

    /// An announcement was taken.
    pub(super) fn announced(
        &self,
        now: UnixMillis,
        noted: HostRow,
        signed: &Signed<Capability>,
        sessions: Vec<SessionRow>,
    ) {
        if let Some(records) = &self.records {
            records.announced(now, HostRow { sessions, ..noted }, signed);
        }
    }

    /// An announcement was refused.
    pub(super) fn refused(&self, now: UnixMillis, operator: AccountId, why: &AnnounceRefusal) {
        if let Some(records) = &self.records {
            records.refused(now, operator, &why.to_string());
        }
    }
}

/// Begins to write to the directory, and takes up the hosts that it knows. The indexer answers
/// meanwhile, from what it has.
pub(super) fn start(indexer: &Arc<Indexer>) {
    let Some(is_shared) =
        indexer.kept.records.as_ref().map(|records| records.directory().is_shared())
    else {
        return;
    };
    let writer = Arc::clone(indexer);
    indexer.shutdown.spawn_until_asked("directory", async move {
        if let Some(records) = &writer.kept.records {
            records.directory().keep_writing().await;
        }
    });
    if is_shared {
        indexer.beats.take_up(true);
        let loader = Arc::clone(indexer);
        indexer.shutdown.spawn_until_asked("load", async move {
            take_up(&loader).await;
            loader.beats.take_up(false);
        });
    }
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

/// Puts hosts into the fleet as a snapshot's are: unconfirmed until they beat. They are made ready
/// beside it, so that nobody waits for more than the last step.
fn restore(indexer: &Indexer, hosts: Vec<KnownHost>) {
    let now = outside::now();
    let mut aside = Fleet::new(0);
    for host in hosts {
        // What this program would refuse today is left out.
        let _ = aside.announce_signed(now, host.operator, host.capability, &host.seal);
    }
    let (mut bytes, mut from) = (Vec::new(), Some(0));
    while let Some(number) = from {
        from = aside.dump_hosts(now, number, &mut bytes);
    }
    let mut rest = &bytes[..];
    while let Ok((block, after)) = Block::split(rest) {
        indexer.fleet().take_up(now, block);
        rest = after;
    }
}
