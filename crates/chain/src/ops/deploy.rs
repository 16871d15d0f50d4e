//! Setting a network up on any chain, so that it can break off at any place and go on.
//!
//! One account sends everything, and each step has its number (nonce) from the beginning: what the
//! chain has counted is done, and the contracts' places follow from the numbers. So the journal is
//! written once, before the first step, and says only what must not change in between.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use super::OpsError;
use super::verify::difference;
use crate::deployment::{Contract, Deployment, Places, Setup, Step, Terms, steps};
use crate::rpc::Rpc;

/// How slow decisions and exits are, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// As on a network for real: [`Terms::NETWORK`].
    Network,
    /// As on one for trials: [`Terms::LOCAL`].
    Trial,
}

impl Pace {
    const fn terms(self) -> Terms {
        match self {
            Self::Network => Terms::NETWORK,
            Self::Trial => Terms::LOCAL,
        }
    }
}

/// What a deployment was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The chain's id.
    pub chain_id: u64,
    /// The block before which there is nothing.
    pub first_block: u64,
    /// Who sends everything.
    pub root: Address,
    /// The number of its first transaction.
    pub first_nonce: u64,
    /// Who verifies, judges, guards and reports the price at first.
    pub operator: Address,
    /// When the first epoch begins, in seconds since 1970.
    pub start: u64,
    /// What an ATH costs in micro-dollars.
    pub ath_price_micros: u64,
    /// The most test money at once, in micro-dollars; none: no faucet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faucet_micros_max: Option<u64>,
    /// How slow things are.
    pub pace: Pace,
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It can't be read or written.
    #[error("failed to {what} the journal {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{} is no journal of a deployment", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Journal {
    /// Reads one; none where there is no file.
    ///
    /// # Errors
    ///
    /// [`JournalError`]
    pub fn load(path: &Path) -> Result<Option<Self>, JournalError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(JournalError::Io { what: "read", path: path.to_owned(), source });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| JournalError::Format { path: path.to_owned(), source })
    }

    /// Writes it, whole or not at all; never over another.
    ///
    /// # Errors
    ///
    /// [`JournalError`]
    pub fn save(&self, path: &Path) -> Result<(), JournalError> {
        let put = || {
            let mut text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
            text.push('\n');
            let beside = path.with_extension("new");
            let mut file = fs::File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::hard_link(&beside, path)?;
            fs::remove_file(&beside)
        };
        put().map_err(|source| JournalError::Io { what: "write", path: path.to_owned(), source })
    }

    /// Where the contracts will stand: what an account deploys follows from its number.
    pub fn places(&self) -> Places {
        let mut nonce = self.first_nonce;
        Places::by(|contract| {
            if contract == Contract::Faucet && self.faucet_micros_max.is_none() {
                return Address::ZERO;
            }
            let place = self.root.create(nonce);
            nonce += 1;
            place
        })
    }

    /// What the network will be.
    pub fn deployment(&self) -> Deployment {
        let (chain_id, first_block) = (self.chain_id, self.first_block);
        Deployment { chain_id, first_block, contracts: self.places() }
    }

    /// What the root sends, in order, and what only the operator can send afterwards.
    pub fn steps(&self) -> (Vec<Step>, Vec<Step>) {
        let setup = Setup {
            places: self.places(),
            root: self.root,
            operator: self.operator,
            is_operator_admin: false,
            start: self.start,
            ath_price_micros: self.ath_price_micros,
            faucet_micros_max: self.faucet_micros_max,
            terms: self.pace.terms(),
        };
        let is_same = self.root == self.operator;
        steps(&setup).into_iter().partition(|step| is_same || !step.is_by_operator)
    }

    /// How many of the root's steps the chain has.
    ///
    /// # Errors
    ///
    /// [`OpsError`] where the chain can't be asked, is another one, or has had other transactions
    /// of the root in between.
    pub async fn progress(&self, rpc: &Rpc) -> Result<usize, OpsError> {
        let of = |error| OpsError::of("look how far the deployment has come", error);
        let chain_id = rpc.chain_id().await.map_err(of)?;
        if chain_id != self.chain_id {
            return Err(OpsError::unfit(
                format!("the deployment was begun on chain {}, this is {chain_id}", self.chain_id),
                "name the right node, or another file with --out",
            ));
        }
        let nonce = rpc.nonce(self.root).await.map_err(of)?;
        let (steps, _) = self.steps();
        let done = usize::try_from(nonce.saturating_sub(self.first_nonce)).unwrap_or(usize::MAX);
        let places = self.places();
        for step in steps.iter().take(done).filter(|step| step.is_deployment) {
            let place = places.of(step.contract);
            let code = rpc.code(place).await.map_err(of)?;
            if difference(step.contract.deployed_code(), &code).is_some() {
                return Err(OpsError::unfit(
                    format!(
                        "the account {} has sent something else in between: there is no `{}` at \
                         {place}",
                        self.root,
                        step.contract.name()
                    ),
                    "begin anew with another --out, and use the account for nothing else until \
                     it is done",
                ));
            }
        }
        if nonce < self.first_nonce {
            return Err(OpsError::unfit(
                "the chain has fewer transactions of the account than at the beginning: is it \
                 another chain with the same id, or was it set back?",
                "begin anew with another --out",
            ));
        }
        Ok(done.min(steps.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(faucet: Option<u64>) -> Journal {
        Journal {
            chain_id: 31_337,
            first_block: 4,
            root: Address::repeat_byte(7),
            first_nonce: 12,
            operator: Address::repeat_byte(8),
            start: 1_800_000_000,
            ath_price_micros: 50_000,
            faucet_micros_max: faucet,
            pace: Pace::Trial,
        }
    }

    #[test]
    fn a_journal_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployment.journal");
        assert_eq!(Journal::load(&path).unwrap(), None);
        journal(None).save(&path).unwrap();
        assert_eq!(Journal::load(&path).unwrap(), Some(journal(None)));
        assert!(matches!(journal(Some(1)).save(&path), Err(JournalError::Io { .. })));
        assert_eq!(Journal::load(&path).unwrap(), Some(journal(None)));
        fs::write(&path, "{").unwrap();
        assert!(matches!(Journal::load(&path), Err(JournalError::Format { .. })));
    }

    #[test]
    fn places_follow_from_numbers() {
        for faucet in [None, Some(5)] {
            let journal = journal(faucet);
            let (steps, _) = journal.steps();
            let deployed = steps.iter().filter(|step| step.is_deployment);
            for (nonce, step) in (12..).zip(deployed) {
                assert_eq!(journal.places().of(step.contract), journal.root.create(nonce));
            }
            assert_eq!(journal.places().faucet.is_zero(), faucet.is_none());
        }
    }

    #[test]
    fn what_only_the_operator_can_send_is_apart() {
        let (steps, later) = journal(None).steps();
        assert!(steps.iter().all(|step| !step.is_by_operator));
        assert_eq!(later.len(), 1);
        let alone = Journal { operator: Address::repeat_byte(7), ..journal(None) };
        assert_eq!(alone.steps().1, Vec::new());
        assert_eq!(alone.steps().0.len(), steps.len() + 1);
    }
}
