//! What is said to an indexer, and what it says.
//!
//! A host opens a stream to announce itself and is given sessions for its heartbeats
//! ([`crate::heartbeat`]), which are datagrams. It sends [`HostToIndexer`] and is sent
//! [`IndexerToHost`] for as long as the stream is kept. Everybody else opens one stream per question: one [`IndexRequest`], one
//! [`IndexReply`]. Frames are at most [`crate::FRAME_BYTES_MAX`] bytes.

use serde::{Deserialize, Serialize};
use welkin_types::task::Needs;
use welkin_types::{AccountId, ContainerId, NodeId, OfferId, Region, UnixMillis};

use crate::capability::{Capability, Offer};
use crate::check::Sheet;
use crate::gossip::{Directory, Evidence, Gossip};
use crate::heartbeat::Welcome;
use crate::order::{Delegation, SignedByAccount};
use crate::signed::{Signable, Signed};

/// The first frame of a stream says what the stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexHello {
    /// A host: its capability; then [`HostToIndexer`] frames follow.
    Host(Box<Signed<Capability>>),
    /// One question.
    Ask(Box<IndexRequest>),
    /// A buyer that waits for its turn; see [`crate::queue`].
    Wait(Box<crate::queue::Wait>),
}

/// From a host, after its announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostToIndexer {
    /// A changed capability.
    Announce(Box<Signed<Capability>>),
    /// Heartbeats as they would be datagrams, one after the other, where datagrams do not pass; at
    /// most [`crate::heartbeat::FRAMED_MAX`].
    Beats(Vec<u8>),
}

/// A host's present state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The capability that it belongs to.
    pub revision: u64,
    /// Rises with each beat.
    pub sequence: u64,
    /// Free slots by container.
    pub free: Vec<(ContainerId, u32)>,
    /// Slots that spot leases use, by container, where there are any.
    pub spot: Vec<(ContainerId, u32)>,
    /// Whether the host takes no new leases.
    pub draining: bool,
}

/// To a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexerToHost {
    /// The announcement is accepted, and this is how to beat.
    Welcome(Box<Welcome>),
    /// The announcement is refused, and why.
    Refused(String),
    /// "Keep a slot for this buyer until then."
    Hold(Hold),
    /// Answers to [`HostToIndexer::Beats`], one after the other.
    Notes(Vec<u8>),
}

/// A slot kept for an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The offer.
    pub offer: OfferId,
    /// The container.
    pub container: ContainerId,
    /// For whom.
    pub buyer: AccountId,
    /// Until when.
    pub expires: UnixMillis,
}

/// One question to an indexer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexRequest {
    /// "Who can run this?"
    Match(Box<MatchRequest>),
    /// "What is there?", at most [`LISTED_MAX`] rows.
    Offers {
        /// Only what meets these needs.
        needs: Option<Box<Needs>>,
    },
    /// A checker's findings of a minute.
    Sheet(Box<Signed<Sheet>>),
    /// "Where is this host?"
    Locate(NodeId),
    /// "Which indexers are there?"
    Indexers,
    /// One side of an exchange between indexers.
    Gossip(Box<Gossip>),
    /// What an account met with at indexers.
    Evidence(Box<Signed<Evidence>>),
    /// "What did this class cost?"
    Prices(crate::prices::PricesAsked),
    /// A checker's finding about hardware.
    Exam(Box<Signed<crate::exam::ExamReport>>),
    /// "What did challenges find?", at most [`LISTED_MAX`] rows.
    Verified,
    /// A statement for the epoch's evidence that comes no other way: a roll, or a finished lease.
    State(Box<crate::epoch::Statement>),
    /// "What is known of this epoch?"
    Epoch(crate::epoch::EvidenceAsk),
    /// A checker's finding about network and disk.
    Site(Box<Signed<crate::site::SiteReport>>),
    /// "What was measured?", at most [`LISTED_MAX`] rows.
    Sites,
    /// What a checker says that an epoch came to.
    Cosign(Box<Signed<crate::cosign::Cosign>>),
    /// "What do checkers say that this epoch came to?"
    Cosigns(u64),
    /// "Which containers are there?", page by page, whatever they cost and be they free or not.
    Containers(ContainersAsk),
    /// "What does this host list?"
    Host(NodeId),
    /// A member's signature of an epoch's root, for the settlement contract.
    RootWord(Box<Signed<crate::rooted::RootWord>>),
    /// "Which members have signed this epoch's root?" It is counted as the contract does, from 1.
    RootWords(u32),
    /// "What have these hosts signed?", of at most [`WORDS_HOSTS_MAX`]: a row is only the indexer's word.
    Words(Vec<NodeId>),
}

/// Where to go on in the list of all containers. Hosts are numbered, and keep their numbers for as long
/// as the indexer lists them: so whoever walks to the end misses none that was listed all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainersAsk {
    /// Whose numbers they are: 0 at first, then [`ContainersPage::list`]. With other numbers than the
    /// indexer's, as after its restart, it is begun anew.
    pub list: u64,
    /// The host's number: 0 at first, then [`ContainersPage::next`].
    pub from: u32,
}

/// A part of the list of all containers; no host is divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainersPage {
    /// Whose numbers [`Self::next`] is of.
    pub list: u64,
    /// Rows, at most [`CONTAINERS_BYTES_MAX`].
    pub rows: Vec<Listing>,
    /// Where to go on; none at the end.
    pub next: Option<u32>,
}

/// The most bytes of the rows of a [`ContainersPage`], but for those of its first host.
pub const CONTAINERS_BYTES_MAX: usize = 512 << 10;
/// The most hosts of which is asked at once what they have signed.
pub const WORDS_HOSTS_MAX: usize = 1_024;

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchRequest {
    /// Who asks: the account's permission for the asking node.
    pub buyer: SignedByAccount<Delegation>,
    /// What is needed, of each member of a gang.
    pub needs: Needs,
    /// How many candidates, at most [`CANDIDATES_MAX`]. Without meaning for a gang.
    pub count: u8,
    /// Whether the first host, or each host of a gang, is asked to hold a slot (not for a mere
    /// plan).
    pub hold: bool,
    /// Hosts not wanted, as those that have just refused; at most [`EXCLUDED_MAX`].
    pub exclude: Vec<NodeId>,
    /// Where the buyer is, as far as it says so.
    pub from: Option<Region>,
    /// Round trips to regions in microseconds, as the buyer measured them; at most
    /// [`ROUND_TRIPS_MAX`]. Others are as the indexer's own table has them.
    pub round_trips_us: Vec<(Region, u32)>,
    /// Several at once, all or nothing.
    pub gang: Option<GangAsk>,
    /// Whether a receipt of the choice is wanted.
    pub receipt: bool,
}

/// Several containers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangAsk {
    /// How many, from 1 to [`GANG_MAX`].
    pub members: u8,
    /// How near to each other.
    pub together: Together,
    /// Whether each is to be on a host of its own.
    pub is_spread: bool,
}

/// How near the members of a gang are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Together {
    /// In one region.
    Site,
    /// With at most so many microseconds of round trip between any two.
    WithinUs(u32),
}

/// The most members of a gang.
pub const GANG_MAX: u8 = 64;
/// The most round trips of one request.
pub const ROUND_TRIPS_MAX: usize = 128;
/// The longest body of a receipt.
pub const RECEIPT_BYTES_MAX: usize = 64 << 10;
/// The most candidates of one match.
pub const CANDIDATES_MAX: u8 = 16;
/// The most hosts that one request excludes.
pub const EXCLUDED_MAX: usize = 64;
/// The most rows that one listing returns.
pub const LISTED_MAX: usize = 1_000;

/// An indexer's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexReply {
    /// Who can run it; never empty.
    Candidates(Box<Signed<Candidates>>),
    /// Nothing fits, and why.
    WhyNot(WhyNot),
    /// Rows of the market.
    Listing(Vec<Listing>),
    /// The report is taken.
    Reported,
    /// Where the host is, if known.
    Located(Option<crate::addr::NodeAddr>),
    /// The question is refused.
    Refused(String),
    /// The indexers that are known.
    Indexers(Box<Directory>),
    /// The other side of an exchange.
    Gossip(Box<Gossip>),
    /// What was asked for cost so much, the oldest first.
    Prices(Vec<crate::prices::PricePoint>),
    /// What challenges found.
    Verified(Vec<crate::exam::Verified>),
    /// What is known of an epoch.
    Epoch(Box<crate::epoch::EvidencePage>),
    /// A statement is sound and not kept: there is no room.
    NotKept {
        /// Whether it stays so until the epoch ends. Else it may be sent again.
        is_full: bool,
    },
    /// What checkers measured.
    Sites(Vec<crate::site::SiteView>),
    /// What checkers say, at most [`crate::cosign::COSIGNS_MAX`].
    Cosigns(Vec<Signed<crate::cosign::Cosign>>),
    /// Some of all containers.
    Containers(Box<ContainersPage>),
    /// What members have signed, at most [`crate::rooted::ROOT_WORDS_MAX`].
    RootWords(Vec<Signed<crate::rooted::RootWord>>),
    /// What hosts have signed, as they did: the first of those that were asked for, at most
    /// [`CONTAINERS_BYTES_MAX`] but for the first. Who is not listed here is left out.
    Words(Vec<Signed<Capability>>),
    /// A sheet is kept where these visits do not stand on it, numbered from 0: of containers that are
    /// not listed here and not known in the epoch.
    NotListed(Vec<u16>),
}

/// Who can run a task. An indexer signs all of it at once: a signature for each offer would cost
/// more than the match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// When they were chosen.
    pub at: UnixMillis,
    /// For whom.
    pub buyer: AccountId,
    /// Best first; of a gang one for each member.
    pub offers: Vec<Offer>,
    /// The receipt of the choice, where one was wanted: all that it followed from, at most
    /// [`RECEIPT_BYTES_MAX`]. `welkin-match` recomputes the choice from it.
    pub receipt: Option<Vec<u8>>,
}

impl Signable for Candidates {
    const KIND: &'static str = "candidates";
}

/// Why nothing fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyNot {
    /// Containers known.
    pub containers: u32,
    /// What removed how many, in the order of the filters; those that removed none are left out.
    pub removed: Vec<(Filter, u32)>,
    /// The nearest that there is, at most 3, and what differs.
    pub nearest: Vec<Nearest>,
}

/// One of the tests that a container must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// GPU model, memory or count.
    Gpu,
    /// Processor share.
    Cpu,
    /// Memory.
    Memory,
    /// Scratch space.
    Disk,
    /// Isolation tier.
    Isolation,
    /// Region.
    Region,
    /// Operator allow or deny list.
    Operator,
    /// Price ceiling.
    Price,
    /// Online score.
    Reliability,
    /// Encoder, fabric, attestation or another feature.
    Feature,
    /// Branch of the GPU driver.
    Driver,
    /// Round trip to the buyer.
    RoundTrip,
    /// Not offered on these terms.
    Capacity,
    /// The application is not ready.
    App,
    /// Excluded by the request.
    Excluded,
    /// Draining, stale or full.
    Free,
    /// Fits alone, and not together with enough others.
    Together,
}

impl Filter {
    /// The filter's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Isolation => "isolation",
            Self::Region => "region",
            Self::Operator => "operator",
            Self::Price => "price",
            Self::Reliability => "reliability",
            Self::Feature => "feature",
            Self::Driver => "driver",
            Self::RoundTrip => "round_trip",
            Self::Capacity => "capacity",
            Self::App => "app",
            Self::Excluded => "excluded",
            Self::Free => "free",
            Self::Together => "together",
        }
    }
}

/// A container that almost fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// The container.
    pub listing: Listing,
    /// The filters that it fails.
    pub fails: Vec<Filter>,
}

/// One row of the market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The host and the ways to it.
    pub addr: crate::addr::NodeAddr,
    /// Who is paid.
    pub operator: AccountId,
    /// The container.
    pub container: crate::capability::ContainerOffer,
    /// Where it stands.
    pub region: Region,
    /// Slots free now.
    pub free: u32,
    /// Whether the host has confirmed this since the indexer's last start.
    pub is_confirmed: bool,
    /// Share of checks that found it online, in hundredths of a percent; `None` before the first.
    pub online_bp: Option<u16>,
    /// Checks counted.
    pub checks: u32,
}
