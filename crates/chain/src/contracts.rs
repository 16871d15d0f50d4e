//! The contracts' calls, events and errors, bound to the committed artefacts.
//!
//! The types come from `contracts/abi/*.json`, which are compiled from `contracts/src`; the contract
//! tests recompile and compare. Each has a module of its own: several name the same structs.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "made by a macro from the contracts' interfaces"
)]

mod access_manager {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        AccessManager,
        "../../contracts/abi/AccessManager.json"
    );
}
mod ath {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Ath,
        "../../contracts/abi/Ath.json"
    );
}
mod checker_license {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        CheckerLicense,
        "../../contracts/abi/CheckerLicense.json"
    );
}
mod emissions {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Emissions,
        "../../contracts/abi/Emissions.json"
    );
}
mod escrow {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Escrow,
        "../../contracts/abi/Escrow.json"
    );
}
mod local_faucet {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        LocalFaucet,
        "../../contracts/abi/LocalFaucet.json"
    );
}
mod median_oracle {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        MedianOracle,
        "../../contracts/abi/MedianOracle.json"
    );
}
mod registry {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Registry,
        "../../contracts/abi/Registry.json"
    );
}
mod rewards {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Rewards,
        "../../contracts/abi/Rewards.json"
    );
}
mod slashing {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Slashing,
        "../../contracts/abi/Slashing.json"
    );
}
mod staking {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Staking,
        "../../contracts/abi/Staking.json"
    );
}
mod treasury {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        Treasury,
        "../../contracts/abi/Treasury.json"
    );
}
mod governor {
    alloy_sol_types::sol!(
        #[derive(Debug, PartialEq, Eq)]
        WelkinGovernor,
        "../../contracts/abi/WelkinGovernor.json"
    );
}

pub use access_manager::AccessManager;
pub use ath::Ath;
pub use checker_license::CheckerLicense;
pub use emissions::Emissions;
pub use escrow::{Escrow, IEscrow};
pub use governor::WelkinGovernor;
pub use local_faucet::LocalFaucet;
pub use median_oracle::MedianOracle;
pub use registry::Registry;
pub use rewards::{Committee, Rewards};
pub use slashing::Slashing;
pub use staking::Staking;
pub use treasury::Treasury;
