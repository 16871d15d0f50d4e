//! Taking in what was measured of sessions.

use welkin_proto::digest::SessionDigests;
use welkin_proto::epoch::Span;
use welkin_proto::epoch::Statement;
use welkin_types::NodeId;

use welkin_proto::epoch::ROLL_EARLY_SECONDS;

use super::store::Kept;
use super::{EPOCHS_OF_LEASE, worst};
use crate::indexer::Indexer;
use crate::outside;

/// A host sends what both sides of its sessions measured, a checker what it measured as a buyer. They
/// are kept for every epoch whose evidence is open and of which they have a minute.
pub(super) async fn take(
    indexer: &Indexer,
    peer: NodeId,
    digests: &SessionDigests,
    statement: &Statement,
) -> Result<Kept, String> {
    let series = &digests.series;
    match digests.checker() {
        Some(checker) if checker != peer => {
            return Err("a checker's digests are sent by the checker".to_owned());
        }
        Some(_) => (),
        None if series.host != peer => {
            return Err("the digests of a session are sent by its host".to_owned());
        }
        None => (),
    }
    if indexer.fleet().locate(series.host).is_none() {
        return Err("the digests are of a host that is not known here".to_owned());
    }
    digests.verify(&indexer.domain).map_err(|error| error.to_string())?;
    let (Some(first), Some(last)) = (series.minutes.first(), series.minutes.last()) else {
        return Err("the digests have no minute".to_owned());
    };
    let second = |minute: u32| (series.began.0 / 1_000).saturating_add(u64::from(minute) * 60);
    let now = outside::now().0 / 1_000;
    if second(last.minute) > now.saturating_add(ROLL_EARLY_SECONDS) {
        return Err("the digests are of the future".to_owned());
    }
    let epoch_seconds = indexer.reports.epoch_seconds().await?;
    // A last minute that was cut short may have ended before the next epoch began.
    let ended = second(last.minute).saturating_add(u64::from(last.watched).saturating_sub(1));
    let newest = ended / epoch_seconds;
    let oldest = (second(first.minute) / epoch_seconds).max(newest.saturating_sub(EPOCHS_OF_LEASE));
    let is_open = |epoch: &u64| now < Span::of(*epoch, epoch_seconds).closes();
    let open: Vec<_> = (oldest..=newest).filter(is_open).collect();
    if let Some(checker) = digests.checker() {
        let mut is_listed = false;
        for epoch in &open {
            is_listed = is_listed || indexer.reports.lists(*epoch, checker).await.unwrap_or(false);
        }
        if !is_listed {
            return Err("no checker of these epochs, or their evidence is closed".to_owned());
        }
    }
    let mut all = None;
    for epoch in open {
        all = Some(worst(all, indexer.evidence.keep(epoch, statement).await));
    }
    all.ok_or_else(|| "the evidence of that session's epochs is closed".to_owned())
}
