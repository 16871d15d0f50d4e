//! A ledger from the rows that a store has kept.

use std::collections::BTreeMap;

use welkin_proto::settle::Totals;
use welkin_types::{AccountId, LeaseId, Usd};

use crate::ledger::{ACCOUNTS_MAX, LEASES_MAX, Ledger};
use crate::row::{AccountRow, FUND_KEYS_MAX, LeaseRow};

/// Why rows are not a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There are more rows than a ledger keeps, or a row is there twice.
    #[error("there are too many rows, or one of them twice")]
    Rows,
    /// The fields of a lease do not agree with each other.
    #[error("the row of {0} contradicts itself")]
    Lease(LeaseId),
    /// An account's money set aside is not that of its open leases.
    #[error("{0} has other money set aside than its leases")]
    Held(AccountId),
    /// What is there is not what was put in.
    #[error("the sums do not add up: money was lost or made")]
    Sums,
}

impl Ledger {
    /// Rebuilds a ledger and checks every law on it.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] naming what does not agree.
    pub fn restore(
        accounts: impl IntoIterator<Item = (AccountId, AccountRow)>,
        leases: impl IntoIterator<Item = (LeaseId, LeaseRow)>,
        treasury: Usd,
    ) -> Result<Self, RestoreError> {
        let accounts = collected(accounts, ACCOUNTS_MAX)?;
        let leases = collected(leases, LEASES_MAX)?;
        check_leases(&accounts, &leases)?;
        let totals = summed(accounts.values(), treasury).ok_or(RestoreError::Sums)?;
        Ok(Self { accounts, leases, totals, generation: 0 })
    }
}

fn collected<K: Ord, V>(
    rows: impl IntoIterator<Item = (K, V)>,
    count_max: usize,
) -> Result<BTreeMap<K, V>, RestoreError> {
    let mut map = BTreeMap::new();
    for (key, row) in rows {
        if map.insert(key, row).is_some() || map.len() > count_max {
            return Err(RestoreError::Rows);
        }
    }
    Ok(map)
}

fn check_leases(
    accounts: &BTreeMap<AccountId, AccountRow>,
    leases: &BTreeMap<LeaseId, LeaseRow>,
) -> Result<(), RestoreError> {
    let mut held: BTreeMap<AccountId, u128> = BTreeMap::new();
    for (id, lease) in leases {
        if !lease.is_sound() {
            return Err(RestoreError::Lease(*id));
        }
        *held.entry(lease.buyer).or_default() += u128::from(lease.held.micros());
    }
    for (id, row) in accounts {
        let aside = held.remove(id).unwrap_or_default();
        if aside != u128::from(row.held.micros()) {
            return Err(RestoreError::Held(*id));
        }
        if row.fund_keys.len() > FUND_KEYS_MAX {
            return Err(RestoreError::Rows);
        }
    }
    let orphan = held.into_iter().find(|(_, aside)| *aside > 0);
    orphan.map_or(Ok(()), |(id, _)| Err(RestoreError::Held(id)))
}

/// The sums, if they keep the law of conservation.
fn summed<'a>(rows: impl Iterator<Item = &'a AccountRow>, treasury: Usd) -> Option<Totals> {
    let mut totals = Totals { treasury, ..Totals::default() };
    for row in rows {
        totals.deposited = totals.deposited.checked_add(row.deposited)?;
        totals.available = totals.available.checked_add(row.available)?;
        totals.held = totals.held.checked_add(row.held)?;
    }
    let present = totals.available.checked_add(totals.held)?.checked_add(treasury)?;
    (present == totals.deposited).then_some(totals)
}
