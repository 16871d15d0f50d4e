//! Whose probes fill a committee: who has drawn it, and of those that stand in no more than are missing.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::check::Report;
use welkin_proto::epoch::Span;
use welkin_types::{ContainerId, NodeId};

use super::Seat;

/// Leaves out who stands in where nobody is missing; what is left, and how many that were.
///
/// In a period all that have drawn a container speak. Where they are fewer than a committee, those that
/// stand in are heard in the order of their ranks until it is full: so who is silent is replaced by the
/// next, and a public list never outvotes those whom nobody knew before.
pub(super) fn filled(
    probes: Vec<Report>,
    stand_ins: &BTreeMap<Seat, u8>,
    span: &Span,
    committee: u8,
) -> (Vec<Report>, usize) {
    let mut drawn: BTreeMap<(ContainerId, Option<u8>), BTreeSet<NodeId>> = BTreeMap::new();
    let mut standing: BTreeMap<_, BTreeSet<(u8, NodeId)>> = BTreeMap::new();
    let rank = |report: &Report| {
        let Report { minute, container, checker, .. } = *report;
        stand_ins.get(&Seat { minute, container, checker }).copied()
    };
    for report in &probes {
        let place = (report.container, span.period_of(report.minute));
        match rank(report) {
            None => drawn.entry(place).or_default().insert(report.checker),
            Some(rank) => standing.entry(place).or_default().insert((rank, report.checker)),
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
    let is_heard = |report: &Report| {
        let place = (report.container, span.period_of(report.minute));
        rank(report).is_none() || heard.contains(&(place, report.checker))
    };
    let probes: Vec<_> = probes.into_iter().filter(is_heard).collect();
    let spare = all - probes.len();
    (probes, spare)
}
