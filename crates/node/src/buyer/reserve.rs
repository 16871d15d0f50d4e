//! Making a reservation, and running on one.

use sha2::{Digest as _, Sha256};
use tokio::time::Duration;
use welkin_lease::{COMMITMENT_SECONDS, Reservation, ReservationTerms};
use welkin_proto::lease::{FromHost, RefusalCode, ToHost};
use welkin_proto::{Offer, Order, ReservationAsk, Reserve, SignedByAccount, Voucher};
use welkin_types::task::Needs;
use welkin_types::{CapacityType, NodeId, OfferId, Price, ReservationId};

use super::place::{Ask, PlaceProgress, Placed, open};
use super::reservation::KeptReservation;
use super::{Buyer, BuyerError};
use crate::outside;

/// Candidates of one question.
const CANDIDATES: u8 = 8;
/// Questions until nothing is found for a term: each leaves out the hosts that do not do.
const ROUNDS_MAX: usize = 8;
/// How long a host may take to say yes or no.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause until a reservation that is in use is asked for again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

impl Buyer {
    /// Containers that can be had for such a term, best first; none where others could be, for other
    /// terms.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NothingFits`] with the reasons, or why no indexer answered.
    pub async fn reservable(
        &self,
        needs: &Needs,
        term_seconds: u32,
    ) -> Result<Vec<Offer>, BuyerError> {
        let needs = Needs { capacity: CapacityType::Reserved, ..needs.clone() };
        let mut exclude: Vec<NodeId> = Vec::new();
        for round in 0..ROUNDS_MAX {
            let offers = match self.candidates(&needs, CANDIDATES, true, exclude.clone()).await {
                Err(BuyerError::NothingFits(_)) if round > 0 => break,
                offers => offers?,
            };
            if offers.is_empty() {
                break;
            }
            let admits = |offer: &&Offer| {
                offer.reserved.is_some_and(|terms| terms.admits(term_seconds.into()))
            };
            let (good, other): (Vec<_>, Vec<_>) = offers.iter().partition(|offer| admits(offer));
            if !good.is_empty() {
                return Ok(good.into_iter().cloned().collect());
            }
            exclude.extend(other.iter().map(|offer| offer.addr.node));
        }
        Ok(Vec::new())
    }

    /// Reserves what an offer is for. What is written down first is found by its id, also where the
    /// answer is lost.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where the host refuses, or nobody knows what it said.
    pub async fn reserve(
        &self,
        offer: &Offer,
        term_seconds: u32,
        name: &str,
    ) -> Result<KeptReservation, BuyerError> {
        let said = |error: &dyn std::fmt::Display| BuyerError::Said(error.to_string());
        let terms = offer.reserved.ok_or_else(|| said(&"the offer is not for a term"))?;
        let id = ReservationId::from_bytes(outside::random());
        let grace_seconds = terms.grace_seconds;
        let ask = ReservationAsk { term_seconds, grace_seconds, name: name.to_owned() };
        let ask = ask.to_bytes().map_err(|error| said(&error))?;
        let (now, term) = (outside::now(), u64::from(term_seconds));
        let order = Order {
            lease: id.lane(),
            buyer: self.account(),
            operator: offer.operator,
            host: offer.addr.node,
            container: offer.container,
            price: offer.price,
            budget: offer.price.cost(term),
            task_sha256: Sha256::digest(&ask).into(),
            issued: now,
            // Until then nobody but the operator closes what is set aside.
            expires: now.after(Duration::from_secs(term)),
        };
        let order = SignedByAccount::sign(&self.domain, &self.account, order)
            .map_err(|error| said(&error))?;
        let ahead = COMMITMENT_SECONDS.min(term);
        let voucher = Voucher {
            lease: id.lane(),
            operator: offer.operator,
            amount: offer.price.cost(ahead),
            seconds: ahead,
        };
        let voucher = SignedByAccount::sign(&self.domain, &self.account, voucher)
            .map_err(|error| said(&error))?;
        let mut session = self.dial(&offer.addr).await?;
        let terms = ReservationTerms { price: offer.price, start: now, term_seconds: term };
        let machine = Reservation::begin(terms, ahead).map_err(|error| said(&error))?;
        let mut kept = KeptReservation::new(id, name, offer, order.clone(), machine);
        self.home.save_reservation(&kept).map_err(BuyerError::Home)?;
        let reserve = Reserve { order, ask, offer: Some(offer.id), voucher };
        session.send(ToHost::Reserve(Box::new(reserve))).await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, session.recv());
        let answer = answer.await.map_err(|_| BuyerError::HostSilent(ANSWER_TIMEOUT))?;
        match answer {
            Some(FromHost::Reservation(view)) if view.reservation == id => {
                kept.heard(outside::now(), *view);
                self.home.save_reservation(&kept).map_err(BuyerError::Home)?;
                session.close();
                Ok(kept)
            }
            Some(FromHost::Refused(refusal)) => {
                self.home.remove_reservation(id).map_err(BuyerError::Home)?;
                Err(BuyerError::HostRefuses { code: refusal.code, detail: refusal.detail })
            }
            _ => Err(BuyerError::HostLost),
        }
    }
}

/// Opens a lease on a reservation; waits for one that is in use as long as the task waits.
pub(super) async fn place_on(
    buyer: &Buyer,
    ask: &Ask,
    id: ReservationId,
    progress: &mut (dyn FnMut(PlaceProgress) + Send),
) -> Result<Placed, BuyerError> {
    let kept = buyer.home.reservation(id).map_err(BuyerError::Home)?;
    let kept = kept.ok_or(BuyerError::UnknownReservation(id))?;
    // What no host has said it is asked now, whatever whoever pays has heard meanwhile.
    if let Some(end) = kept.end() {
        return Err(BuyerError::Said(format!("the reservation {id} is over: {}", end.text())));
    }
    let deadline = outside::now().after(ask.queue);
    loop {
        let offer = offer_of(&kept);
        progress(PlaceProgress::Trying(Box::new(offer.clone())));
        match open(buyer, ask, offer, true).await {
            Err(BuyerError::HostRefuses { code: RefusalCode::Busy, detail })
                if outside::now() < deadline =>
            {
                progress(PlaceProgress::Refused(detail));
                progress(PlaceProgress::Waiting(BUSY_PAUSE));
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// What a lease on a reservation is made from: no indexer is asked.
fn offer_of(kept: &KeptReservation) -> Offer {
    let order = &kept.order.message;
    Offer {
        id: OfferId::from_bytes(outside::random()),
        buyer: order.buyer,
        addr: kept.host.clone(),
        operator: order.operator,
        container: order.container,
        class: kept.class.clone(),
        resources: kept.resources.clone(),
        capacity: CapacityType::Reserved,
        notice_seconds: 0,
        reserved: None,
        price: Price::default(),
        tier: kept.tier,
        region: kept.region.clone(),
        online_bp: None,
        expires: kept.machine.until(),
        matched: None,
    }
}
