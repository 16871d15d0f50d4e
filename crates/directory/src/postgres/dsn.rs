//! Where the database is and how to log in; never printed whole.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that nobody acknowledges for so long end a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);

/// A database, as `host=/run/postgresql dbname=welkin user=welkin` or
/// `postgresql://welkin:secret@127.0.0.1/welkin`.
#[derive(Clone)]
pub struct Dsn {
    config: tokio_postgres::Config,
}

/// Why a text names no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DsnError {
    /// The text is not repeated: a password may stand in it.
    #[error(
        "this names no database: expected `host=… dbname=… user=… password=…` or \
         `postgresql://user:password@host/database`"
    )]
    Malformed,
    /// No place.
    #[error("no database host is named: add `host=…`, a name or the folder of a socket")]
    NoHost,
    /// TLS is asked for.
    #[error(
        "TLS to the database is asked for and not built in: use a socket, the same machine or a \
         protected network with `sslmode=prefer` or `disable`"
    )]
    Tls,
}

impl Dsn {
    /// Reads a connection string.
    ///
    /// # Errors
    ///
    /// [`DsnError`], which never repeats the text.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let parsed = text.trim().parse::<tokio_postgres::Config>();
        let mut config = parsed.map_err(|_| DsnError::Malformed)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DsnError::NoHost);
        }
        if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            return Err(DsnError::Tls);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("welkin-indexer");
        }
        Ok(Self { config })
    }

    pub(super) const fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }
}

impl fmt::Display for Dsn {
    /// Prints who logs in where, and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.config.get_user().unwrap_or("?");
        let name = self.config.get_dbname().unwrap_or(user);
        write!(f, "{name} as {user} at ")?;
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => f.write_str(host)?,
            Some(Host::Unix(path)) => path.display().fmt(f)?,
            None => f.write_str("an address")?,
        }
        match self.config.get_ports().first() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        for text in [
            "host=/run/postgresql port=5433 dbname=fleet user=ix password=hunter2",
            "postgresql://ix:hunter2@db.example:5433/fleet",
        ] {
            let dsn = Dsn::parse(text).unwrap();
            for shown in [dsn.to_string(), format!("{dsn:?}")] {
                assert!(shown.contains("fleet as ix at"), "{shown}");
                assert!(!shown.contains("hunter2"), "{shown}");
            }
        }
        for text in ["host=a passwrod=hunter2", "hunter2", "host='hunter2"] {
            let error = Dsn::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        assert_eq!(Dsn::parse("dbname=a user=b").unwrap_err(), DsnError::NoHost);
        assert_eq!(Dsn::parse("host=a sslmode=require").unwrap_err(), DsnError::Tls);
    }
}
