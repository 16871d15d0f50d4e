//! How many of those that have drawn a container have spoken of it in a period, so that others know where
//! they are wanted to stand in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use welkin_proto::check::{SHORT_MAX, ShortAsk};
use welkin_proto::index::IndexReply;
use welkin_types::{ContainerId, NodeId};

use super::Indexer;
use crate::checker::COMMITTEE;

/// Periods that are remembered: the present and the last one.
const PERIODS_MAX: usize = 2;
/// Containers of which it is known; of any other nobody has spoken.
const CONTAINERS_MAX: usize = 1 << 19;

/// An epoch and a period of it.
type Place = (u64, u8);
type Spoken = BTreeMap<Place, BTreeMap<ContainerId, BTreeSet<NodeId>>>;

/// Who has spoken; no more of a container than a committee.
#[derive(Debug, Default)]
pub(super) struct SpokenOf(Mutex<Spoken>);

impl SpokenOf {
    pub(super) fn note(&self, place: Place, container: ContainerId, checker: NodeId) {
        let mut inner = self.inner();
        let of_period = inner.entry(place).or_default();
        if of_period.len() < CONTAINERS_MAX || of_period.contains_key(&container) {
            let of_container = of_period.entry(container).or_default();
            if of_container.len() < COMMITTEE {
                of_container.insert(checker);
            }
        }
        while inner.len() > PERIODS_MAX {
            inner.pop_first();
        }
    }

    fn count(&self, place: Place, container: ContainerId) -> usize {
        let inner = self.inner();
        let of_container = inner.get(&place).and_then(|of_period| of_period.get(&container));
        of_container.map_or(0, BTreeSet::len)
    }

    fn inner(&self) -> MutexGuard<'_, Spoken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which containers are short of checkers.
pub(super) async fn answer(indexer: &Indexer, ask: ShortAsk) -> IndexReply {
    if ask.containers.len() > SHORT_MAX {
        return IndexReply::Refused(format!("no more than {SHORT_MAX} containers at once"));
    }
    let count = |epoch, period, container| indexer.spoken.count((epoch, period), container);
    match indexer.reports.short(ask.minute, ask.containers, count).await {
        Ok(short) => IndexReply::Short(short),
        Err(why) => IndexReply::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_in_a_period_and_old_ones_are_forgotten() {
        let spoken = SpokenOf::default();
        let container = ContainerId::from_bytes([1; 16]);
        let node = |number| NodeId::from_bytes([number; 32]);
        for number in [1, 1, 2, 2] {
            spoken.note((7, 0), container, node(number));
        }
        assert_eq!(spoken.count((7, 0), container), 2);
        assert_eq!(spoken.count((7, 1), container), 0);
        assert_eq!(spoken.count((7, 0), ContainerId::from_bytes([2; 16])), 0);
        for number in 0..9 {
            spoken.note((7, 1), container, node(number));
        }
        assert_eq!(spoken.count((7, 1), container), COMMITTEE);
        spoken.note((8, 0), container, node(1));
        assert_eq!(spoken.count((7, 0), container), 0);
        assert_eq!((spoken.count((7, 1), container), spoken.count((8, 0), container)), (3, 1));
    }
}
