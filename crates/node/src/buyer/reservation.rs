//! A reservation as its buyer remembers it, and who pays for it while nothing runs.
//!
//! Each of the two sides counts by its own clock from when it said, or heard, yes: so the buyer is
//! never ahead of the host, and no voucher is for more than is due there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};
use welkin_lease::{DAY_SECONDS, Reservation, ReservationTerms, Settlement};
use welkin_proto::index::IndexRequest;
use welkin_proto::lease::{FromHost, RefusalCode, ToHost};
use welkin_proto::{
    Delegation, NodeAddr, Offer, Order, ReceiptAck, ReservationReceipt, ReservationReceiptFile,
    ReservationView, Signed, SignedByAccount, Voucher,
};
use welkin_types::{
    Class, LeaseId, Region, ReservationEnd, ReservationId, Resources, Tier, UnixMillis,
};

use super::{Buyer, BuyerError, HostSession};
use crate::outside;

/// How long a host may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time between two payments.
const PAY_EVERY_MAX: Duration = Duration::from_secs(300);
/// The longest pause after a payment that did not arrive.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A host that is away for longer, while the network is there, has failed in every day that this
/// touches.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// A host that is away for so long after the term's end is not waited for.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3_600);

/// A reservation as its buyer remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReservation {
    /// Its id.
    pub reservation: ReservationId,
    /// Its name for people.
    pub name: String,
    /// Where the host is.
    pub host: NodeAddr,
    /// The order that the host accepted.
    pub order: SignedByAccount<Order>,
    /// The kind of the container.
    pub class: Class,
    /// What a lease on it can have.
    pub resources: Resources,
    /// How it is isolated.
    pub tier: Tier,
    /// Where it stands.
    pub region: Region,
    /// How late a payment may be, in seconds.
    pub grace_seconds: u16,
    /// What is due and promised, by the clock of this machine.
    pub machine: Reservation,
    /// When the host last answered; `None` before its yes was heard.
    pub seen: Option<UnixMillis>,
    /// Days in which this side saw the host away.
    pub away_days: BTreeSet<u32>,
    /// What the host said last.
    pub view: Option<ReservationView>,
    /// When this side heard that it is over, or gave it up.
    pub ended: Option<UnixMillis>,
    /// Whether no receipt is waited for any more.
    pub given_up: bool,
    /// More about how it stands.
    pub detail: Option<String>,
}

impl KeptReservation {
    pub(super) fn new(
        reservation: ReservationId,
        name: &str,
        offer: &Offer,
        order: SignedByAccount<Order>,
        machine: Reservation,
    ) -> Self {
        Self {
            reservation,
            name: name.to_owned(),
            host: offer.addr.clone(),
            order,
            class: offer.class.clone(),
            resources: offer.resources.clone(),
            tier: offer.tier,
            region: offer.region.clone(),
            grace_seconds: offer.reserved.map_or(0, |terms| terms.grace_seconds),
            machine,
            seen: None,
            away_days: BTreeSet::new(),
            view: None,
            ended: None,
            given_up: false,
            detail: None,
        }
    }

    /// Why it is over, if it is, as far as the host has said.
    pub fn end(&self) -> Option<ReservationEnd> {
        self.view.as_ref().and_then(|view| view.end)
    }

    /// The same in words, also where nobody said so.
    pub fn end_text(&self) -> Option<String> {
        match (self.end(), self.ended) {
            (Some(end), _) => Some(end.text().to_owned()),
            (None, Some(_)) => Some(self.detail.clone().unwrap_or_default()),
            (None, None) => None,
        }
    }

    /// The days that are not paid for, by the host's word.
    pub fn failed_days(&self) -> Vec<u64> {
        self.machine.failed_days().collect()
    }

    /// How often it is paid.
    pub fn pay_every(&self) -> Duration {
        (Duration::from_secs(self.grace_seconds.into()) / 4)
            .clamp(Duration::from_millis(250), PAY_EVERY_MAX)
    }

    /// When the next payment is made at the latest, while it is paid for.
    pub fn next_payment(&self) -> Option<UnixMillis> {
        let is_open = self.end_text().is_none();
        self.seen.filter(|_| is_open).map(|seen| seen.after(self.pay_every()))
    }

    /// Takes in what the host says.
    pub(super) fn heard(&mut self, now: UnixMillis, view: ReservationView) {
        if self.seen.is_none() {
            // By this clock it begins with the yes.
            let terms = ReservationTerms { start: now, ..*self.machine.terms() };
            if let Ok(begun) = Reservation::begin(terms, self.machine.promised()) {
                self.machine = begun;
            }
        }
        self.seen = Some(now);
        let days = view.failed_days.iter().map(|day| u64::from(*day));
        self.machine.take_failed(now, days);
        if view.end.is_some() {
            self.ended.get_or_insert(now);
        }
        self.view = Some(view);
    }

    /// The host is away since then, and the network is there: notes the days of it.
    fn away(&mut self, now: UnixMillis, since: UnixMillis) {
        if now.since(since) <= AWAY_MAX {
            return;
        }
        let start = self.machine.terms().start;
        let day = |at: UnixMillis| {
            u32::try_from(at.since(start).as_secs() / DAY_SECONDS).unwrap_or(u32::MAX)
        };
        let last = day(now.min(self.machine.until()));
        self.away_days.extend(day(since).min(last)..=last);
    }

    /// Whether this side can sign under what the host states.
    fn objection(&self, receipt: &ReservationReceipt, was_cancelled: bool) -> Option<String> {
        let missing: Vec<_> =
            self.away_days.iter().filter(|day| !receipt.failed_days.contains(day)).collect();
        if !missing.is_empty() {
            return Some(format!("it was away on the days {missing:?} of the term and bills them"));
        }
        if receipt.promised_seconds > self.machine.promised() {
            return Some("it counts more as promised than was".to_owned());
        }
        let failed = receipt.failed_days.iter().map(|day| u64::from(*day)).collect();
        let over = (receipt.elapsed_seconds, receipt.end);
        let terms = self.machine.terms();
        let due = Settlement::of(terms, receipt.promised_seconds, &failed, over).seconds;
        if receipt.seconds > due {
            return Some(format!("it bills {} s, and {due} s are due", receipt.seconds));
        }
        let until = self.machine.until();
        let is_early = self.ended.is_some_and(|ended| ended.after(AWAY_MAX) < until);
        match receipt.end {
            ReservationEnd::Cancelled if !was_cancelled => Some("nobody here ended it".to_owned()),
            ReservationEnd::Term if is_early => Some("the term is not over".to_owned()),
            _ => None,
        }
    }
}

impl Buyer {
    fn sign_for(&self, kept: &KeptReservation, seconds: u64) -> Option<SignedByAccount<Voucher>> {
        let order = &kept.order.message;
        let voucher = Voucher {
            lease: order.lease,
            operator: order.operator,
            amount: order.price.cost(seconds),
            seconds,
        };
        SignedByAccount::sign(&self.domain, &self.account, voucher).ok()
    }

    /// Pays what is due of a reservation and hears how it stands; at its end signs for what is kept
    /// and takes the receipt. The file is written before a promise is sent.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where the host can't be reached or does not know it.
    pub async fn pay_reservation(
        &self,
        kept: &mut KeptReservation,
        is_cancelled: bool,
    ) -> Result<(), BuyerError> {
        let now = outside::now();
        let due = kept.machine.due(now);
        let mut message = ToHost::Reservation(kept.reservation);
        // Nothing is promised for what the host has not said yes to.
        if let Some(heard) = kept.view.as_ref().filter(|view| view.end.is_none()) {
            let heard = heard.promised;
            if kept.machine.voucher(now, due) {
                self.home.save_reservation(kept).map_err(BuyerError::Home)?;
            }
            // Also one that was written down and did not arrive; less than that where the host says
            // since that days of it were failed.
            let promised = kept.machine.promised().min(due);
            if let Some(voucher) = self.sign_for(kept, promised).filter(|_| promised > heard) {
                message = ToHost::Voucher(Box::new(voucher));
            }
        }
        let mut session = self.connect(&kept.host).await?;
        let mut view = exchange(&mut session, message).await?;
        if is_cancelled && view.end.is_none() {
            view = exchange(&mut session, ToHost::Cancel(kept.reservation)).await?;
        }
        let last = view.last_seconds.filter(|last| *last < kept.machine.promised());
        if view.receipt.is_none()
            && let Some(voucher) = last.and_then(|last| self.sign_for(kept, last))
        {
            // Less than was promised before: it can only be better.
            view = exchange(&mut session, ToHost::Voucher(Box::new(voucher))).await?;
        }
        let receipt = view.receipt.clone();
        kept.heard(outside::now(), view);
        self.home.save_reservation(kept).map_err(BuyerError::Home)?;
        if let Some((receipt, operator)) = receipt {
            self.sign_reservation(kept, receipt, operator, is_cancelled, &session).await?;
        }
        session.finish().await;
        Ok(())
    }

    async fn sign_reservation(
        &self,
        kept: &mut KeptReservation,
        receipt: Signed<ReservationReceipt>,
        operator: SignedByAccount<Delegation>,
        was_cancelled: bool,
        session: &HostSession,
    ) -> Result<(), BuyerError> {
        let seconds = kept.view.as_ref().and_then(|view| view.last_seconds).unwrap_or(0);
        let mut file = ReservationReceiptFile {
            domain: self.domain,
            order: kept.order.clone(),
            operator,
            receipt,
            voucher: self.sign_for(kept, seconds),
            ack: None,
        };
        let wrong = match file.verify() {
            Ok(receipt) => kept.objection(&receipt, was_cancelled),
            Err(error) => Some(error.to_string()),
        };
        match wrong {
            None => {
                let lease = kept.reservation.lane();
                let ack = ReceiptAck { lease, receipt_sha256: file.receipt.digest() };
                file.ack = SignedByAccount::sign(&self.domain, &self.account, ack).ok();
                if let Some(ack) = &file.ack {
                    session.send(ToHost::Ack(Box::new(ack.clone()))).await?;
                }
            }
            Some(why) => {
                warn!(id = %kept.reservation, why, "a reservation's receipt is not signed");
                kept.detail = Some(format!("the host's receipt is not signed: {why}"));
                self.home.save_reservation(kept).map_err(BuyerError::Home)?;
            }
        }
        self.home.save_reservation_receipt(kept.reservation, &file).map_err(BuyerError::Home)
    }

    /// What the host says of a reservation now.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where it can't be reached or does not know it.
    pub async fn look_at_reservation(
        &self,
        kept: &KeptReservation,
    ) -> Result<ReservationView, BuyerError> {
        let mut session = self.connect(&kept.host).await?;
        let view = exchange(&mut session, ToHost::Reservation(kept.reservation)).await;
        session.close();
        view
    }

    /// Whether an indexer answers: a host that does not is then away by itself.
    async fn is_network_there(&self) -> bool {
        self.ask(IndexRequest::Indexers).await.is_ok()
    }
}

async fn exchange(
    session: &mut HostSession,
    message: ToHost,
) -> Result<ReservationView, BuyerError> {
    session.send(message).await?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, session.recv()).await;
    match answer.map_err(|_| BuyerError::HostSilent(ANSWER_TIMEOUT))? {
        Some(FromHost::Reservation(view)) => Ok(*view),
        Some(FromHost::Refused(refusal)) => {
            Err(BuyerError::HostRefuses { code: refusal.code, detail: refusal.detail })
        }
        _ => Err(BuyerError::HostLost),
    }
}

/// Pays for a reservation until it is over and its receipt is here.
pub async fn keep_reservation(buyer: Arc<Buyer>, id: ReservationId) {
    // Since when the host was asked in vain.
    let mut away_since = None;
    loop {
        let mut kept = match buyer.home.reservation(id) {
            Ok(Some(kept)) if !buyer.home.is_reservation_settled(&kept) => kept,
            Ok(_) => return,
            Err(error) => {
                return warn!(error = %crate::chain(&error), %id, "a reservation can't be kept");
            }
        };
        let was_over = kept.end().is_some();
        let paid = buyer.pay_reservation(&mut kept, buyer.home.is_cancelled(id)).await;
        let pause = match paid {
            Ok(()) => {
                away_since = None;
                if let Some(end) = kept.end().filter(|_| !was_over) {
                    info!(%id, reason = %end, "a reservation is over");
                }
                let now = outside::now();
                let is_overdue = now > kept.machine.until().after(GIVEN_UP_AFTER);
                if is_overdue && !buyer.home.is_reservation_settled(&kept) {
                    give_up(&buyer, &mut kept, "the host gives no receipt").await;
                }
                kept.pay_every()
            }
            Err(error) => {
                debug!(error = %crate::chain(&error), %id, "a reservation is not paid");
                let since = *away_since.get_or_insert_with(outside::now);
                failed(&buyer, &mut kept, (error, since)).await;
                kept.pay_every().min(RETRY_MAX)
            }
        };
        // The end is looked at when it comes.
        let left = kept.machine.until().since(outside::now()) + Duration::from_millis(250);
        let is_ending = kept.end().is_some();
        let pause = if is_ending { Duration::from_secs(1) } else { pause.min(left) };
        tokio::time::sleep(pause).await;
    }
}

/// What a payment that did not arrive says.
async fn failed(
    buyer: &Buyer,
    kept: &mut KeptReservation,
    (error, since): (BuyerError, UnixMillis),
) {
    let now = outside::now();
    if let BuyerError::HostRefuses { code: RefusalCode::Unknown, detail } = &error {
        // It has forgotten it, or never made it.
        kept.given_up = true;
        kept.ended.get_or_insert(now);
        kept.detail.get_or_insert(detail.clone());
    } else if now > kept.machine.until().after(GIVEN_UP_AFTER) {
        return give_up(buyer, kept, "the host can't be reached any more").await;
    } else if buyer.is_network_there().await {
        kept.away(now, since);
    } else {
        return;
    }
    if let Err(error) = buyer.home.save_reservation(kept) {
        warn!(error = %crate::chain(&error), "a reservation can't be written down");
    }
}

/// Waits for this host no longer.
async fn give_up(buyer: &Buyer, kept: &mut KeptReservation, why: &str) {
    kept.given_up = true;
    kept.ended.get_or_insert(outside::now());
    kept.detail.get_or_insert(why.to_owned());
    // What is still set aside comes back some time after the term; refused until then.
    let lane: LeaseId = kept.reservation.lane();
    let _ = buyer.settle.release(lane).await;
    if let Err(error) = buyer.home.save_reservation(kept) {
        warn!(error = %crate::chain(&error), "a reservation can't be written down");
    }
}

#[cfg(test)]
mod tests;
