//! What an account's machine remembers: its key, its leases, its receipts, copies of its logs.
//!
//! Several processes of one account share the folder. Each lease is one file, written as a whole by
//! the process that keeps the lease, so that no lock is needed; others only read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use welkin_proto::{
    AccountKey, Matched, NodeAddr, Order, ReceiptFile, SignedByAccount, StageTime, Terms,
};
use welkin_types::{GangId, LeaseId, LeaseState, Reason, UnixMillis};

use super::indexers::KeptIndexers;
use super::{KeptCheckpoint, KeptTask};
use crate::identity::{self, IdentityError};
use crate::outside;

/// Leases that are remembered; beyond it the oldest ended ones are forgotten.
const LEASES_MAX: usize = 10_000;

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// A file can't be read or written.
    #[error("failed to {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The account's key.
    #[error("the account's key can't be used")]
    Key(#[source] IdentityError),
}

/// A lease's place among those that were placed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGang {
    /// All of them.
    pub gang: GangId,
    /// Which of them, from 0.
    pub rank: u16,
    /// How many they are.
    pub nodes: u16,
}

/// A lease as its buyer remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLease {
    /// Its id.
    pub lease: LeaseId,
    /// Its name for people.
    pub name: String,
    /// The command, for people.
    pub command: String,
    /// Where the host is.
    pub host: NodeAddr,
    /// The order that the host accepted.
    pub order: SignedByAccount<Order>,
    /// The states heard of, by the host's clock.
    pub stages: Vec<StageTime>,
    /// More about the last state.
    pub detail: Option<String>,
    /// When this side first heard that it runs, by the clock of this machine.
    #[serde(default)]
    pub running_since: Option<UnixMillis>,
    /// Seconds that vouchers were signed for.
    pub promised: u64,
    /// Whether it is kept by the agent rather than by a command in the foreground.
    pub by_agent: bool,
    /// How often it was placed before.
    pub tries: u32,
    /// The lease whose task it took over when that one's host was lost.
    #[serde(default)]
    pub replaces: Option<LeaseId>,
    /// Its place in a gang, if it was placed together with others.
    #[serde(default)]
    pub gang: Option<KeptGang>,
    /// Its checkpoint, where its task names one to fetch.
    #[serde(default)]
    pub checkpoint: Option<KeptCheckpoint>,
    /// Under which terms it was leased.
    #[serde(default)]
    pub terms: Terms,
    /// The indexer whose offer it came from.
    #[serde(default)]
    pub matched: Option<Matched>,
}

impl KeptLease {
    /// The last state heard of, and why.
    pub fn state(&self) -> (LeaseState, Reason) {
        self.stages
            .last()
            .map_or((LeaseState::Placing, Reason::Normal), |stage| (stage.state, stage.reason))
    }

    /// When it was ordered.
    pub const fn ordered(&self) -> UnixMillis {
        self.order.message.issued
    }
}

/// An account's folder.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Uses a folder; it is made when first written to.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The account's key, made where there is none.
    ///
    /// # Errors
    ///
    /// [`HomeError::Key`]
    pub fn account_key(&self) -> Result<AccountKey, HomeError> {
        identity::account_key(&self.dir.join("account.key")).map_err(HomeError::Key)
    }

    /// Where the copies of a lease's logs are.
    pub fn log_dir(&self, lease: LeaseId) -> PathBuf {
        self.dir.join("logs").join(lease.to_string())
    }

    /// The folder with the checkpoint of a lease that was taken back.
    pub fn checkpoint_dir(&self, lease: LeaseId) -> PathBuf {
        self.dir.join("checkpoints").join(lease.to_string())
    }

    fn lease_path(&self, lease: LeaseId) -> PathBuf {
        self.dir.join("leases").join(format!("{lease}.json"))
    }

    fn task_path(&self, lease: LeaseId) -> PathBuf {
        self.dir.join("tasks").join(format!("{lease}.json"))
    }

    /// Where a receipt is.
    pub fn receipt_path(&self, lease: LeaseId) -> PathBuf {
        self.dir.join("receipts").join(format!("{lease}.json"))
    }

    /// Writes a lease down.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save(&self, kept: &KeptLease) -> Result<(), HomeError> {
        write_json(&self.lease_path(kept.lease), kept)
    }

    /// One lease.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn lease(&self, lease: LeaseId) -> Result<Option<KeptLease>, HomeError> {
        read_json(&self.lease_path(lease))
    }

    /// All leases, the newest first. Damaged files are left out and returned beside.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`] if the folder can't be read.
    pub fn leases(&self) -> Result<(Vec<KeptLease>, Vec<HomeError>), HomeError> {
        let folder = self.dir.join("leases");
        let io = |source| HomeError::Io { what: "read", path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(io(error)),
        };
        let (mut leases, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match read_json::<KeptLease>(&path) {
                    Ok(kept) => leases.extend(kept),
                    Err(error) => damaged.push(error),
                }
            }
        }
        leases.sort_by_key(|kept| (std::cmp::Reverse(kept.ordered()), kept.lease));
        Ok((leases, damaged))
    }

    /// The lease that took this one's place, if there is one.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`] if the folder can't be read.
    pub fn successor(&self, lease: LeaseId) -> Result<Option<KeptLease>, HomeError> {
        let (leases, _) = self.leases()?;
        Ok(leases.into_iter().find(|kept| kept.replaces == Some(lease)))
    }

    /// Keeps what it takes to place a lease again.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save_task(&self, lease: LeaseId, task: &KeptTask) -> Result<(), HomeError> {
        write_json(&self.task_path(lease), task)
    }

    /// What it takes to place a lease again, if that is still wanted.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn task(&self, lease: LeaseId) -> Result<Option<KeptTask>, HomeError> {
        read_json(&self.task_path(lease))
    }

    /// A lease is not to be placed again. Says whether it was.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn remove_task(&self, lease: LeaseId) -> Result<bool, HomeError> {
        let path = self.task_path(lease);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(HomeError::Io { what: "remove", path, source }),
        }
    }

    /// What is known of indexers; nothing where the file is missing.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub(super) fn indexers(&self) -> Result<Option<KeptIndexers>, HomeError> {
        read_json(&self.dir.join("indexers.json"))
    }

    /// Keeps what is known of indexers.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub(super) fn save_indexers(&self, kept: &KeptIndexers) -> Result<(), HomeError> {
        write_json(&self.dir.join("indexers.json"), kept)
    }

    /// Writes a receipt down.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save_receipt(&self, lease: LeaseId, receipt: &ReceiptFile) -> Result<(), HomeError> {
        write_json(&self.receipt_path(lease), receipt)
    }

    /// The receipt of a lease, if there is one.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn receipt(&self, lease: LeaseId) -> Result<Option<ReceiptFile>, HomeError> {
        read_json(&self.receipt_path(lease))
    }

    /// Forgets a lease: its file, its logs and its checkpoint. The receipt stays: it is about money.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn remove(&self, lease: LeaseId) -> Result<(), HomeError> {
        self.remove_task(lease)?;
        self.remove_digests(lease);
        let path = self.lease_path(lease);
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let checkpoint = fs::remove_dir_all(self.checkpoint_dir(lease));
        let logs = fs::remove_dir_all(self.log_dir(lease));
        for result in [fs::remove_file(&path), logs, checkpoint] {
            if let Err(source) = result
                && !gone(&source)
            {
                return Err(HomeError::Io { what: "remove", path, source });
            }
        }
        Ok(())
    }

    /// Forgets the oldest ended leases where there are too many.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn prune(&self) -> Result<(), HomeError> {
        let (leases, _) = self.leases()?;
        for kept in leases.iter().skip(LEASES_MAX).filter(|kept| kept.state().0.is_final()) {
            self.remove(kept.lease)?;
        }
        self.prune_reservations()
    }
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HomeError> {
    let io = |source| HomeError::Io { what: "write", path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| HomeError::Damaged { path: path.to_owned(), source })?;
    // Written aside and renamed, so that a reader never sees half a file.
    let draft = path.with_extension(format!("{:08x}", u32::from_le_bytes(outside::random())));
    let written = File::create(&draft).and_then(|mut file| file.write_all(&text));
    written.and_then(|()| fs::rename(&draft, path)).map_err(|error| {
        let _ = fs::remove_file(&draft);
        io(error)
    })
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HomeError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(HomeError::Io { what: "read", path: path.to_owned(), source });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| HomeError::Damaged { path: path.to_owned(), source })
}
