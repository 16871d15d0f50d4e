//! The `welkin` program: parse, configure, run, report.

#![forbid(unsafe_code)]

mod account;
mod agent;
mod attach;
mod chain;
mod cli;
mod client;
mod config;
mod cp;
mod demo;
mod desk;
mod doctor;
mod epoch;
mod exec;
mod gang;
mod gov;
mod health;
mod host_check;
mod indexer;
mod indexers;
mod key;
mod leases;
mod licence;
mod logs;
mod market;
mod money;
mod out;
mod pages;
mod ranked;
mod report;
mod reservations;
mod reserve;
mod rewards;
mod roles;
mod run;
mod stake;
mod task;
mod terminal;
mod unprivileged;
mod up;
mod waiting;
mod withdraw;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, SchemaKind};
use crate::config::{Config, LogFormat};
use welkin_node::host::HostError;

#[global_allocator]
static MEMORY: welkin_pages::LargePages = welkin_pages::LargePages;

/// Leave with this code and say nothing more.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
struct Quit(u8);

/// The user's mistake, with what to do instead.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Usage {
    text: String,
    hint: String,
}

impl Usage {
    fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: hint.into() }
    }
}

/// Everything a command is given besides its own arguments.
#[derive(Debug)]
struct Context {
    config: Config,
    dir: std::path::PathBuf,
    is_json: bool,
    is_quiet: bool,
    /// What stays root, where this process gave it up.
    launcher: Option<welkin_runtime::Launcher>,
    /// The kernel's log, for each host that this process may run, opened while it still may.
    kernel_logs: std::sync::Mutex<Vec<std::fs::File>>,
}

fn main() -> ExitCode {
    // The helper must have one thread only, so it comes before everything else.
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == "sandboxd" => return welkin_runtime::sandboxd::main(args),
        Some(first) if first == roles::LIST_GPUS => {
            return welkin_runtime::inventory::list_gpus(args.next().as_deref());
        }
        _ => (),
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A printing failure leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let is_json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::print(&error, is_json),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Completion(completion) => {
            let mut script = Vec::new();
            clap_complete::generate(completion.shell, &mut Cli::command(), "welkin", &mut script);
            return out::text(&String::from_utf8_lossy(&script));
        }
        Command::Schema(schema) => {
            let SchemaKind::Task = schema.what;
            let schema = welkin_types::task::TaskSpec::schema();
            return out::text(&(serde_json::to_string_pretty(&schema)? + "\n"));
        }
        Command::Receipts(cli::Receipts {
            command: Some(cli::ReceiptsCommand::Verify { file }),
        }) => return money::verify(file, cli.json),
        Command::Indexer(_) => pages::begin_again_with_large(),
        _ => (),
    }
    let file = cli.config.clone();
    let config = Config::load(file.as_deref())?;
    init_log(&config.log, &cli)?;
    let dir = config.network_dir(cli.dir.as_deref());
    let mut context = Context {
        config,
        dir,
        is_json: cli.json,
        is_quiet: cli.quiet,
        launcher: None,
        kernel_logs: std::sync::Mutex::default(),
    };
    // Before there is a second thread or a socket.
    context.launcher = unprivileged::give_up_root(&context, &cli.command)?;
    let done = runtime(&cli.command)?.block_on(command(context, cli.command));
    done.map_err(|error| in_file(error, file.as_deref()))
}

/// Names the file of settings that are read well and can't be carried out.
fn in_file(error: anyhow::Error, file: Option<&std::path::Path>) -> anyhow::Error {
    let is_setting = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(HostError::Containers(_)))
    };
    match file {
        Some(file) if error.chain().any(is_setting) => error.context(file.display().to_string()),
        _ => error,
    }
}

/// Roles use every core; a client needs one thread to talk and one to work.
fn runtime(command: &Command) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if !is_role(command) {
        builder.worker_threads(2);
    }
    builder.enable_all().build().context("failed to start the runtime")
}

const fn is_role(command: &Command) -> bool {
    matches!(
        command,
        Command::Up(_)
            | Command::Host(cli::Host { command: None })
            | Command::Indexer(_)
            | Command::Checker(cli::Checker { command: None })
            | Command::Relay
            | Command::Settlement
            | Command::Agent(_)
    )
}

async fn command(context: Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up::up(&context, &args).await,
        Command::Run(args) => run::run(&context, &args).await,
        Command::Plan(args) => market::plan(&context, &args).await,
        Command::Reserve(args) => reserve::reserve(&context, &args).await,
        Command::Reservations(args) => reservations::reservations(&context, &args).await,
        Command::Ps(args) => leases::ps(&context, &args).await,
        Command::Show(args) => leases::show(&context, &args).await,
        Command::Measure(args) => leases::measure(&context, &args),
        Command::Logs(args) => logs::logs(&context, &args).await,
        Command::Stop(args) => leases::stop(&context, &args).await,
        Command::Rm(args) => leases::rm(&context, &args).await,
        Command::Exec(args) => exec::exec(&context, args).await,
        Command::Cp(args) => cp::cp(&context, &args).await,
        Command::Forward(args) => cp::forward(&context, &args).await,
        Command::Offers(args) => market::offers(&context, &args).await,
        Command::Indexers(args) => indexers::indexers(&context, &args).await,
        Command::Balance(args) => money::balance(&context, &args).await,
        Command::Fund(args) => money::fund(&context, &args).await,
        Command::Withdraw(args) => withdraw::withdraw(&context, &args).await,
        Command::Key(args) => key::key(&context, &args).await,
        Command::Stake(args) => stake::stake(&context, &args).await,
        Command::Unstake(args) => stake::unstake(&context, &args).await,
        Command::Epoch(args) => epoch::epoch(&context, &args).await,
        Command::Score(args) => epoch::score(&context, &args).await,
        Command::Rewards(cli::Rewards {
            command: Some(cli::RewardsCommand::Explain(args)),
            ..
        }) => epoch::explain(&context, &args).await,
        Command::Rewards(args) => rewards::rewards(&context, &args).await,
        Command::Claim(args) => rewards::claim(&context, &args).await,
        Command::Licence(args) => licence::licence(&context, &args).await,
        Command::Gov(args) => gov::gov(&context, &args).await,
        Command::Chain(args) => chain::chain(&context, &args).await,
        Command::Receipts(args) => money::receipts(&context, &args),
        Command::Doctor => doctor::doctor(&context).await,
        Command::Config => {
            let text = toml::to_string(&context.config)?;
            if context.is_json { out::json(&context.config) } else { out::text(&text) }
        }
        Command::Network(args) => roles::network(&args),
        Command::Host(cli::Host { command: None }) => roles::host(&context).await,
        Command::Host(cli::Host { command: Some(cli::HostCommand::Check(args)) }) => {
            host_check::check(&context, &args).await
        }
        Command::Host(cli::Host { command: Some(cli::HostCommand::Health(args)) }) => {
            health::health(&context, &args)
        }
        Command::Indexer(args) => indexer::indexer(&context, &args).await,
        Command::Checker(cli::Checker { command: None }) => roles::checker(&context).await,
        Command::Checker(cli::Checker {
            command: Some(cli::CheckerCommand::Assignments(args)),
        }) => epoch::assignments(&context, &args).await,
        Command::Checker(cli::Checker { command: Some(cli::CheckerCommand::Status) }) => {
            epoch::roots(&context)
        }
        Command::Checker(cli::Checker { command: Some(cli::CheckerCommand::Proofs { file }) }) => {
            epoch::counted_proofs(&context, &file)
        }
        Command::Relay => roles::relay(&context).await,
        Command::Settlement => roles::settlement(&context).await,
        Command::Agent(args) => agent::run(&context, &args).await,
        // Carried out before this.
        Command::Completion(_) | Command::Schema(_) | Command::Sandboxd { .. } => Ok(()),
    }
}

fn init_log(log: &config::Log, cli: &Cli) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    // The demo tells its own story.
    let is_demo = matches!(&cli.command, Command::Up(up) if up.demo);
    let text = match (is_role(&cli.command) && !is_demo, cli.verbose) {
        // TLS tells its session tickets there.
        (_, 2..) => {
            "trace,noq=info,iroh=info,noq_proto=info,netwatch=info,iroh_relay=info,rustls=info"
        }
        (_, 1) => "debug,noq=warn,iroh=warn,noq_proto=warn,netwatch=warn,iroh_relay=warn",
        (true, 0) => &log.filter,
        (false, 0) => "warn,noq=off,iroh=off,noq_proto=off,netwatch=off",
    };
    let filter =
        EnvFilter::builder().parse(text).with_context(|| format!("bad log filter `{text}`"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
