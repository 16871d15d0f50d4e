//! An epoch's published evidence as a checker collects it to settle it: of all indexers, within bounds.

use std::time::Duration;

use tracing::debug;
use welkin_proto::epoch::Heading;
use welkin_proto::settle::EpochView;

use super::Deps;
use crate::buyer::{Room, collect};
use crate::connect::Caller;
use crate::epoch::Published;

/// What indexers have taken up to the closing is on their disks after that.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// Checkers come to the indexers spread over so much of a period.
pub(super) const SPREAD_MAX: Duration = Duration::from_secs(30);
/// After so many attempts it is settled from what there is, where some indexers show nothing.
pub(super) const ATTEMPTS_WHOLE: u32 = 3;
/// The pause after what failed; it doubles up to the longest.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Why there is no evidence to settle from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfound {
    /// It is more than this checker takes.
    #[error(
        "the evidence is more than `checker.cosign_mib_max` ({0} MiB of one indexer): set it higher \
         where the machine has the memory"
    )]
    TooLarge(usize),
    /// No indexer shows it now.
    #[error("no indexer shows it: {0}")]
    Later(String),
    /// Some indexers do not show it now.
    #[error("some indexers do not show it: {0}")]
    Partly(String),
}

/// How long an epoch lasts, in seconds: what all have in common.
pub(super) async fn epoch_seconds(deps: &Deps) -> u64 {
    let mut pause = PAUSE;
    loop {
        match deps.settle.epoch(0).await {
            Ok(view) => return view.epoch_seconds.max(1),
            Err(error) => debug!(error = %crate::chain(&error), "no length of an epoch yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How long one indexer may take to show its evidence: a slow one leaves time for the others and for
/// another attempt before the next epoch closes.
pub(super) fn within(epoch_seconds: u64) -> Duration {
    Duration::from_secs((epoch_seconds / 32).clamp(2, 300))
}

/// Collects the evidence of an epoch. `is_last`: what some indexers do not show is not waited for any more.
pub(super) async fn published(
    deps: &Deps,
    indexers: &[Caller],
    view: EpochView,
    is_last: bool,
) -> Result<Published, Unfound> {
    let bytes_each = deps.cosign_mib_max.saturating_mul(1 << 20);
    // Whoever fills its part, and some others, keep nobody from being heard.
    let within = within(view.epoch_seconds);
    let room = Room { bytes: bytes_each.saturating_mul(4), bytes_each, within };
    let heading = Heading::new(deps.domain, view);
    let callers: Vec<_> = indexers.iter().collect();
    let found = collect(&callers, &heading, room).await;
    let failed = found.shown.iter().filter(|(_, shown)| shown.is_err()).count();
    let count = found.shown.len();
    // Those that show less are not believed instead: all checkers would sign what one indexer left over.
    let is_too_large = found.too_large > 0 && found.too_large * 2 >= count;
    if is_too_large || found.is_full {
        return Err(Unfound::TooLarge(deps.cosign_mib_max));
    }
    // With a part of the evidence another root may come out: those that fail are waited for, a while.
    if failed == count || (failed > 0 && !is_last) {
        let why = found.shown.into_iter().find_map(|(_, shown)| shown.err());
        let why = why.unwrap_or_else(|| "no indexer is named".to_owned());
        return Err(if failed == count { Unfound::Later(why) } else { Unfound::Partly(why) });
    }
    Ok(Published { heading, statements: found.statements })
}
