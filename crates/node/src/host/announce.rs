//! Keeps an indexer informed of what this host is: announces it, and announces it again when it has
//! changed, when it is about to expire, and when the indexer asks.
//!
//! How the host *stands* is said by heartbeats ([`super::beats`]). The stream is kept where the
//! indexer wants it, and where datagrams do not pass; otherwise it is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::heartbeat::Welcome;
use welkin_proto::index::{HostToIndexer, IndexHello, IndexerToHost};
use welkin_proto::{ALPN_INDEX, CodecError, NodeAddr, Signed};

use super::Host;
use super::beats::{Beater, Link, Way};
use crate::connect::{CallError, Caller};
use crate::wire::{self, WireError};
use crate::{Shutdown, outside};

/// Renew the capability so often, give or take a fifth; it holds three times as long. A million
/// hosts then cost an indexer some seventy handshakes a second.
const RENEW_EVERY: Duration = Duration::from_secs(4 * 3_600);
/// The shortest and the longest pause between two tries to reach an indexer.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long an indexer may take to welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of an indexer that wait.
const INBOX_MAX: usize = 256;
/// Closing code: heartbeats are heard without the connection.
const CODE_HEARD: u32 = 0;

/// Keeps one indexer informed until a stop is asked for, and then says goodbye.
pub(crate) async fn keep(host: Arc<Host>, indexer: NodeAddr, running: Shutdown) {
    let (link, mut ends) = Link::new();
    let link = Arc::new(link);
    let mut beater = Beater::new(Arc::clone(&host), Arc::clone(&link));
    let told = indexer.clone();
    tokio::select! {
        () = super::evidence::keep(&host, &told) => (),
        () = keep_announced(&host, indexer, &link, &mut ends.frames) => (),
        () = beater.run(&mut ends.notes) => (),
        () = running.asked() => (),
    }
    beater.leave().await;
}

/// How a stream ended that did not break.
enum Parted {
    /// The indexer does not want this host.
    Refused,
    /// Datagrams suffice.
    Heard,
}

async fn keep_announced(
    host: &Arc<Host>,
    indexer: NodeAddr,
    link: &Link,
    frames: &mut mpsc::Receiver<Vec<u8>>,
) {
    let node = indexer.node;
    let caller = Caller::new(host.endpoint.clone(), indexer, ALPN_INDEX);
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        match session(host, &caller, link, frames).await {
            Ok((Parted::Heard, revision)) => {
                debug!(indexer = %node, "beats are heard without the stream");
                needed(host, link, revision).await;
                pause = RETRY_PAUSE_MIN;
            }
            Ok((Parted::Refused, _)) => (),
            Err(error) => debug!(error = %crate::chain(&error), indexer = %node, "not announced"),
        }
        if *link.way.borrow() == Way::Datagrams {
            pause = RETRY_PAUSE_MIN;
        }
        let jitter = f64::from(u16::from_le_bytes(outside::random())) / 65_536.0;
        tokio::time::sleep(pause.mul_f64(0.5 + jitter)).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Completes once the stream is needed again.
async fn needed(host: &Host, link: &Link, revision: u64) {
    let mut way = link.way.subscribe();
    loop {
        let changed = host.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let is_other = host.revision.load(Ordering::Acquire) != revision;
        if is_other || *way.borrow_and_update() != Way::Datagrams {
            return;
        }
        tokio::select! {
            () = &mut changed => (),
            _ = way.changed() => (),
            () = link.poked.notified() => return,
        }
    }
}

/// Announces the host and serves the stream. Returns the revision that was announced last.
async fn session(
    host: &Arc<Host>,
    caller: &Caller,
    link: &Link,
    frames: &mut mpsc::Receiver<Vec<u8>>,
) -> Result<(Parted, u64), CallError> {
    let connection = caller.connection().await?;
    let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
    let (revision, capability) = signed(host).map_err(as_call)?;
    let hello = IndexHello::Host(Box::new(capability));
    wire::send(&mut send, &hello).await.map_err(CallError::Wire)?;
    let welcome = match wire::expect(&mut recv, WELCOME_TIMEOUT).await.map_err(CallError::Wire)? {
        IndexerToHost::Welcome(welcome) => {
            host.welcomed.send_modify(|count| *count = count.saturating_add(1));
            info!(indexer = %caller.addr().node, "announced");
            link.take_poke();
            welcome
        }
        IndexerToHost::Refused(why) => {
            warn!(indexer = %caller.addr().node, why, "the indexer refuses this host");
            return Ok((Parted::Refused, revision));
        }
        IndexerToHost::Hold(_) | IndexerToHost::Notes(_) => {
            return Err(CallError::Wire(WireError::Ended));
        }
    };
    let (inbox, mut queue) = mpsc::channel(INBOX_MAX);
    let reading = read(&mut recv, inbox);
    let mut stream = Stream { host, link, connection: &connection, caller, revision, keeps: true };
    stream.give(*welcome);
    // What waited since an earlier stream is said anew.
    while frames.try_recv().is_ok() {}
    let parted = tokio::select! {
        read = reading => match read {
            Ok(()) => Err(WireError::Ended),
            Err(error) => Err(error),
        },
        written = stream.write(&mut send, &mut queue, frames) => written,
    };
    let parted = parted.map_err(as_call)?;
    if matches!(parted, Parted::Heard) {
        let _ = send.finish();
        connection.close(CODE_HEARD, b"beats are heard");
    }
    Ok((parted, stream.revision))
}

const fn as_call(error: WireError) -> CallError {
    CallError::Wire(error)
}

/// What the host says of itself, with its revision.
fn signed(host: &Host) -> Result<(u64, Signed<welkin_proto::Capability>), WireError> {
    let malformed = |error: CodecError| WireError::Malformed(error);
    let capability = host.capability();
    let signed = Signed::sign(&host.domain, &host.key, &capability).map_err(malformed)?;
    Ok((capability.revision, signed))
}

/// Renews what the host says of itself, for all indexers at once: a beat names the revision that
/// its indexer was told, so each is told of a new one before the next beat.
pub(crate) async fn keep_renewing(host: Arc<Host>) {
    loop {
        let jitter = f64::from(u16::from_le_bytes(outside::random())) / 65_536.0;
        tokio::time::sleep(RENEW_EVERY.mul_f64(0.8 + 0.4 * jitter)).await;
        renew(&host);
    }
}

/// Makes all indexers hear anew of the host.
pub(crate) fn renew(host: &Host) {
    host.revision.fetch_add(1, Ordering::AcqRel);
    host.changed.notify_waiters();
}

/// Frames are read by one task of their own: a frame half read must not be given up.
async fn read(recv: &mut RecvStream, inbox: mpsc::Sender<IndexerToHost>) -> Result<(), WireError> {
    while let Some(message) = wire::recv(recv).await? {
        if inbox.send(message).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// An open stream to an indexer.
struct Stream<'a> {
    host: &'a Arc<Host>,
    link: &'a Link,
    connection: &'a Connection,
    caller: &'a Caller,
    /// Announced.
    revision: u64,
    /// Whether the indexer wants the stream to stay.
    keeps: bool,
}

impl Stream<'_> {
    fn give(&mut self, welcome: Welcome) {
        self.keeps = welcome.keeps_stream;
        self.link.give(welcome, self.connection.remote_addr(), &self.caller.addr().direct);
    }

    async fn write(
        &mut self,
        send: &mut SendStream,
        queue: &mut mpsc::Receiver<IndexerToHost>,
        frames: &mut mpsc::Receiver<Vec<u8>>,
    ) -> Result<Parted, WireError> {
        let mut way = self.link.way.subscribe();
        // An announcement that is under way answers pokes as well.
        let (mut is_poked, mut is_awaited) = (false, false);
        loop {
            let changed = self.host.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is read, so that no change falls between.
            changed.as_mut().enable();
            let is_other = self.host.revision.load(Ordering::Acquire) != self.revision;
            if is_other || (is_poked && !is_awaited) {
                let (next, capability) = signed(self.host)?;
                wire::send(send, &HostToIndexer::Announce(Box::new(capability))).await?;
                self.revision = next;
                (is_poked, is_awaited) = (false, true);
            }
            if !self.keeps && !is_awaited && *way.borrow_and_update() == Way::Datagrams {
                return Ok(Parted::Heard);
            }
            tokio::select! {
                () = &mut changed => (),
                _ = way.changed() => (),
                () = self.link.poked.notified() => is_poked = true,
                Some(frame) = frames.recv() => {
                    wire::send(send, &HostToIndexer::Beats(frame)).await?;
                }
                message = queue.recv() => match message {
                    Some(IndexerToHost::Hold(hold)) => {
                        let kept = self.host.slots().hold(outside::now(), hold);
                        debug!(kept, "a hold was asked for");
                    }
                    Some(IndexerToHost::Notes(notes)) => {
                        let _ = self.link.notes.try_send(notes);
                    }
                    Some(IndexerToHost::Welcome(welcome)) => {
                        (is_awaited, is_poked) = (false, false);
                        self.link.take_poke();
                        self.give(*welcome);
                    }
                    Some(IndexerToHost::Refused(why)) => {
                        warn!(why, "the indexer refuses this host");
                        return Ok(Parted::Refused);
                    }
                    None => return Err(WireError::Ended),
                },
            }
        }
    }
}
