//! What checks found, by host and container. They outlive a host's absence.

use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::slab::Slab;
use super::table::Table;
use crate::score::Score;

#[derive(Clone, Debug)]
pub(super) struct Scored {
    pub(super) node: NodeId,
    pub(super) container: ContainerId,
    pub(super) score: Score,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Scores {
    pub(super) slab: Slab<Scored>,
    table: Table,
    /// Where the next sweep begins.
    swept: u32,
}

impl Scores {
    pub(super) fn new(seed: u64) -> Self {
        Self { table: Table::new(seed), ..Self::default() }
    }

    pub(super) fn number(&self, node: NodeId, container: ContainerId) -> Option<u32> {
        if self.slab.len() == 0 {
            return None;
        }
        let print = self.table.print(&[node.as_bytes(), container.as_bytes()]);
        let is_it = |scored: &Scored| scored.node == node && scored.container == container;
        self.table.find(print, |number| self.slab.get(number).is_some_and(is_it))
    }

    pub(super) fn get(&self, number: u32) -> Option<&Score> {
        self.slab.get(number).map(|scored| &scored.score)
    }

    /// Adds a score that is not known.
    pub(super) fn insert(&mut self, node: NodeId, container: ContainerId, score: Score) -> u32 {
        let print = self.table.print(&[node.as_bytes(), container.as_bytes()]);
        let number = self.slab.insert(Scored { node, container, score });
        self.table.insert(print, number);
        number
    }

    fn remove(&mut self, number: u32) {
        let Some(scored) = self.slab.remove(number) else { return };
        let print = self.table.print(&[scored.node.as_bytes(), scored.container.as_bytes()]);
        self.table.remove(print, number);
    }

    /// Prunes the next few; returns whose score is empty, and is forgotten.
    pub(super) fn sweep(&mut self, now: UnixMillis, most: usize) -> Vec<(NodeId, ContainerId)> {
        let mut gone = Vec::new();
        for _ in 0..most.min(self.slab.end() as usize) {
            let number = self.swept;
            self.swept = if number + 1 >= self.slab.end() { 0 } else { number + 1 };
            let Some(scored) = self.slab.get_mut(number) else { continue };
            scored.score.prune(now);
            if scored.score.is_empty() {
                gone.push((scored.node, scored.container));
                self.remove(number);
            }
        }
        gone
    }
}
