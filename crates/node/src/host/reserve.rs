//! A new reservation: every check, then the slot, the money and the disk, then yes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tracing::info;
use welkin_lease::{Reservation, ReservationTerms, Till, Wanted};
use welkin_proto::lease::{Refusal, RefusalCode};
use welkin_proto::{ContainerOffer, Order, ReservationAsk, ReservationView, Reserve};
use welkin_types::{AccountId, CapacityType, ReservationId, UnixMillis};

use super::open::{Refused, not_set_aside};
use super::reservation::{self, Record, Task};
use super::reservations::{OPEN_MAX, PER_BUYER_MAX, forget};
use super::{Host, preempt};
use crate::outside;
use crate::settlement::SettlementError;

/// How old an order may be.
const ORDER_LASTING: Duration = Duration::from_secs(60);

fn invalid(detail: impl Into<String>) -> Refused {
    (RefusalCode::Invalid, detail.into())
}

fn busy(detail: impl Into<String>) -> Refused {
    (RefusalCode::Busy, detail.into())
}

/// Makes a reservation for this buyer, or says why not.
pub(crate) async fn reserve(
    host: &Arc<Host>,
    buyer: AccountId,
    reserve: Reserve,
) -> Result<ReservationView, Refusal> {
    let lease = reserve.order.message.lease;
    try_reserve(host, buyer, reserve).await.map_err(|(code, detail)| Refusal {
        lease,
        code,
        detail,
    })
}

async fn try_reserve(
    host: &Arc<Host>,
    buyer: AccountId,
    reserve: Reserve,
) -> Result<ReservationView, Refused> {
    let now = outside::now();
    let ask = check(host, buyer, &reserve, now)?;
    let order = &reserve.order.message;
    let id = ReservationId::of_lane(order.lease);
    let (all, its) = host.reservations.open(buyer);
    if all >= OPEN_MAX {
        return Err(busy(format!("this host keeps {OPEN_MAX} reservations, and no more")));
    }
    if its >= PER_BUYER_MAX {
        let text = format!("you have {PER_BUYER_MAX} reservations on this host, and no more");
        return Err(invalid(text));
    }
    let is_used = host.reservations.contains(id)
        || host.registry.contains(order.lease)
        || host.unsure.contains(order.lease);
    if is_used {
        return Err(invalid("the reservation id is in use"));
    }
    let terms = ReservationTerms {
        price: order.price,
        start: now,
        term_seconds: u64::from(ask.term_seconds),
    };
    let machine = Reservation::begin(terms, reserve.voucher.message.seconds)
        .map_err(|error| invalid(error.to_string()))?;
    let wanted = Wanted {
        lease: order.lease,
        container: order.container,
        offer: reserve.offer,
        buyer,
        capacity: CapacityType::Reserved,
        price: order.price,
    };
    // Nobody's spot lease ends for it: the next host may have a free slot.
    let claim = host.slots().claim(now, &wanted).map_err(|error| busy(error.to_string()))?;
    host.changed.notify_waiters();
    let record = Record {
        order: reserve.order.clone(),
        operator: host.delegation.clone(),
        ask,
        devices: claim.devices,
        machine,
        till: Till::new(reserve.voucher),
        secured: reservation::hold(&terms),
        ended: None,
        receipt: None,
        ack: None,
    };
    if let Err((refused, is_maybe_held)) = set_aside_and_write(host, &record, claim.fencing).await {
        if is_maybe_held {
            host.unsure.add(order.lease, order.expires).await;
        }
        forget(host, id).await;
        let given = host.slots().release(order.lease);
        preempt::hand_out(host, given);
        host.changed.notify_waiters();
        return Err(refused);
    }
    info!(%id, %buyer, term_seconds = record.ask.term_seconds, "a container is reserved");
    let task = Task::new(host, record, None);
    let view = task.view();
    host.shutdown.spawn_until_asked("reservation", task.run());
    Ok(view)
}

fn check(
    host: &Host,
    buyer: AccountId,
    reserve: &Reserve,
    now: UnixMillis,
) -> Result<ReservationAsk, Refused> {
    if host.draining.load(Ordering::Acquire) {
        return Err((RefusalCode::Draining, "the host takes no new reservations".to_owned()));
    }
    if host.sandboxes.is_none() {
        let text = "this host can't isolate tenants and runs nobody's work".to_owned();
        return Err((RefusalCode::Isolation, text));
    }
    if host.unsure.is_full() {
        let text = "the settlement service has not answered for long".to_owned();
        return Err((RefusalCode::Internal, text));
    }
    let order = &reserve.order.message;
    if order.buyer != buyer || reserve.order.signer(&host.domain) != Ok(buyer) {
        return Err(invalid("the order is not signed by the account of the connection"));
    }
    if order.host != host.key.id() || order.operator != host.operator {
        return Err(invalid("the order is for another host"));
    }
    if order.issued.after(ORDER_LASTING) < now || order.expires < now {
        return Err(invalid("the order has expired: check this machine's clock"));
    }
    let sha256: [u8; 32] = Sha256::digest(&reserve.ask).into();
    if sha256 != order.task_sha256 {
        return Err(invalid("the order names other terms"));
    }
    let ask = ReservationAsk::from_bytes(&reserve.ask);
    let ask = ask.map_err(|_| invalid("the terms are malformed"))?;
    if ask.name.len() > ReservationAsk::NAME_LEN_MAX {
        return Err(invalid("the name is too long"));
    }
    let container = host.containers.iter().find(|container| container.id == order.container);
    let container = container.ok_or_else(|| invalid("this host has no such container"))?;
    check_terms(order, &ask, container)?;
    check_first(host, buyer, reserve, &ask)?;
    Ok(ask)
}

/// What was good when it was offered and is not any more: the next host may be better.
fn check_terms(
    order: &Order,
    ask: &ReservationAsk,
    container: &ContainerOffer,
) -> Result<(), Refused> {
    let Some(terms) = container.reserved else {
        return Err(busy("this host keeps no reservations"));
    };
    let term = u64::from(ask.term_seconds);
    if !terms.admits(term) {
        let (min, max) = (terms.term_seconds_min, terms.term_seconds_max);
        return Err(busy(format!("a term here is {min} to {max} s, not {term} s")));
    }
    if ask.grace_seconds > terms.grace_seconds {
        return Err(busy(format!("a payment may be {} s late now", terms.grace_seconds)));
    }
    if order.price < terms.price {
        return Err(busy(format!("the price is {} now", terms.price)));
    }
    if order.budget < order.price.cost(term) {
        let text = format!(
            "the budget {} is less than the term costs ({})",
            order.budget,
            order.price.cost(term)
        );
        return Err((RefusalCode::Funds, text));
    }
    Ok(())
}

/// The first voucher: what is paid ahead, and no more.
fn check_first(
    host: &Host,
    buyer: AccountId,
    reserve: &Reserve,
    ask: &ReservationAsk,
) -> Result<(), Refused> {
    let (order, voucher) = (&reserve.order.message, &reserve.voucher.message);
    let ahead = welkin_lease::COMMITMENT_SECONDS.min(u64::from(ask.term_seconds));
    let is_good = voucher.lease == order.lease
        && voucher.operator == order.operator
        && voucher.seconds == ahead
        && voucher.amount == order.price.cost(ahead)
        && reserve.voucher.signer(&host.domain) == Ok(buyer);
    if is_good { Ok(()) } else { Err(invalid(format!("{ahead} s are to be paid ahead"))) }
}

/// Money aside and the reservation on the disk, both at once. An error comes with whether money may
/// be held all the same.
async fn set_aside_and_write(
    host: &Host,
    record: &Record,
    fencing: u64,
) -> Result<(), (Refused, bool)> {
    let order = &record.order.message;
    let aside = record.secured.min(order.budget);
    let (reserved, written) = tokio::join!(
        host.settle.reserve(record.order.clone(), aside),
        record.write(host, Some(fencing)),
    );
    if let Err(error @ SettlementError::NoCredit(_)) = reserved {
        return Err((busy(crate::chain(&error)), false));
    }
    if let Err(error) = reserved {
        return Err(not_set_aside(order.lease, error));
    }
    written
        .map_err(|error| ((RefusalCode::Internal, format!("the host can't write: {error}")), true))
}
