//! One probe: asks a host whether a container is there, where it is known to be, and where that fails,
//! where it has signed last that it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;
use welkin_check::Word;
use welkin_net::Endpoint;
use welkin_proto::check::{Finding, Probe, ProbeReply};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_CHECK, Domain, NodeAddr, Signed};
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::lists::Lists;
use crate::connect::Caller;
use crate::outside;

/// A host that has not answered for so long may be elsewhere: it is asked for while it is waited for.
const FIND_AFTER: Duration = Duration::from_millis(1_500);
/// How long an indexer may take to say where a host is.
const FIND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long further indexers are waited for where one has shown another place: somebody may show an old one first.
const FIND_ALL_TIMEOUT: Duration = Duration::from_millis(500);
/// The most hosts that are asked for at once.
const FINDS_MAX: usize = 16;
/// The most hosts of which it is remembered for a minute where they are.
const FOUND_MAX: usize = 4_096;

/// Who probes.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) endpoint: Endpoint,
    pub(super) domain: Domain,
    pub(super) checker: NodeId,
    pub(super) finder: Finder,
}

/// What a probe came to.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) finding: Finding,
    /// Whether the host was found elsewhere than it was listed.
    pub(super) has_moved: bool,
}

impl Prober {
    /// Probes a container. What is not there by the deadline is unreachable.
    pub(super) async fn probe(
        &self,
        addr: NodeAddr,
        container: ContainerId,
        minute: u64,
        deadline: UnixMillis,
    ) -> Probed {
        let within = deadline.since(outside::now());
        let listed = self.ask(addr.clone(), container, minute, within);
        let elsewhere = async {
            tokio::time::sleep(FIND_AFTER.min(within / 3)).await;
            let moved = self.finder.newest(&addr, minute).await?;
            debug!(host = %addr.node, "a host is asked where it says that it is now");
            Some(self.ask(moved, container, minute, within).await)
        };
        let either = async {
            tokio::pin!(listed, elsewhere);
            tokio::select! {
                found = &mut listed => match found {
                    Finding::Unreachable => {
                        let found = elsewhere.await.unwrap_or(Finding::Unreachable);
                        Probed { finding: found, has_moved: found != Finding::Unreachable }
                    }
                    found => Probed { finding: found, has_moved: false },
                },
                found = &mut elsewhere => match found {
                    None | Some(Finding::Unreachable) => {
                        Probed { finding: listed.await, has_moved: false }
                    }
                    Some(finding) => Probed { finding, has_moved: true },
                },
            }
        };
        let nowhere = Probed { finding: Finding::Unreachable, has_moved: false };
        tokio::time::timeout(within, either).await.unwrap_or(nowhere)
    }

    async fn ask(
        &self,
        addr: NodeAddr,
        container: ContainerId,
        minute: u64,
        within: Duration,
    ) -> Finding {
        let host = addr.node;
        let caller = Caller::new(self.endpoint.clone(), addr, ALPN_CHECK);
        // The connection is made first: the round trip is that of the question alone.
        let Ok(connection) = caller.connection().await else { return Finding::Unreachable };
        let nonce = outside::random();
        let sent = Instant::now();
        let reply: Result<Signed<ProbeReply>, _> =
            caller.ask(&Probe { nonce, minute }, within).await;
        let rtt = sent.elapsed();
        connection.close(0, b"done");
        let reply = match reply {
            Ok(reply) => reply,
            Err(crate::CallError::Wire(error)) if error.is_peers_fault() => {
                return Finding::Malformed;
            }
            Err(_) => return Finding::Unreachable,
        };
        match reply.open_by(&self.domain, host) {
            Ok(reply) if reply.nonce != nonce || reply.checker != self.checker => {
                Finding::Malformed
            }
            Ok(reply) if reply.free.iter().any(|(listed, _)| *listed == container) => {
                Finding::Online { rtt_us: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX) }
            }
            Ok(_) => Finding::NotListed,
            Err(_) => Finding::Malformed,
        }
    }
}

/// Asks indexers where hosts are that do not answer: of each once a minute, of a few at once.
#[derive(Debug)]
pub(super) struct Finder {
    indexers: Arc<Vec<Caller>>,
    lists: Lists,
    turns: Semaphore,
    found: Mutex<Found>,
}

/// Where hosts are that were asked for in a minute.
#[derive(Debug, Default)]
struct Found {
    minute: u64,
    hosts: BTreeMap<NodeId, Arc<OnceCell<Option<NodeAddr>>>>,
}

impl Finder {
    pub(super) fn new(indexers: Arc<Vec<Caller>>, lists: Lists) -> Self {
        Self { indexers, lists, turns: Semaphore::new(FINDS_MAX), found: Mutex::default() }
    }

    /// Where the host has signed last that it is, if that is elsewhere.
    async fn newest(&self, tried: &NodeAddr, minute: u64) -> Option<NodeAddr> {
        let cell = self.cell(tried.node, minute)?;
        let found = cell.get_or_init(|| self.find(tried)).await;
        found.clone().filter(|addr| addr != tried)
    }

    /// Where it is kept of a host; none where there is no room.
    fn cell(&self, host: NodeId, minute: u64) -> Option<Arc<OnceCell<Option<NodeAddr>>>> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if minute > found.minute {
            *found = Found { minute, ..Found::default() };
        }
        let has_room = found.hosts.len() < FOUND_MAX || found.hosts.contains_key(&host);
        has_room.then(|| Arc::clone(found.hosts.entry(host).or_default()))
    }

    /// Asks all indexers at once. Of what the host has signed the newest counts; one that is silent keeps
    /// nobody waiting for long.
    async fn find(&self, tried: &NodeAddr) -> Option<NodeAddr> {
        let _turn = self.turns.acquire().await.ok()?;
        let mut asked = JoinSet::new();
        for place in 0..self.indexers.len() {
            let (indexers, host) = (Arc::clone(&self.indexers), tried.node);
            asked.spawn(async move {
                let hello = IndexHello::Ask(Box::new(IndexRequest::Words(vec![host])));
                indexers.get(place)?.ask(&hello, FIND_TIMEOUT).await.ok()
            });
        }
        let mut newest: Option<Word> = None;
        loop {
            let wait = if newest.is_some() { FIND_ALL_TIMEOUT } else { FIND_TIMEOUT };
            let Ok(Some(said)) = tokio::time::timeout(wait, asked.join_next()).await else { break };
            let Ok(Some(IndexReply::Words(shown))) = said else { continue };
            let Some(signed) = shown.first() else { continue };
            // An older one than is known is of no use: the host is not there any more.
            let taken = self.lists.take(tried.node, signed);
            let is_newest =
                |word: &Word| newest.as_ref().is_none_or(|known| word.is_newer_than(known));
            newest = taken.ok().filter(is_newest).or(newest);
        }
        newest.map(|word| word.addr().clone()).filter(|addr| addr != tried)
    }
}
