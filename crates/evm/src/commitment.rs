//! What a header's state root stands for: the Merkle-Patricia trie of Ethereum.
//!
//! Accounts by the hash of their address, each with the root of the trie of its slots by the hash of
//! theirs.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};

use crate::state::{Account, Changes, Undo};
use crate::store::ReadError;
use crate::trie::{Nodes, Trie};
use crate::view::View;

/// What comes before the path of a node of the accounts.
const OF_ACCOUNTS: u8 = 0;
/// What comes before the account's hash and the path of a node of its slots.
const OF_SLOTS: u8 = 1;

/// The state that a block changes; nothing before block 0.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a>(pub(crate) Option<&'a View>);

impl Before<'_> {
    fn root(self) -> B256 {
        self.0.map_or(EMPTY_ROOT_HASH, |view| view.head.header.state_root)
    }

    fn account(self, address: Address) -> Result<Option<Account>, ReadError> {
        self.0.map_or(Ok(None), |view| view.account(address))
    }

    fn node(self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.map_or(Ok(None), |view| view.node(key))
    }
}

/// Applies changes to the tries: returns the new root and the nodes to write.
///
/// Accounts whose slots change get their new storage root, in `changes`; what that replaces is added
/// to `undo`.
pub(crate) fn commit(
    before: Before<'_>,
    changes: &mut Changes,
    undo: &mut Undo,
) -> Result<(B256, Nodes), ReadError> {
    let mut written = Nodes::new();
    let mut by_account = BTreeMap::<Address, Vec<(U256, U256)>>::new();
    for ((address, key), value) in &changes.slots {
        by_account.entry(*address).or_default().push((*key, *value));
    }
    for (address, slots) in by_account {
        let kept = before.account(address)?;
        let account = match changes.accounts.get(&address) {
            Some(account) => *account,
            None => kept,
        };
        let Some(account) = account else { continue };
        let root = kept.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
        let mut prefix = vec![OF_SLOTS];
        prefix.extend_from_slice(keccak256(address).as_slice());
        let mut trie = Trie::new(root, |path: &[u8]| before.node(&[&prefix, path].concat()));
        for (key, value) in slots {
            let value = (!value.is_zero()).then(|| alloy_rlp::encode(value));
            trie.set(keccak256(key.to_be_bytes::<32>()), value)?;
        }
        let (storage_root, nodes) = trie.finish();
        written.extend(nodes.into_iter().map(|(path, node)| ([&prefix[..], &path].concat(), node)));
        undo.accounts.entry(address).or_insert(kept);
        changes.accounts.insert(address, Some(Account { storage_root, ..account }));
    }
    let prefix = [OF_ACCOUNTS];
    let load = |path: &[u8]| before.node(&[&prefix, path].concat());
    let mut trie = Trie::new(before.root(), load);
    for (address, account) in &changes.accounts {
        trie.set(keccak256(address), account.as_ref().map(encoded))?;
    }
    let (root, nodes) = trie.finish();
    written.extend(nodes.into_iter().map(|(path, node)| ([&prefix[..], &path].concat(), node)));
    Ok((root, written))
}

fn encoded(account: &Account) -> Vec<u8> {
    alloy_rlp::encode(TrieAccount {
        nonce: account.nonce,
        balance: account.balance,
        storage_root: account.storage_root,
        code_hash: account.code_hash,
    })
}
