//! The books in an embedded database.
//!
//! One lock owns the ledger. A change is planned and applied in memory, queued for the disk in the
//! same order, and answered once it is on the disk; so many callers share one flush. If the disk
//! refuses once, memory is ahead of it and nothing more is answered until a restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use welkin_ledger::{AccountRow, Changes, LeaseRow, Ledger, RestoreError};
use welkin_proto::Domain;
use welkin_proto::settle::{EpochView, SettleRefusal, SettleReply, SettleRequest};
use welkin_store::{Batch, CommitError, Db, OpenError};
use welkin_types::{AccountId, LeaseId, NodeId, UnixMillis, Usd};

use super::{BoxFuture, Settlement, SettlementError};
use crate::outside;

const ACCOUNTS: &str = "accounts";
const LEASES: &str = "leases";
const META: &str = "meta";
const TREASURY: &[u8] = b"treasury";
const SEED: &[u8] = b"seed";
const CHECKERS: &[u8] = b"checkers";

/// The most changes that wait for the disk at once; further callers wait for a place.
const CALLS_MAX: usize = 4_096;
/// How often room is made in full books.
const ROOM_EVERY: Duration = Duration::from_secs(60);
/// The most checkers that the embedded service keeps.
const CHECKERS_MAX: usize = 10_000;

/// How the embedded service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Where signatures hold.
    pub domain: Domain,
    /// The most test money of one request; nothing where the network has real money.
    pub faucet_max: Usd,
    /// How long an epoch lasts, in seconds.
    pub epoch_seconds: u64,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        let faucet_max = Usd::from_micros(10_000_000_000);
        Self { domain: Domain::LOCAL, faucet_max, epoch_seconds: 60 }
    }
}

/// Why the books can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The database can't be opened.
    #[error("failed to open the books")]
    Open(#[source] OpenError),
    /// The database can't be read or written.
    #[error("failed to read the books")]
    Read(#[source] CommitError),
    /// A row can't be read.
    #[error("the books hold a damaged row in table `{0}`")]
    Damaged(&'static str),
    /// The rows contradict each other.
    #[error("the books do not add up")]
    Contradiction(#[source] RestoreError),
}

/// The embedded settlement service.
#[derive(Debug)]
pub struct Embedded {
    config: EmbeddedConfig,
    seed: [u8; 32],
    books: Mutex<Books>,
    db: Db,
    failed: AtomicBool,
    calls: Semaphore,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger,
    checkers: BTreeSet<NodeId>,
    /// When room may be made next.
    room_at: UnixMillis,
}

fn rows<K: TryFrom<Vec<u8>>, V: DeserializeOwned>(
    db: &Db,
    table: &'static str,
) -> Result<Vec<(K, V)>, EmbeddedError> {
    let damaged = || EmbeddedError::Damaged(table);
    db.load(table)
        .map_err(EmbeddedError::Read)?
        .into_iter()
        .map(|(key, value)| {
            let key = K::try_from(key).map_err(|_| damaged())?;
            let value = postcard::from_bytes(&value).map_err(|_| damaged())?;
            Ok((key, value))
        })
        .collect()
}

fn put<T: Serialize>(batch: &mut Batch, table: &'static str, key: &[u8], value: &T) {
    match postcard::to_stdvec(value) {
        Ok(bytes) => batch.put(table, key, bytes),
        Err(error) => tracing::error!(%error, table, "a row can't be encoded"),
    }
}

impl Embedded {
    /// Opens the books, making them where there are none.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError`] where they can't be read or do not add up.
    pub async fn open(path: &Path, config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let db = Db::open(path).map_err(EmbeddedError::Open)?;
        let accounts = rows::<[u8; 20], AccountRow>(&db, ACCOUNTS)?;
        let leases = rows::<[u8; 16], LeaseRow>(&db, LEASES)?;
        let meta = db.load(META).map_err(EmbeddedError::Read)?;
        let find = |name: &[u8]| meta.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let read = |name| find(name).and_then(|value| postcard::from_bytes(value).ok());
        let mut ledger = Ledger::restore(
            accounts.into_iter().map(|(key, row)| (AccountId::from_bytes(key), row)),
            leases.into_iter().map(|(key, row)| (LeaseId::from_bytes(key), row)),
            read(TREASURY).unwrap_or_default(),
        )
        .map_err(EmbeddedError::Contradiction)?;
        let seed = match find(SEED).and_then(|value| postcard::from_bytes(value).ok()) {
            Some(seed) => seed,
            None => {
                let seed: [u8; 32] = outside::random();
                let mut batch = Batch::default();
                put(&mut batch, META, SEED, &seed);
                db.commit(batch).await.map_err(EmbeddedError::Read)?;
                seed
            }
        };
        let checkers = find(CHECKERS)
            .and_then(|value| postcard::from_bytes::<BTreeSet<NodeId>>(value).ok())
            .unwrap_or_default();
        // Leases settled long ago are let go of here, a bounded number at a time.
        loop {
            let changes = ledger.forget(outside::now());
            if changes.is_empty() || ledger.apply(&changes).is_err() {
                break;
            }
            db.commit(batch_of(&changes)).await.map_err(EmbeddedError::Read)?;
        }
        let books = Mutex::new(Books { ledger, checkers, room_at: UnixMillis(0) });
        let calls = Semaphore::new(CALLS_MAX);
        Ok(Self { config, seed, books, db, failed: AtomicBool::new(false), calls })
    }

    /// Where signatures hold.
    pub const fn domain(&self) -> &Domain {
        &self.config.domain
    }

    /// Answers one question of an account's node.
    pub async fn call(
        &self,
        caller: AccountId,
        node: NodeId,
        request: SettleRequest,
    ) -> SettleReply {
        if self.failed.load(Ordering::Acquire) {
            return SettleReply::Refused(SettleRefusal::Storage);
        }
        // Fewer at once than the database's queue holds, so that it never overflows.
        let Ok(_permit) = self.calls.acquire().await else {
            return SettleReply::Refused(SettleRefusal::Storage);
        };
        // Queued under the lock, so that the disk sees the changes in the order of memory.
        let (reply, write) = {
            let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            if books.ledger.is_full() {
                self.make_room(&mut books);
            }
            match self.answer(&mut books, caller, node, request) {
                Ok((reply, None)) => return reply,
                Ok((reply, Some(batch))) => (reply, self.db.queue(batch)),
                Err(refusal) => return SettleReply::Refused(refusal),
            }
        };
        match write.await {
            Ok(()) => reply,
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                tracing::error!(%error, "the books can't be written: nothing more is settled");
                SettleReply::Refused(SettleRefusal::Storage)
            }
        }
    }

    /// Forgets what ended long ago, at most once in [`ROOM_EVERY`]: looking for it takes a while.
    fn make_room(&self, books: &mut Books) {
        let now = outside::now();
        if now < books.room_at {
            return;
        }
        books.room_at = now.after(ROOM_EVERY);
        let changes = books.ledger.forget(now);
        if !changes.is_empty() && books.ledger.apply(&changes).is_ok() {
            // In the order of memory like every change; one that fails makes the next fail, too.
            drop(self.db.queue(batch_of(&changes)));
        }
    }

    fn answer(
        &self,
        books: &mut Books,
        caller: AccountId,
        node: NodeId,
        request: SettleRequest,
    ) -> Result<(SettleReply, Option<Batch>), SettleRefusal> {
        let now = outside::now();
        let domain = &self.config.domain;
        let ledger = &books.ledger;
        let (changes, subject) = match request {
            SettleRequest::Balance { account } => {
                return Ok((SettleReply::Account(ledger.account(account)), None));
            }
            SettleRequest::Lease { lease } => {
                let view = ledger.lease(lease).ok_or(SettleRefusal::UnknownLease)?;
                return Ok((SettleReply::Lease(view), None));
            }
            SettleRequest::Totals => return Ok((SettleReply::Totals(ledger.totals()), None)),
            SettleRequest::Epoch { epoch } => {
                return Ok((SettleReply::Epoch(self.epoch(books, epoch)), None));
            }
            SettleRequest::RegisterChecker => return register(books, node),
            SettleRequest::Fund { account, amount, idempotency } => {
                if amount > self.config.faucet_max {
                    return Err(SettleRefusal::NoFaucet);
                }
                (ledger.deposit(account, amount, idempotency)?, Subject::Account(account))
            }
            SettleRequest::Reserve { order, amount } => {
                let lease = order.message.lease;
                (ledger.reserve(domain, now, caller, &order, amount)?, Subject::Lease(lease))
            }
            SettleRequest::Redeem { voucher, amount } => {
                let lease = voucher.message.lease;
                (ledger.redeem(domain, now, caller, &voucher, amount)?, Subject::Lease(lease))
            }
            SettleRequest::Close { lease, voucher } => {
                let changes = ledger.close(domain, now, caller, lease, voucher.as_deref())?;
                (changes, Subject::Lease(lease))
            }
            SettleRequest::Release { lease } => {
                (ledger.release(caller, lease, now)?, Subject::Lease(lease))
            }
        };
        books.ledger.apply(&changes).map_err(|_| SettleRefusal::Storage)?;
        let reply = match subject {
            Subject::Account(account) => SettleReply::Account(books.ledger.account(account)),
            Subject::Lease(lease) => {
                SettleReply::Lease(books.ledger.lease(lease).ok_or(SettleRefusal::UnknownLease)?)
            }
        };
        let batch = (!changes.is_empty()).then(|| batch_of(&changes));
        Ok((reply, batch))
    }

    fn epoch(&self, books: &Books, epoch: u64) -> EpochView {
        let mut hasher = Sha256::new();
        hasher.update(b"welkin/epoch/1");
        hasher.update(self.config.domain.chain_id.to_be_bytes());
        hasher.update(self.seed);
        hasher.update(epoch.to_be_bytes());
        EpochView {
            epoch,
            seed: hasher.finalize().into(),
            checkers: books.checkers.iter().copied().collect(),
            epoch_seconds: self.config.epoch_seconds,
        }
    }
}

/// What an answer is about.
enum Subject {
    Account(AccountId),
    Lease(LeaseId),
}

fn register(
    books: &mut Books,
    node: NodeId,
) -> Result<(SettleReply, Option<Batch>), SettleRefusal> {
    if books.checkers.contains(&node) {
        return Ok((SettleReply::Done, None));
    }
    if books.checkers.len() >= CHECKERS_MAX {
        return Err(SettleRefusal::Range);
    }
    books.checkers.insert(node);
    let mut batch = Batch::default();
    put(&mut batch, META, CHECKERS, &books.checkers);
    Ok((SettleReply::Done, Some(batch)))
}

fn batch_of(changes: &Changes) -> Batch {
    let mut batch = Batch::default();
    for (account, row) in &changes.accounts {
        put(&mut batch, ACCOUNTS, account.as_bytes(), row);
    }
    if let Some((lease, row)) = &changes.lease {
        put(&mut batch, LEASES, lease.as_bytes(), row);
    }
    for lease in &changes.removed {
        batch.remove(LEASES, lease.as_bytes());
    }
    if let Some(treasury) = &changes.treasury {
        put(&mut batch, META, TREASURY, treasury);
    }
    batch
}

/// The embedded service as one account's node in the same process sees it.
#[derive(Clone, Debug)]
pub struct LocalSettlement {
    service: Arc<Embedded>,
    account: AccountId,
    node: NodeId,
}

impl LocalSettlement {
    /// Calls in the name of this account and node.
    pub const fn new(service: Arc<Embedded>, account: AccountId, node: NodeId) -> Self {
        Self { service, account, node }
    }
}

impl Settlement for LocalSettlement {
    fn call(&self, request: SettleRequest) -> BoxFuture<'_, Result<SettleReply, SettlementError>> {
        Box::pin(async move { Ok(self.service.call(self.account, self.node, request).await) })
    }
}
