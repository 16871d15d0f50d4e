//! What an epoch's evidence charges containers with.
//!
//! Only what more than half of a committee of 2N + 1 found is an incident, whoever else said
//! nothing: N that lie charge nobody, however many of the others are silent. A challenge that was
//! not met (no class follows) earns nothing and charges nobody: hardware breaks.
//!
//! A period is found offline where most checks in it failed, so that it is taken for half a period
//! of absence; and one alone for none, since a short outage and the luck of few checks look alike.

use sha2::{Digest as _, Sha256};

use super::evidence::{Capacity, Evidence};
use super::penalty::Incident;
use super::terms::Terms;
use super::work::{Outcome, judge, take_while};

/// Below this share of the registered capacity hardware is far below specification. Power limits,
/// heat and narrow buses cost an honest card less than three quarters.
pub const FAR_BELOW_PERCENT: u64 = 25;

/// An incident of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The place of the container.
    pub container: u32,
    /// What happened.
    pub incident: Incident,
    /// The hash of what shows it: the epoch's evidence, the container and the kind of incident.
    pub evidence: [u8; 32],
}

/// The incidents of an epoch, by container. The evidence must have been sorted, as
/// [`settle`](super::settle) does.
pub fn incidents(terms: &Terms, evidence: &Evidence) -> Vec<Found> {
    let mut found = Vec::new();
    let (mut verdicts, mut capacities) = (&evidence.verdicts[..], &evidence.capacities[..]);
    let mut digest = None;
    for (place, container) in (0_u32..).zip(evidence.roster.containers()) {
        let own = take_while(&mut capacities, |capacity| capacity.container == place);
        let is_far_below = is_far_below(terms, own, terms.capacity(container.class));
        let own = take_while(&mut verdicts, |verdict| verdict.container() == place);
        let outcomes = judge(terms, own, &mut []);
        let offline = outcomes.iter().filter(|outcome| **outcome == Outcome::Offline).count();
        let minutes = u32::from(terms.period_seconds / 120);
        let offline_minutes = u32::try_from(offline).unwrap_or(u32::MAX).saturating_mul(minutes);
        let day = (offline > 1).then_some((1, Incident::Day { offline_minutes }));
        let specification = is_far_below.then_some((2, Incident::Specification));
        for (kind, incident) in day.into_iter().chain(specification) {
            let digest = *digest.get_or_insert_with(|| evidence.digest());
            let hash = Sha256::new()
                .chain_update(b"welkin/epoch/incident/1\0")
                .chain_update(digest)
                .chain_update(container.id.as_bytes())
                .chain_update([kind]);
            found.push(Found { container: place, incident, evidence: hash.finalize().into() });
        }
    }
    found
}

/// Whether more than half of the findings, and of a committee, are of a class far below.
fn is_far_below(terms: &Terms, findings: &[Capacity], registered: u32) -> bool {
    let is_far = |class: u16| {
        u64::from(terms.capacity(class)) * 100 < u64::from(registered) * FAR_BELOW_PERCENT
    };
    let far = findings.iter().filter(|finding| finding.class.is_some_and(is_far)).count();
    far > findings.len().max(usize::from(terms.committee)) / 2
}
