//! What accounts sign: EIP-712 typed data, so that wallets can show it and contracts can check it.
//!
//! digest = keccak256(0x19 0x01 ‖ domainSeparator ‖ hashStruct(message)), EIP-712 version of
//! 2017-09-12. Fields are encoded to 32 bytes each: numbers right-aligned, `bytesN` left-aligned.

use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};
use welkin_types::AccountId;

/// Where a signature holds: one settlement contract on one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The chain's id (EIP-155).
    pub chain_id: u64,
    /// The settlement contract.
    pub contract: AccountId,
}

/// 0xf60D85797461182C83B0eAC9e84A62129205b274
const LOCAL_ESCROW: [u8; 20] = [
    0xf6, 0x0d, 0x85, 0x79, 0x74, 0x61, 0x18, 0x2c, 0x83, 0xb0, 0xea, 0xc9, 0xe8, 0x4a, 0x62, 0x12,
    0x92, 0x05, 0xb2, 0x74,
];

impl Domain {
    /// The embedded network of one machine. Its escrow stands at the first address of a deployer
    /// that has no key, so that the address is the same on all of them.
    pub const LOCAL: Self =
        Self { chain_id: 412_346, contract: AccountId::from_bytes(LOCAL_ESCROW) };

    /// EIP-712's domain separator, with name `Welkin` and version `1`.
    pub fn separator(&self) -> [u8; 32] {
        let mut words = Words::of(
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
        );
        words.word(keccak(b"Welkin"));
        words.word(keccak(b"1"));
        words.number(u128::from(self.chain_id));
        words.address(self.contract);
        words.hash()
    }
}

/// A message that an account can sign.
pub trait Eip712 {
    /// EIP-712's `hashStruct` of the message.
    fn hash_struct(&self) -> [u8; 32];

    /// The digest to sign.
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let mut hasher = Keccak256::new();
        hasher.update([0x19, 0x01]);
        hasher.update(domain.separator());
        hasher.update(self.hash_struct());
        hasher.finalize().into()
    }
}

/// The words of a struct, first its type's hash.
pub(crate) struct Words(Keccak256);

impl Words {
    /// Begins with the hash of the type's text.
    pub(crate) fn of(type_text: &str) -> Self {
        let mut words = Self(Keccak256::new());
        words.word(keccak(type_text.as_bytes()));
        words
    }

    /// Adds a `bytes32`, or the hash of a dynamic value.
    pub(crate) fn word(&mut self, word: [u8; 32]) {
        self.0.update(word);
    }

    /// Adds a `uintN`.
    pub(crate) fn number(&mut self, number: u128) {
        self.0.update([0; 16]);
        self.0.update(number.to_be_bytes());
    }

    /// Adds an `address`.
    pub(crate) fn address(&mut self, account: AccountId) {
        self.0.update([0; 12]);
        self.0.update(account.as_bytes());
    }

    /// Adds a `bytes16`.
    pub(crate) fn bytes16(&mut self, bytes: &[u8; 16]) {
        self.0.update(bytes);
        self.0.update([0; 16]);
    }

    /// The struct's hash.
    pub(crate) fn hash(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}
