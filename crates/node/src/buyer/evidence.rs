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
/// The most statements that are collected, and of these the most of one indexer: none fills the place of
/// the others.
const STATEMENTS_MAX: usize = 1 << 23;
const STATEMENTS_EACH_MAX: usize = STATEMENTS_MAX / 4;
/// How long one indexer is heard in all.
const INDEXER_TIMEOUT: Duration = Duration::from_secs(300);

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
        let Found { statements, shown: indexers, left_out } =
            collect(&callers, &heading, STATEMENTS_MAX, STATEMENTS_EACH_MAX).await;
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
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) statements: Vec<Statement>,
    /// How many each has shown, or why none.
    pub(crate) shown: Vec<(NodeId, Result<usize, String>)>,
    /// Statements that they say they had no room for.
    pub(crate) left_out: u64,
}

/// Collects at most so many statements, of one indexer at most `each`.
pub(crate) async fn collect(
    callers: &[&Caller],
    heading: &Heading,
    most: usize,
    each: usize,
) -> Found {
    let mut statements: Vec<Statement> = Vec::new();
    let (mut seen, mut shown, mut left_out) = (BTreeSet::new(), Vec::new(), 0);
    for caller in callers.iter().take(INDEXERS_MAX) {
        let pages = tokio::time::timeout(INDEXER_TIMEOUT, pages(caller, heading, each)).await;
        let late = |_| Err(format!("it was not done after {} s", INDEXER_TIMEOUT.as_secs()));
        let found = pages.unwrap_or_else(late).map(|(found, out)| {
            left_out = out.saturating_add(left_out);
            let count = found.len();
            // Two indexers have the same statement with the same bytes.
            let is_new = |statement: &Statement| match welkin_proto::encode(statement) {
                Ok(bytes) => seen.insert(<[u8; 32]>::from(Sha256::digest(&bytes))),
                Err(_) => false,
            };
            let room = most.saturating_sub(statements.len());
            statements.extend(found.into_iter().filter(is_new).take(room));
            count
        });
        shown.push((caller.addr().node, found));
    }
    Found { statements, shown, left_out }
}

async fn pages(
    caller: &Caller,
    heading: &Heading,
    room: usize,
) -> Result<(Vec<Statement>, u64), String> {
    let (mut statements, mut from) = (Vec::new(), 0);
    for _ in 0..PAGES_MAX {
        let ask = EvidenceAsk { epoch: heading.view.epoch, from };
        let hello = IndexHello::Ask(Box::new(IndexRequest::Epoch(ask)));
        let page = match caller.ask(&hello, ASK_TIMEOUT).await {
            Ok(IndexReply::Epoch(page)) => *page,
            Ok(IndexReply::Refused(why)) => return Err(why),
            Ok(_) => return Err(crate::chain(&WireError::Ended)),
            Err(error) => return Err(crate::chain(&error)),
        };
        let EvidencePage { heading: its, statements: more, next, left_out } = page;
        let is_same = its.version == heading.version
            && its.domain == heading.domain
            && (its.view.epoch, its.view.seed) == (heading.view.epoch, heading.view.seed);
        if !is_same {
            return Err("it shows another seed than the settlement service".to_owned());
        }
        statements.extend(more);
        match next {
            Some(next) if next > from && statements.len() < room => from = next,
            _ => {
                debug!(indexer = %caller.addr().node, count = statements.len(), "evidence");
                statements.truncate(room);
                return Ok((statements, left_out));
            }
        }
    }
    Err("it shows more pages than an epoch has".to_owned())
}
