//! The command line of everything that is money or a vote.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// How transactions are sent, or not.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Sending {
    /// Shows what would be done and sends nothing.
    #[arg(long, conflicts_with = "unsigned")]
    pub(crate) dry_run: bool,
    /// Does it without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Prints the transactions unsigned, as JSON, for a hardware wallet; sends nothing.
    #[arg(long)]
    pub(crate) unsigned: bool,
    /// In the name of this account, whose key is elsewhere; with --unsigned or --dry-run.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Withdraw {
    /// How much: `5` or `5.50` US dollars, `120ATH`, or `all`. Not needed to go on with a
    /// withdrawal that was announced.
    pub(crate) amount: Option<String>,
    /// Who receives it [default: the account's own wallet].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<String>,
    /// Calls an announced withdrawal off.
    #[arg(long, conflicts_with_all = ["amount", "to", "wait"])]
    pub(crate) cancel: bool,
    /// Waits until it can be taken, and takes it.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fund {
    /// How much: `10` or `0.50` US dollars, or `120ATH`.
    pub(crate) amount: String,
    /// Takes it from the account's wallet; so it is on every network without test money.
    #[arg(long)]
    pub(crate) wallet: bool,
    /// Prints the permission that the wallet has to sign (EIP-2612) as EIP-712 JSON; sends nothing.
    #[arg(long)]
    pub(crate) typed_data: bool,
    #[command(flatten)]
    pub(crate) sending: Sending,
}
