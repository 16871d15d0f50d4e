//! From evidence to claims: the pure function that anybody can run again.
//!
//! One rounding rule: down, to a [`UNIT_WEI`](super::UNIT_WEI). A pool is shared out by weight, each
//! share rounded down on its own; what is rounded off, and a pool that nobody has a weight in, is
//! not granted and stays in the emissions contract. It does not come back into a later pool.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{AccountId, ContainerId};

use super::claims::{Claim, Claims, Stream, UNIT_WEI};
use super::emissions::{Emissions, Pools, UPTIME_FROM_QUARTER, quarter_ending};
use super::evidence::{Evidence, Refused};
use super::terms::Terms;
use super::work::{Standing, Works, measure};

/// What is remembered of a licence within a quarter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenceStanding {
    /// What it earned by tasks, in units.
    pub base: u64,
    /// In how many periods it was up.
    pub up: u32,
}

/// Everything that one epoch hands to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The emissions.
    pub emissions: Emissions,
    /// What was earned since the beginning, in units.
    pub totals: BTreeMap<(AccountId, Stream), u64>,
    /// How containers stand.
    pub containers: BTreeMap<ContainerId, Standing>,
    /// How licences stand in this quarter.
    pub licences: BTreeMap<u32, LicenceStanding>,
    /// Periods of this quarter.
    pub quarter_periods: u32,
}

impl Book {
    /// Before the first epoch.
    pub const fn new(emissions: Emissions) -> Self {
        Self {
            emissions,
            totals: BTreeMap::new(),
            containers: BTreeMap::new(),
            licences: BTreeMap::new(),
            quarter_periods: 0,
        }
    }
}

/// Why an account has what it has: one share of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Whose.
    pub account: AccountId,
    /// What it is.
    pub cause: Cause,
    /// Its weight in the pool.
    pub weight: u128,
    /// What it brought, in units.
    pub units: u64,
}

/// What a share is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A container was there and idle: capacity × seconds × online score.
    Capacity(ContainerId),
    /// A container delivered: capacity × seconds × quality.
    Delivery(ContainerId),
    /// A licence did so many correct tasks.
    Tasks(u32),
    /// A licence was up in the quarter: its base in the quarter.
    Bonus(u32),
    /// An indexer matched what was delivered: seconds.
    Matches,
}

impl Cause {
    /// The stream that it is paid in.
    pub const fn stream(self) -> Stream {
        match self {
            Self::Capacity(_) | Self::Delivery(_) => Stream::Hosts,
            Self::Tasks(_) | Self::Bonus(_) => Stream::Checkers,
            Self::Matches => Stream::Indexers,
        }
    }
}

/// A settled epoch: what the committee signs, and everything that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which epoch.
    pub epoch: u32,
    /// Totals since the beginning.
    pub claims: Claims,
    /// What the epoch had to give, after its caps.
    pub pools: Pools,
    /// Units of capacity that were active.
    pub units: u64,
    /// What the evidence was.
    pub evidence: [u8; 32],
    /// The `data` of the contract's epoch: evidence, terms and root together.
    pub data: [u8; 32],
    /// What was refused.
    pub refused: Refused,
    /// Every share, sorted by account and cause.
    pub shares: Vec<Share>,
    /// What the next epoch begins with, once [`Emissions::advance`] was called on it.
    pub book: Book,
}

impl Settled {
    /// The totals of the streams since the beginning, in wei, as the committee signs them.
    pub fn totals(&self) -> [U256; 3] {
        Stream::ALL.map(|stream| U256::from(self.claims.total(stream)) * U256::from(UNIT_WEI))
    }

    /// Why an account's claim is what it is: the total before, and the shares that were added.
    pub fn explain(&self, account: AccountId, stream: Stream) -> Explanation<'_> {
        let from = self.shares.partition_point(|share| share.account < account);
        let own = self.shares[from..].iter().take_while(move |share| share.account == account);
        let shares: Vec<_> = own.filter(|share| share.cause.stream() == stream).collect();
        let added = shares.iter().fold(0_u64, |sum, share| sum.saturating_add(share.units));
        let total = self.claims.claim(account, stream).map_or(0, |claim| claim.units);
        Explanation { before: total.saturating_sub(added), shares, total }
    }
}

/// How a total came about: `before` and the units of the shares sum to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The total before this epoch, in units.
    pub before: u64,
    /// What was added.
    pub shares: Vec<&'a Share>,
    /// The total, in units.
    pub total: u64,
}

/// Settles an epoch. The evidence is sorted in place.
///
/// The same book, terms and set of statements give the same result on every machine, in whatever
/// order and however often the statements came.
pub fn settle(terms: &Terms, book: &Book, evidence: &mut Evidence) -> Settled {
    let refused = evidence.sort(terms);
    let epoch = book.emissions.epoch;
    let works = measure(terms, epoch, &book.containers, evidence);
    let units = active_units(terms, &works);
    let mut pools = book.emissions.pools();
    pools.hosts = pools.hosts.min(terms.unit_cap_wei.saturating_mul(U256::from(units)));
    let mut next = book.clone();
    let mut shares = host_shares(&works, evidence, pools.hosts);
    checker_shares(terms, &works, evidence, epoch, &pools, &mut next, &mut shares);
    indexer_shares(&works, evidence, pools.indexers, &mut shares);
    shares.sort_unstable();
    for share in &shares {
        let total = next.totals.entry((share.account, share.cause.stream())).or_default();
        *total = total.saturating_add(share.units);
    }
    for (container, standing) in evidence.roster.containers().iter().zip(&works.standings) {
        next.containers.insert(container.id, *standing);
    }
    let claims = Claims::new(next.totals.iter().map(|((account, stream), units)| Claim {
        account: *account,
        stream: *stream,
        units: *units,
    }));
    let digest = evidence.digest();
    let data = Sha256::new()
        .chain_update(b"welkin/epoch/data/1\0")
        .chain_update(epoch.to_be_bytes())
        .chain_update(terms.digest())
        .chain_update(digest)
        .chain_update(claims.root());
    Settled {
        epoch,
        claims,
        pools,
        units,
        evidence: digest,
        data: data.finalize().into(),
        refused,
        shares,
        book: next,
    }
}

/// Capacity × seconds, over the seconds of the epoch.
fn active_units(terms: &Terms, works: &Works) -> u64 {
    let seconds = u128::from(terms.periods()) * u128::from(terms.period_seconds);
    let active = works.containers.iter().fold(0_u128, |sum, work| sum.saturating_add(work.active));
    active.checked_div(seconds).map_or(0, |units| u64::try_from(units).unwrap_or(u64::MAX))
}

/// A pool and the sum of the weights in it.
struct Pool {
    units: u64,
    weights: u128,
}

impl Pool {
    fn new(wei: U256, weights: impl Iterator<Item = u128>) -> Self {
        let units = u64::try_from(wei / U256::from(UNIT_WEI)).unwrap_or(u64::MAX);
        Self { units, weights: weights.fold(0, u128::saturating_add) }
    }

    /// What a weight brings.
    fn share(&self, weight: u128) -> u64 {
        let units = u128::from(self.units);
        let share = match weight.checked_mul(units) {
            Some(product) => product.checked_div(self.weights).unwrap_or(0),
            None => {
                let product = U256::from(weight) * U256::from(units);
                let share = product.checked_div(U256::from(self.weights)).unwrap_or_default();
                u128::try_from(share).unwrap_or(0)
            }
        };
        u64::try_from(share).unwrap_or(self.units)
    }
}

fn host_shares(works: &Works, evidence: &Evidence, wei: U256) -> Vec<Share> {
    let pool = Pool::new(
        wei,
        works.containers.iter().map(|work| work.idle.saturating_add(work.delivered)),
    );
    let mut shares = Vec::with_capacity(works.containers.len());
    for (container, work) in evidence.roster.containers().iter().zip(&works.containers) {
        for (weight, cause) in [
            (work.idle, Cause::Capacity(container.id)),
            (work.delivered, Cause::Delivery(container.id)),
        ] {
            let units = pool.share(weight);
            if units > 0 {
                shares.push(Share { account: container.owner, cause, weight, units });
            }
        }
    }
    shares
}

/// By correct tasks each epoch; in the epoch that ends a quarter also by what each licence earned
/// in the quarter, from the fifth quarter on only those that were up.
fn checker_shares(
    terms: &Terms,
    works: &Works,
    evidence: &Evidence,
    epoch: u32,
    pools: &Pools,
    next: &mut Book,
    shares: &mut Vec<Share>,
) {
    let licences = evidence.roster.licences();
    let pool = Pool::new(pools.checkers, works.tasks.iter().map(|tasks| u128::from(*tasks)));
    for (licence, tasks) in licences.iter().zip(&works.tasks) {
        let weight = u128::from(*tasks);
        let units = pool.share(weight);
        if units > 0 {
            let standing = next.licences.entry(licence.number).or_default();
            standing.base = standing.base.saturating_add(units);
            let cause = Cause::Tasks(licence.number);
            shares.push(Share { account: licence.owner, cause, weight, units });
        }
    }
    next.quarter_periods = next.quarter_periods.saturating_add(u32::from(terms.periods()));
    for uptime in &evidence.uptimes {
        let place = usize::try_from(uptime.licence).unwrap_or(usize::MAX);
        let Some(licence) = licences.get(place) else { continue };
        let standing = next.licences.entry(licence.number).or_default();
        standing.up = standing.up.saturating_add(uptime.periods.count_ones());
    }
    let Some(quarter) = quarter_ending(epoch) else { return };
    let least = u64::from(next.quarter_periods) * u64::from(terms.uptime_bp);
    let weight_of = |number: u32| {
        let standing = next.licences.get(&number).copied().unwrap_or_default();
        let is_up = u64::from(standing.up) * 10_000 > least;
        let counts = is_up || quarter < UPTIME_FROM_QUARTER;
        u128::from(if counts { standing.base } else { 0 })
    };
    let pool = Pool::new(pools.bonus, licences.iter().map(|licence| weight_of(licence.number)));
    for licence in licences {
        let weight = weight_of(licence.number);
        let units = pool.share(weight);
        if units > 0 {
            let cause = Cause::Bonus(licence.number);
            shares.push(Share { account: licence.owner, cause, weight, units });
        }
    }
    next.licences.clear();
    next.quarter_periods = 0;
}

fn indexer_shares(works: &Works, evidence: &Evidence, wei: U256, shares: &mut Vec<Share>) {
    let pool = Pool::new(wei, works.matched.iter().map(|seconds| u128::from(*seconds)));
    for (account, seconds) in evidence.roster.indexers().iter().zip(&works.matched) {
        let weight = u128::from(*seconds);
        let units = pool.share(weight);
        if units > 0 {
            shares.push(Share { account: *account, cause: Cause::Matches, weight, units });
        }
    }
}
