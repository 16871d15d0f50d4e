//! What verified statements are to settlement: numbers by place in the roster.

use std::collections::BTreeMap;

use welkin_proto::Receipt;
use welkin_proto::exam::Verdict as ExamVerdict;
use welkin_types::{AccountId, Class, NodeId};

use super::super::evidence::{
    Capacity, Container, Delivery, Evidence, INDEXERS_MAX, Licence, NO_INDEXER, Roster,
    RosterError, Uptime, Verdict,
};
use super::super::terms::{ClassTerms, Terms, WHOLE_BP};
use super::{Gathered, LeaseSeconds, Probed, is_online};

/// What every class that does not count by itself is called.
const OTHER: &str = "other";
/// The most classes that count by themselves.
const OTHER_MAX: usize = u16::MAX as usize;

/// A second counts for who matched it with so much of its fee, in micro-dollars: what costs nothing
/// earns nothing.
const FEE_MICROS_PER_SECOND: u128 = 1;

/// After so many looks in a row a checker says that memory is not there.
const LOOKS_MISSED: u32 = 3;

/// What a licence's challenges of a container found.
#[derive(Default)]
struct Found {
    /// Capacities and their classes.
    classes: Vec<(u32, Option<u16>)>,
    /// How often its memory was there, and how often it was not.
    resident: u32,
    absent: u32,
}

impl Gathered {
    /// The parameters and the evidence to settle with, by the classes that count and the capacity K of
    /// each; any other class has a capacity of 1.
    ///
    /// The list does not depend on what is claimed: a class has the same number in every epoch, and
    /// strangers can't fill it with names.
    ///
    /// # Errors
    ///
    /// [`RosterError::TooMany`]
    pub fn evidence(
        &self,
        classes: &BTreeMap<Class, u32>,
    ) -> Result<(Terms, Evidence), RosterError> {
        let classes: Vec<_> = classes
            .iter()
            .map(|(class, capacity)| ClassTerms { class: class.clone(), capacity: *capacity })
            .collect();
        let other = u16::try_from(classes.len()).map_err(|_| RosterError::TooMany(OTHER_MAX))?;
        let all = classes.into_iter().chain(Class::try_from(OTHER.to_owned()).ok().map(|class| {
            // Behind all others, where no search by name finds it.
            ClassTerms { class, capacity: 1 }
        }));
        let (periods, committee) = (self.span.periods, self.committee);
        let terms = Terms {
            periods,
            period_seconds: self.span.period_seconds,
            committee,
            ..Terms::public(all.collect())
        };
        let named = terms.classes.get(..usize::from(other)).unwrap_or_default();
        let number = |class: &Class| {
            let place = named.binary_search_by(|terms| terms.class.cmp(class)).ok();
            place.and_then(|place| u16::try_from(place).ok()).unwrap_or(other)
        };
        let containers = self.containers.iter().map(|(id, (_, owner, class))| Container {
            id: *id,
            owner: *owner,
            class: number(class),
            is_staked: true,
        });
        let licences = self.checkers.values();
        let licences = licences.map(|(number, owner)| Licence { number: *number, owner: *owner });
        let roster = Roster::new(containers.collect(), licences.collect(), self.indexers())?;
        let evidence = Evidence {
            verdicts: self.verdicts(&roster),
            capacities: self.capacities(&roster, &terms, number),
            deliveries: self.deliveries(&roster),
            uptimes: self.uptimes(&roster),
            halted: Vec::new(),
            roster,
        };
        Ok((terms, evidence))
    }

    fn licence(&self, roster: &Roster, checker: NodeId) -> Option<u32> {
        self.checkers.get(&checker).and_then(|(number, _)| roster.licence(*number))
    }

    /// A licence's word on a period is what most of its probes in it found; of a tie it has none.
    fn verdicts(&self, roster: &Roster) -> Vec<Verdict> {
        let mut counts: BTreeMap<(u32, u8, u32), (u32, u32)> = BTreeMap::new();
        for Probed { seat, finding } in &self.probes {
            let licence = self.licence(roster, seat.checker);
            let period = self.span.period_of(seat.minute);
            let places = (roster.container(seat.container), period, licence);
            let (Some(container), Some(period), Some(licence)) = places else { continue };
            let (online, all) = counts.entry((container, period, licence)).or_default();
            *online += u32::from(is_online(*finding));
            *all += 1;
        }
        let decided = counts.into_iter().filter(|(_, (online, all))| 2 * online != *all);
        let verdict = |((container, period, licence), (online, all))| {
            Verdict::new(container, period, licence, 2 * online > all)
        };
        decided.map(verdict).collect()
    }

    /// A licence's finding is the lower median of its challenges, and no class where memory was missing
    /// at as many looks as it was there: most challenges do not look at it. A fair refusal is none.
    fn capacities(
        &self,
        roster: &Roster,
        terms: &Terms,
        number: impl Fn(&Class) -> u16,
    ) -> Vec<Capacity> {
        let mut found: BTreeMap<(u32, u32), Found> = BTreeMap::new();
        for report in &self.exams {
            let licence = self.licence(roster, report.checker);
            let places = (roster.container(report.container), licence);
            let (Some(container), Some(licence)) = places else { continue };
            let of = found.entry((container, licence)).or_default();
            match &report.verdict {
                ExamVerdict::Refused(why) if why.is_fair() => (),
                ExamVerdict::Resident { .. } => of.resident += 1,
                ExamVerdict::NotResident => of.absent += 1,
                verdict => {
                    let class = proved_class(verdict).map(&number);
                    of.classes.push((class.map_or(0, |class| terms.capacity(class)), class));
                }
            }
        }
        let word = |((container, licence), mut of): (_, Found)| {
            of.classes.sort_unstable();
            let middle = of.classes.get(of.classes.len().saturating_sub(1) / 2);
            // One is told of each look that found it, the other of three in a row that did not.
            let is_missing = of.absent > 0 && LOOKS_MISSED * of.absent >= of.resident;
            let class = if is_missing { None } else { middle?.1 };
            Some(Capacity { container, licence, class })
        };
        found.into_iter().filter_map(word).collect()
    }

    fn deliveries(&self, roster: &Roster) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        for ((lease, _), delivered) in &self.leases {
            let LeaseSeconds { receipt, seconds, quality_bp, matched, .. } = delivered;
            let Some(container) = roster.container(receipt.container) else { continue };
            let indexer = matched.and_then(|account| roster.indexer(account));
            let mut left = indexer.map_or(0, |_| paid_seconds(receipt, seconds));
            deliveries.extend(seconds.iter().map(|(period, seconds)| {
                let matched = u16::try_from(left).unwrap_or(u16::MAX).min(*seconds);
                left -= u64::from(matched);
                Delivery {
                    container,
                    period: *period,
                    lease: *lease,
                    seconds: *seconds,
                    quality_bp: (*quality_bp).min(WHOLE_BP),
                    indexer: indexer.unwrap_or(NO_INDEXER),
                    matched,
                }
            }));
        }
        deliveries
    }

    /// Who matched, the accounts with most seconds where there are more than can be numbered.
    fn indexers(&self) -> Vec<AccountId> {
        let mut seconds: BTreeMap<AccountId, u64> = BTreeMap::new();
        for delivered in self.leases.values() {
            if let Some(account) = delivered.matched {
                let ran = delivered.seconds.iter().map(|(_, seconds)| u64::from(*seconds));
                *seconds.entry(account).or_default() += ran.sum::<u64>();
            }
        }
        let mut all: Vec<_> = seconds.into_iter().map(|(account, ran)| (ran, account)).collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(INDEXERS_MAX);
        all.into_iter().map(|(_, account)| account).collect()
    }

    /// A licence was up in the periods of which it has a report.
    fn uptimes(&self, roster: &Roster) -> Vec<Uptime> {
        let mut periods: BTreeMap<u32, u32> = BTreeMap::new();
        for Probed { seat, .. } in &self.probes {
            let licence = self.licence(roster, seat.checker);
            let period = self.span.period_of(seat.minute);
            if let (Some(licence), Some(period)) = (licence, period) {
                *periods.entry(licence).or_default() |= 1 << u32::from(period);
            }
        }
        periods.into_iter().map(|(licence, periods)| Uptime { licence, periods }).collect()
    }
}

/// How many of a lease's seconds in the epoch their part of its fee covers.
fn paid_seconds(receipt: &Receipt, seconds: &[(u8, u16)]) -> u64 {
    let here: u128 = seconds.iter().map(|(_, seconds)| u128::from(*seconds)).sum();
    let covered = u128::from(receipt.fee.micros()) / FEE_MICROS_PER_SECOND;
    let share = covered * here / u128::from(receipt.usage.seconds.max(1));
    u64::try_from(share.min(here)).unwrap_or(u64::MAX)
}

const fn proved_class(verdict: &ExamVerdict) -> Option<&Class> {
    match verdict {
        ExamVerdict::Proved { class, .. } => class.as_ref(),
        ExamVerdict::Refused(_)
        | ExamVerdict::TooSlow
        | ExamVerdict::Wrong
        | ExamVerdict::Evasive
        | ExamVerdict::Resident { .. }
        | ExamVerdict::NotResident => None,
    }
}
