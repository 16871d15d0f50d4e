//! A lease's output: from the host, through a copy on this machine, to whoever reads.

use std::path::Path;

use welkin_net::{Bytes, Connection};
use welkin_proto::lease::{LogFrom, Output, StreamHello};
use welkin_store::{LogLimits, LogPiece, LogReader, LogStart, LogWriter, log_exists};
use welkin_types::{LeaseId, UnixMillis};

use super::session::open_stream;
use super::{Buyer, BuyerError, HostSession, Keeper, Line};
use crate::wire::{LogMessage, LogReceiver};

/// How much of a copy is read at a time.
const COPY_STEP_BYTES: usize = 64 << 10;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Bytes, and when they were printed at the latest.
    Data(UnixMillis, Bytes),
    /// So many bytes were not kept.
    Gap(u64),
    /// Nothing more will come.
    End,
    /// The host is not there any more.
    Broken(String),
}

const fn name_of(output: Output) -> &'static str {
    match output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    }
}

/// Follows one output of a lease and keeps a copy of it.
#[derive(Debug)]
pub struct LogCopy {
    lease: LeaseId,
    output: Output,
    copy: Option<LogWriter>,
    position: u64,
    recv: Option<LogReceiver>,
}

impl LogCopy {
    /// Opens the copy; goes on where it ended.
    pub fn new(buyer: &Buyer, lease: LeaseId, output: Output) -> Self {
        let folder = buyer.home().log_dir(lease);
        let copy = LogWriter::open(&folder, name_of(output), LogLimits::default())
            .inspect_err(|error| {
                tracing::warn!(error = %crate::chain(error), "no copy of the logs is kept");
            })
            .ok();
        let position = copy.as_ref().map_or(0, LogWriter::end);
        Self { lease, output, copy, position, recv: None }
    }

    /// Asks the host for what follows the copy. Call it again after a reconnection.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn connect(&mut self, keeper: &Keeper) -> Result<(), BuyerError> {
        let line = keeper.line().ok_or(BuyerError::HostLost)?;
        self.connect_on(&line).await
    }

    /// The same on a connection at hand.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn connect_on(&mut self, line: &Line) -> Result<(), BuyerError> {
        let from = LogFrom::Offset(self.position);
        let recv = request(line.connection(), self.lease, self.output, from, true).await?;
        self.recv = Some(recv);
        Ok(())
    }

    /// The next piece, already in the copy. Not safe to cancel: give it a task of its own.
    pub async fn next(&mut self) -> LogEvent {
        let Some(recv) = &mut self.recv else {
            return LogEvent::Broken("not connected".to_owned());
        };
        let event = receive(recv).await;
        match &event {
            LogEvent::Data(at, bytes) => {
                self.position = self.position.saturating_add(bytes.len() as u64);
                if let Some(copy) = &mut self.copy
                    && let Err(error) = copy.append(bytes, *at)
                {
                    tracing::warn!(error = %crate::chain(&error), "the copy of a log ends here");
                    self.copy = None;
                }
            }
            LogEvent::Gap(bytes) => {
                self.position = self.position.saturating_add(*bytes);
                // Offsets of the copy must stay those of the log.
                self.copy = None;
            }
            LogEvent::End => {
                let folder = self.copy.take();
                drop(folder);
                self.recv = None;
            }
            LogEvent::Broken(_) => self.recv = None,
        }
        event
    }
}

async fn request(
    connection: &Connection,
    lease: LeaseId,
    output: Output,
    from: LogFrom,
    follow: bool,
) -> Result<LogReceiver, BuyerError> {
    let hello = StreamHello::Logs { lease, output, from, follow };
    let (send, recv) = open_stream(connection, &hello).await?;
    Ok(LogReceiver::new(send, recv))
}

async fn receive(recv: &mut LogReceiver) -> LogEvent {
    match recv.next().await {
        Ok(Some(LogMessage::Data(at, bytes))) => LogEvent::Data(at, bytes),
        Ok(Some(LogMessage::Gap(bytes))) => LogEvent::Gap(bytes),
        Ok(Some(LogMessage::End)) => LogEvent::End,
        Ok(Some(LogMessage::Failed(why))) => LogEvent::Broken(why),
        Ok(None) => LogEvent::Broken("the host ended the log early".to_owned()),
        Err(error) => LogEvent::Broken(crate::chain(&error)),
    }
}

/// A reader of one output, at the host or in the copy.
#[derive(Debug)]
pub struct LogStream(Source);

#[derive(Debug)]
enum Source {
    Host(LogReceiver),
    Copy(Box<LogReader>),
}

impl HostSession {
    /// Reads one output of a lease at its host.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn logs(
        &self,
        lease: LeaseId,
        output: Output,
        from: LogFrom,
        follow: bool,
    ) -> Result<LogStream, BuyerError> {
        let recv = request(self.connection(), lease, output, from, follow).await?;
        Ok(LogStream(Source::Host(recv)))
    }
}

impl Buyer {
    /// Reads one output of a lease in the copy of this machine; `None` where there is none.
    pub fn log_copy(&self, lease: LeaseId, output: Output, from: LogFrom) -> Option<LogStream> {
        let folder = self.home().log_dir(lease);
        copy_at(&folder, output, from)
    }
}

fn copy_at(folder: &Path, output: Output, from: LogFrom) -> Option<LogStream> {
    let name = name_of(output);
    let start = match from {
        LogFrom::Start => LogStart::Offset(0),
        LogFrom::Offset(offset) => LogStart::Offset(offset),
        LogFrom::Tail(lines) => LogStart::Tail(lines),
        LogFrom::Since(at) => LogStart::Since(at),
    };
    if !log_exists(folder, name) {
        return None;
    }
    let reader = LogReader::finished(folder, name, start).ok()?;
    Some(LogStream(Source::Copy(Box::new(reader))))
}

impl LogStream {
    /// The next piece. Not safe to cancel.
    pub async fn next(&mut self) -> LogEvent {
        match &mut self.0 {
            Source::Host(recv) => receive(recv).await,
            Source::Copy(reader) => {
                let mut buffer = Vec::new();
                match reader.next(&mut buffer, COPY_STEP_BYTES) {
                    Ok(LogPiece::Data { offset }) => {
                        LogEvent::Data(reader.time_of(offset), buffer.into())
                    }
                    Ok(LogPiece::Gap { from, to }) => LogEvent::Gap(to - from),
                    Ok(LogPiece::End { .. } | LogPiece::Later | LogPiece::Abandoned) => {
                        LogEvent::End
                    }
                    Err(error) => LogEvent::Broken(crate::chain(&error)),
                }
            }
        }
    }
}
