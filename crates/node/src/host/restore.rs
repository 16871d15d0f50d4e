//! After a restart: what is on the disk, what is in the sandboxes, and what to make of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use welkin_lease::{Found, HostLease, Input, LeaseRecord};
use welkin_store::{Batch, Db};
use welkin_types::{LeaseId, LeaseState};

use super::lease::{self, Fresh, Survivor};
use super::registry::{LEASES_MAX, LeaseHandle, View};
use super::{Host, HostError};
use crate::outside;

/// Indexers are told once more of leases that ended no longer ago: they keep each once.
const TOLD_AGAIN: std::time::Duration = std::time::Duration::from_secs(2 * 3_600);
/// The table of leases.
pub(crate) const LEASES: &str = "leases";
/// The table of single values.
pub(crate) const META: &str = "meta";
/// The last fencing number.
pub(crate) const FENCING: &[u8] = b"fencing";

/// The leases on the disk.
pub(crate) fn load(db: &Db) -> Result<Vec<LeaseRecord>, HostError> {
    let rows = db.load(LEASES).map_err(HostError::Read)?;
    let mut records = Vec::new();
    for (_, bytes) in rows {
        match read(bytes) {
            Ok(record) => records.push(record),
            Err(error) => warn!(%error, "a lease on the disk can't be read and is left alone"),
        }
    }
    Ok(records)
}

/// A record of an earlier edition ends where that of who matched it begins: there it is none.
fn read(mut bytes: Vec<u8>) -> Result<LeaseRecord, postcard::Error> {
    postcard::from_bytes(&bytes).or_else(|error| {
        bytes.push(0);
        postcard::from_bytes(&bytes).map_err(|_| error)
    })
}

/// The last fencing number on the disk.
pub(crate) fn last_fencing(db: &Db, records: &[LeaseRecord]) -> Result<u64, HostError> {
    let rows = db.load(META).map_err(HostError::Read)?;
    let row = rows.into_iter().find(|(key, _)| key == FENCING);
    let written = records.iter().map(|record| record.fencing).max().unwrap_or(0);
    let stored = row.and_then(|(_, value)| value.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(stored.max(written))
}

/// Takes up every lease: goes on with those whose sandbox lives, ends the others, destroys
/// sandboxes that belong to no lease.
pub(crate) async fn take_up(host: &Arc<Host>, records: Vec<LeaseRecord>) -> Result<(), HostError> {
    let mut survivors = BTreeMap::new();
    if let Some(sandboxes) = &host.sandboxes {
        for survivor in sandboxes.survivors().await.map_err(HostError::Sandboxes)? {
            survivors.insert(survivor.sandbox.id(), survivor);
        }
    }
    let (mut running, mut ended) = (0, 0);
    for record in records {
        let (lease, container) = (record.order.message.lease, record.order.message.container);
        if record.receipt.is_some() {
            let last = record.stages.last().map(|stage| stage.at);
            if last.is_some_and(|at| outside::now().since(at) < TOLD_AGAIN) {
                let digests = super::quality::ended(host, &record);
                host.finished.push(&host.domain, &record, digests);
            }
            remember(host, record);
            ended += 1;
            continue;
        }
        let survivor = survivors.remove(&record.sandbox);
        // One that waited for a slot has none.
        if record.wipe.is_none() && record.state() != LeaseState::Placing {
            let (spot, devices) = (record.preemptible(), record.devices.clone());
            match record.launch.terms.reservation {
                Some(reservation) => {
                    host.slots().restore_on(reservation, lease, container, devices);
                }
                None => host.slots().restore(lease, container, devices, spot),
            }
        }
        take_up_one(host, record, survivor);
        running += 1;
    }
    if running + ended > 0 {
        info!(running, ended, "leases taken up");
    }
    for (_, Survivor { sandbox, .. }) in survivors {
        warn!("a sandbox of no lease is destroyed");
        sandbox.destroy().await;
    }
    forget_old(host).await;
    Ok(())
}

fn take_up_one(host: &Arc<Host>, record: LeaseRecord, survivor: Option<Survivor>) {
    let now = outside::now();
    let mut machine = HostLease::restore(record, host.policy, now);
    if survivor.is_none() {
        machine.handle(now, Input::Restored(Found::Nothing));
    }
    let reservation = machine.record().launch.terms.reservation;
    let is_over = reservation.is_some_and(|reservation| !host.reservations.is_open(reservation));
    let lease = machine.record().order.message.lease;
    lease::spawn(host, machine, Fresh::default(), survivor);
    if is_over && let Some(handle) = host.registry.handle(lease) {
        // The word that it is over may have been lost. The queue is empty.
        let _ = handle.commands.try_send(super::registry::Command::ReservationEnded);
    }
}

/// Keeps an ended lease for its buyer to look at.
fn remember(host: &Host, record: LeaseRecord) {
    let lease = record.order.message.lease;
    let buyer = record.order.message.buyer;
    let (commands, _) = mpsc::channel(1);
    let view = View::of(record);
    let (_, view) = watch::channel(view);
    host.registry.insert(lease, LeaseHandle { buyer, commands, view });
}

/// Forgets ended leases that are too old, or the oldest where there are too many.
pub(crate) async fn forget_old(host: &Host) {
    let mut ended = host.registry.ended();
    ended.sort_by_key(|(_, at)| *at);
    let keep = std::time::Duration::from_secs(host.config.keep_days * 86_400);
    let excess = host.registry.len().saturating_sub(LEASES_MAX - 1);
    let now = outside::now();
    for (index, (lease, at)) in ended.into_iter().enumerate() {
        if now.since(at) > keep || index < excess {
            forget(host, lease).await;
        }
    }
}

/// Forgets one ended lease: its record and its logs.
pub(crate) async fn forget(host: &Host, lease: LeaseId) {
    let mut batch = Batch::default();
    batch.remove(LEASES, lease.as_bytes());
    super::quality::forget(&mut batch, lease);
    if let Err(error) = host.db.commit(batch).await {
        warn!(%error, "a lease can't be forgotten");
        return;
    }
    host.registry.remove(lease);
    match std::fs::remove_dir_all(lease::log_dir(host, lease)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(%error, "a log can't be removed");
        }
        _ => (),
    }
}
