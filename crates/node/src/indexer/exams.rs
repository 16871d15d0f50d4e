//! What challenges of hardware found lately: the last finding of each checker, in memory. After a
//! restart it fills again as challenges go on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use welkin_proto::Signed;
use welkin_proto::epoch::Statement;
use welkin_proto::exam::{EXAM_ROUNDS_MAX, ExamReport, Verdict, Verified};
use welkin_proto::index::IndexReply;
use welkin_types::{Class, ContainerId, NodeId};

use super::Indexer;

/// The most containers that are remembered; of further ones nothing is kept.
const CONTAINERS_MAX: usize = 500_000;
/// The most checkers of one container; the one that was there longest ago goes first.
pub(super) const CHECKERS_MAX: usize = 9;
/// How long a finding counts, in minutes: a week, after which hardware is to be proved anew.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// The findings.
#[derive(Debug, Default)]
pub(super) struct Exams {
    found: Mutex<BTreeMap<(NodeId, ContainerId), Findings>>,
}

/// The last findings of each checker, with their minutes: of what its devices compute, and of whether
/// their memory is there.
type Findings = BTreeMap<(NodeId, bool), (u64, Verdict)>;

/// Whether it is a finding about memory.
const fn is_of_memory(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Resident { .. } | Verdict::NotResident)
}

impl Exams {
    /// Keeps a report; whether there was room for it.
    fn take(&self, report: &ExamReport) -> bool {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (report.host, report.container);
        if found.len() >= CONTAINERS_MAX && !found.contains_key(&key) {
            let is_old = |findings: &Findings| {
                findings.values().all(|(minute, _)| minute + MINUTES_MAX < report.minute)
            };
            found.retain(|_, findings| !is_old(findings));
            if found.len() >= CONTAINERS_MAX {
                return false;
            }
        }
        let findings = found.entry(key).or_default();
        let kind = is_of_memory(&report.verdict);
        let by = (report.checker, kind);
        if findings.get(&by).is_none_or(|(at, _)| *at <= report.minute) {
            findings.insert(by, (report.minute, report.verdict.clone()));
        }
        let of_kind = findings.iter().filter(|((_, of), _)| *of == kind);
        if of_kind.clone().count() > CHECKERS_MAX {
            let oldest = of_kind.min_by_key(|(_, (minute, _))| *minute).map(|(by, _)| *by);
            oldest.map(|oldest| findings.remove(&oldest));
        }
        true
    }

    /// What was found of each container, at most so many.
    pub(super) fn rows(&self, count_max: usize) -> Vec<Verified> {
        let now = welkin_check::minute_of(crate::outside::now());
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = found.iter().filter_map(|((host, container), findings)| {
            let fresh = findings.values().filter(|(minute, _)| minute + MINUTES_MAX >= now);
            added_up(*host, *container, fresh)
        });
        rows.take(count_max).collect()
    }
}

/// What most say. A proof of no class is none.
fn added_up<'a>(
    host: NodeId,
    container: ContainerId,
    findings: impl Iterator<Item = &'a (u64, Verdict)>,
) -> Option<Verified> {
    let (mut rates, mut classes) = (Vec::new(), BTreeMap::<&Class, u32>::new());
    let (mut proved, mut failed, mut last) = (0, 0, None);
    let (mut resident, mut absent) = (0, 0);
    for (minute, verdict) in findings {
        last = last.max(Some(*minute));
        match verdict {
            Verdict::Proved { mmac_per_s, class } => {
                proved += 1;
                rates.push(*mmac_per_s);
                class.iter().for_each(|class| *classes.entry(class).or_default() += 1);
            }
            Verdict::Resident { .. } => resident += 1,
            Verdict::NotResident => absent += 1,
            Verdict::Refused(_) | Verdict::TooSlow | Verdict::Wrong | Verdict::Evasive => {
                failed += 1;
            }
        }
    }
    rates.sort_unstable();
    let all: u32 = proved + failed;
    let most = classes.into_iter().max_by_key(|(_, count)| *count);
    let class = most.filter(|(_, count)| 2 * count > all).map(|(class, _)| class.clone());
    let mmac_per_s = rates.get(rates.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    last.map(|minute| Verified {
        host,
        container,
        class,
        mmac_per_s,
        proved,
        failed,
        resident,
        absent,
        minute,
    })
}

/// Takes a checker's report where it was assigned.
pub(super) async fn answer(
    indexer: &Indexer,
    peer: NodeId,
    signed: &Signed<ExamReport>,
) -> IndexReply {
    let report = match signed.open_by(&indexer.domain, peer) {
        Ok(report) if report.checker == peer => report,
        Ok(_) => return IndexReply::Refused("the report names another checker".to_owned()),
        Err(error) => return IndexReply::Refused(crate::chain(&error)),
    };
    let ExamReport { checker, container, minute, turn, .. } = report;
    if let Err(why) = indexer.reports.check(checker, container, minute, turn).await {
        return IndexReply::Refused(why);
    }
    if let Err(why) = evidence(indexer, &report) {
        return IndexReply::Refused(why.to_owned());
    }
    let is_here = indexer.fleet().has(report.host, report.container);
    if !is_here {
        return IndexReply::Refused(
            "the report is of a container that is not known here".to_owned(),
        );
    }
    if indexer.exams.take(&report) {
        let statement = Statement::Exam(Box::new(signed.clone()));
        super::evidence::reported(indexer, minute, statement).await
    } else {
        IndexReply::Refused("there are too many containers already".to_owned())
    }
}

/// Nobody is said to have computed wrongly without what it signed, and nothing else comes with evidence,
/// which would only take room.
fn evidence(indexer: &Indexer, report: &ExamReport) -> Result<(), &'static str> {
    if report.verdict != Verdict::Wrong {
        let is_bare = report.evidence.is_none();
        return if is_bare { Ok(()) } else { Err("only a wrong result has evidence") };
    }
    let signed = report.evidence.as_ref().ok_or("a wrong result is reported without evidence")?;
    let commitment = signed.open_by(&indexer.domain, report.host);
    let commitment = commitment.map_err(|_| "the evidence is not signed by the host")?;
    let work = &commitment.work;
    let is_its = commitment.checker == report.checker
        && work.container == report.container
        && work.minute == report.minute
        && u32::try_from(commitment.roots.len()).is_ok_and(|roots| roots <= EXAM_ROUNDS_MAX);
    if is_its { Ok(()) } else { Err("the evidence is of another challenge") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checker: u8, minute: u64, verdict: Verdict) -> ExamReport {
        let (checker, host) = (NodeId::from_bytes([checker; 32]), NodeId::from_bytes([9; 32]));
        let (container, n, rounds) = (ContainerId::from_bytes([3; 16]), 512, 2);
        let (evidence, turn) = (None, None);
        ExamReport { checker, host, container, minute, n, rounds, verdict, evidence, turn }
    }

    #[test]
    fn the_last_word_of_most_counts() {
        let exams = Exams::default();
        let now = welkin_check::minute_of(crate::outside::now());
        let proved = |mmac_per_s| {
            let class = Some(Class::cpu(4_000));
            Verdict::Proved { mmac_per_s, class }
        };
        assert!(exams.take(&report(1, now, proved(100))));
        assert!(exams.take(&report(2, now, Verdict::Wrong)));
        assert_eq!(exams.rows(10)[0].class, None);
        assert!(exams.take(&report(3, now, proved(300))));
        let row = exams.rows(10).remove(0);
        assert_eq!(row.class, Some(Class::cpu(4_000)));
        assert_eq!((row.proved, row.failed, row.mmac_per_s), (2, 1, 100));
        // An older word does not take the place of a newer one.
        assert!(exams.take(&report(2, now - 5, proved(200))));
        assert_eq!(exams.rows(10)[0].failed, 1);
        assert!(exams.rows(0).is_empty());
        for checker in 10..40 {
            assert!(exams.take(&report(checker, now, Verdict::TooSlow)));
        }
        let row = exams.rows(10).remove(0);
        assert_eq!(row.proved + row.failed, 9);
        // What is found of memory stands beside it.
        assert!(exams.take(&report(10, now, Verdict::NotResident)));
        assert!(exams.take(&report(11, now, Verdict::Resident { mib: 32 })));
        let row = exams.rows(10).remove(0);
        assert_eq!((row.proved + row.failed, row.resident, row.absent), (9, 1, 1));
        // What is a week old is forgotten.
        let exams = Exams::default();
        assert!(exams.take(&report(1, now - MINUTES_MAX - 2, proved(1))));
        assert!(exams.rows(10).is_empty());
    }
}
