//! Keeps an indexer informed: the capability once, the state at once on a change and every 10 s.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use welkin_net::{RecvStream, SendStream};
use welkin_proto::index::{Beat, HostToIndexer, IndexHello, IndexerToHost};
use welkin_proto::{ALPN_INDEX, CodecError, NodeAddr, Signed};

use super::Host;
use crate::connect::{CallError, Caller};
use crate::outside;
use crate::wire::{self, WireError};

/// Time between two beats without a change, before jitter.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Renew the capability so often; it holds an hour.
const RENEW_EVERY: Duration = Duration::from_secs(1_200);
/// The longest pause between two tries to reach an indexer.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long an indexer may take to welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of an indexer that wait.
const HOLDS_MAX: usize = 256;

/// Keeps one indexer informed for ever.
pub(crate) async fn keep(host: Arc<Host>, indexer: NodeAddr) {
    let node = indexer.node;
    let caller = Caller::new(host.endpoint.clone(), indexer, ALPN_INDEX);
    let mut pause = Duration::from_millis(100);
    loop {
        match session(&host, &caller).await {
            Ok(()) => pause = Duration::from_millis(100),
            Err(error) => debug!(error = %crate::chain(&error), indexer = %node, "not announced"),
        }
        let jitter = f64::from(u16::from_le_bytes(outside::random())) / 65_536.0;
        tokio::time::sleep(pause.mul_f64(0.5 + jitter)).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

async fn session(host: &Arc<Host>, caller: &Caller) -> Result<(), CallError> {
    let connection = caller.connection().await?;
    let (mut send, mut recv) = connection.open().await.map_err(CallError::Lost)?;
    let (revision, capability) = signed(host).map_err(as_call)?;
    let hello = IndexHello::Host(Box::new(capability));
    wire::send(&mut send, &hello).await.map_err(CallError::Wire)?;
    match wire::expect(&mut recv, WELCOME_TIMEOUT).await.map_err(CallError::Wire)? {
        IndexerToHost::Welcome => {
            host.welcomed.send_modify(|count| *count = count.saturating_add(1));
            info!(indexer = %caller.addr().node, "announced");
        }
        IndexerToHost::Refused(why) => {
            warn!(indexer = %caller.addr().node, why, "the indexer refuses this host");
            return Ok(());
        }
        IndexerToHost::Hold(_) => return Err(CallError::Wire(WireError::Ended)),
    }
    let (holds, mut queue) = mpsc::channel(HOLDS_MAX);
    let reading = read(&mut recv, holds);
    let writing = write(host, &mut send, &mut queue, revision);
    tokio::select! {
        read = reading => read.map_err(CallError::Wire),
        written = writing => written.map_err(as_call),
    }
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
        tokio::time::sleep(RENEW_EVERY).await;
        renew(&host);
    }
}

/// Makes all indexers hear anew of the host.
pub(crate) fn renew(host: &Host) {
    host.revision.fetch_add(1, Ordering::AcqRel);
    host.changed.notify_waiters();
}

/// Frames are read by one task of their own: a frame half read must not be given up.
async fn read(recv: &mut RecvStream, holds: mpsc::Sender<IndexerToHost>) -> Result<(), WireError> {
    while let Some(message) = wire::recv(recv).await? {
        if holds.send(message).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn write(
    host: &Arc<Host>,
    send: &mut SendStream,
    queue: &mut mpsc::Receiver<IndexerToHost>,
    mut revision: u64,
) -> Result<(), WireError> {
    let mut sequence = 0;
    loop {
        let changed = host.changed.notified();
        tokio::pin!(changed);
        // Registered before the state is read, so that no change falls between.
        changed.as_mut().enable();
        if host.revision.load(Ordering::Acquire) != revision {
            let (next, capability) = signed(host)?;
            wire::send(send, &HostToIndexer::Announce(Box::new(capability))).await?;
            revision = next;
        }
        sequence += 1;
        let beat = Beat {
            revision,
            sequence,
            free: host.slots().all_unleased(),
            spot: Vec::new(),
            draining: host.draining.load(Ordering::Acquire),
        };
        wire::send(send, &HostToIndexer::Beat(beat)).await?;
        let jitter = f64::from(u16::from_le_bytes(outside::random())) / 65_536.0;
        let next = Instant::now() + BEAT_EVERY.mul_f64(0.8 + 0.4 * jitter);
        tokio::select! {
            () = &mut changed => (),
            () = tokio::time::sleep_until(next) => (),
            message = queue.recv() => match message {
                Some(IndexerToHost::Hold(hold)) => {
                    let kept = host.slots().hold(outside::now(), hold);
                    debug!(kept, "a hold was asked for");
                }
                Some(IndexerToHost::Refused(why)) => {
                    warn!(why, "the indexer refuses this host");
                    return Ok(());
                }
                Some(IndexerToHost::Welcome) => (),
                None => return Ok(()),
            },
        }
    }
}
