//! Settles each epoch that this checker was listed in, from the published evidence, and signs what it
//! came to.
//!
//! Once an epoch's evidence is closed it is collected from the indexers, verified and settled as
//! `welkin epoch` does it; the signed result goes to all indexers. What fails is tried again until the next
//! epoch is closed.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};
use welkin_ledger::epoch::{Book, Emissions};
use welkin_proto::Signed;
use welkin_proto::cosign::Cosign;
use welkin_proto::epoch::Span;
use welkin_proto::index::{IndexHello, IndexRequest};

use super::evidence::{
    ATTEMPTS_WHOLE, PAUSE, PAUSE_MAX, SETTLED_AFTER, SPREAD_MAX, Unfound, epoch_seconds, published,
    within,
};
use super::unheard::Unheard;
use super::{Deps, deliver};
use crate::connect::Caller;
use crate::epoch::{Published, TARGET_MICROS, outcome};
use crate::outside;

/// The evidence of so many epochs may be open at once: of those of a second.
const EPOCHS_OPEN_MAX: u64 = 256;

/// Signs for ever.
pub(super) async fn run(deps: Arc<Deps>, indexers: Arc<Vec<Caller>>, unheard: Unheard) {
    let to = (indexers, unheard);
    let epoch_seconds = epoch_seconds(&deps).await;
    // The last one whose evidence is closed: its word may be lost where an indexer was started again.
    let before = last_closed(epoch_seconds);
    let mut epoch = before;
    loop {
        // Where epochs are shorter than this takes, some are left out.
        epoch = epoch.max(last_closed(epoch_seconds));
        let closes = Span::of(epoch, epoch_seconds).closes().saturating_mul(1_000);
        let period = Duration::from_secs(Span::of(epoch, epoch_seconds).period_seconds.into());
        let spread = period.min(SPREAD_MAX).mul_f64(f64::from(outside::random::<1>()[0]) / 256.0);
        let wait = welkin_types::UnixMillis(closes).since(outside::now()) + SETTLED_AFTER + spread;
        tokio::time::sleep(wait).await;
        let next = Span::of(epoch + 1, epoch_seconds).closes().saturating_mul(1_000);
        let mut pause = PAUSE;
        for attempt in 0_u32.. {
            let left = next.saturating_sub(outside::now().0);
            let is_last = Duration::from_millis(left) < within(epoch_seconds) + pause * 3;
            match sign(&deps, &to, epoch, attempt >= ATTEMPTS_WHOLE || is_last).await {
                Ok(()) => break,
                Err(why) => debug!(epoch, why, "an epoch is not signed yet"),
            }
            if outside::now().0.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(0))
                >= next
            {
                // What was before this process may have been before the network, too.
                if epoch > before {
                    warn!(epoch, "an epoch could not be settled and signed");
                }
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        epoch += 1;
    }
}

fn last_closed(epoch_seconds: u64) -> u64 {
    let now = outside::now().0 / 1_000;
    let is_open = |epoch: &u64| Span::of(*epoch, epoch_seconds).closes() > now;
    let present = now / epoch_seconds;
    let first_open = (present.saturating_sub(EPOCHS_OPEN_MAX)..=present).find(is_open);
    first_open.unwrap_or(present).saturating_sub(1)
}

/// Collects, settles, signs and says it; `Ok` too where there is nothing to sign.
async fn sign(
    deps: &Deps,
    (indexers, unheard): &(Arc<Vec<Caller>>, Unheard),
    epoch: u64,
    is_last: bool,
) -> Result<(), String> {
    let view = deps.settle.epoch(epoch).await.map_err(|error| crate::chain(&error))?;
    if view.listed(deps.key.id()).is_none() {
        return Ok(());
    }
    let published = match published(deps, indexers, view, is_last).await {
        Ok(published) => published,
        Err(why @ Unfound::TooLarge(_)) => {
            warn!(epoch, %why, "an epoch is not signed");
            return Ok(());
        }
        Err(Unfound::Later(why) | Unfound::Partly(why)) => return Err(why),
    };
    let settling = tokio::task::spawn_blocking(move || settled(published, epoch));
    let said = settling.await.map_err(|error| error.to_string())??;
    let root = alloy_primitives::hex::encode_prefixed(said.root);
    let signed = Signed::sign(&deps.domain, &deps.key, &said).map_err(|error| error.to_string())?;
    let hello = IndexHello::Ask(Box::new(IndexRequest::Cosign(Box::new(signed))));
    if !deliver(Arc::clone(indexers), hello, unheard.clone()).await && !is_last {
        return Err("not all indexers have taken it".to_owned());
    }
    info!(epoch, root, "an epoch is settled and signed");
    Ok(())
}

fn settled(mut published: Published, epoch: u64) -> Result<Cosign, String> {
    published.drop_forged();
    let book = Book::new(Emissions::new(TARGET_MICROS));
    let outcome = outcome(published.gather(), &book).map_err(|error| error.to_string())?;
    let settled = &outcome.settled;
    Ok(Cosign { epoch, evidence: settled.evidence, root: settled.claims.root() })
}
