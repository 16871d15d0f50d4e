//! This process's standard input on its way to the lease.

use std::io::Read as _;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use welkin_node::buyer::{Carried, Input, Keeper, Line};
use welkin_types::LeaseId;

/// Pieces of standard input on the way.
const INPUT_MAX: usize = 16;
/// Connections that wait to be used.
const LINES_MAX: usize = 16;
/// How long the end of the input may take to arrive where a person leaves the lease.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that sends standard input: a command that does not read must not keep this side from
/// paying.
pub(super) struct Typing {
    pieces: Option<mpsc::Sender<Vec<u8>>>,
    lines: mpsc::Sender<Line>,
    /// Ends with why the host takes no more, if it says so.
    feeding: JoinSet<Option<String>>,
}

impl Typing {
    /// Begins to send to a lease what is passed on to [`Typing::send`].
    pub(super) fn begin(keeper: &Keeper) -> Self {
        let (pieces, queue) = mpsc::channel(1);
        let (lines, next) = mpsc::channel(LINES_MAX);
        let mut feeding = JoinSet::new();
        feeding.spawn(feed(keeper.kept().lease, next, queue));
        let typing = Self { pieces: Some(pieces), lines, feeding };
        typing.connected(keeper);
        typing
    }

    /// There is a connection again.
    pub(super) fn connected(&self, keeper: &Keeper) {
        if let Some(line) = keeper.line() {
            // Each one that waits is dead before the next comes: the newest is never the one that
            // does not fit.
            let _ = self.lines.try_send(line);
        }
    }

    /// To whoever waits for room, where there is none.
    pub(super) fn full(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.pieces.clone().filter(|pieces| pieces.capacity() == 0)
    }

    /// Sends a piece, for which there must be room.
    pub(super) fn send(&mut self, bytes: Vec<u8>) {
        if self.pieces.as_ref().is_some_and(|pieces| pieces.try_send(bytes).is_err()) {
            self.end();
        }
    }

    /// Closes the input behind what is still on its way.
    pub(super) fn end(&mut self) {
        self.pieces = None;
    }

    /// Why the host takes no more; completes only if it says so.
    pub(super) async fn refused(&mut self) -> String {
        match self.feeding.join_next().await {
            Some(Ok(Some(why))) => {
                self.end();
                why
            }
            _ => std::future::pending().await,
        }
    }

    /// Closes the input and waits until the host knows, for a while.
    pub(super) async fn ended(&mut self) {
        self.end();
        let _ = tokio::time::timeout(END_TIMEOUT, self.feeding.join_next()).await;
    }
}

/// Completes when more input can be taken.
pub(super) async fn room(input: Option<&mpsc::Sender<Vec<u8>>>) {
    if let Some(input) = input {
        let _ = input.reserve().await;
    }
}

async fn feed(
    lease: LeaseId,
    mut lines: mpsc::Receiver<Line>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Option<String> {
    let mut input = Input::new(lease);
    while let Some(line) = lines.recv().await {
        match input.carry(&line, &mut queue).await {
            Carried::Done => return None,
            Carried::Lost => (),
            Carried::Refused(why) => return Some(why),
        }
    }
    None
}

/// Standard input is read by a thread of its own: a read from a terminal can't be cancelled, and
/// must not keep the process.
pub(super) fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
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
