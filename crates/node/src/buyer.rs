//! The buyer: finds a container, leases it, pays for it, reads what it prints.
//!
//! [`Buyer`] is one client process: a transport with a key of its own (so that several processes
//! of one account never meet as the same node) and the account's permission for it. [`place`]
//! finds and opens a lease; [`Keeper`] then pays and follows it to its receipt; what is known of
//! leases is kept in the account's [`Home`].

mod again;
mod checkpoint;
mod evidence;
mod figures;
mod files;
mod gang;
mod held;
mod home;
mod indexers;
mod input;
mod keep;
mod logs;
mod place;
mod quality;
mod queue;
mod reservation;
mod reserve;
mod session;
mod streams;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use welkin_match::trust::Finding;
use welkin_net::{BindError, Endpoint, EndpointConfig};
use welkin_proto::exam::Verified;
use welkin_proto::index::{
    Candidates, Filter, IndexReply, IndexRequest, Listing, MatchRequest, WhyNot,
};
use welkin_proto::lease::RefusalCode;
use welkin_proto::prices::{PricePoint, PricesAsked};
use welkin_proto::site::SiteView;
use welkin_proto::{
    ALPN_LEASE, AccountKey, Delegation, Domain, NodeAddr, NodeKey, Offer, Signed, SignedByAccount,
    SpotTerms,
};
use welkin_types::task::Needs;
use welkin_types::{
    AccountId, CapacityType, LeaseId, NodeId, Policy, Reason, Region, ReservationId,
};

pub use again::KeptTask;
pub use checkpoint::KeptCheckpoint;
pub use evidence::Collected;
pub(crate) use evidence::{Room, collect};
pub use figures::MeasureError;
pub use files::{TarError, free_bytes, pack, scratch, scratch_dir, unpack};
pub use gang::{GangPlaced, Releasing, place_gang};
pub use home::{Home, HomeError, KeptGang, KeptLease};
pub use indexers::KnownIndexer;
pub use input::{Carried, Input};
pub use keep::{Keeper, LeaseEvent};
pub use logs::{LogCopy, LogEvent, LogStream};
pub use place::{Ask, PlaceProgress, Placed, place};
pub use quality::KeptDigests;
pub(crate) use quality::heard;
pub use queue::{QueueError, QueueEvent, QueuePlace};
pub use reservation::{KeptReservation, keep_reservation};
pub use session::{HostSession, Line};
pub use streams::{ExecInput, ExecOutput, ExecSession, ForwardStream, Forwarder};
pub use waiting::KeptWait;
pub use welkin_lease::{COMMITMENT_SECONDS, DAY_SECONDS, Retry};

use crate::connect::{CallError, Caller};
use crate::identity::{self, IdentityError};
use crate::indexer::{query_digest, turn_digest};
use crate::network::Network;
use crate::settlement::{self, ChainConfig, ChainConfigError, Settle};
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};
use indexers::Indexers;

/// One question in so many is put to two indexers, to compare them.
const COMPARED_ONE_IN: u16 = 20;
/// The region of a task that may run anywhere, wherever it is cheapest.
const ANYWHERE: &str = "any";
/// How long one process may act for its account: renewed by the next process.
const DELEGATION_LASTING: Duration = Duration::from_secs(30 * 86_400);

/// Why a buyer's wish was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuyerError {
    /// The transport could not be bound.
    #[error("failed to open the network")]
    Bind(#[source] BindError),
    /// The account's key can't be used.
    #[error("the account's key can't be used")]
    Identity(#[source] IdentityError),
    /// The chain can't be reached with these settings.
    #[error("the settings of the chain can't be used")]
    Chain(#[source] ChainConfigError),
    /// No indexer answered.
    #[error("no indexer of this network answers")]
    NoIndexer(#[source] CallError),
    /// The network file names no indexer.
    #[error("the network names no indexer")]
    NoIndexerNamed,
    /// An indexer refused the question.
    #[error("the indexer refuses: {0}")]
    IndexerRefuses(String),
    /// No indexer serves a wanted region, and no host of it is known.
    #[error(
        "no region `{}` is known; there are: {}",
        names(wanted), if known.is_empty() { "none yet".to_owned() } else { names(known) }
    )]
    UnknownRegion {
        /// What was wanted.
        wanted: Vec<Region>,
        /// What there is.
        known: Vec<Region>,
    },
    /// Nothing fits the task.
    #[error("nothing on this network fits the task")]
    NothingFits(Box<WhyNot>),
    /// What would fit is taken, and waiting for it was over.
    #[error("no host took the task in time ({0})")]
    NoHost(Reason),
    /// A host refused for a reason that other hosts would have, too.
    #[error("the host refuses: {detail}")]
    HostRefuses {
        /// Why, for machines.
        code: RefusalCode,
        /// Why, for people.
        detail: String,
    },
    /// The host can't be reached.
    #[error("the host {host} can't be reached")]
    HostUnreachable {
        /// Which host.
        host: NodeId,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The conversation with the host broke.
    #[error("the connection to the host was lost")]
    HostLost,
    /// The host did not answer in time.
    #[error("the host did not answer within {0:?}")]
    HostSilent(std::time::Duration),
    /// The conversation failed.
    #[error("the conversation failed")]
    Wire(#[source] WireError),
    /// The host says that it can't be done.
    #[error("{0}")]
    Said(String),
    /// More was sent than is wanted.
    #[error("the host sends more than {bytes_max} bytes")]
    TooLarge {
        /// How much was wanted.
        bytes_max: u64,
    },
    /// No such lease of this account.
    #[error("no lease {0} is known here")]
    UnknownLease(LeaseId),
    /// No such reservation of this account.
    #[error("no reservation {0} is known here")]
    UnknownReservation(ReservationId),
    /// The account's folder can't be used.
    #[error("the account's folder can't be used")]
    Home(#[source] HomeError),
    /// A file of this machine.
    #[error("failed to {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One client process of an account.
#[derive(Debug)]
pub struct Buyer {
    endpoint: Endpoint,
    domain: Domain,
    account: AccountKey,
    delegation: SignedByAccount<Delegation>,
    indexers: Arc<Indexers>,
    settle: Settle,
    home: Home,
    shutdown: Shutdown,
}

impl Buyer {
    /// Opens the network for the account of a home.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where the key can't be used or the transport not be bound.
    pub async fn open(
        network: &Network,
        home: Home,
        shutdown: Shutdown,
    ) -> Result<Self, BuyerError> {
        Self::open_with(network, home, &ChainConfig::default(), shutdown).await
    }

    /// As [`Self::open`], with settings of its own for the chain.
    ///
    /// # Errors
    ///
    /// As of [`Self::open`], and where a setting is wrong.
    pub async fn open_with(
        network: &Network,
        home: Home,
        chain: &ChainConfig,
        shutdown: Shutdown,
    ) -> Result<Self, BuyerError> {
        let account = home.account_key().map_err(BuyerError::Home)?;
        let key = NodeKey::from_secret(&outside::random());
        let domain = network.domain();
        let delegation = identity::delegate(&domain, &account, key.id(), DELEGATION_LASTING)
            .map_err(BuyerError::Identity)?;
        let mut config = EndpointConfig::new(*key.secret());
        config.relay = network.relay.as_ref().and_then(wire::to_net_relay);
        let endpoint = Endpoint::bind(config).await.map_err(BuyerError::Bind)?;
        let (service, permit) = (network.settlement.clone(), delegation.clone());
        let line = settlement::Line::remote(endpoint.clone(), service, permit);
        let settle = chain.settle(network, line, account.clone(), &shutdown);
        let settle = settle.map_err(BuyerError::Chain)?;
        let indexers = Arc::new(Indexers::new(
            endpoint.clone(),
            domain,
            key,
            delegation.clone(),
            network.indexers.clone(),
            home.clone(),
        ));
        Ok(Self { endpoint, domain, account, delegation, indexers, settle, home, shutdown })
    }

    /// The account that pays.
    pub const fn account(&self) -> AccountId {
        self.account.id()
    }

    /// Its account's key, for who is both a buyer and a checker.
    pub(crate) const fn account_key(&self) -> &AccountKey {
        &self.account
    }

    /// The transport.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where signatures hold.
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The settlement service.
    pub const fn settle(&self) -> &Settle {
        &self.settle
    }

    /// What is known of the account's leases.
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Closes the transport in an orderly way.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }

    /// Says where this buyer stands, so that near indexers are asked first.
    pub fn stand_in(&self, region: Region) {
        self.indexers.stand_in(Some(region));
    }

    /// All indexers that are known, as this account sees them.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer answers.
    pub async fn indexers(&self) -> Result<Vec<KnownIndexer>, BuyerError> {
        if !self.indexers.look().await {
            // Says why.
            self.ask(IndexRequest::Indexers).await?;
        }
        self.indexers.save();
        Ok(self.indexers.list())
    }

    /// Compares two indexers now, as is done aside with one question in twenty; tells the indexers
    /// what came out. Says whether there are two to compare.
    pub async fn compare_indexers(&self, needs: &Needs) -> bool {
        let compared = self.indexers.look().await && self.indexers.compare(needs).await;
        self.indexers.publish().await;
        compared
    }

    /// Remembers who made these offers.
    fn offered(&self, offers: &[Offer], by: NodeId) {
        offers.iter().for_each(|offer| self.indexers.offered(offer.id, by));
    }

    /// Counts what became of an offer.
    pub(super) fn found(&self, offer: &Offer, finding: Finding) {
        self.indexers.found(offer.id, finding);
        self.indexers.save();
        self.publish_aside();
    }

    /// Tells indexers what was met with, at most once a minute.
    fn publish_aside(&self) {
        if self.indexers.is_time_to_publish() {
            let indexers = Arc::clone(&self.indexers);
            self.shutdown.spawn_until_asked("publish", async move { indexers.publish().await });
        }
    }

    /// Asks an indexer: a near one first, others where that one is silent.
    async fn ask(&self, request: IndexRequest) -> Result<IndexReply, BuyerError> {
        let order = self.indexers.order(&[]).into_iter().flatten().collect();
        match self.indexers.ask(order, request).await? {
            (_, IndexReply::Refused(why)) => Err(BuyerError::IndexerRefuses(why)),
            (_, reply) => Ok(reply),
        }
    }

    /// Candidates for a task, best first, signatures checked.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NothingFits`] with the reasons, or why no indexer answered.
    pub async fn candidates(
        &self,
        needs: &Needs,
        count: u8,
        hold: bool,
        exclude: Vec<NodeId>,
    ) -> Result<Vec<Offer>, BuyerError> {
        let is_anywhere = self.look_around(needs).await;
        let request = self.match_request(needs, count, hold, exclude);
        let request = MatchRequest { receipt: true, ..request };
        let is_compared = u16::from_le_bytes(outside::random()) % COMPARED_ONE_IN == 0;
        if is_compared && hold {
            let needs = request.needs.clone();
            let aside = indexers::compare_aside(Arc::clone(&self.indexers), needs);
            self.shutdown.spawn_until_asked("compare", aside);
        }
        self.candidates_of(request, is_anywhere).await
    }

    /// Learns of indexers and round trips what a question needs. Says whether it may be answered
    /// anywhere, wherever it is cheapest.
    async fn look_around(&self, needs: &Needs) -> bool {
        // Where a region is named, its indexers must be known; else that can wait.
        let is_near = is_near_wanted(needs);
        if needs.regions.is_empty() && !is_near {
            let indexers = Arc::clone(&self.indexers);
            self.shutdown.spawn_until_asked("look", async move {
                indexers.look().await;
                indexers.save();
            });
        } else {
            self.indexers.look().await;
        }
        if is_near {
            self.indexers.probe().await;
        }
        needs.regions.iter().any(|region| region.as_str() == ANYWHERE)
    }

    /// Goes through the regions until one has something that fits.
    async fn candidates_of(
        &self,
        request: MatchRequest,
        is_anywhere: bool,
    ) -> Result<Vec<Offer>, BuyerError> {
        let wanted = request.needs.regions.clone();
        let mut groups = self.indexers.order(&wanted);
        if is_anywhere {
            groups = self.indexers.cheapest_first(groups);
        }
        let (mut why_not, mut last): (Option<WhyNot>, _) = (None, BuyerError::NoIndexerNamed);
        for first in 0..groups.len().min(indexers::REGIONS_ASKED_MAX) {
            let asked = IndexRequest::Match(Box::new(request.clone()));
            // Where a region's indexers are all silent, the next region's are asked at once.
            let order = groups.iter().skip(first).flatten().cloned().collect();
            match self.indexers.ask(order, asked).await {
                Ok((by, IndexReply::Candidates(signed))) => {
                    let found = signed.open_by(&self.domain, by).ok();
                    self.check(by, (&request, query_digest(&request)), (&signed, found.as_ref()));
                    let mut offers =
                        found.map_or_else(Vec::new, |found| self.own_offers(by, found));
                    // An indexer's word is not taken for what this side can see itself.
                    offers.retain(|offer| is_within(&request.needs, offer));
                    self.offered(&offers, by);
                    return Ok(offers);
                }
                Ok((_, IndexReply::WhyNot(why))) => match &mut why_not {
                    // The nearest region's answer stands; the others' add to what is taken.
                    Some(first) => indexers::add(first, why),
                    None => why_not = Some(why),
                },
                Ok((_, IndexReply::Refused(why))) => last = BuyerError::IndexerRefuses(why),
                Ok(_) => last = BuyerError::Wire(WireError::Ended),
                Err(error) => last = error,
            }
        }
        let Some(why) = why_not else { return Err(last) };
        let known = self.indexers.regions();
        if !wanted.is_empty() && !wanted.iter().any(|region| known.contains(region)) {
            let is_elsewhere = |(filter, count): &(Filter, u32)| {
                *filter == Filter::Region && *count == why.containers
            };
            if why.containers == 0 || why.removed.iter().any(is_elsewhere) {
                let known: BTreeSet<_> = known.into_iter().collect();
                let known = known.into_iter().collect();
                return Err(BuyerError::UnknownRegion { wanted, known });
            }
        }
        Err(BuyerError::NothingFits(Box::new(why)))
    }

    fn match_request(
        &self,
        needs: &Needs,
        count: u8,
        hold: bool,
        exclude: Vec<NodeId>,
    ) -> MatchRequest {
        let mut needs = needs.clone();
        if needs.regions.iter().any(|region| region.as_str() == ANYWHERE) {
            needs.regions.clear();
        }
        let is_near = is_near_wanted(&needs);
        MatchRequest {
            buyer: self.delegation.clone(),
            needs,
            count,
            hold,
            exclude,
            from: self.indexers.here(),
            round_trips_us: if is_near { self.indexers.round_trips() } else { Vec::new() },
            gang: None,
            receipt: false,
        }
    }

    /// Checks the receipt of an answer.
    fn check(
        &self,
        by: NodeId,
        (request, asked): (&MatchRequest, [u8; 32]),
        (signed, found): (&Signed<Candidates>, Option<&Candidates>),
    ) {
        let buyer = self.account();
        let answer = indexers::Answer { by, buyer, request, asked, signed, found };
        if !self.indexers.check_receipt(&answer) {
            self.publish_aside();
        }
    }

    /// The offers of a turn in an indexer's queue, its receipt checked.
    fn open_turn(&self, request: &MatchRequest, signed: &Signed<Candidates>) -> Vec<Offer> {
        let by = signed.signer();
        if !self.indexers.is_indexer(by) {
            return Vec::new();
        }
        let found = signed.open(&self.domain).ok();
        self.check(by, (request, turn_digest(request)), (signed, found.as_ref()));
        found.map_or_else(Vec::new, |found| self.own_offers(by, found))
    }

    /// The offers of an opened answer that are for this account.
    fn own_offers(&self, by: NodeId, found: Candidates) -> Vec<Offer> {
        let mut offers = found.offers;
        offers.retain(|offer| offer.buyer == self.account());
        for offer in &mut offers {
            // An indexer speaks for itself only.
            offer.matched = offer.matched.filter(|matched| matched.indexer == by);
        }
        offers
    }

    /// What is on offer, with online scores.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer answers.
    pub async fn offers(&self, needs: Option<Needs>) -> Result<Vec<Listing>, BuyerError> {
        let request = IndexRequest::Offers { needs: needs.map(Box::new) };
        match self.ask(request).await? {
            IndexReply::Listing(rows) => Ok(rows),
            _ => Err(BuyerError::Wire(WireError::Ended)),
        }
    }

    /// What challenges of hardware have found of containers.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer answers.
    pub async fn verified(&self) -> Result<Vec<Verified>, BuyerError> {
        match self.ask(IndexRequest::Verified).await? {
            IndexReply::Verified(rows) => Ok(rows),
            _ => Err(BuyerError::Wire(WireError::Ended)),
        }
    }

    /// What checkers measured of networks, places and disks lately, as an indexer adds it up.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer answers.
    pub async fn sites(&self) -> Result<Vec<SiteView>, BuyerError> {
        match self.ask(IndexRequest::Sites).await? {
            IndexReply::Sites(rows) => Ok(rows),
            _ => Err(BuyerError::Wire(WireError::Ended)),
        }
    }

    /// What a class has cost, the oldest first.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer answers.
    pub async fn prices(&self, asked: PricesAsked) -> Result<Vec<PricePoint>, BuyerError> {
        match self.ask(IndexRequest::Prices(asked)).await? {
            IndexReply::Prices(points) => Ok(points),
            _ => Err(BuyerError::Wire(WireError::Ended)),
        }
    }

    /// Connects to a host: by the address known here, else by the one an indexer knows now.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostUnreachable`]
    pub async fn connect(&self, addr: &NodeAddr) -> Result<HostSession, BuyerError> {
        match self.dial(addr).await {
            Err(error @ BuyerError::HostUnreachable { .. }) => {
                // It may have come back at another address.
                let located = self.ask(IndexRequest::Locate(addr.node)).await;
                match located {
                    Ok(IndexReply::Located(Some(now))) if now != *addr => self.dial(&now).await,
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    async fn dial(&self, addr: &NodeAddr) -> Result<HostSession, BuyerError> {
        let caller = Caller::new(self.endpoint.clone(), addr.clone(), ALPN_LEASE);
        let connection = caller
            .connection()
            .await
            .map_err(|source| BuyerError::HostUnreachable { host: addr.node, source })?;
        HostSession::start(connection, self.delegation.clone(), &self.shutdown).await
    }
}

/// Whether round trips matter.
fn is_near_wanted(needs: &Needs) -> bool {
    needs.rtt_us_max.is_some() || needs.policy == Policy::Closest
}

fn names(regions: &[Region]) -> String {
    regions.iter().map(Region::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether an offer keeps to the price and has the sizes that were asked for.
fn is_within(needs: &Needs, offer: &Offer) -> bool {
    let has = &offer.resources;
    needs.max_per_hour.is_none_or(|max| offer.price.hour() <= max)
        && has.cpu_milli >= needs.cpu_milli_min
        && has.memory_bytes >= needs.memory_bytes_min
        && has.disk_bytes >= needs.disk_bytes_min
        && offer.tier >= needs.isolation_min
        && offer.capacity == needs.capacity
        && (offer.capacity != CapacityType::Spot
            || SpotTerms::NOTICE_SECONDS.contains(&offer.notice_seconds))
}
