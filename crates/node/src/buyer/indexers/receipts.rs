//! Computes each choice of an indexer again from the receipt that it signed.
//!
//! Every answer is checked: an indexer that could tell which ones are would lie in the others, and
//! a check costs little more than the signature. What does not follow is counted against the indexer and
//! kept, as it was signed, as a file that anybody can check.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use tracing::{debug, warn};
use welkin_match::trust::Finding;
use welkin_match::{ReceiptFault, verify_gang_receipt, verify_receipt};
use welkin_proto::Signed;
use welkin_proto::index::{Candidates, MatchRequest};
use welkin_types::{AccountId, NodeId, UnixMillis};

use super::{Indexers, locked};
use crate::buyer::home::{HomeError, write_json};
use crate::outside;

/// Files of evidence that are kept, the newest.
const KEPT_MAX: usize = 64;

/// What is wrong with an answer's receipt.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("its answer is signed by another node, or for another network")]
    Signature,
    #[error("its answer is of another account's question")]
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
    /// The same in 32 bytes, as the receipt names it.
    pub(in crate::buyer) asked: [u8; 32],
    /// What came back.
    pub(in crate::buyer) signed: &'a Signed<Candidates>,
    /// The same, opened; `None` where the signature is not the indexer's.
    pub(in crate::buyer) found: Option<&'a Candidates>,
}

/// What proves that an indexer chose otherwise than it says.
#[derive(Debug, Serialize)]
struct Proof<'a> {
    found_at: UnixMillis,
    indexer: NodeId,
    fault: String,
    request: &'a MatchRequest,
    answer: &'a Signed<Candidates>,
}

impl Indexers {
    /// Checks the receipt of an answer, counts what comes out, and keeps what proves a lie. Says
    /// whether the receipt holds.
    pub(in crate::buyer) fn check_receipt(&self, answer: &Answer<'_>) -> bool {
        let Answer { by, request, signed, .. } = *answer;
        let fault = match self.fault(answer) {
            Ok(()) => {
                locked(&self.state).note(by, Finding::Proved);
                return true;
            }
            Err(fault) => crate::chain(&fault),
        };
        locked(&self.state).note(by, Finding::Disproved);
        let found_at = outside::now();
        let proof = Proof { found_at, indexer: by, fault, request, answer: signed };
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
        let Answer { buyer, request, asked, found, .. } = *answer;
        let found = found.ok_or(Fault::Signature)?;
        // An old one has old offers, so its time, by whatever clock, says nothing more.
        if found.buyer != buyer {
            return Err(Fault::Account);
        }
        let asked = (asked, request.needs.policy);
        match &request.gang {
            Some(gang) => verify_gang_receipt(found, asked, gang),
            None => verify_receipt(found, asked),
        }
        .map_err(Fault::Receipt)
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
