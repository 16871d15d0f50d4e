//! What the committee signs of an epoch, and how that comes to count.

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use super::typed_data::{Field, Signature, typed};
use super::{Act, Desk, OpsError};
use crate::contracts::{Committee, Rewards};
use crate::deployment::Contract;

const EPOCH: &[Field] = &[
    ("number", "uint32"),
    ("root", "bytes32"),
    ("data", "bytes32"),
    ("totals", "uint256[3]"),
    ("units", "uint256"),
];

/// A settled epoch as the contract knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, counted from 1.
    pub number: u32,
    /// The root of everybody's totals.
    pub root: B256,
    /// What the root follows from, hashed.
    pub data: B256,
    /// The streams' totals since the beginning, in wei.
    pub totals: [U256; 3],
    /// Units of capacity that were active.
    pub units: u64,
}

/// The members, and how many of them must sign.
///
/// # Errors
///
/// [`OpsError`]
pub async fn members(desk: &Desk) -> Result<(Vec<Address>, usize), OpsError> {
    let members = desk.look(Contract::Rewards, Rewards::membersCall {}).await?;
    let threshold = desk.look(Contract::Rewards, Rewards::thresholdCall {}).await?;
    Ok((members, threshold.saturating_to()))
}

/// What a member signs.
///
/// # Errors
///
/// [`OpsError`]
pub async fn to_sign(desk: &Desk, epoch: &Epoch) -> Result<Value, OpsError> {
    let message = json!({
        "number": epoch.number,
        "root": epoch.root,
        "data": epoch.data,
        "totals": epoch.totals.map(|total| total.to_string()),
        "units": epoch.units.to_string(),
    });
    typed(desk, Contract::Rewards, ("Epoch", EPOCH), message).await
}

/// What proposes an epoch that members have signed; checked before it is sent.
///
/// # Errors
///
/// [`OpsError`], also where signatures lack or another epoch is awaited.
pub async fn propose(
    desk: &Desk,
    epoch: &Epoch,
    mut signatures: Vec<(Address, Signature)>,
) -> Result<Act, OpsError> {
    // The contract wants them in the order of the members' addresses.
    signatures.sort_by_key(|(member, _)| *member);
    signatures.dedup_by_key(|(member, _)| *member);
    let signed = |(member, signature): &(Address, Signature)| -> Bytes {
        [member.as_slice(), &signature.bytes()].concat().into()
    };
    let next = Committee::Epoch {
        number: epoch.number,
        root: epoch.root,
        data: epoch.data,
        totals: epoch.totals,
        units: U256::from(epoch.units),
    };
    let call = Rewards::proposeCall { next, signatures: signatures.iter().map(signed).collect() };
    let what = format!(
        "propose epoch {} with the root {} and {} signatures",
        epoch.number,
        epoch.root,
        signatures.len()
    );
    let act = desk.act(what, Contract::Rewards, &call)?;
    desk.check(&act).await?;
    Ok(act)
}

/// What makes the proposed epoch count, once it can't be contested any more.
///
/// # Errors
///
/// [`OpsError`], also where it is too early.
pub async fn accept(desk: &Desk) -> Result<Act, OpsError> {
    let what = "make the proposed epoch count".to_owned();
    let act = desk.act(what, Contract::Rewards, &Rewards::acceptCall {})?;
    desk.check(&act).await?;
    Ok(act)
}
