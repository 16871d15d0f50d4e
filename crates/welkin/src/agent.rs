//! The agent: keeps the account's detached leases, so that they are paid and their logs copied.
//!
//! One process per account, started when the first lease is detached, gone when the last has ended.
//! It listens on a unix socket in the account's folder; one line with a lease id hands it a lease.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{info, warn};
use welkin_node::buyer::{Buyer, BuyerError, Keeper, LeaseEvent, LogCopy, LogEvent};
use welkin_proto::lease::Output;
use welkin_types::LeaseId;

use crate::client::{self, Client};
use crate::{Context, roles};

/// How long the agent may take to be there.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent without leases ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// The most leases of one agent.
const LEASES_MAX: usize = 1_000;

fn socket(context: &Context) -> PathBuf {
    client::home(context).dir().join("agent.sock")
}

/// Hands a lease to the agent, starting it where there is none.
pub(crate) async fn adopt(context: &Context, lease: LeaseId) -> anyhow::Result<()> {
    if hand_over(context, lease).await.is_ok() {
        return Ok(());
    }
    spawn(context)?;
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        match hand_over(context, lease).await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error)
                    .context("the agent that pays for detached leases does not start");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn hand_over(context: &Context, lease: LeaseId) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket(context)).await?;
    stream.write_all(format!("{lease}\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
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
        .arg("agent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/");
    command.spawn().context("failed to start the agent (is `setsid` installed?)")?;
    Ok(())
}

/// `welkin agent`
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
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
    let mut agent =
        Agent { buyer: Arc::clone(&client.buyer), kept: BTreeSet::new(), leases: JoinSet::new() };
    home.prune().map_err(BuyerError::Home)?;
    let (leases, _) = home.leases().map_err(BuyerError::Home)?;
    for kept in leases.into_iter().filter(|kept| kept.by_agent && !kept.state().0.is_final()) {
        agent.keep(kept.lease);
    }
    info!("agent started");
    agent.serve(&listener).await?;
    let _ = std::fs::remove_file(&path);
    client.close().await;
    Ok(())
}

struct Agent {
    buyer: Arc<Buyer>,
    kept: BTreeSet<LeaseId>,
    leases: JoinSet<LeaseId>,
}

impl Agent {
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
                    if let Ok(lease) = ended {
                        self.kept.remove(&lease);
                    }
                }
                () = tokio::time::sleep(IDLE), if self.kept.is_empty() => return Ok(()),
                stopped = &mut stop => return stopped,
            }
        }
    }

    async fn take(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_line(&mut line));
        read.await??;
        let answer = match line.trim().parse() {
            Ok(lease) if self.keep(lease) => "kept\n",
            Ok(_) => "full\n",
            Err(_) => "malformed\n",
        };
        stream.get_mut().write_all(answer.as_bytes()).await?;
        Ok(())
    }

    fn keep(&mut self, lease: LeaseId) -> bool {
        if self.kept.len() >= LEASES_MAX {
            return false;
        }
        if self.kept.insert(lease) {
            self.leases.spawn(keep(Arc::clone(&self.buyer), lease));
        }
        true
    }
}

/// Keeps one lease to its end.
async fn keep(buyer: Arc<Buyer>, lease: LeaseId) -> LeaseId {
    let kept = match buyer.home().lease(lease) {
        Ok(Some(kept)) => kept,
        Ok(None) => return lease,
        Err(error) => {
            warn!(error = %welkin_node::chain(&error), "a lease can't be kept");
            return lease;
        }
    };
    let mut keeper = Keeper::resume(Arc::clone(&buyer), kept);
    let mut outputs = JoinSet::new();
    while let Some(event) = keeper.next().await {
        match event {
            LeaseEvent::Reconnected => {
                // Until the old ones are gone the copies on this machine are still theirs.
                outputs.shutdown().await;
                for output in [Output::Stdout, Output::Stderr] {
                    let mut copy = LogCopy::new(&buyer, lease, output);
                    if copy.connect(&keeper).await.is_ok() {
                        outputs.spawn(async move {
                            while let LogEvent::Data(..) | LogEvent::Gap(_) = copy.next().await {}
                        });
                    }
                }
            }
            LeaseEvent::Stage(stage, _) => {
                info!(%lease, state = %stage.state, reason = %stage.reason, "lease");
            }
            LeaseEvent::Lost(why) => warn!(%lease, why, "lost"),
            LeaseEvent::Disconnected | LeaseEvent::Paid(_) | LeaseEvent::Receipt(_) => (),
        }
    }
    let all = async { while outputs.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
    lease
}
