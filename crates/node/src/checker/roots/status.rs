//! How the root of the awaited epoch stands, for people and programs: `status.json` beside the book.

use std::fs;
use std::path::Path;

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};
use tracing::debug;
use welkin_chain::ops::committee::Standing;
use welkin_types::AccountId;

use super::RootsDeps;
use super::reason::{RootsReason, State};
use crate::checker::unheard::RefusedBy;

/// The name of the file in the book's folder.
const FILE: &str = "status.json";
/// The largest that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// How a checker stands with the roots of epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsStatus {
    /// The operator's account.
    pub account: AccountId,
    /// Whether it is a member of the committee.
    pub is_member: bool,
    /// The last epoch that the contract counts; 0: none.
    pub counted: u32,
    /// The last one that is in this checker's book.
    pub book: u32,
    /// The epoch that the contract awaits.
    pub number: u32,
    /// The network's epoch that was settled for it.
    pub epoch: Option<u64>,
    /// The root that was found.
    pub root: Option<B256>,
    /// How many members are known to have signed the same.
    pub signed: usize,
    /// How many must.
    pub threshold: usize,
    /// What it waits for, or why it can't go on.
    #[serde(default)]
    pub reason: RootsReason,
    /// The same as a sentence, with what only this case knows.
    pub state: String,
    /// What indexers have refused of this checker for some time.
    #[serde(default)]
    pub refused: Vec<RefusedBy>,
}

impl RootsStatus {
    pub(super) const fn new(account: AccountId) -> Self {
        Self {
            account,
            is_member: false,
            counted: 0,
            book: 0,
            number: 1,
            epoch: None,
            root: None,
            signed: 0,
            threshold: 0,
            reason: RootsReason::Starting,
            state: String::new(),
            refused: Vec::new(),
        }
    }

    /// So it stands.
    pub(super) fn at(self, State { reason, text }: State) -> Self {
        Self { reason, state: text, ..self }
    }

    pub(super) fn look(&mut self, standing: &Standing, account: AccountId) {
        let number = standing.counted.saturating_add(1);
        if number != self.number {
            (self.epoch, self.root, self.signed) = (None, None, 0);
        }
        (self.counted, self.number) = (standing.counted, number);
        self.threshold = standing.threshold;
        self.is_member = standing.members.contains(&welkin_chain::address(account));
    }

    pub(super) const fn own_book(&mut self, number: u32) {
        self.book = number;
    }

    pub(super) const fn found(&mut self, epoch: u64, root: B256) {
        (self.epoch, self.root) = (Some(epoch), Some(root));
    }

    /// Reads how the checker with this book stands; nothing where it has said nothing.
    pub fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path).ok()?.len() > BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&fs::read(&path).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        let draft = dir.join("status.new");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(draft, dir.join(FILE))
    }
}

/// Writes it down. It is only shown: what fails is said and left.
pub(super) async fn tell(own: &RootsDeps, status: RootsStatus) {
    let dir = own.dir.clone();
    let written = tokio::task::spawn_blocking(move || status.write(&dir)).await;
    if let Ok(Err(error)) = written {
        debug!(%error, "how roots stand can't be written down");
    }
}
