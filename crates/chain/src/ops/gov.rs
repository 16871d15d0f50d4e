//! Decisions: proposals, votes, and carrying out what was decided.
//!
//! A proposal's id follows from what it calls and how it is described; queueing and executing need
//! all of that again, and find it in the event of its creation.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;

use super::{Act, Desk, OpsError, calls};
use crate::ath;
use crate::contracts::{Ath, Staking, WelkinGovernor};
use crate::deployment::Contract;
use crate::refusals::PROPOSAL_STATES;

/// The longest description, in bytes: all of it is paid for.
pub const DESCRIPTION_BYTES_MAX: usize = 10_000;
/// The most calls of one proposal.
pub const CALLS_MAX: usize = 20;

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Support {
    /// No.
    Against = 0,
    /// Yes.
    For = 1,
    /// Neither; counts for the quorum.
    Abstain = 2,
}

/// A proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its id.
    pub id: U256,
    /// Who proposed it.
    pub proposer: Address,
    /// What it calls.
    pub calls: Vec<(Address, Bytes)>,
    /// Why.
    pub description: String,
    /// One of [`PROPOSAL_STATES`].
    pub state: &'static str,
    /// When its vote begins, in seconds since 1970: votes count as they are then.
    pub vote_start: u64,
    /// When its vote ends.
    pub vote_end: u64,
    /// When it can be executed; 0 if it is not queued.
    pub eta: u64,
    /// Votes for it, in wei.
    pub votes_for: U256,
    /// Votes against it.
    pub votes_against: U256,
    /// Votes for neither.
    pub votes_abstain: U256,
    /// Votes (for it or neither) that it needs at least.
    pub quorum: U256,
    /// Whether this account has voted.
    pub has_voted: bool,
}

impl Proposal {
    /// Its calls, for people.
    pub fn call_texts(&self, desk: &Desk) -> Vec<String> {
        let places = &desk.deployment().contracts;
        self.calls.iter().map(|(to, input)| calls::show(places, *to, input)).collect()
    }

    /// What can be done with it now, and when; none if nothing is left.
    pub fn next(&self) -> Option<(&'static str, u64)> {
        match self.state {
            "pending" => Some(("vote", self.vote_start)),
            "active" => Some(("vote", 0)),
            "succeeded" => Some(("queue", 0)),
            "queued" => Some(("execute", self.eta)),
            _ => None,
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            targets: self.calls.iter().map(|(to, _)| *to).collect(),
            values: vec![U256::ZERO; self.calls.len()],
            calldatas: self.calls.iter().map(|(_, input)| input.clone()).collect(),
        }
    }

    fn description_hash(&self) -> B256 {
        keccak256(self.description.as_bytes())
    }
}

/// What a governor's functions take.
struct Parts {
    targets: Vec<Address>,
    values: Vec<U256>,
    calldatas: Vec<Bytes>,
}

/// All proposals, the newest first.
///
/// # Errors
///
/// [`OpsError`]
pub async fn list(desk: &Desk) -> Result<Vec<Proposal>, OpsError> {
    let created: Vec<WelkinGovernor::ProposalCreated> =
        desk.events(Contract::Governor, &[]).await?;
    let mut list = Vec::new();
    for event in created.into_iter().rev() {
        list.push(seen(desk, event).await?);
    }
    Ok(list)
}

async fn seen(desk: &Desk, event: WelkinGovernor::ProposalCreated) -> Result<Proposal, OpsError> {
    let (c, id) = (Contract::Governor, event.proposalId);
    let state = desk.look(c, WelkinGovernor::stateCall { id }).await?;
    let state = PROPOSAL_STATES.get(usize::from(state)).ok_or(OpsError::Confused(c.name()))?;
    let votes = desk.look(c, WelkinGovernor::proposalVotesCall { proposalId: id }).await?;
    let end = desk.look(c, WelkinGovernor::proposalDeadlineCall { id }).await?;
    let eta = desk.look(c, WelkinGovernor::proposalEtaCall { proposalId: id }).await?;
    let call = WelkinGovernor::hasVotedCall { proposalId: id, account: desk.account() };
    let has_voted = desk.look(c, call).await?;
    // What is needed is counted as it was when the vote began; before, it is not known.
    let quorum = match *state {
        "pending" => U256::ZERO,
        _ => desk.look(c, WelkinGovernor::quorumCall { timepoint: event.voteStart }).await?,
    };
    Ok(Proposal {
        id,
        proposer: event.proposer,
        calls: event.targets.into_iter().zip(event.calldatas).collect(),
        description: event.description,
        state,
        vote_start: event.voteStart.saturating_to(),
        vote_end: end.saturating_to(),
        eta: eta.saturating_to(),
        votes_for: votes.forVotes,
        votes_against: votes.againstVotes,
        votes_abstain: votes.abstainVotes,
        quorum,
        has_voted,
    })
}

/// The proposal with this id, or the only one whose hexadecimal id begins so; `last` is the newest.
///
/// # Errors
///
/// [`OpsError`], also where there is none, or more than one.
pub async fn find(desk: &Desk, text: &str) -> Result<Proposal, OpsError> {
    let all = list(desk).await?;
    let wanted = text.trim().to_ascii_lowercase();
    let digits = wanted.trim_start_matches("0x");
    let is_it = |proposal: &Proposal| {
        hex(proposal.id).trim_start_matches("0x").starts_with(digits)
            || proposal.id.to_string() == wanted
    };
    let mut fitting = all.into_iter().filter(|proposal| wanted == "last" || is_it(proposal));
    let first = fitting.next().ok_or_else(|| {
        OpsError::unfit(format!("there is no proposal `{text}`"), "`welkin gov list` shows them")
    })?;
    if wanted != "last" && fitting.next().is_some() {
        let why = format!("more than one proposal begins with `{text}`");
        return Err(OpsError::unfit(why, "give more of its id"));
    }
    Ok(first)
}

/// A proposal's id as it is shown: 64 hexadecimal digits.
pub fn hex(id: U256) -> String {
    B256::from(id).to_string()
}

/// The votes that count for an account, in wei: of held and of staked ATH that was delegated to it.
///
/// # Errors
///
/// [`OpsError`]
pub async fn votes(desk: &Desk) -> Result<U256, OpsError> {
    let account = desk.account();
    let held = desk.look(Contract::Ath, Ath::getVotesCall { account }).await?;
    let staked = desk.look(Contract::Staking, Staking::getVotesCall { account }).await?;
    Ok(held.saturating_add(staked))
}

/// What makes the account's ATH, held and staked, count as votes of `to`: itself or somebody else.
///
/// # Errors
///
/// [`OpsError`]
pub async fn delegate(desk: &Desk, to: Address) -> Result<Vec<Act>, OpsError> {
    let account = desk.account();
    let mut acts = Vec::new();
    let held = desk.look(Contract::Ath, Ath::delegatesCall { account }).await?;
    if held != to {
        let call = Ath::delegateCall { delegatee: to };
        acts.push(desk.act(format!("count held ATH as votes of {to}"), Contract::Ath, &call)?);
    }
    let staked = desk.look(Contract::Staking, Staking::delegatesCall { account }).await?;
    if staked != to {
        let call = Staking::delegateCall { delegatee: to };
        let what = format!("count staked ATH as votes of {to}");
        acts.push(desk.act(what, Contract::Staking, &call)?);
    }
    Ok(acts)
}

/// A proposal that is to be made: its id, and the transaction.
///
/// # Errors
///
/// [`OpsError`], also where the account has too few votes.
pub async fn propose(
    desk: &Desk,
    list: Vec<(Contract, Bytes)>,
    description: &str,
) -> Result<(U256, Act), OpsError> {
    if list.is_empty() || list.len() > CALLS_MAX {
        let why = format!("a proposal has 1 to {CALLS_MAX} calls, not {}", list.len());
        return Err(OpsError::unfit(why, ""));
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        let why = format!("the description is longer than {DESCRIPTION_BYTES_MAX} bytes");
        return Err(OpsError::unfit(why, "say it shorter, and link to the rest"));
    }
    let mut targets = Vec::new();
    let mut calldatas = Vec::new();
    for (contract, input) in list {
        targets.push(desk.place(contract)?);
        calldatas.push(input);
    }
    let values = vec![U256::ZERO; targets.len()];
    let hash = WelkinGovernor::hashProposalCall {
        targets: targets.clone(),
        values: values.clone(),
        calldatas: calldatas.clone(),
        descriptionHash: keccak256(description.as_bytes()),
    };
    let id = desk.look(Contract::Governor, hash).await?;
    let description = description.to_owned();
    let call = WelkinGovernor::proposeCall { targets, values, calldatas, description };
    let act = desk.act("propose", Contract::Governor, &call)?;
    desk.check(&act).await?;
    Ok((id, act))
}

/// A vote.
///
/// # Errors
///
/// [`OpsError`], also where it can't be voted on now.
pub async fn vote(
    desk: &Desk,
    proposal: &Proposal,
    support: Support,
    reason: &str,
) -> Result<Act, OpsError> {
    let call = WelkinGovernor::getVotesCall {
        account: desk.account(),
        timepoint: U256::from(proposal.vote_start),
    };
    let (proposal_id, support_number) = (proposal.id, support as u8);
    let input = if reason.is_empty() {
        WelkinGovernor::castVoteCall { proposalId: proposal_id, support: support_number }
            .abi_encode()
    } else {
        WelkinGovernor::castVoteWithReasonCall {
            proposalId: proposal_id,
            support: support_number,
            reason: reason.to_owned(),
        }
        .abi_encode()
    };
    let word = match support {
        Support::Against => "against",
        Support::For => "for",
        Support::Abstain => "abstain on",
    };
    let to = desk.place(Contract::Governor)?;
    let what = format!("vote {word} {}", hex(proposal.id));
    let mut act = Act { what, to, input: input.into() };
    desk.check(&act).await?;
    let weight = desk.look(Contract::Governor, call).await?;
    if weight.is_zero() {
        return Err(OpsError::unfit(
            "this account had no votes when the vote began",
            "`welkin gov delegate self` makes its ATH count from then on",
        ));
    }
    act.what = format!("{} with {}", act.what, ath::show(weight));
    Ok(act)
}

/// Puts what was decided into the treasury's queue.
///
/// # Errors
///
/// [`OpsError`], also where it was not decided.
pub async fn queue(desk: &Desk, proposal: &Proposal) -> Result<Act, OpsError> {
    let Parts { targets, values, calldatas } = proposal.parts();
    let call = WelkinGovernor::queueCall {
        targets,
        values,
        calldatas,
        descriptionHash: proposal.description_hash(),
    };
    let act = desk.act(format!("queue {}", hex(proposal.id)), Contract::Governor, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// Executes what waited long enough.
///
/// # Errors
///
/// [`OpsError`], also where its time has not come.
pub async fn execute(desk: &Desk, proposal: &Proposal) -> Result<Act, OpsError> {
    let Parts { targets, values, calldatas } = proposal.parts();
    let call = WelkinGovernor::executeCall {
        targets,
        values,
        calldatas,
        descriptionHash: proposal.description_hash(),
    };
    let act = desk.act(format!("execute {}", hex(proposal.id)), Contract::Governor, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// Takes a proposal back, by its proposer, before the vote begins.
///
/// # Errors
///
/// [`OpsError`], also where it is too late.
pub async fn cancel(desk: &Desk, proposal: &Proposal) -> Result<Act, OpsError> {
    let Parts { targets, values, calldatas } = proposal.parts();
    let call = WelkinGovernor::cancelCall {
        targets,
        values,
        calldatas,
        descriptionHash: proposal.description_hash(),
    };
    let act = desk.act(format!("take back {}", hex(proposal.id)), Contract::Governor, &call)?;
    desk.check(&act).await?;
    Ok(act)
}
