//! What a buyer's connection says of reservations, and is told.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;
use welkin_proto::lease::{FromHost, Refusal, RefusalCode};
use welkin_proto::{ReceiptAck, Reserve, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, ReservationId};

use super::reservations::{Command, Handle};
use super::{Host, reserve};

/// Serves one buyer.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) host: Arc<Host>,
    pub(super) buyer: AccountId,
    pub(super) out: mpsc::Sender<FromHost>,
}

impl Desk {
    /// Makes a reservation.
    pub(super) fn reserve(self, asked: Reserve, tasks: &mut JoinSet<()>) {
        let Self { host, buyer, out } = self;
        let (done, made) = oneshot::channel();
        // A task of the host's own: begun, it must come to an end, or a slot and money would be left
        // taken.
        let maker = Arc::clone(&host);
        host.shutdown.spawn_until_asked("reserve", async move {
            let id = ReservationId::of_lane(asked.order.message.lease);
            let result = reserve::reserve(&maker, buyer, asked).await;
            let is_made = result.is_ok();
            if done.send(result).is_err()
                && is_made
                && let Some(handle) = maker.reservations.find(id, buyer)
            {
                let _ = handle.commands.send(Command::Void).await;
            }
        });
        tasks.spawn(async move {
            let answer = match made.await {
                Ok(Ok(view)) => FromHost::Reservation(Box::new(view)),
                Ok(Err(refusal)) => FromHost::Refused(refusal),
                Err(_) => return,
            };
            let _ = out.send(answer).await;
        });
    }

    /// Whether this is the lane of a reservation of the buyer.
    pub(super) fn is_for(&self, lane: LeaseId) -> bool {
        self.find(ReservationId::of_lane(lane)).is_some()
    }

    /// Says how one stands.
    pub(super) async fn look(&self, id: ReservationId) {
        match self.find(id) {
            Some(handle) => self.tell(&handle).await,
            None => self.unknown(id).await,
        }
    }

    /// Ends one.
    pub(super) async fn cancel(&self, id: ReservationId) {
        let Some(handle) = self.find(id) else { return self.unknown(id).await };
        let (done, carried_out) = oneshot::channel();
        // One that is over takes no commands, and needs none.
        if handle.commands.send(Command::Cancel(done)).await.is_ok() {
            let _ = carried_out.await;
        }
        self.tell(&handle).await;
    }

    /// Takes a promise.
    pub(super) async fn voucher(&self, voucher: Box<SignedByAccount<Voucher>>) {
        let Voucher { lease, operator, amount, seconds } = voucher.message;
        let Some(handle) = self.find(ReservationId::of_lane(lease)) else { return };
        let is_good = operator == self.host.operator
            && amount == handle.price.cost(seconds)
            && voucher.signer(&self.host.domain) == Ok(self.buyer);
        if is_good {
            let (done, carried_out) = oneshot::channel();
            if handle.commands.send(Command::Voucher(voucher, done)).await.is_ok() {
                let _ = carried_out.await;
            }
        } else {
            debug!(%lease, "a voucher for a reservation is refused");
        }
        self.tell(&handle).await;
    }

    /// Takes the signature under a receipt.
    pub(super) async fn ack(&self, ack: Box<SignedByAccount<ReceiptAck>>) {
        let Some(handle) = self.find(ReservationId::of_lane(ack.message.lease)) else { return };
        let receipt = handle.view.borrow().receipt.as_ref().map(|(receipt, _)| receipt.digest());
        let is_good = receipt == Some(ack.message.receipt_sha256)
            && ack.signer(&self.host.domain) == Ok(self.buyer);
        if is_good {
            let _ = handle.commands.send(Command::Ack(ack)).await;
        }
    }

    fn find(&self, id: ReservationId) -> Option<Handle> {
        self.host.reservations.find(id, self.buyer)
    }

    async fn tell(&self, handle: &Handle) {
        let mut view = handle.view.borrow().clone();
        // Leases come and go without a word to its task.
        view.lease = self.host.slots().guest(view.reservation);
        let _ = self.out.send(FromHost::Reservation(Box::new(view))).await;
    }

    async fn unknown(&self, id: ReservationId) {
        let detail = "you have no such reservation on this host".to_owned();
        let refusal = Refusal { lease: id.lane(), code: RefusalCode::Unknown, detail };
        let _ = self.out.send(FromHost::Refused(refusal)).await;
    }
}
