//! Why nothing fits: what removed how many, and the nearest that there is.
//!
//! Off the path of searches. Up to [`EXACT_MAX`] containers are counted exactly; of more, evenly
//! picked ones are looked at and the counts are scaled, so that an answer never takes long.

use std::collections::BTreeMap;

use super::query::{Search, SearchError};
use super::row::{Features, Record, RowId};
use super::{Index, VACANT};

/// So many containers are counted exactly.
pub const EXACT_MAX: usize = 20_000;
/// How many of the nearest are shown.
pub const NEAREST_MAX: usize = 3;

/// What can stand between a search and a container, in the order in which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Barrier {
    /// Another kind of hardware.
    Class,
    /// Too little processor.
    Cpu,
    /// Too little memory.
    Memory,
    /// Too little scratch space.
    Disk,
    /// Isolation, encoder, attestation, way of leasing or driver.
    Features,
    /// Another location.
    Location,
    /// Too long a round trip.
    Latency,
    /// The operator is not allowed.
    Operator,
    /// Too dear.
    Price,
    /// Too low an online score.
    Quality,
    /// The host is excluded.
    Excluded,
    /// The application is not ready.
    App,
    /// Too few free slots.
    Free,
}

/// A container that almost fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The container.
    pub row: RowId,
    /// What stands between, in order.
    pub barriers: Vec<Barrier>,
    /// What it costs an hour, in micro-dollars.
    pub price: u32,
}

/// Why nothing fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Containers in the index.
    pub containers: usize,
    /// Containers that were looked at: fewer than all where the counts below are estimates.
    pub looked_at: usize,
    /// For each barrier how many containers fail there first, in order.
    pub removed: Vec<(Barrier, usize)>,
    /// The nearest of those that were looked at, fewest barriers and then lowest price first.
    pub nearest: Vec<Near>,
}

impl Index {
    /// Explains what stands between a search and the containers.
    ///
    /// # Errors
    ///
    /// [`SearchError`] where the search is out of bounds.
    pub fn explain(&self, search: &Search<'_>) -> Result<Explanation, SearchError> {
        self.explain_of(search, Features::default())
    }

    /// The same of those containers only that have these features.
    pub(crate) fn explain_of(
        &self,
        search: &Search<'_>,
        of: Features,
    ) -> Result<Explanation, SearchError> {
        search.check()?;
        let step = self.records.len().div_ceil(EXACT_MAX).max(1);
        let mut why = Explanation { containers: self.len(), ..Explanation::default() };
        let (mut removed, mut seen) = (BTreeMap::new(), 0);
        for (number, record) in (0_u32..).zip(&self.records).step_by(step) {
            if record.location == VACANT {
                continue;
            }
            seen += 1;
            if !record.features.meets(of) {
                continue;
            }
            why.looked_at += 1;
            let row = RowId(number);
            let barriers = self.barriers(search, row, record);
            let Some(first) = barriers.first() else { continue };
            *removed.entry(*first).or_insert(0) += 1;
            let key = (barriers.len(), record.price);
            let place =
                why.nearest.partition_point(|near| (near.barriers.len(), near.price) <= key);
            if place < NEAREST_MAX {
                why.nearest.insert(place, Near { row, barriers, price: record.price });
                why.nearest.truncate(NEAREST_MAX);
            }
        }
        why.containers = why.containers * why.looked_at / seen.max(1);
        let scaled = |count: usize| count * why.containers / why.looked_at.max(1);
        why.removed =
            removed.into_iter().map(|(barrier, count)| (barrier, scaled(count))).collect();
        Ok(why)
    }

    pub(super) fn barriers(
        &self,
        search: &Search<'_>,
        row: RowId,
        record: &Record,
    ) -> Vec<Barrier> {
        let location = usize::from(record.location);
        let allow = search.operators_allow;
        let is_allowed = (allow.is_empty() || allow.contains(&record.operator))
            && !search.operators_deny.contains(&record.operator);
        let is_ready =
            !search.is_app_required || search.app.is_some_and(|app| self.has_app(row.0, app));
        let features: Features = record.features;
        [
            (Barrier::Class, search.classes.contains(record.class)),
            (Barrier::Cpu, record.cpu >= search.cpu),
            (Barrier::Memory, record.memory >= search.memory),
            (Barrier::Disk, record.disk >= search.disk),
            (Barrier::Features, features.meets(search.features)),
            (Barrier::Location, search.locations >> location & 1 == 1),
            (Barrier::Latency, search.latency_to(location) <= search.latency_max),
            (Barrier::Operator, is_allowed),
            (Barrier::Price, record.price <= search.price_max),
            (Barrier::Quality, record.quality >= search.quality_min),
            (Barrier::Excluded, !search.hosts_exclude.contains(&record.host)),
            (Barrier::App, is_ready),
            (Barrier::Free, record.free >= search.slots),
        ]
        .into_iter()
        .filter(|(_, is_passed)| !is_passed)
        .map(|(barrier, _)| barrier)
        .collect()
    }
}
