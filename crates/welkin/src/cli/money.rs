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
    #[command(flatten)]
    pub(crate) who: Who,
}

/// In whose name.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Who {
    /// With this key: a name of `welkin key list`, or a role's folder such as `host`.
    #[arg(long = "as", value_name = "NAME", conflicts_with = "from")]
    pub(crate) name: Option<String>,
    /// For this account, whose key is elsewhere: to look, or with --unsigned or --dry-run.
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
    /// Whose account receives it, with --wallet [default: the own].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) permit: Permit,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

/// A permission that a wallet signs, in place of a transaction that gives it (EIP-2612).
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Permit {
    /// Prints the permission that the wallet has to sign, as EIP-712 JSON; sends nothing.
    #[arg(long, conflicts_with = "permit")]
    pub(crate) typed_data: bool,
    /// The wallet's signature under that permission.
    #[arg(long, value_name = "HEX", requires = "deadline")]
    pub(crate) permit: Option<String>,
    /// Until when the permission holds, in seconds since 1970 [default: an hour from now].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Balance {
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Stake {
    #[command(subcommand)]
    pub(crate) command: Option<StakeCommand>,
    /// The container: its id or the beginning of it, as in `welkin offers` or `welkin stake list`.
    pub(crate) container: Option<String>,
    /// How many ATH [default: what is missing to what its class needs].
    pub(crate) amount: Option<String>,
    /// The container's class on the chain.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) class: u32,
    #[command(flatten)]
    pub(crate) permit: Permit,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StakeCommand {
    /// Lists the account's containers, its stakes, and what is on its way back.
    List(Balance),
    /// Registers a container of the account, and its host, without staking yet.
    Register {
        /// The container: its id or the beginning of it, as in `welkin offers`.
        container: String,
        /// Its class on the chain.
        #[arg(long, value_name = "N", default_value_t = 1)]
        class: u32,
        #[command(flatten)]
        sending: Sending,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Unstake {
    /// The container: its id or the beginning of it, as in `welkin stake list`.
    #[arg(required_unless_present = "withdraw")]
    pub(crate) container: Option<String>,
    /// How many ATH, or `all`.
    #[arg(required_unless_present = "withdraw")]
    pub(crate) amount: Option<String>,
    /// Takes everything whose 180 days are over.
    #[arg(long, conflicts_with_all = ["container", "amount"])]
    pub(crate) withdraw: bool,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Rewards {
    #[command(subcommand)]
    pub(crate) command: Option<super::RewardsCommand>,
    /// Takes everything that is due.
    #[arg(long)]
    pub(crate) release: bool,
    /// The published totals with their proofs: shows what can be claimed by them.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Claim {
    /// The epoch up to which to claim [default: the present one, which is the only one that counts].
    #[arg(long, value_name = "E")]
    pub(crate) epoch: Option<u32>,
    /// The published totals with their proofs.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// As a checker: a quarter after 30 days instead of all after 180.
    #[arg(long)]
    pub(crate) fast: bool,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Licence {
    #[command(subcommand)]
    pub(crate) command: LicenceCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LicenceCommand {
    /// Buys licences with ATH of the wallet.
    Buy {
        /// The tier of the sale.
        #[arg(long, value_name = "N", default_value_t = 0)]
        tier: usize,
        /// How many, at most 50.
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u64,
        /// The most that they may cost in all, in ATH [default: 2 % more than the price now].
        #[arg(long, value_name = "ATH")]
        max_cost: Option<String>,
        /// The proof that the account is on the tier's list, as JSON.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Lets another account run a licence.
    Delegate {
        /// The licence's number.
        id: String,
        /// The account; `nobody` ends it.
        address: String,
        /// For how many days.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        days: u64,
        #[command(flatten)]
        sending: Sending,
    },
    /// Lists the tiers on sale, and the licences that the account owns or runs.
    List(Balance),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Gov {
    #[command(subcommand)]
    pub(crate) command: GovCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GovCommand {
    /// Proposes to change parameters, or any other calls.
    Propose {
        /// What to change: `escrow.fee=15%`. `welkin gov params` lists all names.
        #[arg(value_name = "NAME=VALUE")]
        changes: Vec<String>,
        /// A call: `escrow.setFee(1500)`. May be given more than once.
        #[arg(long = "call", value_name = "CALL")]
        calls: Vec<String>,
        /// Why: what voters read.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Votes on a proposal.
    Vote {
        /// The proposal: its id, the beginning of it, or `last`.
        id: String,
        /// What.
        #[arg(value_enum)]
        vote: Vote,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// Prints the vote as EIP-712 JSON for a hardware wallet to sign, and sends nothing.
        #[arg(long)]
        typed_data: bool,
        /// Sends a vote that another account signed: --voter says whose, this its signature.
        #[arg(long, value_name = "HEX", requires = "voter", conflicts_with = "typed_data")]
        signature: Option<String>,
        /// Whose signature that is.
        #[arg(long, value_name = "ADDRESS", requires = "signature")]
        voter: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Puts a proposal that was accepted into the queue.
    Queue {
        /// The proposal: its id, the beginning of it, or `last`.
        id: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Carries out a proposal that waited long enough in the queue.
    Execute {
        /// The proposal: its id, the beginning of it, or `last`.
        id: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Takes one's own proposal back, before its vote.
    Cancel {
        /// The proposal: its id, the beginning of it, or `last`.
        id: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Lists proposals, the newest first.
    List(Balance),
    /// Shows everything about one proposal.
    Show {
        /// The proposal: its id, the beginning of it, or `last`.
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Lists every parameter, its value and its bounds.
    Params {
        /// Only those whose name has this in it.
        part: Option<String>,
    },
    /// Makes the account's ATH, held and staked, count as votes.
    Delegate {
        /// Whose votes: `self`, or an address.
        to: String,
        #[command(flatten)]
        sending: Sending,
    },
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Vote {
    /// Yes.
    For,
    /// No.
    Against,
    /// Neither; counts for the quorum.
    Abstain,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Chain {
    #[command(subcommand)]
    pub(crate) command: ChainCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Deploys the whole set of contracts through one's own node (`chain.rpc`). Goes on where it
    /// broke off.
    Deploy(Box<Deploy>),
    /// Shows how the chain and the network's contracts stand.
    Status(Look),
    /// Compares what stands on the chain with what should: code, roles, wiring, parameters.
    Verify(Look),
    /// Reports what an ATH costs, as one of those who report prices.
    Price {
        /// In US dollars.
        usd: String,
        #[command(flatten)]
        sending: Sending,
    },
    /// Calls a contract, as those who verify, judge and guard do: `registry.verify(0x...,0x...)`.
    Send {
        /// The calls, one transaction each.
        #[arg(required = true, value_name = "CALL")]
        calls: Vec<String>,
        #[command(flatten)]
        sending: Sending,
    },
}

/// Which contracts to look at.
#[derive(Clone, Debug, Args)]
pub(crate) struct Look {
    /// Those of this deployment's file, through one's own node [default: the network's].
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Deploy {
    /// Where the contracts' places are written; a journal beside it until then.
    #[arg(long, value_name = "FILE", default_value = "deployment.json")]
    pub(crate) out: PathBuf,
    /// What an ATH costs at first, in US dollars.
    #[arg(long, value_name = "USD")]
    pub(crate) ath_price: Option<String>,
    /// Who verifies, judges, guards and reports the price at first [default: the deploying account].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) operator: Option<String>,
    /// Short terms, for trials: a vote takes a minute, a withdrawal ten seconds.
    #[arg(long)]
    pub(crate) trial: bool,
    /// With a faucet that gives at most so many US dollars of play money at once; for trials.
    #[arg(long, value_name = "USD", requires = "trial")]
    pub(crate) faucet: Option<String>,
    /// Shows what would be done and sends nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does it without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key and puts it under a passphrase.
    New {
        /// Its name.
        name: String,
        /// Takes the passphrase from the first line of standard input.
        #[arg(long)]
        passphrase_stdin: bool,
    },
    /// Takes a key over: a keystore of Geth, cast or a wallet, or 64 hexadecimal digits.
    Import {
        /// Its name.
        name: String,
        /// The file; `-` is standard input.
        file: PathBuf,
    },
    /// Writes a key's keystore, still under its passphrase (Web3 Secret Storage, version 3).
    Export {
        /// Its name.
        name: String,
        /// The file [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Lists keys; `*` stands at the one in use.
    List,
    /// Shows one key's address and where it is kept.
    Show {
        /// Its name.
        name: String,
    },
    /// Chooses the key that commands about stakes, votes, licences and rewards sign with; `buyer`
    /// is the one that leases are paid with.
    Use {
        /// Its name.
        name: String,
    },
    /// Lets another key order for the account, within limits.
    Allow {
        /// The key: its name, or its address.
        signer: String,
        /// What it may order in all, in US dollars.
        #[arg(long, value_name = "USD")]
        allowance: String,
        /// Until when, in seconds since 1970 [default: 30 days from now].
        #[arg(long, value_name = "SECONDS")]
        until: Option<u64>,
        /// Prints what that key has to sign, as EIP-712 JSON; sends nothing.
        #[arg(long, conflicts_with = "proof")]
        typed_data: bool,
        /// That key's signature.
        #[arg(long, value_name = "HEX", requires = "until")]
        proof: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Ends what another key may do for the account.
    Revoke {
        /// The key: its name, or its address.
        signer: String,
        #[command(flatten)]
        sending: Sending,
    },
}
