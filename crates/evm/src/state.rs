//! State: accounts and slots, at a block, and what a block changes of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use alloy_rlp::{RlpDecodable, RlpEncodable};
use alloy_trie::EMPTY_ROOT_HASH;
use revm::bytecode::Bytecode;
use revm::database_interface::{DBErrorMarker, Database, DatabaseCommit, DatabaseRef};
use revm::primitives::AddressMap;
use revm::state::{Account as Touched, AccountInfo};

use crate::store::ReadError;
use crate::view::View;

impl DBErrorMarker for ReadError {}

/// An account as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct Account {
    pub(crate) balance: U256,
    pub(crate) nonce: u64,
    pub(crate) code_hash: B256,
    /// Of the trie of its slots.
    pub(crate) storage_root: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self { balance: U256::ZERO, nonce: 0, code_hash: KECCAK256_EMPTY, storage_root: B256::ZERO }
    }
}

/// A slot of a contract.
pub(crate) type Slot = (Address, U256);

/// What one block changes, in the order of addresses and slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// New accounts; `None` removes one.
    pub(crate) accounts: BTreeMap<Address, Option<Account>>,
    /// New values; zero removes a slot.
    pub(crate) slots: BTreeMap<Slot, U256>,
    /// Code that was not there.
    pub(crate) codes: BTreeMap<B256, Bytecode>,
}

/// What a block's changes replaced: enough to read, and to go back to, the state before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undo {
    /// The block whose changes are undone.
    pub(crate) number: u64,
    pub(crate) accounts: HashMap<Address, Option<Account>>,
    pub(crate) slots: HashMap<Slot, U256>,
}

impl Undo {
    pub(crate) fn len(&self) -> usize {
        self.accounts.len() + self.slots.len()
    }
}

/// The state after a block, that of the head or one of the last before it.
#[derive(Clone, Debug)]
pub(crate) struct StateAt {
    pub(crate) view: Arc<View>,
    pub(crate) number: u64,
}

impl StateAt {
    pub(crate) fn account(&self, address: Address) -> Result<Option<Account>, ReadError> {
        for undo in self.view.undos_after(self.number) {
            if let Some(account) = undo.accounts.get(&address) {
                return Ok(*account);
            }
        }
        self.view.account(address)
    }

    pub(crate) fn slot(&self, slot: Slot) -> Result<U256, ReadError> {
        for undo in self.view.undos_after(self.number) {
            if let Some(value) = undo.slots.get(&slot) {
                return Ok(*value);
            }
        }
        self.view.slot(slot)
    }

    pub(crate) fn code(&self, address: Address) -> Result<Bytecode, ReadError> {
        match self.account(address)? {
            Some(account) => self.view.code(account.code_hash),
            None => Ok(Bytecode::default()),
        }
    }
}

impl DatabaseRef for StateAt {
    type Error = ReadError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, ReadError> {
        Ok(self.account(address)?.map(info))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, ReadError> {
        self.view.code(hash)
    }

    fn storage_ref(&self, address: Address, key: U256) -> Result<U256, ReadError> {
        self.slot((address, key))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, ReadError> {
        Ok(self.view.hash_of(number)?.unwrap_or_default())
    }
}

fn info(account: Account) -> AccountInfo {
    AccountInfo {
        balance: account.balance,
        nonce: account.nonce,
        code_hash: account.code_hash,
        code: None,
        ..AccountInfo::default()
    }
}

/// The state of a block under construction: the parent's, and what its transactions changed.
#[derive(Debug)]
pub(crate) struct Overlay {
    parent: StateAt,
    accounts: HashMap<Address, Option<Account>>,
    slots: HashMap<Slot, U256>,
    codes: HashMap<B256, Bytecode>,
}

impl Overlay {
    pub(crate) fn new(view: Arc<View>) -> Self {
        let number = view.number();
        Self {
            parent: StateAt { view, number },
            accounts: HashMap::new(),
            slots: HashMap::new(),
            codes: HashMap::new(),
        }
    }

    /// The state before the block.
    pub(crate) fn parent(&self) -> Arc<View> {
        Arc::clone(&self.parent.view)
    }

    pub(crate) fn account(&self, address: Address) -> Result<Option<Account>, ReadError> {
        match self.accounts.get(&address) {
            Some(account) => Ok(*account),
            None => self.parent.account(address),
        }
    }

    /// What differs from the parent, and what it was there.
    pub(crate) fn into_changes(self, number: u64) -> Result<(Changes, Undo), ReadError> {
        let mut changes = Changes::default();
        let mut undo = Undo { number, ..Undo::default() };
        let accounts: BTreeMap<_, _> = self.accounts.into_iter().collect();
        for (address, account) in accounts {
            let before = self.parent.account(address)?;
            if before != account {
                undo.accounts.insert(address, before);
                changes.accounts.insert(address, account);
            }
        }
        let slots: BTreeMap<_, _> = self.slots.into_iter().collect();
        for (slot, value) in slots {
            let before = self.parent.slot(slot)?;
            if before != value {
                undo.slots.insert(slot, before);
                changes.slots.insert(slot, value);
            }
        }
        changes.codes = self.codes.into_iter().collect();
        Ok((changes, undo))
    }

    fn commit_account(&mut self, address: Address, touched: Touched) {
        if !touched.is_touched() {
            return;
        }
        // Only a contract of the same transaction can destroy itself (EIP-6780): it has no slots here.
        if touched.is_selfdestructed() || touched.info.is_empty() {
            self.accounts.insert(address, None);
            return;
        }
        let info = touched.info;
        if let Some(code) = info.code.filter(|code| !code.is_empty()) {
            self.codes.entry(info.code_hash).or_insert(code);
        }
        let storage_root = match self.accounts.get(&address) {
            Some(Some(account)) => account.storage_root,
            _ => EMPTY_ROOT_HASH,
        };
        let code_hash = if info.code_hash.is_zero() { KECCAK256_EMPTY } else { info.code_hash };
        let account = Account { balance: info.balance, nonce: info.nonce, code_hash, storage_root };
        self.accounts.insert(address, Some(account));
        let changed = touched.storage.into_iter().filter(|(_, slot)| slot.is_changed());
        self.slots.extend(changed.map(|(key, slot)| ((address, key), slot.present_value())));
    }
}

impl Database for Overlay {
    type Error = ReadError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ReadError> {
        if let Some(account) = self.accounts.get(&address) {
            return Ok(account.map(info));
        }
        let account = self.parent.account(address)?;
        self.accounts.insert(address, account);
        Ok(account.map(info))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, ReadError> {
        match self.codes.get(&hash) {
            Some(code) => Ok(code.clone()),
            None => self.parent.view.code(hash),
        }
    }

    fn storage(&mut self, address: Address, key: U256) -> Result<U256, ReadError> {
        let slot = (address, key);
        if let Some(value) = self.slots.get(&slot) {
            return Ok(*value);
        }
        let value = self.parent.slot(slot)?;
        self.slots.insert(slot, value);
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ReadError> {
        self.parent.block_hash_ref(number)
    }
}

impl DatabaseCommit for Overlay {
    fn commit(&mut self, changes: AddressMap<Touched>) {
        changes.into_iter().for_each(|(address, touched)| self.commit_account(address, touched));
    }
}
