//! Members' signatures of the root that the settlement contract awaits: kept until it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use welkin_chain::ops::{OpsError, committee};
use welkin_check::roots::take_word;
use welkin_proto::Signed;
use welkin_proto::index::IndexReply;
use welkin_proto::rooted::{ROOT_WORDS_MAX, RootWord};
use welkin_types::{AccountId, NodeId};

use super::Indexer;
use crate::outside;
use crate::settlement::{Contracts, account};

/// How long what the contract said is believed, and that it could not be asked.
const SEEN_FOR: Duration = Duration::from_secs(5);

/// Words on one epoch, the one that is awaited; one of each member. They are lost with the process, and
/// members say them again.
#[derive(Debug, Default)]
pub(super) struct Roots {
    contracts: Option<Contracts>,
    /// Held while the contract is asked, so that it is asked once.
    seen: tokio::sync::Mutex<Option<(Instant, Result<Seen, String>)>>,
    words: Mutex<Words>,
}

/// What the contract said.
#[derive(Clone, Debug)]
struct Seen {
    counted: u32,
    members: BTreeSet<AccountId>,
}

#[derive(Debug, Default)]
struct Words {
    number: u32,
    of: BTreeMap<AccountId, Signed<RootWord>>,
}

impl Words {
    /// Keeps a member's word of the awaited epoch, a later one in place of an earlier one. Those of an
    /// epoch before go, and of who is no member any more.
    fn keep(
        &mut self,
        number: u32,
        by: AccountId,
        word: Signed<RootWord>,
        members: &BTreeSet<AccountId>,
    ) -> bool {
        // A node of the chain that lags behind takes nothing back.
        if number < self.number {
            return false;
        }
        if number > self.number {
            self.of.clear();
        }
        self.number = number;
        self.of.retain(|member, _| members.contains(member));
        let is_kept = self.of.len() < ROOT_WORDS_MAX || self.of.contains_key(&by);
        if is_kept {
            self.of.insert(by, word);
        }
        is_kept
    }
}

impl Roots {
    pub(super) fn new(contracts: Option<Contracts>) -> Self {
        Self { contracts, ..Self::default() }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of an epoch.
    pub(super) fn of(&self, number: u32) -> Vec<Signed<RootWord>> {
        let words = self.words();
        if words.number == number { words.of.values().cloned().collect() } else { Vec::new() }
    }

    async fn seen(&self) -> Result<Seen, String> {
        let contracts = self.contracts.as_ref();
        let contracts = contracts.ok_or("this indexer does not know where the contracts stand")?;
        let mut seen = self.seen.lock().await;
        if let Some((at, known)) = &*seen
            && at.elapsed() < SEEN_FOR
        {
            return known.clone();
        }
        let found = look(contracts).await.map_err(|error| crate::chain(&error));
        *seen = Some((Instant::now(), found.clone()));
        found
    }
}

async fn look(contracts: &Contracts) -> Result<Seen, OpsError> {
    let counted = committee::counted(contracts.desk()).await?;
    let (members, _) = committee::members(contracts.desk()).await?;
    Ok(Seen { counted, members: members.into_iter().map(account).collect() })
}

/// Takes the word of a member on the epoch that the contract awaits.
pub(super) async fn answer(
    indexer: &Indexer,
    peer: NodeId,
    signed: Signed<RootWord>,
) -> IndexReply {
    let said = match signed.open_by(&indexer.domain, peer) {
        Ok(said) => said,
        Err(error) => return IndexReply::Refused(crate::chain(&error)),
    };
    let signer = said.signature.recover(&said.digest).ok();
    let vouched = said.account.account(&indexer.domain, peer, outside::now()).ok();
    let seen = match indexer.roots.seen().await {
        Ok(seen) => seen,
        // It may be sent again.
        Err(why) => {
            tracing::debug!(why, "a member's signature can't be judged");
            return IndexReply::NotKept { is_full: false };
        }
    };
    match take_word(said.number, signer, vouched, (seen.counted, &seen.members)) {
        Ok(by) if indexer.roots.words().keep(said.number, by, signed, &seen.members) => {
            IndexReply::Reported
        }
        Ok(_) => IndexReply::NotKept { is_full: true },
        Err(why) => IndexReply::Refused(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::{AccountKey, Domain, NodeKey};

    use super::*;
    use crate::identity;

    #[test]
    fn words_are_one_of_each_member_and_of_the_awaited_epoch() {
        let (key, mut words) = (NodeKey::from_secret(&[1; 32]), Words::default());
        let word = |number| {
            let own = AccountKey::from_secret(&[1; 32]).unwrap();
            let lasting = Duration::from_secs(60);
            let account = identity::delegate(&Domain::LOCAL, &own, key.id(), lasting).unwrap();
            let (digest, root) = ([2; 32], [3; 32]);
            let signature = own.sign(&digest).unwrap();
            let said = RootWord { number, root, digest, account, signature };
            Signed::sign(&Domain::LOCAL, &key, &said).unwrap()
        };
        let of = |n: u8| AccountId::from_bytes([n; 20]);
        let most = u8::try_from(ROOT_WORDS_MAX).unwrap();
        let all: BTreeSet<_> = (0..=most).map(of).collect();
        for n in 0..most {
            assert!(words.keep(7, of(n), word(7), &all));
        }
        assert!(!words.keep(7, of(most), word(7), &all));
        assert!(words.keep(7, of(0), word(7), &all), "who has spoken may correct itself");
        // Another committee: there is room for its members.
        let other: BTreeSet<_> = [of(1), of(most)].into();
        assert!(words.keep(7, of(most), word(7), &other));
        assert_eq!(words.of.keys().copied().collect::<BTreeSet<_>>(), other);
        assert!(words.keep(8, of(1), word(8), &other));
        assert!(!words.keep(7, of(1), word(7), &other), "that epoch is over");
        assert_eq!((words.number, words.of.len()), (8, 1));
    }
}
