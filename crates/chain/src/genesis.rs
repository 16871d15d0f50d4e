//! How the contracts come to stand on a local chain.
//!
//! Each is deployed by an address of its own that has no key, so that its place follows from its
//! name: all local networks have the same addresses, and a signature's domain is known before the
//! chain is there.

use alloy_primitives::{Address, Bytes, keccak256};

pub use crate::deployment::Places;
use crate::deployment::{Contract, Setup, Terms, steps};

/// One of the first transactions: executed without a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstTransaction {
    /// Whose name it carries.
    pub from: Address,
    /// The contract called; none deploys one.
    pub to: Option<Address>,
    /// Init code, or the call's data.
    pub input: Bytes,
}

/// What a local network is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSetup {
    /// Who may set parameters and reports the price.
    pub admin: Address,
    /// When the network began, in seconds since 1970: its epochs are counted from there.
    pub start: u64,
    /// What an ATH costs in micro-dollars.
    pub ath_price_micros: u64,
    /// The most test money at once, in micro-dollars; none: no faucet.
    pub faucet_micros_max: u64,
}

/// The address without a key that deploys this contract.
fn deployer(contract: Contract) -> Address {
    Address::from_word(keccak256(format!("welkin/genesis/{}", contract.name())))
}

impl Places {
    /// Where they stand on every local chain.
    pub fn local() -> Self {
        Self::by(|contract| deployer(contract).create(0))
    }
}

/// The first transactions of a local chain.
pub fn local(setup: &LocalSetup) -> Vec<FirstTransaction> {
    let places = Places::local();
    let root = deployer(Contract::Authority);
    let whole = Setup {
        places,
        root,
        operator: setup.admin,
        is_operator_admin: true,
        start: setup.start,
        ath_price_micros: setup.ath_price_micros,
        faucet_micros_max: Some(setup.faucet_micros_max),
        terms: Terms::LOCAL,
    };
    let first = steps(&whole).into_iter().map(|step| {
        if step.is_deployment {
            let from = deployer(step.contract);
            return FirstTransaction { from, to: None, input: step.input };
        }
        let from = if step.is_by_operator { setup.admin } else { root };
        FirstTransaction { from, to: Some(places.of(step.contract)), input: step.input }
    });
    first.collect()
}

#[cfg(test)]
mod tests {
    use welkin_proto::Domain;

    use super::*;

    #[test]
    fn the_local_domain_names_the_local_escrow() {
        let escrow = Places::local().escrow;
        assert_eq!(escrow.0.0, *Domain::LOCAL.contract.as_bytes(), "it is {escrow}");
    }
}
