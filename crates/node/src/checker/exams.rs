//! Which of a checker's containers it examines when, and what its findings teach it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::debug;
use welkin_check::challenge::{ClassTable, Unmet};
use welkin_proto::exam::{ExamReport, Verdict};
use welkin_proto::index::Listing;
use welkin_types::{Class, ContainerId, NodeId};

use super::exam::{ExamError, Target, Who, examine};
use crate::outside;

/// The most challenges at once: verifying one takes a core for a while.
const AT_ONCE: usize = 4;
/// The most rates that are learnt from in an epoch, by class.
const SAMPLES_MAX: usize = 1_024;

/// The most containers that are asked again.
const UNMET_MAX: usize = 4_096;

/// A checker's challenges.
#[derive(Debug)]
pub(super) struct Exams {
    who: Who,
    /// Of a hundred probes so many come with a challenge.
    percent: u8,
    targets: BTreeMap<(NodeId, ContainerId), Target>,
    table: Arc<ClassTable>,
    samples: BTreeMap<Class, Vec<u64>>,
    /// What was slower than its class, and is challenged again before it is told.
    unmet: Unmet<(NodeId, ContainerId), Verdict>,
    epoch: u64,
    under_way: JoinSet<(Class, Result<ExamReport, ExamError>)>,
}

impl Exams {
    pub(super) fn new(who: Who, percent: u8) -> Self {
        Self {
            who,
            percent: percent.min(100),
            targets: BTreeMap::new(),
            table: Arc::new(ClassTable::published()),
            samples: BTreeMap::new(),
            unmet: Unmet::new(UNMET_MAX),
            epoch: 0,
            under_way: JoinSet::new(),
        }
    }

    /// Takes in what is on offer: what has an idle slot may be examined.
    pub(super) fn list(&mut self, listings: &[Listing]) {
        let offered: BTreeSet<_> =
            listings.iter().map(|row| (row.addr.node, row.container.id)).collect();
        self.unmet.retain(|place| offered.contains(place));
        let idle = listings.iter().filter(|row| row.free > 0);
        self.targets =
            idle.map(|row| ((row.addr.node, row.container.id), Target::of(row))).collect();
    }

    /// A probe begins: by chance, which no host can foresee, a challenge goes with it; always, where the
    /// last one found less than the claimed class.
    pub(super) fn begin(&mut self, host: NodeId, container: ContainerId, minute: u64) {
        let [die] = outside::random();
        let is_chosen = u32::from(die) * 100 < u32::from(self.percent) * 256
            || self.unmet.is_open(&(host, container));
        if !is_chosen || self.under_way.len() >= AT_ONCE {
            return;
        }
        let Some(target) = self.targets.get(&(host, container)).cloned() else { return };
        let (who, table) = (self.who.clone(), Arc::clone(&self.table));
        self.under_way.spawn(async move {
            let found = examine(&who, &target, minute, &table).await;
            (target.class, found)
        });
    }

    /// The next finding; pending while there is none.
    pub(super) async fn next(&mut self) -> Option<ExamReport> {
        let Some(Ok((claimed, found))) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        match found {
            Ok(report) => {
                self.note(claimed.clone(), &report);
                self.told(&claimed, report)
            }
            Err(error) => {
                debug!(error = %crate::chain(&error), "a challenge came to nothing");
                None
            }
        }
    }

    /// The report as it is told, if it is: a network can make hardware look slower and never faster, so
    /// less than the claimed class is told after three challenges, and the best of them.
    fn told(&mut self, claimed: &Class, report: ExamReport) -> Option<ExamReport> {
        let place = (report.host, report.container);
        let rate = match &report.verdict {
            Verdict::Proved { class: Some(class), .. } if class == claimed => None,
            Verdict::Proved { mmac_per_s, .. } => Some(*mmac_per_s),
            Verdict::TooSlow => Some(0),
            Verdict::Wrong | Verdict::Refused(_) => None,
        };
        let Some(rate) = rate else {
            self.unmet.settled(&place);
            return Some(report);
        };
        let verdict = self.unmet.slow(place, rate, report.verdict.clone())?;
        Some(ExamReport { verdict, ..report })
    }

    fn note(&mut self, claimed: Class, report: &ExamReport) {
        if let Verdict::Proved { mmac_per_s, class: Some(class) } = &report.verdict
            && *class == claimed
        {
            let samples = self.samples.entry(claimed).or_default();
            if samples.len() < SAMPLES_MAX {
                samples.push(*mmac_per_s);
            }
        }
    }

    /// A new epoch: what was seen in the last one is learnt.
    pub(super) fn on_epoch(&mut self, epoch: u64) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        let table = Arc::make_mut(&mut self.table);
        for (class, samples) in std::mem::take(&mut self.samples) {
            table.learn(&class, &samples);
        }
    }
}
