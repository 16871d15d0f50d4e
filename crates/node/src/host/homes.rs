//! Which indexers a host announces itself to: its homes, by the cards that indexers show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{debug, info};
use welkin_match::latency;
use welkin_proto::gossip::{HOMES_MAX, HOMES_MIN, Home, homes};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, NodeAddr};
use welkin_types::{AccountId, NodeId, Region, UnixMillis};

use super::{Host, announce};
use crate::connect::Caller;
use crate::{Shutdown, outside};

/// How long an indexer may take to name the others.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The first look comes soon: indexers that have just started know of each other in seconds.
const LOOK_FIRST: Duration = Duration::from_secs(5);
/// It is looked less and less often whether the homes are still the same, down to this.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Indexers that are asked for the others at a time.
const ASKED_MAX: usize = 4;

/// An indexer that shows a card.
#[derive(Clone, Debug)]
struct Known {
    addr: NodeAddr,
    operator: AccountId,
    region: Region,
    expires: UnixMillis,
}

/// Keeps the host announced at its homes for ever.
pub(crate) async fn keep(host: Arc<Host>, seeds: Vec<NodeAddr>) {
    let mut announced: BTreeMap<NodeId, (NodeAddr, Shutdown)> = BTreeMap::new();
    let mut known = BTreeMap::new();
    let mut pause = LOOK_FIRST;
    loop {
        known.extend(look(&host, &seeds, &known).await);
        // A card that nobody shows any more ends by itself: one answer that leaves it out ends it not.
        let now = outside::now();
        known.retain(|_, known: &mut Known| known.expires >= now);
        settle(&host, wanted(&host, &seeds, &known), &mut announced);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Starts announcing where that is missing, and ends it where it is not wanted any more.
fn settle(
    host: &Arc<Host>,
    wanted: Vec<NodeAddr>,
    announced: &mut BTreeMap<NodeId, (NodeAddr, Shutdown)>,
) {
    announced.retain(|node, (addr, running)| {
        let is_wanted = wanted.contains(addr);
        if !is_wanted {
            info!(indexer = %node, "not announced there any more");
            running.ask();
        }
        is_wanted
    });
    for addr in wanted {
        let node = addr.node;
        if announced.contains_key(&node) {
            continue;
        }
        let running = host.shutdown.child();
        // It says goodbye when it is asked to stop.
        let announcing = announce::keep(Arc::clone(host), addr.clone(), running.clone());
        running.spawn("announce", announcing);
        announced.insert(node, (addr, running));
    }
}

/// The homes among the indexers of the host's region; where it has none, of the nearest one that
/// has; where no card is known, among those of the network's file.
fn wanted(host: &Host, seeds: &[NodeAddr], known: &BTreeMap<NodeId, Known>) -> Vec<NodeAddr> {
    let count = host.config.announce_to.clamp(HOMES_MIN, HOMES_MAX);
    let here = &host.config.region;
    let rtt = |region: &Region| latency::default_rtt(here, region);
    let nearest = latency::nearest(known.values().map(|known| &known.region), rtt);
    let region = nearest.into_iter().next().map(|(region, _)| region);
    let of_region = known.values().filter(|known| Some(&known.region) == region.as_ref());
    let candidates: Vec<_> =
        of_region.map(|known| Home { node: known.addr.node, operator: known.operator }).collect();
    if candidates.is_empty() {
        // Who runs them is not known yet: each as if by another.
        let unknown = seeds.iter().map(|seed| {
            let mut operator = [0; 20];
            operator.copy_from_slice(&seed.node.as_bytes()[..20]);
            Home { node: seed.node, operator: AccountId::from_bytes(operator) }
        });
        let chosen = homes(host.key.id(), &unknown.collect::<Vec<_>>(), count);
        let addr = |node: NodeId| seeds.iter().find(|seed| seed.node == node).cloned();
        return chosen.into_iter().filter_map(addr).collect();
    }
    let chosen = homes(host.key.id(), &candidates, count);
    // One key may stand for several machines, of which the leading one shows its own address only:
    // the network's file names all of them, and hosts must not start anew when another one leads.
    let addr = |node: &NodeId| {
        let named = seeds.iter().find(|seed| seed.node == *node);
        named.or_else(|| known.get(node).map(|known| &known.addr)).cloned()
    };
    chosen.iter().filter_map(addr).collect()
}

/// Asks some indexers for all of them; nobody is believed about another.
async fn look(
    host: &Arc<Host>,
    seeds: &[NodeAddr],
    known: &BTreeMap<NodeId, Known>,
) -> BTreeMap<NodeId, Known> {
    let mut others: Vec<_> = known.values().map(|known| known.addr.clone()).collect();
    others.extend(seeds.iter().filter(|seed| !known.contains_key(&seed.node)).cloned());
    let mut asking = JoinSet::new();
    let skip = usize::from(u16::from_le_bytes(outside::random())) % others.len().max(1);
    for addr in others.iter().cycle().skip(skip).take(others.len().min(ASKED_MAX)).cloned() {
        let caller = Caller::new(host.endpoint.clone(), addr, ALPN_INDEX);
        asking.spawn(async move {
            let hello = IndexHello::Ask(Box::new(IndexRequest::Indexers));
            caller.ask::<_, IndexReply>(&hello, ASK_TIMEOUT).await
        });
    }
    let now = outside::now();
    let mut found = BTreeMap::new();
    while let Some(answer) = asking.join_next().await {
        let Ok(Ok(IndexReply::Indexers(directory))) = answer else {
            debug!("an indexer did not name the others");
            continue;
        };
        for signed in directory.cards.iter().take(welkin_match::regions::INDEXERS_MAX) {
            let Ok(card) = signed.open(&host.domain) else { continue };
            if let Ok(operator) = card.check(&host.domain, signed.signer(), now) {
                let (region, expires) = (card.region, card.expires);
                found.insert(card.addr.node, Known { addr: card.addr, operator, region, expires });
            }
        }
    }
    found
}
