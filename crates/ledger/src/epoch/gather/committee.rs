//! Whose probes fill a committee: who has drawn it, and of those that stand in no more than are missing.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::epoch::Span;
use welkin_types::{ContainerId, NodeId};

use super::{Probed, Seat};

/// Leaves out who stands in where nobody is missing; what is left, and how many that were.
///
/// In a period all that have drawn a container speak. Where they are fewer than a committee, those that
/// stand in are heard in the order of their ranks until it is full: so who is silent is replaced by the
/// next, and a public list never outvotes those whom nobody knew before.
pub(super) fn filled(
    probes: Vec<Probed>,
    stand_ins: &BTreeMap<Seat, u8>,
    span: &Span,
    committee: u8,
) -> (Vec<Probed>, usize) {
    let mut drawn: BTreeMap<(ContainerId, Option<u8>), BTreeSet<NodeId>> = BTreeMap::new();
    let mut standing: BTreeMap<_, BTreeSet<(u8, NodeId)>> = BTreeMap::new();
    let place = |seat: &Seat| (seat.container, span.period_of(seat.minute));
    for Probed { seat, .. } in &probes {
        match stand_ins.get(seat) {
            None => drawn.entry(place(seat)).or_default().insert(seat.checker),
            Some(rank) => standing.entry(place(seat)).or_default().insert((*rank, seat.checker)),
        };
    }
    let mut heard = BTreeSet::new();
    for (place, standing) in standing {
        let own = drawn.get(&place);
        let missing = usize::from(committee).saturating_sub(own.map_or(0, BTreeSet::len));
        let is_new = |node: &NodeId| own.is_none_or(|own| !own.contains(node));
        let fill = standing.into_iter().map(|(_, node)| node).filter(is_new).take(missing);
        heard.extend(fill.map(|node| (place, node)));
    }
    let all = probes.len();
    let is_heard = |Probed { seat, .. }: &Probed| {
        !stand_ins.contains_key(seat) || heard.contains(&(place(seat), seat.checker))
    };
    let probes: Vec<_> = probes.into_iter().filter(is_heard).collect();
    let spare = all - probes.len();
    (probes, spare)
}
