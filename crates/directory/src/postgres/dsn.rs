//! Where the database is and how to log in; never printed whole.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, SslMode};

use super::tls::{RootsError, Tls};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that nobody acknowledges for so long end a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);

/// A database, as `host=/run/postgresql dbname=welkin user=welkin` or
/// `postgresql://welkin:secret@db.example/welkin?sslmode=verify-full`.
#[derive(Clone)]
pub struct Dsn {
    config: tokio_postgres::Config,
    tls: Tls,
}

/// Why a text names no database.
#[derive(Debug, thiserror::Error)]
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
    /// The way to another machine would be open to all.
    #[error(
        "the database is on another machine and nothing says how the way is protected: add \
         `sslmode=verify-full` (or `require`), or `sslmode=disable` where the network itself is"
    )]
    Clear,
    /// No such way.
    #[error("`sslmode` is `disable`, `require` or `verify-full`")]
    Mode,
    /// The certificates.
    #[error("the certificates to check the database's by ({}) can't be used", path.display())]
    Roots {
        /// Where they are.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootsError,
    },
}

/// What a connection string says of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing, or that it would be nice.
    Unsaid,
    Disable,
    Require,
    VerifyFull,
}

impl Dsn {
    /// Reads a connection string, and the file of certificates that it names.
    ///
    /// # Errors
    ///
    /// [`DsnError`], which never repeats the text.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let (text, said) = split(text.trim());
        let parsed = text.parse::<tokio_postgres::Config>();
        let mut config = parsed.map_err(|_| DsnError::Malformed)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DsnError::NoHost);
        }
        let mode = match said.mode.as_deref() {
            None | Some("prefer" | "allow") => Mode::Unsaid,
            Some("disable") => Mode::Disable,
            Some("require") if said.roots.is_none() => Mode::Require,
            Some("require" | "verify-ca" | "verify-full") => Mode::VerifyFull,
            Some(_) => return Err(DsnError::Mode),
        };
        if mode == Mode::Unsaid && !is_here(&config) {
            return Err(DsnError::Clear);
        }
        let is_clear = matches!(mode, Mode::Unsaid | Mode::Disable) || is_socket(&config);
        config.ssl_mode(if is_clear { SslMode::Disable } else { SslMode::Require });
        let roots = said.roots.as_deref().filter(|_| mode == Mode::VerifyFull && !is_clear);
        let tls = match mode {
            Mode::VerifyFull if !is_clear => Tls::verified(roots),
            _ => Tls::unverified(),
        };
        let at = || roots.unwrap_or_else(|| Path::new("the system's")).to_owned();
        let tls = tls.map_err(|source| DsnError::Roots { path: at(), source })?;
        if is_clear {
            config.channel_binding(ChannelBinding::Disable);
        } else if mode == Mode::Require {
            // Without a known certificate the login alone says whose connection it is.
            config.channel_binding(ChannelBinding::Require);
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
        Ok(Self { config, tls })
    }

    pub(super) const fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }
}

/// Whether all hosts are sockets, which need no TLS.
fn is_socket(config: &tokio_postgres::Config) -> bool {
    let mut hosts = config.get_hosts().iter();
    config.get_hostaddrs().is_empty() && hosts.all(|host| matches!(host, Host::Unix(_)))
}

/// Whether what goes to the database stays on this machine.
fn is_here(config: &tokio_postgres::Config) -> bool {
    let is_here = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
        }
        Host::Unix(_) => true,
    };
    // Where addresses are given names are not looked up.
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(is_here),
        addrs => addrs.iter().all(IpAddr::is_loopback),
    }
}

/// What is taken out of a connection string.
#[derive(Debug, Default)]
struct Said {
    mode: Option<String>,
    roots: Option<PathBuf>,
}

impl Said {
    /// Whether this is a word about TLS; then it is noted.
    fn takes(&mut self, word: &str) -> bool {
        match word.split_once('=') {
            Some(("sslmode", mode)) => self.mode = Some(mode.trim_matches('\'').to_owned()),
            Some(("sslrootcert", path)) => {
                let path = path.trim_matches('\'').replace("%2F", "/");
                // The system's own, as elsewhere.
                self.roots = Some(path).filter(|path| path != "system").map(PathBuf::from);
                self.mode.get_or_insert_with(|| "verify-full".to_owned());
            }
            _ => return false,
        }
        true
    }
}

/// Takes out what the client library does not know: `sslmode` and `sslrootcert`, as words or as
/// parts of a URL's query.
fn split(text: &str) -> (String, Said) {
    let mut said = Said::default();
    if text.contains("://") {
        let Some((place, query)) = text.split_once('?') else { return (text.to_owned(), said) };
        let rest: Vec<_> = query.split('&').filter(|word| !said.takes(word)).collect();
        let mark = if rest.is_empty() { "" } else { "?" };
        return (format!("{place}{mark}{}", rest.join("&")), said);
    }
    // A quoted value may hold spaces; only whole words are taken.
    let (mut rest, mut is_quoted) = (Vec::new(), false);
    for word in text.split(' ') {
        let quotes = word.matches('\'').count() - word.matches("\\'").count();
        if is_quoted || !said.takes(word) {
            rest.push(word);
            is_quoted ^= quotes % 2 == 1;
        }
    }
    (rest.join(" "), said)
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
            "postgresql://ix:hunter2@db.example:5433/fleet?sslmode=require",
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
        assert!(matches!(Dsn::parse("dbname=a user=b"), Err(DsnError::NoHost)));
    }

    #[test]
    fn nothing_goes_in_clear_to_another_machine_unless_that_is_written_out() {
        let mode = |text: &str| Dsn::parse(text).map(|dsn| dsn.config().get_ssl_mode());
        for text in [
            "host=db.example user=a",
            "host=192.0.2.7 user=a sslmode=prefer",
            "host=localhost hostaddr=192.0.2.7 user=a",
            "host=/run/postgresql,db.example user=a",
            "postgresql://a@db.example/b",
            "user=a password='x sslmode=disable' host=db.example",
        ] {
            assert!(matches!(mode(text), Err(DsnError::Clear)), "{text}: {:?}", mode(text));
        }
        for text in [
            "host=db.example user=a sslmode=disable",
            "host=/run/postgresql user=a",
            "host=/run/postgresql user=a sslmode=require",
            "host=127.0.0.1 user=a",
            "postgresql://a@localhost/b",
            "postgresql://a@[::1]/b?connect_timeout=3",
            "postgresql://a@db.example/b?sslmode=disable&connect_timeout=3",
        ] {
            assert_eq!(mode(text).unwrap(), SslMode::Disable, "{text}");
        }
        for text in [
            "host=db.example user=a sslmode=require",
            "host=127.0.0.1 user=a sslmode='verify-full'",
            "postgresql://a@db.example/b?connect_timeout=3&sslmode=verify-full",
            "postgresql://a@db.example/b?sslrootcert=system",
        ] {
            assert_eq!(mode(text).unwrap(), SslMode::Require, "{text}");
        }
        assert!(matches!(mode("host=a sslmode=maybe"), Err(DsnError::Mode)));
        let missing = "postgresql://a@db.example/b?sslrootcert=/nowhere/root.pem";
        assert!(matches!(mode(missing), Err(DsnError::Roots { .. })));
    }
}
