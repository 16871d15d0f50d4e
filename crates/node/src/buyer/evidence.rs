//! Collecting an epoch's evidence from the indexers.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tracing::debug;
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
        let mut statements: Vec<Statement> = Vec::new();
        let (mut seen, mut indexers, mut left_out) = (BTreeSet::new(), Vec::new(), 0);
        for caller in self.indexers.callers(&[]).into_iter().take(INDEXERS_MAX) {
            let node = caller.addr().node;
            let room = STATEMENTS_MAX.saturating_sub(statements.len()).min(STATEMENTS_EACH_MAX);
            let pages = tokio::time::timeout(INDEXER_TIMEOUT, pages(&caller, &heading, room)).await;
            let late = |_| Err(format!("it was not done after {} s", INDEXER_TIMEOUT.as_secs()));
            let found = pages.unwrap_or_else(late).map(|(found, out)| {
                left_out = out.saturating_add(left_out);
                let count = found.len();
                // Two indexers have the same statement with the same bytes.
                let is_new = |statement: &Statement| match welkin_proto::encode(statement) {
                    Ok(bytes) => seen.insert(<[u8; 32]>::from(Sha256::digest(&bytes))),
                    Err(_) => false,
                };
                statements.extend(found.into_iter().filter(is_new));
                count
            });
            indexers.push((node, found));
        }
        if !indexers.iter().any(|(_, found)| found.is_ok()) {
            let why = indexers.into_iter().find_map(|(_, found)| found.err());
            return Err(why.map_or(BuyerError::NoIndexerNamed, BuyerError::IndexerRefuses));
        }
        Ok(Collected { published: Published { heading, statements }, indexers, left_out })
    }
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
