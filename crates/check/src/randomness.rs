//! The public seed of an epoch, from a block of the chain and reveals of a committee.
//!
//! 1. A block of the chain at a height that was fixed before gives its hash. Who makes the block
//!    does not know what the members will reveal, so trying blocks gains nothing.
//! 2. Each member reveals its VRF output over the last seed and that hash. There is only one such
//!    output ([`VrfKey`](crate::sortition::VrfKey)); nobody knows it before, nobody can choose it.
//! 3. When the time is over, the seed is the hash of all that was revealed ([`Randomness::seed`]).
//!
//! What is left to one party: a member that reveals last can see both seeds, with its reveal and
//! without, and withhold. k members together that wait choose among 2ᵏ seeds. Withholding is seen
//! by everybody ([`Seed::missing`]) and is to be punished like silence on duty.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::sortition::{Proof, Ticket, VrfPublic};

/// The most members of a committee.
pub const MEMBERS_MAX: usize = 1_024;

/// One epoch's randomness in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Randomness {
    epoch: u64,
    base: [u8; 32],
    members: BTreeMap<u32, VrfPublic>,
    revealed: BTreeMap<u32, [u8; 32]>,
}

/// Why a reveal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevealRefusal {
    /// Not a member.
    #[error("licence {0} is not a member of this epoch's committee")]
    Stranger(u32),
    /// Not the member's output for this epoch.
    #[error("the reveal is not licence {0}'s for this epoch: prove the epoch's ticket")]
    Wrong(u32),
}

/// The seed of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The seed.
    pub seed: [u8; 32],
    /// Who did not reveal.
    pub missing: Vec<u32>,
    /// Whether more than half revealed. If not, it is no better than the block alone.
    pub is_strong: bool,
}

impl Randomness {
    /// Begins an epoch's randomness. `block` is the hash of the block at the height that was fixed
    /// before. Members beyond [`MEMBERS_MAX`] are left out, by number.
    pub fn new(
        epoch: u64,
        last_seed: &[u8; 32],
        block: &[u8; 32],
        members: impl IntoIterator<Item = (u32, VrfPublic)>,
    ) -> Self {
        let members: BTreeMap<_, _> = members.into_iter().collect();
        let base = Sha256::new()
            .chain_update(b"welkin/randomness/base/1\0")
            .chain_update(epoch.to_be_bytes())
            .chain_update(last_seed)
            .chain_update(block)
            .finalize()
            .into();
        let members = members.into_iter().take(MEMBERS_MAX).collect();
        Self { epoch, base, members, revealed: BTreeMap::new() }
    }

    /// What a member proves.
    pub const fn ticket(&self, member: u32) -> Ticket {
        Ticket { seed: self.base, at: self.epoch, licence: member }
    }

    /// Takes a member's reveal. Again, it changes nothing.
    ///
    /// # Errors
    ///
    /// [`RevealRefusal`]
    pub fn reveal(&mut self, member: u32, proof: &Proof) -> Result<(), RevealRefusal> {
        let key = self.members.get(&member).ok_or(RevealRefusal::Stranger(member))?;
        let output = proof.verify(key, &self.ticket(member)).ok_or(RevealRefusal::Wrong(member))?;
        self.revealed.insert(member, output);
        Ok(())
    }

    /// The seed from what was revealed until now.
    pub fn seed(&self) -> Seed {
        let mut hash = Sha256::new().chain_update(b"welkin/randomness/seed/1\0");
        hash.update(self.base);
        for (member, output) in &self.revealed {
            hash.update(member.to_be_bytes());
            hash.update(output);
        }
        let missing = self.members.keys().filter(|member| !self.revealed.contains_key(member));
        Seed {
            seed: hash.finalize().into(),
            missing: missing.copied().collect(),
            is_strong: self.revealed.len() * 2 > self.members.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sortition::VrfKey;

    fn key(number: u32) -> VrfKey {
        let mut seed = [4; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        VrfKey::from_seed(&seed).unwrap()
    }

    fn randomness(block: u8) -> Randomness {
        let members = (1..=3).map(|number| (number, key(number).public()));
        Randomness::new(9, &[1; 32], &[block; 32], members)
    }

    fn reveal(randomness: &mut Randomness, number: u32, random: u8) -> Result<(), RevealRefusal> {
        let (proof, _) = key(number).prove(&randomness.ticket(number), [random; 32]);
        randomness.reveal(number, &proof)
    }

    #[test]
    fn the_seed_is_the_same_in_any_order_and_nobody_can_choose_its_part() {
        let (mut a, mut b) = (randomness(2), randomness(2));
        (1..=3).for_each(|number| reveal(&mut a, number, 0).unwrap());
        for number in [3, 1, 2, 1] {
            reveal(&mut b, number, 7).unwrap();
        }
        assert_eq!(a.seed(), b.seed());
        assert!(a.seed().missing.is_empty() && a.seed().is_strong);
        let mut other = randomness(3);
        (1..=3).for_each(|number| reveal(&mut other, number, 0).unwrap());
        assert_ne!(a.seed().seed, other.seed().seed);
    }

    #[test]
    fn withholding_is_seen_and_leaves_two_choices() {
        let mut randomness = randomness(2);
        assert!(!randomness.seed().is_strong);
        reveal(&mut randomness, 1, 0).unwrap();
        reveal(&mut randomness, 2, 0).unwrap();
        let without = randomness.seed();
        assert_eq!((without.missing.as_slice(), without.is_strong), ([3].as_slice(), true));
        reveal(&mut randomness, 3, 0).unwrap();
        assert_ne!(without.seed, randomness.seed().seed);
    }

    #[test]
    fn strangers_and_old_reveals_are_refused() {
        let mut now = randomness(2);
        assert_eq!(reveal(&mut now, 4, 0), Err(RevealRefusal::Stranger(4)));
        let (old, _) = key(1).prove(&randomness(1).ticket(1), [0; 32]);
        assert_eq!(now.reveal(1, &old), Err(RevealRefusal::Wrong(1)));
        let (others, _) = key(2).prove(&now.ticket(1), [0; 32]);
        assert_eq!(now.reveal(1, &others), Err(RevealRefusal::Wrong(1)));
        assert_eq!(now, randomness(2));
    }
}
