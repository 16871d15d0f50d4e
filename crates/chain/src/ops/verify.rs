//! Whether what stands on a chain is what is meant to stand there: the code, who knows whom, who
//! may what, and every parameter within its bounds.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, U256, keccak256, uint};
use alloy_sol_types::SolCall;

use super::{Desk, OpsError, params};
use crate::ath;
use crate::contracts::{
    AccessManager, Ath, CheckerLicense, Emissions, Escrow, MedianOracle, Registry, Rewards,
    Slashing, Staking, Treasury, WelkinGovernor,
};
use crate::deployment::{Contract, ROLE_ADMIN, Role};

/// All ATH there may ever be, in wei.
const SUPPLY: U256 = uint!(42_000_000_000_000_000_000_000_000_000_U256);
/// The instruction that a constructor's values stand behind: `PUSH32`.
const PUSH32: u8 = 0x7f;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: "code of escrow".
    pub about: String,
    /// What is wrong; none if it is as it should be.
    pub wrong: Option<String>,
}

/// Looks at everything.
///
/// # Errors
///
/// [`OpsError`] where the chain can't be asked. What stands there wrongly is no error.
pub async fn verify(desk: &Desk) -> Result<Vec<Finding>, OpsError> {
    let mut findings = Findings(Vec::new());
    codes(desk, &mut findings).await?;
    if findings.0.iter().any(|finding| finding.wrong.is_some()) {
        // What strange code says about itself proves nothing.
        return Ok(findings.0);
    }
    wiring(desk, &mut findings).await?;
    roles(desk, &mut findings).await?;
    treasury(desk, &mut findings).await?;
    let supply = desk.look(Contract::Ath, Ath::totalSupplyCall {}).await?;
    findings.add("supply of ATH", (supply != SUPPLY).then(|| ath::show(supply)));
    for value in params::read_all(desk).await? {
        let about = format!("parameter {}", value.name);
        findings.add(about, value.outside().map(|bound| format!("it is {value}, bound: {bound}")));
    }
    Ok(findings.0)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, about: impl Into<String>, wrong: Option<String>) {
        self.0.push(Finding { about: about.into(), wrong });
    }
}

async fn codes(desk: &Desk, findings: &mut Findings) -> Result<(), OpsError> {
    for (contract, place) in desk.deployment().contracts.each() {
        let about = format!("code of {}", contract.name());
        let code = desk.rpc().code(place).await;
        let code = code.map_err(|error| OpsError::of(format!("read the {about}"), error))?;
        let wrong = if code.is_empty() {
            Some(format!("there is no contract at {place}"))
        } else {
            difference(contract.deployed_code(), &code)
        };
        findings.add(about, wrong);
    }
    Ok(())
}

/// Where code differs from its artefact, which has zeros for what the constructor fills in.
pub(super) fn difference(artefact: &[u8], code: &[u8]) -> Option<String> {
    if artefact.len() != code.len() {
        return Some(format!("it has {} bytes, not {}", code.len(), artefact.len()));
    }
    let mut at = 0;
    while at < artefact.len() {
        let is_filled_in = artefact[at] == PUSH32
            && artefact.get(at + 1..at + 33).is_some_and(|value| value.iter().all(|b| *b == 0));
        if artefact[at] != code[at] {
            return Some(format!("it differs from byte {at} on"));
        }
        at += if is_filled_in { 33 } else { 1 };
    }
    None
}

/// Compares what a contract says with what it should say.
async fn says<C: SolCall>(
    desk: &Desk,
    findings: &mut Findings,
    contract: Contract,
    call: C,
    expected: Contract,
) -> Result<(), OpsError>
where
    C::Return: Into<Address>,
{
    let found: Address = desk.look(contract, call).await?.into();
    let place = desk.deployment().contracts.of(expected);
    let function = C::SIGNATURE.trim_end_matches("()");
    let about = format!("{function} of {}", contract.name());
    findings.add(about, (found != place).then(|| format!("it is {found}, not {place}")));
    Ok(())
}

async fn wiring(desk: &Desk, findings: &mut Findings) -> Result<(), OpsError> {
    use Contract as C;
    let f = findings;
    says(desk, f, C::Escrow, Escrow::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Escrow, Escrow::oracleCall {}, C::Oracle).await?;
    says(desk, f, C::Escrow, Escrow::treasuryCall {}, C::Treasury).await?;
    says(desk, f, C::Oracle, MedianOracle::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Oracle, MedianOracle::treasuryCall {}, C::Treasury).await?;
    says(desk, f, C::Emissions, Emissions::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Emissions, Emissions::oracleCall {}, C::Oracle).await?;
    says(desk, f, C::Licences, CheckerLicense::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Licences, CheckerLicense::oracleCall {}, C::Oracle).await?;
    says(desk, f, C::Licences, CheckerLicense::treasuryCall {}, C::Treasury).await?;
    says(desk, f, C::Registry, Registry::licensesCall {}, C::Licences).await?;
    says(desk, f, C::Staking, Staking::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Staking, Staking::registryCall {}, C::Registry).await?;
    says(desk, f, C::Staking, Staking::oracleCall {}, C::Oracle).await?;
    says(desk, f, C::Rewards, Rewards::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Rewards, Rewards::emissionsCall {}, C::Emissions).await?;
    says(desk, f, C::Rewards, Rewards::treasuryCall {}, C::Treasury).await?;
    says(desk, f, C::Slashing, Slashing::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Slashing, Slashing::registryCall {}, C::Registry).await?;
    says(desk, f, C::Slashing, Slashing::stakingCall {}, C::Staking).await?;
    says(desk, f, C::Slashing, Slashing::rewardsCall {}, C::Rewards).await?;
    says(desk, f, C::Slashing, Slashing::escrowCall {}, C::Escrow).await?;
    says(desk, f, C::Slashing, Slashing::treasuryCall {}, C::Treasury).await?;
    says(desk, f, C::Governor, WelkinGovernor::tokenCall {}, C::Ath).await?;
    says(desk, f, C::Governor, WelkinGovernor::stakingCall {}, C::Staking).await?;
    says(desk, f, C::Governor, WelkinGovernor::timelockCall {}, C::Treasury).await?;
    for managed in [
        C::Oracle,
        C::Emissions,
        C::Licences,
        C::Registry,
        C::Staking,
        C::Escrow,
        C::Rewards,
        C::Slashing,
    ] {
        says(desk, f, managed, Escrow::authorityCall {}, C::Authority).await?;
    }
    Ok(())
}

/// Who may what in the access manager.
async fn roles(desk: &Desk, findings: &mut Findings) -> Result<(), OpsError> {
    let places = desk.deployment().contracts;
    for role in Role::ALL {
        for (contract, selectors) in role.calls() {
            for selector in selectors {
                let selector = selector.into();
                let target = places.of(contract);
                let call = AccessManager::getTargetFunctionRoleCall { target, selector };
                let found = desk.look(Contract::Authority, call).await?;
                let about = format!("right to call {} {selector}", contract.name());
                let wrong = (found != role.id()).then(|| format!("it needs role {found}"));
                findings.add(about, wrong);
            }
        }
        let holders = holders(desk, role.id()).await?;
        let wrong = match role.contract() {
            Some(contract) => {
                let is_right = holders.iter().eq([&places.of(contract)]);
                (!is_right).then(|| format!("held by {}", list(&holders)))
            }
            None => holders.is_empty().then(|| "nobody has it".to_owned()),
        };
        findings.add(format!("role {}", role.name()), wrong);
    }
    let admins = holders(desk, ROLE_ADMIN).await?;
    let is_local = !places.faucet.is_zero();
    // On a network for trials its operator may set parameters, too.
    let is_right =
        admins.contains(&places.treasury) && admins.len() <= if is_local { 2 } else { 1 };
    findings.add("role admin", (!is_right).then(|| format!("held by {}", list(&admins))));
    Ok(())
}

/// Who has a role of the access manager: of all who ever got it, those who still do.
async fn holders(desk: &Desk, role: u64) -> Result<BTreeSet<Address>, OpsError> {
    let topic = B256::from(U256::from(role));
    let granted: Vec<AccessManager::RoleGranted> =
        desk.events(Contract::Authority, &[Some(topic)]).await?;
    let mut holders = BTreeSet::new();
    for account in granted.into_iter().map(|event| event.account).collect::<BTreeSet<_>>() {
        let call = AccessManager::hasRoleCall { roleId: role, account };
        if desk.look(Contract::Authority, call).await?.isMember {
            holders.insert(account);
        }
    }
    Ok(holders)
}

/// Who may what in the treasury: the governor decides, everybody executes, nobody is its admin.
async fn treasury(desk: &Desk, findings: &mut Findings) -> Result<(), OpsError> {
    let places = desk.deployment().contracts;
    let (governor, treasury) = (places.governor, places.treasury);
    for (name, role, expected) in [
        ("proposer", keccak256("PROPOSER_ROLE"), governor),
        ("canceller", keccak256("CANCELLER_ROLE"), governor),
        ("executor", keccak256("EXECUTOR_ROLE"), Address::ZERO),
        ("admin", B256::ZERO, treasury),
    ] {
        let granted: Vec<Treasury::RoleGranted> =
            desk.events(Contract::Treasury, &[Some(role)]).await?;
        let mut holders = BTreeSet::new();
        for account in granted.into_iter().map(|event| event.account).collect::<BTreeSet<_>>() {
            let call = Treasury::hasRoleCall { role, account };
            if desk.look(Contract::Treasury, call).await? {
                holders.insert(account);
            }
        }
        let is_right = holders.iter().eq([&expected]);
        let wrong = (!is_right).then(|| format!("held by {}", list(&holders)));
        findings.add(format!("treasury's {name}"), wrong);
    }
    Ok(())
}

fn list(accounts: &BTreeSet<Address>) -> String {
    if accounts.is_empty() {
        return "nobody".to_owned();
    }
    let texts: Vec<_> = accounts.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_constructor_fills_in_may_differ() {
        let mut artefact = vec![0x60, 0x01, PUSH32];
        artefact.extend([0; 32]);
        artefact.extend([0x00, 0x56]);
        let mut code = artefact.clone();
        code[3..35].fill(0xab);
        assert_eq!(difference(&artefact, &code), None);
        // Zeros that are not a constructor's place are part of the code.
        code[35] = 1;
        assert_eq!(difference(&artefact, &code).as_deref(), Some("it differs from byte 35 on"));
        code.pop();
        assert_eq!(difference(&artefact, &code).as_deref(), Some("it has 36 bytes, not 37"));
    }
}
