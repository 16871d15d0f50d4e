//! Who signs the roots of epochs in a network of one's own: its checkers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use alloy_primitives::{Address, U256};
use anyhow::Context as _;
use welkin_chain::address;
use welkin_chain::contracts::Rewards;
use welkin_chain::deployment::Contract;
use welkin_chain::ops::committee;
use welkin_node::Shutdown;
use welkin_node::identity::{self, IdentityError};
use welkin_node::settlement::Service;
use welkin_proto::rooted::ROOT_WORDS_MAX;
use welkin_types::NodeId;

use crate::{Context, roles};

/// Makes the accounts of this many checkers the committee. One that somebody else is in was set by hand and
/// stays.
pub(super) async fn seat(
    context: &Context,
    (settlement, dir): (&Arc<Service>, &Path),
    checkers: u32,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let most = u32::try_from(ROOT_WORDS_MAX).unwrap_or(u32::MAX);
    let checkers = checkers.min(most);
    if checkers == 0 || !context.config.checker.roots {
        return Ok(());
    }
    let operator = identity::account_key(&dir.join("account.key"))?;
    let mut own = former(context)?;
    own.insert(address(operator.id()));
    let settle = roles::local_settle(settlement, NodeId::from_bytes([0; 32]), operator, shutdown);
    let contracts = settle.contracts().context("where the contracts stand is not known")?;
    let (members, threshold) = committee::members(contracts.desk()).await?;
    let seats = (1..=checkers).map(|number| account_in(&super::checker_dir(context, number)));
    let seats: Vec<_> = seats.collect::<Result<_, _>>()?;
    let majority = seats.len() / 2 + 1;
    let is_by_hand = members.iter().any(|member| !own.contains(member));
    if is_by_hand || (members == seats && threshold == majority) {
        return Ok(());
    }
    let call = Rewards::setCommitteeCall { members: seats, threshold: U256::from(majority) };
    let act = contracts.desk().act("set the committee", Contract::Rewards, &call)?;
    Ok(contracts.send(&act).await?)
}

fn account_in(dir: &Path) -> Result<Address, IdentityError> {
    Ok(address(identity::account_key(&dir.join("account.key"))?.id()))
}

/// The accounts of all checkers that this network has ever had.
fn former(context: &Context) -> Result<BTreeSet<Address>, IdentityError> {
    let all = (1..=super::CHECKERS_MAX).map(|number| super::checker_dir(context, number));
    all.filter(|dir| dir.join("account.key").exists()).map(|dir| account_in(&dir)).collect()
}
