//! Rewards: what an account earned, what of it was claimed, and when it is paid out.

use std::fs;
use std::path::Path;

use alloy_primitives::{Address, B256, U256};
use serde::{Deserialize, Serialize};

use super::{Act, Desk, OpsError};
use crate::ath;
use crate::contracts::Rewards;
use crate::deployment::Contract;

/// The largest file of proofs that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A stream of rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stream {
    /// For containers.
    Hosts = 0,
    /// For checks.
    Checkers = 1,
    /// For matches.
    Indexers = 2,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hosts, Self::Checkers, Self::Indexers];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Checkers => "checkers",
            Self::Indexers => "indexers",
        }
    }

    const fn number(self) -> u8 {
        self as u8
    }
}

/// How a claim is paid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plan {
    /// Hosts and indexers: 30 % at once, 30 % after 90 days, 40 % after 180.
    Host = 0,
    /// Checkers: all of it after 180 days.
    Checker = 1,
    /// Checkers: a quarter after 30 days, the rest is given up.
    CheckerFast = 2,
}

/// One account's total in a stream since the beginning, with the proof of it. A file of proofs is
/// a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The epoch up to which it counts.
    pub epoch: u32,
    /// Whose it is.
    pub account: Address,
    /// For what.
    pub stream: Stream,
    /// The total in wei.
    pub total: U256,
    /// The hashes beside the way to the epoch's root.
    pub proof: Vec<B256>,
}

/// Why a file of proofs can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofsError {
    /// It can't be read.
    #[error("failed to read the proofs in {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no list of proofs.
    #[error("{path} is no list of proofs")]
    Format {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a file of proofs.
///
/// # Errors
///
/// [`ProofsError`]
pub fn read_proofs(path: &Path) -> Result<Vec<Proof>, ProofsError> {
    let read = |source| ProofsError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(read(std::io::Error::other("it is too large")));
    }
    let bytes = fs::read(path).map_err(read)?;
    serde_json::from_slice(&bytes)
        .map_err(|source| ProofsError::Format { path: path.to_owned(), source })
}

/// A claim that is paid out over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number in the stream.
    pub number: U256,
    /// All of it, in wei.
    pub amount: U256,
    /// Of it paid out.
    pub released: U256,
    /// Of it to be had now.
    pub due: U256,
    /// When it was claimed, in seconds since 1970.
    pub at: u64,
    /// As the contract counts its plans: see [`Plan`].
    pub plan: u8,
}

impl Grant {
    /// When the next part is due, in seconds since 1970; none if nothing is left.
    pub fn next(&self, now: u64) -> Option<u64> {
        let days: &[u64] = match self.plan {
            0 => &[0, 90, 180],
            1 => &[180],
            _ => &[30],
        };
        if self.released + self.due >= self.amount {
            return None;
        }
        days.iter().map(|days| self.at + days * 86_400).find(|at| *at > now)
    }
}

/// How an account stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which stream.
    pub stream: Stream,
    /// Everything claimed, in wei.
    pub claimed: U256,
    /// Of it granted: without fees, and what a fast plan gives up.
    pub granted: U256,
    /// Granted and not yet paid out.
    pub pending: U256,
    /// Of it withheld as a penalty.
    pub debt: U256,
    /// The claims that are not paid out in full.
    pub grants: Vec<Grant>,
}

/// How the account stands in each stream.
///
/// # Errors
///
/// [`OpsError`]
pub async fn standing(desk: &Desk) -> Result<Vec<Standing>, OpsError> {
    let account = desk.account();
    let mut all = Vec::new();
    for stream in Stream::ALL {
        let call = Rewards::accountOfCall { account, stream: stream.number() };
        let seen = desk.look(Contract::Rewards, call).await?;
        let (mut grants, mut granted) = (Vec::new(), U256::ZERO);
        let count = seen.grants.saturating_to::<u64>();
        for number in (0..count).map(U256::from) {
            let call = Rewards::grantOfCall { account, stream: stream.number(), number };
            let grant = desk.look(Contract::Rewards, call).await?;
            granted = granted.saturating_add(grant.amount);
            if grant.released >= grant.amount {
                continue;
            }
            grants.push(Grant {
                number,
                amount: grant.amount,
                released: grant.released,
                due: grant.due,
                at: grant.at.to(),
                plan: grant.plan,
            });
        }
        let (claimed, pending, debt) = (seen.claimed, seen.pending, seen.debt);
        all.push(Standing { stream, claimed, granted, pending, debt, grants });
    }
    Ok(all)
}

/// The epoch up to which claims are proven at present, and its root.
///
/// # Errors
///
/// [`OpsError`]
pub async fn epoch(desk: &Desk) -> Result<(u32, B256), OpsError> {
    let number = desk.look(Contract::Rewards, Rewards::epochCall {}).await?;
    Ok((number, desk.look(Contract::Rewards, Rewards::rootCall {}).await?))
}

/// What claims everything that these proofs show and the contract has not granted yet. `is_fast`:
/// checkers take a quarter after 30 days instead of all after 180.
///
/// # Errors
///
/// [`OpsError`], also where a proof is for another epoch than the present one.
pub async fn claim(desk: &Desk, proofs: &[Proof], is_fast: bool) -> Result<Vec<Act>, OpsError> {
    let account = desk.account();
    let (present, _) = epoch(desk).await?;
    let mut acts = Vec::new();
    for proof in proofs.iter().filter(|proof| proof.account == account) {
        let stream = proof.stream;
        if proof.epoch != present {
            return Err(OpsError::unfit(
                format!("the proofs are for epoch {}, the present one is {present}", proof.epoch),
                "fetch the proofs of the present epoch",
            ));
        }
        let call = Rewards::accountOfCall { account, stream: stream.number() };
        let claimed = desk.look(Contract::Rewards, call).await?.claimed;
        let fresh = proof.total.saturating_sub(claimed);
        if fresh < U256::from(1_000_000_000) {
            continue;
        }
        let plan = match (stream, is_fast) {
            (Stream::Checkers, true) => Plan::CheckerFast,
            (Stream::Checkers, false) => Plan::Checker,
            _ => Plan::Host,
        };
        let call = Rewards::claimCall {
            account,
            stream: stream.number(),
            total: proof.total,
            plan: plan as u8,
            proof: proof.proof.clone(),
        };
        let what = format!("claim {} as one of the {}", ath::show(fresh), stream.name());
        acts.push(desk.act(what, Contract::Rewards, &call)?);
    }
    Ok(acts)
}

/// What pays out everything that is due.
///
/// # Errors
///
/// [`OpsError`]
pub async fn release(desk: &Desk) -> Result<Vec<Act>, OpsError> {
    let mut acts = Vec::new();
    for standing in standing(desk).await? {
        let due: Vec<&Grant> =
            standing.grants.iter().filter(|grant| !grant.due.is_zero()).collect();
        if due.is_empty() {
            continue;
        }
        let sum = due.iter().fold(U256::ZERO, |sum, grant| sum.saturating_add(grant.due));
        let call = Rewards::releaseCall {
            account: desk.account(),
            stream: standing.stream.number(),
            numbers: due.iter().map(|grant| grant.number).collect(),
        };
        let what =
            format!("take {} that are due of the {}", ath::show(sum), standing.stream.name());
        acts.push(desk.act(what, Contract::Rewards, &call)?);
    }
    Ok(acts)
}
