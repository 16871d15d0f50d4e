//! The command line of epochs: evidence, settlement, what explains a share or a score.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Sending, Who};

/// Where an epoch's evidence comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EvidenceArgs {
    /// Which epoch [default: that of the file, else the last one whose evidence is closed].
    #[arg(long, value_name = "E")]
    pub(crate) epoch: Option<u64>,
    /// Reads the evidence from a file that `welkin epoch --save` wrote; asks nobody.
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
}

/// An epoch and what was before it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EpochArgs {
    #[command(flatten)]
    pub(crate) from: EvidenceArgs,
    /// What was before: the file that `--next` wrote [default: nothing, as before the first epoch].
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Epoch {
    #[command(subcommand)]
    pub(crate) command: Option<EpochCommand>,
    #[command(flatten)]
    pub(crate) of: EpochArgs,
    /// Writes the evidence to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Writes all totals with their proofs to this file, for `welkin claim --file`.
    #[arg(long, value_name = "FILE")]
    pub(crate) proofs: Option<PathBuf>,
    /// Writes to this file what the next epoch begins with.
    #[arg(long, value_name = "FILE")]
    pub(crate) next: Option<PathBuf>,
    /// The price of ATH in US dollars, by which the next epoch's pool is set.
    #[arg(long, value_name = "USD", default_value = "0.05", requires = "next")]
    pub(crate) ath_price: String,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EpochCommand {
    /// Settles an epoch and signs what it came to, as a member of the committee.
    Sign(EpochSign),
    /// Settles an epoch and proposes it to the contract with the committee's signatures.
    Propose(EpochPropose),
    /// Makes the proposed epoch count, once it can't be contested any more.
    Accept(EpochAccept),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EpochSign {
    #[command(flatten)]
    pub(crate) of: EpochArgs,
    /// Prints what is to be signed, for a hardware wallet (EIP-712); signs nothing.
    #[arg(long)]
    pub(crate) typed_data: bool,
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EpochPropose {
    /// What `welkin epoch sign` has printed to members.
    #[arg(required = true, value_name = "ADDRESS:SIGNATURE")]
    pub(crate) signatures: Vec<String>,
    #[command(flatten)]
    pub(crate) of: EpochArgs,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EpochAccept {
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RewardsCommand {
    /// Shows every share of an account in an epoch, what it is for, and the proof of its claim.
    Explain(RewardsExplain),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RewardsExplain {
    /// Whose.
    #[arg(value_name = "ADDRESS")]
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) of: EpochArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Score {
    #[command(subcommand)]
    pub(crate) command: ScoreCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ScoreCommand {
    /// Shows how a container's score comes about from the evidence.
    Explain(ScoreExplain),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ScoreExplain {
    /// The container.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Up to this epoch [default: the present one].
    #[arg(long, value_name = "E", conflicts_with = "evidence")]
    pub(crate) epoch: Option<u64>,
    /// So many epochs, with that one; those that indexers no longer have are left out.
    #[arg(long, value_name = "N", default_value_t = 8, conflicts_with = "evidence")]
    pub(crate) epochs: u64,
    /// Reads the evidence from files that `welkin epoch --save` wrote; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Vec<PathBuf>,
    /// Shows every single observation, too.
    #[arg(long)]
    pub(crate) observations: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Checker {
    #[command(subcommand)]
    pub(crate) command: Option<CheckerCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CheckerCommand {
    /// Shows who has drawn which container when, by the proofs in the evidence, and who may stand in.
    Assignments(Assignments),
    /// Shows how the checkers of this folder stand with the roots of epochs: what they found, how
    /// many have signed, what they wait for, what indexers refuse, and what to do about it.
    Status,
    /// Writes all totals of the last epoch that counts with their proofs, for `welkin claim --file`, from
    /// the book of a checker of this folder.
    Proofs {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Assignments {
    #[command(flatten)]
    pub(crate) from: EvidenceArgs,
    /// Only those of this checker.
    #[arg(long, value_name = "NODE")]
    pub(crate) checker: Option<String>,
    /// Only those at this container [default: all that are on offer, or in the evidence].
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// Only in this minute since 1970 [default: every minute of the epoch].
    #[arg(long, value_name = "M")]
    pub(crate) minute: Option<u64>,
}
