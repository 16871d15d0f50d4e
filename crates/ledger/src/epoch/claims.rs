//! The Merkle tree of claims that `contracts/src/Rewards.sol` checks.
//!
//! A leaf is `keccak256(keccak256(abi.encode(account, stream, total)))`, a parent the Keccak-256 of
//! its two children, the smaller first. The nodes stand in one array as in a heap, the leaves at
//! its end, sorted by hash with the least last: the layout of `StandardMerkleTree` in
//! `@openzeppelin/merkle-tree`, so that it computes the same root. The root of nothing is zero.

use alloy_primitives::{U256, keccak256};
use serde::{Deserialize, Serialize};
use welkin_types::AccountId;

/// The wei of a unit; claims are whole units.
pub const UNIT_WEI: u64 = 1_000_000_000;

/// What a reward is for; the number is the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Stream {
    /// Capacity and delivery.
    Hosts = 0,
    /// Checks.
    Checkers = 1,
    /// Matches.
    Indexers = 2,
}

impl Stream {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 3] = [Self::Hosts, Self::Checkers, Self::Indexers];

    /// The contract's number.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// What an account has earned in a stream since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Whose.
    pub account: AccountId,
    /// For what.
    pub stream: Stream,
    /// In units of [`UNIT_WEI`].
    pub units: u64,
}

impl Claim {
    /// The total in wei.
    pub fn wei(&self) -> U256 {
        U256::from(self.units) * U256::from(UNIT_WEI)
    }

    /// The leaf's hash.
    pub fn leaf(&self) -> [u8; 32] {
        let mut words = [0; 96];
        words[12..32].copy_from_slice(self.account.as_bytes());
        words[63] = self.stream.number();
        words[64..].copy_from_slice(&self.wei().to_be_bytes::<32>());
        keccak256(keccak256(words)).0
    }
}

/// Claims and the tree over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Sorted by account and stream; one each.
    claims: Vec<Claim>,
    /// Where in `tree` each claim's leaf stands.
    places: Vec<u32>,
    /// As in a heap, the root first.
    tree: Vec<[u8; 32]>,
}

impl Claims {
    /// Builds the tree. Claims of nothing are left out; of several for the same account and
    /// stream the last counts.
    pub fn new(claims: impl IntoIterator<Item = Claim>) -> Self {
        let mut claims: Vec<Claim> = claims.into_iter().filter(|claim| claim.units > 0).collect();
        claims.sort_by_key(|claim| (claim.account, claim.stream));
        claims.reverse();
        claims.dedup_by_key(|claim| (claim.account, claim.stream));
        claims.reverse();
        let leaves: Vec<_> = claims.iter().map(Claim::leaf).collect();
        let mut order: Vec<usize> = (0..leaves.len()).collect();
        order.sort_unstable_by_key(|index| leaves[*index]);
        let size = (2 * leaves.len()).saturating_sub(1);
        let mut tree = vec![[0; 32]; size];
        let mut places = vec![0; leaves.len()];
        for (rank, index) in order.into_iter().enumerate() {
            let place = size - 1 - rank;
            tree[place] = leaves[index];
            places[index] = u32::try_from(place).unwrap_or(u32::MAX);
        }
        for parent in (0..leaves.len().saturating_sub(1)).rev() {
            tree[parent] = parent_of(&tree[2 * parent + 1], &tree[2 * parent + 2]);
        }
        Self { claims, places, tree }
    }

    /// The root.
    pub fn root(&self) -> [u8; 32] {
        self.tree.first().copied().unwrap_or_default()
    }

    /// All claims, sorted by account and stream.
    pub fn list(&self) -> &[Claim] {
        &self.claims
    }

    /// What an account has earned in a stream.
    pub fn claim(&self, account: AccountId, stream: Stream) -> Option<Claim> {
        self.position(account, stream).map(|index| self.claims[index])
    }

    /// A claim with the hashes that lead from its leaf to the root.
    pub fn proof(&self, account: AccountId, stream: Stream) -> Option<(Claim, Vec<[u8; 32]>)> {
        let index = self.position(account, stream)?;
        let mut place = usize::try_from(self.places[index]).ok()?;
        let mut proof = Vec::new();
        while place > 0 {
            let sibling = if place % 2 == 1 { place + 1 } else { place - 1 };
            proof.push(self.tree[sibling]);
            place = (place - 1) / 2;
        }
        Some((self.claims[index], proof))
    }

    /// The sum of a stream, in units.
    pub fn total(&self, stream: Stream) -> u64 {
        let units = self.claims.iter().filter(|claim| claim.stream == stream);
        units.fold(0, |sum, claim| sum.saturating_add(claim.units))
    }

    fn position(&self, account: AccountId, stream: Stream) -> Option<usize> {
        let key = (account, stream);
        self.claims.binary_search_by_key(&key, |claim| (claim.account, claim.stream)).ok()
    }
}

/// Whether a proof leads from a claim to a root: what the contract checks.
pub fn is_proven(root: &[u8; 32], claim: &Claim, proof: &[[u8; 32]]) -> bool {
    proof.iter().fold(claim.leaf(), |hash, other| parent_of(&hash, other)) == *root
}

fn parent_of(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let mut both = [0; 64];
    both[..32].copy_from_slice(low);
    both[32..].copy_from_slice(high);
    keccak256(both).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let stream = prop::sample::select(Stream::ALL.to_vec());
        let claim = (any::<[u8; 2]>(), stream, 0..5_u64).prop_map(|(who, stream, units)| {
            let mut bytes = [7; 20];
            bytes[..2].copy_from_slice(&who);
            Claim { account: AccountId::from_bytes(bytes), stream, units }
        });
        prop::collection::vec(claim, 0..60)
    }

    proptest! {
        #[test]
        fn every_claim_has_a_proof_and_no_other_amount_has(claims in claims()) {
            let tree = Claims::new(claims);
            let root = tree.root();
            for claim in tree.list() {
                let (found, proof) = tree.proof(claim.account, claim.stream).unwrap();
                prop_assert_eq!(&found, claim);
                prop_assert!(is_proven(&root, claim, &proof));
                let other = Claim { units: claim.units + 1, ..*claim };
                prop_assert!(!is_proven(&root, &other, &proof));
            }
            prop_assert!(tree.proof(AccountId::from_bytes([9; 20]), Stream::Hosts).is_none());
        }

        #[test]
        fn the_order_of_claims_does_not_matter(claims in claims()) {
            let tree = Claims::new(claims);
            let reversed = Claims::new(tree.list().iter().rev().copied());
            prop_assert_eq!(tree, reversed);
        }
    }

    /// `contracts/test/Epoch.t.sol` claims with this root and proof.
    #[test]
    fn the_contract_takes_the_proof() {
        let account = |number| AccountId::from_bytes([number; 20]);
        let claim = |number, stream, units| Claim { account: account(number), stream, units };
        let tree = Claims::new([
            claim(0x11, Stream::Hosts, 50_000_000_000),
            claim(0x11, Stream::Indexers, 7),
            claim(0x22, Stream::Checkers, 40_000_000_000),
            claim(0x33, Stream::Hosts, 1),
            claim(0x44, Stream::Hosts, 123_456_789_123),
        ]);
        let hex = |bytes: [u8; 32]| alloy_primitives::hex::encode(bytes);
        let (found, proof) = tree.proof(account(0x11), Stream::Hosts).unwrap();
        assert_eq!(
            hex(found.leaf()),
            "c9e2f5ff1d4f27420d4098f579f25f34b8e54259dc8169a576656b0b63c872c3"
        );
        assert_eq!(
            hex(tree.root()),
            "ea349b217b653a97c9514d6a9d26085ca523ae9e0f0331d643297264d552569b"
        );
        assert_eq!(
            proof.into_iter().map(hex).collect::<Vec<_>>(),
            [
                "7e0eacd85126ffc645f876cb16cc91279e3f099ff7eede279bf381390e43f785",
                "4482f034796d9eb9d1092cfc90ca0b9bc5bff3836baa63f704fd9e28fd1d95d8"
            ]
        );
    }

    #[test]
    fn nothing_has_the_zero_root() {
        assert_eq!(Claims::new([]).root(), [0; 32]);
        let one =
            Claim { account: AccountId::from_bytes([1; 20]), stream: Stream::Hosts, units: 1 };
        let tree = Claims::new([one, Claim { units: 2, ..one }]);
        assert_eq!(tree.root(), Claim { units: 2, ..one }.leaf());
        assert_eq!(tree.proof(one.account, Stream::Hosts).unwrap().1, Vec::<[u8; 32]>::new());
    }
}
