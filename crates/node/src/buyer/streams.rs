//! Streams of a lease besides its logs: input, commands, files, connections, state.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::lease::{
    DATA_BYTES_MAX, DataFrame, ExecIn, ExecOut, FRAMES_AHEAD_MAX, LeaseInfo, StreamHello, TermSize,
};
use welkin_types::LeaseId;

use super::session::open_stream;
use super::{BuyerError, HostSession, Keeper};
use crate::wire;

fn io(what: &str) -> impl FnOnce(std::io::Error) -> BuyerError {
    let what = what.to_owned();
    move |source| BuyerError::Io { what, source }
}

async fn send_all(
    send: &mut SendStream,
    source: &mut (dyn AsyncRead + Unpin + Send),
) -> Result<(), BuyerError> {
    let mut buffer = vec![0; DATA_BYTES_MAX / 4];
    loop {
        let len = source.read(&mut buffer).await.map_err(io("read"))?;
        if len == 0 {
            wire::send(send, &DataFrame::End).await.map_err(BuyerError::Wire)?;
            let _ = send.finish();
            return Ok(());
        }
        let frame = DataFrame::Data(buffer[..len].to_vec());
        wire::send(send, &frame).await.map_err(BuyerError::Wire)?;
    }
}

async fn done(recv: &mut RecvStream) -> Result<(), BuyerError> {
    match wire::recv(recv).await.map_err(BuyerError::Wire)? {
        Some(DataFrame::End) => Ok(()),
        Some(DataFrame::Failed(why)) => Err(BuyerError::Said(why)),
        Some(DataFrame::Data(_)) | None => Err(BuyerError::HostLost),
    }
}

impl Keeper {
    /// Sends the files of the task (a tar stream); the command starts when they are there.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where they could not be sent or the host could not keep them.
    pub async fn files(
        &self,
        source: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<(), BuyerError> {
        let connection = self.connection().ok_or(BuyerError::HostLost)?;
        let hello = StreamHello::Files(self.kept().lease);
        let (mut send, mut recv) = open_stream(&connection, &hello).await?;
        send_all(&mut send, source).await?;
        done(&mut recv).await
    }
}

/// As [`HostSession::get`], on a connection.
pub(super) async fn get(
    connection: &Connection,
    lease: LeaseId,
    path: &str,
    bytes_max: u64,
    sink: &mut (dyn AsyncWrite + Unpin + Send),
) -> Result<(), BuyerError> {
    let hello = StreamHello::Get { lease, path: path.to_owned() };
    let (_send, mut recv) = open_stream(connection, &hello).await?;
    let mut left = bytes_max;
    loop {
        match wire::recv(&mut recv).await.map_err(BuyerError::Wire)? {
            Some(DataFrame::Data(bytes)) => {
                left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or(BuyerError::TooLarge { bytes_max })?;
                sink.write_all(&bytes).await.map_err(io("write"))?
            }
            Some(DataFrame::End) => return sink.flush().await.map_err(io("write")),
            Some(DataFrame::Failed(why)) => return Err(BuyerError::Said(why)),
            None => return Err(BuyerError::HostLost),
        }
    }
}

/// One more command in a running lease.
#[derive(Debug)]
pub struct ExecSession {
    send: SendStream,
    recv: RecvStream,
}

/// The sending half of an [`ExecSession`].
#[derive(Debug)]
pub struct ExecInput(SendStream);

/// The receiving half of an [`ExecSession`].
#[derive(Debug)]
pub struct ExecOutput {
    recv: RecvStream,
    /// Pieces that were taken and not told of.
    taken: u32,
}

impl ExecSession {
    /// The two halves.
    pub fn split(self) -> (ExecInput, ExecOutput) {
        (ExecInput(self.send), ExecOutput { recv: self.recv, taken: 0 })
    }
}

impl ExecInput {
    /// Sends input, its end, or a new terminal size.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where the command has ended.
    pub async fn send(&mut self, message: ExecIn) -> Result<(), BuyerError> {
        wire::send(&mut self.0, &message).await.map_err(BuyerError::Wire)
    }
}

impl ExecOutput {
    /// What it prints, and at last how it ended. Not safe to cancel.
    ///
    /// # Errors
    ///
    /// [`BuyerError`] where the host was lost.
    pub async fn next(&mut self) -> Result<ExecOut, BuyerError> {
        let out = wire::recv(&mut self.recv).await.map_err(BuyerError::Wire)?;
        if let Some(ExecOut::Data(..)) = out {
            self.taken += 1;
        }
        out.ok_or(BuyerError::HostLost)
    }

    /// How many pieces to tell the host of with [`ExecIn::Seen`], once there are some. It waits
    /// where it hears of none.
    pub fn seen(&mut self) -> Option<u32> {
        (self.taken >= FRAMES_AHEAD_MAX / 4).then(|| std::mem::take(&mut self.taken))
    }
}

/// A TCP connection into a lease.
#[derive(Debug)]
pub struct ForwardStream {
    send: SendStream,
    recv: RecvStream,
}

impl ForwardStream {
    /// Carries bytes both ways until both sides have ended.
    pub async fn carry<R, W>(mut self, reader: &mut R, writer: &mut W)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let inward = async {
            let _ = tokio::io::copy(reader, &mut self.send).await;
            let _ = self.send.finish();
        };
        let outward = async {
            let _ = tokio::io::copy(&mut self.recv, writer).await;
            let _ = writer.shutdown().await;
        };
        tokio::join!(inward, outward);
    }
}

/// Opens further connections into a lease; cheap to clone.
#[derive(Clone, Debug)]
pub struct Forwarder {
    connection: Connection,
    lease: LeaseId,
}

impl Forwarder {
    /// Connects to a port inside.
    ///
    /// # Errors
    ///
    /// [`BuyerError::Said`] where nothing listens there.
    pub async fn dial(&self, port: u16) -> Result<ForwardStream, BuyerError> {
        let hello = StreamHello::Forward { lease: self.lease, port };
        let (send, mut recv) = open_stream(&self.connection, &hello).await?;
        done(&mut recv).await?;
        Ok(ForwardStream { send, recv })
    }
}

impl HostSession {
    /// Runs one more command in a running lease.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn exec(
        &self,
        lease: LeaseId,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        tty: Option<TermSize>,
    ) -> Result<ExecSession, BuyerError> {
        let hello = StreamHello::Exec { lease, argv, env, cwd: String::new(), tty };
        let (send, recv) = self.stream(&hello).await?;
        Ok(ExecSession { send, recv })
    }

    /// Fetches a file or folder of a running lease as a tar stream of at most so many bytes: how
    /// much comes is the host's to say.
    ///
    /// # Errors
    ///
    /// [`BuyerError::Said`] where there is no such file or it may not be read, and
    /// [`BuyerError::TooLarge`] where more comes.
    pub async fn get(
        &self,
        lease: LeaseId,
        path: &str,
        bytes_max: u64,
        sink: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<(), BuyerError> {
        get(self.connection(), lease, path, bytes_max, sink).await
    }

    /// Unpacks a tar stream in a folder of a running lease.
    ///
    /// # Errors
    ///
    /// [`BuyerError::Said`] where it may not be written or there is no room.
    pub async fn put(
        &self,
        lease: LeaseId,
        path: &str,
        source: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<(), BuyerError> {
        let hello = StreamHello::Put { lease, path: path.to_owned() };
        let (mut send, mut recv) = self.stream(&hello).await?;
        let sent = send_all(&mut send, source).await;
        // A refusal explains a broken stream better than the break does.
        match (done(&mut recv).await, sent) {
            (Err(error @ BuyerError::Said(_)), _) | (Err(error), Ok(())) => Err(error),
            (_, sent) => sent,
        }
    }

    /// For TCP connections into a running lease.
    pub fn forwarder(&self, lease: LeaseId) -> Forwarder {
        Forwarder { connection: self.connection().clone(), lease }
    }

    /// How one lease of this account, or all of them on this host, stand.
    ///
    /// # Errors
    ///
    /// [`BuyerError::HostLost`]
    pub async fn info(&self, lease: Option<LeaseId>) -> Result<Vec<LeaseInfo>, BuyerError> {
        let (_send, mut recv) = self.stream(&StreamHello::Info(lease)).await?;
        let mut infos = Vec::new();
        while let Some(info) = wire::recv(&mut recv).await.map_err(BuyerError::Wire)? {
            infos.push(info);
        }
        Ok(infos)
    }
}
