//! One connection. It is driven by whoever waits for an answer on it, so it needs no task.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, Connection, Socket};

use super::dsn::Dsn;
use super::error::Trouble;
use super::tls::TlsStream;

/// What a session asks of the server: nothing of ours runs long, and a process that was stopped in
/// the middle of a transaction must not hold its locks.
const SETTINGS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '5s'; \
                        SET idle_in_transaction_session_timeout = '3s'";

/// How long a connection may take in all, name look-up and login included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What carries a link's questions and answers.
pub(super) type Wire = Connection<Socket, TlsStream<Socket>>;

pub(super) struct Link {
    client: Client,
    connection: Wire,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    pub(super) async fn open(dsn: &Dsn) -> Result<Self, Trouble> {
        let opening = async {
            let (client, connection) = dsn.config().connect(dsn.tls()).await?;
            let mut link = Self { client, connection };
            let (client, wire) = link.parts();
            drive(wire, client.batch_execute(SETTINGS)).await??;
            Ok(link)
        };
        tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or(Err(Trouble::LATE))
    }

    /// What asks, and what [`drive`] drives.
    pub(super) const fn parts(&mut self) -> (&mut Client, &mut Wire) {
        (&mut self.client, &mut self.connection)
    }
}

/// Does work on a link, and drives its connection meanwhile. After [`Trouble`] the link is to be
/// dropped.
pub(super) async fn drive<T>(wire: &mut Wire, work: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::select! {
        done = work => Ok(done),
        ended = wire => match ended {
            Ok(()) => Err(Trouble::ENDED),
            Err(error) => Err(error.into()),
        },
    }
}

/// As [`drive`], of one question that must be answered within a time.
pub(super) async fn ask<T>(
    wire: &mut Wire,
    within: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Trouble> {
    let answered = tokio::time::timeout(within, drive(wire, question)).await;
    Ok(answered.unwrap_or(Err(Trouble::LATE))??)
}
