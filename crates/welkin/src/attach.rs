//! Being there while a lease runs: its output, its input, its states, and Ctrl-C.

mod input;
pub(crate) mod outputs;

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use welkin_node::buyer::{Keeper, KeptLease, LeaseEvent};
use welkin_proto::lease::ToHost;
use welkin_proto::{ReceiptFile, StageTime};
use welkin_types::LeaseState;

use crate::attach::input::Typing;
use crate::attach::outputs::Outputs;
use crate::run::{self, STOP_GRACE, code_of};
use crate::task::Job;
use crate::terminal::{self, RawMode};
use crate::{Context, out};

/// How being there ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The lease goes on without us.
    Detached,
    /// The lease is over.
    Lease {
        /// How it stands.
        kept: Box<KeptLease>,
        /// The code to leave with.
        code: u8,
    },
}

/// Stays with a lease until it is over or the person leaves it.
pub(crate) async fn attach(
    context: &Context,
    mut keeper: Keeper,
    job: &Job,
) -> anyhow::Result<Ended> {
    let tty = job.ask.tty.is_some();
    let raw = if tty { Some(RawMode::enter()?) } else { None };
    let mut session = Attached {
        context,
        job,
        outputs: Outputs::show(&keeper),
        began: Instant::now(),
        stages: Vec::new(),
        exit: None,
        asking: None,
        typing: (job.ask.stdin || tty).then(|| Typing::begin(&keeper)),
    };
    let ended = session.follow(&mut keeper, tty).await;
    drop(raw);
    ended
}

struct Attached<'a> {
    context: &'a Context,
    job: &'a Job,
    outputs: Outputs,
    began: Instant,
    stages: Vec<StageTime>,
    exit: Option<u8>,
    /// Since when the person is being asked what Ctrl-C means.
    asking: Option<Instant>,
    typing: Option<Typing>,
}

/// The signals that mean something here.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resize: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
        })
    }
}

impl Attached<'_> {
    fn say(&self, text: &str) {
        if !self.context.is_quiet {
            out::note(&format!("welkin: {text}"));
        }
    }

    async fn follow(&mut self, keeper: &mut Keeper, tty: bool) -> anyhow::Result<Ended> {
        let mut signals = Signals::new()?;
        let mut typed = self.typing.is_some().then(input::read_stdin);
        loop {
            let typing = self.typing.as_ref().filter(|_| self.asking.is_none());
            let full = typing.and_then(Typing::full);
            tokio::select! {
                event = keeper.next() => {
                    let Some(event) = event else { break };
                    if let Some(ended) = self.event(keeper, event, &mut signals).await {
                        return Ok(ended);
                    }
                }
                () = input::room(full.as_ref()), if full.is_some() => (),
                why = refused(self.typing.as_mut()) => {
                    // Said even to those who want to hear nothing else: what they type is lost.
                    out::note(&format!("welkin: standard input ends here: {why}"));
                    typed = None;
                    self.typing = None;
                }
                chunk = next_chunk(&mut typed), if full.is_none() => match chunk {
                    Some(bytes) => {
                        if let Some(ended) = self.typed(keeper, bytes).await? {
                            return Ok(ended);
                        }
                    }
                    None => {
                        typed = None;
                        if let Some(typing) = &mut self.typing {
                            typing.end();
                        }
                    }
                },
                _ = signals.interrupt.recv() => self.interrupted(keeper).await,
                _ = signals.terminate.recv() => keeper.stop(STOP_GRACE).await,
                _ = signals.hangup.recv() => return self.detach(keeper).await,
                _ = signals.resize.recv() => {
                    if let (true, Some(size)) = (tty, terminal::size()) {
                        keeper.send(ToHost::Resize { lease: keeper.kept().lease, size }).await;
                    }
                }
            }
        }
        self.last_words(&mut signals).await;
        Ok(ended(keeper, None))
    }

    async fn event(
        &mut self,
        keeper: &Keeper,
        event: LeaseEvent,
        signals: &mut Signals,
    ) -> Option<Ended> {
        match event {
            LeaseEvent::Stage(stage, detail) => {
                let bills = match keeper.kept().terms.reservation {
                    Some(_) => "its reservation pays",
                    None => "billing is on",
                };
                self.stage(stage, detail.as_deref(), bills);
            }
            LeaseEvent::Disconnected => {
                self.say("the connection to the host is lost; trying again")
            }
            LeaseEvent::Reconnected => {
                self.say("the host is there again");
                self.outputs.connected(keeper);
                if let Some(typing) = &self.typing {
                    typing.connected(keeper);
                }
            }
            LeaseEvent::Paid(_) => (),
            LeaseEvent::Checkpoint(Ok(_)) => self.say("the checkpoint is on this machine"),
            // Said even to those who want to hear nothing else: work is lost.
            LeaseEvent::Checkpoint(Err(why)) => {
                out::note(&format!("welkin: the checkpoint was not fetched: {why}"));
            }
            LeaseEvent::Receipt(file) => {
                self.last_words(signals).await;
                return Some(self.receipt(keeper, &file));
            }
            LeaseEvent::Lost(why) => {
                self.last_words(signals).await;
                self.say(&format!("lost: {why}; nothing more is paid; the logs are kept"));
                return Some(ended(keeper, None));
            }
        }
        None
    }

    fn stage(&mut self, stage: StageTime, detail: Option<&str>, bills: &str) {
        let before = self.stages.last().map(|last| last.at);
        self.stages.push(stage);
        let took = before.map_or(Duration::ZERO, |before| stage.at.since(before));
        match stage.state {
            LeaseState::Placing => {
                let why = detail.unwrap_or("waits for a container");
                self.say(&format!("placing: {why}; not billed"));
            }
            LeaseState::Starting => self.say(&format!("pull   {}", out::duration(took))),
            LeaseState::Running => {
                self.say(&format!("start  {}", out::duration(took)));
                let ready = out::duration(self.began.elapsed());
                self.say(&format!("ready  {ready} after acceptance; {bills}"));
            }
            state if state.is_final() || state == LeaseState::Stopping => {
                let text = format!("{state} ({})", stage.reason);
                match detail {
                    // Why it went wrong is said even to those who want to hear nothing else.
                    Some(detail) => out::note(&format!("welkin: {text}: {detail}")),
                    None => self.say(&text),
                }
            }
            _ => (),
        }
    }

    /// Everything printed is shown before the end is, unless a person does not want to wait.
    async fn last_words(&mut self, signals: &mut Signals) {
        tokio::select! {
            () = self.outputs.all_shown() => (),
            _ = signals.interrupt.recv() => (),
            _ = signals.terminate.recv() => (),
            _ = signals.hangup.recv() => (),
        }
    }

    fn receipt(&mut self, keeper: &Keeper, file: &ReceiptFile) -> Ended {
        match file.verify() {
            Ok(receipt) => {
                self.exit = receipt.exit.map(|exit| exit.shell_code());
                let wiped = if receipt.wipe.complete { "wiped" } else { "NOT WIPED" };
                let paid = match keeper.kept().terms.reservation {
                    Some(_) => "its reservation pays".to_owned(),
                    None => format!("{} paid (fee {} in it)", receipt.cost, receipt.fee),
                };
                self.say(&format!(
                    "{} s billed, {paid}, {wiped} in {} ms; receipt {}",
                    receipt.usage.seconds,
                    receipt.wipe.elapsed_ms,
                    out::short(&receipt.lease),
                ));
            }
            Err(error) => self.say(&format!("the receipt is wrong: {error}")),
        }
        ended(keeper, self.exit)
    }

    /// The first Ctrl-C asks, the second stops, the third kills.
    async fn interrupted(&mut self, keeper: &Keeper) {
        let is_stopping = keeper.kept().state().0 == LeaseState::Stopping;
        let is_second = self.asking.is_some();
        if is_stopping {
            self.say("killing the command");
            keeper.stop(Duration::ZERO).await;
        } else if is_second || !terminal::is_interactive() {
            self.asking = None;
            self.say("stopping; billing ends with the command");
            keeper.stop(STOP_GRACE).await;
        } else {
            self.asking = Some(Instant::now());
            out::note("welkin: [s]top the lease, [d]etach (it runs on and bills), or [c]ontinue?");
        }
    }

    async fn typed(
        &mut self,
        keeper: &mut Keeper,
        bytes: Vec<u8>,
    ) -> anyhow::Result<Option<Ended>> {
        if self.asking.take().is_none() {
            if let Some(typing) = &mut self.typing {
                typing.send(bytes);
            }
            return Ok(None);
        }
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b's' | b'S') => {
                self.say("stopping; billing ends with the command");
                keeper.stop(STOP_GRACE).await;
                Ok(None)
            }
            Some(b'd' | b'D') => self.detach(keeper).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn detach(&mut self, keeper: &mut Keeper) -> anyhow::Result<Ended> {
        // Nobody will type any more: a command that reads must not wait for that, and bill.
        if let Some(typing) = &mut self.typing {
            typing.ended().await;
        }
        run::hand_over(self.context, keeper, self.job).await?;
        self.say(&format!("detached; `welkin logs -f {}`", out::short(&keeper.kept().lease)));
        Ok(Ended::Detached)
    }
}

fn ended(keeper: &Keeper, exit: Option<u8>) -> Ended {
    let kept = Box::new(keeper.kept().clone());
    Ended::Lease { code: code_of(kept.state().0, exit), kept }
}

async fn refused(typing: Option<&mut Typing>) -> String {
    match typing {
        Some(typing) => typing.refused().await,
        None => std::future::pending().await,
    }
}

async fn next_chunk(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(typed) => typed.recv().await,
        None => std::future::pending().await,
    }
}
