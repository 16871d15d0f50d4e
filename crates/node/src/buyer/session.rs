//! A buyer's connection to one host.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::lease::{FromHost, StreamHello, ToHost};
use welkin_proto::{Delegation, SignedByAccount};

use super::BuyerError;
use crate::Shutdown;
use crate::wire;

/// Messages that wait in each direction.
const QUEUE_MAX: usize = 256;
/// How long the last messages may take to arrive.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection on which this account has said who it is.
#[derive(Debug)]
pub struct HostSession {
    connection: Connection,
    out: mpsc::Sender<ToHost>,
    inbox: mpsc::Receiver<FromHost>,
    written: oneshot::Receiver<()>,
}

/// A connection to a lease's host, for tasks that open streams of their own on it.
#[derive(Clone, Debug)]
pub struct Line(Connection);

impl Line {
    pub(super) const fn connection(&self) -> &Connection {
        &self.0
    }
}

impl HostSession {
    /// Opens the control stream and says hello, without waiting for an answer.
    pub(super) async fn start(
        connection: Connection,
        delegation: SignedByAccount<Delegation>,
        shutdown: &Shutdown,
    ) -> Result<Self, BuyerError> {
        let (mut send, recv) = connection.open().await.map_err(|_| BuyerError::HostLost)?;
        let hello = ToHost::Hello(delegation);
        wire::send(&mut send, &hello).await.map_err(BuyerError::Wire)?;
        let (out, outgoing) = mpsc::channel(QUEUE_MAX);
        let (incoming, inbox) = mpsc::channel(QUEUE_MAX);
        let (all, written) = oneshot::channel();
        shutdown.spawn_until_asked("to-host", async move {
            write(send, outgoing).await;
            // Nobody may be waiting for this.
            let _ = all.send(());
        });
        shutdown.spawn_until_asked("from-host", read(recv, incoming));
        Ok(Self { connection, out, inbox, written })
    }

    /// Sends a message. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn send(&self, message: ToHost) -> Result<(), BuyerError> {
        self.out.send(message).await.map_err(|_| BuyerError::HostLost)
    }

    /// Ends the control stream and waits until the host has all that was sent.
    pub async fn finish(self) {
        drop(self.out);
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.written).await;
    }

    /// Receives the next message; `None` once the connection is lost. Safe to cancel.
    pub async fn recv(&mut self) -> Option<FromHost> {
        self.inbox.recv().await
    }

    /// Opens a stream beside the control stream.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub(super) async fn stream(
        &self,
        hello: &StreamHello,
    ) -> Result<(SendStream, RecvStream), BuyerError> {
        open_stream(&self.connection, hello).await
    }

    /// The connection itself, for streams of their own tasks.
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, for others.
    pub(super) fn line(&self) -> Line {
        Line(self.connection.clone())
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.connection.close(0, b"done");
    }
}

pub(super) async fn open_stream(
    connection: &Connection,
    hello: &StreamHello,
) -> Result<(SendStream, RecvStream), BuyerError> {
    let (mut send, recv) = connection.open().await.map_err(|_| BuyerError::HostLost)?;
    wire::send(&mut send, hello).await.map_err(BuyerError::Wire)?;
    Ok((send, recv))
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<ToHost>) {
    while let Some(message) = queue.recv().await {
        if wire::send(&mut send, &message).await.is_err() {
            return;
        }
    }
    // Ended by us: wait until it has arrived.
    if send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}

async fn read(mut recv: RecvStream, inbox: mpsc::Sender<FromHost>) {
    while let Ok(Some(message)) = wire::recv(&mut recv).await {
        if inbox.send(message).await.is_err() {
            return;
        }
    }
}
