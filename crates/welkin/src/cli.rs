//! What can be said on the command line. Settings of the roles are in the configuration.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod epoch;
mod measure;
mod money;
mod reserved;

pub(crate) use epoch::*;
pub(crate) use measure::*;
pub(crate) use money::*;
pub(crate) use reserved::*;

/// A GPU cloud that belongs to the people whose GPUs are in it.
///
/// Exit codes: 0 done; N the job's own; 2 can't be placed; 64 wrong use; 69 network or host not
/// reachable; 77 not allowed; 78 out of money or budget; 130 cancelled.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// Reads this configuration file.
    #[arg(long, value_name = "FILE", global = true, env = "WELKIN_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// The network's folder: its address file and this account's leases [default: the `dev`
    /// folder in ~/.local/share/welkin].
    #[arg(long, value_name = "DIR", global = true, env = "WELKIN_DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Prints data as JSON, one value a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Prints nothing but results and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Logs what happens inside; twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a whole network on this machine: settlement, relay, indexer, hosts, checkers.
    Up(Up),
    /// Leases a container, runs a command in it, and shows what it prints.
    Run(Box<Run>),
    /// Shows where a task would run and what it would cost; leases nothing.
    Plan(Box<Plan>),
    /// Has a container kept for a term, paid used or not, for less than on demand.
    Reserve(Box<Reserve>),
    /// Lists, shows and ends reservations.
    Reservations(Reservations),
    /// Lists leases.
    Ps(Ps),
    /// Shows everything about one lease.
    Show(Id),
    /// Says how well a lease serves: it is valued minute by minute, and signed.
    Measure(Measure),
    /// Shows what a lease has printed.
    Logs(Logs),
    /// Stops leases, and takes requests that wait out of the queue.
    Stop(Stop),
    /// Forgets ended leases and their logs. Receipts stay.
    Rm(Rm),
    /// Runs one more command in a running lease.
    Exec(Exec),
    /// Copies files to or from a running lease: one side is LEASE:PATH.
    Cp(Cp),
    /// Makes a port of a running lease reachable on this machine.
    Forward(Forward),
    /// Lists what is on offer.
    Offers(Offers),
    /// Lists the indexers, and how far this account trusts them.
    Indexers(Indexers),
    /// Shows the account and its money.
    Balance(Balance),
    /// Adds money to the account: test money on a local network, else from its wallet.
    Fund(Fund),
    /// Takes money out of the account, in two steps: announced, and taken after a while.
    Withdraw(Withdraw),
    /// Puts ATH up for a container, registering it where that is missing.
    Stake(Box<Stake>),
    /// Asks a stake back; it comes after 180 days.
    Unstake(Unstake),
    /// Shows what was earned, what is due and when the rest comes.
    Rewards(Rewards),
    /// Claims what was earned.
    Claim(Claim),
    /// Verifies an epoch's evidence and settles it: the root, the pools, what is refused.
    Epoch(Epoch),
    /// How good a container is, and why.
    Score(Score),
    /// Checkers' licences.
    Licence(Box<Licence>),
    /// Account keys under passphrases.
    ///
    /// Passphrases are asked for at the terminal, or read from the file that
    /// `WELKIN_KEY_PASSPHRASE_FILE` names; never from the command line. The keys lie in the folder
    /// that `WELKIN_KEYS` names, else in ~/.local/share/welkin/keys, as keystores that Geth, cast
    /// and most wallets read.
    Key(Box<Key>),
    /// Decisions: proposals, votes, parameters.
    Gov(Box<Gov>),
    /// The chain and the contracts on it.
    Chain(Chain),
    /// Lists, shows and verifies receipts.
    Receipts(Receipts),
    /// Finds out what this machine can do, and what to mend.
    Doctor,
    /// Shows the configuration in effect.
    Config,
    /// Prints JSON Schemas.
    Schema(Schema),
    /// Prints a completion script for a shell.
    Completion(Completion),
    /// Writes a network's address file from the addresses of its services.
    Network(NetworkArgs),
    /// Runs a host: leases this machine's containers.
    Host(Host),
    /// Runs an indexer: matches tasks to containers.
    Indexer(Indexer),
    /// Runs a checker: tests the containers that it has drawn.
    Checker(Checker),
    /// Runs a relay: carries encrypted packets for those who can't reach each other.
    Relay,
    /// Runs the settlement service: a chain of its own, or the way to a node of another.
    Settlement,
    /// Keeps the account's detached leases (started when needed).
    #[command(hide = true)]
    Agent(Agent),
    /// The privileged sandbox helper of a host (started by the host).
    #[command(hide = true, disable_help_flag = true)]
    Sandboxd {
        /// Its own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    /// Runs the demo job, then ends.
    #[arg(long)]
    pub(crate) demo: bool,
    /// How many hosts.
    #[arg(long, value_name = "N")]
    pub(crate) hosts: Option<u32>,
    /// How many checkers.
    #[arg(long, value_name = "N")]
    pub(crate) checkers: Option<u32>,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TaskArgs {
    /// Reads the task from a file (.yaml, .toml or .json); flags win over it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// GPUs: model, alternatives, memory, count: `H100:2`, `A100|H100:40GB..:1`.
    #[arg(long, value_name = "SPEC")]
    pub(crate) gpu: Option<String>,
    /// Cores: `2`, `0.5`, `500m`.
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Memory: `512MiB`, `4GB`.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Scratch space, wiped at the end: `1GB`.
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<String>,
    /// The most that an hour may cost, in US dollars: `0.50`.
    #[arg(long, value_name = "USD")]
    pub(crate) max_price: Option<String>,
    /// The most that it may cost in all, in US dollars.
    #[arg(long, value_name = "USD")]
    pub(crate) budget: Option<String>,
    /// What the container is to be best in: `cheapest`, `fastest-start`, `closest` or `best`.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// Containers that may be taken back with a notice, for less: `only`, `never`, or `auto`: where
    /// the task has a checkpoint and a retry after that.
    #[arg(long, value_name = "WHEN")]
    pub(crate) spot: Option<String>,
    /// Runs on this reservation, which pays for it: its id, the beginning of it, or its name.
    #[arg(long, value_name = "RESERVATION", conflicts_with = "spot")]
    pub(crate) reserve: Option<String>,
    /// The image: `host`, or a path on the host's machine.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A variable: NAME=VALUE, or NAME to take it from here.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A secret variable, taken from here: never stored, never logged.
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// A name for the lease.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A part of the world, may be given more than once; `any`: wherever it is cheapest. Without
    /// it near ones come first, then the others.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Vec<String>,
    /// Stops it after so long: `30m`, `6h`.
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
    /// Waits so long for a container.
    #[arg(long, value_name = "TIME")]
    pub(crate) queue: Option<String>,
    /// Places it again so often where its host is lost.
    #[arg(long, value_name = "N")]
    pub(crate) retry: Option<u16>,
    /// Runs the command on so many containers at once, 1 to 64: all of them are leased, or none.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u16>,
    /// With --nodes: the longest round trip between any two, in milliseconds; without it they are
    /// all in one region.
    #[arg(long, value_name = "MS")]
    pub(crate) within_ms: Option<u32>,
    /// With --nodes: each on a host of its own.
    #[arg(long)]
    pub(crate) distinct_hosts: bool,
    /// The command and its arguments.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Leaves the lease running and returns at once.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Takes the offer without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// With a terminal.
    #[arg(short, long, conflicts_with = "detach")]
    pub(crate) tty: bool,
    /// Sends no standard input.
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Host {
    #[command(subcommand)]
    pub(crate) command: Option<HostCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Tests this machine as checkers will, and says what to mend.
    Check(HostCheck),
    /// Shows how this machine's parts stand: what is out of service, why, and what to do.
    Health(HostHealth),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HostHealth {
    /// Says that this part is repaired, so that a retired one is tested again.
    #[arg(long, value_name = "PART")]
    pub(crate) repaired: Option<String>,
    /// Shows the table of rules instead.
    #[arg(long, conflicts_with = "repaired")]
    pub(crate) rules: bool,
    /// The folder of the host, where there are several: `up` calls them `host-1`, `host-2`, …
    #[arg(long, value_name = "DIR")]
    pub(crate) host_dir: Option<std::path::PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HostCheck {
    /// Reads this file in place of the kernel's log: what `dmesg` prints.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel_log: Option<std::path::PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Ps {
    /// Ended ones, too.
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Id {
    /// The lease: its id, the beginning of it, or its name; several nodes by their common name, one
    /// of them as NAME/RANK.
    pub(crate) lease: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Logs {
    /// The lease; of several nodes' common name all, each line behind its rank.
    pub(crate) lease: String,
    /// Goes on until the lease has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines.
    #[arg(long, value_name = "LINES", conflicts_with = "since")]
    pub(crate) tail: Option<u32>,
    /// Only what was printed in the last so long: `10m`.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Stop {
    /// The leases, the names of several nodes together, and the tickets (`tkt_…`) of requests that
    /// wait.
    #[arg(required = true)]
    pub(crate) leases: Vec<String>,
    /// How long a command may take to end before it is killed.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) grace: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Rm {
    /// The leases.
    #[arg(required = true)]
    pub(crate) leases: Vec<String>,
    /// Stops those that run.
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Exec {
    /// The lease.
    pub(crate) lease: String,
    /// With a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A variable: NAME=VALUE.
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Agent {
    /// Starts it in a process of its own, and again where that crashes.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Cp {
    /// From: a path here, or LEASE:PATH.
    pub(crate) from: String,
    /// To: a path here, or LEASE:PATH.
    pub(crate) to: String,
    /// The most that is fetched: how much comes is the host's to say.
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub(crate) max_size: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Forward {
    /// The lease.
    pub(crate) lease: String,
    /// The ports: `8000`, or `LOCAL:INSIDE`.
    #[arg(required = true, value_name = "[LOCAL:]PORT")]
    pub(crate) ports: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Offers {
    /// Only those with such GPUs.
    #[arg(long, value_name = "SPEC")]
    pub(crate) gpu: Option<String>,
    /// Only those with so many cores.
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Only those with so much memory.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Only those that cost at most so much an hour.
    #[arg(long, value_name = "USD")]
    pub(crate) max_price: Option<String>,
    /// Only those in this region; may be given more than once.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Vec<String>,
    /// Goes on showing what changes, until Ctrl-C.
    #[arg(short, long, conflicts_with = "history")]
    pub(crate) watch: bool,
    /// How often it looks for changes, at least 1s.
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "watch")]
    pub(crate) every: String,
    /// Shows what a class has cost instead, as `rtx4090-24`.
    #[arg(long, value_name = "CLASS")]
    pub(crate) history: Option<String>,
    /// From so long ago: `3h` by the minute, `7d` by the hour, longer by the day.
    #[arg(long, value_name = "TIME", default_value = "1d", requires = "history")]
    pub(crate) since: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Indexers {
    /// Compares two of them first, as is done at times by itself.
    #[arg(long)]
    pub(crate) compare: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Receipts {
    #[command(subcommand)]
    pub(crate) command: Option<ReceiptsCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ReceiptsCommand {
    /// Lists receipts.
    List,
    /// Shows one, with where every millisecond and every cent went.
    Show(Id),
    /// Checks a receipt file without a network.
    Verify {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Schema {
    /// Which.
    #[arg(value_enum)]
    pub(crate) what: SchemaKind,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum SchemaKind {
    /// The task spec.
    Task,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Indexer {
    /// Stands by for another indexer with the same key and the same database, and takes over when
    /// that one is gone.
    #[arg(long)]
    pub(crate) standby: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The settlement service.
    #[arg(long, value_name = "NODE@IP:PORT")]
    pub(crate) settlement: String,
    /// An indexer; may be given more than once. The first indexer starts without any.
    #[arg(long, value_name = "NODE@IP:PORT")]
    pub(crate) indexer: Vec<String>,
    /// The relay.
    #[arg(long, value_name = "HOST:PORT#HASH")]
    pub(crate) relay: Option<String>,
    /// The contracts, where they are on a chain of others: the file that `welkin chain deploy` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<std::path::PathBuf>,
}
