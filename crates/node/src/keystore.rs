//! Account keys under a passphrase, in files of the Web3 Secret Storage Definition, version 3: those
//! that Geth, Foundry's `cast` and most wallets read and write.
//!
//! The passphrase becomes a key by scrypt (files of others may use PBKDF2); half of it encrypts the
//! secret with AES-128 in counter mode, the other half makes a check value, so that a wrong
//! passphrase is known as one. The account's address stands in the file as it is: it can be looked
//! at without the passphrase.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aes::Aes128;
use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use alloy_primitives::{Address, Bytes, hex, keccak256};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use welkin_proto::{AccountKey, KeyError};
use zeroize::Zeroizing;

use crate::outside;

type Ctr = ctr::Ctr128BE<Aes128>;

/// The work that a guess of the passphrase costs: 2^17 rounds of 1 KiB, 128 MiB of memory.
const LOG_N: u8 = 17;
/// The most memory that a file may ask for, in bytes: others' files choose it.
const MEMORY_MAX: u64 = 1 << 30;
/// The most lanes, one after the other, that a file may ask for.
const LANES_MAX: u32 = 16;
/// The most rounds of PBKDF2 that a file may ask for.
const ROUNDS_MAX: u32 = 10_000_000;
/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The longest name of a key.
const NAME_LEN_MAX: usize = 64;

/// Why a keystore's file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The passphrase is another one, or the file is damaged.
    #[error("wrong passphrase for {}", .0.display())]
    Passphrase(PathBuf),
    /// It is no keystore.
    #[error("{} is no keystore of version 3", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// It can't be read or written.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("there is a key `{0}` already")]
    Exists(String),
    /// There is none.
    #[error("there is no key `{0}`")]
    Unknown(String),
    /// It can't be the name of a key.
    #[error("`{0}` can't be a key's name: letters, digits, `-` and `_`, at most {NAME_LEN_MAX}")]
    Name(String),
    /// What is in it is no key of the curve.
    #[error("the key can't be used")]
    Key(#[source] KeyError),
}

/// Why text is no keystore.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It is not the JSON of one.
    #[error("it can't be read")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it is of version {0}")]
    Version(u64),
    /// It uses what is not known here.
    #[error("it uses {0}, which is not known here")]
    Unknown(String),
    /// A number is beyond what is reasonable.
    #[error("its {0} is out of bounds")]
    Bounds(&'static str),
    /// It is too long.
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    Long,
}

/// A key under a passphrase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keystore {
    version: u64,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    #[serde(with = "plain_hex")]
    ciphertext: Bytes,
    #[serde(flatten)]
    kdf: Kdf,
    #[serde(with = "plain_hex")]
    mac: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CipherParams {
    #[serde(with = "plain_hex")]
    iv: Bytes,
}

/// How a passphrase becomes a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt {
        dklen: u32,
        n: u64,
        r: u32,
        p: u32,
        #[serde(with = "plain_hex")]
        salt: Bytes,
    },
    Pbkdf2 {
        dklen: u32,
        c: u32,
        prf: String,
        #[serde(with = "plain_hex")]
        salt: Bytes,
    },
}

impl Kdf {
    fn derive(&self, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, FormatError> {
        let mut key = Zeroizing::new([0; 32]);
        let length = match self {
            Self::Scrypt { dklen, .. } | Self::Pbkdf2 { dklen, .. } => *dklen,
        };
        if length != 32 {
            return Err(FormatError::Bounds("key length"));
        }
        match self {
            Self::Scrypt { n, r, p, salt, .. } => {
                let memory = n.saturating_mul(u64::from(*r)).saturating_mul(128);
                if !n.is_power_of_two() || *n < 2 || memory > MEMORY_MAX || *p > LANES_MAX {
                    return Err(FormatError::Bounds("scrypt work"));
                }
                let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
                let bounds = |_| FormatError::Bounds("scrypt work");
                let params = scrypt::Params::new(log_n, *r, *p, 32).map_err(bounds)?;
                scrypt::scrypt(passphrase.as_bytes(), salt, &params, &mut *key)
                    .map_err(|_| FormatError::Bounds("key length"))?;
            }
            Self::Pbkdf2 { c, prf, salt, .. } => {
                if prf != "hmac-sha256" {
                    return Err(FormatError::Unknown(prf.chars().take(40).collect()));
                }
                if *c == 0 || *c > ROUNDS_MAX {
                    return Err(FormatError::Bounds("number of rounds"));
                }
                pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.as_bytes(), salt, *c, &mut *key);
            }
        }
        Ok(key)
    }
}

/// The check value of a derived key and what it encrypts.
fn mac(key: &[u8; 32], ciphertext: &[u8]) -> [u8; 32] {
    keccak256([&key[16..], ciphertext].concat()).0
}

fn cipher(key: &[u8; 32], iv: &[u8]) -> Option<Ctr> {
    Ctr::new_from_slices(&key[..16], iv).ok()
}

impl Keystore {
    /// Puts a key under a passphrase.
    ///
    /// # Errors
    ///
    /// [`FormatError`], which does not happen.
    pub fn seal(key: &AccountKey, passphrase: &str) -> Result<Self, FormatError> {
        Self::seal_with(key, passphrase, LOG_N)
    }

    fn seal_with(key: &AccountKey, passphrase: &str, log_n: u8) -> Result<Self, FormatError> {
        let salt = Bytes::from(outside::random::<32>().to_vec());
        let kdf = Kdf::Scrypt { dklen: 32, n: 1 << log_n, r: 8, p: 1, salt };
        let derived = kdf.derive(passphrase)?;
        let iv = outside::random::<16>();
        let mut text = key.secret().to_vec();
        let mut cipher = cipher(&derived, &iv).ok_or(FormatError::Bounds("iv"))?;
        // From here on it is no secret any more.
        cipher.apply_keystream(&mut text);
        let check = mac(&derived, &text);
        Ok(Self {
            version: 3,
            id: uuid(),
            address: Some(hex::encode(key.id().as_bytes())),
            crypto: Crypto {
                cipher: "aes-128-ctr".to_owned(),
                cipherparams: CipherParams { iv: Bytes::from(iv.to_vec()) },
                ciphertext: text.into(),
                kdf,
                mac: Bytes::from(check.to_vec()),
            },
        })
    }

    /// The key; none if the passphrase is wrong.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where the file uses what is not known here.
    pub fn open(&self, passphrase: &str) -> Result<Option<Zeroizing<[u8; 32]>>, FormatError> {
        let crypto = &self.crypto;
        if crypto.cipher != "aes-128-ctr" {
            return Err(FormatError::Unknown(crypto.cipher.chars().take(40).collect()));
        }
        let derived = crypto.kdf.derive(passphrase)?;
        if mac(&derived, &crypto.ciphertext)[..] != crypto.mac[..] {
            return Ok(None);
        }
        let mut secret = Zeroizing::new([0; 32]);
        if crypto.ciphertext.len() != secret.len() {
            return Err(FormatError::Bounds("secret"));
        }
        secret.copy_from_slice(&crypto.ciphertext);
        let mut cipher =
            cipher(&derived, &crypto.cipherparams.iv).ok_or(FormatError::Bounds("iv"))?;
        cipher.apply_keystream(&mut *secret);
        Ok(Some(secret))
    }

    /// The account, where the file says it.
    pub fn address(&self) -> Option<Address> {
        self.address.as_ref()?.parse().ok()
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`FormatError`]
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(FormatError::Long);
        }
        let Version { version } = serde_json::from_str(text)?;
        if version != 3 {
            return Err(FormatError::Version(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Its text.
    pub fn text(&self) -> String {
        // Strings and numbers can always be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// A random one (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes = outside::random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    let (a, b, c, d, e) = (&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// A folder of keystores, each a file `NAME.json` that nobody else can read.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// Uses a folder; it is made when first written to.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a key is, whether it is there or not.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Name`]
    pub fn path(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_plain) {
            return Err(KeystoreError::Name(name.chars().take(100).collect()));
        }
        Ok(self.dir.join(format!("{name}.json")))
    }

    /// The names of the keys, sorted.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Io`]
    pub fn names(&self) -> Result<Vec<String>, KeystoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(KeystoreError::Io { what: "read", path: self.dir.clone(), source });
            }
        };
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(".json")?;
            self.path(name).is_ok().then(|| name.to_owned())
        };
        let mut names: Vec<_> = entries.filter_map(Result::ok).filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`KeystoreError`]
    pub fn load(&self, name: &str) -> Result<Keystore, KeystoreError> {
        let path = self.path(name)?;
        match load(&path) {
            Err(KeystoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(KeystoreError::Unknown(name.to_owned()))
            }
            other => other,
        }
    }

    /// Opens one.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Passphrase`] where it is the wrong one, else [`KeystoreError`].
    pub fn open(&self, name: &str, passphrase: &str) -> Result<AccountKey, KeystoreError> {
        let path = self.path(name)?;
        open(&self.load(name)?, &path, passphrase)
    }

    /// Writes a new one; never over another.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Exists`] where there is one, else [`KeystoreError`].
    pub fn add(&self, name: &str, keystore: &Keystore) -> Result<PathBuf, KeystoreError> {
        let path = self.path(name)?;
        let io = |source| KeystoreError::Io { what: "write", path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io)?;
        let draft = path.with_extension(format!("{:08x}", u32::from_le_bytes(outside::random())));
        let put = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(keystore.text().as_bytes())?;
            file.sync_all()?;
            let linked = fs::hard_link(&draft, &path);
            fs::remove_file(&draft)?;
            linked
        };
        match put() {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeystoreError::Exists(name.to_owned()))
            }
            Err(error) => Err(io(error)),
        }
    }
}

/// Reads a keystore anywhere.
///
/// # Errors
///
/// [`KeystoreError`]
pub fn load(path: &Path) -> Result<Keystore, KeystoreError> {
    let io = |source| KeystoreError::Io { what: "read", path: path.to_owned(), source };
    let format = |source| KeystoreError::Format { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(format(FormatError::Long));
    }
    Keystore::parse(&fs::read_to_string(path).map_err(io)?).map_err(format)
}

/// Opens a keystore that was read from `path`.
///
/// # Errors
///
/// [`KeystoreError::Passphrase`] where it is the wrong one, else [`KeystoreError`].
pub fn open(
    keystore: &Keystore,
    path: &Path,
    passphrase: &str,
) -> Result<AccountKey, KeystoreError> {
    let opened = keystore.open(passphrase);
    let opened =
        opened.map_err(|source| KeystoreError::Format { path: path.to_owned(), source })?;
    let secret = opened.ok_or_else(|| KeystoreError::Passphrase(path.to_owned()))?;
    AccountKey::from_secret(&secret).map_err(KeystoreError::Key)
}

/// Bytes as hexadecimal digits without `0x`; with it they are read, too.
mod plain_hex {
    use alloy_primitives::{Bytes, hex};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(d)?;
        hex::decode(&text).map(Bytes::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
