//! Where a network stands on a chain, as a file: what `welkin chain deploy` writes and everybody
//! else reads.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{Contract, Places};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A network's contracts on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The chain's id: signatures hold there only.
    pub chain_id: u64,
    /// The block from which on there is anything to look for.
    pub first_block: u64,
    /// Where the contracts stand.
    pub contracts: Places,
}

/// Why a deployment's file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// It can't be read.
    #[error("failed to read the deployment's file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can't be written.
    #[error("failed to write the deployment's file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what `welkin chain deploy` writes.
    #[error("{} is no deployment's file as `welkin chain deploy` writes it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        #[source]
        source: serde_json::Error,
    },
    /// It is far longer than such a file is.
    #[error("{} is too long for a deployment's file: more than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// What it says can't be.
    #[error("the deployment's file {} makes no sense: {why}", path.display())]
    Nonsense {
        /// The file.
        path: PathBuf,
        /// What can't be.
        why: String,
    },
}

impl Deployment {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`DeploymentError`] where it is missing, or is no such file, or names a place twice or none.
    pub fn load(path: &Path) -> Result<Self, DeploymentError> {
        let read = |source| DeploymentError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(DeploymentError::TooLong(path.to_owned()));
        }
        let bytes = fs::read(path).map_err(read)?;
        let parsed: Self = serde_json::from_slice(&bytes)
            .map_err(|source| DeploymentError::Format { path: path.to_owned(), source })?;
        match parsed.contradiction() {
            Some(why) => Err(DeploymentError::Nonsense { path: path.to_owned(), why }),
            None => Ok(parsed),
        }
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`DeploymentError::Write`]
    pub fn save(&self, path: &Path) -> Result<(), DeploymentError> {
        let write = |source| DeploymentError::Write { path: path.to_owned(), source };
        let mut text =
            serde_json::to_string_pretty(self).map_err(io::Error::other).map_err(write)?;
        text.push('\n');
        let beside = path.with_extension("new");
        let put = || {
            let mut file = fs::File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        put().map_err(write)
    }

    /// What can't be in it; none where all is well.
    fn contradiction(&self) -> Option<String> {
        if self.chain_id == 0 {
            return Some("no chain has the id 0".to_owned());
        }
        let mut seen = BTreeMap::new();
        for contract in Contract::ALL {
            let place = self.contracts.of(contract);
            if place.is_zero() {
                if contract != Contract::Faucet {
                    return Some(format!("the contract `{}` has no address", contract.name()));
                }
            } else if let Some(other) = seen.insert(place, contract) {
                let (a, b) = (other.name(), contract.name());
                return Some(format!("`{a}` and `{b}` have the same address {place}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;

    use super::*;

    fn deployment() -> Deployment {
        Deployment { chain_id: 42_161, first_block: 7, contracts: Places::local() }
    }

    fn load(folder: &Path, text: &str) -> String {
        let path = folder.join("bad.json");
        fs::write(&path, text).unwrap();
        let error = Deployment::load(&path).unwrap_err();
        let cause = std::error::Error::source(&error);
        cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployment.json");
        deployment().save(&path).unwrap();
        assert_eq!(Deployment::load(&path).unwrap(), deployment());
        let mut without = deployment();
        without.contracts.faucet = Address::ZERO;
        without.save(&path).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("faucet"));
        assert_eq!(Deployment::load(&path).unwrap(), without);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent.json");
        assert!(matches!(Deployment::load(&path), Err(DeploymentError::Read { .. })));
        let good = serde_json::to_string(&deployment()).unwrap();
        assert!(load(folder.path(), "{").contains("welkin chain deploy"));
        assert!(load(folder.path(), &good.replace("chain_id", "chain")).contains("chain"));
        assert!(load(folder.path(), &good.replace("42161", "0")).contains("id 0"));
        let places = deployment().contracts;
        let of = |place: Address| serde_json::to_string(&place).unwrap();
        let twice = good.replace(&of(places.ath), &of(places.escrow));
        assert!(load(folder.path(), &twice).contains("`ath` and `escrow` have the same address"));
        let none = good.replace(&of(places.ath), &of(Address::ZERO));
        assert!(load(folder.path(), &none).contains("`ath` has no address"));
        let long = " ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        assert!(load(folder.path(), &long).contains("too long"));
    }
}
