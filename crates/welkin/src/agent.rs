//! The agent: keeps the account's detached leases, so that they are paid and their logs copied, and
//! places those again whose host is lost, where their task says so.
//!
//! One process per account, started when the first lease is detached, gone when the last has ended.
//! It listens on a unix socket in the account's folder; one line of JSON hands it a lease, with the
//! values of its secrets, which it keeps in memory only.

mod mates;
mod replace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_node::buyer::{
    Buyer, BuyerError, Input, Keeper, LeaseEvent, LogCopy, LogEvent, keep_reservation,
};
use welkin_proto::lease::{Output, Secret};
use welkin_types::{LeaseId, ReservationId};

use self::mates::{Mates, Others};
use crate::client::{self, Client};
use crate::run::STOP_GRACE;
use crate::{Context, cli, roles};

/// How long the agent may take to be there.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often another agent is started while none answers, and the pause after one has crashed.
const RESPAWN_EVERY: Duration = Duration::from_secs(1);
/// An agent that crashed so often in a row, each time at once, is not started again.
const CRASHES_MAX: u32 = 10;
/// How long an agent may take to answer.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent without leases ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// The most leases of one agent.
const LEASES_MAX: usize = 1_000;
/// The longest line that hands a lease over: its secrets are bounded by what a host takes.
const HAND_OVER_BYTES_MAX: u64 = 4 << 20;

fn socket(context: &Context) -> PathBuf {
    client::home(context).dir().join("agent.sock")
}

/// Secret variables of a task.
type Secrets = Vec<(String, Secret)>;

/// What hands a lease or a reservation over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum HandOver {
    Lease {
        lease: LeaseId,
        /// For when it is placed again.
        secrets: Secrets,
    },
    Reservation {
        reservation: ReservationId,
    },
}

/// Hands a lease to the agent, starting it where there is none.
pub(crate) async fn adopt(
    context: &Context,
    lease: LeaseId,
    secrets: &[(String, Secret)],
) -> anyhow::Result<()> {
    adopt_as(context, &HandOver::Lease { lease, secrets: secrets.to_vec() }).await
}

/// Hands a reservation to the agent, which pays for it to its end.
pub(crate) async fn adopt_reservation(
    context: &Context,
    reservation: ReservationId,
) -> anyhow::Result<()> {
    adopt_as(context, &HandOver::Reservation { reservation }).await
}

async fn adopt_as(context: &Context, what: &HandOver) -> anyhow::Result<()> {
    let line = serde_json::to_string(what)?;
    if hand_over(context, &line).await.is_ok() {
        return Ok(());
    }
    let deadline = Instant::now() + START_TIMEOUT;
    let mut spawned: Option<Instant> = None;
    loop {
        // One that was just dying may have kept the first from starting.
        if spawned.is_none_or(|at| at.elapsed() >= RESPAWN_EVERY) {
            spawn(context)?;
            spawned = Some(Instant::now());
        }
        match hand_over(context, &line).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .context("the agent that pays for detached leases does not start");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn hand_over(context: &Context, line: &str) -> anyhow::Result<()> {
    let asking = async {
        let mut stream = UnixStream::connect(socket(context)).await?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(HAND_OVER_TIMEOUT, asking).await??;
    anyhow::ensure!(answer.trim() == "kept", "the agent answers `{}`", answer.trim());
    Ok(())
}

/// Starts the agent as a process of its own session, so that it outlives this terminal.
fn spawn(context: &Context) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("failed to find this program's file")?;
    let log = client::home(context).dir().join("agent.log");
    let log = std::fs::File::options().create(true).append(true).open(&log)?;
    let mut command = Command::new("setsid");
    command
        .arg(program)
        .arg("--dir")
        .arg(&context.dir)
        .args(["agent", "--watch"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/");
    command.spawn().context("failed to start the agent (is `setsid` installed?)")?;
    Ok(())
}

/// `welkin agent`
pub(crate) async fn run(context: &Context, args: &cli::Agent) -> anyhow::Result<()> {
    if args.watch { watch(context).await } else { work(context).await }
}

/// Runs an agent and, where it crashes, another one: leases that nobody pays for are stopped after
/// seconds.
async fn watch(context: &Context) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("failed to find this program's file")?;
    let stop = roles::stop_signal();
    tokio::pin!(stop);
    let mut crashes = 0;
    while crashes < CRASHES_MAX {
        let began = Instant::now();
        let mut command = tokio::process::Command::new(&program);
        command.arg("--dir").arg(&context.dir).arg("agent").stdin(Stdio::null());
        let mut child = command.spawn().context("failed to start the agent")?;
        tokio::select! {
            ended = child.wait() => {
                let ended = ended?;
                if ended.success() {
                    return Ok(());
                }
                warn!(%ended, "the agent crashed");
            }
            stopped = &mut stop => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::TERM);
                }
                let _ = child.wait().await;
                return stopped;
            }
        }
        crashes = if began.elapsed() > 10 * RESPAWN_EVERY { 1 } else { crashes + 1 };
        tokio::time::sleep(RESPAWN_EVERY).await;
    }
    anyhow::bail!("the agent crashed {CRASHES_MAX} times in a row")
}

async fn work(context: &Context) -> anyhow::Result<()> {
    let home = client::home(context);
    let lock = std::fs::File::create(home.dir().join("agent.lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let path = socket(context);
    // The lock is ours, so a socket that is there is left over.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("failed to listen for leases")?;
    let client = Client::open(context).await?;
    let mut agent = Agent {
        buyer: Arc::clone(&client.buyer),
        kept: BTreeSet::new(),
        leases: JoinSet::new(),
        reserved: BTreeMap::new(),
        reservations: JoinSet::new(),
        vault: Vault::default(),
        mates: Mates::default(),
    };
    home.prune().map_err(BuyerError::Home)?;
    agent.take_up()?;
    info!("agent started");
    agent.serve(&listener).await?;
    let _ = std::fs::remove_file(&path);
    client.close().await;
    Ok(())
}

/// A lease that is not kept any more.
struct Done {
    lease: LeaseId,
    /// The one that was placed in its stead.
    next: Option<Keeper>,
}

/// The secrets of the leases that are kept. A lease may be found on the disk before it is handed
/// over, so they are looked up only when they are needed.
type Vault = Arc<Mutex<BTreeMap<LeaseId, Secrets>>>;

fn open(vault: &Vault) -> MutexGuard<'_, BTreeMap<LeaseId, Secrets>> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Agent {
    buyer: Arc<Buyer>,
    kept: BTreeSet<LeaseId>,
    leases: JoinSet<Done>,
    /// By the tasks that pay for them.
    reserved: BTreeMap<task::Id, ReservationId>,
    reservations: JoinSet<()>,
    vault: Vault,
    mates: Mates,
}

impl Agent {
    /// Goes on where an agent was stopped: with leases that run, and with those whose host was lost
    /// and that nothing has replaced yet.
    fn take_up(&mut self) -> anyhow::Result<()> {
        let (leases, _) = self.buyer.home().leases().map_err(BuyerError::Home)?;
        let replaced: BTreeSet<_> = leases.iter().filter_map(|kept| kept.replaces).collect();
        for kept in leases.iter().filter(|kept| kept.by_agent) {
            let is_open = !kept.state().0.is_final()
                || (kept.may_be_replaced() && !replaced.contains(&kept.lease));
            if is_open {
                self.keep(kept.lease);
            }
        }
        let (reservations, _) = self.buyer.home().reservations().map_err(BuyerError::Home)?;
        for kept in reservations {
            if !self.buyer.home().is_reservation_settled(&kept) {
                self.keep_reservation(kept.reservation);
            }
        }
        Ok(())
    }

    async fn serve(&mut self, listener: &UnixListener) -> anyhow::Result<()> {
        let stop = roles::stop_signal();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    if let Err(error) = self.take(stream).await {
                        warn!(%error, "a lease was not handed over");
                    }
                }
                Some(ended) = self.leases.join_next() => {
                    if let Ok(Done { lease, next }) = ended {
                        self.kept.remove(&lease);
                        let secrets = open(&self.vault).remove(&lease);
                        if let Some(keeper) = next {
                            let lease = keeper.kept().lease;
                            self.kept.insert(lease);
                            open(&self.vault).extend(secrets.map(|secrets| (lease, secrets)));
                            let (vault, mates) = (Arc::clone(&self.vault), self.mates.clone());
                            self.leases.spawn(keep(keeper, vault, mates));
                        }
                    }
                }
                Some(ended) = self.reservations.join_next_with_id() => {
                    let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
                    self.reserved.remove(&task);
                }
                () = tokio::time::sleep(IDLE), if self.is_idle() => return Ok(()),
                stopped = &mut stop => return stopped,
            }
        }
    }

    async fn take(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let mut bounded = (&mut stream).take(HAND_OVER_BYTES_MAX);
        tokio::time::timeout(Duration::from_secs(5), bounded.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(HandOver::Reservation { reservation }) => {
                if self.keep_reservation(reservation) {
                    "kept\n"
                } else {
                    "full\n"
                }
            }
            Ok(HandOver::Lease { lease, secrets }) => {
                if self.keep(lease) {
                    open(&self.vault).insert(lease, secrets);
                    "kept\n"
                } else {
                    "full\n"
                }
            }
            Err(_) => "malformed\n",
        };
        stream.get_mut().write_all(answer.as_bytes()).await?;
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.reserved.is_empty()
    }

    fn keep_reservation(&mut self, reservation: ReservationId) -> bool {
        if self.reserved.len() >= LEASES_MAX {
            return false;
        }
        if !self.reserved.values().any(|kept| *kept == reservation) {
            let buyer = Arc::clone(&self.buyer);
            let task = self.reservations.spawn(keep_reservation(buyer, reservation));
            self.reserved.insert(task.id(), reservation);
        }
        true
    }

    fn keep(&mut self, lease: LeaseId) -> bool {
        if self.kept.len() >= LEASES_MAX {
            return false;
        }
        if self.kept.insert(lease) {
            let (buyer, vault) = (Arc::clone(&self.buyer), Arc::clone(&self.vault));
            let mates = self.mates.clone();
            self.leases.spawn(async move {
                match buyer.home().lease(lease) {
                    Ok(Some(kept)) => {
                        Box::pin(keep(Keeper::resume(buyer, kept), vault, mates)).await
                    }
                    Ok(None) => Done { lease, next: None },
                    Err(error) => {
                        warn!(error = %welkin_node::chain(&error), "a lease can't be kept");
                        Done { lease, next: None }
                    }
                }
            });
        }
        true
    }
}

/// Keeps one lease to its end, and to a successor where it is to have one.
async fn keep(mut keeper: Keeper, vault: Vault, mates: Mates) -> Done {
    let mut others = mates.of(keeper.buyer().home(), keeper.kept());
    if !keeper.kept().state().0.is_final() {
        follow(&mut keeper, &mut others).await;
    }
    mates.ended(keeper.kept());
    let lease = keeper.kept().lease;
    let secrets = open(&vault).get(&lease).cloned().unwrap_or_default();
    Done { lease, next: replace::replace(&mut keeper, &secrets).await }
}

async fn follow(keeper: &mut Keeper, others: &mut Others) {
    let lease = keeper.kept().lease;
    let mut outputs = JoinSet::new();
    if keeper.session().is_some() {
        copy_outputs(keeper, &mut outputs).await;
    }
    loop {
        let event = tokio::select! {
            event = keeper.next() => event,
            () = others.failed() => {
                info!(%lease, "another node of its task has failed: it is stopped");
                keeper.stop(STOP_GRACE).await;
                continue;
            }
        };
        let Some(event) = event else { break };
        match event {
            LeaseEvent::Reconnected => {
                copy_outputs(keeper, &mut outputs).await;
                others.tell_again();
            }
            LeaseEvent::Stage(stage, _) => {
                info!(%lease, state = %stage.state, reason = %stage.reason, "lease");
            }
            LeaseEvent::Lost(why) => warn!(%lease, why, "lost"),
            LeaseEvent::Checkpoint(Ok(_)) => info!(%lease, "its checkpoint is fetched"),
            LeaseEvent::Checkpoint(Err(why)) => warn!(%lease, why, "its checkpoint is not fetched"),
            LeaseEvent::Disconnected | LeaseEvent::Paid(_) | LeaseEvent::Receipt(_) => (),
        }
    }
    let all = async { while outputs.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
}

async fn copy_outputs(keeper: &Keeper, outputs: &mut JoinSet<()>) {
    // Until the old ones are gone the copies on this machine are still theirs.
    outputs.shutdown().await;
    if let Some(line) = keeper.line() {
        // Nobody types any more: a command that reads must not wait for that, and bill.
        let lease = keeper.kept().lease;
        outputs.spawn(async move { Input::close(lease, &line).await });
    }
    for output in [Output::Stdout, Output::Stderr] {
        let mut copy = LogCopy::new(keeper.buyer(), keeper.kept().lease, output);
        if copy.connect(keeper).await.is_ok() {
            outputs.spawn(async move {
                while let LogEvent::Data(..) | LogEvent::Gap(_) = copy.next().await {}
            });
        }
    }
}
