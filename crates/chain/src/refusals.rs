//! What a contract's refusal means: what, why, what next. The one place that says it.
//!
//! An error is known by its first four bytes; the contracts share names such as `Range()`, so that
//! a sentence holds for all that have it. A test compares this table with the committed interfaces.

use std::fmt;

use alloy_primitives::{U256, keccak256};
use welkin_types::UnixMillis;

use crate::ath;

/// Why a contract says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's name in the contract.
    pub name: &'static str,
    /// What is wrong.
    pub why: String,
    /// What to do now; may be empty.
    pub next: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refusal {}

/// How an error's values are told: `{0}` is the first as it is, `{0:ath}` as ATH, `{0:time}` as a
/// second since 1970.
type Row = (&'static str, &'static str, &'static str);

const WAIT: &str = "try again then";
const INSIDE: &str = "this is a fault in the network's set-up: tell its operator";

/// Signature, what is wrong, what next.
const TABLE: &[Row] = &[
    // Our own.
    ("Closed()", "the lease is closed already", ""),
    ("CommitteeSize()", "a committee has 1 to 32 members, and more than half must sign", ""),
    ("Exists()", "it is registered already", ""),
    ("Expired(uint64)", "its time was over at {0:time}", "make a new one"),
    (
        "Funds(uint256,uint256)",
        "it needs {0:ath}, and only {1:ath} are there",
        "`welkin balance` shows what is free",
    ),
    ("LaneBusy(bytes16)", "another lease of the same buyer and operator is open there", ""),
    (
        "Locked()",
        "the licence can't be transferred: it is too new, or suspended",
        "`welkin licence list` shows how it stands",
    ),
    ("NotAllowed()", "this account is not on the tier's allow-list", "take another tier"),
    ("NotContested()", "there is no contest, or its time is over", ""),
    ("NotKept()", "this number is not kept", ""),
    ("NotOperator()", "only the lease's operator may do this", ""),
    (
        "NotOwner()",
        "there is no such entry, or it is not this account's",
        "is the id right, and is it registered?",
    ),
    ("NotProvider()", "the provider was not at fault", ""),
    ("NotReporter()", "this account does not report prices", ""),
    ("NotRunner()", "this account does not run the licence, or it is banned", ""),
    ("OnlyAccount()", "only the account itself may do this, not somebody for it", "ask its owner"),
    ("NotYet(uint256)", "it can't be done before {0:time}", WAIT),
    ("NotYet(uint64)", "it can't be done before {0:time}", WAIT),
    ("Nothing()", "there is nothing to have, or less than the least claim", ""),
    ("Outdated()", "the hardware is another than the one that was verified", ""),
    ("OverCap(uint8,uint256,uint256)", "{1:ath} are more than the {2:ath} that may be emitted", ""),
    ("Paused(uint64)", "new reservations are paused until {0:time}", WAIT),
    ("Proof()", "the proof does not lead to the present root", "fetch a new proof"),
    ("Range()", "a number is out of its bounds", "`welkin gov params` shows the bounds"),
    ("Replayed()", "the order was used before", "make a new one"),
    ("Signature()", "the signature is not the one that is needed", ""),
    ("Signatures()", "the committee's signatures do not suffice", ""),
    (
        "SoldOut()",
        "so many are not left, or it is more than one account may buy",
        "ask for fewer, or take another tier: `welkin licence list`",
    ),
    ("Stale(uint256)", "the price of ATH is too old", "wait until it is reported again"),
    ("Token()", "the token did not send what it said", INSIDE),
    ("TooDear(uint256)", "it costs {0:ath}, more than was allowed", "raise --max-cost"),
    ("TooLate(uint256)", "it had to be done before {0:time}", ""),
    ("TooMuch(uint64)", "it is more than the faucet gives at once", "ask for less"),
    ("UnknownLease()", "there is no such lease", ""),
    ("Used()", "the same evidence was used before", ""),
    ("WrongEpoch(uint32)", "epoch {0} is awaited, or a proposal is under way", ""),
    (
        "WrongPlan()",
        "the plan is not for this stream, or only the account itself can choose it",
        "",
    ),
    ("WrongStanding()", "the licence does not stand so that this can be done", ""),
    // Rights.
    ("AccessManagedInvalidAuthority(address)", "the new authority is no contract", ""),
    ("AccessManagedRequiredDelay(address,uint32)", "it must be scheduled {1} s before", ""),
    (
        "AccessManagedUnauthorized(address)",
        "the account {0:address} has no right to do this",
        "propose it instead: `welkin gov propose`",
    ),
    ("AccessManagerAlreadyScheduled(bytes32)", "it is scheduled already", ""),
    ("AccessManagerBadConfirmation()", "a role can be given up only by who has it", ""),
    ("AccessManagerExpired(bytes32)", "it was scheduled too long ago", "schedule it again"),
    ("AccessManagerInvalidInitialAdmin(address)", "the admin can't be nobody", ""),
    ("AccessManagerLockedFunction(bytes4)", "this function's right can't be changed", ""),
    ("AccessManagerLockedRole(uint64)", "this role can't be changed", ""),
    ("AccessManagerNotReady(bytes32)", "it was scheduled, and is not due yet", "wait"),
    ("AccessManagerNotScheduled(bytes32)", "it was not scheduled", "schedule it first"),
    (
        "AccessManagerUnauthorizedAccount(address,uint64)",
        "the account {0:address} does not have the role {1}",
        "propose it instead: `welkin gov propose`",
    ),
    (
        "AccessManagerUnauthorizedCall(address,address,bytes4)",
        "the account {0:address} may not call this",
        "",
    ),
    (
        "AccessManagerUnauthorizedCancel(address,address,address,bytes4)",
        "the account {0:address} may not cancel this",
        "",
    ),
    ("AccessManagerUnauthorizedConsume(address)", "only a managed contract may do this", ""),
    ("AccessControlBadConfirmation()", "a role can be given up only by who has it", ""),
    (
        "AccessControlUnauthorizedAccount(address,bytes32)",
        "the account {0:address} has no right to do this",
        "",
    ),
    // Tokens and votes.
    ("AddressEmptyCode(address)", "there is no contract at {0:address}", ""),
    ("CheckpointUnorderedInsertion()", "the chain's time went back", INSIDE),
    ("ECDSAInvalidSignature()", "the signature is none", "sign again"),
    ("ECDSAInvalidSignatureLength(uint256)", "a signature has 65 bytes, not {0}", "sign again"),
    ("ECDSAInvalidSignatureS(bytes32)", "the signature is none of the lower half", "sign again"),
    (
        "ERC20ExceededSafeSupply(uint256,uint256)",
        "there would be more tokens than votes can count",
        INSIDE,
    ),
    (
        "ERC20InsufficientAllowance(address,uint256,uint256)",
        "the contract {0:address} may take {1:ath}, and needs {2:ath}",
        "run the command again: it gives the permission",
    ),
    (
        "ERC20InsufficientBalance(address,uint256,uint256)",
        "the wallet has {1:ath}, and needs {2:ath}",
        "`welkin withdraw` moves money from the escrow to the wallet",
    ),
    ("ERC20InvalidApprover(address)", "nobody can't give a permission", ""),
    ("ERC20InvalidReceiver(address)", "ATH can't be sent to {0:address}", ""),
    ("ERC20InvalidSender(address)", "nobody can't send", ""),
    ("ERC20InvalidSpender(address)", "nobody can't be given a permission", ""),
    ("ERC2612ExpiredSignature(uint256)", "the permit's time was over at {0:time}", "sign again"),
    ("ERC2612InvalidSigner(address,address)", "{0:address} signed, not {1:address}", ""),
    ("ERC5805FutureLookup(uint256,uint48)", "votes of {0:time} are not known yet", WAIT),
    ("ERC6372InconsistentClock()", "the contract's clock was changed", INSIDE),
    ("ERC721IncorrectOwner(address,uint256,address)", "the licence {1} is {2:address}'s", ""),
    (
        "ERC721InsufficientApproval(address,uint256)",
        "the licence {1} is not this account's",
        "`welkin licence list` shows yours",
    ),
    ("ERC721InvalidApprover(address)", "{0:address} can't give a permission", ""),
    ("ERC721InvalidOperator(address)", "{0:address} can't be given a permission", ""),
    ("ERC721InvalidOwner(address)", "nobody has no licences", ""),
    ("ERC721InvalidReceiver(address)", "{0:address} can't have a licence", ""),
    ("ERC721InvalidSender(address)", "{0:address} can't send a licence", ""),
    (
        "ERC721NonexistentToken(uint256)",
        "there is no licence {0}",
        "`welkin licence list` shows yours",
    ),
    ("FailedCall()", "what was called refuses without a reason", ""),
    ("InsufficientBalance(uint256,uint256)", "the contract has {0}, and needs {1}", ""),
    (
        "InvalidAccountNonce(address,uint256)",
        "the signature's number is not the next one, {1}",
        "sign again",
    ),
    ("InvalidShortString()", "a name is too long", INSIDE),
    ("StringTooLong(string)", "a name is too long", INSIDE),
    ("ReentrancyGuardReentrantCall()", "the contract was entered twice", INSIDE),
    ("SafeCastOverflowedUintDowncast(uint8,uint256)", "the number {1} is too large", ""),
    ("SafeERC20FailedOperation(address)", "the token {0:address} refuses", INSIDE),
    ("VotesExpiredSignature(uint256)", "the signature's time was over at {0:time}", "sign again"),
    // Decisions.
    ("GovernorAlreadyCastVote(address)", "{0:address} has voted already", ""),
    (
        "GovernorAlreadyQueuedProposal(uint256)",
        "it is queued already",
        "`welkin gov list` shows when it can be executed",
    ),
    ("GovernorDisabledDeposit()", "the governor takes no coins", ""),
    (
        "GovernorInsufficientProposerVotes(address,uint256,uint256)",
        "a proposal needs {2:ath} of votes, and this account has {1:ath}",
        "have ATH in the wallet, then count it with `welkin gov delegate`",
    ),
    (
        "GovernorInvalidProposalLength(uint256,uint256,uint256)",
        "a proposal must call something",
        "",
    ),
    ("GovernorInvalidQuorumFraction(uint256,uint256)", "a quorum is at most all", ""),
    ("GovernorInvalidSignature(address)", "the vote was not signed by {0:address}", "sign again"),
    ("GovernorInvalidVoteParams()", "the vote can't be read", ""),
    ("GovernorInvalidVoteType()", "a vote is `for`, `against` or `abstain`", ""),
    ("GovernorInvalidVotingPeriod(uint256)", "a vote must last", ""),
    (
        "GovernorNonexistentProposal(uint256)",
        "there is no such proposal",
        "`welkin gov list` shows them",
    ),
    (
        "GovernorOnlyExecutor(address)",
        "only a decision can do this",
        "propose it: `welkin gov propose`",
    ),
    (
        "GovernorPreventLateQuorumVoteExtensionTooLarge(uint256,uint256)",
        "{0} s are more than {1} s",
        "",
    ),
    ("GovernorProposalQueueingFailed(uint256)", "it can't be queued", ""),
    (
        "GovernorProposalQueueingNotRequired(uint256)",
        "it need not be queued",
        "`welkin gov execute`",
    ),
    (
        "GovernorRestrictedProposer(address)",
        "somebody else announced this proposal",
        "word it differently",
    ),
    (
        "GovernorUnableToCancel(uint256,address)",
        "only its proposer may take it back, before the vote",
        "",
    ),
    (
        "GovernorUnexpectedProposalState(uint256,uint8,bytes32)",
        "the proposal is {1:state}",
        "`welkin gov list` shows what can be done, and when",
    ),
    (
        "TimelockInsufficientDelay(uint256,uint256)",
        "{0} s are less than the least delay of {1} s",
        "",
    ),
    (
        "TimelockInvalidOperationLength(uint256,uint256,uint256)",
        "the lists are not equally long",
        "",
    ),
    (
        "TimelockUnauthorizedCaller(address)",
        "only a decision can do this",
        "propose it: `welkin gov propose`",
    ),
    ("TimelockUnexecutedPredecessor(bytes32)", "another decision must be executed first", ""),
    (
        "TimelockUnexpectedOperationState(bytes32,bytes32)",
        "the decision's time has not come, or it was executed",
        "`welkin gov list` shows when it can be executed",
    ),
    // Solidity's own.
    ("Panic(uint256)", "the contract's arithmetic fails (code {0})", INSIDE),
];

/// What a proposal can be, in the governor's order.
pub const PROPOSAL_STATES: [&str; 8] =
    ["pending", "active", "canceled", "defeated", "succeeded", "queued", "expired", "executed"];

/// Says what a contract's refusal means.
pub fn explain(data: &[u8]) -> Refusal {
    if data.is_empty() {
        let why = "the contract refuses without a reason, or there is no such contract".to_owned();
        return Refusal { name: "", why, next: "`welkin chain verify` shows what stands there" };
    }
    let found = data.first_chunk::<4>().and_then(|selector| {
        TABLE.iter().find(|(signature, ..)| &keccak256(signature)[..4] == selector)
    });
    if let Some((signature, why, next)) = found {
        let name = signature.split('(').next().unwrap_or_default();
        return Refusal { name, why: fill(why, &data[4..]), next };
    }
    let why = match text(data) {
        Some(text) => format!("the contract refuses: {text}"),
        None => format!(
            "the contract refuses for a reason that is not known here (0x{})",
            alloy_primitives::hex::encode(&data[..data.len().min(4)])
        ),
    };
    Refusal { name: "", why, next: "" }
}

/// Solidity's `Error(string)`.
fn text(data: &[u8]) -> Option<String> {
    use alloy_sol_types::{Revert, SolError as _};
    Revert::abi_decode(data).ok().map(|revert| revert.reason.chars().take(200).collect())
}

/// Puts an error's words into a sentence.
fn fill(why: &str, data: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = why;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((field, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        let (index, form) = field.split_once(':').unwrap_or((field, ""));
        let word = index.parse::<usize>().ok().and_then(|index| data.chunks_exact(32).nth(index));
        match word {
            Some(word) => out.push_str(&told(word, form)),
            None => out.push('?'),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn told(word: &[u8], form: &str) -> String {
    let number = U256::from_be_slice(word);
    match form {
        "ath" => ath::show(number),
        "time" => time(u64::try_from(number).unwrap_or(u64::MAX)),
        "address" => alloy_primitives::Address::from_slice(&word[12..]).to_string(),
        "state" => {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            (*PROPOSAL_STATES.get(index).unwrap_or(&"in an unknown state")).to_owned()
        }
        _ => number.to_string(),
    }
}

/// A second since 1970 for people: `2027-01-15 08:00:00 UTC`.
pub fn time(seconds: u64) -> String {
    let text = UnixMillis(seconds.saturating_mul(1_000)).to_string();
    let second = text.split('.').next().unwrap_or_default();
    format!("{} UTC", second.replace('T', " "))
}

#[cfg(test)]
mod tests;
