//! What searches for one container and for several have in common: who refused, and when to ask again.

use std::collections::BTreeSet;
use std::time::Duration;

use welkin_proto::lease::RefusalCode;
use welkin_types::{NodeId, Reason, UnixMillis};

/// Rounds of a search: in each the hosts that refused are left out, and after one in which nothing was
/// found all are allowed again.
#[derive(Debug)]
pub(crate) struct Rounds {
    refused: BTreeSet<NodeId>,
    deadline: UnixMillis,
    count: u32,
}

impl Rounds {
    /// The most hosts remembered as having refused.
    const REFUSED_MAX: usize = 64;
    /// The longest wait between two rounds.
    const WAIT_MAX: Duration = Duration::from_secs(5);

    pub(crate) const fn new(deadline: UnixMillis) -> Self {
        Self { refused: BTreeSet::new(), deadline, count: 0 }
    }

    /// A host said no, or could not be reached (`None`). Returns a reason that other hosts would
    /// have, too.
    pub(crate) fn refuse(
        &mut self,
        host: NodeId,
        code: Option<RefusalCode>,
    ) -> Option<RefusalCode> {
        if self.refused.len() < Self::REFUSED_MAX {
            self.refused.insert(host);
        }
        code.filter(|code| !code.try_next())
    }

    pub(crate) fn has_refused(&self, host: NodeId) -> bool {
        self.refused.contains(&host)
    }

    /// Who is left out of the next question.
    pub(crate) fn excluded(&self) -> Vec<NodeId> {
        self.refused.iter().copied().collect()
    }

    /// Ends a round in which nothing was found: until when to wait, or why to give up.
    pub(crate) fn next(&mut self, now: UnixMillis) -> Result<UnixMillis, Reason> {
        let had_hosts = !self.refused.is_empty();
        self.refused.clear();
        self.count = self.count.saturating_add(1);
        let wait = Duration::from_millis(200 << self.count.min(6)).min(Self::WAIT_MAX);
        let at = now.after(wait);
        if at > self.deadline {
            return Err(if had_hosts { Reason::HostsBusy } else { Reason::NoCapacity });
        }
        Ok(at)
    }
}
