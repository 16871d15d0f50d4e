//! Reservations on the command line.

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
pub(crate) struct Reserve {
    /// How long: `24h`, `7d`.
    #[arg(long, value_name = "TIME")]
    pub(crate) term: String,
    /// GPUs: model, alternatives, memory, count: `H100:2`, `A100|H100:40GB..:1`.
    #[arg(long, value_name = "SPEC")]
    pub(crate) gpu: Option<String>,
    /// Cores: `2`, `0.5`, `500m`.
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Memory: `512MiB`, `4GB`.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Scratch space: `1GB`.
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<String>,
    /// The most that an hour may cost, in US dollars: `0.50`.
    #[arg(long, value_name = "USD")]
    pub(crate) max_price: Option<String>,
    /// A part of the world, may be given more than once; `any`: wherever it is cheapest.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Vec<String>,
    /// What the container is to be best in: `cheapest`, `fastest-start`, `closest` or `best`.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// A name for it.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Takes the offer without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Reservations {
    #[command(subcommand)]
    pub(crate) command: Option<ReservationsCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ReservationsCommand {
    /// Lists them.
    List,
    /// Shows everything about one.
    Show(Reservation),
    /// Ends one now; what was paid ahead is lost.
    Cancel(Cancel),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Reservation {
    /// The reservation: its id, the beginning of it, or its name.
    pub(crate) reservation: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Cancel {
    /// The reservation: its id, the beginning of it, or its name.
    pub(crate) reservation: String,
    /// Ends it without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}
