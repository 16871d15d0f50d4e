//! A verifiable random function: schnorrkel's, over Ristretto.
//!
//! The key is of its own and no node's or account's. The randomness that proving takes comes from
//! the caller; the secret key and the input go into the nonce too, so that even poor randomness
//! gives nothing away.

use rand_core::{CryptoRng, RngCore};
use schnorrkel::context::{attach_rng, signing_context};
use schnorrkel::vrf::{VRFPreOut, VRFProof};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey, PublicKey};
use sha2::{Digest as _, Sha256};

/// Bytes of a proof: 32 of the output before hashing, 64 of its proof.
pub const PROOF_BYTES: usize = 96;
const INPUT: &[u8] = b"welkin/sortition/input/1";
const EXTRA: &[u8] = b"welkin/sortition/extra/1";
const OUTPUT: &[u8] = b"welkin/sortition/output/1";

/// What is proven about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What the draw comes from: of an epoch's seed and a minute, or what a round of randomness begins with.
    pub seed: [u8; 32],
    /// What is drawn for: a minute since 1970, or the epoch of a round of randomness.
    pub at: u64,
    /// The licence: who runs several with one key has other tasks for each.
    pub licence: u32,
}

impl Ticket {
    fn bytes(&self) -> [u8; 44] {
        let mut bytes = [0; 44];
        bytes[..32].copy_from_slice(&self.seed);
        bytes[32..40].copy_from_slice(&self.at.to_be_bytes());
        bytes[40..].copy_from_slice(&self.licence.to_be_bytes());
        bytes
    }
}

/// A public VRF key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VrfPublic(pub [u8; 32]);

/// A secret VRF key. Its memory is wiped when it is dropped.
pub struct VrfKey(Keypair);

impl std::fmt::Debug for VrfKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VrfKey(..)")
    }
}

impl VrfKey {
    /// The key of 32 random bytes that are kept secret.
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let secret = MiniSecretKey::from_bytes(seed).ok()?;
        Some(Self(secret.expand_to_keypair(ExpansionMode::Uniform)))
    }

    /// The public key.
    pub fn public(&self) -> VrfPublic {
        VrfPublic(self.0.public.to_bytes())
    }

    /// Proves a ticket with fresh random bytes; and its output.
    pub fn prove(&self, ticket: &Ticket, random: [u8; 32]) -> (Proof, [u8; 32]) {
        let input = signing_context(INPUT).bytes(&ticket.bytes());
        let extra = attach_rng(signing_context(EXTRA).bytes(b""), Given { random, drawn: 0 });
        let (in_out, proof, _) = self.0.vrf_sign_extra(input, extra);
        let mut bytes = [0; PROOF_BYTES];
        bytes[..32].copy_from_slice(in_out.to_preout().as_bytes());
        bytes[32..].copy_from_slice(&proof.to_bytes());
        (Proof(bytes), in_out.make_bytes(OUTPUT))
    }
}

/// A proof of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(pub [u8; PROOF_BYTES]);

impl Proof {
    /// The ticket's output under this key, if the proof is right.
    pub fn verify(&self, key: &VrfPublic, ticket: &Ticket) -> Option<[u8; 32]> {
        let key = PublicKey::from_bytes(&key.0).ok()?;
        let output = VRFPreOut::from_bytes(&self.0[..32]).ok()?;
        let proof = VRFProof::from_bytes(&self.0[32..]).ok()?;
        let input = signing_context(INPUT).bytes(&ticket.bytes());
        let extra = signing_context(EXTRA).bytes(b"");
        let (in_out, _) = key.vrf_verify_extra(input, &output, &proof, extra).ok()?;
        Some(in_out.make_bytes(OUTPUT))
    }
}

/// The caller's random bytes as the generator that schnorrkel asks for.
struct Given {
    random: [u8; 32],
    drawn: u64,
}

impl RngCore for Given {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        for chunk in to.chunks_mut(32) {
            let hash = Sha256::new()
                .chain_update(b"welkin/sortition/random/1\0")
                .chain_update(self.random)
                .chain_update(self.drawn.to_be_bytes())
                .finalize();
            self.drawn += 1;
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl CryptoRng for Given {}
