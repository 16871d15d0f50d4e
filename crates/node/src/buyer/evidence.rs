//! Collecting an epoch's evidence from the indexers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tracing::debug;
use welkin_proto::cosign::{COSIGNS_MAX, Cosign};
use welkin_proto::epoch::{EvidenceAsk, EvidencePage, Heading, Statement};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::settle::EpochView;
use welkin_types::NodeId;

use super::indexers::ASK_TIMEOUT;
use super::{Buyer, BuyerError};
use crate::connect::Caller;
use crate::epoch::Published;
use crate::wire::WireError;

/// Indexers that are asked.
const INDEXERS_MAX: usize = 16;
/// Pages of one indexer: more than its log may have.
const PAGES_MAX: usize = 4_096;
/// More than the logs of indexers hold.
const ROOM: Room = Room { bytes: 2 << 30, bytes_each: 512 << 20, within: Duration::from_secs(300) };

/// A statement counts for as many bytes at least: so what it takes in memory beside its own is bounded, too.
const STATEMENT_BYTES_MIN: usize = 256;

/// How much is collected at most. An indexer that shows more than its part is not heard at all: of a part
/// of its evidence another root would come out, and none fills the place of the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes of all indexers' statements as they are encoded.
    pub(crate) bytes: usize,
    /// Bytes of one indexer's.
    pub(crate) bytes_each: usize,
    /// How long one indexer is heard in all.
    pub(crate) within: Duration,
}

/// What indexers showed.
#[derive(Clone, Debug)]
pub struct Collected {
    /// All of it, each statement once.
    pub published: Published,
    /// Who was asked, how many statements each has shown, and why not, where it failed.
    pub indexers: Vec<(NodeId, Result<usize, String>)>,
    /// Statements that indexers say they had no room for.
    pub left_out: u64,
}

impl Buyer {
    /// Collects what the indexers have of an epoch, whose seed and checkers the settlement service
    /// has told; an indexer that shows another seed is not heard.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where no indexer shows any.
    pub async fn evidence(&self, view: EpochView) -> Result<Collected, BuyerError> {
        let heading = Heading::new(self.domain, view);
        self.indexers.look().await;
        let callers = self.indexers.callers(&[]);
        let callers: Vec<_> = callers.iter().map(|caller| &**caller).collect();
        let found = collect(&callers, &heading, ROOM).await;
        if found.is_full {
            let why = format!(
                "the indexers show more than {} MiB together: name fewer of them",
                ROOM.bytes >> 20
            );
            return Err(BuyerError::IndexerRefuses(why));
        }
        let Found { statements, shown: indexers, left_out, .. } = found;
        if !indexers.iter().any(|(_, found)| found.is_ok()) {
            let why = indexers.into_iter().find_map(|(_, found)| found.err());
            return Err(why.map_or(BuyerError::NoIndexerNamed, BuyerError::IndexerRefuses));
        }
        Ok(Collected { published: Published { heading, statements }, indexers, left_out })
    }
}

impl Buyer {
    /// What checkers of an epoch say that it came to, each with a right signature; of one that says
    /// different things to different indexers any.
    pub async fn cosigns(&self, view: &EpochView) -> BTreeMap<NodeId, Cosign> {
        let ask = IndexHello::Ask(Box::new(IndexRequest::Cosigns(view.epoch)));
        let mut words = BTreeMap::new();
        for caller in self.indexers.callers(&[]).into_iter().take(INDEXERS_MAX) {
            let Ok(IndexReply::Cosigns(said)) = caller.ask(&ask, ASK_TIMEOUT).await else {
                debug!(indexer = %caller.addr().node, "it shows no signatures");
                continue;
            };
            for signed in said.into_iter().take(COSIGNS_MAX) {
                let by = signed.signer();
                let said = signed.open(&self.domain).ok();
                let said = said.filter(|said| said.epoch == view.epoch);
                words.extend(said.filter(|_| view.listed(by).is_some()).map(|said| (by, said)));
            }
        }
        words
    }
}

/// What indexers showed of an epoch, each statement once.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) statements: Vec<Statement>,
    /// How many each has shown, or why none.
    pub(crate) shown: Vec<(NodeId, Result<usize, String>)>,
    /// How many of these show more than there is room for.
    pub(crate) too_large: usize,
    /// Whether there was no room for some of what they showed together.
    pub(crate) is_full: bool,
    /// Statements that they say they had no room for.
    pub(crate) left_out: u64,
}

/// Collects what there is room for.
pub(crate) async fn collect(callers: &[&Caller], heading: &Heading, room: Room) -> Found {
    let mut found = Found::default();
    // Two indexers have the same statement with the same bytes.
    let (mut seen, mut left) = (BTreeSet::new(), room.bytes);
    for caller in callers.iter().take(INDEXERS_MAX) {
        let pages = tokio::time::timeout(room.within, pages(caller, heading, room)).await;
        let late = |_| Err(Unheard::Why(format!("it took over {} s", room.within.as_secs())));
        let said = match pages.unwrap_or_else(late) {
            Ok((statements, left_out)) => {
                found.left_out = found.left_out.saturating_add(left_out);
                let count = statements.len();
                for Shown { statement, digest, bytes } in statements {
                    if !seen.insert(digest) {
                        continue;
                    }
                    let Some(rest) = left.checked_sub(bytes) else {
                        found.is_full = true;
                        break;
                    };
                    left = rest;
                    found.statements.push(statement);
                }
                Ok(count)
            }
            Err(Unheard::TooMuch) => {
                found.too_large += 1;
                Err(format!("it shows more than {} MiB", room.bytes_each >> 20))
            }
            Err(Unheard::Why(why)) => Err(why),
        };
        found.shown.push((caller.addr().node, said));
    }
    found
}

/// Why an indexer is not heard.
enum Unheard {
    TooMuch,
    Why(String),
}

/// A statement, with the digest of its bytes and how many they are.
struct Shown {
    statement: Statement,
    digest: [u8; 32],
    bytes: usize,
}

async fn pages(
    caller: &Caller,
    heading: &Heading,
    room: Room,
) -> Result<(Vec<Shown>, u64), Unheard> {
    let (mut statements, mut bytes, mut from) = (Vec::new(), 0_usize, 0);
    for _ in 0..PAGES_MAX {
        let ask = EvidenceAsk { epoch: heading.view.epoch, from };
        let hello = IndexHello::Ask(Box::new(IndexRequest::Epoch(ask)));
        let page = match caller.ask(&hello, ASK_TIMEOUT).await {
            Ok(IndexReply::Epoch(page)) => *page,
            Ok(IndexReply::Refused(why)) => return Err(Unheard::Why(crate::quoted(&why))),
            Ok(_) => return Err(Unheard::Why(crate::chain(&WireError::Ended))),
            Err(error) => return Err(Unheard::Why(crate::chain(&error))),
        };
        let EvidencePage { heading: its, statements: more, next, left_out } = page;
        let is_same = its.version == heading.version
            && its.domain == heading.domain
            && (its.view.epoch, its.view.seed) == (heading.view.epoch, heading.view.seed);
        if !is_same {
            let why = "it shows another seed than the settlement service";
            return Err(Unheard::Why(why.to_owned()));
        }
        for statement in more {
            let Ok(encoded) = welkin_proto::encode(&statement) else { continue };
            let (digest, length) = (Sha256::digest(&encoded).into(), encoded.len());
            let counted = length.max(STATEMENT_BYTES_MIN);
            bytes = bytes.saturating_add(counted);
            statements.push(Shown { statement, digest, bytes: counted });
        }
        if bytes > room.bytes_each {
            return Err(Unheard::TooMuch);
        }
        match next.filter(|next| *next > from) {
            Some(next) => from = next,
            None => {
                debug!(indexer = %caller.addr().node, count = statements.len(), "evidence");
                return Ok((statements, left_out));
            }
        }
    }
    Err(Unheard::Why("it shows more pages than an epoch has".to_owned()))
}
