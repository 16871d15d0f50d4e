//! The buyer: finds a container, leases it, pays for it, reads what it prints.
//!
//! [`Buyer`] is one client process: a transport with a key of its own (so that several processes
//! of one account never meet as the same node) and the account's permission for it. [`place`]
//! finds and opens a lease; [`Keeper`] then pays and follows it to its receipt; what is known of
//! leases is kept in the account's [`Home`].

mod again;
mod files;
mod home;
mod input;
mod keep;
mod logs;
mod place;
mod queue;
mod session;
mod streams;
mod waiting;

use std::time::Duration;

use welkin_net::{BindError, Endpoint, EndpointConfig};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, Listing, MatchRequest, WhyNot};
use welkin_proto::lease::RefusalCode;
use welkin_proto::prices::{PricePoint, PricesAsked};
use welkin_proto::{
    ALPN_INDEX, ALPN_LEASE, AccountKey, Delegation, Domain, NodeAddr, NodeKey, Offer, Signed,
    SignedByAccount,
};
use welkin_types::task::Needs;
use welkin_types::{AccountId, LeaseId, NodeId, Reason};

pub use again::KeptTask;
pub use files::{TarError, free_bytes, pack, scratch, scratch_dir, unpack};
pub use home::{Home, HomeError, KeptLease};
pub use input::{Carried, Input};
pub use keep::{Keeper, LeaseEvent};
pub use logs::{LogCopy, LogEvent, LogStream};
pub use place::{Ask, PlaceProgress, Placed, place};
pub use queue::{QueueError, QueueEvent, QueuePlace};
pub use session::{HostSession, Line};
pub use streams::{ExecInput, ExecOutput, ExecSession, ForwardStream, Forwarder};
pub use waiting::KeptWait;
pub use welkin_lease::Retry;

use crate::connect::{CallError, Caller};
use crate::identity::{self, IdentityError};
use crate::network::Network;
use crate::settlement::{self, ChainConfig, ChainConfigError, Settle};
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};

/// How long an indexer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
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
    indexers: Vec<Caller>,
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
        let indexers = network
            .indexers
            .iter()
            .map(|addr| Caller::new(endpoint.clone(), addr.clone(), ALPN_INDEX))
            .collect();
        Ok(Self { endpoint, domain, account, delegation, indexers, settle, home, shutdown })
    }

    /// The account that pays.
    pub const fn account(&self) -> AccountId {
        self.account.id()
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

    /// Asks one indexer after the other, beginning with a random one.
    async fn ask(&self, request: IndexRequest) -> Result<IndexReply, BuyerError> {
        let hello = IndexHello::Ask(Box::new(request));
        let count = self.indexers.len();
        let first = usize::from(u16::from_le_bytes(outside::random())) % count.max(1);
        let mut last = None;
        for indexer in self.indexers.iter().cycle().skip(first).take(count) {
            match indexer.ask(&hello, ASK_TIMEOUT).await {
                Ok(IndexReply::Refused(why)) => return Err(BuyerError::IndexerRefuses(why)),
                Ok(reply) => return Ok(reply),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(BuyerError::NoIndexerNamed, BuyerError::NoIndexer))
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
        let request = self.match_request(needs, count, hold, exclude);
        let request = IndexRequest::Match(Box::new(request));
        match self.ask(request).await? {
            IndexReply::Candidates(found) => {
                let mut offers = self.open_offers(&found.offers);
                // An indexer's word is not taken for what this side can see itself.
                offers.retain(|offer| is_within(needs, offer));
                Ok(offers)
            }
            IndexReply::WhyNot(why) => Err(BuyerError::NothingFits(Box::new(why))),
            _ => Err(BuyerError::Wire(WireError::Ended)),
        }
    }

    fn match_request(
        &self,
        needs: &Needs,
        count: u8,
        hold: bool,
        exclude: Vec<NodeId>,
    ) -> MatchRequest {
        MatchRequest {
            buyer: self.delegation.clone(),
            needs: needs.clone(),
            count,
            hold,
            exclude,
            from: None,
            round_trips_us: Vec::new(),
            gang: None,
            receipt: false,
        }
    }

    /// Offers that are for this account and signed by one of the network's indexers.
    fn open_offers(&self, signed: &[Signed<Offer>]) -> Vec<Offer> {
        let is_indexer = |node| self.indexers.iter().any(|indexer| indexer.addr().node == node);
        signed
            .iter()
            .filter(|signed| is_indexer(signed.signer()))
            .filter_map(|signed| signed.open(&self.domain).ok())
            .filter(|offer| offer.buyer == self.account())
            .collect()
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

/// Whether an offer keeps to the price and has the sizes that were asked for.
fn is_within(needs: &Needs, offer: &Offer) -> bool {
    let has = &offer.resources;
    needs.max_per_hour.is_none_or(|max| offer.price.hour() <= max)
        && has.cpu_milli >= needs.cpu_milli_min
        && has.memory_bytes >= needs.memory_bytes_min
        && has.disk_bytes >= needs.disk_bytes_min
        && offer.tier >= needs.isolation_min
}
