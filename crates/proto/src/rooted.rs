//! How members of the committee give each other their signatures for the settlement contract.
//!
//! 1. Each member settles an epoch upon its own book of all epochs before, signs what the contract is to
//!    count ([`RootWord`]) and tells the indexers.
//! 2. A member asks the indexers for the others' words. Those of the same digest are a quorum, or none
//!    yet.
//! 3. With a quorum one of them proposes it. The signatures are the contract's: nobody who carries them
//!    can change what they say.

use serde::{Deserialize, Serialize};

use crate::keys::AccountSignature;
use crate::order::{Delegation, SignedByAccount};
use crate::signed::Signable;

/// The most words on one epoch that an indexer keeps and shows: as many as a committee has members.
pub const ROOT_WORDS_MAX: usize = 32;

/// "Upon all epochs before, this one comes to that: here is my account's signature for the contract."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootWord {
    /// The epoch as the contract counts it, from 1.
    pub number: u32,
    /// The root of everybody's claims.
    #[serde(with = "crate::hexed")]
    pub root: [u8; 32],
    /// What the contract has its members sign: the root, the totals and what they follow from.
    #[serde(with = "crate::hexed")]
    pub digest: [u8; 32],
    /// The member's permission for the node that says this.
    pub account: SignedByAccount<Delegation>,
    /// The member's signature of the digest.
    pub signature: AccountSignature,
}

impl Signable for RootWord {
    const KIND: &'static str = "root";
}
