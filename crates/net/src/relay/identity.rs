//! The relay's certificate and key on disk, so that the pin outlives a restart.
//!
//! The key is written first and the certificate last, each whole or not at all. A certificate
//! therefore always has its key; a lone key is left over from an interrupted start and replaced.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The file of the certificate, DER.
const CERT_FILE: &str = "relay-cert.der";
/// The file of the private key, PKCS#8 DER, for the owner's eyes only.
const KEY_FILE: &str = "relay-key.der";
/// Largest size of either file.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// The name in the certificate; clients look at the hash, not at the name.
const CERT_NAME: &str = "relay.invalid";

/// A certificate and its key.
pub(super) struct Identity {
    cert: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Loads the identity in `dir`, or makes one and keeps it there.
    pub(super) fn load_or_make(dir: &Path) -> io::Result<Self> {
        match read(&dir.join(CERT_FILE)) {
            Ok(cert) => {
                let key = read(&dir.join(KEY_FILE))?;
                Ok(Self { cert: cert.into(), key: key.into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Self::make()?;
                fs::create_dir_all(dir)?;
                write(dir, KEY_FILE, made.key.secret_pkcs8_der())?;
                write(dir, CERT_FILE, &made.cert)?;
                Ok(made)
            }
            Err(error) => Err(error),
        }
    }

    /// The certificate, DER.
    pub(super) fn cert_der(&self) -> &[u8] {
        &self.cert
    }

    /// TLS 1.3 with this certificate.
    pub(super) fn tls_config(&self) -> Result<rustls::ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.cert.clone()], self.key.clone_key().into())
    }

    fn make() -> io::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed([CERT_NAME.to_owned()]).map_err(io::Error::other)?;
        Ok(Self { cert: made.cert.der().clone(), key: made.signing_key.serialize_der().into() })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(format!("{name}.new"));
    // A draft of an interrupted start may have other permissions; never write into it.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_identity_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::load_or_make(dir.path()).unwrap();
        let loaded = Identity::load_or_make(dir.path()).unwrap();
        assert_eq!(made.cert, loaded.cert);
        loaded.tls_config().unwrap();
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lone_key_is_replaced_and_a_lone_certificate_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_make(dir.path()).unwrap();
        fs::remove_file(dir.path().join(CERT_FILE)).unwrap();
        Identity::load_or_make(dir.path()).unwrap().tls_config().unwrap();
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        assert!(Identity::load_or_make(dir.path()).is_err());
    }
}
