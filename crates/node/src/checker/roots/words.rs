//! Members' signatures, told to all indexers and asked of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::debug;
use welkin_check::roots::{Contract, Found, take_word};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::rooted::{ROOT_WORDS_MAX, RootWord};
use welkin_proto::{AccountSignature, Domain, Signed};
use welkin_types::AccountId;

use super::Role;
use crate::checker::ASK_TIMEOUT;
use crate::checker::unheard::Unheard;
use crate::connect::Caller;
use crate::outside;

/// Indexers that are asked.
const INDEXERS_MAX: usize = 16;

impl Role {
    /// Tells this member's signature to those indexers that do not show it, if it signs; all right
    /// signatures of what was found here.
    pub(super) async fn exchange(
        &self,
        contract: &Contract,
        found: &Found,
        digest: [u8; 32],
    ) -> BTreeMap<AccountId, AccountSignature> {
        let own = self.council.signs(contract, found).then(|| self.word(found, digest)).flatten();
        let mut signatures = BTreeMap::new();
        let mut asking = JoinSet::new();
        for place in 0..self.indexers.len().min(INDEXERS_MAX) {
            let (indexers, number) = (Arc::clone(&self.indexers), found.number);
            let own = own.as_ref().map(|(word, _)| word.clone());
            let unheard = self.unheard.clone();
            asking.spawn(async move { asked(&indexers[place], number, own, &unheard).await });
        }
        while let Some(words) = asking.join_next().await {
            for word in words.into_iter().flatten().take(ROOT_WORDS_MAX) {
                signatures.extend(opened(&self.deps.domain, &word, contract, digest));
            }
        }
        if let Some((_, signature)) = own {
            signatures.insert(self.own.account.id(), signature);
        }
        signatures
    }

    /// This member's word.
    fn word(
        &self,
        found: &Found,
        digest: [u8; 32],
    ) -> Option<(Signed<RootWord>, AccountSignature)> {
        let signature = self.own.account.sign(&digest).ok()?;
        let (number, root, account) = (found.number, found.root, self.deps.delegation.clone());
        let said = RootWord { number, root, digest, account, signature };
        let word = Signed::sign(&self.deps.domain, &self.deps.key, &said).ok()?;
        Some((word, signature))
    }
}

/// What an indexer shows; it is told this member's word if that is not in it.
async fn asked(
    indexer: &Caller,
    number: u32,
    own: Option<Signed<RootWord>>,
    unheard: &Unheard,
) -> Vec<Signed<RootWord>> {
    let ask = IndexHello::Ask(Box::new(IndexRequest::RootWords(number)));
    let words = match indexer.ask(&ask, ASK_TIMEOUT).await {
        Ok(IndexReply::RootWords(words)) => words,
        Ok(_) => Vec::new(),
        Err(error) => {
            debug!(error = %crate::chain(&error), "an indexer shows no signatures of roots");
            return Vec::new();
        }
    };
    if let Some(own) = own.filter(|own| !words.contains(own)) {
        let hello = IndexHello::Ask(Box::new(IndexRequest::RootWord(Box::new(own))));
        let node = indexer.addr().node;
        match indexer.ask(&hello, ASK_TIMEOUT).await {
            Ok(IndexReply::Reported) => unheard.taken(node, &hello),
            Ok(IndexReply::Refused(why)) => {
                unheard.refused(node, &hello, &why);
            }
            told => debug!(indexer = %node, ?told, "a signature of a root is not taken"),
        }
    }
    words
}

/// Whose signature of this digest it is, where it is one of a member.
fn opened(
    domain: &Domain,
    word: &Signed<RootWord>,
    contract: &Contract,
    digest: [u8; 32],
) -> Option<(AccountId, AccountSignature)> {
    let said = word.open(domain).ok().filter(|said| said.digest == digest)?;
    let signer = said.signature.recover(&digest).ok();
    let vouched = said.account.account(domain, word.signer(), outside::now()).ok();
    let known = (contract.counted, &contract.members);
    let by = take_word(said.number, signer, vouched, known).ok()?;
    Some((by, said.signature))
}
