//! The evidence of epochs: every statement that was accepted, kept as it was signed and shown to
//! anybody.
//!
//! Reports of checkers are kept as they are taken; hosts and checkers say in a roll for whom they
//! take part, and hosts send receipts of finished leases. Each kind has a part of the log of its own.
//! Who sends a statement is told whether it is kept.

mod budget;
mod digests;
mod log;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;
use welkin_proto::check::{Finding, Report, Sheet};
use welkin_proto::epoch::{
    EvidenceAsk, EvidencePage, Heading, ROLL_CONTAINERS_MAX, ROLL_EARLY_SECONDS, Roll, Span,
    Statement,
};
use welkin_proto::index::IndexReply;
use welkin_proto::settle::EpochView;
use welkin_proto::{ReceiptFile, Signed};
use welkin_types::NodeId;

use super::Indexer;
use crate::outside;
use crate::settlement::Settle;
use budget::{Released, Subject};
use store::{Kept, Store, Unlisted};

/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 2;
/// Headings that are remembered.
const HEADINGS_MAX: usize = 8;
/// Epochs back from a lease's end that its receipt is kept for.
const EPOCHS_OF_LEASE: u64 = 8;

/// What an indexer keeps and shows.
#[derive(Debug)]
pub(super) struct Evidence {
    store: Store,
    settle: Settle,
    /// Seeds and lists for those who ask; held while one is fetched, so that it is one at a time.
    headings: tokio::sync::Mutex<BTreeMap<u64, EpochView>>,
    reading: Arc<Semaphore>,
}

impl Evidence {
    /// With its logs in a folder.
    pub(super) fn open(dir: PathBuf, settle: Settle) -> Self {
        let reading = Arc::new(Semaphore::new(PAGES_AT_ONCE));
        Self { store: Store::open(dir), settle, headings: Default::default(), reading }
    }

    async fn keep(&self, epoch: u64, statement: &Statement) -> Kept {
        self.store.append(epoch, statement, Subject::of(statement), Vec::new()).await
    }

    /// An epoch's seed and list of checkers, which never change.
    async fn heading(&self, epoch: u64) -> Result<EpochView, String> {
        let mut headings = self.headings.lock().await;
        if let Some(view) = headings.get(&epoch) {
            return Ok(view.clone());
        }
        let view = self.settle.epoch(epoch).await.map_err(|error| crate::chain(&error))?;
        headings.insert(epoch, view.clone());
        while headings.len() > HEADINGS_MAX {
            let other = headings.keys().copied().find(|other| *other != epoch);
            other.map(|other| headings.remove(&other));
        }
        Ok(view)
    }
}

/// Keeps what a challenge or a measurement found, for the epoch of its minute; the answer to who sent it.
pub(super) async fn reported(indexer: &Indexer, minute: u64, statement: Statement) -> IndexReply {
    let Ok(epoch_seconds) = indexer.reports.epoch_seconds().await else { return told(Kept::Later) };
    let epoch = welkin_check::epoch_of(minute, epoch_seconds);
    let span = Span::of(epoch, epoch_seconds);
    let parts = span.period_of(minute).map_or(span.periods, |period| period.saturating_add(1));
    let released = Released { parts: parts.into(), of: span.periods.into(), authors: 1 };
    let subject = Subject::of(&statement).map(|subject| subject.when(released));
    told(indexer.evidence.store.append(epoch, &statement, subject, Vec::new()).await)
}

/// Keeps a sheet that was taken, for the epoch of its minute; the answer to who sent it. Of containers
/// that are not listed here it says only what is bad, of those that the epoch's evidence knows: else it is
/// to be signed without them.
pub(super) async fn found(
    indexer: &Indexer,
    signed: Box<Signed<Sheet>>,
    sheet: &Sheet,
    authors: u32,
    unlisted: &[(u16, &Report)],
) -> IndexReply {
    let Ok(epoch_seconds) = indexer.reports.epoch_seconds().await else { return told(Kept::Later) };
    let epoch = welkin_check::epoch_of(sheet.minute, epoch_seconds);
    let span = Span::of(epoch, epoch_seconds);
    let parts = sheet.minute.saturating_sub(span.start / 60).saturating_add(1);
    let released = Released { parts, of: span.seconds.div_ceil(60), authors };
    let statement = Statement::Sheet(signed);
    let subject = Subject::of(&statement).map(|subject| subject.when(released));
    let unlisted = unlisted.iter().map(|(place, report)| {
        let is_online = matches!(report.finding, Finding::Online { .. });
        let enrolled = (!is_online).then(|| budget::place(report.container));
        Unlisted { place: *place, enrolled }
    });
    let unlisted = unlisted.collect();
    match indexer.evidence.store.append(epoch, &statement, subject, unlisted).await {
        Kept::Strangers(some) if some.len() < sheet.visits.len() => IndexReply::NotListed(some),
        kept => told(kept),
    }
}

fn told(kept: Kept) -> IndexReply {
    match kept {
        Kept::Written => IndexReply::Reported,
        Kept::NoRoom => IndexReply::NotKept { is_full: true },
        Kept::Later => IndexReply::NotKept { is_full: false },
        Kept::Strangers(_) => IndexReply::Refused(
            "the container is not listed here and not known in this epoch: has its host announced \
             itself?"
                .to_owned(),
        ),
    }
}

/// Takes a statement that comes no other way.
pub(super) async fn answer(indexer: &Indexer, peer: NodeId, statement: Statement) -> IndexReply {
    let taken = match &statement {
        Statement::Roll(roll) => take_roll(indexer, peer, roll, &statement).await,
        Statement::Lease(file) => take_lease(indexer, peer, file, &statement).await,
        Statement::Digests(digests) => digests::take(indexer, peer, digests, &statement).await,
        Statement::Sheet(_) | Statement::Exam(_) | Statement::Site(_) => {
            Err("findings are sent as sheets and reports, when they are made".to_owned())
        }
    };
    taken.map_or_else(IndexReply::Refused, told)
}

async fn take_roll(
    indexer: &Indexer,
    peer: NodeId,
    signed: &Signed<Roll>,
    statement: &Statement,
) -> Result<Kept, String> {
    let roll = signed.open_by(&indexer.domain, peer).map_err(|error| crate::chain(&error))?;
    let now = outside::now();
    let span = Span::of(roll.epoch, indexer.reports.epoch_seconds().await?);
    let seconds = now.0 / 1_000;
    if seconds.saturating_add(ROLL_EARLY_SECONDS) < span.start || seconds >= span.closes() {
        return Err("the roll is for another epoch than the present one".to_owned());
    }
    let is_dated = roll.issued.0 / 1_000 <= seconds.saturating_add(ROLL_EARLY_SECONDS)
        && (roll.issued.0 / 1_000).saturating_add(ROLL_EARLY_SECONDS) >= span.start;
    if !is_dated {
        return Err("the roll is dated outside of its epoch: is the clock right?".to_owned());
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
        if roll.region.as_ref() != fleet.region_of(peer) {
            return Err("the roll names another region than the host has announced".to_owned());
        }
        roll.containers.iter().all(|(container, _)| fleet.has(peer, *container))
    };
    if !is_known {
        return Err("neither a checker of the epoch nor a host that is announced here".to_owned());
    }
    Ok(indexer.evidence.keep(roll.epoch, statement).await)
}

/// A receipt is kept for every epoch in which the lease ran and whose evidence is open.
async fn take_lease(
    indexer: &Indexer,
    peer: NodeId,
    file: &ReceiptFile,
    statement: &Statement,
) -> Result<Kept, String> {
    if file.domain != indexer.domain {
        return Err("the receipt is of another network".to_owned());
    }
    let receipt = file.verify().map_err(|error| error.to_string())?;
    // Else a buyer with many promises for one lease would take its host's room.
    if receipt.host != peer {
        return Err("a receipt is sent by its host".to_owned());
    }
    if !indexer.fleet().has(receipt.host, receipt.container) {
        return Err("the receipt is of a container that is not known here".to_owned());
    }
    let (Some(first), Some(last)) = (receipt.stages.first(), receipt.stages.last()) else {
        return Err("the receipt has no stages".to_owned());
    };
    let now = outside::now().0 / 1_000;
    if last.at.0 / 1_000 > now.saturating_add(ROLL_EARLY_SECONDS) {
        return Err("the lease ends in the future".to_owned());
    }
    let epoch_seconds = indexer.reports.epoch_seconds().await?;
    let epoch = |at: welkin_types::UnixMillis| at.0 / 1_000 / epoch_seconds;
    let first = epoch(first.at).max(epoch(last.at).saturating_sub(EPOCHS_OF_LEASE));
    let open = (first..=epoch(last.at)).filter(|e| now < Span::of(*e, epoch_seconds).closes());
    let mut all = None;
    for epoch in open {
        all = Some(worst(all, indexer.evidence.keep(epoch, statement).await));
    }
    all.ok_or_else(|| "the evidence of that lease's epochs is closed".to_owned())
}

/// What is said of a statement of several epochs: it is sent again where one of them could not take it
/// now.
fn worst(so_far: Option<Kept>, kept: Kept) -> Kept {
    match (so_far, kept) {
        (Some(Kept::Later), _) | (_, Kept::Later) => Kept::Later,
        (Some(Kept::Written), _) | (_, Kept::Written) => Kept::Written,
        (_, Kept::NoRoom | Kept::Strangers(_)) => Kept::NoRoom,
    }
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
        log::read_page(&path, ask.from)
    });
    let read = asked.await.map_err(|_| "the evidence can't be read now".to_owned())?;
    let Some((statements, next)) = read.map_err(|error| error.to_string())? else {
        return Err(format!("this indexer has no evidence of epoch {}", ask.epoch));
    };
    let view = evidence.heading(ask.epoch).await?;
    let heading = Heading::new(indexer.domain, view);
    Ok(EvidencePage { heading, statements, next, left_out: evidence.store.left_out() })
}
