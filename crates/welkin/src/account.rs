//! In whose name a command acts: the account, and where its key is.
//!
//! A key is one under a passphrase (`welkin key`), or that of a role's folder. The passphrase is
//! asked for only when something is signed, and never taken from the command line, where other
//! users of the machine could read it.

use std::fs;
use std::io::{BufRead as _, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use alloy_primitives::Address;
use anyhow::Context as _;
use welkin_node::identity;
use welkin_node::keystore::{Keys, Keystore};
use welkin_proto::AccountKey;
use zeroize::Zeroizing;

use crate::cli::Who;
use crate::{Context, Quit, Usage, client, config, desk, roles, terminal};

/// Names the file with the passphrase, for programs.
pub(crate) const PASSPHRASE_FILE: &str = "WELKIN_KEY_PASSPHRASE_FILE";
/// The longest passphrase, in bytes.
const PASSPHRASE_BYTES_MAX: u64 = 4_096;
/// The exit code of a person's no.
const CANCELLED: u8 = 130;

/// An account, and its key if it is here.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) account: Address,
    key: Key,
}

#[derive(Debug)]
enum Key {
    /// Somewhere else.
    None,
    Open(Box<AccountKey>),
    Locked(String, Keys),
}

impl Identity {
    /// The key to sign with; asks for its passphrase where it has one.
    pub(crate) fn key(&self) -> anyhow::Result<AccountKey> {
        match &self.key {
            Key::Open(key) => Ok((**key).clone()),
            Key::Locked(name, keys) => {
                let passphrase = passphrase(&format!("passphrase of the key `{name}`: "))?;
                Ok(keys.open(name, &passphrase)?)
            }
            Key::None => {
                let text = "there is no key to sign with: --from names an address only";
                Err(Usage::new(text, "add --unsigned, or name a key with --as").into())
            }
        }
    }

    fn open(key: AccountKey) -> Self {
        let account = welkin_chain::address(key.id());
        Self { account, key: Key::Open(Box::new(key)) }
    }
}

/// Whose name a command is to act in: that of a flag, of the key in use, or of the one who leases.
pub(crate) fn identity(context: &Context, who: &Who) -> anyhow::Result<Identity> {
    if let Some(text) = &who.from {
        return Ok(Identity { account: desk::address("--from", text)?, key: Key::None });
    }
    match &who.name {
        Some(name) => named(context, name),
        None => match in_use(context)? {
            Some(name) => named(context, &name),
            None => buyer(context),
        },
    }
}

/// The account that leases are paid from.
fn buyer(context: &Context) -> anyhow::Result<Identity> {
    Ok(Identity::open(client::home(context).account_key()?))
}

/// As [`identity()`], for the money that leases are paid from: the key in use means nothing there.
pub(crate) fn payer(context: &Context, who: &Who) -> anyhow::Result<Identity> {
    if who.from.is_none() && who.name.is_none() { buyer(context) } else { identity(context, who) }
}

/// A key under a passphrase, or that of a role's folder.
fn named(context: &Context, name: &str) -> anyhow::Result<Identity> {
    let keys = keys();
    if keys.path(name)?.is_file() {
        let keystore = keys.load(name)?;
        let account = address_of(&keystore, name)?;
        return Ok(Identity { account, key: Key::Locked(name.to_owned(), keys) });
    }
    let path = role_key(context, name);
    if !path.is_file() {
        let text = format!("there is no key `{name}`");
        return Err(Usage::new(text, "`welkin key list` shows which there are").into());
    }
    Ok(Identity::open(identity::account_key(&path)?))
}

/// Where the key of a role's folder is.
pub(crate) fn role_key(context: &Context, name: &str) -> PathBuf {
    let dir = match name {
        "host" => roles::dir_or(&context.config.host.dir, context, "host"),
        "settlement" => roles::dir_or(&context.config.settlement.dir, context, "settlement"),
        name => context.dir.join(name),
    };
    dir.join("account.key")
}

/// The account of a keystore, which it says itself.
pub(crate) fn address_of(keystore: &Keystore, name: &str) -> anyhow::Result<Address> {
    keystore.address().ok_or_else(|| {
        let text = format!("the key `{name}` does not say its address");
        Usage::new(text, "import it again: `welkin key import NAME FILE` adds the address").into()
    })
}

/// The keys under passphrases of this user.
pub(crate) fn keys() -> Keys {
    let named = std::env::var_os("WELKIN_KEYS").filter(|value| !value.is_empty());
    Keys::new(named.map_or_else(|| config::data_dir().join("keys"), PathBuf::from))
}

/// Where the name of the key in use is written.
pub(crate) fn in_use_file(context: &Context) -> PathBuf {
    context.dir.join("key-in-use")
}

/// The key that commands about votes and stakes sign with, where one was chosen.
pub(crate) fn in_use(context: &Context) -> anyhow::Result<Option<String>> {
    let file = in_use_file(context);
    match fs::read_to_string(&file) {
        Ok(name) => Ok(Some(name.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
    }
}

/// The passphrase of a key: from a file, or of the person in front of the terminal.
pub(crate) fn passphrase(question: &str) -> anyhow::Result<Zeroizing<String>> {
    if let Some(file) = passphrase_file() {
        return read_passphrase(&file);
    }
    if terminal::is_interactive() {
        return ask(question);
    }
    let hint = format!("name a file with {PASSPHRASE_FILE}, or do it at a terminal");
    Err(Usage::new("a passphrase is needed, and there is nobody to ask", hint).into())
}

/// A passphrase for a new key: asked for twice; or the first line of standard input, if told so.
pub(crate) fn new_passphrase(is_stdin: bool) -> anyhow::Result<Zeroizing<String>> {
    let new = if is_stdin {
        first_line(std::io::stdin().lock())?
    } else if let Some(file) = passphrase_file() {
        read_passphrase(&file)?
    } else if terminal::is_interactive() {
        let new = ask("a passphrase for it: ")?;
        if *ask("once more: ")? != *new {
            return Err(Usage::new("these are two different passphrases", "try again").into());
        }
        new
    } else {
        passphrase("")?
    };
    if new.is_empty() {
        let hint = "whoever gets the file has the key then: take at least a few words";
        return Err(Usage::new("the passphrase is empty", hint).into());
    }
    Ok(new)
}

fn ask(question: &str) -> anyhow::Result<Zeroizing<String>> {
    match terminal::hidden(question) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(Quit(CANCELLED).into()),
        other => Ok(other?),
    }
}

fn passphrase_file() -> Option<PathBuf> {
    std::env::var_os(PASSPHRASE_FILE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn read_passphrase(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let failed = || format!("failed to read the passphrase in {}", file.display());
    let opened = fs::File::open(file).with_context(failed)?;
    let meta = opened.metadata().with_context(failed)?;
    if meta.is_file() && meta.permissions().mode() & 0o077 != 0 {
        let text = format!("the passphrase in {} can be read by others", file.display());
        return Err(Usage::new(text, format!("run `chmod 600 {}`", file.display())).into());
    }
    first_line(std::io::BufReader::new(opened)).with_context(failed)
}

/// The first line, without its end.
fn first_line(reader: impl std::io::BufRead) -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    reader.take(PASSPHRASE_BYTES_MAX).read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}
