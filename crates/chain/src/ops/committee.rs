//! What the committee signs of an epoch, and how that comes to count: how the contract stands, what it has
//! counted so far, and the transactions that bring it on.

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use super::typed_data::{Field, Signature, typed};
use super::{Act, Desk, OpsError};
use crate::contracts::{Committee, Emissions, Rewards};
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

/// What waits for its window to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its root.
    pub root: B256,
    /// From when on it counts if nobody contests it, in seconds since 1970.
    pub ready_at: u64,
    /// Whether somebody says that it is wrong.
    pub is_contested: bool,
}

/// The emissions of the epoch that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The epoch that they are for.
    pub epoch: u32,
    /// Its pool, in wei.
    pub pool: U256,
    /// All pools until this epoch, its own included.
    pub granted: U256,
    /// The least pool.
    pub pool_min: U256,
    /// What a unit of capacity should earn, in USD micros.
    pub target_micros: u64,
}

/// How the contract stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last epoch that counts; 0: none.
    pub counted: u32,
    /// Its root.
    pub root: B256,
    /// When the epoch after it ends, in seconds since 1970.
    pub next_ends: u64,
    /// What is proposed, if anything is.
    pub proposed: Option<Proposed>,
    /// The members.
    pub members: Vec<Address>,
    /// How many of them must sign.
    pub threshold: usize,
    /// The emissions of the epoch after the last one that counts.
    pub grants: Grants,
}

/// An epoch that counts, as the contract has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub number: u32,
    /// Its root.
    pub root: B256,
    /// When it ended, in seconds since 1970.
    pub ends: u64,
    /// Its emissions.
    pub grants: Grants,
}

/// How the contract stands.
///
/// # Errors
///
/// [`OpsError`]; where an epoch came to count meanwhile, it is to be asked again.
pub async fn standing(desk: &Desk) -> Result<Standing, OpsError> {
    let counted = self::counted(desk).await?;
    let root = desk.look(Contract::Rewards, Rewards::rootCall {}).await?;
    let proposal = desk.look(Contract::Rewards, Rewards::proposalCall {}).await?;
    let (members, threshold) = members(desk).await?;
    let epoch = desk.look(Contract::Emissions, Emissions::epochCall {}).await?;
    let pool = U256::from(desk.look(Contract::Emissions, Emissions::poolCall {}).await?);
    let pool_min = U256::from(desk.look(Contract::Emissions, Emissions::poolMinCall {}).await?);
    let granted = desk.look(Contract::Emissions, Emissions::grantedCall {}).await?;
    let target_micros = desk.look(Contract::Emissions, Emissions::targetCall {}).await?;
    let next = counted.saturating_add(1);
    let next_ends = ends(desk, next).await?;
    let still = self::counted(desk).await?;
    if still != counted || epoch != next {
        return Err(OpsError::unfit(
            format!("an epoch came to count while the contract was looked at: {counted}"),
            "look again",
        ));
    }
    let ready_at = proposal.readyAt.to::<u64>();
    let proposed = (ready_at != 0).then(|| Proposed {
        root: proposal.epoch.root,
        ready_at,
        is_contested: !proposal.contester.is_zero(),
    });
    let grants = Grants { epoch, pool, granted, pool_min, target_micros };
    Ok(Standing { counted, root, next_ends, proposed, members, threshold, grants })
}

/// The epochs that count after this one, in order, the last one of `standing` included.
///
/// What an epoch had to give is reckoned back from what the awaited one has.
///
/// # Errors
///
/// [`OpsError`], also where the contract does not tell all of them.
pub async fn counted_after(
    desk: &Desk,
    standing: &Standing,
    after: u32,
) -> Result<Vec<Counted>, OpsError> {
    let roots = desk.events::<Rewards::Accepted>(Contract::Rewards, &[]).await?;
    let pools = desk.events::<Emissions::Granted>(Contract::Emissions, &[]).await?;
    let (mut epochs, mut next) = (Vec::new(), standing.grants);
    let confused = || OpsError::Confused(Contract::Rewards.name());
    for number in (after.saturating_add(1)..=standing.counted).rev() {
        let granted = next.granted.saturating_sub(next.pool);
        let told = pools.iter().rev().find(|grant| grant.epoch == number).map(|grant| grant.pool);
        // The first pool was granted when the contract came to be, where no event may be shown.
        let pool = if number == 1 { granted } else { told.ok_or_else(confused)? };
        let accepted = roots.iter().rev().find(|accepted| accepted.epoch == number);
        let root = accepted.ok_or_else(confused)?.root;
        next = Grants { epoch: number, pool, granted, ..next };
        epochs.push(Counted { number, root, ends: ends(desk, number).await?, grants: next });
    }
    epochs.reverse();
    Ok(epochs)
}

async fn ends(desk: &Desk, number: u32) -> Result<u64, OpsError> {
    let call = Emissions::epochEndCall { number };
    Ok(desk.look(Contract::Emissions, call).await?.saturating_to())
}

/// The last epoch that counts; 0: none.
///
/// # Errors
///
/// [`OpsError`]
pub async fn counted(desk: &Desk) -> Result<u32, OpsError> {
    desk.look(Contract::Rewards, Rewards::epochCall {}).await
}

/// Whether what the committee signed was dropped after a contest: it can't be proposed again.
///
/// # Errors
///
/// [`OpsError`]
pub async fn is_dropped(desk: &Desk, digest: [u8; 32]) -> Result<bool, OpsError> {
    desk.look(Contract::Rewards, Rewards::droppedCall { digest: digest.into() }).await
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

/// The digest of what a member signs.
///
/// # Errors
///
/// [`OpsError`]
pub async fn digest(desk: &Desk, epoch: &Epoch) -> Result<[u8; 32], OpsError> {
    let data = to_sign(desk, epoch).await?;
    super::typed_data::digest(&data).map_err(|_| OpsError::Confused(Contract::Rewards.name()))
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
