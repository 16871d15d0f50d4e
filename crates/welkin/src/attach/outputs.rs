//! A lease's two outputs on this process's own, as they come.
//!
//! Each output is shown by one task for as long as the lease is attended to, over all connections:
//! what was received is shown before anything that follows it, and before the end.

use std::borrow::Cow;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use welkin_node::buyer::{Keeper, Line, LogCopy, LogEvent};
use welkin_proto::lease::Output;

use crate::out;
use crate::ranked::Ranked;

/// How long a host may take to send what follows once the lease is over.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be used.
const LINES_MAX: usize = 16;

/// The tasks that show the outputs.
pub(crate) struct Outputs {
    lines: Vec<mpsc::Sender<Line>>,
    is_over: watch::Sender<bool>,
    showing: JoinSet<()>,
}

impl Outputs {
    /// Begins to show the outputs of a lease.
    pub(crate) fn show(keeper: &Keeper) -> Self {
        Self::show_behind(keeper, None)
    }

    /// The same of one of several nodes: each line behind its rank.
    pub(crate) fn show_behind(keeper: &Keeper, rank: Option<u16>) -> Self {
        let mut outputs =
            Self { lines: Vec::new(), is_over: watch::Sender::new(false), showing: JoinSet::new() };
        for output in [Output::Stdout, Output::Stderr] {
            let copy = LogCopy::new(keeper.buyer(), keeper.kept().lease, output);
            let (lines, next) = mpsc::channel(LINES_MAX);
            outputs.lines.push(lines);
            outputs.showing.spawn(show(copy, next, outputs.is_over.subscribe(), (output, rank)));
        }
        outputs.connected(keeper);
        outputs
    }

    /// There is a connection again.
    pub(crate) fn connected(&self, keeper: &Keeper) {
        for lines in &self.lines {
            if let Some(line) = keeper.line() {
                // One that is full is stuck on a reader; it will find the newest dead, and the
                // rest in the copy of this machine.
                let _ = lines.try_send(line);
            }
        }
    }

    /// Waits until everything that was received, or is still sent, is shown. A reader that is slow
    /// is waited for.
    pub(crate) async fn all_shown(&mut self) {
        self.lines.clear();
        self.is_over.send_replace(true);
        while self.showing.join_next().await.is_some() {}
    }
}

async fn show(
    mut copy: LogCopy,
    mut lines: mpsc::Receiver<Line>,
    mut is_over: watch::Receiver<bool>,
    (output, rank): (Output, Option<u16>),
) {
    let mut lines_of = rank.map(Ranked::new);
    let mut sink: Box<dyn AsyncWrite + Send + Unpin> = match output {
        Output::Stdout => Box::new(tokio::io::stdout()),
        Output::Stderr => Box::new(tokio::io::stderr()),
    };
    let mut is_read = true;
    while let Some(line) = lines.recv().await {
        if copy.connect_on(&line).await.is_err() {
            continue;
        }
        loop {
            match next(&mut copy, &mut is_over).await {
                LogEvent::Data(_, bytes) => {
                    // Where nobody reads any more the copy on this machine is still made.
                    let text = match &mut lines_of {
                        Some(ranked) => Cow::Owned(ranked.push(&bytes)),
                        None => Cow::Borrowed(&bytes[..]),
                    };
                    is_read = is_read && write(&mut sink, &text).await.is_ok();
                }
                LogEvent::Gap(bytes) => {
                    out::note(&format!("welkin: [{bytes} bytes were not kept]"));
                }
                LogEvent::End => return finish(&mut sink, lines_of.as_mut()).await,
                LogEvent::Broken(_) => break,
            }
        }
    }
    finish(&mut sink, lines_of.as_mut()).await;
}

/// Shows the last line of a node, where it has no end.
async fn finish(sink: &mut (dyn AsyncWrite + Send + Unpin), ranked: Option<&mut Ranked>) {
    if let Some(ranked) = ranked {
        // Whoever does not read any more does not miss it.
        let _ = write(sink, &ranked.finish()).await;
    }
}

/// The next piece; once the lease is over it is not waited for without end.
async fn next(copy: &mut LogCopy, is_over: &mut watch::Receiver<bool>) -> LogEvent {
    let late = async {
        if is_over.wait_for(|is_over| *is_over).await.is_ok() {
            tokio::time::sleep(PIECE_TIMEOUT).await;
        }
    };
    tokio::select! {
        biased;
        event = copy.next() => event,
        () = late => LogEvent::Broken("the host does not go on".to_owned()),
    }
}

async fn write(sink: &mut (dyn AsyncWrite + Send + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    sink.write_all(bytes).await?;
    sink.flush().await
}
