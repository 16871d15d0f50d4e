//! Who signed a hash, by Ethereum's recoverable ECDSA signatures over secp256k1.
//!
//! The key follows from the signature by one multiplication of two points. Libraries verify the
//! signature with the key that they found, which can't fail and costs as much again; not so here.

use k256::elliptic_curve::ops::{LinearCombination as _, Reduce};
use k256::elliptic_curve::point::DecompressPoint as _;
use k256::elliptic_curve::scalar::IsHigh as _;
use k256::elliptic_curve::sec1::ToEncodedPoint as _;
use k256::elliptic_curve::subtle::Choice;
use k256::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};
use sha3::{Digest as _, Keccak256};
use welkin_types::AccountId;

/// Finds the account that signed a 32-byte hash: `r` and `s` big-endian, and whether the y of the
/// nonce's point is odd. `None` where the signature is nobody's, or its s is in the upper half of
/// the group's order: of the two signatures that say the same, one counts (EIP-2).
pub fn recover(r: [u8; 32], s: [u8; 32], is_odd: bool, hash: &[u8; 32]) -> Option<AccountId> {
    let r_bytes = FieldBytes::from(r);
    let r = scalar(&r_bytes)?;
    let s = scalar(&FieldBytes::from(s))?;
    if bool::from(s.is_high()) {
        return None;
    }
    let z = <Scalar as Reduce<k256::U256>>::reduce_bytes(&FieldBytes::from(*hash));
    let point = AffinePoint::decompress(&r_bytes, Choice::from(u8::from(is_odd)));
    let point = ProjectivePoint::from(Option::<AffinePoint>::from(point)?);
    let inverse = Option::<Scalar>::from(r.invert())?;
    let key = ProjectivePoint::lincomb(
        &ProjectivePoint::GENERATOR,
        &-(inverse * z),
        &point,
        &(inverse * *s),
    );
    let encoded = key.to_affine().to_encoded_point(false);
    // 65 bytes; one byte where the key is the point at infinity, which is nobody's.
    encoded.as_bytes().get(1..65).map(account)
}

/// The EVM address of a public key: the last 20 bytes of the Keccak-256 of its 64 bytes.
pub(crate) fn account(coordinates: &[u8]) -> AccountId {
    let hash = Keccak256::digest(coordinates);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&hash[12..]);
    AccountId::from_bytes(bytes)
}

fn scalar(bytes: &FieldBytes) -> Option<NonZeroScalar> {
    Option::from(NonZeroScalar::from_repr(*bytes))
}

#[cfg(test)]
mod tests {
    //! Against k256's own recovery, which verifies.

    use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
    use proptest::prelude::*;

    use super::*;

    fn of(key: &VerifyingKey) -> AccountId {
        account(&key.to_encoded_point(false).as_bytes()[1..])
    }

    /// As the library finds it; it takes signatures with a high s.
    fn by_k256(signature: &Signature, is_odd: bool, hash: &[u8; 32]) -> Option<AccountId> {
        if signature.normalize_s().is_some() {
            return None;
        }
        let id = RecoveryId::new(is_odd, false);
        VerifyingKey::recover_from_prehash(hash, signature, id).ok().map(|key| of(&key))
    }

    proptest! {
        #[test]
        fn finds_whom_the_library_finds(
            key in prop::array::uniform32(1_u8..),
            hash: [u8; 32],
            is_odd: bool,
            broken in prop::option::of((any::<[u8; 32]>(), any::<[u8; 32]>())),
        ) {
            let key = SigningKey::from_slice(&key).unwrap();
            let (signed, id) = key.sign_prehash_recoverable(&hash).unwrap();
            let (r, s) = signed.split_bytes();
            let found = recover(r.into(), s.into(), id.is_y_odd(), &hash);
            prop_assert_eq!(found, Some(of(key.verifying_key())));
            let (r, s) = broken.unwrap_or((r.into(), s.into()));
            let expected = Signature::from_scalars(r, s).ok();
            let expected = expected.and_then(|signed| by_k256(&signed, is_odd, &hash));
            prop_assert_eq!(recover(r, s, is_odd, &hash), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_signature() {
        let one = |last: u8| {
            let mut bytes = [0; 32];
            bytes[31] = last;
            bytes
        };
        // A half: one more than half of what is below the group's order, the first that is high.
        let high = <[u8; 32]>::from(Scalar::from(2_u64).invert().unwrap().to_bytes());
        for (r, s) in [(one(0), one(1)), (one(1), one(0)), ([0xff; 32], one(1)), (one(1), high)] {
            assert_eq!(recover(r, s, false, &[1; 32]), None);
        }
    }
}
