//! A snapshot of the chain at one head: what readers use, without waiting for the writer.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use redb::{ReadOnlyTable, ReadableTable as _};
use revm::bytecode::Bytecode;

use crate::block::{Block, Body, Sealed, decode};
use crate::state::{Account, Slot, Undo};
use crate::store::{
    ACCOUNT_BYTES, ACCOUNTS, BODIES, CODES, HASHES, HEADERS, NODES, NUMBERS, PLACES, RECEIPTS,
    ReadError, SLOTS, Store, UNDOS, account_from, slot_key, undo_from,
};

/// The most blocks whose earlier state can be read.
pub(crate) const HISTORY_BLOCKS_MAX: usize = 256;
/// The most values that are kept in memory for that, about 100 bytes each.
const HISTORY_VALUES_MAX: usize = 500_000;
/// The most contracts whose analysed code is kept in memory, at most 24 KiB each.
const CODES_MAX: usize = 1_024;

/// Analysed code, shared by all views.
#[derive(Debug, Default)]
pub(crate) struct Codes(Mutex<HashMap<B256, Bytecode>>);

impl Codes {
    fn get(&self, hash: &B256) -> Option<Bytecode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn put(&self, hash: B256, code: Bytecode) {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if codes.len() >= CODES_MAX {
            codes.clear();
        }
        codes.insert(hash, code);
    }
}

/// The last blocks' undo records, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    undos: VecDeque<Arc<Undo>>,
    values: usize,
}

impl History {
    /// Adds a block's record; returns the blocks whose records went for it.
    pub(crate) fn push(&mut self, undo: Undo) -> Vec<u64> {
        self.values += undo.len();
        self.undos.push_back(Arc::new(undo));
        let mut forgotten = Vec::new();
        while self.undos.len() > HISTORY_BLOCKS_MAX
            || (self.values > HISTORY_VALUES_MAX && self.undos.len() > 1)
        {
            let Some(oldest) = self.undos.pop_front() else { break };
            self.values -= oldest.len();
            forgotten.push(oldest.number);
        }
        forgotten
    }

    pub(crate) fn pop(&mut self) -> Option<Arc<Undo>> {
        let newest = self.undos.pop_back()?;
        self.values -= newest.len();
        Some(newest)
    }

    pub(crate) fn len(&self) -> usize {
        self.undos.len()
    }
}

/// The chain as it was when its head was written.
pub(crate) struct View {
    pub(crate) head: Sealed,
    pub(crate) history: History,
    codes: Arc<Codes>,
    accounts: ReadOnlyTable<[u8; 20], [u8; ACCOUNT_BYTES]>,
    slots: ReadOnlyTable<[u8; 52], [u8; 32]>,
    code_table: ReadOnlyTable<[u8; 32], &'static [u8]>,
    nodes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    headers: ReadOnlyTable<u64, &'static [u8]>,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    receipts: ReadOnlyTable<u64, &'static [u8]>,
    hashes: ReadOnlyTable<u64, [u8; 32]>,
    numbers: ReadOnlyTable<[u8; 32], u64>,
    places: ReadOnlyTable<[u8; 32], (u64, u32)>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("head", &self.head.header.number).finish_non_exhaustive()
    }
}

impl View {
    /// The file as it is, with the undo records on it.
    pub(crate) fn load(store: &Store) -> Result<Self, ReadError> {
        let read = store.begin_read()?;
        let mut history = History::default();
        for row in read.open_table(UNDOS)?.iter()? {
            let (number, bytes) = row?;
            // Block 0 has nothing before it.
            if number.value() > 0 {
                history.push(undo_from(number.value(), bytes.value())?);
            }
        }
        Self::new(store, history, Arc::default())
    }

    /// The file as it is, after a block was written.
    pub(crate) fn next(&self, store: &Store, history: History) -> Result<Self, ReadError> {
        Self::new(store, history, Arc::clone(&self.codes))
    }

    fn new(store: &Store, history: History, codes: Arc<Codes>) -> Result<Self, ReadError> {
        let read = store.begin_read()?;
        let headers = read.open_table(HEADERS)?;
        let head = {
            let (_, bytes) =
                headers.last()?.ok_or(ReadError::Damaged { what: "the newest header" })?;
            Sealed::new(decode(bytes.value(), "a header")?)
        };
        Ok(Self {
            head,
            history,
            codes,
            accounts: read.open_table(ACCOUNTS)?,
            slots: read.open_table(SLOTS)?,
            code_table: read.open_table(CODES)?,
            nodes: read.open_table(NODES)?,
            headers,
            bodies: read.open_table(BODIES)?,
            receipts: read.open_table(RECEIPTS)?,
            hashes: read.open_table(HASHES)?,
            numbers: read.open_table(NUMBERS)?,
            places: read.open_table(PLACES)?,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.head.header.number
    }

    /// The records of the blocks after one, oldest first.
    pub(crate) fn undos_after(&self, number: u64) -> impl Iterator<Item = &Undo> {
        let count = usize::try_from(self.number().saturating_sub(number)).unwrap_or(usize::MAX);
        let skipped = self.history.undos.len().saturating_sub(count);
        self.history.undos.iter().skip(skipped).map(AsRef::as_ref)
    }

    /// Whether the state after a block can be read.
    pub(crate) fn has_state(&self, number: u64) -> bool {
        let head = self.number();
        number <= head && head - number <= self.history.len() as u64
    }

    pub(crate) fn account(&self, address: Address) -> Result<Option<Account>, ReadError> {
        Ok(self.accounts.get(address.0.0)?.map(|row| account_from(&row.value())))
    }

    pub(crate) fn slot(&self, slot: Slot) -> Result<U256, ReadError> {
        let row = self.slots.get(slot_key(&slot))?;
        Ok(row.map(|row| U256::from_be_bytes(row.value())).unwrap_or_default())
    }

    pub(crate) fn code(&self, hash: B256) -> Result<Bytecode, ReadError> {
        if hash == KECCAK256_EMPTY || hash.is_zero() {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(&hash) {
            return Ok(code);
        }
        let row = self.code_table.get(hash.0)?.ok_or(ReadError::Damaged { what: "a code" })?;
        let code = Bytecode::new_raw_checked(row.value().to_vec().into())
            .map_err(|_| ReadError::Damaged { what: "a code" })?;
        self.codes.put(hash, code.clone());
        Ok(code)
    }

    pub(crate) fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.nodes.get(path)?.map(|row| row.value().to_vec()))
    }

    pub(crate) fn hash_of(&self, number: u64) -> Result<Option<B256>, ReadError> {
        Ok(self.hashes.get(number)?.map(|row| B256::from(row.value())))
    }

    pub(crate) fn number_of(&self, hash: B256) -> Result<Option<u64>, ReadError> {
        Ok(self.numbers.get(hash.0)?.map(|row| row.value()))
    }

    pub(crate) fn place_of(&self, hash: B256) -> Result<Option<(u64, usize)>, ReadError> {
        let row = self.places.get(hash.0)?.map(|row| row.value());
        Ok(row.map(|(number, index)| (number, index as usize)))
    }

    pub(crate) fn header(&self, number: u64) -> Result<Option<Sealed>, ReadError> {
        let Some(row) = self.headers.get(number)? else { return Ok(None) };
        Ok(Some(Sealed::new(decode(row.value(), "a header")?)))
    }

    pub(crate) fn block(&self, number: u64) -> Result<Option<Block>, ReadError> {
        let Some(sealed) = self.header(number)? else { return Ok(None) };
        let transactions = match self.bodies.get(number)? {
            Some(row) => decode(row.value(), "a block's transactions")?,
            None => Vec::new(),
        };
        let receipts = match self.receipts.get(number)? {
            Some(row) => decode(row.value(), "a block's receipts")?,
            None => Vec::new(),
        };
        Ok(Some(Block { sealed, body: Body { transactions, receipts } }))
    }

    /// The headers of a range of blocks, oldest first.
    pub(crate) fn headers(
        &self,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<impl Iterator<Item = Result<alloy_consensus::Header, ReadError>>, ReadError> {
        let rows = self.headers.range(range)?;
        Ok(rows.map(|row| decode(row?.1.value(), "a header")))
    }
}
