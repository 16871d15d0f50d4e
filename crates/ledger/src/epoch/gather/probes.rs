//! What checkers found where: each once, and nothing of who contradicts itself.
//!
//! They are millions in a day: a sorted list of 64 bytes each.

use std::collections::BTreeSet;

use welkin_proto::check::Finding;

use super::{Seat, is_online};

/// What a checker found at a container in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    /// Who, where and when.
    pub seat: Seat,
    /// What it found.
    pub finding: Finding,
}

impl Probed {
    /// Whether both say the same of one seat, that it was there or was not: a checker that is started again
    /// within a minute comes twice, and contradicts nothing that it has said.
    fn is_alike(&self, other: &Self) -> bool {
        self.seat == other.seat && is_online(self.finding) == is_online(other.finding)
    }
}

/// Brings them in order, what is alike once: of several round trips the shortest,
/// of what is bad the first of [`Finding`].
pub(super) fn sort(probes: &mut Vec<Probed>) {
    probes.sort_unstable();
    probes.dedup_by(|next, kept| next.is_alike(kept));
}

/// Keeps what was found at such seats; how much was not.
pub(super) fn keep_seats(probes: &mut Vec<Probed>, is_so: impl Fn(&Seat) -> bool) -> usize {
    let before = probes.len();
    probes.retain(|probed| is_so(&probed.seat));
    before - probes.len()
}

/// Leaves out what sorted probes say differently of one seat; how many that were.
pub(super) fn drop_torn(probes: &mut Vec<Probed>) -> usize {
    let same = probes.windows(2).filter(|pair| pair[0].seat == pair[1].seat);
    let torn: BTreeSet<_> = same.map(|pair| pair[0].seat).collect();
    keep_seats(probes, |seat| !torn.contains(seat))
}
