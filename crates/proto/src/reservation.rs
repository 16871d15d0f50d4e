//! A container for a term: what a buyer signs, what a host says of it, and its final statement.
//!
//! The order of a reservation is an [`Order`] like any other: its lease is the reservation's
//! [lane](welkin_types::ReservationId::lane), its budget the price of the whole term, its end that of
//! the term, and its task the bytes of a [`ReservationAsk`]. Vouchers and the acknowledgement go by
//! the lane, too.

use serde::{Deserialize, Serialize};
use welkin_types::{
    AccountId, BasisPoints, ContainerId, LeaseId, NodeId, OfferId, Price, ReservationEnd,
    ReservationId, UnixMillis, Usd,
};

use crate::codec::{CodecError, decode, encode};
use crate::eip712::Domain;
use crate::order::{Delegation, Order, ReceiptAck, SignedByAccount, Voucher};
use crate::receipt::{ReceiptError, check_ack, check_parties, promised};
use crate::signed::{Signable, Signed};

/// Before the bytes of an ask, so that they are never those of a task.
const ASK_TAG: &[u8] = b"welkin/reservation/1\0";

/// For how long, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationAsk {
    /// The term in seconds.
    pub term_seconds: u32,
    /// How late a payment may be, in seconds: as the host offers it.
    pub grace_seconds: u16,
    /// A name for people, at most [`Self::NAME_LEN_MAX`] bytes.
    pub name: String,
}

impl ReservationAsk {
    /// The longest name, in bytes.
    pub const NAME_LEN_MAX: usize = 128;

    /// The bytes whose SHA-256 the order names.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if it is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = ASK_TAG.to_vec();
        bytes.extend(encode(self)?);
        Ok(bytes)
    }

    /// Reads those bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError::Malformed`] where they are others.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(bytes.strip_prefix(ASK_TAG).ok_or(CodecError::Malformed)?)
    }
}

/// A reservation as its buyer asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// The order, signed by the buyer's account.
    pub order: SignedByAccount<Order>,
    /// The bytes of a [`ReservationAsk`].
    pub ask: Vec<u8>,
    /// The offer that it came from, which names the hold.
    pub offer: Option<OfferId>,
    /// What is paid ahead.
    pub voucher: SignedByAccount<Voucher>,
}

/// How a reservation stands, by its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    /// Which.
    pub reservation: ReservationId,
    /// When its term began, by the host's clock.
    pub start: UnixMillis,
    /// When the term is over.
    pub until: UnixMillis,
    /// Seconds that vouchers promise.
    pub promised: u64,
    /// Days of the term, from 0, that are not paid for because the host failed in them.
    pub failed_days: Vec<u32>,
    /// The lease that runs on it now.
    pub lease: Option<LeaseId>,
    /// Why it is over, if it is.
    pub end: Option<ReservationEnd>,
    /// Seconds that it comes to, once it is over: the last voucher is to be for these.
    pub last_seconds: Option<u64>,
    /// The final statement, with who vouches for the host.
    pub receipt: Option<(Signed<ReservationReceipt>, SignedByAccount<Delegation>)>,
}

/// A host's final statement of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationReceipt {
    /// Which.
    pub reservation: ReservationId,
    /// Who paid.
    pub buyer: AccountId,
    /// Who was paid.
    pub operator: AccountId,
    /// Who kept it.
    pub host: NodeId,
    /// Which container.
    pub container: ContainerId,
    /// At which price.
    pub price: Price,
    /// When it began, by the host's clock.
    pub start: UnixMillis,
    /// How long it was to be, in seconds.
    pub term_seconds: u32,
    /// How long it was, in seconds.
    pub elapsed_seconds: u64,
    /// Why it ended.
    pub end: ReservationEnd,
    /// Days of the term, from 0, that are not paid for because the host failed in them.
    pub failed_days: Vec<u32>,
    /// Seconds that were promised.
    pub promised_seconds: u64,
    /// Of those the seconds that are paid for.
    pub seconds: u64,
    /// What they cost.
    pub kept: Usd,
    /// The service fee in it.
    pub fee: Usd,
    /// What was promised beyond and was not paid.
    pub refund: Usd,
}

impl Signable for ReservationReceipt {
    const KIND: &'static str = "reservation-receipt";
}

/// The final statement of a reservation with everything needed to check it offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationReceiptFile {
    /// Where the signatures hold.
    pub domain: Domain,
    /// What was ordered, signed by the buyer.
    pub order: SignedByAccount<Order>,
    /// Who vouches for the host.
    pub operator: SignedByAccount<Delegation>,
    /// The host's statement.
    pub receipt: Signed<ReservationReceipt>,
    /// The buyer's last promise.
    pub voucher: Option<SignedByAccount<Voucher>>,
    /// The buyer's signature under the receipt, if it gave one.
    pub ack: Option<SignedByAccount<ReceiptAck>>,
}

impl ReservationReceiptFile {
    /// Checks signatures, parties and arithmetic; returns the receipt.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] saying the first thing that is wrong.
    pub fn verify(&self) -> Result<ReservationReceipt, ReceiptError> {
        let wrong = |what: &str| ReceiptError::new(what.to_owned());
        let order = &self.order.message;
        let receipt = self
            .receipt
            .open_by(&self.domain, order.host)
            .map_err(|error| ReceiptError::new(format!("the host's signature: {error}")))?;
        check_parties(&self.domain, &self.order, &self.operator)?;
        let same = receipt.reservation.lane() == order.lease
            && receipt.buyer == order.buyer
            && receipt.operator == order.operator
            && receipt.host == order.host
            && receipt.container == order.container
            && receipt.price == order.price;
        if !same {
            return Err(wrong("the receipt is for another order"));
        }
        self.verify_money(&receipt)?;
        check_ack(&self.domain, order, self.ack.as_ref(), self.receipt.digest())?;
        Ok(receipt)
    }

    fn verify_money(&self, receipt: &ReservationReceipt) -> Result<(), ReceiptError> {
        let wrong = |what: String| Err(ReceiptError::new(what));
        let ReservationReceipt { seconds, promised_seconds, kept, refund, .. } = *receipt;
        if seconds > promised_seconds || promised_seconds > u64::from(receipt.term_seconds) {
            return wrong(format!("bills {seconds} s, {promised_seconds} s were promised"));
        }
        if kept > receipt.price.cost(seconds) || kept > self.order.message.budget {
            return wrong(format!("costs {kept}, due were {}", receipt.price.cost(seconds)));
        }
        if kept.checked_add(refund) != Some(receipt.price.cost(promised_seconds)) {
            return wrong(format!("{kept} and {refund} are not what was promised"));
        }
        if receipt.fee != kept.split(BasisPoints::SERVICE_FEE).0 {
            return wrong(format!("the fee is not 20 % of {kept}"));
        }
        let promised = promised(&self.domain, &self.order.message, self.voucher.as_ref())?;
        if kept > promised {
            return wrong(format!("costs {kept}, the buyer promised {promised}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Launch;

    #[test]
    fn an_ask_is_no_task_and_a_task_no_ask() {
        let ask = ReservationAsk { term_seconds: 86_400, grace_seconds: 60, name: "n".repeat(128) };
        let bytes = ask.to_bytes().unwrap();
        assert_eq!(ReservationAsk::from_bytes(&bytes), Ok(ask.clone()));
        assert!(decode::<Launch>(&bytes).is_err());
        let bare = encode(&ask).unwrap();
        assert_eq!(ReservationAsk::from_bytes(&bare), Err(CodecError::Malformed));
    }
}
