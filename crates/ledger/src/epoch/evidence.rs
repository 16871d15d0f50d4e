//! What an epoch is computed from: who takes part, and what was found about them.
//!
//! Whoever adds a statement has checked its signature and that its author was assigned. What is
//! checked here is what settlement rests on: that every statement is about somebody who takes part,
//! counts once, and does not contradict another one of the same author. What fails is refused and
//! counted; it never costs anybody anything.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{AccountId, ContainerId, LeaseId};

use super::terms::{Terms, WHOLE_BP};

/// The most containers of an epoch.
pub const CONTAINERS_MAX: usize = (1 << 24) - 1;
/// The most licences of an epoch.
pub const LICENCES_MAX: usize = 1 << 20;
/// The most indexers of an epoch.
pub const INDEXERS_MAX: usize = (1 << 16) - 1;
/// The place of an indexer where it is not known who matched.
pub const NO_INDEXER: u16 = u16::MAX;

/// A container as it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Container {
    /// Which.
    pub id: ContainerId,
    /// Who is paid for it.
    pub owner: AccountId,
    /// The number of its class in [`Terms::classes`].
    pub class: u16,
    /// Whether its stake is what is required.
    pub is_staked: bool,
}

/// A checker's licence in good standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Licence {
    /// Its number.
    pub number: u32,
    /// Who is paid for it.
    pub owner: AccountId,
}

/// Who takes part in an epoch. Statements name them by their place in these sorted lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Lists")]
pub struct Roster {
    containers: Vec<Container>,
    licences: Vec<Licence>,
    indexers: Vec<AccountId>,
}

/// A roster as it is read: not known to be one yet.
#[derive(Deserialize)]
struct Lists {
    containers: Vec<Container>,
    licences: Vec<Licence>,
    indexers: Vec<AccountId>,
}

impl TryFrom<Lists> for Roster {
    type Error = RosterError;

    fn try_from(lists: Lists) -> Result<Self, RosterError> {
        Self::new(lists.containers, lists.licences, lists.indexers)
    }
}

/// Why a roster is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Two entries for one container say different things.
    #[error("two different entries for {0}: take both from the same block of the chain")]
    Container(ContainerId),
    /// Two entries for one licence say different things.
    #[error("two different entries for licence {0}: take both from the same block of the chain")]
    Licence(u32),
    /// More than can be numbered.
    #[error("more than {0} entries of one kind: split the network")]
    TooMany(usize),
}

impl Roster {
    /// Sorts what takes part. Whoever is named twice counts once.
    ///
    /// # Errors
    ///
    /// [`RosterError`]
    pub fn new(
        mut containers: Vec<Container>,
        mut licences: Vec<Licence>,
        mut indexers: Vec<AccountId>,
    ) -> Result<Self, RosterError> {
        containers.sort_unstable();
        containers.dedup();
        licences.sort_unstable();
        licences.dedup();
        indexers.sort_unstable();
        indexers.dedup();
        if let Some(pair) = containers.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(RosterError::Container(pair[0].id));
        }
        if let Some(pair) = licences.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(RosterError::Licence(pair[0].number));
        }
        for (count, most) in [
            (containers.len(), CONTAINERS_MAX),
            (licences.len(), LICENCES_MAX),
            (indexers.len(), INDEXERS_MAX),
        ] {
            if count > most {
                return Err(RosterError::TooMany(most));
            }
        }
        Ok(Self { containers, licences, indexers })
    }

    /// The containers, sorted.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// The licences, sorted.
    pub fn licences(&self) -> &[Licence] {
        &self.licences
    }

    /// The indexers, sorted.
    pub fn indexers(&self) -> &[AccountId] {
        &self.indexers
    }

    /// The place of a container.
    pub fn container(&self, id: ContainerId) -> Option<u32> {
        let place = self.containers.binary_search_by_key(&id, |container| container.id).ok()?;
        u32::try_from(place).ok()
    }

    /// The place of a licence.
    pub fn licence(&self, number: u32) -> Option<u32> {
        let place = self.licences.binary_search_by_key(&number, |licence| licence.number).ok()?;
        u32::try_from(place).ok()
    }

    /// The place of an indexer.
    pub fn indexer(&self, account: AccountId) -> Option<u16> {
        u16::try_from(self.indexers.binary_search(&account).ok()?).ok()
    }

    fn hash_into(&self, hash: &mut Sha256) {
        hash.update(count(self.containers.len()));
        for container in &self.containers {
            hash.update(container.id.as_bytes());
            hash.update(container.owner.as_bytes());
            hash.update(container.class.to_be_bytes());
            hash.update([u8::from(container.is_staked)]);
        }
        hash.update(count(self.licences.len()));
        for licence in &self.licences {
            hash.update(licence.number.to_be_bytes());
            hash.update(licence.owner.as_bytes());
        }
        hash.update(count(self.indexers.len()));
        self.indexers.iter().for_each(|indexer| hash.update(indexer.as_bytes()));
    }
}

fn count(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes()
}

/// A checker's verdict on a container in a period.
///
/// Eight bytes, since there are tens of millions: container, period, licence, verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Verdict(u64);

impl Verdict {
    /// A verdict of the licence at place `licence` on the container at place `container`.
    ///
    /// A place that cannot exist stays one that does not.
    pub const fn new(container: u32, period: u8, licence: u32, is_online: bool) -> Self {
        let [high, c0, c1, c2] = container.to_be_bytes();
        let (c0, c1, c2) = if high == 0 { (c0, c1, c2) } else { (255, 255, 255) };
        let licence = if licence >> 31 == 0 { licence } else { u32::MAX >> 1 };
        let [l0, l1, l2, l3] = ((licence << 1) | is_online as u32).to_be_bytes();
        Self(u64::from_be_bytes([c0, c1, c2, period, l0, l1, l2, l3]))
    }

    /// The place of the container.
    pub const fn container(self) -> u32 {
        let [c0, c1, c2, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([0, c0, c1, c2])
    }

    /// The period, counted from 0.
    pub const fn period(self) -> u8 {
        let [_, _, _, period, ..] = self.0.to_be_bytes();
        period
    }

    /// The place of the licence.
    pub const fn licence(self) -> u32 {
        let [_, _, _, _, l0, l1, l2, l3] = self.0.to_be_bytes();
        u32::from_be_bytes([l0, l1, l2, l3]) >> 1
    }

    /// Whether the container was online.
    pub const fn is_online(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same verdict turned round.
    pub const fn opposite(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// All but the verdict itself.
    const fn question(self) -> u64 {
        self.0 >> 1
    }
}

/// A checker's finding about a container's hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capacity {
    /// The place of the container.
    pub container: u32,
    /// The place of the licence.
    pub licence: u32,
    /// The class that was proven, which may be a lower one; none if the challenge failed.
    pub class: Option<u16>,
}

/// Seconds of a lease in a period, signed by buyer and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Delivery {
    /// The place of the container.
    pub container: u32,
    /// The period, counted from 0.
    pub period: u8,
    /// Which lease.
    pub lease: LeaseId,
    /// How many seconds.
    pub seconds: u16,
    /// How good, in basis points.
    pub quality_bp: u16,
    /// The place of the indexer that matched it; [`NO_INDEXER`] where that is not known.
    pub indexer: u16,
    /// How many of the seconds count for it.
    pub matched: u16,
}

/// In which periods a licence answered its assignments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uptime {
    /// The place of the licence.
    pub licence: u32,
    /// A bit for each period, the first one lowest.
    pub periods: u32,
}

/// How many statements were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// About somebody who does not take part.
    pub strangers: u64,
    /// With a number out of its bounds.
    pub ranges: u64,
    /// The same a second time.
    pub repeated: u64,
    /// Contradicting another one of the same author: both.
    pub contradicting: u64,
}

/// All that is known of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who takes part.
    pub roster: Roster,
    /// Who was online when.
    pub verdicts: Vec<Verdict>,
    /// Whose hardware was found to be what.
    pub capacities: Vec<Capacity>,
    /// What was delivered.
    pub deliveries: Vec<Delivery>,
    /// Which checkers were up.
    pub uptimes: Vec<Uptime>,
    /// Containers that must not earn in this epoch: their operation is halted by a penalty.
    pub halted: Vec<u32>,
}

impl Evidence {
    /// Sorts everything and leaves out what must not count.
    ///
    /// Afterwards it does not matter in which order statements came, or how often.
    pub fn sort(&mut self, terms: &Terms) -> Refused {
        let mut refused = Refused::default();
        let containers = u32::try_from(self.roster.containers.len()).unwrap_or(u32::MAX);
        let licences = u32::try_from(self.roster.licences.len()).unwrap_or(u32::MAX);
        let indexers = u32::try_from(self.roster.indexers.len()).unwrap_or(u32::MAX);
        let periods = terms.periods();
        let classes = u16::try_from(terms.classes.len()).unwrap_or(u16::MAX);
        let known = |is_known: bool, in_range: bool, refused: &mut Refused| {
            refused.strangers += u64::from(!is_known);
            refused.ranges += u64::from(is_known && !in_range);
            is_known && in_range
        };
        self.verdicts.retain(|v| {
            let is_known = v.container() < containers && v.licence() < licences;
            known(is_known, v.period() < periods, &mut refused)
        });
        self.capacities.retain(|c| {
            let is_known = c.container < containers && c.licence < licences;
            known(is_known, c.class.is_none_or(|class| class < classes), &mut refused)
        });
        self.deliveries.retain(|d| {
            let is_matched = d.indexer == NO_INDEXER || u32::from(d.indexer) < indexers;
            let is_known = d.container < containers && is_matched;
            let is_possible = d.seconds <= terms.period_seconds
                && d.matched <= d.seconds
                && d.quality_bp <= WHOLE_BP;
            known(is_known, d.period < periods && is_possible, &mut refused)
        });
        self.uptimes.retain(|u| {
            let is_possible = u64::from(u.periods) < 1 << periods;
            known(u.licence < licences, is_possible, &mut refused)
        });
        self.halted.retain(|container| known(*container < containers, true, &mut refused));
        settle_list(&mut self.verdicts, &mut refused, |verdict| verdict.question());
        settle_list(&mut self.capacities, &mut refused, |c| (c.container, c.licence));
        settle_list(&mut self.deliveries, &mut refused, |d| (d.container, d.period, d.lease));
        settle_list(&mut self.uptimes, &mut refused, |uptime| uptime.licence);
        settle_list(&mut self.halted, &mut refused, |container| *container);
        refused
    }

    /// What the sorted evidence is, in 32 bytes: every statement's fields in their order,
    /// big-endian, each list behind its length.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(b"welkin/epoch/evidence/2\0");
        self.roster.hash_into(&mut hash);
        hash.update(count(self.verdicts.len()));
        let mut bytes = Vec::with_capacity(8 * 4_096);
        for chunk in self.verdicts.chunks(4_096) {
            bytes.clear();
            chunk.iter().for_each(|verdict| bytes.extend(verdict.0.to_be_bytes()));
            hash.update(&bytes);
        }
        hash.update(count(self.capacities.len()));
        for capacity in &self.capacities {
            hash.update(capacity.container.to_be_bytes());
            hash.update(capacity.licence.to_be_bytes());
            hash.update([u8::from(capacity.class.is_some())]);
            hash.update(capacity.class.unwrap_or_default().to_be_bytes());
        }
        hash.update(count(self.deliveries.len()));
        for delivery in &self.deliveries {
            hash.update(delivery.container.to_be_bytes());
            hash.update([delivery.period]);
            hash.update(delivery.lease.as_bytes());
            let Delivery { seconds, quality_bp, indexer, matched, .. } = *delivery;
            for short in [seconds, quality_bp, indexer, matched] {
                hash.update(short.to_be_bytes());
            }
        }
        hash.update(count(self.uptimes.len()));
        for uptime in &self.uptimes {
            hash.update(uptime.licence.to_be_bytes());
            hash.update(uptime.periods.to_be_bytes());
        }
        hash.update(count(self.halted.len()));
        self.halted.iter().for_each(|container| hash.update(container.to_be_bytes()));
        hash.finalize().into()
    }
}

/// Sorts, drops what is there twice, then all that answer the same question differently.
fn settle_list<T: Ord, K: PartialEq>(
    list: &mut Vec<T>,
    refused: &mut Refused,
    question: impl Fn(&T) -> K,
) {
    list.sort_unstable();
    let all = list.len();
    list.dedup();
    let once = list.len();
    let mut kept = 0;
    let mut from = 0;
    while from < once {
        let mut to = from + 1;
        while to < once && question(&list[to]) == question(&list[from]) {
            to += 1;
        }
        if to == from + 1 {
            list.swap(kept, from);
            kept += 1;
        }
        from = to;
    }
    list.truncate(kept);
    let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    refused.repeated += count(all - once);
    refused.contradicting += count(once - kept);
}
