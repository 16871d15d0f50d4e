//! What the sides of sessions measured: statements beside the receipts.

use std::collections::BTreeMap;

use welkin_proto::Domain;
use welkin_proto::digest::{DigestError, Head, Series, SessionDigests, Side};
use welkin_types::{AccountId, LeaseId, NodeId};

use super::findings::Parts;
use super::{LeaseSeconds, Span, Unfit};

const MINUTE_MS: u64 = 60_000;
/// Clocks and begun minutes may differ by so many milliseconds.
const SLACK_MS: u64 = 120_000;

/// One side's word on twelve hours of a session; a checker is named.
type Matter = (LeaseId, NodeId, AccountId, Side, Option<NodeId>, u32);

/// What was measured, by matter and by the hash over it.
#[derive(Debug, Default)]
pub(super) struct Measured(BTreeMap<Matter, BTreeMap<(u32, [u8; 32]), Series>>);

/// One side's digests of a session, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideDigests {
    /// Who measured.
    pub side: Side,
    /// Which checker, if one did.
    pub checker: Option<NodeId>,
    /// What.
    pub series: Series,
}

impl Measured {
    /// Takes a statement in: bounds, signatures and time.
    pub(super) fn open(
        &mut self,
        domain: &Domain,
        span: &Span,
        digests: &SessionDigests,
    ) -> Result<(), Unfit> {
        digests.verify(domain).map_err(|error| match error {
            DigestError::Signature => Unfit::Forged,
            _ => Unfit::Malformed,
        })?;
        let series = &digests.series;
        let (Some(first), Some(last)) = (series.minutes.first(), series.minutes.last()) else {
            return Err(Unfit::Malformed);
        };
        let at = |minute: u32| series.began.0.saturating_add(u64::from(minute) * MINUTE_MS);
        let (from, to) = (span.start.saturating_mul(1_000), span.closes().saturating_mul(1_000));
        let is_before = at(last.minute).saturating_add(MINUTE_MS + SLACK_MS) < from;
        if is_before || at(first.minute) > to {
            return Err(Unfit::Late);
        }
        let Series { lease, host, buyer, side, part, .. } = *series;
        let Head { count, chain, .. } = series.head();
        let matter = (lease, host, buyer, side, digests.checker(), part);
        let known = self.0.entry(matter).or_default().insert((count, chain), series.clone());
        if known.is_none() { Ok(()) } else { Err(Unfit::Repeated) }
    }

    /// Puts what was measured to the leases that it is of, and tells what does not count.
    pub(super) fn join(
        self,
        leases: &mut BTreeMap<(LeaseId, NodeId), LeaseSeconds>,
        parts: &Parts,
        mut refuse: impl FnMut(Unfit, usize),
    ) {
        for ((lease, host, buyer, side, checker, _), mut said) in self.0 {
            let count = said.len();
            let Some((_, series)) = said.pop_last() else { continue };
            // Who says more later says all that came before; else it says two things.
            if said.values().any(|other| !series.extends(other)) {
                refuse(Unfit::Contradicting, count);
                continue;
            }
            refuse(Unfit::Repeated, count - 1);
            let of = leases.get_mut(&(lease, host)).filter(|of| of.receipt.buyer == buyer);
            let Some(of) = of else {
                refuse(Unfit::Stranger, 1);
                continue;
            };
            let container = of.receipt.container;
            if let Some(Err(why)) = checker.map(|checker| parts.judges(checker, container)) {
                refuse(why, 1);
                continue;
            }
            let ran = of.receipt.running_seconds().saturating_mul(1_000).saturating_add(SLACK_MS);
            let last = series.minutes.last().map_or(0, |digest| u64::from(digest.minute));
            if last * MINUTE_MS > ran {
                refuse(Unfit::Late, 1);
                continue;
            }
            of.digests.push(SideDigests { side, checker, series });
        }
    }
}
