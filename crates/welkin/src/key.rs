//! `welkin key`: account keys under passphrases.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy_primitives::{Address, hex};
use anyhow::Context as _;
use serde::Serialize;
use welkin_chain::ops::typed_data::{self, Session};
use welkin_node::keystore::{self, Keystore};
use welkin_node::{identity, outside};
use welkin_proto::AccountKey;
use welkin_types::Usd;
use zeroize::Zeroizing;

use crate::cli::{Key, KeyCommand, Sending, Who};
use crate::desk::{self, Office};
use crate::{Context, Usage, account, out};

/// The longest key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long a session key holds where nothing else is said.
const SESSION_LASTING: Duration = Duration::from_secs(30 * 86_400);

/// A key as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    address: Option<Address>,
    kind: &'static str,
    in_use: bool,
    file: PathBuf,
}

/// `welkin key`
pub(crate) async fn key(context: &Context, args: &Key) -> anyhow::Result<()> {
    match &args.command {
        KeyCommand::New { name, passphrase_stdin } => {
            account::keys().path(name)?;
            let key = AccountKey::from_secret(&Zeroizing::new(outside::random()))?;
            let sealed = Keystore::seal(&key, &account::new_passphrase(*passphrase_stdin)?)?;
            added(context, name, &sealed)
        }
        KeyCommand::Import { name, file } => {
            account::keys().path(name)?;
            import(context, name, file)
        }
        KeyCommand::Export { name, out } => export(context, name, out.as_deref()),
        KeyCommand::List => list(context),
        KeyCommand::Show { name } => show(context, name),
        KeyCommand::Use { name } => choose(context, name),
        KeyCommand::Allow { signer, allowance, until, typed_data, proof, sending } => {
            let wish = Wish {
                signer,
                allowance,
                until: *until,
                is_typed_data: *typed_data,
                proof: proof.as_deref(),
            };
            allow(context, &wish, sending).await
        }
        KeyCommand::Revoke { signer, sending } => {
            let (signer, _) = other(context, signer)?;
            let office = Office::open(context, &sending.who).await?;
            let act = typed_data::revoke(&office.desk, signer)?;
            let done = office.carry_out(context, sending, &[act]).await;
            office.close().await;
            done.map(drop)
        }
    }
}

fn added(context: &Context, name: &str, sealed: &Keystore) -> anyhow::Result<()> {
    let file = account::keys().add(name, sealed)?;
    let address = account::address_of(sealed, name)?;
    if context.is_json {
        return out::json(&serde_json::json!({"name": name, "address": address, "file": file}));
    }
    out::text(&format!("{address}\n"))?;
    if !context.is_quiet {
        let file = file.display();
        out::note(&format!("written to {file}: keep a copy of it, and the passphrase elsewhere"));
    }
    Ok(())
}

/// A key from elsewhere: a keystore, whose passphrase it keeps, or 64 hexadecimal digits.
fn import(context: &Context, name: &str, file: &Path) -> anyhow::Result<()> {
    let text = read(file)?;
    let is_json = text.trim_start().starts_with('{');
    if is_json {
        let source = |source| keystore::KeystoreError::Format { path: file.to_owned(), source };
        let found = Keystore::parse(&text).map_err(source)?;
        // Whether it opens is better known now than when money waits for it.
        let passphrase = account::passphrase(&format!("passphrase of {}: ", file.display()))?;
        let key = keystore::open(&found, file, &passphrase)?;
        let sealed = Keystore::seal(&key, &passphrase)?;
        return added(context, name, &sealed);
    }
    let no_key = || {
        let text = format!("{} is neither a keystore nor 64 hexadecimal digits", file.display());
        Usage::new(text, "Geth, cast and most wallets write keystores")
    };
    let mut secret = Zeroizing::new([0; 32]);
    let digits = text.trim().trim_start_matches("0x");
    hex::decode_to_slice(digits, &mut *secret).map_err(|_| no_key())?;
    let key = AccountKey::from_secret(&secret).map_err(|_| no_key())?;
    let sealed = Keystore::seal(&key, &account::new_passphrase(false)?)?;
    added(context, name, &sealed)
}

/// Reads a file with a key; `-` is standard input.
fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let failed = || format!("failed to read {}", file.display());
    let mut text = Zeroizing::new(String::new());
    if file == Path::new("-") {
        let read = std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text);
        read.context("failed to read standard input")?;
    } else {
        let opened = fs::File::open(file).with_context(failed)?;
        opened.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(failed)?;
    }
    Ok(text)
}

/// The keystore as it is: still under its passphrase.
fn export(context: &Context, name: &str, to: Option<&Path>) -> anyhow::Result<()> {
    let text = account::keys().load(name)?.text();
    let Some(path) = to else { return out::text(&text) };
    let failed = || format!("failed to write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    if !context.is_quiet && !context.is_json {
        out::note(&format!("written to {}, under the same passphrase", path.display()));
    }
    Ok(())
}

fn rows(context: &Context) -> anyhow::Result<Vec<Row>> {
    let keys = account::keys();
    let chosen = account::in_use(context)?;
    let mut rows = Vec::new();
    for name in keys.names()? {
        let file = keys.path(&name)?;
        let address = keystore::load(&file).ok().and_then(|found| found.address());
        let in_use = chosen.as_ref() == Some(&name);
        rows.push(Row { name, address, kind: "passphrase", in_use, file });
    }
    let entries = fs::read_dir(&context.dir).into_iter().flatten().filter_map(Result::ok);
    let mut roles: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    roles.sort();
    for name in roles {
        let file = account::role_key(context, &name);
        if !file.is_file() || rows.iter().any(|row| row.name == name) {
            continue;
        }
        let key = identity::account_key(&file);
        let address = key.ok().map(|key| welkin_chain::address(key.id()));
        let in_use = match &chosen {
            Some(chosen) => *chosen == name,
            None => name == "buyer",
        };
        rows.push(Row { name, address, kind: "file", in_use, file });
    }
    Ok(rows)
}

fn list(context: &Context) -> anyhow::Result<()> {
    let rows = rows(context)?;
    if context.is_json {
        return rows.iter().try_for_each(out::json);
    }
    if rows.is_empty() {
        out::note("there are no keys yet: `welkin key new NAME` makes one");
        return Ok(());
    }
    let cells = |row: &Row| {
        vec![
            if row.in_use { "*" } else { "" }.to_owned(),
            row.name.clone(),
            row.address.map_or_else(|| "?".to_owned(), |address| address.to_string()),
            match row.kind {
                "file" => "in the clear, readable by you only".to_owned(),
                _ => "under a passphrase".to_owned(),
            },
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    out::text(&out::table(&["", "NAME", "ADDRESS", "KEPT"], &rows))
}

fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let rows = rows(context)?;
    let row = rows.iter().find(|row| row.name == name).ok_or_else(|| unknown(name))?;
    if context.is_json {
        return out::json(row);
    }
    let address = row.address.map_or_else(|| "?".to_owned(), |address| address.to_string());
    let in_use = if row.in_use { "yes" } else { "no" };
    let file = row.file.display();
    out::text(&format!("name     {name}\naddress  {address}\nin use   {in_use}\nfile     {file}\n"))
}

fn unknown(name: &str) -> Usage {
    Usage::new(format!("there is no key `{name}`"), "`welkin key list` shows which there are")
}

/// Chooses the key that commands about stakes, votes, licences and rewards sign with.
fn choose(context: &Context, name: &str) -> anyhow::Result<()> {
    let file = account::in_use_file(context);
    let failed = || format!("failed to write {}", file.display());
    if name == "buyer" {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(failed)
            }
            _ => Ok(()),
        };
    }
    if !rows(context)?.iter().any(|row| row.name == name) {
        return Err(unknown(name).into());
    }
    fs::create_dir_all(&context.dir).with_context(failed)?;
    let draft = file.with_extension("new");
    fs::write(&draft, format!("{name}\n"))
        .and_then(|()| fs::rename(&draft, &file))
        .with_context(failed)
}

/// A session key that is wished for.
struct Wish<'a> {
    signer: &'a str,
    allowance: &'a str,
    until: Option<u64>,
    is_typed_data: bool,
    proof: Option<&'a str>,
}

/// Another key by its name or address, and itself where it is here.
fn other(context: &Context, text: &str) -> anyhow::Result<(Address, Option<account::Identity>)> {
    if text.starts_with("0x") {
        return Ok((desk::address("the key", text)?, None));
    }
    let identity = account::identity(context, &Who { name: Some(text.to_owned()), from: None })?;
    Ok((identity.account, Some(identity)))
}

/// Lets another key order for the account: that key must agree, by a signature of its own.
async fn allow(context: &Context, wish: &Wish<'_>, sending: &Sending) -> anyhow::Result<()> {
    let (signer, here) = other(context, wish.signer)?;
    let allowance: Usd = wish.allowance.parse().map_err(|error: welkin_types::MoneyError| {
        Usage::new(format!("--allowance: {error}"), "for example `--allowance 50`")
    })?;
    let until = wish.until.unwrap_or_else(|| outside::now().after(SESSION_LASTING).0 / 1_000);
    let session = Session { signer, until, allowance_micros: allowance.micros() };
    let office = Office::open(context, &sending.who).await?;
    let work = async {
        let data = typed_data::session(&office.desk, &session).await?;
        if wish.is_typed_data {
            return out::json(&data);
        }
        let proof = match (wish.proof, here) {
            (Some(text), _) => desk::signature("--proof", text)?,
            (None, Some(identity)) => desk::sign(&identity.key()?, &data)?,
            (None, None) => {
                let hint = "let it sign what --typed-data prints, and give that with --proof";
                return Err(Usage::new("that key is not here to agree", hint).into());
            }
        };
        let act = typed_data::allow(&office.desk, &session, &proof).await?;
        office.carry_out(context, sending, &[act]).await.map(drop)
    };
    let done = work.await;
    office.close().await;
    done
}
