//! Computes each choice of an indexer again from the receipt that it signed.
//!
//! Every answer is checked: an indexer that could tell which ones are would lie in the others, and
//! a check costs a few signatures. What does not follow is counted against the indexer and
//! kept, with both signatures, as a file that anybody can check.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use tracing::{debug, warn};
use welkin_match::trust::Finding;
use welkin_match::{ReceiptFault, verify_receipt};
use welkin_proto::index::{Candidates, MatchReceipt, MatchRequest};
use welkin_proto::{Offer, Signed};
use welkin_types::{AccountId, NodeId, UnixMillis};

use super::{Indexers, locked};
use crate::buyer::home::{HomeError, write_json};
use crate::indexer::query_digest;
use crate::outside;

/// Files of evidence that are kept, the newest.
const KEPT_MAX: usize = 64;

/// What is wrong with an answer's receipt.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it gave no receipt of its choice, though it was asked for one")]
    Missing,
    #[error("its receipt is signed by another node, or for another network")]
    Signature,
    #[error("its receipt is of another account's question")]
    Account,
    #[error("its receipt does not hold")]
    Receipt(#[source] ReceiptFault),
}

/// An answer, with what was asked.
#[derive(Debug)]
pub(in crate::buyer) struct Answer<'a> {
    /// Which indexer gave it.
    pub(in crate::buyer) by: NodeId,
    /// Who asked.
    pub(in crate::buyer) buyer: AccountId,
    /// What.
    pub(in crate::buyer) request: &'a MatchRequest,
    /// What came back.
    pub(in crate::buyer) found: &'a Candidates,
}

/// What proves that an indexer chose otherwise than it says.
#[derive(Debug, Serialize)]
struct Proof<'a> {
    found_at: UnixMillis,
    indexer: NodeId,
    fault: String,
    request: &'a MatchRequest,
    receipt: Option<&'a Signed<MatchReceipt>>,
    offers: &'a [Signed<Offer>],
}

impl Indexers {
    /// Checks the receipt of an answer, counts what comes out, and keeps what proves a lie. Says
    /// whether the receipt holds.
    pub(in crate::buyer) fn check_receipt(&self, answer: &Answer<'_>) -> bool {
        let Answer { by, request, found, .. } = *answer;
        let fault = match self.fault(answer) {
            Ok(()) => {
                locked(&self.state).note(by, Finding::Proved);
                return true;
            }
            Err(fault) => crate::chain(&fault),
        };
        locked(&self.state).note(by, Finding::Disproved);
        let (found_at, receipt) = (outside::now(), found.receipt.as_deref());
        let offers = &found.offers;
        let proof = Proof { found_at, indexer: by, fault, request, receipt, offers };
        let kept = self.keep(&proof);
        let path = kept.map_or_else(
            |error| format!("not kept: {}", crate::chain(&error)),
            |path| path.display().to_string(),
        );
        let fault = proof.fault;
        warn!(indexer = %by, fault, proof = path, "an indexer's choice does not follow: it is asked less");
        self.save();
        false
    }

    fn fault(&self, answer: &Answer<'_>) -> Result<(), Fault> {
        let Answer { by, buyer, request, found } = *answer;
        let signed = found.receipt.as_deref().ok_or(Fault::Missing)?;
        let receipt = signed.open_by(&self.domain, by).map_err(|_| Fault::Signature)?;
        // An old one is of other offers, so its time, by whatever clock, says nothing more.
        if receipt.buyer != buyer {
            return Err(Fault::Account);
        }
        let offers = found.offers.iter().map(|offer| offer.open_by(&self.domain, by));
        let offers: Vec<_> = offers.collect::<Result<_, _>>().map_err(|_| Fault::Signature)?;
        let asked = (query_digest(request), request.needs.policy);
        verify_receipt(&receipt, &offers, asked).map_err(Fault::Receipt)
    }

    /// Writes a proof down; the oldest ones go where there are too many.
    fn keep(&self, proof: &Proof<'_>) -> Result<PathBuf, HomeError> {
        let folder = self.home.dir().join("evidence");
        // Names are in order of time.
        let name = format!("receipt-{:015}-{}.json", proof.found_at.0, proof.indexer);
        let path = folder.join(name);
        write_json(&path, proof)?;
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort_unstable();
        let surplus = files.len().saturating_sub(KEPT_MAX);
        for old in files.iter().take(surplus) {
            if let Err(error) = fs::remove_file(old) {
                debug!(%error, "old evidence stays");
            }
        }
        Ok(path)
    }
}
