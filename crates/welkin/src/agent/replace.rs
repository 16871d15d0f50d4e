//! Placing a detached lease again whose host was lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_node::buyer::{
    Buyer, BuyerError, Keeper, KeptLease, KeptTask, PlaceProgress, pack, place,
};
use welkin_proto::lease::Secret;

use crate::waiting::Waiting;

/// How long another container is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(600);
/// The first pause between two searches; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two searches.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Places an ended lease again where its task says so; returns the new one, to be kept. The old
/// one's file stays as it is, with the reason where none could be placed.
pub(super) async fn replace(old: &mut Keeper, secrets: &[(String, Secret)]) -> Option<Keeper> {
    let lease = old.kept().lease;
    let result = match wanted(old) {
        Ok(Some(task)) => search(old, &task, secrets).await,
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let next = result.unwrap_or_else(|error| {
        warn!(%lease, error = format!("{error:#}"), "not placed again");
        old.remark(&format!("not placed again: {error:#}"));
        None
    });
    if let Err(error) = old.buyer().home().remove_task(lease) {
        warn!(%lease, error = %welkin_node::chain(&error), "a task can't be removed");
    }
    next
}

/// The task of the lease, as long as it is to be placed again. A person who stops the lease removes
/// it.
fn wanted(old: &Keeper) -> anyhow::Result<Option<KeptTask>> {
    let task = old.buyer().home().task(old.kept().lease).map_err(BuyerError::Home)?;
    Ok(task.filter(|task| task.is_due(old.kept())))
}

async fn search(
    old: &Keeper,
    task: &KeptTask,
    secrets: &[(String, Secret)],
) -> anyhow::Result<Option<Keeper>> {
    let deadline = Instant::now() + SEARCH_MAX;
    let mut pause = PAUSE;
    loop {
        match attempt(old, task, secrets).await {
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                info!(lease = %old.kept().lease, error = format!("{error:#}"), "not placed yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
        if wanted(old)?.is_none() {
            return Ok(None);
        }
    }
}

/// Whether the network may look different in a while: hosts come back.
fn is_passing(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            BuyerError::NoIndexer(_)
                | BuyerError::NothingFits(_)
                | BuyerError::NoHost(_)
                | BuyerError::HostUnreachable { .. }
                | BuyerError::HostLost
                | BuyerError::Wire(_)
        )
    )
}

async fn attempt(
    old: &Keeper,
    task: &KeptTask,
    secrets: &[(String, Secret)],
) -> anyhow::Result<Option<Keeper>> {
    let Some(mut ask) = task.ask(secrets) else {
        bail!("its secrets were in the memory of an agent that has ended");
    };
    let entries = old.kept().files(&task.files);
    ask.files = !entries.is_empty();
    let files = match ask.files {
        true => Some(tokio::task::spawn_blocking(move || pack(&entries)).await??),
        false => None,
    };
    let buyer: Arc<Buyer> = old.shared_buyer();
    let mut waiting = Waiting::replacing(buyer.home(), old.kept(), &ask);
    let stopped = waiting.stopped();
    let mut progress = |event| match event {
        PlaceProgress::Queued(indexer, event) => waiting.event(indexer, event),
        PlaceProgress::Trying(_) | PlaceProgress::Refused(_) | PlaceProgress::Waiting(_) => (),
    };
    let placed = tokio::select! {
        placed = place(&buyer, &ask, Vec::new(), &mut progress) => placed?,
        () = stopped => {
            buyer.home().remove_task(old.kept().lease).map_err(BuyerError::Home)?;
            return Ok(None);
        }
    };
    drop(waiting);
    // Before the lease's own file: an agent that starts in between removes it with the others.
    buyer.home().save_task(placed.lease, task).map_err(BuyerError::Home)?;
    let mut keeper = Keeper::replacing(Arc::clone(&buyer), placed, old.kept());
    let (before, new): (&KeptLease, &KeptLease) = (old.kept(), keeper.kept());
    info!(lease = %before.lease, new = %new.lease, tries = new.tries, "placed again");
    if wanted(old)?.is_none() {
        // Stopped by a person while it was being placed.
        buyer.home().remove_task(new.lease).map_err(BuyerError::Home)?;
        keeper.stop(Duration::ZERO).await;
        return Ok(Some(keeper));
    }
    if let Some(files) = files {
        let sent = keeper.files(&mut tokio::fs::File::from_std(files)).await;
        keeper.files_sent(sent).await.context("failed to send the files")?;
    }
    Ok(Some(keeper))
}
