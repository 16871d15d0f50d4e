//! Keys in files, and an account's permission for a node.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use welkin_check::sortition::VrfKey;
use welkin_proto::{AccountKey, Delegation, Domain, KeyError, NodeKey, SignedByAccount};
use welkin_types::NodeId;

use crate::outside;

/// Why a key can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file can't be read or made.
    #[error("failed to {what} the key file {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("the key file {path} can be read by others: run `chmod 600 {path}`")]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds no key.
    #[error("the key file {path} does not hold 64 hexadecimal digits")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The key is no key of the curve.
    #[error("the key can't be used")]
    Key(#[source] KeyError),
}

/// Reads the node key of a role, making one where there is none.
///
/// # Errors
///
/// [`IdentityError`] where the file is unreadable, exposed or malformed.
pub fn node_key(path: &Path) -> Result<NodeKey, IdentityError> {
    secret(path).map(|secret| NodeKey::from_secret(&secret))
}

/// Reads the key with which a checker draws, making one where there is none.
///
/// # Errors
///
/// [`IdentityError`] where the file is unreadable, exposed or malformed.
pub fn vrf_key(path: &Path) -> Result<VrfKey, IdentityError> {
    let malformed = || IdentityError::Malformed { path: path.to_owned() };
    secret(path).and_then(|secret| VrfKey::from_seed(&secret).ok_or_else(malformed))
}

/// Reads an account key, making one where there is none.
///
/// # Errors
///
/// [`IdentityError`] where the file is unreadable, exposed or malformed.
pub fn account_key(path: &Path) -> Result<AccountKey, IdentityError> {
    AccountKey::from_secret(&secret(path)?).map_err(IdentityError::Key)
}

/// Signs that `node` acts for the account for so long.
///
/// # Errors
///
/// [`IdentityError::Key`] where the curve refuses.
pub fn delegate(
    domain: &Domain,
    account: &AccountKey,
    node: NodeId,
    lasting: Duration,
) -> Result<SignedByAccount<Delegation>, IdentityError> {
    let expires = outside::now().after(lasting);
    SignedByAccount::sign(domain, account, Delegation { node, expires }).map_err(IdentityError::Key)
}

/// Reads 32 secret bytes, making them where there are none.
pub(crate) fn secret(path: &Path) -> Result<[u8; 32], IdentityError> {
    match read(path) {
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path)
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<[u8; 32], IdentityError> {
    let io = |source| IdentityError::Io { what: "read", path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    parse(text.trim()).ok_or_else(|| IdentityError::Malformed { path: path.to_owned() })
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(secret)
}

/// Makes a key file that nobody else can read; if another process was faster, reads its.
fn create(path: &Path) -> Result<[u8; 32], IdentityError> {
    let io = |source| IdentityError::Io { what: "create", path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        // What lies beside a key (logs, books, receipts) is nobody else's business either.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    }
    let secret = outside::random::<32>();
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    // Written aside and linked, so that nobody ever reads half a key.
    let draft = path.with_extension(format!("{:08x}", u32::from_le_bytes(outside::random())));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(io)?;
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/node.key");
        let key = node_key(&path).unwrap();
        assert_eq!(node_key(&path).unwrap().id(), key.id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(node_key(&path), Err(IdentityError::Exposed { .. })));
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(account_key(&path), Err(IdentityError::Malformed { .. })));
    }
}
