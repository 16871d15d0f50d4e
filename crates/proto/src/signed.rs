//! Statements signed by nodes for third parties to check.
//!
//! The signed bytes are `"welkin/1/" kind 0x00`, the chain id (8 bytes, big-endian), the
//! settlement contract (20 bytes) and the body as it was sent. The body travels as bytes, so that
//! what was signed is what is verified, whatever a later version would encode.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::NodeId;

use crate::codec::{CodecError, decode, encode};
use crate::eip712::Domain;
use crate::keys::{KeyError, NodeKey, NodeSignature};

/// A statement that a node may sign.
pub trait Signable: Serialize + DeserializeOwned {
    /// What kind of statement it is; part of the signed bytes.
    const KIND: &'static str;

    /// Reads a statement whose signature is right.
    ///
    /// # Errors
    ///
    /// [`CodecError`] where it is malformed.
    fn read(body: &[u8]) -> Result<Self, CodecError> {
        decode(body)
    }
}

/// Reads a statement whose last field is an option that earlier editions do not have.
pub(crate) fn read_grown<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    decode(body).or_else(|error| {
        let mut grown = body.to_vec();
        // `None`
        grown.push(0);
        decode(&grown).map_err(|_| error)
    })
}

/// Why a signed statement is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signature is wrong.
    #[error("the signature does not belong to the statement")]
    Key(#[source] KeyError),
    /// The body is malformed.
    #[error("the signed statement can't be read")]
    Body(#[source] CodecError),
    /// Signed by somebody else than it must be.
    #[error("signed by {by}, expected {expected}")]
    Signer {
        /// Who signed.
        by: NodeId,
        /// Who should have.
        expected: NodeId,
    },
}

/// A statement with the signature of the node that makes it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    #[serde(with = "crate::hexed")]
    body: Vec<u8>,
    signer: NodeId,
    signature: NodeSignature,
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes by {})", self.body.len(), self.signer)
    }
}

impl<T: Signable> Signed<T> {
    /// Signs a statement.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if it is too large.
    pub fn sign(domain: &Domain, key: &NodeKey, statement: &T) -> Result<Self, CodecError> {
        let body = encode(statement)?;
        let signature = key.sign(&signed_bytes::<T>(domain, &body));
        Ok(Self { body, signer: key.id(), signature, kind: PhantomData })
    }

    /// Puts a statement and a signature together that were kept apart. Whether the signature is its
    /// own is as unknown as of anything that was received: [`Self::open`] tells.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if it is too large.
    pub fn from_parts(
        statement: &T,
        signer: NodeId,
        signature: NodeSignature,
    ) -> Result<Self, CodecError> {
        Ok(Self { body: encode(statement)?, signer, signature, kind: PhantomData })
    }

    /// Verifies the signature and returns the statement. Who signed is [`Self::signer`].
    ///
    /// # Errors
    ///
    /// [`SignatureError`] where the signature or the body is wrong.
    pub fn open(&self, domain: &Domain) -> Result<T, SignatureError> {
        let bytes = signed_bytes::<T>(domain, &self.body);
        self.signature.verify(self.signer, &bytes).map_err(SignatureError::Key)?;
        T::read(&self.body).map_err(SignatureError::Body)
    }

    /// As [`Self::open`], and the signer must be `expected`.
    ///
    /// # Errors
    ///
    /// [`SignatureError`] where the signer, the signature or the body is wrong.
    pub fn open_by(&self, domain: &Domain, expected: NodeId) -> Result<T, SignatureError> {
        if self.signer != expected {
            return Err(SignatureError::Signer { by: self.signer, expected });
        }
        self.open(domain)
    }

    /// The statement, without a look at the signature: only for what was verified before it was
    /// put where this was read from.
    ///
    /// # Errors
    ///
    /// [`CodecError`] where the body is malformed.
    pub fn read_unverified(&self) -> Result<T, CodecError> {
        T::read(&self.body)
    }
}

impl<T> Signed<T> {
    /// Who says that they signed; true only after [`Self::open`].
    pub const fn signer(&self) -> NodeId {
        self.signer
    }

    /// The signature, to be kept apart from its statement.
    pub const fn signature(&self) -> NodeSignature {
        self.signature
    }

    /// SHA-256 of the body: names this statement.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.body).into()
    }
}

fn signed_bytes<T: Signable>(domain: &Domain, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + body.len());
    bytes.extend_from_slice(b"welkin/1/");
    bytes.extend_from_slice(T::KIND.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&domain.chain_id.to_be_bytes());
    bytes.extend_from_slice(domain.contract.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(u32);
    impl Signable for Note {
        const KIND: &'static str = "note";
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(u32);
    impl Signable for Other {
        const KIND: &'static str = "other";
    }

    #[test]
    fn only_the_same_kind_domain_and_signer_opens() {
        let key = NodeKey::from_secret(&[1; 32]);
        let domain = Domain::LOCAL;
        let signed = Signed::sign(&domain, &key, &Note(7)).unwrap();
        assert_eq!(signed.open_by(&domain, key.id()), Ok(Note(7)));
        let other = Domain { chain_id: domain.chain_id + 1, ..domain };
        assert!(matches!(signed.open(&other), Err(SignatureError::Key(_))));
        let stranger = NodeKey::from_secret(&[2; 32]).id();
        assert!(matches!(signed.open_by(&domain, stranger), Err(SignatureError::Signer { .. })));
        let bytes = encode(&signed).unwrap();
        let taken: Signed<Other> = decode(&bytes).unwrap();
        assert!(matches!(taken.open(&domain), Err(SignatureError::Key(_))));
        let same: Signed<Note> = decode(&bytes).unwrap();
        assert_eq!(same.digest(), signed.digest());
    }

    #[test]
    fn what_was_kept_apart_is_put_together_again() {
        let key = NodeKey::from_secret(&[1; 32]);
        let signed = Signed::sign(&Domain::LOCAL, &key, &Note(7)).unwrap();
        let of = |note| Signed::from_parts(&note, key.id(), signed.signature()).unwrap();
        assert_eq!(of(Note(7)), signed);
        assert!(matches!(of(Note(8)).open(&Domain::LOCAL), Err(SignatureError::Key(_))));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Grown(u32, Option<u8>);
    impl Signable for Grown {
        const KIND: &'static str = "note";

        fn read(body: &[u8]) -> Result<Self, CodecError> {
            read_grown(body)
        }
    }

    #[test]
    fn a_later_edition_reads_an_earlier_one() {
        let key = NodeKey::from_secret(&[1; 32]);
        let old = Signed::sign(&Domain::LOCAL, &key, &Note(7)).unwrap();
        let read: Signed<Grown> = decode(&encode(&old).unwrap()).unwrap();
        assert_eq!(read.open(&Domain::LOCAL), Ok(Grown(7, None)));
        assert_eq!(read.digest(), old.digest());
        let new = Signed::sign(&Domain::LOCAL, &key, &Grown(7, Some(1))).unwrap();
        assert_eq!(new.open(&Domain::LOCAL), Ok(Grown(7, Some(1))));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = NodeKey::from_secret(&[1; 32]);
        let signed = Signed::sign(&Domain::LOCAL, &key, &Note(7)).unwrap();
        let bytes = encode(&signed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let opened = decode::<Signed<Note>>(&bent).map(|s| s.open(&Domain::LOCAL));
            assert!(!matches!(opened, Ok(Ok(_))), "bit {bit}");
        }
    }
}
