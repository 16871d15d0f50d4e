//! The evidence of epochs: every statement that was accepted, kept as it was signed and shown to
//! anybody.
//!
//! Reports of checkers are kept as they are taken; hosts and checkers say in a roll for whom they
//! take part, and hosts send receipts of finished leases. Nothing waits for the disk: what can't be
//! written in time is counted as left out.

mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use welkin_ledger::epoch::Span;
use welkin_proto::epoch::{
    EvidenceAsk, EvidencePage, Heading, ROLL_CONTAINERS_MAX, Roll, Statement,
};
use welkin_proto::index::IndexReply;
use welkin_proto::settle::EpochView;
use welkin_proto::{ReceiptFile, Signed};
use welkin_types::NodeId;

use super::Indexer;
use crate::outside;
use crate::settlement::Settle;
use store::Store;

/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 2;
/// Headings that are remembered.
const HEADINGS_MAX: usize = 8;
/// A first page has a heading no older than this.
const HEADING_LASTING: Duration = Duration::from_secs(1);
/// Epochs back from a lease's end that its receipt is kept for.
const EPOCHS_OF_LEASE: u64 = 8;
/// A roll may come so long before its epoch, in seconds: clocks differ.
const EARLY_SECONDS: u64 = 60;

/// What an indexer keeps and shows.
#[derive(Debug)]
pub(super) struct Evidence {
    store: Store,
    settle: Settle,
    /// Seeds and lists for those who ask; held while one is fetched, so that it is one at a time.
    headings: tokio::sync::Mutex<BTreeMap<u64, (Instant, EpochView)>>,
    reading: Arc<Semaphore>,
}

impl Evidence {
    /// With its logs in a folder.
    pub(super) fn open(dir: PathBuf, settle: Settle) -> Self {
        let reading = Arc::new(Semaphore::new(PAGES_AT_ONCE));
        Self { store: Store::open(dir), settle, headings: Default::default(), reading }
    }

    /// Keeps a statement for an epoch; never waits.
    fn keep(&self, epoch: u64, statement: &Statement) {
        self.store.append(epoch, statement);
    }

    /// An epoch's seed and list of checkers: for a first page the present one, since it may grow.
    async fn heading(&self, epoch: u64, is_first: bool) -> Result<EpochView, String> {
        let mut headings = self.headings.lock().await;
        if let Some((at, view)) = headings.get(&epoch)
            && (!is_first || at.elapsed() < HEADING_LASTING)
        {
            return Ok(view.clone());
        }
        let view = self.settle.epoch(epoch).await.map_err(|error| crate::chain(&error))?;
        headings.insert(epoch, (Instant::now(), view.clone()));
        while headings.len() > HEADINGS_MAX {
            let oldest = headings.iter().min_by_key(|(_, (at, _))| *at).map(|(epoch, _)| *epoch);
            oldest.map(|oldest| headings.remove(&oldest));
        }
        Ok(view)
    }
}

/// Keeps a report that was taken, for the epoch of its minute.
pub(super) async fn reported(indexer: &Indexer, minute: u64, statement: Statement) {
    if let Ok(epoch_seconds) = indexer.reports.epoch_seconds().await {
        let epoch = welkin_check::epoch_of(minute, epoch_seconds);
        indexer.evidence.keep(epoch, &statement);
    }
}

/// Takes a statement that comes no other way.
pub(super) async fn answer(indexer: &Indexer, peer: NodeId, statement: Statement) -> IndexReply {
    let taken = match &statement {
        Statement::Roll(roll) => take_roll(indexer, peer, roll, &statement).await,
        Statement::Lease(file) => take_lease(indexer, file, &statement).await,
        Statement::Probe(_) | Statement::Exam(_) => {
            Err("findings are sent as reports, when they are made".to_owned())
        }
    };
    taken.map_or_else(IndexReply::Refused, |()| IndexReply::Reported)
}

async fn take_roll(
    indexer: &Indexer,
    peer: NodeId,
    signed: &Signed<Roll>,
    statement: &Statement,
) -> Result<(), String> {
    let roll = signed.open_by(&indexer.domain, peer).map_err(|error| crate::chain(&error))?;
    let now = outside::now();
    let span = Span::of(roll.epoch, indexer.reports.epoch_seconds().await?);
    let seconds = now.0 / 1_000;
    if seconds.saturating_add(EARLY_SECONDS) < span.start || seconds >= span.closes() {
        return Err("the roll is for another epoch than the present one".to_owned());
    }
    let account = roll.account.account(&indexer.domain, peer, now);
    account.map_err(|_| "no account vouches for this node".to_owned())?;
    if roll.containers.len() > ROLL_CONTAINERS_MAX {
        return Err("the roll names too many containers".to_owned());
    }
    let is_known = if roll.containers.is_empty() {
        indexer.reports.lists(roll.epoch, peer).await?
    } else {
        let fleet = indexer.fleet();
        roll.containers.iter().all(|(container, _)| fleet.has(peer, *container))
    };
    if !is_known {
        return Err("neither a checker of the epoch nor a host that is announced here".to_owned());
    }
    indexer.evidence.keep(roll.epoch, statement);
    Ok(())
}

/// A receipt is kept for every epoch in which the lease ran and whose evidence is open.
async fn take_lease(
    indexer: &Indexer,
    file: &ReceiptFile,
    statement: &Statement,
) -> Result<(), String> {
    if file.domain != indexer.domain {
        return Err("the receipt is of another network".to_owned());
    }
    let receipt = file.verify().map_err(|error| error.to_string())?;
    if !indexer.fleet().has(receipt.host, receipt.container) {
        return Err("the receipt is of a container that is not known here".to_owned());
    }
    let (Some(first), Some(last)) = (receipt.stages.first(), receipt.stages.last()) else {
        return Err("the receipt has no stages".to_owned());
    };
    let now = outside::now().0 / 1_000;
    if last.at.0 / 1_000 > now.saturating_add(EARLY_SECONDS) {
        return Err("the lease ends in the future".to_owned());
    }
    let epoch_seconds = indexer.reports.epoch_seconds().await?;
    let epoch = |at: welkin_types::UnixMillis| at.0 / 1_000 / epoch_seconds;
    let first = epoch(first.at).max(epoch(last.at).saturating_sub(EPOCHS_OF_LEASE));
    let open = (first..=epoch(last.at)).filter(|e| now < Span::of(*e, epoch_seconds).closes());
    let mut count = 0;
    for epoch in open {
        indexer.evidence.keep(epoch, statement);
        count += 1;
    }
    if count == 0 {
        return Err("the evidence of that lease's epochs is closed".to_owned());
    }
    Ok(())
}

/// Shows a page.
pub(super) async fn page(indexer: &Indexer, ask: EvidenceAsk) -> IndexReply {
    match read(indexer, ask).await {
        Ok(page) => IndexReply::Epoch(Box::new(page)),
        Err(why) => IndexReply::Refused(why),
    }
}

async fn read(indexer: &Indexer, ask: EvidenceAsk) -> Result<EvidencePage, String> {
    let evidence = &indexer.evidence;
    let Ok(permit) = Arc::clone(&evidence.reading).acquire_owned().await else {
        return Err("the indexer stops".to_owned());
    };
    let path = evidence.store.path(ask.epoch);
    let asked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        store::read_page(&path, ask.from)
    });
    let read = asked.await.map_err(|_| "the evidence can't be read now".to_owned())?;
    let Some((statements, next)) = read.map_err(|error| error.to_string())? else {
        return Err(format!("this indexer has no evidence of epoch {}", ask.epoch));
    };
    let view = evidence.heading(ask.epoch, ask.from == 0).await?;
    let heading = Heading::new(indexer.domain, view);
    Ok(EvidencePage { heading, statements, next, left_out: evidence.store.left_out() })
}
