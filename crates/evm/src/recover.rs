//! The sender of a signed transaction.
//!
//! The key follows from the signature by one multiplication of two points. Libraries verify the
//! signature with the key that they found, which can't fail and costs as much again; not so here.

use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use k256::elliptic_curve::ops::{LinearCombination as _, Reduce};
use k256::elliptic_curve::point::DecompressPoint as _;
use k256::elliptic_curve::sec1::ToEncodedPoint as _;
use k256::elliptic_curve::subtle::Choice;
use k256::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};

/// Half the order of the curve: of the two signatures that say the same, one is above it (EIP-2).
const HALF_ORDER: U256 = U256::from_limbs([
    0xdfe9_2f46_681b_20a0,
    0x5d57_6e73_57a4_501d,
    0xffff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
]);

/// Finds who signed a hash; `None` where the signature is none.
pub(crate) fn signer(signature: &Signature, hash: B256) -> Option<Address> {
    if signature.s() > HALF_ORDER {
        return None;
    }
    let r_bytes = FieldBytes::from(signature.r().to_be_bytes::<32>());
    let r = scalar(&r_bytes)?;
    let s = scalar(&FieldBytes::from(signature.s().to_be_bytes::<32>()))?;
    let z = <Scalar as Reduce<k256::U256>>::reduce_bytes(&FieldBytes::from(hash.0));
    let point = AffinePoint::decompress(&r_bytes, Choice::from(u8::from(signature.v())));
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
    let coordinates = encoded.as_bytes().get(1..65)?;
    Some(Address::from_slice(&keccak256(coordinates)[12..]))
}

fn scalar(bytes: &FieldBytes) -> Option<NonZeroScalar> {
    Option::from(NonZeroScalar::from_repr(*bytes))
}

#[cfg(test)]
mod tests {
    //! Against alloy, which verifies.

    use k256::ecdsa::SigningKey;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_whom_alloy_finds(
            key in prop::array::uniform32(1_u8..),
            hash: [u8; 32],
            is_odd: bool,
            broken in prop::option::of((any::<[u64; 4]>(), any::<[u64; 4]>())),
        ) {
            let hash = B256::from(hash);
            let key = SigningKey::from_slice(&key).unwrap();
            let signed = Signature::from(key.sign_prehash_recoverable(hash.as_slice()).unwrap());
            prop_assert_eq!(signer(&signed, hash), Some(Address::from_private_key(&key)));
            let other = match broken {
                None => Signature::new(signed.r(), signed.s(), is_odd),
                Some((r, s)) => Signature::new(U256::from_limbs(r), U256::from_limbs(s) >> 1, is_odd),
            };
            let expected = alloy_consensus::crypto::secp256k1::recover_signer(&other, hash).ok();
            prop_assert_eq!(signer(&other, hash), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_signature() {
        let hash = B256::repeat_byte(1);
        for (r, s) in [(U256::ZERO, U256::ONE), (U256::ONE, U256::ZERO), (U256::MAX, U256::ONE)] {
            assert_eq!(signer(&Signature::new(r, s, false), hash), None);
        }
        assert_eq!(signer(&Signature::new(U256::ONE, HALF_ORDER + U256::ONE, false), hash), None);
    }
}
