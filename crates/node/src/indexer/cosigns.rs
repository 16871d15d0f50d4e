//! What checkers say that epochs came to: kept while the epochs' evidence may be compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use welkin_proto::Signed;
use welkin_proto::cosign::{COSIGNS_MAX, Cosign};
use welkin_proto::epoch::Span;
use welkin_proto::index::IndexReply;
use welkin_types::NodeId;

use super::Indexer;
use crate::outside;

/// Epochs of which words are kept, the newest.
const EPOCHS_MAX: usize = 8;

/// Words by epoch and checker. They are lost with the process.
#[derive(Debug, Default)]
pub(super) struct Cosigns {
    words: Mutex<BTreeMap<u64, BTreeMap<NodeId, Signed<Cosign>>>>,
}

impl Cosigns {
    fn keep(&self, epoch: u64, by: NodeId, word: Signed<Cosign>) -> bool {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = words.entry(epoch).or_default();
        let is_kept = of_it.len() < COSIGNS_MAX || of_it.contains_key(&by);
        if is_kept {
            // A checker that has seen more since then may say so.
            of_it.insert(by, word);
        }
        while words.len() > EPOCHS_MAX {
            words.pop_first();
        }
        is_kept
    }

    /// All of an epoch.
    pub(super) fn of(&self, epoch: u64) -> Vec<Signed<Cosign>> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.get(&epoch).map(|of_it| of_it.values().cloned().collect()).unwrap_or_default()
    }
}

/// Takes the word of a checker of the epoch, once its evidence is closed.
pub(super) async fn answer(indexer: &Indexer, peer: NodeId, signed: Signed<Cosign>) -> IndexReply {
    match take(indexer, peer, signed).await {
        Ok(true) => IndexReply::Reported,
        Ok(false) => IndexReply::NotKept { is_full: true },
        Err(why) => IndexReply::Refused(why),
    }
}

async fn take(indexer: &Indexer, peer: NodeId, signed: Signed<Cosign>) -> Result<bool, String> {
    let said = signed.open_by(&indexer.domain, peer).map_err(|error| crate::chain(&error))?;
    let epoch_seconds = indexer.reports.epoch_seconds().await?;
    let now = outside::now().0 / 1_000;
    if Span::of(said.epoch, epoch_seconds).closes() > now {
        return Err("the evidence of that epoch is still open: its root may change".to_owned());
    }
    let kept = u64::try_from(EPOCHS_MAX).unwrap_or(u64::MAX);
    if said.epoch.saturating_add(kept) < now / epoch_seconds {
        return Err("that epoch is long over".to_owned());
    }
    if !indexer.reports.lists(said.epoch, peer).await? {
        return Err("not a checker of that epoch".to_owned());
    }
    Ok(indexer.cosigns.keep(said.epoch, peer, signed))
}

#[cfg(test)]
mod tests {
    use welkin_proto::{Domain, NodeKey};

    use super::*;

    #[test]
    fn words_are_bounded_and_the_newest_epochs_stay() {
        let cosigns = Cosigns::default();
        let key = NodeKey::from_secret(&[1; 32]);
        let word = |epoch| {
            let said = Cosign { epoch, evidence: [2; 32], root: [3; 32] };
            Signed::sign(&Domain::LOCAL, &key, &said).unwrap()
        };
        for number in 0..COSIGNS_MAX {
            let mut by = [0; 32];
            by[..8].copy_from_slice(&number.to_be_bytes());
            assert!(cosigns.keep(7, NodeId::from_bytes(by), word(7)));
        }
        assert!(!cosigns.keep(7, NodeId::from_bytes([255; 32]), word(7)));
        // Who has spoken may correct itself.
        assert!(cosigns.keep(7, NodeId::from_bytes([0; 32]), word(7)));
        assert_eq!(cosigns.of(7).len(), COSIGNS_MAX);
        for epoch in 8..16 {
            assert!(cosigns.keep(epoch, key.id(), word(epoch)));
        }
        assert!(cosigns.of(7).is_empty());
        assert_eq!(cosigns.of(15).len(), 1);
    }
}
