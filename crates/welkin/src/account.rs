//! In whose name a command acts: the account, and where its key is.

use alloy_primitives::Address;
use welkin_node::identity;
use welkin_proto::AccountKey;

use crate::cli::Who;
use crate::{Context, Usage, client, desk, roles};

/// An account, and its key if it is here.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) account: Address,
    key: Option<AccountKey>,
}

impl Identity {
    /// The key to sign with.
    pub(crate) fn key(&self) -> anyhow::Result<AccountKey> {
        self.key.clone().ok_or_else(|| {
            let text = "there is no key to sign with: --from names an address only";
            Usage::new(text, "add --unsigned, or name a key with --as").into()
        })
    }
}

/// Whose name a command is to act in.
pub(crate) fn identity(context: &Context, who: &Who) -> anyhow::Result<Identity> {
    if let Some(text) = &who.from {
        return Ok(Identity { account: desk::address("--from", text)?, key: None });
    }
    let key = match &who.name {
        Some(name) => named(context, name)?,
        None => client::home(context).account_key()?,
    };
    Ok(Identity { account: Address::from(*key.id().as_bytes()), key: Some(key) })
}

/// The key of a role's folder.
fn named(context: &Context, name: &str) -> anyhow::Result<AccountKey> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let dir = match name {
        "host" => roles::dir_or(&context.config.host.dir, context, "host"),
        "settlement" => roles::dir_or(&context.config.settlement.dir, context, "settlement"),
        name => context.dir.join(name),
    };
    let path = dir.join("account.key");
    if !is_plain || !path.is_file() {
        let text = format!("there is no key `{name}`");
        return Err(Usage::new(text, "`welkin key list` shows which there are").into());
    }
    Ok(identity::account_key(&path)?)
}
