//! The embedded chain of a local network, with the contracts on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use welkin_chain::genesis::{self, LocalSetup};
use welkin_evm::{Chain, Clock, Genesis, GenesisTransaction};
use welkin_proto::Domain;
use welkin_types::{AccountId, Usd};

use crate::outside;

/// What an ATH costs on a local network, in micro-dollars: a whole number of wei for each
/// micro-dollar, so that test money is counted exactly.
const ATH_PRICE_MICROS: u64 = 50_000;

/// What a local network's chain begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalChain {
    /// Who may set parameters.
    pub admin: AccountId,
    /// The most test money of one request.
    pub faucet_max: Usd,
}

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalChainError {
    /// The file with its beginning can't be read or written.
    #[error("failed to {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// That file is damaged.
    #[error("{0} is damaged: put it back from a copy, or remove its folder to begin anew")]
    Damaged(PathBuf),
    /// The chain can't be opened.
    #[error("failed to open the chain")]
    Open(#[source] welkin_evm::OpenError),
}

/// What a chain was begun with: written once, so that later settings do not make it another.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    admin: AccountId,
    ath_price_micros: u64,
    faucet_micros_max: u64,
    /// In seconds since 1970; epochs are counted from there.
    started_seconds: u64,
}

impl LocalChain {
    /// Opens the chain in a folder, beginning it where there is none.
    ///
    /// # Errors
    ///
    /// [`LocalChainError`]
    pub fn open(self, dir: &Path) -> Result<Arc<Chain>, LocalChainError> {
        let begun = self.begun(&dir.join("genesis.json"))?;
        let setup = LocalSetup {
            admin: welkin_chain::address(begun.admin),
            ath_price_micros: begun.ath_price_micros,
            faucet_micros_max: begun.faucet_micros_max,
            start: begun.started_seconds,
        };
        let mut genesis = Genesis::new(Domain::LOCAL.chain_id);
        genesis.timestamp = begun.started_seconds;
        genesis.transactions = genesis::local(&setup)
            .into_iter()
            .map(|first| GenesisTransaction { from: first.from, to: first.to, data: first.input })
            .collect();
        let clock = Clock::new(|| outside::now().0 / 1_000);
        Chain::open(&dir.join("chain.redb"), genesis, clock).map_err(LocalChainError::Open)
    }

    fn begun(self, path: &Path) -> Result<Begun, LocalChainError> {
        let io = |what, source| LocalChainError::Io { what, path: path.to_owned(), source };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| LocalChainError::Damaged(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let begun = Begun {
                    admin: self.admin,
                    ath_price_micros: ATH_PRICE_MICROS,
                    faucet_micros_max: self.faucet_max.micros(),
                    started_seconds: outside::now().0 / 1_000,
                };
                let text = serde_json::to_vec_pretty(&begun)
                    .map_err(|error| io("encode", error.into()))?;
                let draft = path.with_extension("new");
                fs::write(&draft, text)
                    .and_then(|()| fs::rename(&draft, path))
                    .map_err(|source| io("write", source))?;
                Ok(begun)
            }
            Err(error) => Err(io("read", error)),
        }
    }
}
