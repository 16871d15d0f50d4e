//! The task that owns one reservation: it keeps the slot, takes vouchers, cashes what is safe, and
//! makes the final statement.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_lease::{DAY_SECONDS, Devices, Reservation, ReservationTerms, Till};
use welkin_proto::{
    Delegation, Order, ReceiptAck, ReservationAsk, ReservationReceipt, ReservationView, Signed,
    SignedByAccount, Voucher,
};
use welkin_store::{Batch, CommitError};
use welkin_types::{ReservationId, UnixMillis, Usd};

use super::cashier::{Cashier, Said};
use super::reservations::{COMMANDS_MAX, Command, DOWN_MAX, Handle, RESERVATIONS, put_alive};
use super::restore::{FENCING, META};
use super::{Host, preempt, registry};
use crate::outside;
use crate::settlement::SettlementError;

/// Money set aside, as seconds: a day, which is cashed when it is over, what is paid ahead, and an
/// hour in which to cash.
const HOLD_SECONDS: u64 = DAY_SECONDS + 2 * welkin_lease::COMMITMENT_SECONDS;
/// The longest time between two looks at the clock.
const TICK: Duration = Duration::from_secs(10);
/// The pause after a voucher that could not be cashed.
const CASH_PAUSE: Duration = Duration::from_secs(60);
/// How long the buyer may take to sign for what is kept, where that is less than it promised.
const LAST_VOUCHER: Duration = Duration::from_secs(900);
/// How long after a restart nobody's payment is late: it could not be made.
const BUYER_RETURN: Duration = Duration::from_secs(60);

/// A reservation as it stands on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The buyer's order.
    pub(crate) order: SignedByAccount<Order>,
    /// Who vouches for the host.
    pub(crate) operator: SignedByAccount<Delegation>,
    /// For how long, and on which terms.
    pub(crate) ask: ReservationAsk,
    /// What its slot owns.
    pub(crate) devices: Devices,
    pub(crate) machine: Reservation,
    pub(crate) till: Till,
    /// What was paid, and what is aside beyond it, when that was last known.
    pub(crate) secured: Usd,
    /// When it ended, and the slot with it.
    pub(crate) ended: Option<UnixMillis>,
    pub(crate) receipt: Option<Signed<ReservationReceipt>>,
    pub(crate) ack: Option<SignedByAccount<ReceiptAck>>,
}

/// How much to have aside beyond what is cashed.
pub(super) fn hold(terms: &ReservationTerms) -> Usd {
    terms.price.cost(HOLD_SECONDS.min(terms.term_seconds)).max(Usd::from_micros(1))
}

impl Record {
    pub(super) const fn id(&self) -> ReservationId {
        ReservationId::of_lane(self.order.message.lease)
    }

    /// Writes it down, with the fencing number that was used for it.
    pub(super) async fn write(&self, host: &Host, fencing: Option<u64>) -> Result<(), CommitError> {
        let mut batch = Batch::default();
        self.put(&mut batch);
        if let Some(fencing) = fencing {
            batch.put(META, FENCING, fencing.to_le_bytes().to_vec());
            put_alive(&mut batch);
        }
        host.db.commit(batch).await
    }

    fn put(&self, batch: &mut Batch) {
        match postcard::to_stdvec(self) {
            Ok(bytes) => batch.put(RESERVATIONS, self.id().as_bytes(), bytes),
            Err(error) => warn!(%error, "a reservation can't be encoded"),
        }
    }

    fn view(&self, host: &Host, now: UnixMillis) -> ReservationView {
        let (machine, id) = (&self.machine, self.id());
        let end = machine.end();
        ReservationView {
            reservation: id,
            start: machine.terms().start,
            until: machine.until(),
            promised: machine.promised(),
            failed_days: failed_days(machine),
            lease: host.slots().guest(id),
            end,
            last_seconds: end.map(|_| machine.settlement(now).seconds),
            receipt: self.receipt.clone().map(|receipt| (receipt, self.operator.clone())),
        }
    }
}

fn failed_days(machine: &Reservation) -> Vec<u32> {
    machine.failed_days().filter_map(|day| u32::try_from(day).ok()).collect()
}

/// Owns one reservation until it is over.
pub(crate) struct Task {
    host: Arc<Host>,
    record: Record,
    queue: mpsc::Receiver<Command>,
    publish: watch::Sender<ReservationView>,
    ended: watch::Sender<Option<UnixMillis>>,
    cashier: Cashier,
    /// No voucher is cashed before this.
    cash_at: UnixMillis,
    /// No payment is late before this.
    patient_until: UnixMillis,
    /// When the last voucher is waited for no longer.
    close_at: Option<UnixMillis>,
    is_closing: bool,
    /// When it last looked at the clock.
    advanced: UnixMillis,
}

impl Task {
    /// Makes a reservation known; `restored` is when the host found it on its disk.
    pub(super) fn new(host: &Arc<Host>, record: Record, restored: Option<UnixMillis>) -> Self {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (publish, view) = watch::channel(record.view(host, outside::now()));
        let (ended, ended_at) = watch::channel(record.ended);
        let order = &record.order.message;
        let (buyer, container, price) = (order.buyer, order.container, order.price);
        let handle = Handle { buyer, container, price, commands, view, ended: ended_at };
        host.reservations.insert(record.id(), handle);
        Self {
            host: Arc::clone(host),
            queue,
            publish,
            ended,
            cashier: Cashier::new(host.settle.clone(), order.lease),
            record,
            cash_at: UnixMillis(0),
            patient_until: restored.map_or(UnixMillis(0), |now| now.after(BUYER_RETURN)),
            close_at: None,
            is_closing: false,
            advanced: outside::now(),
        }
    }

    pub(super) fn view(&self) -> ReservationView {
        self.record.view(&self.host, outside::now())
    }

    pub(super) async fn run(mut self) {
        while self.record.receipt.is_none() {
            let wake = self.advance().await;
            self.show();
            tokio::select! {
                command = self.queue.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                said = self.cashier.said() => self.said(said).await,
                () = tokio::time::sleep_until(Instant::now() + wake.since(outside::now())) => (),
            }
        }
        self.show();
        while self.record.ack.is_none() {
            // The receipt is made; the buyer may still sign under it.
            match self.queue.recv().await {
                Some(Command::Ack(ack)) => {
                    self.record.ack = Some(*ack);
                    self.save().await;
                }
                Some(_) => (),
                None => return,
            }
        }
    }

    /// Does what the time has brought; says when to look again at the latest.
    async fn advance(&mut self) -> UnixMillis {
        let now = outside::now();
        // A machine that slept, or whose clock was set, was away like one that was off.
        let before = std::mem::replace(&mut self.advanced, now);
        if now.since(before) > DOWN_MAX {
            self.record.machine.host_failed(now, before, now);
            self.patient_until = now.after(BUYER_RETURN);
            self.save().await;
        }
        // What is out of service can't be used, so its days are not paid for.
        if self.record.machine.end().is_none()
            && !self.host.slots().is_usable(self.record.id().lane())
        {
            let failed = self.record.machine.failed_days().count();
            self.record.machine.host_failed(now, before.min(now), now);
            if self.record.machine.failed_days().count() > failed {
                self.save().await;
            }
        }
        let grace = u64::from(self.record.ask.grace_seconds);
        let grace = if now < self.patient_until { u64::MAX } else { grace };
        self.record.machine.tick(now, grace);
        if self.record.machine.end().is_some() {
            self.finish(now).await;
            return self.close(now);
        }
        if now >= self.cash_at
            && !self.cashier.is_waiting()
            && let Some(voucher) = self.record.till.due(&self.record.machine, now)
        {
            let terms = self.record.machine.terms();
            let left = self.record.order.message.budget.saturating_sub(voucher.message.amount);
            self.cashier.redeem(voucher, hold(terms).min(left));
        }
        let tick = TICK.min(Duration::from_secs(grace.min(3_600)) / 4);
        now.after(tick).min(self.record.machine.until())
    }

    /// The slot comes free, and what runs on it ends.
    async fn finish(&mut self, now: UnixMillis) {
        if self.record.ended.is_some() {
            return;
        }
        let id = self.record.id();
        let reason = self.record.machine.end().map_or("", welkin_types::ReservationEnd::code);
        info!(%id, reason, "a reservation is over");
        self.record.ended = Some(now);
        // Nobody hears of it before it is on the disk.
        self.save().await;
        self.ended.send_replace(self.record.ended);
        self.show();
        let guest = self.host.slots().guest(id);
        if let Some(handle) = guest.and_then(|lease| self.host.registry.handle(lease)) {
            // Not by this task: two that wait for each other would wait for ever.
            self.host.shutdown.spawn_until_asked("reservation-ended", async move {
                let _ = handle.commands.send(registry::Command::ReservationEnded).await;
            });
        }
        let given = self.host.slots().release(id.lane());
        preempt::hand_out(&self.host, given);
        self.host.changed.notify_waiters();
    }

    /// Closes the account once the last voucher is there, or is waited for no longer.
    fn close(&mut self, now: UnixMillis) -> UnixMillis {
        let (machine, till) = (&self.record.machine, &self.record.till);
        let close_at = *self.close_at.get_or_insert_with(|| now.after(LAST_VOUCHER));
        if self.is_closing || till.lacks(machine, now) && now < close_at {
            return close_at.max(now.after(TICK));
        }
        self.is_closing = true;
        self.cashier.close(till.last(machine, now).cloned());
        now.after(TICK)
    }

    async fn command(&mut self, command: Command) {
        let now = outside::now();
        match command {
            Command::Voucher(voucher, done) => {
                self.voucher(now, *voucher).await;
                self.show();
                let _ = done.send(());
            }
            Command::Cancel(done) => {
                self.record.machine.cancel(now);
                self.finish(now).await;
                self.show();
                let _ = done.send(());
            }
            Command::Void => {
                self.record.machine.give_up(now);
                self.finish(now).await;
            }
            Command::Failed => {
                self.record.machine.host_failed(now, now, now);
                self.save().await;
            }
            // Signed before the end: nothing to sign yet.
            Command::Ack(_) => (),
        }
    }

    async fn voucher(&mut self, now: UnixMillis, voucher: SignedByAccount<Voucher>) {
        // A promise that nothing stands behind is none.
        let is_covered = voucher.message.amount <= self.record.secured;
        let Record { till, machine, .. } = &mut self.record;
        if is_covered && !self.is_closing && till.take(machine, now, voucher) {
            self.save().await;
        }
    }

    async fn said(&mut self, said: Said) {
        match said {
            Said::Redeemed { voucher, answer: Ok(view) } => {
                self.record.till.cashed_now(voucher.message.seconds);
                self.record.secured = view.paid.checked_add(view.held).unwrap_or(Usd::MAX);
                self.save().await;
            }
            Said::Redeemed { answer: Err(error), .. } => {
                warn!(error = %crate::chain(&error), id = %self.record.id(), "a day is not cashed yet");
                let now = outside::now();
                self.cash_at = now.after(CASH_PAUSE);
                // A promise beyond what is aside is not taken: where that is not for want of the
                // buyer's money, nobody is late.
                if !matches!(error, SettlementError::NoCredit(_)) {
                    self.patient_until = self.patient_until.max(now.after(CASH_PAUSE * 2));
                }
            }
            Said::Closed(paid) => self.receipt(paid).await,
        }
    }

    async fn receipt(&mut self, paid: Usd) {
        let now = outside::now();
        let (order, machine) = (&self.record.order.message, &self.record.machine);
        let Some(end) = machine.end() else { return };
        let settlement = machine.settlement(now);
        let kept = paid.min(settlement.kept);
        let receipt = ReservationReceipt {
            reservation: self.record.id(),
            buyer: order.buyer,
            operator: order.operator,
            host: order.host,
            container: order.container,
            price: order.price,
            start: machine.terms().start,
            term_seconds: self.record.ask.term_seconds,
            elapsed_seconds: machine.elapsed_seconds(now),
            end,
            failed_days: failed_days(machine),
            promised_seconds: machine.promised(),
            seconds: settlement.seconds,
            kept,
            fee: kept.split(welkin_types::BasisPoints::SERVICE_FEE).0,
            refund: order.price.cost(machine.promised()).saturating_sub(kept),
        };
        match Signed::sign(&self.host.domain, &self.host.key, &receipt) {
            Ok(signed) => self.record.receipt = Some(signed),
            Err(error) => warn!(%error, "a reservation's receipt can't be signed"),
        }
        self.save().await;
    }

    /// Adds what is to be saved to a batch.
    pub(super) fn put(&self, batch: &mut Batch) {
        self.record.put(batch);
    }

    pub(super) async fn save(&self) {
        if let Err(error) = self.record.write(&self.host, None).await {
            warn!(%error, id = %self.record.id(), "a reservation can't be written down");
        }
    }

    fn show(&self) {
        self.publish.send_replace(self.view());
    }
}
