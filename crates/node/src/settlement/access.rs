//! How a process reaches a network's chain and pays for gas there.

use serde::{Deserialize, Serialize};
use welkin_chain::batch::BatchConfig;
use welkin_chain::http::{HttpError, NodeUrl};
use welkin_chain::node::{Checked, Expected};
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::Rpc;
use welkin_proto::{AccountKey, Domain};
use welkin_types::{BasisPoints, Usd};

use super::{EvmConfig, EvmSettlement, Line, Settle};
use crate::Shutdown;
use crate::network::Network;

/// Chains of development nodes, which make a block for each transaction and none besides.
const DEVELOPMENT_CHAINS: [u64; 2] = [1_337, 31_337];
/// How many blocks must lie upon a transaction's block on other chains.
const CONFIRMATIONS: u64 = 2;
/// The most blocks that one may ask for.
const CONFIRMATIONS_MAX: u64 = 1_000;
const GWEI: u128 = 1_000_000_000;

/// How the chain is reached and paid for, where it is no embedded one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainConfig {
    /// A node of the chain that is asked about money instead of the settlement service.
    pub rpc: NodeUrl,
    /// How many blocks must lie upon a transaction's block before it counts; empty: 2, on
    /// development chains (1337, 31337) 0.
    pub confirmations: String,
    /// The most to pay for a unit of gas, in gwei; above it transactions wait.
    pub gas_gwei_max: u32,
    /// The most that redeeming vouchers may cost of what they bring, in percent; below it they are
    /// collected.
    pub gas_percent_max: u8,
    /// What one of the chain's coins costs, in US dollars: only to judge the cost of gas.
    pub coin_usd: String,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            rpc: NodeUrl::default(),
            confirmations: String::new(),
            gas_gwei_max: 100,
            gas_percent_max: 2,
            coin_usd: "4000".to_owned(),
        }
    }
}

/// Why a chain can't be used so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainConfigError {
    /// The node's address is none.
    #[error("`chain.rpc` can't be used")]
    Rpc(#[source] HttpError),
    /// A value is none.
    #[error("`chain.{key}` can't be {value}: {why}")]
    Value {
        /// Which.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        why: &'static str,
    },
}

impl ChainConfig {
    /// How an account settles on a network.
    ///
    /// # Errors
    ///
    /// [`ChainConfigError`] where a value is none.
    pub fn evm(&self, network: &Network) -> Result<EvmConfig, ChainConfigError> {
        let domain = network.domain();
        if domain == Domain::LOCAL {
            return Ok(EvmConfig::of(domain));
        }
        let outbox = OutboxConfig {
            depth: self.depth(domain.chain_id)?,
            fee_max: u128::from(self.gas_gwei_max) * GWEI,
            ..OutboxConfig::default()
        };
        if self.gas_gwei_max == 0 {
            let (value, why) = ("0".to_owned(), "nothing would ever be sent");
            return Err(ChainConfigError::Value { key: "gas_gwei_max", value, why });
        }
        let share_max = u16::from(self.gas_percent_max).checked_mul(100).and_then(BasisPoints::new);
        let share_max = share_max.ok_or_else(|| ChainConfigError::Value {
            key: "gas_percent_max",
            value: self.gas_percent_max.to_string(),
            why: "at most 100",
        })?;
        let faucet = network.places().map(|places| places.faucet).filter(|place| !place.is_zero());
        Ok(EvmConfig {
            domain,
            faucet: faucet.map(super::history::account),
            outbox,
            is_gas_free: false,
            first_block: network.first_block,
            batch: BatchConfig { share_max, ..BatchConfig::default() },
            coin: self.coin()?,
            contracts: network.places(),
        })
    }

    /// The chain as this process sees it: by its own node where it has one, else by the settlement
    /// service.
    ///
    /// # Errors
    ///
    /// [`ChainConfigError::Rpc`]
    pub fn rpc(&self, domain: &Domain, line: &Line) -> Result<Rpc, ChainConfigError> {
        let Some(http) = self.rpc.http().map_err(ChainConfigError::Rpc)? else {
            return Ok(Rpc::new(line.clone()));
        };
        let contract = welkin_chain::address(domain.contract);
        let expected = Expected { chain_id: domain.chain_id, contract };
        Ok(Rpc::new(Checked::new(http, expected)))
    }

    /// Settlement for an account of a network.
    ///
    /// # Errors
    ///
    /// [`ChainConfigError`]
    pub fn settle(
        &self,
        network: &Network,
        line: Line,
        key: AccountKey,
        shutdown: &Shutdown,
    ) -> Result<Settle, ChainConfigError> {
        let evm = self.evm(network)?;
        let rpc = self.rpc(&evm.domain, &line)?;
        Ok(Settle::new(EvmSettlement::over(rpc, Some(line), key, evm, shutdown)))
    }

    fn depth(&self, chain_id: u64) -> Result<u64, ChainConfigError> {
        let text = self.confirmations.trim();
        if text.is_empty() {
            let is_development = DEVELOPMENT_CHAINS.contains(&chain_id);
            return Ok(if is_development { 0 } else { CONFIRMATIONS });
        }
        let depth = text.parse().ok().filter(|depth| *depth <= CONFIRMATIONS_MAX);
        depth.ok_or_else(|| ChainConfigError::Value {
            key: "confirmations",
            value: format!("`{}`", text.chars().take(40).collect::<String>()),
            why: "a number up to 1000, or \"\"",
        })
    }

    fn coin(&self) -> Result<Usd, ChainConfigError> {
        self.coin_usd.parse::<Usd>().ok().filter(|usd| !usd.is_zero()).ok_or_else(|| {
            let value = format!("`{}`", self.coin_usd.chars().take(40).collect::<String>());
            ChainConfigError::Value { key: "coin_usd", value, why: "a price such as \"4000\"" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_chains_need_no_blocks_upon() {
        let config = ChainConfig::default();
        assert_eq!(config.depth(31_337), Ok(0));
        assert_eq!(config.depth(42_161), Ok(2));
        let config = ChainConfig { confirmations: " 12 ".to_owned(), ..config };
        assert_eq!(config.depth(31_337), Ok(12));
        for bad in ["-1", "two", "1001", "1.5"] {
            let config = ChainConfig { confirmations: bad.to_owned(), ..ChainConfig::default() };
            assert!(config.depth(1).is_err(), "{bad}");
        }
    }
}
