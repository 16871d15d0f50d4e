//! What checkers found: sheets of probes, challenges, measurements.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use welkin_proto::check::Sheet;
use welkin_proto::exam::{EXAM_ROUNDS_MAX, ExamReport, Verdict as ExamVerdict};
use welkin_proto::site::SiteReport;
use welkin_proto::{Seating, Signed, TurnProof, encode};
use welkin_types::{AccountId, ContainerId, NodeId};

use super::probes::{self, Probed, keep_seats};
use super::rolls::Places;
use super::{Seat, Sieve, Unfit, unopened};

/// What was said, by seats, each once.
pub(super) type Seated<T> = BTreeMap<Seat, BTreeMap<Vec<u8>, T>>;

/// Who takes part in an epoch.
pub(super) struct Parts {
    pub(super) checkers: BTreeMap<NodeId, (u32, AccountId)>,
    pub(super) containers: Places,
}

impl Parts {
    /// Why a checker's word about a container does not count: who does not take part, and who judges
    /// what is its own.
    pub(super) fn judges(&self, checker: NodeId, container: ContainerId) -> Result<(), Unfit> {
        let (_, account) = self.checkers.get(&checker).ok_or(Unfit::Stranger)?;
        let (_, of, _) = self.containers.get(&container).ok_or(Unfit::Stranger)?;
        if account == of { Err(Unfit::Own) } else { Ok(()) }
    }

    fn is_at(&self, host: NodeId, container: ContainerId) -> bool {
        self.containers.get(&container).is_some_and(|(at, ..)| *at == host)
    }
}

impl<F: FnMut(Seat, Option<TurnProof>) -> Seating> Sieve<'_, F> {
    /// Of what its author was not assigned only that is refused. What stands on two sheets alike, for an
    /// indexer that did not list all of the first, counts once.
    pub(super) fn sheet(&mut self, signed: &Signed<Sheet>) -> Result<(), Unfit> {
        let sheet = signed.open(&self.heading.domain).map_err(unopened)?;
        if sheet.checker != signed.signer() {
            return Err(Unfit::Forged);
        }
        if !sheet.is_sound() {
            return Err(Unfit::Malformed);
        }
        self.span.period_of(sheet.minute).ok_or(Unfit::Late)?;
        let bytes = encode(&sheet).map_err(|_| Unfit::Malformed)?;
        if !self.sheets.insert(Sha256::digest(&bytes).into()) {
            return Err(Unfit::Repeated);
        }
        let Sheet { checker, minute, turn, .. } = sheet;
        for report in sheet.reports() {
            let seat = Seat { minute, container: report.container, checker };
            match (self.seating)(seat, turn) {
                Seating::Nobody => {
                    self.refuse(Unfit::Unassigned, 1);
                    continue;
                }
                Seating::StandIn(rank) => drop(self.stand_ins.insert(seat, rank)),
                Seating::Drawn => (),
            }
            self.probes.push(Probed { seat, finding: report.finding });
        }
        Ok(())
    }

    pub(super) fn exam(&mut self, signed: &Signed<ExamReport>) -> Result<(), Unfit> {
        let report = signed.open(&self.heading.domain).map_err(unopened)?;
        let ExamReport { checker, container, minute, turn, .. } = report;
        let seat = Seat { minute, container, checker };
        self.drawn(signed.signer(), seat, turn)?;
        if report.verdict == ExamVerdict::Wrong {
            self.proof_of_wrong(&report)?;
        } else if report.evidence.is_some() {
            return Err(Unfit::Malformed);
        }
        insert(&mut self.exams, seat, report)
    }

    pub(super) fn site(&mut self, signed: &Signed<SiteReport>) -> Result<(), Unfit> {
        let report = signed.open(&self.heading.domain).map_err(unopened)?;
        let SiteReport { checker, container, minute, turn, .. } = report;
        let seat = Seat { minute, container, checker };
        self.drawn(signed.signer(), seat, turn)?;
        insert(&mut self.sites, seat, report)
    }

    /// Whether the author of a finding has drawn its seat. Nobody stands in at a challenge or a
    /// measurement: it would be known before.
    fn drawn(&mut self, signer: NodeId, seat: Seat, turn: Option<TurnProof>) -> Result<(), Unfit> {
        if seat.checker != signer {
            return Err(Unfit::Forged);
        }
        self.span.period_of(seat.minute).ok_or(Unfit::Late)?;
        match (self.seating)(seat, turn) {
            Seating::Drawn => Ok(()),
            Seating::StandIn(_) | Seating::Nobody => Err(Unfit::Unassigned),
        }
    }

    /// Nobody is said to have computed wrongly without what it signed.
    fn proof_of_wrong(&self, report: &ExamReport) -> Result<(), Unfit> {
        let signed = report.evidence.as_ref().ok_or(Unfit::Malformed)?;
        let commitment = signed.open_by(&self.heading.domain, report.host).map_err(unopened)?;
        let work = &commitment.work;
        let is_its = commitment.checker == report.checker
            && work.container == report.container
            && work.minute == report.minute
            && u32::try_from(commitment.roots.len()).is_ok_and(|roots| roots <= EXAM_ROUNDS_MAX);
        if is_its { Ok(()) } else { Err(Unfit::Malformed) }
    }
}

impl<F> Sieve<'_, F> {
    /// Probes of whoever takes part, each once. A sheet names containers by their hosts: what takes part
    /// is where it was found.
    pub(super) fn judged_probes(&mut self, parts: &Parts) -> Vec<Probed> {
        let mut probes = std::mem::take(&mut self.probes);
        probes::sort(&mut probes);
        // Who stands in may fill the place of one that judges its own.
        for why in [Unfit::Stranger, Unfit::Own] {
            let is_so = |seat: &Seat| parts.judges(seat.checker, seat.container) != Err(why);
            let left_out = keep_seats(&mut probes, is_so);
            self.refuse(why, left_out);
        }
        self.refuse(Unfit::Contradicting, probes::drop_torn(&mut probes));
        probes
    }

    /// What whoever takes part said once, of a container at the host that it names; who said several
    /// things of one matter said nothing.
    pub(super) fn judged<T>(
        &mut self,
        seated: Seated<T>,
        parts: &Parts,
        host_of: impl Fn(&T) -> NodeId,
    ) -> Vec<T> {
        let mut kept = Vec::with_capacity(seated.len());
        for (seat, said) in seated {
            // Before what contradicts falls: of a container at another host a checker may have been told
            // something untrue, and its word about the right one is none the worse.
            let all = said.len();
            let is_there = |found: &T| parts.is_at(host_of(found), seat.container);
            let mut said: Vec<_> = said.into_values().filter(is_there).collect();
            self.refuse(Unfit::Stranger, all - said.len());
            match parts.judges(seat.checker, seat.container) {
                Err(why) => self.refuse(why, said.len()),
                Ok(()) if said.len() > 1 => self.refuse(Unfit::Contradicting, said.len()),
                Ok(()) => kept.append(&mut said),
            }
        }
        kept
    }
}

fn insert<T: serde::Serialize>(seated: &mut Seated<T>, seat: Seat, found: T) -> Result<(), Unfit> {
    let bytes = encode(&found).map_err(|_| Unfit::Malformed)?;
    let known = seated.entry(seat).or_default().insert(bytes, found);
    if known.is_none() { Ok(()) } else { Err(Unfit::Repeated) }
}
