//! Keys: ed25519 for nodes (transport identity), secp256k1 for accounts (money).
//!
//! Both are made from 32 bytes that the caller draws; nothing here draws randomness. ECDSA nonces
//! are deterministic (RFC 6979). Account signatures are Ethereum's: 65 bytes r, s, v with a low s,
//! so that each message has one valid signature and it can't be altered into another.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use k256::ecdsa;
use serde::{Deserialize, Serialize};
use welkin_types::{AccountId, NodeId};
use zeroize::{Zeroize as _, Zeroizing};

use crate::recover::{account, recover};

/// Why a key or a signature is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The 32 bytes are no secret key of the curve.
    #[error("these 32 bytes are no secret key")]
    Secret,
    /// The public key is no point of the curve.
    #[error("the public key is malformed")]
    Public,
    /// The signature does not belong to the key and the message.
    #[error("the signature is wrong")]
    Signature,
}

/// A node's signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSignature {
    #[serde(with = "crate::hexed")]
    r: [u8; 32],
    #[serde(with = "crate::hexed")]
    s: [u8; 32],
}

impl fmt::Debug for NodeSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSignature(..)")
    }
}

/// A node's secret key. Never printed; wiped on drop.
pub struct NodeKey(SigningKey);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.id())
    }
}

impl NodeKey {
    /// Makes a key from 32 secret random bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret bytes, for the transport and the key file.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public identity.
    pub fn id(&self) -> NodeId {
        NodeId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs bytes. Callers add the domain; see [`crate::Signed`].
    pub(crate) fn sign(&self, bytes: &[u8]) -> NodeSignature {
        let signature = self.0.sign(bytes);
        NodeSignature { r: *signature.r_bytes(), s: *signature.s_bytes() }
    }
}

impl NodeSignature {
    /// Verifies strictly (no small-order keys, one valid encoding).
    pub(crate) fn verify(&self, signer: NodeId, bytes: &[u8]) -> Result<(), KeyError> {
        let key = VerifyingKey::from_bytes(signer.as_bytes()).map_err(|_| KeyError::Public)?;
        let signature = ed25519_dalek::Signature::from_components(self.r, self.s);
        key.verify_strict(bytes, &signature).map_err(|_| KeyError::Signature)
    }
}

/// An account's signature: r, s and the recovery bit as Ethereum writes it (27 or 28).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSignature {
    /// First half.
    #[serde(with = "crate::hexed")]
    pub r: [u8; 32],
    /// Second half, in the lower half of the group's order.
    #[serde(with = "crate::hexed")]
    pub s: [u8; 32],
    /// 27 or 28.
    pub v: u8,
}

impl fmt::Debug for AccountSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountSignature(..)")
    }
}

impl AccountSignature {
    /// The account that signed this digest.
    ///
    /// # Errors
    ///
    /// [`KeyError::Signature`] if no account did, or s is high.
    pub fn recover(&self, digest: &[u8; 32]) -> Result<AccountId, KeyError> {
        let bit = self.v.checked_sub(27).filter(|bit| *bit <= 1).ok_or(KeyError::Signature)?;
        recover(self.r, self.s, bit == 1, digest).ok_or(KeyError::Signature)
    }
}

/// An account's secret key. Never printed; wiped on drop.
#[derive(Clone)]
pub struct AccountKey {
    key: ecdsa::SigningKey,
    id: AccountId,
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountKey({})", self.id)
    }
}

impl AccountKey {
    /// Makes a key from 32 secret random bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Secret`] for zero and for values above the group's order.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ecdsa::SigningKey::from_slice(secret).map_err(|_| KeyError::Secret)?;
        let id = address(key.verifying_key());
        Ok(Self { key, id })
    }

    /// The secret bytes, for the key file.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = self.key.to_bytes();
        let secret = Zeroizing::new(bytes.into());
        bytes.as_mut_slice().zeroize();
        secret
    }

    /// The account.
    pub const fn id(&self) -> AccountId {
        self.id
    }

    /// Signs an EIP-712 digest.
    ///
    /// # Errors
    ///
    /// [`KeyError::Signature`] where the curve's arithmetic refuses the digest (of probability 0).
    pub fn sign(&self, digest: &[u8; 32]) -> Result<AccountSignature, KeyError> {
        let (signature, recovery) =
            self.key.sign_prehash_recoverable(digest).map_err(|_| KeyError::Signature)?;
        let (r, s) = signature.split_bytes();
        Ok(AccountSignature { r: r.into(), s: s.into(), v: 27 + recovery.to_byte() })
    }
}

fn address(key: &ecdsa::VerifyingKey) -> AccountId {
    account(&key.to_encoded_point(false).as_bytes()[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first account of the widely published test mnemonic "test test … junk".
    #[test]
    fn address_is_ethereums() {
        let secret = [
            0xac, 0x09, 0x74, 0xbe, 0xc3, 0x9a, 0x17, 0xe3, 0x6b, 0xa4, 0xa6, 0xb4, 0xd2, 0x38,
            0xff, 0x94, 0x4b, 0xac, 0xb4, 0x78, 0xcb, 0xed, 0x5e, 0xfc, 0xae, 0x78, 0x4d, 0x7b,
            0xf4, 0xf2, 0xff, 0x80,
        ];
        let key = AccountKey::from_secret(&secret).unwrap();
        assert_eq!(key.id().to_string(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        assert_eq!(*key.secret(), secret);
    }

    #[test]
    fn signatures_recover_and_do_not_bend() {
        let key = AccountKey::from_secret(&[7; 32]).unwrap();
        let digest = [9; 32];
        let signature = key.sign(&digest).unwrap();
        assert_eq!(signature.recover(&digest), Ok(key.id()));
        assert_ne!(signature.recover(&[8; 32]), Ok(key.id()));
        let flipped = AccountSignature { v: signature.v ^ 1, ..signature };
        assert_ne!(flipped.recover(&digest), Ok(key.id()));
        assert_eq!(
            AccountSignature { v: 0, ..signature }.recover(&digest),
            Err(KeyError::Signature)
        );
        assert!(AccountKey::from_secret(&[0; 32]).is_err());
    }

    #[test]
    fn keys_are_not_printed() {
        let text = format!("{:?}", NodeKey::from_secret(&[1; 32]));
        assert!(text.starts_with("NodeKey(nod_"), "{text}");
    }
}
