//! Finding logs, and filters that remember where their asker stands.

use std::collections::BTreeMap;

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, FilteredParams, Log};

use crate::chain::{Chain, lock};
use crate::store::ReadError;
use crate::view::View;

/// The most blocks that one search looks at.
const RANGE_MAX: u64 = 100_000;
/// The most logs of an answer.
const LOGS_MAX: usize = 10_000;
/// The most bytes of data in an answer.
const DATA_BYTES_MAX: usize = 16 << 20;
/// The most addresses and topics of a filter.
const CRITERIA_MAX: usize = 1_024;
/// The most filters at a time; a new one takes the place of the one that was asked longest ago.
const FILTERS_MAX: usize = 256;
/// How long a filter lives that is not asked, in seconds of the clock.
const FILTER_SECONDS_MAX: u64 = 300;

/// Why logs are not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    #[error("unknown block")]
    UnknownBlock,
    #[error("invalid block range params")]
    Range,
    #[error("block range too large: at most {RANGE_MAX} blocks")]
    RangeTooLarge,
    #[error("query returned more than {LOGS_MAX} results or {DATA_BYTES_MAX} bytes")]
    TooMany,
    #[error("exceed max addresses or topics")]
    Criteria,
    #[error("filter not found")]
    NoFilter,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a filter told last.
#[derive(Debug)]
enum Kind {
    Blocks,
    Logs(Box<Filter>),
}

#[derive(Debug)]
struct Follower {
    kind: Kind,
    /// The last block that it was told of.
    told: u64,
    asked: u64,
}

/// The filters of a chain.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    last: u64,
    followers: BTreeMap<u64, Follower>,
}

impl Filters {
    fn add(&mut self, kind: Kind, told: u64, now: u64) -> u64 {
        self.followers
            .retain(|_, follower| now.saturating_sub(follower.asked) <= FILTER_SECONDS_MAX);
        if self.followers.len() >= FILTERS_MAX {
            let oldest = self.followers.iter().min_by_key(|(_, follower)| follower.asked);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.followers.remove(&id);
            }
        }
        self.last += 1;
        self.followers.insert(self.last, Follower { kind, told, asked: now });
        self.last
    }
}

/// What is new to a filter.
#[derive(Debug)]
pub(crate) enum News {
    Blocks(Vec<B256>),
    Logs(Vec<Log>),
}

fn check(filter: &Filter) -> Result<(), LogsError> {
    let topics: usize = filter.topics.iter().map(alloy_rpc_types_eth::FilterSet::len).sum();
    if filter.address.len() + topics > CRITERIA_MAX { Err(LogsError::Criteria) } else { Ok(()) }
}

/// The blocks that a filter names: from and to.
fn range(view: &View, filter: &Filter) -> Result<(u64, u64), LogsError> {
    let head = view.number();
    let number = |tag: Option<BlockNumberOrTag>| match tag {
        Some(BlockNumberOrTag::Number(number)) => number,
        Some(BlockNumberOrTag::Earliest) => 0,
        _ => head,
    };
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let number = view.number_of(hash)?.ok_or(LogsError::UnknownBlock)?;
            Ok((number, number))
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let (from, to) = (number(from_block), number(to_block));
            if to_block.is_some() && from > to {
                return Err(LogsError::Range);
            }
            Ok((from, to.min(head)))
        }
    }
}

/// The logs of a range that a filter asks for.
fn search(view: &View, filter: &Filter, from: u64, to: u64) -> Result<Vec<Log>, LogsError> {
    if from > to {
        return Ok(Vec::new());
    }
    if to - from >= RANGE_MAX {
        return Err(LogsError::RangeTooLarge);
    }
    let addresses = FilteredParams::address_filter(&filter.address);
    let topics = FilteredParams::topics_filter(&filter.topics);
    let mut found = Vec::new();
    let mut bytes = 0;
    for header in view.headers(from..=to)? {
        let header = header?;
        let bloom = header.logs_bloom;
        if bloom.is_zero()
            || !FilteredParams::matches_address(bloom, &addresses)
            || !FilteredParams::matches_topics(bloom, &topics)
        {
            continue;
        }
        let Some(block) = view.block(header.number)? else { continue };
        for log in block.all_logs() {
            if filter.matches(&log.inner) {
                bytes += log.inner.data.data.len();
                found.push(log);
            }
        }
        if found.len() > LOGS_MAX || bytes > DATA_BYTES_MAX {
            return Err(LogsError::TooMany);
        }
    }
    Ok(found)
}

impl Chain {
    /// The logs that a filter asks for.
    pub(crate) fn logs(&self, filter: &Filter) -> Result<Vec<Log>, LogsError> {
        check(filter)?;
        let view = self.view();
        let (from, to) = range(&view, filter)?;
        search(&view, filter, from, to)
    }

    /// Makes a filter of blocks, or of logs.
    pub(crate) fn new_filter(&self, filter: Option<Filter>) -> Result<u64, LogsError> {
        let kind = match filter {
            None => Kind::Blocks,
            Some(filter) => {
                check(&filter)?;
                Kind::Logs(Box::new(filter))
            }
        };
        let told = self.view().number();
        Ok(lock(&self.filters).add(kind, told, self.shared.now()))
    }

    /// Forgets a filter; false where there is none.
    pub(crate) fn remove_filter(&self, id: u64) -> bool {
        lock(&self.filters).followers.remove(&id).is_some()
    }

    /// All the logs of a filter, told or not.
    pub(crate) fn filter_logs(&self, id: u64) -> Result<Vec<Log>, LogsError> {
        let filter = match lock(&self.filters).followers.get(&id) {
            Some(Follower { kind: Kind::Logs(filter), .. }) => filter.as_ref().clone(),
            _ => return Err(LogsError::NoFilter),
        };
        self.logs(&filter)
    }

    /// What came since a filter was asked last.
    pub(crate) fn filter_changes(&self, id: u64) -> Result<News, LogsError> {
        let view = self.view();
        let (from, filter) = {
            let now = self.shared.now();
            let mut filters = lock(&self.filters);
            let follower = filters.followers.get_mut(&id).ok_or(LogsError::NoFilter)?;
            if now.saturating_sub(follower.asked) > FILTER_SECONDS_MAX {
                filters.followers.remove(&id);
                return Err(LogsError::NoFilter);
            }
            follower.asked = now;
            let from = follower.told.min(view.number()) + 1;
            follower.told = view.number();
            match &follower.kind {
                Kind::Blocks => (from, None),
                Kind::Logs(filter) => (from, Some(filter.as_ref().clone())),
            }
        };
        let Some(filter) = filter else {
            let first = from.max((view.number() + 1).saturating_sub(RANGE_MAX));
            let mut hashes = Vec::new();
            for number in first..=view.number() {
                hashes.extend(view.hash_of(number)?);
            }
            return Ok(News::Blocks(hashes));
        };
        // A filter from a block on, or up to one, keeps to that.
        let (first, last) = match filter.block_option {
            FilterBlockOption::AtBlockHash(_) => (from, view.number()),
            FilterBlockOption::Range { from_block, to_block } => (
                from_block.and_then(|tag| tag.as_number()).map_or(from, |first| first.max(from)),
                to_block.and_then(|tag| tag.as_number()).unwrap_or(view.number()),
            ),
        };
        Ok(News::Logs(search(&view, &filter, first, last.min(view.number()))?))
    }
}
