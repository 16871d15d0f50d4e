//! The chain's file: one redb database; a block and the state it changes are one transaction in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use alloy_primitives::{Address, B256, U256};
use alloy_rlp::{Encodable as _, RlpDecodable, RlpEncodable};
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    WriteTransaction,
};

use crate::block::{Body, Sealed, decode};
use crate::state::{Account, Changes, Slot, Undo};
use crate::trie::Nodes;

/// What redb keeps in memory of the file.
const CACHE_BYTES_MAX: usize = 64 << 20;

pub(crate) type Table<K, V> = TableDefinition<'static, K, V>;

/// What the file says of itself: the hash of its genesis.
pub(crate) const META: Table<&str, [u8; 32]> = TableDefinition::new("meta");
/// Address to account.
pub(crate) const ACCOUNTS: Table<[u8; 20], [u8; ACCOUNT_BYTES]> = TableDefinition::new("accounts");
/// Address and slot to value.
pub(crate) const SLOTS: Table<[u8; 52], [u8; 32]> = TableDefinition::new("slots");
/// Hash to code.
pub(crate) const CODES: Table<[u8; 32], &[u8]> = TableDefinition::new("codes");
/// Number to header.
pub(crate) const HEADERS: Table<u64, &[u8]> = TableDefinition::new("headers");
/// Number to transactions.
pub(crate) const BODIES: Table<u64, &[u8]> = TableDefinition::new("bodies");
/// Number to receipts.
pub(crate) const RECEIPTS: Table<u64, &[u8]> = TableDefinition::new("receipts");
/// Number to block hash.
pub(crate) const HASHES: Table<u64, [u8; 32]> = TableDefinition::new("hashes");
/// Block hash to number.
pub(crate) const NUMBERS: Table<[u8; 32], u64> = TableDefinition::new("numbers");
/// Transaction hash to block and place.
pub(crate) const PLACES: Table<[u8; 32], (u64, u32)> = TableDefinition::new("places");
/// Number to what the block replaced, of the last blocks.
pub(crate) const UNDOS: Table<u64, &[u8]> = TableDefinition::new("undos");

/// Nodes of the tries, by whose and their path.
pub(crate) const NODES: Table<&[u8], &[u8]> = TableDefinition::new("nodes");

pub(crate) const ACCOUNT_BYTES: usize = 104;

/// Why something of the chain can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk, or the file on it.
    #[error("failed to read the chain's file")]
    Disk(#[source] Box<redb::Error>),
    /// A record that we did not write so.
    #[error("the chain's file is damaged: {what} can't be decoded")]
    Damaged {
        /// Which record.
        what: &'static str,
    },
    /// A state that is too old.
    #[error("missing trie node: the state of block {number} is not kept")]
    TooOld {
        /// Of which block.
        number: u64,
    },
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Disk(Box::new(error.into()))
    }
}

pub(crate) fn account_bytes(account: &Account) -> [u8; ACCOUNT_BYTES] {
    let mut bytes = [0; ACCOUNT_BYTES];
    bytes[..32].copy_from_slice(&account.balance.to_be_bytes::<32>());
    bytes[32..40].copy_from_slice(&account.nonce.to_be_bytes());
    bytes[40..72].copy_from_slice(account.code_hash.as_slice());
    bytes[72..].copy_from_slice(account.storage_root.as_slice());
    bytes
}

pub(crate) fn account_from(bytes: &[u8; ACCOUNT_BYTES]) -> Account {
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&bytes[32..40]);
    Account {
        balance: U256::from_be_slice(&bytes[..32]),
        nonce: u64::from_be_bytes(nonce),
        code_hash: B256::from_slice(&bytes[40..72]),
        storage_root: B256::from_slice(&bytes[72..]),
    }
}

pub(crate) fn slot_key(slot: &Slot) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(slot.0.as_slice());
    key[20..].copy_from_slice(&slot.1.to_be_bytes::<32>());
    key
}

#[derive(RlpEncodable, RlpDecodable)]
struct UndoneAccount {
    address: Address,
    before: Vec<Account>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct UndoneSlot {
    address: Address,
    key: U256,
    before: U256,
}

#[derive(RlpEncodable, RlpDecodable)]
struct UndoRecord {
    accounts: Vec<UndoneAccount>,
    slots: Vec<UndoneSlot>,
}

fn undo_bytes(undo: &Undo) -> Vec<u8> {
    let mut accounts: Vec<_> = undo
        .accounts
        .iter()
        .map(|(address, before)| UndoneAccount {
            address: *address,
            before: before.iter().copied().collect(),
        })
        .collect();
    accounts.sort_unstable_by_key(|account| account.address);
    let mut slots: Vec<_> = undo
        .slots
        .iter()
        .map(|((address, key), before)| UndoneSlot {
            address: *address,
            key: *key,
            before: *before,
        })
        .collect();
    slots.sort_unstable_by_key(|slot| (slot.address, slot.key));
    alloy_rlp::encode(UndoRecord { accounts, slots })
}

pub(crate) fn undo_from(number: u64, bytes: &[u8]) -> Result<Undo, ReadError> {
    let record: UndoRecord = decode(bytes, "an undo record")?;
    let accounts: HashMap<_, _> = record
        .accounts
        .into_iter()
        .map(|account| (account.address, account.before.first().copied()))
        .collect();
    let slots =
        record.slots.into_iter().map(|slot| ((slot.address, slot.key), slot.before)).collect();
    Ok(Undo { number, accounts, slots })
}

fn list_bytes<T: alloy_rlp::Encodable>(items: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    alloy_rlp::encode_list(items, &mut out);
    out
}

/// A block with all that it brings to the disk.
#[derive(Debug)]
pub(crate) struct NewBlock {
    pub(crate) sealed: Sealed,
    pub(crate) body: Body,
    pub(crate) changes: Changes,
    pub(crate) undo: Undo,
    pub(crate) nodes: Nodes,
}

/// The open file.
///
/// After an error of the disk redb does nothing more with a file until it is opened anew.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, redb::DatabaseError> {
        let database = RwLock::new(Some(Self::create(path)?));
        Ok(Self { path: path.to_owned(), database })
    }

    fn create(path: &Path) -> Result<Database, redb::DatabaseError> {
        Builder::new().set_cache_size(CACHE_BYTES_MAX).create(path)
    }

    /// Opens the file anew, as after an error of the disk. What was being read can't be read on.
    pub(crate) fn reopen(&self) -> Result<(), ReadError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The lock on the file goes with the old one.
        *database = None;
        *database = Some(Self::create(&self.path)?);
        Ok(())
    }

    /// Whether opening it anew failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn with<T, E: Into<redb::Error>>(
        &self,
        use_it: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<T, ReadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        Ok(use_it(database)?)
    }

    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, ReadError> {
        self.with(|database| database.begin_read())
    }

    fn begin_write(&self) -> Result<WriteTransaction, ReadError> {
        self.with(Database::begin_write)
    }

    /// The genesis that the file was made with; nothing where it is new.
    pub(crate) fn genesis(&self) -> Result<Option<B256>, ReadError> {
        let read = self.begin_read()?;
        let table = match read.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get("genesis")?.map(|hash| B256::from(hash.value())))
    }

    /// Makes the tables with block 0 in them, in place of what an interrupted creation left.
    pub(crate) fn begin(&self, block: &NewBlock) -> Result<(), ReadError> {
        let write = self.begin_write()?;
        let left: Vec<_> = write.list_tables()?.collect();
        for table in left {
            write.delete_table(table)?;
        }
        put_block(&write, block)?;
        write.commit()?;
        Ok(())
    }

    /// The genesis is whole.
    pub(crate) fn finish(&self, genesis: B256) -> Result<(), ReadError> {
        let write = self.begin_write()?;
        write.open_table(META)?.insert("genesis", genesis.0)?;
        write.commit()?;
        Ok(())
    }

    /// Writes a block, `is_durable` to the disk; `forgotten` are the blocks whose undo records are
    /// not needed any more.
    pub(crate) fn append(
        &self,
        block: &NewBlock,
        forgotten: &[u64],
        is_durable: bool,
    ) -> Result<(), ReadError> {
        let mut write = self.begin_write()?;
        if !is_durable {
            write.set_durability(redb::Durability::None)?;
        }
        put_block(&write, block)?;
        let mut undos = write.open_table(UNDOS)?;
        for number in forgotten {
            undos.remove(number)?;
        }
        drop(undos);
        write.commit()?;
        Ok(())
    }

    /// Takes the last blocks away, newest first, each with its undo record.
    pub(crate) fn unwind(
        &self,
        blocks: &[(Sealed, Body)],
        changes: &Changes,
        nodes: &Nodes,
    ) -> Result<(), ReadError> {
        let write = self.begin_write()?;
        put_changes(&write, changes, nodes)?;
        for (sealed, body) in blocks {
            let number = sealed.header.number;
            write.open_table(HEADERS)?.remove(number)?;
            write.open_table(BODIES)?.remove(number)?;
            write.open_table(RECEIPTS)?.remove(number)?;
            write.open_table(HASHES)?.remove(number)?;
            write.open_table(UNDOS)?.remove(number)?;
            write.open_table(NUMBERS)?.remove(sealed.hash.0)?;
            let mut places = write.open_table(PLACES)?;
            for transaction in &body.transactions {
                places.remove(transaction.hash.0)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn put_block(write: &WriteTransaction, block: &NewBlock) -> Result<(), ReadError> {
    let number = block.sealed.header.number;
    put_changes(write, &block.changes, &block.nodes)?;
    let mut header = Vec::new();
    block.sealed.header.encode(&mut header);
    write.open_table(HEADERS)?.insert(number, &header[..])?;
    write.open_table(BODIES)?.insert(number, &list_bytes(&block.body.transactions)[..])?;
    write.open_table(RECEIPTS)?.insert(number, &list_bytes(&block.body.receipts)[..])?;
    write.open_table(HASHES)?.insert(number, block.sealed.hash.0)?;
    write.open_table(NUMBERS)?.insert(block.sealed.hash.0, number)?;
    write.open_table(UNDOS)?.insert(number, &undo_bytes(&block.undo)[..])?;
    let mut places = write.open_table(PLACES)?;
    for (transaction, index) in block.body.transactions.iter().zip(0..) {
        places.insert(transaction.hash.0, (number, index))?;
    }
    Ok(())
}

fn put_changes(
    write: &WriteTransaction,
    changes: &Changes,
    nodes: &Nodes,
) -> Result<(), ReadError> {
    let mut accounts = write.open_table(ACCOUNTS)?;
    for (address, account) in &changes.accounts {
        match account {
            Some(account) => accounts.insert(address.0.0, account_bytes(account))?,
            None => accounts.remove(address.0.0)?,
        };
    }
    let mut slots = write.open_table(SLOTS)?;
    for (slot, value) in &changes.slots {
        if value.is_zero() {
            slots.remove(slot_key(slot))?;
        } else {
            slots.insert(slot_key(slot), value.to_be_bytes::<32>())?;
        }
    }
    let mut table = write.open_table(NODES)?;
    for (path, node) in nodes {
        match node {
            Some(node) => table.insert(&path[..], &node[..])?,
            None => table.remove(&path[..])?,
        };
    }
    let mut codes = write.open_table(CODES)?;
    for (hash, code) in &changes.codes {
        if codes.get(hash.0)?.is_none() {
            codes.insert(hash.0, code.original_byte_slice())?;
        }
    }
    Ok(())
}
