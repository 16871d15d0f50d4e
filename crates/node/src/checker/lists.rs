//! What indexers list, as far as it is believed: what the hosts themselves have signed
//! (`welkin_check::Words`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use welkin_check::{Told, Word, WordError, Words};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest, Listing, WORDS_HOSTS_MAX};
use welkin_proto::{Capability, Domain, Signed};
use welkin_types::{AccountId, NodeId};

use super::ASK_TIMEOUT;
use crate::connect::Caller;
use crate::outside;

/// The most questions for what hosts have signed that one page of rows leads to: a page of hosts that
/// are all new needs two or three.
const QUESTIONS_MAX: usize = 16;
/// Signatures that are verified without letting others at the processor.
const AT_ONCE: usize = 32;
/// After so long an indexer is asked nothing more of one page: a slow one holds up what waits for all.
const BELIEVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Rows that are believed, and how many words were made up.
#[derive(Debug, Default)]
pub(super) struct Believed {
    pub(super) rows: Vec<Listing>,
    pub(super) forged: u64,
}

/// The newest word of each host, for all who ask indexers.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    domain: Domain,
    words: Arc<Mutex<Words>>,
}

impl Lists {
    /// For a checker of this account, if it has one: its own hosts are left out.
    pub(super) fn new(domain: Domain, own: Option<AccountId>) -> Self {
        let words = Words::default();
        let words = own.map_or(words.clone(), |own| words.of_account(own));
        Self { domain, words: Arc::new(Mutex::new(words)) }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that are still believed: a newer word may have come after they were.
    pub(super) fn still(&self, rows: Vec<Listing>) -> Vec<Listing> {
        self.words().list(outside::now(), rows).believed
    }

    /// Takes what was shown of a host.
    pub(super) fn take(
        &self,
        host: NodeId,
        signed: &Signed<Capability>,
    ) -> Result<Word, WordError> {
        let now = outside::now();
        let word = Word::open(&self.domain, now, host, signed)?;
        self.words().take(now, &word).map(|()| word)
    }

    /// What is believed of an indexer's rows. It is asked what hosts have signed of which it says
    /// something else than is known.
    pub(super) async fn believe(&self, indexer: &Caller, rows: Vec<Listing>) -> Believed {
        let Told { believed: rows, wanted: mut left } = self.words().list(outside::now(), rows);
        let mut believed = Believed { rows, forged: 0 };
        let until = Instant::now() + BELIEVE_TIMEOUT;
        for _ in 0..QUESTIONS_MAX {
            if Instant::now() >= until {
                break;
            }
            let hosts: Vec<_> = left.keys().take(WORDS_HOSTS_MAX).copied().collect();
            let Some(last_asked) = hosts.last().copied() else { break };
            let Some(shown) = ask(indexer, hosts).await else { break };
            // They come in the order in which they were asked for; of the others before there is none.
            let last = shown.last().map_or(last_asked, Signed::signer);
            let mut rest = left.split_off(&last);
            left.extend(rest.remove_entry(&last));
            self.take_all(&mut believed, left, &shown).await;
            left = rest;
        }
        believed
    }

    async fn take_all(
        &self,
        believed: &mut Believed,
        mut wanted: BTreeMap<NodeId, Vec<Listing>>,
        shown: &[Signed<Capability>],
    ) {
        for some in shown.chunks(AT_ONCE) {
            for signed in some {
                let host = signed.signer();
                let Some(rows) = wanted.remove(&host) else { continue };
                match self.take(host, signed) {
                    Ok(word) => believed.rows.extend(word.rows(&rows)),
                    Err(error) => {
                        believed.forged += u64::from(error.is_forged());
                        debug!(error = %crate::chain(&error), %host, "what a list says is not believed");
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What an indexer shows of hosts.
async fn ask(indexer: &Caller, hosts: Vec<NodeId>) -> Option<Vec<Signed<Capability>>> {
    match put(indexer, IndexRequest::Words(hosts)).await? {
        IndexReply::Words(shown) => Some(shown),
        _ => {
            debug!("an indexer does not show what hosts have signed");
            None
        }
    }
}

/// What an indexer answers, if it does in time.
pub(super) async fn put(indexer: &Caller, request: IndexRequest) -> Option<IndexReply> {
    let hello = IndexHello::Ask(Box::new(request));
    let asked = indexer.ask(&hello, ASK_TIMEOUT).await;
    asked
        .inspect_err(|error| debug!(error = %crate::chain(error), "an indexer was not reached"))
        .ok()
}
