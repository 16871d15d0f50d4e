//! Being there while a lease runs: its output, its input, its states, and Ctrl-C.

use std::io::Read as _;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use welkin_node::buyer::{InputStream, Keeper, KeptLease, LeaseEvent, LogCopy, LogEvent};
use welkin_proto::lease::{Output, ToHost};
use welkin_proto::{ReceiptFile, StageTime};
use welkin_types::LeaseState;

use crate::run::{self, STOP_GRACE, code_of};
use crate::task::Job;
use crate::terminal::{self, RawMode};
use crate::{Context, out};

/// Pieces of standard input on the way.
const INPUT_MAX: usize = 16;
/// How long the outputs may take to arrive once the lease is over.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

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
        outputs: JoinSet::new(),
        began: Instant::now(),
        stages: Vec::new(),
        exit: None,
        asking: None,
        input: None,
        feeding: JoinSet::new(),
    };
    session.open_outputs(&keeper).await;
    if let Ok(stream) = keeper.input().await {
        let (input, queue) = mpsc::channel(1);
        session.input = Some(input);
        session.feeding.spawn(feed(stream, queue));
    }
    let ended = session.follow(&mut keeper, tty).await;
    drop(raw);
    ended
}

struct Attached<'a> {
    context: &'a Context,
    job: &'a Job,
    outputs: JoinSet<()>,
    began: Instant,
    stages: Vec<StageTime>,
    exit: Option<u8>,
    /// Since when the person is being asked what Ctrl-C means.
    asking: Option<Instant>,
    /// To the task that sends standard input: a command that does not read must not keep this side
    /// from paying.
    input: Option<mpsc::Sender<Vec<u8>>>,
    feeding: JoinSet<()>,
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

    async fn open_outputs(&mut self, keeper: &Keeper) {
        // Until the old ones are gone the copies on this machine are still theirs.
        self.outputs.shutdown().await;
        for output in [Output::Stdout, Output::Stderr] {
            let mut copy = LogCopy::new(keeper.buyer(), keeper.kept().lease, output);
            if copy.connect(keeper).await.is_ok() {
                self.outputs.spawn(show(copy, output));
            }
        }
    }

    async fn follow(&mut self, keeper: &mut Keeper, tty: bool) -> anyhow::Result<Ended> {
        let mut signals = Signals::new()?;
        let mut typed = self.input.is_some().then(read_stdin);
        loop {
            let full =
                self.input.clone().filter(|input| self.asking.is_none() && input.capacity() == 0);
            tokio::select! {
                event = keeper.next() => {
                    let Some(event) = event else { break };
                    if let Some(ended) = self.event(keeper, event).await {
                        return Ok(ended);
                    }
                }
                () = room(full.as_ref()), if full.is_some() => (),
                chunk = next_chunk(&mut typed), if full.is_none() => match chunk {
                    Some(bytes) => {
                        if let Some(ended) = self.typed(keeper, bytes).await? {
                            return Ok(ended);
                        }
                    }
                    None => {
                        typed = None;
                        // The last sender gone, the input is closed behind what is still on its way.
                        self.input = None;
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
        Ok(ended(keeper, None))
    }

    async fn event(&mut self, keeper: &Keeper, event: LeaseEvent) -> Option<Ended> {
        match event {
            LeaseEvent::Stage(stage, detail) => self.stage(stage, detail.as_deref()),
            LeaseEvent::Disconnected => {
                self.say("the connection to the host is lost; trying again")
            }
            LeaseEvent::Reconnected => {
                self.say("the host is there again");
                self.open_outputs(keeper).await;
            }
            LeaseEvent::Paid(_) => (),
            LeaseEvent::Receipt(file) => return Some(self.receipt(keeper, &file).await),
            LeaseEvent::Lost(why) => {
                self.say(&format!("lost: {why}; nothing more is paid; the logs are kept"));
                return Some(ended(keeper, None));
            }
        }
        None
    }

    fn stage(&mut self, stage: StageTime, detail: Option<&str>) {
        let before = self.stages.last().map(|last| last.at);
        self.stages.push(stage);
        let took = before.map_or(Duration::ZERO, |before| stage.at.since(before));
        match stage.state {
            LeaseState::Starting => self.say(&format!("pull   {}", out::duration(took))),
            LeaseState::Running => {
                self.say(&format!("start  {}", out::duration(took)));
                let ready = out::duration(self.began.elapsed());
                self.say(&format!("ready  {ready} after acceptance; billing is on"));
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

    async fn receipt(&mut self, keeper: &Keeper, file: &ReceiptFile) -> Ended {
        // Everything printed is shown before the end is.
        let all = async { while self.outputs.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(OUTPUT_TIMEOUT, all).await;
        match file.verify() {
            Ok(receipt) => {
                self.exit = receipt.exit.map(|exit| exit.shell_code());
                let wiped = if receipt.wipe.complete { "wiped" } else { "NOT WIPED" };
                self.say(&format!(
                    "{} s billed, {} paid (fee {} in it), {wiped} in {} ms; receipt {}",
                    receipt.usage.seconds,
                    receipt.cost,
                    receipt.fee,
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
            if let Some(input) = &self.input
                && input.try_send(bytes).is_err()
            {
                self.input = None;
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
        run::hand_over(self.context, keeper, self.job).await?;
        self.say(&format!("detached; `welkin logs -f {}`", out::short(&keeper.kept().lease)));
        Ok(Ended::Detached)
    }
}

fn ended(keeper: &Keeper, exit: Option<u8>) -> Ended {
    let kept = Box::new(keeper.kept().clone());
    Ended::Lease { code: code_of(kept.state().0, exit), kept }
}

/// Sends standard input on, and its end.
async fn feed(mut stream: InputStream, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if stream.send(bytes).await.is_err() {
            return;
        }
    }
    stream.finish().await;
}

/// Completes when more input can be taken.
async fn room(input: Option<&mpsc::Sender<Vec<u8>>>) {
    if let Some(input) = input {
        let _ = input.reserve().await;
    }
}

async fn next_chunk(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(typed) => typed.recv().await,
        None => std::future::pending().await,
    }
}

/// Standard input is read by a thread of its own: a read from a terminal can't be cancelled, and
/// must not keep the process.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(INPUT_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = stdin.read(&mut buffer) {
            if send.blocking_send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}

/// Copies one output to this process's own, as it comes.
async fn show(mut copy: LogCopy, output: Output) {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let written = match copy.next().await {
            LogEvent::Data(_, bytes) => match output {
                Output::Stdout => write(&mut stdout, &bytes).await,
                Output::Stderr => write(&mut stderr, &bytes).await,
            },
            LogEvent::Gap(bytes) => {
                out::note(&format!("welkin: [{bytes} bytes were not kept]"));
                Ok(())
            }
            LogEvent::End | LogEvent::Broken(_) => return,
        };
        if written.is_err() {
            // Nobody reads any more; the copy on this machine is still made.
            while let LogEvent::Data(..) | LogEvent::Gap(_) = copy.next().await {}
            return;
        }
    }
}

async fn write<W: tokio::io::AsyncWrite + Unpin>(
    sink: &mut W,
    bytes: &[u8],
) -> std::io::Result<()> {
    sink.write_all(bytes).await?;
    sink.flush().await
}
