//! What checkers of an epoch say that it came to, beside what was settled here.

use std::collections::BTreeMap;

use welkin_node::epoch::{Outcome, Published};
use welkin_proto::cosign::Cosign;
use welkin_types::NodeId;

use crate::out;

/// Checkers' words as they were signed.
pub(super) type Words = BTreeMap<NodeId, Cosign>;

/// Words compared with what was settled here.
pub(super) struct Compared {
    /// How many checkers the epoch has.
    checkers: usize,
    /// Who says the same.
    same: Vec<NodeId>,
    /// Who says something else.
    other: Vec<NodeId>,
}

impl Compared {
    /// Upon a book of its own the root is another one, and only the evidence is compared.
    pub(super) fn new(
        words: &Words,
        published: &Published,
        outcome: &Outcome,
        has_book: bool,
    ) -> Self {
        let settled = &outcome.settled;
        let is_same = |word: &Cosign| {
            word.evidence == settled.evidence && (has_book || word.root == settled.claims.root())
        };
        let (same, other): (Vec<_>, Vec<_>) = words.iter().partition(|(_, word)| is_same(word));
        let nodes = |words: Vec<(&NodeId, &Cosign)>| words.into_iter().map(|(by, _)| *by).collect();
        let checkers = published.heading.view.checkers.len();
        Self { checkers, same: nodes(same), other: nodes(other) }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("by {} of {} checkers", self.same.len(), self.checkers);
        if !self.other.is_empty() {
            let other: Vec<_> = self.other.iter().map(out::short).collect();
            text.push_str(&format!("; otherwise by {}", other.join(", ")));
        }
        text
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({"same": self.same, "other": self.other})
    }
}
