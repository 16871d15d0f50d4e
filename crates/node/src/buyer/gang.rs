//! Several leases at once: all hosts accept, or none keeps a lease.
//!
//! Every lease is opened with files to come, so that its host prepares the sandbox and waits: a
//! command starts only when its files are sent, and they are sent when all hosts have accepted.
//! Until then nothing runs and nothing is billed, so a gang of which one host refuses is let go
//! for nothing, and the next is tried at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{debug, warn};
use welkin_lease::{GangPlacement, GangStep};
use welkin_match::latency::default_rtt;
use welkin_proto::Offer;
use welkin_proto::index::{GangAsk, MatchRequest, Together};
use welkin_types::task::Needs;
use welkin_types::{LeaseState, NodeId, Price, Region, UnixMillis};

use super::place::{finding, open};
use super::{
    Ask, Buyer, BuyerError, Keeper, LeaseEvent, PlaceProgress, Placed, QueueError, QueueEvent,
};
use crate::outside;

/// How long letting one lease go may take: its host has a sandbox to remove and a receipt to sign.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// A table of distances and the indexer's rounding may differ by so much, in microseconds.
const ROUNDING_US: u32 = 100;

/// The leases of a gang, each accepted by its host. No command runs before [`Keeper::files`].
#[derive(Debug)]
pub struct GangPlaced {
    /// By rank.
    pub members: Vec<Placed>,
    /// Leases of earlier tries that are being let go. Ends with the process at the latest.
    pub releasing: Releasing,
}

/// Leases that are let go, unbilled, beside what else goes on.
#[derive(Debug, Default)]
pub struct Releasing(JoinSet<()>);

impl Releasing {
    /// Waits until all of them are gone.
    pub async fn finish(&mut self) {
        while self.0.join_next().await.is_some() {}
    }

    fn release(&mut self, buyer: Arc<Buyer>, placed: Placed) {
        self.0.spawn(release(buyer, placed));
    }
}

/// Whether this is an answer to the question: one offer, or for a gang one for each member, near
/// each other and on hosts of their own as asked.
pub(super) fn is_whole(request: &MatchRequest, offers: &[Offer]) -> bool {
    let Some(gang) = &request.gang else { return !offers.is_empty() };
    let hosts: BTreeSet<NodeId> = offers.iter().map(|offer| offer.addr.node).collect();
    offers.len() == usize::from(gang.members)
        && (!gang.is_spread || hosts.len() == offers.len())
        && are_together(gang.together, offers)
}

fn are_together(together: Together, offers: &[Offer]) -> bool {
    let regions: BTreeSet<&Region> = offers.iter().map(|offer| &offer.region).collect();
    let is_near = |us_max: u32, from: &Region, to: &Region| {
        from == to
            || default_rtt(from, to).is_some_and(|us| us <= us_max.saturating_add(ROUNDING_US))
    };
    match together {
        Together::Site => regions.len() <= 1,
        Together::WithinUs(us_max) => {
            regions.iter().all(|from| regions.iter().all(|to| is_near(us_max, from, to)))
        }
    }
}

impl Buyer {
    /// A whole gang: one offer for each member, signatures checked.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NothingFits`] with the reasons, or why no indexer answered.
    pub async fn gang_candidates(
        &self,
        needs: &Needs,
        gang: GangAsk,
        hold: bool,
        exclude: Vec<NodeId>,
    ) -> Result<Vec<Offer>, BuyerError> {
        let is_anywhere = self.look_around(needs).await;
        let request = self.gang_request(needs, gang, hold, exclude);
        let offers = self.candidates_of(request.clone(), is_anywhere).await?;
        if is_whole(&request, &offers) {
            return Ok(offers);
        }
        let text = "its answer is not the whole gang that was asked for";
        Err(BuyerError::IndexerRefuses(text.to_owned()))
    }

    fn gang_request(
        &self,
        needs: &Needs,
        gang: GangAsk,
        hold: bool,
        exclude: Vec<NodeId>,
    ) -> MatchRequest {
        MatchRequest {
            gang: Some(gang),
            receipt: true,
            ..self.match_request(needs, 1, hold, exclude)
        }
    }
}

/// Finds containers for all members and leases them, all or none. `asks` are the members' wishes by
/// rank, with files to come; they differ in their variables only. All together cost at most `most`. `first` is a whole gang already
/// at hand, for example one that a person has just agreed to. When `stopped` ends before all have
/// accepted, those that have are let go and there is no gang.
///
/// # Errors
///
/// [`BuyerError`] where no whole gang fits, hosts are busy for too long, or one refuses for a
/// reason that others would have. Then no lease is left.
pub async fn place_gang(
    buyer: &Arc<Buyer>,
    asks: &[Ask],
    (gang, most): (GangAsk, Option<Price>),
    first: Vec<Offer>,
    progress: &mut (dyn FnMut(PlaceProgress) + Send),
    stopped: impl Future<Output = ()>,
) -> Result<Option<GangPlaced>, BuyerError> {
    let releasing = Releasing::default();
    let (opening, accepted) = (JoinSet::new(), Vec::new());
    let mut search = Search { buyer, asks, gang, most, opening, accepted, releasing, progress };
    let found = tokio::select! {
        found = search.run(first) => found.map(Some),
        () = stopped => Ok(None),
    };
    if let Ok(Some(members)) = found {
        return Ok(Some(GangPlaced { members, releasing: search.releasing }));
    }
    search.release_all();
    search.releasing.finish().await;
    found.map(|_| None)
}

/// What became of one try.
enum Tried {
    /// All have accepted: see [`Search::take_accepted`].
    Placed,
    /// These hosts have not.
    Refused(Vec<NodeId>),
}

/// A host's answer to a member's wish, by rank.
type Opened = (usize, NodeId, Result<Placed, BuyerError>);

struct Search<'a> {
    buyer: &'a Arc<Buyer>,
    asks: &'a [Ask],
    gang: GangAsk,
    most: Option<Price>,
    /// Hosts of this try that have not answered. With `accepted` here, not in the try itself, so that
    /// a search that is stopped in the middle loses no lease.
    opening: JoinSet<Opened>,
    /// Leases of this try, with their ranks.
    accepted: Vec<(usize, Placed)>,
    releasing: Releasing,
    progress: &'a mut (dyn FnMut(PlaceProgress) + Send),
}

impl Search<'_> {
    fn needs(&self) -> &Needs {
        // Of no member nothing is asked for.
        static NOTHING: std::sync::LazyLock<Needs> = std::sync::LazyLock::new(Needs::default);
        self.asks.first().map_or(&NOTHING, |ask| &ask.needs)
    }

    fn admits(&self, offers: &[Offer]) -> bool {
        let hours = offers.iter().map(|offer| offer.price.hour().micros());
        let sum = hours.fold(0_u64, u64::saturating_add);
        let is_paid = self.most.is_none_or(|most| sum <= most.hour().micros());
        is_paid && offers.iter().zip(self.asks).all(|(offer, ask)| ask.admits(offer))
    }

    async fn run(&mut self, first: Vec<Offer>) -> Result<Vec<Placed>, BuyerError> {
        let queue = self.asks.first().map_or(Duration::ZERO, |ask| ask.queue);
        let deadline = outside::now().after(queue);
        let mut placement = GangPlacement::new(self.asks.len(), deadline);
        placement.offered(first);
        let (mut nothing, mut has_queue, mut why_not) = (false, true, None);
        loop {
            match placement.next(outside::now(), nothing) {
                GangStep::Match(exclude) => {
                    let needs = self.needs();
                    let asked = self.buyer.gang_candidates(needs, self.gang, true, exclude.clone());
                    match asked.await {
                        Ok(offers) => {
                            // What is of no use is not asked for again at once: by a clock that is
                            // far ahead everything has expired.
                            let now = outside::now();
                            let is_useless = |offer: &Offer| {
                                offer.expires <= now || exclude.contains(&offer.addr.node)
                            };
                            nothing = !self.admits(&offers) || offers.iter().any(is_useless);
                            placement.offered(if nothing { Vec::new() } else { offers });
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
                GangStep::Try(offers) => match self.open_all(offers).await? {
                    Tried::Placed => return Ok(self.take_accepted()),
                    Tried::Refused(hosts) => {
                        for host in hosts {
                            // What no other host would take is an error already.
                            let _ = placement.refused(host, None);
                        }
                    }
                },
                GangStep::Wait(_) if has_queue => match self.wait_for_turn(deadline).await {
                    Ok(Some(members)) => return Ok(members),
                    Ok(None) => (has_queue, nothing) = (false, false),
                    Err(BuyerError::NoHost(reason)) => {
                        let why = why_not.map(BuyerError::NothingFits);
                        return Err(why.unwrap_or(BuyerError::NoHost(reason)));
                    }
                    Err(error) => return Err(error),
                },
                GangStep::Wait(until) => {
                    let wait = until.since(outside::now());
                    (self.progress)(PlaceProgress::Waiting(wait));
                    tokio::time::sleep(wait).await;
                    nothing = false;
                }
                GangStep::GiveUp(reason) => {
                    let why = why_not.map(BuyerError::NothingFits);
                    return Err(why.unwrap_or(BuyerError::NoHost(reason)));
                }
            }
        }
    }

    /// Opens a lease at each offer. As soon as one host refuses those that accepted are let go, and
    /// those that are still asked when they answer.
    async fn open_all(&mut self, offers: Vec<Offer>) -> Result<Tried, BuyerError> {
        for (rank, (offer, ask)) in offers.into_iter().zip(self.asks).enumerate() {
            (self.progress)(PlaceProgress::Trying(Box::new(offer.clone())));
            let (buyer, ask) = (Arc::clone(self.buyer), ask.clone());
            self.opening.spawn(async move {
                // No spot lease ends for a gang that may not come about.
                let opened = open(&buyer, &ask, offer.clone(), false).await;
                if let Some(finding) = finding(&opened) {
                    buyer.found(&offer, finding);
                }
                (rank, offer.addr.node, opened)
            });
        }
        while let Some(opened) = self.opening.join_next().await {
            let Ok((rank, host, opened)) = opened else { continue };
            match opened {
                Ok(member) => self.accepted.push((rank, member)),
                Err(error) => {
                    self.release_all();
                    (self.progress)(PlaceProgress::Refused(crate::chain(&error)));
                    return match &error {
                        BuyerError::HostRefuses { code, .. } if !code.try_next() => Err(error),
                        _ => Ok(Tried::Refused(vec![host])),
                    };
                }
            }
        }
        if self.accepted.len() < self.asks.len() {
            self.release_all();
            return Ok(Tried::Refused(Vec::new()));
        }
        Ok(Tried::Placed)
    }

    /// The leases of a try in which all have accepted, by rank.
    fn take_accepted(&mut self) -> Vec<Placed> {
        let mut accepted = std::mem::take(&mut self.accepted);
        accepted.sort_by_key(|(rank, _)| *rank);
        accepted.into_iter().map(|(_, member)| member).collect()
    }

    /// Lets this try go: what has accepted at once, and those that are still asked when they answer.
    fn release_all(&mut self) {
        for (_, member) in std::mem::take(&mut self.accepted) {
            self.releasing.release(Arc::clone(self.buyer), member);
        }
        let mut opening = std::mem::take(&mut self.opening);
        let buyer = Arc::clone(self.buyer);
        self.releasing.0.spawn(async move {
            let mut late = Releasing::default();
            while let Some(opened) = opening.join_next().await {
                if let Ok((_, _, Ok(placed))) = opened {
                    late.release(Arc::clone(&buyer), placed);
                }
            }
            late.finish().await;
        });
    }

    /// Waits for a turn; `None` where there is no queue to wait in.
    async fn wait_for_turn(
        &mut self,
        deadline: UnixMillis,
    ) -> Result<Option<Vec<Placed>>, BuyerError> {
        let buyer = self.buyer;
        let request = buyer.gang_request(self.needs(), self.gang, true, Vec::new());
        let wait = deadline.since(outside::now());
        let mut place = match buyer.queue_for(request, wait).await {
            Ok(place) => place,
            Err(QueueError::NoQueue(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        loop {
            match place.next().await? {
                QueueEvent::Offers(offers) if self.admits(&offers) => {
                    match self.open_all(offers).await {
                        Ok(Tried::Placed) => {
                            // Until that is said the leases are the search's, which may be stopped.
                            place.placed().await;
                            return Ok(Some(self.take_accepted()));
                        }
                        Ok(Tried::Refused(hosts)) => place.refused(&hosts).await,
                        Err(error) => {
                            place.leave().await;
                            return Err(error);
                        }
                    }
                }
                QueueEvent::Offers(offers) => {
                    let hosts: Vec<_> = offers.iter().map(|offer| offer.addr.node).collect();
                    place.refused(&hosts).await;
                }
                event => (self.progress)(PlaceProgress::Queued(place.indexer(), event)),
            }
        }
    }
}

/// Lets a lease go that never ran. What is kept of it goes with it; its receipt stays.
async fn release(buyer: Arc<Buyer>, placed: Placed) {
    let lease = placed.lease;
    let mut keeper = Keeper::new(Arc::clone(&buyer), placed, String::new(), String::new());
    keeper.stop(Duration::ZERO).await;
    let ending = async {
        while let Some(event) = keeper.next().await {
            match event {
                LeaseEvent::Reconnected => keeper.stop(Duration::ZERO).await,
                LeaseEvent::Receipt(_) => return true,
                LeaseEvent::Lost(why) => {
                    debug!(%lease, why, "a lease that was let go is lost: nothing was promised");
                    return true;
                }
                _ => (),
            }
        }
        false
    };
    let is_gone = tokio::time::timeout(RELEASE_TIMEOUT, ending).await.unwrap_or(false);
    let never_ran = keeper.kept().stages.iter().all(|stage| stage.state != LeaseState::Running);
    if !(is_gone && never_ran) {
        warn!(%lease, "a lease that was let go has not ended yet: it ends by itself, nobody pays");
        return;
    }
    if let Err(error) = buyer.home().remove(lease) {
        debug!(error = %crate::chain(&error), "what is known of a lease that was let go stays");
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::NodeAddr;
    use welkin_types::{
        AccountId, CapacityType, Class, ContainerId, OfferId, Price, Resources, Tier,
    };

    use super::*;

    fn offer(region: Region) -> Offer {
        let resources =
            Resources { cpu_milli: 1, memory_bytes: 1, disk_bytes: 1, gpus: Vec::new() };
        Offer {
            id: OfferId::from_bytes([1; 16]),
            buyer: AccountId::from_bytes([9; 20]),
            addr: NodeAddr { node: NodeId::from_bytes([3; 32]), relay: None, direct: Vec::new() },
            operator: AccountId::from_bytes([2; 20]),
            container: ContainerId::from_bytes([4; 16]),
            class: "cpu-1".parse::<Class>().unwrap(),
            resources,
            region,
            price: Price::default(),
            tier: Tier::Container,
            capacity: CapacityType::OnDemand,
            notice_seconds: 0,
            reserved: None,
            online_bp: None,
            expires: UnixMillis(1),
            matched: None,
        }
    }

    #[test]
    fn near_is_by_the_table_and_one_region_is_near_itself() {
        let region = |name: &str| name.parse::<Region>().unwrap();
        let (here, there) = (region("de-frankfurt"), region("sg-singapore"));
        let far = default_rtt(&here, &there).unwrap();
        let offers = [offer(here.clone()), offer(here), offer(there)];
        let near = Together::WithinUs(1_000);
        assert!(are_together(Together::Site, &offers[..2]) && are_together(near, &offers[..2]));
        assert!(!are_together(Together::Site, &offers) && !are_together(near, &offers));
        assert!(are_together(Together::WithinUs(far), &offers));
    }
}
