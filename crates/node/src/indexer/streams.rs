//! The streams of hosts: announcements, holds, and heartbeats where datagrams do not pass.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use welkin_match::Seal;
use welkin_net::{RecvStream, SendStream};
use welkin_proto::heartbeat::Welcome;
use welkin_proto::index::{HostToIndexer, IndexerToHost};
use welkin_proto::{Capability, CodecError, Signed};
use welkin_types::{NodeId, UnixMillis};

use super::Indexer;
use crate::outside;
use crate::wire::{self, WireError};

/// A host that is heard in no way for so long loses its stream: three beats missed.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Messages that wait to be sent to a host.
const PUSH_MAX: usize = 256;

/// Takes an announcement and gives sessions for heartbeats.
fn announce(
    indexer: &Indexer,
    peer: NodeId,
    signed: &Signed<Capability>,
) -> Result<Welcome, String> {
    let now = outside::now();
    let capability = signed.open_by(&indexer.domain, peer).map_err(|error| crate::chain(&error))?;
    let operator =
        capability.check(&indexer.domain, peer, now).map_err(|error| error.to_string())?;
    let revision = capability.revision;
    let containers: Vec<_> = capability.containers.iter().map(|offer| offer.id).collect();
    let noted = indexer.kept.noted(operator, &capability);
    let seal = Seal::of(signed, &capability);
    {
        let mut fleet = indexer.fleet();
        if let Err(why) = fleet.announce_signed(now, operator, capability, &seal) {
            drop(fleet);
            indexer.kept.refused(now, operator, &why);
            return Err(why.to_string());
        }
        indexer.log.announced(&fleet, now, peer);
    }
    let keeps_stream = {
        // Of the others: who announces itself again over its open stream is told as at first.
        let hosts = indexer.hosts();
        indexer.beats.keeps_streams(hosts.len() - usize::from(hosts.contains_key(&peer)))
    };
    let enrolled = indexer.beats.enrol(peer, &containers, revision, keeps_stream);
    let welcome = enrolled.map_err(|full| {
        indexer.fleet().leave(now, peer);
        full.to_string()
    })?;
    if let Some(noted) = noted {
        indexer.kept.announced(now, noted, signed, indexer.beats.rows_of(peer));
    }
    Ok(welcome)
}

/// Serves the stream of a host that begins with this announcement.
pub(super) async fn serve(
    indexer: &Indexer,
    peer: NodeId,
    capability: &Signed<Capability>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let welcome = match announce(indexer, peer, capability) {
        Ok(welcome) => welcome,
        Err(why) => {
            warn!(host = %peer, why, "an announcement is refused");
            wire::send(&mut send, &IndexerToHost::Refused(why)).await?;
            let _ = send.finish();
            return Ok(());
        }
    };
    wire::send(&mut send, &IndexerToHost::Welcome(Box::new(welcome))).await?;
    let (push, mut queue) = mpsc::channel(PUSH_MAX);
    let present = Present::enter(indexer, peer, push.clone());
    let pushing = async {
        while let Some(message) = queue.recv().await {
            if wire::send(&mut send, &message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        listened = listen(indexer, peer, &mut recv, &push, &present.heard) => listened,
        () = pushing => Ok(()),
    }
}

/// A host's stream; over when dropped, also where the connection broke in the middle of something.
struct Present<'a> {
    indexer: &'a Indexer,
    peer: NodeId,
    /// Tells this stream from an earlier one.
    number: u64,
    /// When a beat came over it; 0 where none has.
    heard: AtomicU64,
}

impl<'a> Present<'a> {
    fn enter(indexer: &'a Indexer, peer: NodeId, push: mpsc::Sender<IndexerToHost>) -> Self {
        let mut hosts = indexer.hosts();
        let number = hosts.get(&peer).map_or(0, |(number, _)| number + 1);
        hosts.insert(peer, (number, push));
        info!(host = %peer, "a host has joined");
        Self { indexer, peer, number, heard: AtomicU64::new(0) }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let Self { indexer, peer, number, .. } = self;
        // A newer stream of the same host stays.
        let is_present = {
            let mut hosts = indexer.hosts();
            let is_present = hosts.get(peer).is_some_and(|(present, _)| present == number);
            if is_present {
                hosts.remove(peer);
            }
            is_present
        };
        let heard = UnixMillis(self.heard.load(Ordering::Acquire));
        // When the indexer itself stops, its hosts stay where they are.
        let is_stopping = indexer.shutdown.is_asked();
        if is_present && !is_stopping && !indexer.beats.beats_without_stream(*peer, heard) {
            let (mut fleet, now) = (indexer.fleet(), outside::now());
            fleet.leave(now, *peer);
            indexer.log.left(&fleet, now, *peer);
            info!(host = %peer, "a host has left");
        }
    }
}

/// Hears a host. When it last beat here stands in `heard`, so that one that beats by datagrams is
/// told from one that does not.
async fn listen(
    indexer: &Indexer,
    peer: NodeId,
    recv: &mut RecvStream,
    push: &mpsc::Sender<IndexerToHost>,
    heard: &AtomicU64,
) -> Result<(), WireError> {
    while let Some(message) = next(indexer, peer, recv).await? {
        match message {
            HostToIndexer::Announce(signed) => match announce(indexer, peer, &signed) {
                Ok(welcome) => {
                    let _ = push.try_send(IndexerToHost::Welcome(Box::new(welcome)));
                }
                Err(why) => {
                    warn!(host = %peer, why, "an announcement is refused");
                    return Ok(());
                }
            },
            HostToIndexer::Beats(frame) => {
                let notes = indexer.beats.hear_frame(&indexer.fleet, &frame);
                let notes = notes.ok_or(WireError::Malformed(CodecError::Malformed))?;
                if !notes.is_empty() {
                    // An answer that is lost is asked for again.
                    let _ = push.try_send(IndexerToHost::Notes(notes));
                }
                heard.store(outside::now().0, Ordering::Release);
            }
        }
    }
    debug!(host = %peer, "a host needs its stream no more");
    Ok(())
}

/// The next message; an error once the host is heard in no way. A frame half read is not given up
/// before that.
async fn next(
    indexer: &Indexer,
    peer: NodeId,
    recv: &mut RecvStream,
) -> Result<Option<HostToIndexer>, WireError> {
    let message = wire::recv(recv);
    tokio::pin!(message);
    loop {
        tokio::select! {
            message = &mut message => return message,
            () = tokio::time::sleep(SILENCE_MAX) => {
                let silent_ms = u64::try_from(SILENCE_MAX.as_millis()).unwrap_or(u64::MAX);
                let since = outside::now().0.saturating_sub(silent_ms);
                if indexer.beats.heard(peer).is_none_or(|heard| heard.0 < since) {
                    return Err(WireError::Late(SILENCE_MAX));
                }
            }
        }
    }
}
