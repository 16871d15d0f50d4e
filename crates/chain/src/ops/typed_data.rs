//! What wallets are to sign: EIP-712 typed data as JSON, which hardware wallets show field by field.
//!
//! Names and versions of the domains are asked of the contracts (EIP-5267), so that what is signed
//! is what they check.

use alloy_primitives::{Address, Bytes, U256};
use serde_json::{Value, json};
use welkin_proto::AccountSignature;

use super::gov::{Proposal, Support};
use super::{Act, Desk, OpsError};
use crate::contracts::{Ath, Escrow, WelkinGovernor};
use crate::deployment::Contract;
use crate::{ath, refusals};

pub(super) type Field = (&'static str, &'static str);

const PERMIT: &[Field] = &[
    ("owner", "address"),
    ("spender", "address"),
    ("value", "uint256"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
];
const BALLOT: &[Field] =
    &[("proposalId", "uint256"), ("support", "uint8"), ("voter", "address"), ("nonce", "uint256")];
const SIGNER: &[Field] = &[
    ("account", "address"),
    ("signer", "address"),
    ("until", "uint64"),
    ("allowance", "uint256"),
    ("nonce", "uint256"),
];
const DOMAIN: &[Field] = &[
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
];

/// A signature as wallets give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
    v: u8,
}

/// Why a text is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature is 0x and 130 hexadecimal digits: r, s, and v of 27 or 28")]
pub struct SignatureError;

impl std::str::FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let bytes: Bytes = text.trim().parse().map_err(|_| SignatureError)?;
        let (r, rest) = bytes.split_first_chunk::<32>().ok_or(SignatureError)?;
        let (s, rest) = rest.split_first_chunk::<32>().ok_or(SignatureError)?;
        // Some wallets count from 0.
        let v = match rest {
            [v @ (27 | 28)] => *v,
            [v @ (0 | 1)] => v + 27,
            _ => return Err(SignatureError),
        };
        Ok(Self { r: *r, s: *s, v })
    }
}

impl From<AccountSignature> for Signature {
    fn from(AccountSignature { r, s, v }: AccountSignature) -> Self {
        Self { r, s, v }
    }
}

impl Signature {
    pub(super) fn bytes(&self) -> Bytes {
        [&self.r[..], &self.s, &[self.v]].concat().into()
    }
}

fn fields(list: &[Field]) -> Value {
    list.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect()
}

/// The whole of it for a message; the domain is what the contract says of itself.
pub(super) async fn typed(
    desk: &Desk,
    contract: Contract,
    (name, list): (&str, &[Field]),
    message: Value,
) -> Result<Value, OpsError> {
    // All contracts answer alike; the token's types stand for all.
    let domain = desk.look(contract, Ath::eip712DomainCall {}).await?;
    // Roles sign this without a person who reads it: a node must not have it sign for another chain.
    let (chain_id, place) = (U256::from(desk.deployment().chain_id), desk.place(contract)?);
    if domain.chainId != chain_id || domain.verifyingContract != place {
        return Err(OpsError::Confused(contract.name()));
    }
    Ok(json!({
        "types": {"EIP712Domain": fields(DOMAIN), name: fields(list)},
        "primaryType": name,
        "domain": {
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chainId.saturating_to::<u64>(),
            "verifyingContract": domain.verifyingContract.to_string(),
        },
        "message": message,
    }))
}

/// The permission that lets a contract take `value` wei from the wallet until `deadline` (in
/// seconds since 1970), EIP-2612.
///
/// # Errors
///
/// [`OpsError`]
pub async fn permit(
    desk: &Desk,
    taker: Contract,
    value: U256,
    deadline: u64,
) -> Result<Value, OpsError> {
    let owner = desk.account();
    let nonce = desk.look(Contract::Ath, Ath::noncesCall { owner }).await?;
    let message = json!({
        "owner": owner.to_string(),
        "spender": desk.place(taker)?.to_string(),
        "value": value.to_string(),
        "nonce": nonce.to_string(),
        "deadline": deadline.to_string(),
    });
    typed(desk, Contract::Ath, ("Permit", PERMIT), message).await
}

/// What tells the token of a permission that the wallet signed.
///
/// # Errors
///
/// [`OpsError`], also where the signature is another one's.
pub async fn permitted(
    desk: &Desk,
    taker: Contract,
    value: U256,
    deadline: u64,
    signature: &Signature,
) -> Result<Act, OpsError> {
    let call = Ath::permitCall {
        owner: desk.account(),
        spender: desk.place(taker)?,
        value,
        deadline: U256::from(deadline),
        v: signature.v,
        r: signature.r.into(),
        s: signature.s.into(),
    };
    let what = format!(
        "let the contract `{}` take {} until {}, as was signed",
        taker.name(),
        ath::show(value),
        refusals::time(deadline)
    );
    let act = desk.act(what, Contract::Ath, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// What pays ATH of the wallet into the escrow by a signed permission, in one transaction.
///
/// # Errors
///
/// [`OpsError`]
pub fn deposit(
    desk: &Desk,
    amount: U256,
    account: Address,
    deadline: u64,
    signature: &Signature,
) -> Result<Act, OpsError> {
    let call = Escrow::depositWithPermitCall {
        account,
        amount,
        deadline: U256::from(deadline),
        v: signature.v,
        r: signature.r.into(),
        s: signature.s.into(),
    };
    let what = format!("deposit {} for {account} by the signed permission", ath::show(amount));
    desk.act(what, Contract::Escrow, &call)
}

/// A vote of the account, for anybody to send.
///
/// # Errors
///
/// [`OpsError`]
pub async fn ballot(desk: &Desk, proposal: &Proposal, support: Support) -> Result<Value, OpsError> {
    let voter = desk.account();
    let nonce = desk.look(Contract::Governor, WelkinGovernor::noncesCall { owner: voter }).await?;
    let message = json!({
        "proposalId": proposal.id.to_string(),
        "support": support as u8,
        "voter": voter.to_string(),
        "nonce": nonce.to_string(),
    });
    typed(desk, Contract::Governor, ("Ballot", BALLOT), message).await
}

/// What sends a vote that `voter` signed.
///
/// # Errors
///
/// [`OpsError`], also where the signature is another one's.
pub async fn cast(
    desk: &Desk,
    proposal: &Proposal,
    support: Support,
    voter: Address,
    signature: &Signature,
) -> Result<Act, OpsError> {
    let call = WelkinGovernor::castVoteBySigCall {
        proposalId: proposal.id,
        support: support as u8,
        voter,
        signature: signature.bytes(),
    };
    let what = format!("send the vote that {voter} signed");
    let act = desk.act(what, Contract::Governor, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// What a session key agrees to: to sign for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session key's address.
    pub signer: Address,
    /// Until when it may sign orders, in seconds since 1970.
    pub until: u64,
    /// Orders that it may sign in all, in micro-dollars.
    pub allowance_micros: u64,
}

/// The proof that a session key agrees to sign for the account, for that key to sign.
///
/// # Errors
///
/// [`OpsError`]
pub async fn session(desk: &Desk, session: &Session) -> Result<Value, OpsError> {
    let Session { signer, until, allowance_micros } = *session;
    let account = desk.account();
    let call = Escrow::signerOfCall { account, signer };
    let nonce = desk.look(Contract::Escrow, call).await?.nonce;
    let message = json!({
        "account": account.to_string(),
        "signer": signer.to_string(),
        "until": until.to_string(),
        "allowance": allowance_micros.to_string(),
        "nonce": nonce.to_string(),
    });
    typed(desk, Contract::Escrow, ("Signer", SIGNER), message).await
}

/// What lets a session key sign for the account, with that key's proof.
///
/// # Errors
///
/// [`OpsError`], also where the proof is another one's.
pub async fn allow(desk: &Desk, session: &Session, proof: &Signature) -> Result<Act, OpsError> {
    let Session { signer, until, allowance_micros } = *session;
    let call = Escrow::setSignerCall {
        signer,
        until,
        allowance: U256::from(allowance_micros),
        proof: proof.bytes(),
    };
    let what = format!(
        "let {signer} order for at most {} until {}",
        welkin_types::Usd::from_micros(allowance_micros),
        refusals::time(until)
    );
    let act = desk.act(what, Contract::Escrow, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// What ends a session key's rights: orders at once, vouchers after the thaw period.
///
/// # Errors
///
/// [`OpsError`]
pub fn revoke(desk: &Desk, signer: Address) -> Result<Act, OpsError> {
    let what = format!("let {signer} order nothing any more");
    desk.act(what, Contract::Escrow, &Escrow::revokeSignerCall { signer })
}

/// The hash that a wallet signs for typed data.
///
/// # Errors
///
/// [`TypedDataError`] where it is none.
pub fn digest(data: &Value) -> Result<[u8; 32], TypedDataError> {
    let read: alloy_dyn_abi::TypedData =
        serde_json::from_value(data.clone()).map_err(|error| TypedDataError(error.to_string()))?;
    let hash = read.eip712_signing_hash().map_err(|error| TypedDataError(error.to_string()))?;
    Ok(hash.0)
}

/// Why JSON is no typed data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no typed data: {0}")]
pub struct TypedDataError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_as_wallets_write_them() {
        let body = "11".repeat(32) + &"22".repeat(32);
        let read = |text: &str| text.parse::<Signature>();
        assert_eq!(read(&format!("0x{body}1b")), read(&format!("0x{body}00")));
        assert_eq!(read(&format!("{body}1c")).unwrap().bytes().len(), 65);
        for text in ["", "0x", &body, &format!("0x{body}1d"), &format!("0x{body}1b00"), "zz"] {
            assert_eq!(read(text), Err(SignatureError), "{text}");
        }
    }
}
