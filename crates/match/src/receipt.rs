//! The receipt of a match, as a buyer checks it against its offers.

use welkin_proto::index::MatchReceipt;
use welkin_proto::{Offer, decode};
use welkin_types::Policy;

use crate::fleet::UNCONFIRMED_CUT_BP;
use crate::fleet::rows::price_of;
use crate::index::{Considered, Receipt, ReceiptError, SLACK_DEFAULT, WIDTH_MAX, Weights, ring_of};

/// What is wrong with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptFault {
    /// Its body is none.
    #[error("the receipt can't be read: the indexer speaks another version, or lies")]
    Body,
    /// It is of another query or policy.
    #[error("the receipt is of another question than was asked")]
    Query,
    /// Candidates were drawn from more, or dearer ones, than everybody draws from.
    #[error("the receipt draws otherwise than the protocol does")]
    Rule,
    /// It names other offers than came.
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
/// `query` is the digest of what was asked. Signatures are the caller's to check.
///
/// # Errors
///
/// [`ReceiptFault`] saying what is wrong: a reason to trust the indexer less.
pub fn verify_receipt(
    receipt: &MatchReceipt,
    offers: &[Offer],
    (query, policy): ([u8; 32], Policy),
) -> Result<(), ReceiptFault> {
    let body: Receipt = decode(&receipt.body).map_err(|_| ReceiptFault::Body)?;
    if body.query != query || body.weights != Weights::of(policy) {
        return Err(ReceiptFault::Query);
    }
    // Who may draw from anything that fits can favour anybody.
    if (body.width, body.slack) != (WIDTH_MAX, SLACK_DEFAULT) {
        return Err(ReceiptFault::Rule);
    }
    if !receipt.offers.iter().eq(offers.iter().map(|offer| &offer.id))
        || offers.iter().any(|offer| offer.buyer != receipt.buyer)
    {
        return Err(ReceiptFault::Offers);
    }
    body.recompute().map_err(ReceiptFault::Choice)?;
    let chosen: Option<Vec<_>> = body.chosen.iter().map(|at| fact_at(&body, *at)).collect();
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

fn fact_at(body: &Receipt, (list, place): (u8, u8)) -> Option<Considered> {
    body.considered.get(usize::from(list))?.get(usize::from(place)).copied()
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
