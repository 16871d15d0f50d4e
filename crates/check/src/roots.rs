//! Who brings an epoch's root to the settlement contract, and when; and whose signature of it is taken.
//!
//! Members of the committee that have found a root by themselves sign it. Once enough have signed the same,
//! one of them proposes it, in a public order: the members by their addresses, beginning with the one that
//! the epoch's seed names. Who is at the n-th place waits for n turns, so that one that is silent or has no
//! coins for gas is followed by the next. The same order makes it count when its window is over.
//!
//! A root that somebody else has proposed and that is not what was found here is neither signed nor
//! brought on: contesting it is a person's decision.

use std::collections::BTreeSet;
use std::time::Duration;

use welkin_types::{AccountId, UnixMillis};

/// The longest epoch that is brought to the contract, in seconds: one of its own.
pub const CONTRACT_EPOCH_SECONDS: u64 = 86_400;

/// The network's epoch that is settled for an epoch of the contract which ends then (in seconds since 1970):
/// the last one that is over by that time. None where an epoch is longer than the contract's, so that two of
/// those would have the same one.
pub const fn epoch_within(ends: u64, epoch_seconds: u64) -> Option<u64> {
    if epoch_seconds == 0 || epoch_seconds > CONTRACT_EPOCH_SECONDS {
        return None;
    }
    (ends / epoch_seconds).checked_sub(1)
}

/// What is proposed to the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its root.
    pub root: [u8; 32],
    /// Whether it can be made to count now.
    pub is_ready: bool,
    /// Whether somebody says that it is wrong.
    pub is_contested: bool,
}

/// How the contract stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The last epoch that counts; 0: none.
    pub counted: u32,
    /// The members of the committee.
    pub members: BTreeSet<AccountId>,
    /// How many of them must sign.
    pub threshold: usize,
    /// What is proposed, if anything is.
    pub proposal: Option<Proposal>,
}

/// What was found for the awaited epoch, from evidence that was verified and settled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which epoch, as the contract counts it.
    pub number: u32,
    /// Its root.
    pub root: [u8; 32],
    /// The seed of the network's epoch.
    pub seed: [u8; 32],
    /// Whether the contract's epoch is over.
    pub is_over: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for this reason.
    Wait(Why),
    /// Bring the root and the signatures to the contract.
    Propose,
    /// Make the proposed root count.
    Accept,
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// What was found is not of the epoch that the contract awaits.
    #[error("the contract awaits another epoch")]
    OtherEpoch,
    /// What is proposed is not what was found here.
    #[error(
        "another root is proposed than was found here: look into it, and contest it if it is wrong"
    )]
    OtherRoot,
    /// A court decides.
    #[error("the proposed root is contested: a court decides")]
    Contested,
    /// It may still be contested.
    #[error("proposed: it can still be contested")]
    Window,
    /// This account is no member.
    #[error("this account is no member of the committee")]
    NotMember,
    /// Too few have signed.
    #[error("{has} of {needs} members have signed")]
    Quorum {
        /// How many have.
        has: usize,
        /// How many must.
        needs: usize,
    },
    /// The contract takes it when its epoch is over.
    #[error("signed: the contract's epoch is not over")]
    NotOver,
    /// Others come first.
    #[error("it is another member's turn")]
    Turn,
}

/// What a turn is about: it is waited for from when that was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matter {
    Propose([u8; 32]),
    Accept([u8; 32]),
}

/// A member's mind: call [`Council::next`] with how things stand, as often as they are looked at. Time
/// never goes backwards.
#[derive(Clone, Debug)]
pub struct Council {
    account: AccountId,
    turn: Duration,
    since: Option<(Matter, UnixMillis)>,
}

impl Council {
    /// The mind of an account, where each member has so long until it is the next one's turn.
    pub const fn new(account: AccountId, turn: Duration) -> Self {
        Self { account, turn, since: None }
    }

    /// Whether this account signs what was found.
    pub fn signs(&self, contract: &Contract, found: &Found) -> bool {
        found.number == contract.counted.saturating_add(1)
            && contract.members.contains(&self.account)
            && contract.proposal.is_none_or(|proposal| proposal.root == found.root)
    }

    /// What is to be done: `signers` are those whose signatures of what was found here are known.
    pub fn next(
        &mut self,
        now: UnixMillis,
        contract: &Contract,
        found: &Found,
        signers: &BTreeSet<AccountId>,
    ) -> Step {
        match self.matter(contract, found, signers) {
            Err(why) => {
                self.since = None;
                Step::Wait(why)
            }
            Ok(matter) => self.take_turn(now, contract, found, matter),
        }
    }

    fn matter(
        &self,
        contract: &Contract,
        found: &Found,
        signers: &BTreeSet<AccountId>,
    ) -> Result<Matter, Why> {
        if found.number != contract.counted.saturating_add(1) {
            return Err(Why::OtherEpoch);
        }
        if let Some(proposal) = contract.proposal {
            return match proposal {
                Proposal { root, .. } if root != found.root => Err(Why::OtherRoot),
                Proposal { is_contested: true, .. } => Err(Why::Contested),
                Proposal { is_ready: false, .. } => Err(Why::Window),
                Proposal { .. } if !contract.members.contains(&self.account) => Err(Why::NotMember),
                Proposal { root, .. } => Ok(Matter::Accept(root)),
            };
        }
        if !contract.members.contains(&self.account) {
            return Err(Why::NotMember);
        }
        let (has, needs) = (signers.intersection(&contract.members).count(), contract.threshold);
        if has < needs {
            return Err(Why::Quorum { has, needs });
        }
        if found.is_over { Ok(Matter::Propose(found.root)) } else { Err(Why::NotOver) }
    }

    fn take_turn(
        &mut self,
        now: UnixMillis,
        contract: &Contract,
        found: &Found,
        matter: Matter,
    ) -> Step {
        let since = match self.since {
            Some((known, since)) if known == matter => since,
            Some(_) | None => now,
        };
        self.since = Some((matter, since));
        let place = place(&contract.members, &found.seed, self.account);
        let wait = place.and_then(|place| self.turn.checked_mul(place));
        match (wait, matter) {
            (Some(wait), Matter::Propose(_)) if now.since(since) >= wait => Step::Propose,
            (Some(wait), Matter::Accept(_)) if now.since(since) >= wait => Step::Accept,
            (Some(_) | None, Matter::Propose(_) | Matter::Accept(_)) => Step::Wait(Why::Turn),
        }
    }
}

/// The place of an account in the order of an epoch with this seed, counted from 0; none if it is no member.
pub fn place(members: &BTreeSet<AccountId>, seed: &[u8; 32], account: AccountId) -> Option<u32> {
    let own = members.iter().position(|member| *member == account)?;
    let (count, own) = (u64::try_from(members.len()).ok()?, u64::try_from(own).ok()?);
    let [a, b, c, d, e, f, g, h, ..] = *seed;
    let first = u64::from_be_bytes([a, b, c, d, e, f, g, h]).checked_rem(count)?;
    u32::try_from((own + count - first) % count).ok()
}

/// Why a member's signature is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordRefusal {
    /// The signature is nobody's.
    #[error("the signature of the root is malformed")]
    Malformed,
    /// The account that signed does not vouch for the node that says it.
    #[error("the account that signed the root does not vouch for this node")]
    OtherAccount,
    /// It is no member.
    #[error("the account is no member of the committee")]
    NotMember,
    /// The epoch counts already.
    #[error("too late: the contract counts epoch {counted} already")]
    Counted {
        /// The last one that counts.
        counted: u32,
    },
    /// The epoch before does not count yet.
    #[error("the contract awaits epoch {awaited} first")]
    Early {
        /// The one that is awaited.
        awaited: u32,
    },
}

/// Whose signature it is, where it is taken: `signer` is who signed the digest, `vouched` who vouches for the
/// node that says it.
///
/// # Errors
///
/// [`WordRefusal`]
pub fn take_word(
    number: u32,
    signer: Option<AccountId>,
    vouched: Option<AccountId>,
    (counted, members): (u32, &BTreeSet<AccountId>),
) -> Result<AccountId, WordRefusal> {
    let awaited = counted.saturating_add(1);
    if number <= counted {
        return Err(WordRefusal::Counted { counted });
    }
    if number > awaited {
        return Err(WordRefusal::Early { awaited });
    }
    let signer = signer.ok_or(WordRefusal::Malformed)?;
    if vouched != Some(signer) {
        return Err(WordRefusal::OtherAccount);
    }
    if members.contains(&signer) { Ok(signer) } else { Err(WordRefusal::NotMember) }
}

#[cfg(test)]
mod tests;
