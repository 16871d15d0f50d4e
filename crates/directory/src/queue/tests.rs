//! What waits to be written: by key, within bounds, in order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use welkin_types::{AccountId, NodeId, UnixMillis};

use super::*;
use crate::row::{HostRow, StandingRow};

fn host(node: u8, revision: u64) -> Change {
    Change::Host(HostRow {
        node: NodeId::from_bytes([node; 32]),
        operator: AccountId::from_bytes([node; 20]),
        revision,
        issued: UnixMillis(1),
        expires: UnixMillis(2),
        capability: vec![node; usize::from(node)],
        sessions: Vec::new(),
    })
}

fn standing(operator: u8, announced: u64) -> Change {
    Change::Standing(StandingRow {
        operator: AccountId::from_bytes([operator; 20]),
        announced,
        refused: 0,
        why: String::new(),
        first: UnixMillis(1),
        last: UnixMillis(2),
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..6_u8, any::<u64>()).prop_map(|(node, revision)| host(node, revision)),
        (0..6_u8).prop_map(|node| Change::HostGone(NodeId::from_bytes([node; 32]))),
        (0..6_u8, any::<u64>()).prop_map(|(operator, count)| standing(operator, count)),
    ]
}

proptest! {
    /// Whatever is put and taken in whatever order: what a reader of the writes ends with is what
    /// was put last, and no batch has a key twice.
    #[test]
    fn the_last_change_of_each_key_is_what_stays(
        steps in proptest::collection::vec((change(), 0..4_usize), 1..60),
    ) {
        let queue = Queue::default();
        let (mut put, mut wrote) = (BTreeMap::new(), BTreeMap::new());
        let name = |change: &Change| format!("{:?}", change.key());
        let mut write = |changes: Vec<Change>, queue: &Queue| {
            let keys: std::collections::BTreeSet<_> = changes.iter().map(name).collect();
            assert_eq!(keys.len(), changes.len());
            queue.written(changes.len());
            wrote.extend(changes.into_iter().map(|change| (name(&change), change)));
        };
        for (change, taken) in steps {
            put.insert(name(&change), change.clone());
            queue.put(change);
            if taken > 0 {
                write(queue.take(taken), &queue);
            }
        }
        while queue.counts().waiting > 0 {
            write(queue.take(3), &queue);
        }
        prop_assert_eq!(queue.state().bytes, 0);
        prop_assert_eq!(put, wrote);
    }

    #[test]
    fn what_waits_is_bounded_and_every_change_is_accounted_for(
        changes in proptest::collection::vec(change(), 1..80), changes_max in 1..8_usize,
    ) {
        let queue = Queue::bounded(changes_max, 2_000);
        let count = changes.len() as u64;
        for change in changes {
            queue.put(change);
            prop_assert!(queue.counts().waiting <= changes_max);
            prop_assert!(queue.state().bytes <= 2_000);
        }
        let counts = queue.counts();
        prop_assert_eq!(counts.waiting as u64 + counts.replaced + counts.dropped, count);
    }
}

#[tokio::test(start_paused = true)]
async fn flushed_waits_for_what_was_put_before_and_for_nothing_later() {
    let queue = Queue::default();
    queue.flushed().await;
    queue.put(host(1, 1));
    queue.put(host(2, 1));
    let soon = std::time::Duration::from_secs(1);
    let (is_waited, ()) = tokio::join!(tokio::time::timeout(soon, queue.flushed()), async {
        queue.ready().await;
        let taken = queue.take(1);
        queue.put(host(3, 1));
        queue.written(taken.len());
    });
    assert!(is_waited.is_err(), "host 2 is not written yet");
    let taken = queue.take(1);
    assert!(tokio::time::timeout(soon, queue.flushed()).await.is_err(), "it is being written");
    queue.written(taken.len());
    let (before, ()) = tokio::join!(tokio::time::timeout(soon, queue.flushed()), async {
        queue.put(host(4, 1));
        let taken = queue.take(1);
        queue.given_up(taken.len());
    });
    // Host 4 came after the question, and still waits.
    assert!(before.is_ok());
    queue.clear();
    queue.flushed().await;
    assert_eq!(queue.counts(), Counts { waiting: 0, written: 2, replaced: 0, dropped: 2 });
}
