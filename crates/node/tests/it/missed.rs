//! Changes of leases that an indexer never heard of: noticed by the next change, and mended by an
//! announcement that it asks for.

use std::net::UdpSocket;
use std::time::Instant;

use welkin_proto::heartbeat::{NOTE_BYTES, Note, Vitals};

use crate::beats::{ByHand, Indexer, eventually, free, socket, world};

/// The most hosts that are asked in a second for what was missed.
const PER_SECOND_MAX: u64 = 50;

/// A state with so many free slots, after so many changes of the leases.
fn told(free: u16, lease_epoch: u32) -> Vitals {
    let lease_digest = u64::from(lease_epoch) << 24;
    Vitals { lease_epoch, lease_digest, ..ByHand::vitals(free) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_change_of_leases_is_asked_for_and_mended() {
    let (world, indexer) = world(4_096).await;
    let buyer = world.buyer().await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    let own = socket();
    assert_eq!(host.beat(&own, &told(4, 0)), Note::Ack);
    assert_eq!(host.beat(&own, &told(3, 1)), Note::Ack);
    // Lost on its way.
    host.seal(&told(2, 2));
    assert_eq!(host.beat(&own, &told(1, 3)), Note::Poke);
    // What is free was right at once.
    assert_eq!(free(&buyer).await, [1]);
    let counters = indexer.counters();
    assert_eq!((counters.missed, counters.poked), (1, 1), "{counters:?}");
    host.announce_again().await;
    for changes in [1, 1, 2] {
        assert_eq!(host.beat(&own, &told(1, changes)), Note::Ack);
    }
    let counters = indexer.counters();
    assert_eq!((counters.missed, counters.poked, counters.enrolled), (1, 1, 2), "{counters:?}");
    buyer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_by_beats_that_are_replayed_or_forged() {
    let (_world, indexer) = world(4_096).await;
    let mut host = ByHand::enrol(&indexer.addr, 30).await;
    let mut liar = ByHand::enrol(&indexer.addr, 31).await;
    let (own, stranger) = (socket(), socket());
    let first = host.seal(&told(4, 7));
    own.send_to(&first, host.to).unwrap();
    own.recv(&mut [0; 64]).unwrap();
    assert_eq!(host.beat(&own, &told(3, 8)), Note::Ack);
    // The first again; one with other leases whose bits were turned; another host's in its name.
    let mut turned = host.seal(&told(3, 8));
    turned[13 + 24] ^= 4;
    let mut stolen = liar.seal(&told(0, 90));
    stolen[1..5].copy_from_slice(&host.welcome.sessions[0].session.to_le_bytes());
    stolen[5..13].copy_from_slice(&900_u64.to_le_bytes());
    for datagram in [first, turned, stolen] {
        stranger.send_to(&datagram, host.to).unwrap();
    }
    eventually(async || indexer.counters().dropped() == 3).await;
    let counters = indexer.counters();
    assert_eq!((counters.old, counters.forged), (1, 2), "{counters:?}");
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err(), "nobody is answered");
    assert_eq!(host.beat(&own, &told(3, 8)), Note::Ack);
    let counters = indexer.counters();
    assert_eq!((counters.missed, counters.poked), (0, 0), "{counters:?}");
}

/// Hosts with as many containers as one may have, all of which beat.
struct Many {
    hosts: Vec<ByHand>,
    own: UdpSocket,
}

impl Many {
    const CONTAINERS: u32 = 4;

    async fn enrol(indexer: &Indexer, count: u8) -> Self {
        let mut hosts = Vec::new();
        for number in 0..count {
            hosts.push(ByHand::enrol_with(&indexer.addr, 30 + number, Self::CONTAINERS).await);
        }
        Self { hosts, own: socket() }
    }

    /// Each container beats and is answered. Returns how many of the answers are pokes.
    fn beat(&mut self, vitals: &Vitals) -> u64 {
        let mut pokes = 0;
        for host in &mut self.hosts {
            for container in 0..Self::CONTAINERS as usize {
                let beat = host.seal_of(container, vitals);
                self.own.send_to(&beat, host.to).unwrap();
                let mut answer = [0; NOTE_BYTES];
                self.own.recv(&mut answer).unwrap();
                let note = Note::open(&host.welcome.sessions[container].key, &answer).unwrap();
                pokes += u64::from(note == Note::Poke);
            }
        }
        pokes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_missed_changes_asks_a_few_hosts_a_second() {
    let (_world, indexer) = world(4_096).await;
    let hosts = 20;
    let mut many = Many::enrol(&indexer, hosts).await;
    let (hosts, sessions) = (u64::from(hosts), u64::from(hosts) * u64::from(Many::CONTAINERS));
    assert_eq!(many.beat(&told(4, 1)), 0);
    // Of all of them a change is lost, as when this indexer was cut off for a while.
    let began = Instant::now();
    let mut asked = many.beat(&told(3, 9));
    assert_eq!(indexer.counters().missed, sessions);
    // A host that is not known as it stands need not wait for them.
    let mut other = ByHand::enrol(&indexer.addr, 70).await;
    let unknown = Vitals { revision: 2, ..ByHand::vitals(4) };
    // Both within one of the eight seconds in which it is asked once.
    eventually(async || welkin_node::outside::now().0 % 8_000 < 6_000).await;
    assert_eq!(other.beat(&many.own, &unknown), Note::Poke);
    assert_eq!(other.beat(&many.own, &unknown), Note::Ack, "not twice at once");
    // The others have their turn with later beats. A host is asked once, not for each container.
    eventually(async || {
        asked += many.beat(&told(3, 9));
        asked >= hosts
    })
    .await;
    asked += many.beat(&told(3, 9));
    let (took, counters) = (began.elapsed().as_secs(), indexer.counters());
    assert!(asked == hosts || took > 50, "{asked} of {hosts} in {took} s");
    assert!(counters.poked <= 1 + PER_SECOND_MAX * (took + 2), "{took} s: {counters:?}");
    assert_eq!(counters.missed, sessions, "each is noticed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_an_indexer_was_away_asks_nobody() {
    let (world, indexer) = world(4_096).await;
    let mut many = Many::enrol(&indexer, 2).await;
    assert_eq!(many.beat(&told(4, 1)), 0);
    let at = indexer.stop().await;
    let again = Indexer::start(&world, Some(at), 4_096).await;
    assert_eq!(many.beat(&told(2, 40)), 0);
    let counters = again.counters();
    assert_eq!((counters.missed, counters.poked, counters.enrolled), (0, 0, 0), "{counters:?}");
}
