//! A lease's two outputs on this process's own, as they come.
//!
//! Each output is shown by one task for as long as the lease is attended to, over all connections:
//! what was received is shown before anything that follows it, and before the end.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use welkin_node::buyer::{Keeper, Line, LogCopy, LogEvent};
use welkin_proto::lease::Output;

use crate::out;

/// How long a host may take to send what follows once the lease is over.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be used.
const LINES_MAX: usize = 16;

/// The tasks that show the outputs.
pub(super) struct Outputs {
    lines: Vec<mpsc::Sender<Line>>,
    is_over: watch::Sender<bool>,
    showing: JoinSet<()>,
}

impl Outputs {
    /// Begins to show the outputs of a lease.
    pub(super) fn show(keeper: &Keeper) -> Self {
        let mut outputs =
            Self { lines: Vec::new(), is_over: watch::Sender::new(false), showing: JoinSet::new() };
        for output in [Output::Stdout, Output::Stderr] {
            let copy = LogCopy::new(keeper.buyer(), keeper.kept().lease, output);
            let (lines, next) = mpsc::channel(LINES_MAX);
            outputs.lines.push(lines);
            outputs.showing.spawn(show(copy, next, outputs.is_over.subscribe(), output));
        }
        outputs.connected(keeper);
        outputs
    }

    /// There is a connection again.
    pub(super) fn connected(&self, keeper: &Keeper) {
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
    pub(super) async fn all_shown(&mut self) {
        self.lines.clear();
        self.is_over.send_replace(true);
        while self.showing.join_next().await.is_some() {}
    }
}

async fn show(
    mut copy: LogCopy,
    mut lines: mpsc::Receiver<Line>,
    mut is_over: watch::Receiver<bool>,
    output: Output,
) {
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
                    is_read = is_read && write(&mut sink, &bytes).await.is_ok();
                }
                LogEvent::Gap(bytes) => {
                    out::note(&format!("welkin: [{bytes} bytes were not kept]"));
                }
                LogEvent::End => return,
                LogEvent::Broken(_) => break,
            }
        }
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
