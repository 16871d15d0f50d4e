//! The receipt of a match, as a buyer checks it against its offers.

use welkin_proto::index::{Candidates, GangAsk};
use welkin_proto::{Offer, decode};
use welkin_types::Policy;

use crate::fleet::UNCONFIRMED_CUT_BP;
use crate::fleet::rows::price_of;
use crate::index::{
    Considered, GangReceipt, Receipt, ReceiptError, SLACK_DEFAULT, WIDTH_MAX, Weights, ring_of,
};

/// What is wrong with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptFault {
    /// There is none.
    #[error("it gave no receipt of its choice, though it was asked for one")]
    Missing,
    /// It is none.
    #[error("the receipt can't be read: the indexer speaks another version, or lies")]
    Body,
    /// It is of another query or policy.
    #[error("the receipt is of another question than was asked")]
    Query,
    /// Candidates were drawn from more, or dearer ones, than everybody draws from.
    #[error("the receipt draws otherwise than the protocol does")]
    Rule,
    /// It is of other offers than came, or some of them are another account's.
    #[error("the receipt is of other offers than came with it")]
    Offers,
    /// An offer is not what the receipt says of it.
    #[error("offer {place} differs in its {what} from what the receipt says")]
    Facts {
        /// Which, from 0.
        place: usize,
        /// In what.
        what: &'static str,
    },
    /// The choice does not follow from what was considered.
    #[error("the choice does not follow from what the receipt says was considered")]
    Choice(#[source] ReceiptError),
}

/// Computes a match again from its receipt and compares it with the offers, in their order.
/// `query` is the digest of what was asked. The signature is the caller's to check.
///
/// # Errors
///
/// [`ReceiptFault`] saying what is wrong: a reason to trust the indexer less.
pub fn verify_receipt(
    found: &Candidates,
    (query, policy): ([u8; 32], Policy),
) -> Result<(), ReceiptFault> {
    let (receipt, offers) = (found.receipt.as_ref().ok_or(ReceiptFault::Missing)?, &found.offers);
    let body: Receipt = decode(receipt).map_err(|_| ReceiptFault::Body)?;
    if body.query != query || body.weights != Weights::of(policy) {
        return Err(ReceiptFault::Query);
    }
    // Who may draw from anything that fits can favour anybody.
    if (body.width, body.slack) != (WIDTH_MAX, SLACK_DEFAULT) {
        return Err(ReceiptFault::Rule);
    }
    if offers.iter().any(|offer| offer.buyer != found.buyer) {
        return Err(ReceiptFault::Offers);
    }
    body.recompute().map_err(ReceiptFault::Choice)?;
    compare(&body.considered, &body.chosen, offers)
}

/// The same of a gang: the members are the cheapest in the set of regions where all of them
/// together cost least. That they are near each other is seen in the offers themselves.
///
/// # Errors
///
/// As of [`verify_receipt`].
pub fn verify_gang_receipt(
    found: &Candidates,
    (query, policy): ([u8; 32], Policy),
    ask: &GangAsk,
) -> Result<(), ReceiptFault> {
    let (receipt, offers) = (found.receipt.as_ref().ok_or(ReceiptFault::Missing)?, &found.offers);
    let body: GangReceipt = decode(receipt).map_err(|_| ReceiptFault::Body)?;
    if body.query != query || body.weights != Weights::of(policy) {
        return Err(ReceiptFault::Query);
    }
    if (body.members, body.is_spread) != (ask.members, ask.is_spread) || body.slots != 1 {
        return Err(ReceiptFault::Rule);
    }
    if offers.iter().any(|offer| offer.buyer != found.buyer) {
        return Err(ReceiptFault::Offers);
    }
    body.recompute().map_err(ReceiptFault::Choice)?;
    compare(&body.considered, &body.chosen, offers)
}

/// Compares what was chosen with the offers.
fn compare(
    considered: &[Vec<Considered>],
    chosen: &[(u8, u8)],
    offers: &[Offer],
) -> Result<(), ReceiptFault> {
    let chosen: Option<Vec<_>> = chosen.iter().map(|at| fact_at(considered, *at)).collect();
    let chosen = chosen.filter(|chosen| chosen.len() == offers.len());
    let chosen = chosen.ok_or(ReceiptFault::Offers)?;
    for (place, (said, offer)) in chosen.iter().zip(offers).enumerate() {
        if let Some(what) = difference(said, offer) {
            return Err(ReceiptFault::Facts { place, what });
        }
        let is_other_host = (0..place).any(|other| {
            (chosen[other].host == said.host) != (offers[other].addr.node == offer.addr.node)
        });
        if is_other_host {
            return Err(ReceiptFault::Facts { place, what: "host" });
        }
    }
    Ok(())
}

fn fact_at(considered: &[Vec<Considered>], (list, place): (u8, u8)) -> Option<Considered> {
    considered.get(usize::from(list))?.get(usize::from(place)).copied()
}

/// In what an offer differs from what was considered.
fn difference(said: &Considered, offer: &Offer) -> Option<&'static str> {
    let online = offer.online_bp.unwrap_or(0);
    if said.price != price_of(offer.price.hour().micros()) {
        return Some("price");
    }
    if said.ring != ring_of(&[offer.addr.node.as_bytes(), offer.container.as_bytes()]) {
        return Some("name");
    }
    // Of a host that was not heard since the indexer's start the score counts a little less.
    if said.quality != online && said.quality != online.saturating_sub(UNCONFIRMED_CUT_BP) {
        return Some("online score");
    }
    None
}
