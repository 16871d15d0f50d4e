//! The chain's public face: open, send, read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use alloy_consensus::{Transaction as _, TxEnvelope, transaction::Recovered};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::TransactionReceipt;
use tokio::sync::{Semaphore, oneshot};

use crate::clock::Clock;
use crate::execute::{Building, GenesisFailure, Rules, first_block};
use crate::genesis::Genesis;
use crate::logs::Filters;
use crate::send::{SendError, Sent, decode};
use crate::store::{ReadError, Store};
use crate::view::View;
use crate::writer::{Command, Shared};

/// The most requests that read or execute at a time.
const READERS_MAX: usize = 16;

/// Why a chain can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("the chain {path} is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file itself.
    #[error("failed to open the chain {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Its folder could not be made, or its thread not started.
    #[error("failed to prepare the chain {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds another chain.
    #[error(
        "the chain {path} has another genesis ({found}, not {expected}): open it with the \
         description that it was made with, or choose another file"
    )]
    Genesis {
        /// Which file.
        path: PathBuf,
        /// The genesis that it was made with.
        found: B256,
        /// The one that was given.
        expected: B256,
    },
    /// A transaction of the genesis reverts.
    #[error("transaction {index} of the genesis, from {from}, reverts with {data}")]
    Reverted {
        /// Its place in the description.
        index: usize,
        /// Who sends it.
        from: Address,
        /// What it reverts with.
        data: Bytes,
    },
    /// A transaction of the genesis can't be executed.
    #[error("transaction {index} of the genesis, from {from}, fails: {why}")]
    Failed {
        /// Its place in the description.
        index: usize,
        /// Who sends it.
        from: Address,
        /// Why.
        why: String,
    },
    /// The file can't be read or written.
    #[error("failed to read the chain {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ReadError,
    },
}

/// The newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many blocks are before it.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
}

/// An open chain. It closes, and its file with it, when the last handle is dropped.
pub struct Chain {
    pub(crate) shared: Arc<Shared>,
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) filters: Mutex<Filters>,
    writer: Option<JoinHandle<()>>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("head", &self.head().number).finish_non_exhaustive()
    }
}

impl Chain {
    /// Opens the file, making it and its folder where there is none; then the genesis is executed.
    ///
    /// # Errors
    ///
    /// [`OpenError`] where the file can't be had, holds a chain of another genesis, or is new and a
    /// transaction of the genesis fails.
    pub fn open(path: &Path, genesis: Genesis, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let read = |source| OpenError::Read { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let store = Store::open(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            other => OpenError::File {
                path: path.to_owned(),
                source: Box::new(redb::Error::from(other)),
            },
        })?;
        let expected = genesis.hash();
        match store.genesis().map_err(read)? {
            Some(found) if found == expected => (),
            Some(found) => {
                return Err(OpenError::Genesis { path: path.to_owned(), found, expected });
            }
            None => create(&store, path, &genesis)?,
        }
        let view = View::load(&store).map_err(read)?;
        let rules = Rules::new(&genesis);
        let shared = Arc::new(Shared::new(rules, clock, genesis.testing, store, view));
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("welkin-evm".to_owned())
            .spawn(move || writer.run())
            .map_err(io)?;
        Ok(Arc::new(Self {
            shared,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            filters: Mutex::default(),
            writer: Some(thread),
        }))
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> Head {
        let view = self.view();
        Head { number: view.number(), hash: view.head.hash, timestamp: view.head.header.timestamp }
    }

    /// Part of every signature.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.shared.rules.chain_id
    }

    /// An account's balance in wei, after the newest block.
    ///
    /// # Errors
    ///
    /// [`ReadError`] where the file can't be read.
    pub fn balance(&self, address: Address) -> Result<U256, ReadError> {
        Ok(self.view().account(address)?.map_or(U256::ZERO, |account| account.balance))
    }

    /// The nonce of an account's next transaction, those that wait for a block counted.
    ///
    /// # Errors
    ///
    /// [`ReadError`] where the file can't be read.
    pub fn next_nonce(&self, address: Address) -> Result<u64, ReadError> {
        // The lock first: what leaves the pool is then in the view that is read.
        let waiting = self.shared.queue().pool.next_nonce(address);
        let kept = self.view().account(address)?.map_or(0, |account| account.nonce);
        Ok(waiting.map_or(kept, |waiting| waiting.max(kept)))
    }

    /// The receipt of a transaction that is in a block.
    ///
    /// # Errors
    ///
    /// [`ReadError`] where the file can't be read.
    pub fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, ReadError> {
        let view = self.view();
        let Some((number, index)) = view.place_of(hash)? else { return Ok(None) };
        match view.block(number)? {
            Some(block) => block.receipt(index),
            None => Ok(None),
        }
    }

    /// Takes a signed transaction (EIP-2718) and waits until its block is on the disk.
    ///
    /// One whose nonce has a gap before it waits for those before it, at most ten minutes.
    ///
    /// # Errors
    ///
    /// [`SendError`]; then it is in no block.
    pub async fn send_raw(&self, raw: &[u8]) -> Result<B256, SendError> {
        let (_, _, done) = self.submit(raw)?;
        done.await.map_err(|_| SendError::Closed)?
    }

    /// As [`send_raw`](Self::send_raw), but does not wait where the nonce has a gap before it.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn send_raw_or_queue(&self, raw: &[u8]) -> Result<Sent, SendError> {
        match self.submit(raw)? {
            (hash, false, _) => Ok(Sent::Waiting(hash)),
            (_, true, done) => done.await.map_err(|_| SendError::Closed)?.map(Sent::Included),
        }
    }

    /// Decodes a transaction and puts it into the pool; whether it stands in the line, and its end.
    #[expect(clippy::type_complexity, reason = "three things, used at once by three callers")]
    pub(crate) fn submit(
        &self,
        raw: &[u8],
    ) -> Result<(B256, bool, oneshot::Receiver<Result<B256, SendError>>), SendError> {
        let transaction = decode(raw)?;
        self.admit(&transaction)?;
        let (hash, from) = (*transaction.tx_hash(), transaction.signer());
        let (done, end) = oneshot::channel();
        let now = self.shared.now();
        let is_free = self.shared.rules.base_fee == 0;
        let is_ready = {
            let mut queue = self.shared.queue();
            if queue.is_closed {
                return Err(SendError::Closed);
            }
            // Read under the lock: see `Pool::add` about those which are being written.
            let account = self.view().account(from).map_err(|_| SendError::Closed)?;
            let nonce = account.map_or(0, |account| account.nonce);
            queue.pool.add(transaction, nonce, is_free, now, done)?
        };
        if is_ready {
            self.shared.wake();
        }
        Ok((hash, is_ready, end))
    }

    /// What can be said of a transaction before its turn.
    fn admit(&self, transaction: &Recovered<TxEnvelope>) -> Result<(), SendError> {
        let rules = &self.shared.rules;
        match transaction.chain_id() {
            Some(have) if have != rules.chain_id => {
                return Err(SendError::ChainId { have, want: rules.chain_id });
            }
            _ => (),
        }
        if transaction.gas_limit() > rules.gas_limit {
            return Err(SendError::GasLimit);
        }
        rules.check_intrinsic_gas(transaction)?;
        let (price, _) = rules.price(transaction.inner());
        if price < u128::from(rules.base_fee) {
            return Err(SendError::FeeTooLow { have: price, want: rules.base_fee });
        }
        let from = transaction.signer();
        let have = self.balance(from).map_err(|_| SendError::Closed)?;
        let fee = U256::from(price).saturating_mul(U256::from(transaction.gas_limit()));
        let want = fee.saturating_add(transaction.value());
        if want > have {
            return Err(SendError::InsufficientFunds { from, have, want });
        }
        Ok(())
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.shared.view()
    }

    /// Has the writer do something, and waits for it; for tests.
    pub(crate) async fn command(&self, command: Command) -> Result<bool, SendError> {
        let (answer, answered) = oneshot::channel();
        self.shared.command(command, answer)?;
        answered.await.map_err(|_| SendError::Closed)?
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.wake();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to close.
            let _ = writer.join();
        }
    }
}

/// Writes block 0 and the genesis' transactions; the file counts as made with the last of it.
fn create(store: &Store, path: &Path, genesis: &Genesis) -> Result<(), OpenError> {
    let read = |source| OpenError::Read { path: path.to_owned(), source };
    let first = first_block(genesis).map_err(read)?;
    store.begin(&first).map_err(read)?;
    let rules = Rules::new(genesis);
    // Two always fit into a block.
    let gas_limit = genesis.gas_limit / 2;
    let mut building = None;
    for (index, transaction) in genesis.transactions.iter().enumerate() {
        let mut block = match building.take() {
            Some(block) => block,
            None => {
                let view = View::load(store).map_err(read)?;
                Building::new(rules, Arc::new(view), genesis.timestamp)
            }
        };
        block.add_genesis(transaction, gas_limit).map_err(|failure| {
            let from = transaction.from;
            match failure {
                GenesisFailure::Read(source) => read(source),
                GenesisFailure::Reverted(data) => OpenError::Reverted { index, from, data },
                GenesisFailure::Failed(why) => OpenError::Failed { index, from, why },
            }
        })?;
        if block.gas_used() > gas_limit {
            store.append(&block.seal().map_err(read)?, &[], false).map_err(read)?;
        } else {
            building = Some(block);
        }
    }
    if let Some(block) = building {
        store.append(&block.seal().map_err(read)?, &[], false).map_err(read)?;
    }
    store.finish(genesis.hash()).map_err(read)
}

/// Locks what no holder can leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
