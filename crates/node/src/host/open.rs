//! A new lease: every check, then the slot, the money and the disk, then yes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};
use tracing::info;
use welkin_lease::{Claim, ClaimError, Devices, HostLease, LeaseRecord, Preemption, Wanted};
use welkin_proto::lease::{
    ARGS_MAX, Accepted, COMMAND_BYTES_MAX, Launch, Open, Refusal, RefusalCode,
};
use welkin_proto::settle::SettleRefusal;
use welkin_proto::{ContainerOffer, Order, decode};
use welkin_store::CommitError;
use welkin_types::{AccountId, CapacityType, LeaseId, ReservationId, Tier, UnixMillis};

use super::lease::{self, Fresh};
use super::registry::{Command, LEASES_MAX};
use super::{Host, preempt, restore, terms};
use crate::outside;
use crate::settlement::SettlementError;

/// The most leases of one buyer that a host remembers.
const LEASES_PER_BUYER_MAX: usize = 2_000;
/// The most characters of a lease's name.
const NAME_LEN_MAX: usize = 128;

/// Why not, for machines and for people.
pub(super) type Refused = (RefusalCode, String);

fn invalid(detail: impl Into<String>) -> Refused {
    (RefusalCode::Invalid, detail.into())
}

/// Makes a lease for this buyer, or says why not.
pub(crate) async fn open(
    host: &Arc<Host>,
    buyer: AccountId,
    open: Open,
) -> Result<Accepted, Refusal> {
    let lease = open.order.message.lease;
    try_open(host, buyer, open).await.map_err(|(code, detail)| Refusal { lease, code, detail })
}

async fn try_open(host: &Arc<Host>, buyer: AccountId, open: Open) -> Result<Accepted, Refused> {
    let now = outside::now();
    if super::tier(host.sandboxes.as_ref()) < Tier::Container {
        let text = "this host can't isolate tenants and runs nobody's work".to_owned();
        return Err((RefusalCode::Isolation, text));
    }
    check_order(host, buyer, &open, now)?;
    let order = &open.order.message;
    let container = host
        .containers
        .iter()
        .find(|container| container.id == order.container)
        .ok_or_else(|| invalid("this host has no such container"))?;
    let launch = check_launch(&open, container)?;
    terms::check(&open.order.message, &launch, container)?;
    // Who has a reservation has paid for what follows.
    if launch.terms.reservation.is_none() && host.draining.load(Ordering::Acquire) {
        return Err((RefusalCode::Draining, "the host takes no new leases".to_owned()));
    }
    if host.registry.len() >= LEASES_MAX {
        restore::forget_old(host).await;
    }
    if host.registry.of(buyer).len() >= LEASES_PER_BUYER_MAX {
        return Err(invalid("too many of your leases are remembered here: `welkin rm` old ones"));
    }
    if host.unsure.is_full() {
        let text = "the settlement service has not answered for long: no new leases until it does";
        return Err((RefusalCode::Internal, text.to_owned()));
    }
    if host.registry.contains(order.lease) || host.unsure.contains(order.lease) {
        return Err(invalid("the lease id is in use"));
    }
    let reservation = launch.terms.reservation;
    let (claim, preemption) = claim(host, &open, &launch, now)?;
    host.exams.yield_to_order(order.container);
    let fencing = claim.fencing;
    if !claim.devices.is_empty() {
        let gpus: Vec<&str> = claim.devices.iter().map(String::as_str).collect();
        info!(lease = %order.lease, gpus = %gpus.join(","), "GPUs are given");
    }
    let mut record =
        LeaseRecord::new(open.order.clone(), host.delegation.clone(), launch, claim, now);
    record.matched = open.matched;
    if preemption.is_some() {
        record = record.waiting(now);
    }
    host.changed.notify_waiters();
    if let Err((refused, is_maybe_held)) = reserve_and_write(host, &record).await {
        if is_maybe_held {
            host.unsure.add(order.lease, order.expires).await;
        }
        // The record first: while it is being removed the id must not be taken again.
        restore::forget(host, order.lease).await;
        let given = {
            let mut slots = host.slots();
            preemption.into_iter().for_each(|preemption| slots.spare(preemption));
            slots.release(order.lease)
        };
        preempt::hand_out(host, given);
        host.changed.notify_waiters();
        return Err(refused);
    }
    let accepted = Accepted { lease: order.lease, fencing, at: now };
    let fresh =
        Fresh { secrets: open.secrets, tty: open.tty, stdin: open.stdin, files: open.files };
    lease::spawn(host, HostLease::new(record, host.policy, now), fresh, None);
    if let Some(preemption) = preemption {
        preempt::begin(host, accepted.lease, preemption).await;
    }
    if let Some(reservation) = reservation
        && !host.reservations.is_open(reservation)
        && let Some(handle) = host.registry.handle(accepted.lease)
    {
        // It ended while this lease was on its way into the registry.
        let _ = handle.commands.send(Command::ReservationEnded).await;
    }
    Ok(accepted)
}

fn check_order(host: &Host, buyer: AccountId, open: &Open, now: UnixMillis) -> Result<(), Refused> {
    let order: &Order = &open.order.message;
    if order.buyer != buyer {
        return Err(invalid("the order is of another account than the connection"));
    }
    if open.order.signer(&host.domain) != Ok(buyer) {
        return Err(invalid("the order is not signed by its buyer for this network"));
    }
    if order.host != host.key.id() || order.operator != host.operator {
        return Err(invalid("the order is for another host"));
    }
    if order.expires < now {
        return Err(invalid("the order has expired: check this machine's clock"));
    }
    let sha256: [u8; 32] = Sha256::digest(&open.launch).into();
    if sha256 != order.task_sha256 {
        return Err(invalid("the order names another task"));
    }
    let needed = order.price.cost(host.policy.exposure_seconds);
    if order.budget < needed {
        let text =
            format!("the budget {} does not cover the first seconds ({needed})", order.budget);
        return Err((RefusalCode::Funds, text));
    }
    Ok(())
}

fn check_launch(open: &Open, container: &ContainerOffer) -> Result<Launch, Refused> {
    let launch: Launch = decode(&open.launch).map_err(|_| invalid("the task is malformed"))?;
    let has = &container.resources;
    let fits = launch.cpu_milli <= has.cpu_milli
        && launch.memory_bytes <= has.memory_bytes
        && launch.shm_bytes <= launch.memory_bytes
        && launch.disk_bytes <= has.disk_bytes;
    if !fits || launch.cpu_milli == 0 || launch.memory_bytes == 0 {
        return Err(invalid(format!("the task does not fit the container ({has})")));
    }
    let lens = launch.argv.iter().map(String::len);
    let env = launch.env.iter().map(|(name, value)| name.len() + value.len() + 2);
    let secrets = open.secrets.iter().map(|(name, value)| name.len() + value.expose().len() + 2);
    let checkpoint = launch.checkpoint.iter();
    let checkpoint = checkpoint.flat_map(|kept| kept.argv.iter().map(String::len));
    let bytes: usize = lens.chain(env).chain(secrets).chain(checkpoint).sum();
    if launch.argv.len() > ARGS_MAX || bytes > COMMAND_BYTES_MAX {
        return Err(invalid("the command and its variables are too long"));
    }
    if launch.name.len() > NAME_LEN_MAX || launch.image.len() > 4_096 || launch.cwd.len() > 4_096 {
        return Err(invalid("a name or a path is too long"));
    }
    Ok(launch)
}

/// A slot, or where there is none the place of a spot lease, for which the order waits.
fn claim(
    host: &Host,
    open: &Open,
    launch: &Launch,
    now: UnixMillis,
) -> Result<(Claim, Option<Preemption>), Refused> {
    let order = &open.order.message;
    if let Some(reservation) = launch.terms.reservation {
        return claim_on(host, reservation, order).map(|claim| (claim, None));
    }
    let wanted = Wanted {
        lease: order.lease,
        container: order.container,
        offer: open.offer,
        buyer: order.buyer,
        capacity: launch.terms.capacity,
        price: order.price,
    };
    // Both under one lock: of two orders for one slot one has it, and the other sees that.
    let mut slots = host.slots();
    let claimed = match slots.claim(now, &wanted) {
        Err(ClaimError::Busy { .. }) if open.may_preempt => {
            slots.preempt(&wanted).map(|preemption| {
                let claim = Claim { fencing: preemption.fencing, devices: Devices::new() };
                (claim, Some(preemption))
            })
        }
        claimed => claimed.map(|claim| (claim, None)),
    };
    let is_on_demand = wanted.capacity != CapacityType::Spot && !open.may_preempt;
    let is_only_spot = is_on_demand && slots.is_preemptible(order.container);
    let withdrawn: Vec<_> = slots.withdrawn_of(order.container).into_iter().cloned().collect();
    drop(slots);
    let why_out = claimed.as_ref().err().and_then(|_| host.health.why_out(&withdrawn));
    claimed.map_err(|error| match error {
        ClaimError::Busy { .. } if why_out.is_some() && !is_only_spot => {
            (RefusalCode::Draining, why_out.unwrap_or_default())
        }
        ClaimError::Busy { .. } if is_only_spot => {
            let text = "only slots of spot leases are left: other hosts are asked first";
            (RefusalCode::OnlySpot, text.to_owned())
        }
        ClaimError::Busy { .. } => (RefusalCode::Busy, error.to_string()),
        _ => invalid(error.to_string()),
    })
}

/// The slot of a reservation of the same buyer.
fn claim_on(host: &Host, reservation: ReservationId, order: &Order) -> Result<Claim, Refused> {
    let is_its = host.reservations.find(reservation, order.buyer).is_some_and(|handle| {
        handle.container == order.container && handle.view.borrow().end.is_none()
    });
    if !is_its {
        return Err(invalid(ClaimError::Unreserved.to_string()));
    }
    host.slots().claim_on(reservation, order.lease).map_err(|error| match error {
        ClaimError::InUse { .. } => (RefusalCode::Busy, error.to_string()),
        ClaimError::OutOfService => (RefusalCode::Draining, error.to_string()),
        _ => invalid(error.to_string()),
    })
}

/// Money aside and the lease on the disk, both at once. An error comes with whether money may be
/// held all the same.
async fn reserve_and_write(host: &Host, record: &LeaseRecord) -> Result<(), (Refused, bool)> {
    let order = &record.order.message;
    let aside = lease::hold(order.price, order.budget);
    if record.launch.terms.reservation.is_some() {
        // The reservation pays.
        let written = lease::write_first(host, record).await;
        return written.map_err(|error| ((RefusalCode::Internal, cant_write(&error)), false));
    }
    let (reserved, written) = tokio::join!(
        host.settle.reserve(record.order.clone(), aside),
        lease::write_first(host, record),
    );
    if let Err(error @ SettlementError::NoCredit(_)) = reserved {
        // Nothing was sent.
        return Err(((RefusalCode::Busy, crate::chain(&error)), false));
    }
    if let Err(error) = reserved {
        return Err(not_set_aside(order.lease, error));
    }
    written.map_err(|error| ((RefusalCode::Internal, cant_write(&error)), true))
}

fn cant_write(error: &CommitError) -> String {
    format!("the host can't write: {error}")
}

/// What the buyer is told where no money was set aside, and whether some may be all the same.
pub(super) fn not_set_aside(lease: LeaseId, error: SettlementError) -> (Refused, bool) {
    let is_maybe_held = error.is_retryable() || matches!(error, SettlementError::Confused);
    let refused = match error {
        SettlementError::Refused(refusal @ SettleRefusal::Funds { .. }) => {
            (RefusalCode::Funds, refusal.to_string())
        }
        SettlementError::Refused(refusal) => invalid(refusal.to_string()),
        other => {
            // Who runs the host must know, too: it may lack coins for gas, or a node.
            let error = crate::chain(&other);
            tracing::warn!(%error, %lease, "no money was set aside");
            (RefusalCode::Internal, error)
        }
    };
    (refused, is_maybe_held)
}
