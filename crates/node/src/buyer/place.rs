//! From a wish to a lease: ask an indexer, try its candidates, and where all are busy wait for a
//! turn in its queue.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use welkin_lease::{Placement, Step};
use welkin_match::trust::Finding;
use welkin_proto::lease::{FromHost, Launch, Open, RefusalCode, Secret, TermSize, ToHost};
use welkin_proto::{Offer, Order, SignedByAccount, Terms, encode};
use welkin_types::task::Needs;
use welkin_types::{CapacityType, LeaseId, NodeId, UnixMillis, Usd};

use super::reserve::place_on;
use super::{Buyer, BuyerError, HostSession, QueueError, QueueEvent};
use crate::connect::DIAL_TIMEOUT;
use crate::outside;

/// Candidates of one question.
const CANDIDATES: u8 = 3;
/// How patient the buyer is with a host that is silent.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long the way to it may take.
    dial: Duration,
    /// How long it may take to say yes or no.
    accept: Duration,
}

/// With the last candidate.
const PATIENT: Patience = Patience { dial: DIAL_TIMEOUT, accept: Duration::from_secs(10) };
/// With one that others stand behind. A host that says yes too late gives its slot back when the
/// buyer does not come back to it.
const IMPATIENT: Patience =
    Patience { dial: Duration::from_secs(1), accept: Duration::from_secs(3) };
/// An order not accepted within this is void.
const ORDER_LASTING: Duration = Duration::from_secs(60);

/// What to lease and run.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What a container must have.
    pub needs: Needs,
    /// What runs in it; its sizes are what the lease gets. Of its terms only the notice counts, as
    /// the shortest that will do: the others are those of the offer.
    pub launch: Launch,
    /// Secret variables.
    pub secrets: Vec<(String, Secret)>,
    /// With a terminal of this size.
    pub tty: Option<TermSize>,
    /// Whether standard input will be sent.
    pub stdin: bool,
    /// Whether files will be sent before the start.
    pub files: bool,
    /// The most it may cost in all; `None`: thirty days of its price.
    pub budget: Option<Usd>,
    /// How long to wait for a container.
    pub queue: Duration,
}

impl Ask {
    /// Whether an offer gives the notice that the task needs, if it can be taken back at all.
    pub fn admits(&self, offer: &Offer) -> bool {
        offer.capacity != CapacityType::Spot
            || offer.notice_seconds >= self.launch.terms.notice_seconds
    }
}

/// What happens on the way.
#[derive(Clone, Debug)]
pub enum PlaceProgress {
    /// This host is asked.
    Trying(Box<Offer>),
    /// It said no, or nothing.
    Refused(String),
    /// Everything is busy, and no indexer has a queue; asked again after this.
    Waiting(Duration),
    /// It waits in the queue of this indexer, and this has happened.
    Queued(Option<NodeId>, QueueEvent),
}

/// A lease that a host has accepted.
#[derive(Debug)]
pub struct Placed {
    /// The connection to the host.
    pub session: HostSession,
    /// The order that it accepted.
    pub order: SignedByAccount<Order>,
    /// The offer that it came from.
    pub offer: Offer,
    /// The lease.
    pub lease: LeaseId,
    /// What runs in it, as the host was told.
    pub launch: Launch,
    /// When the request for it was sent.
    pub sent: Instant,
}

const BUDGET_SECONDS: u64 = 30 * 86_400;

/// Finds a container and leases it. `first` are candidates already at hand, for example those that
/// a person has just agreed to.
///
/// # Errors
///
/// [`BuyerError`] where nothing fits, everybody is busy for too long, or a host refuses for good.
pub async fn place(
    buyer: &Buyer,
    ask: &Ask,
    first: Vec<Offer>,
    progress: &mut (dyn FnMut(PlaceProgress) + Send),
) -> Result<Placed, BuyerError> {
    if let Some(reservation) = ask.launch.terms.reservation {
        return place_on(buyer, ask, reservation, progress).await;
    }
    let deadline = outside::now().after(ask.queue);
    let mut placement = Placement::new(deadline);
    let mut has_queue = true;
    placement.offered(first);
    let mut nothing = false;
    let mut why_not = None;
    loop {
        match placement.next(outside::now(), nothing) {
            Step::Match(exclude) => {
                match buyer.candidates(&ask.needs, CANDIDATES, true, exclude).await {
                    Ok(mut offers) => {
                        offers.retain(|offer| ask.admits(offer));
                        nothing = offers.is_empty();
                        placement.offered(offers);
                    }
                    Err(BuyerError::NothingFits(why)) => {
                        nothing = true;
                        if !why.is_only_busy() {
                            return Err(BuyerError::NothingFits(why));
                        }
                        why_not = Some(why);
                    }
                    Err(error) => return Err(error),
                }
            }
            Step::Try(offer) => {
                progress(PlaceProgress::Trying(offer.clone()));
                let host = offer.addr.node;
                // While there are others no spot lease has to end for this one.
                let is_last = !placement.has_more();
                let opened = open(buyer, ask, (*offer).clone(), is_last).await;
                if let Some(finding) = finding(&opened) {
                    buyer.found(&offer, finding);
                }
                match opened {
                    Ok(placed) => return Ok(placed),
                    Err(error) => {
                        progress(PlaceProgress::Refused(crate::chain(&error)));
                        let code = match &error {
                            BuyerError::HostRefuses { code, .. } => Some(*code),
                            _ => None,
                        };
                        if placement.refused(host, code).is_some() {
                            return Err(error);
                        }
                    }
                }
            }
            Step::Wait(_) if has_queue => {
                match wait_for_turn(buyer, ask, deadline, progress).await {
                    Ok(Some(placed)) => return Ok(placed),
                    Ok(None) => has_queue = false,
                    Err(BuyerError::NoHost(reason)) => {
                        return Err(
                            why_not.map_or(BuyerError::NoHost(reason), BuyerError::NothingFits)
                        );
                    }
                    Err(error) => return Err(error),
                }
                nothing = false;
            }
            Step::Wait(until) => {
                let wait = until.since(outside::now());
                progress(PlaceProgress::Waiting(wait));
                tokio::time::sleep(wait).await;
                nothing = false;
            }
            Step::GiveUp(reason) => {
                return Err(why_not.map_or(BuyerError::NoHost(reason), BuyerError::NothingFits));
            }
        }
    }
}

/// What the way of an offer says of the indexer that made it.
pub(super) fn finding(opened: &Result<Placed, BuyerError>) -> Option<Finding> {
    match opened {
        Ok(_) => Some(Finding::Good),
        Err(BuyerError::HostRefuses {
            code: RefusalCode::Busy | RefusalCode::Draining, ..
        }) => Some(Finding::Stale),
        Err(
            BuyerError::HostUnreachable { .. } | BuyerError::HostSilent(_) | BuyerError::HostLost,
        ) => Some(Finding::Dead),
        Err(_) => None,
    }
}

/// Waits for a turn; `None` where there is no queue to wait in.
async fn wait_for_turn(
    buyer: &Buyer,
    ask: &Ask,
    deadline: UnixMillis,
    progress: &mut (dyn FnMut(PlaceProgress) + Send),
) -> Result<Option<Placed>, BuyerError> {
    let wait = deadline.since(outside::now());
    let mut place = match buyer.queue(&ask.needs, &[], wait).await {
        Ok(place) => place,
        Err(QueueError::NoQueue(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    loop {
        match place.next().await? {
            QueueEvent::Offers(mut offers) => {
                offers.retain(|offer| ask.admits(offer));
                let mut refusing = Vec::new();
                let mut left = offers.len();
                for offer in offers {
                    left -= 1;
                    progress(PlaceProgress::Trying(Box::new(offer.clone())));
                    refusing.push(offer.addr.node);
                    let opened = open(buyer, ask, offer.clone(), left == 0).await;
                    if let Some(finding) = finding(&opened) {
                        buyer.found(&offer, finding);
                    }
                    match opened {
                        Ok(placed) => {
                            place.placed().await;
                            return Ok(Some(placed));
                        }
                        Err(error @ BuyerError::HostRefuses { code, .. }) if !code.try_next() => {
                            place.leave().await;
                            return Err(error);
                        }
                        Err(error) => progress(PlaceProgress::Refused(crate::chain(&error))),
                    }
                }
                place.refused(&refusing).await;
            }
            event => progress(PlaceProgress::Queued(place.indexer(), event)),
        }
    }
}

/// Opens a lease at an offer: signs the order and waits for the host's word.
pub(super) async fn open(
    buyer: &Buyer,
    ask: &Ask,
    offer: Offer,
    is_last: bool,
) -> Result<Placed, BuyerError> {
    let patience = if is_last { PATIENT } else { IMPATIENT };
    let sent = Instant::now();
    let lease = LeaseId::from_bytes(outside::random());
    let mut told = ask.launch.clone();
    told.terms = Terms {
        reservation: told.terms.reservation,
        ..Terms::plain(offer.capacity, offer.notice_seconds)
    };
    let launch = encode(&told).map_err(|error| BuyerError::Said(error.to_string()))?;
    let now = outside::now();
    let order = Order {
        lease,
        buyer: buyer.account(),
        operator: offer.operator,
        host: offer.addr.node,
        container: offer.container,
        price: offer.price,
        budget: ask.budget.unwrap_or_else(|| offer.price.cost(BUDGET_SECONDS)),
        task_sha256: Sha256::digest(&launch).into(),
        issued: now,
        expires: now.after(ORDER_LASTING),
    };
    let order = SignedByAccount::sign(&buyer.domain, &buyer.account, order)
        .map_err(|error| BuyerError::Said(error.to_string()))?;
    let open = Open {
        order: order.clone(),
        offer: Some(offer.id),
        launch,
        secrets: ask.secrets.clone(),
        tty: ask.tty,
        stdin: ask.stdin,
        files: ask.files,
        may_preempt: is_last,
        matched: offer.matched,
    };
    let dialling = tokio::time::timeout(patience.dial, buyer.dial(&offer.addr));
    let mut session = dialling.await.map_err(|_| BuyerError::HostSilent(patience.dial))??;
    session.send(ToHost::Open(Box::new(open))).await?;
    let answer = tokio::time::timeout(patience.accept, session.recv());
    match answer.await.map_err(|_| BuyerError::HostSilent(patience.accept))? {
        Some(FromHost::Accepted(accepted)) if accepted.lease == lease => {
            Ok(Placed { session, order, offer, lease, launch: told, sent })
        }
        Some(FromHost::Refused(refusal)) => {
            Err(BuyerError::HostRefuses { code: refusal.code, detail: refusal.detail })
        }
        _ => Err(BuyerError::HostLost),
    }
}
