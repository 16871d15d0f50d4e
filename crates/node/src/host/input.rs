//! Standard input of a command: one pipe or terminal, whichever connection it is fed from.
//!
//! A buyer whose connection is lost opens another stream and goes on where this side says that it
//! is: what was taken is counted as it is written. The newest stream has its turn; an earlier one,
//! whose connection may not be known to be dead, leaves.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, watch};
use welkin_net::{RecvStream, SendStream};
use welkin_proto::lease::{DataFrame, InputState};

use super::stdio;
use crate::wire::{self, WireError};

/// The turn of nobody: the command is over.
const CLOSED: u64 = u64::MAX;

/// Standard input of one command.
#[derive(Debug)]
pub(crate) struct Stdin {
    end: Mutex<End>,
    turn: watch::Sender<u64>,
}

#[derive(Debug)]
struct End {
    to: To,
    /// Bytes that the command was given; `None` where a process before this one gave some.
    taken: Option<u64>,
}

#[derive(Debug)]
enum To {
    Command(AsyncFd<File>),
    /// Input can't be given, and what the buyer is told of it.
    Nowhere(InputState),
}

fn nowhere(why: &str) -> To {
    To::Nowhere(InputState::Closed(why.to_owned()))
}

impl Stdin {
    fn new(to: To, taken: Option<u64>) -> Self {
        Self { end: Mutex::new(End { to, taken }), turn: watch::Sender::new(0) }
    }

    /// The end of a command that is being started.
    pub(crate) fn fresh(end: Option<OwnedFd>) -> Self {
        match end {
            Some(end) => Self::new(open(end), Some(0)),
            None => Self::new(nowhere("the command was started without standard input"), Some(0)),
        }
    }

    /// The end of a command that has run on over a restart of this process: a terminal's is still
    /// there, a pipe's went with the process.
    pub(crate) fn kept(end: Option<OwnedFd>) -> Self {
        let gone = "the host was restarted, and the command's standard input ended with it";
        Self::new(end.map_or_else(|| nowhere(gone), open), None)
    }

    /// Feeds the command from a buyer's stream until that ends, the command does, or another stream
    /// comes. Safe to cancel: what was written is counted.
    pub(crate) async fn serve(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), WireError> {
        let mut mine = 0;
        self.turn.send_modify(|turn| {
            *turn = turn.saturating_add(1);
            mine = *turn;
        });
        if mine == CLOSED {
            return tell(send, &InputState::Done).await;
        }
        let mut turns = self.turn.subscribe();
        tokio::select! {
            fed = self.feed(send, recv) => fed,
            _ = turns.wait_for(|turn| *turn != mine) => Ok(()),
        }
    }

    async fn feed(&self, send: &mut SendStream, recv: &mut RecvStream) -> Result<(), WireError> {
        let mut end = self.end.lock().await;
        if let To::Nowhere(state) = &end.to {
            return tell(send, state).await;
        }
        let begin = end.taken.map_or(InputState::Unknown, InputState::Taken);
        end.taken.get_or_insert(0);
        wire::send(send, &begin).await?;
        // One that leaves without a word may come back: only a said end is one.
        while let Some(frame) = wire::recv(recv).await? {
            let is_open = match frame {
                // The command may have closed its input: not an error of the buyer's.
                DataFrame::Data(bytes) => end.write(&bytes).await.is_ok(),
                DataFrame::End | DataFrame::Failed(_) => false,
            };
            if !is_open {
                end.to = To::Nowhere(InputState::Done);
                return tell(send, &InputState::Done).await;
            }
            let taken = end.taken.unwrap_or_default();
            wire::send(send, &InputState::Taken(taken)).await?;
        }
        Ok(())
    }

    /// Lets go of the end: the command is over.
    pub(crate) async fn close(&self) {
        self.turn.send_replace(CLOSED);
        self.end.lock().await.to = To::Nowhere(InputState::Done);
    }
}

fn open(end: OwnedFd) -> To {
    match stdio::register(File::from(end), Interest::WRITABLE) {
        Ok(end) => To::Command(end),
        Err(error) => {
            tracing::warn!(%error, "an input can't be watched");
            nowhere("the host can't write to the command's input")
        }
    }
}

async fn tell(send: &mut SendStream, state: &InputState) -> Result<(), WireError> {
    wire::send(send, state).await?;
    let _ = send.finish();
    Ok(())
}

impl End {
    /// Writes all of it. Where it is cancelled, what was written is counted.
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let To::Command(end) = &self.to else { return Err(io::ErrorKind::BrokenPipe.into()) };
        while !bytes.is_empty() {
            let mut ready = end.writable().await?;
            match ready.try_io(|end| end.get_ref().write(bytes)) {
                Ok(Ok(len)) => {
                    bytes = bytes.get(len..).unwrap_or_default();
                    let taken = self.taken.get_or_insert(0);
                    *taken = taken.saturating_add(len as u64);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => (),
            }
        }
        Ok(())
    }
}
