//! What `contracts/src/Emissions.sol` grants for work, to the wei.
//!
//! Compute is a geometric series over ten years; an epoch's pool is 0.9 or 1.1 times the last one's
//! within the year's cap; indexers have at most 5 % of what was granted. Checkers' share is linear
//! over four years: ten parts of fifteen are shared out each epoch, five each quarter. Every pool
//! is the difference of two cumulative sums, so that no rounding adds up to more than the whole.

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

/// Epochs of a year.
pub const EPOCHS_A_YEAR: u32 = 365;
/// Epochs in which checkers are paid.
pub const CHECKER_EPOCHS: u32 = 4 * EPOCHS_A_YEAR;
/// Quarters in which checkers are paid.
pub const CHECKER_QUARTERS: u32 = 16;
/// The first quarter whose bonus depends on uptime, counted from 1.
pub const UPTIME_FROM_QUARTER: u32 = 5;

/// 42e9 ATH in wei.
const SUPPLY: u128 = 42_000_000_000 * ONE;
const COMPUTE_BP: u128 = 3_500;
const CHECKERS_BP: u128 = 1_500;
/// The part of the checkers' share that is base: 10 % of the supply of 15 %.
const BASE_OF_CHECKERS: (u64, u64) = (2, 3);
const INDEXERS_BP: u64 = 500;
const WHOLE_BP: u128 = 10_000;
const DECAY: u128 = 603_000_000_000_000_000;
const ONE: u128 = 1_000_000_000_000_000_000;
const YEARS: u32 = 10;
/// 1e12 from micro-dollars to 18 decimals, times 1e18 of the price's decimals.
const MICROS_SCALE: u128 = 1_000_000_000_000_000_000_000_000_000_000;

/// All that is emitted for compute, in wei.
pub fn compute_total() -> U256 {
    U256::from(SUPPLY / WHOLE_BP * COMPUTE_BP)
}

/// All that is emitted for checkers, in wei.
pub fn checkers_total() -> U256 {
    U256::from(SUPPLY / WHOLE_BP * CHECKERS_BP)
}

/// What may be emitted for compute in a year, counted from 0.
///
/// ```
/// use welkin_ledger::epoch::{cap_of_year, compute_total};
/// let sum = (0..10).map(cap_of_year).fold(Default::default(), |sum: alloy_primitives::U256, cap| sum + cap);
/// assert_eq!(sum, compute_total());
/// ```
pub fn cap_of_year(year: u32) -> U256 {
    until_year(year.saturating_add(1)) - until_year(year)
}

fn until_year(year: u32) -> U256 {
    if year >= YEARS {
        return compute_total();
    }
    let one = U256::from(ONE);
    compute_total() * (one - power(year)) / (one - power(YEARS))
}

fn power(exponent: u32) -> U256 {
    (0..exponent).fold(U256::from(ONE), |power, _| power * U256::from(DECAY) / U256::from(ONE))
}

/// What indexers may have of all that was granted for compute.
fn indexers_until(granted: U256) -> U256 {
    granted * U256::from(INDEXERS_BP) / U256::from(WHOLE_BP)
}

/// What checkers may have until the end of an epoch.
pub fn checkers_until(epoch: u32) -> U256 {
    checkers_total() * U256::from(epoch.min(CHECKER_EPOCHS)) / U256::from(CHECKER_EPOCHS)
}

fn base_until(epoch: u32) -> U256 {
    checkers_until(epoch) * U256::from(BASE_OF_CHECKERS.0) / U256::from(BASE_OF_CHECKERS.1)
}

fn bonus_until(epoch: u32) -> U256 {
    checkers_until(epoch) - base_until(epoch)
}

/// The last epoch of a quarter, counted from 1: a quarter is 91.25 epochs, rounded down.
pub const fn quarter_end(quarter: u32) -> u32 {
    // At most 16 quarters of 1,460 epochs: no overflow.
    let quarter = if quarter > CHECKER_QUARTERS { CHECKER_QUARTERS } else { quarter };
    quarter * CHECKER_EPOCHS / CHECKER_QUARTERS
}

/// The quarter that ends with this epoch, if one does.
pub fn quarter_ending(epoch: u32) -> Option<u32> {
    (1..=CHECKER_QUARTERS).find(|quarter| quarter_end(*quarter) == epoch)
}

/// The pools of one epoch, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// For hosts.
    pub hosts: U256,
    /// For checkers, by correct tasks.
    pub checkers: U256,
    /// For checkers, of a whole quarter; nothing in an epoch that does not end one.
    pub bonus: U256,
    /// For indexers.
    pub indexers: U256,
}

/// How the emissions stand: the contract's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emissions {
    /// The epoch whose pool is granted, counted from 1.
    pub epoch: u32,
    /// Its pool, in wei.
    pub pool: U256,
    /// The least pool; a year's cap goes before it.
    pub pool_min: U256,
    /// All pools until this epoch, its own included.
    pub granted: U256,
    /// What a unit of capacity should earn in an epoch, in USD micros.
    pub target_micros: u64,
}

impl Emissions {
    /// The state after deployment.
    pub fn new(target_micros: u64) -> Self {
        let pool = cap_of_year(0) / U256::from(EPOCHS_A_YEAR);
        let pool_min = pool / U256::from(100);
        Self { epoch: 1, pool, pool_min, granted: pool, target_micros }
    }

    /// What the present epoch has to give.
    ///
    /// The pools of an epoch and those of all before never exceed what the contract lets be drawn.
    pub fn pools(&self) -> Pools {
        let before = self.granted.saturating_sub(self.pool);
        let indexers = indexers_until(self.granted) - indexers_until(before);
        let last = self.epoch.saturating_sub(1);
        let bonus = quarter_ending(self.epoch).map_or(U256::ZERO, |quarter| {
            bonus_until(self.epoch) - bonus_until(quarter_end(quarter - 1))
        });
        Pools {
            hosts: self.pool - indexers,
            checkers: base_until(self.epoch) - base_until(last),
            bonus,
            indexers,
        }
    }

    /// Grants the next epoch's pool.
    ///
    /// `units` of capacity were active in this one; `price` is USD for an ATH with 18 decimals.
    pub fn advance(&mut self, units: u64, price: U256) {
        let next = self.epoch.saturating_add(1);
        let worth = self.pool.saturating_mul(price) / U256::from(MICROS_SCALE);
        let is_shrinking = units == 0 || worth / U256::from(units) > U256::from(self.target_micros);
        let factor = U256::from(if is_shrinking { 9 } else { 11 });
        let wanted = self.pool * factor / U256::from(10);
        let cap = match next > EPOCHS_A_YEAR * YEARS {
            true => U256::ZERO,
            false => cap_of_year((next - 1) / EPOCHS_A_YEAR) / U256::from(EPOCHS_A_YEAR),
        };
        self.epoch = next;
        self.pool = wanted.max(self.pool_min).min(cap);
        self.granted += self.pool;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `contracts/test/Epoch.t.sol` has the same numbers.
    #[test]
    fn the_contract_grants_the_same() {
        let mut emissions = Emissions::new(5_000_000);
        let price = U256::from(50_000_000_000_000_000_u64);
        let mut pools = Vec::new();
        for units in [0, 1_000_000, 10, 0, 0, 2_000_000_000] {
            pools.push(emissions.pool.to_string());
            emissions.advance(units, price);
        }
        let expected = [
            "16091039233066732042959958",
            "14481935309760058838663962",
            "15930128840736064722530358",
            "14337115956662458250277322",
            "12903404360996212425249589",
            "11613063924896591182724630",
        ];
        assert_eq!(pools, expected);
        assert_eq!(cap_of_year(0).to_string(), "5873229320069357195680384979");
        assert_eq!(cap_of_year(9).to_string(), "61906003431769833011086635");
        let first = Emissions::new(5_000_000).pools();
        assert_eq!(first.indexers.to_string(), "804551961653336602147997");
        assert_eq!(checkers_until(1).to_string(), "4315068493150684931506849");
        assert_eq!(checkers_until(91).to_string(), "392671232876712328767123287");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn pools_never_exceed_what_was_granted(
            steps in prop::collection::vec((0..3_000_000_000_u64, 1..1_000_u64), 1..120),
            skip in 0..3_700_u32,
        ) {
            let mut emissions = Emissions::new(5_000_000);
            for _ in 0..skip {
                emissions.advance(0, U256::from(ONE));
            }
            let (mut hosts, mut indexers) = (emissions.granted - emissions.pool, U256::ZERO);
            indexers += indexers_until(hosts);
            hosts -= indexers;
            for (units, price) in steps {
                let pools = emissions.pools();
                hosts += pools.hosts;
                indexers += pools.indexers;
                prop_assert_eq!(hosts + indexers, emissions.granted);
                prop_assert!(indexers <= indexers_until(emissions.granted));
                prop_assert!(emissions.granted <= compute_total());
                emissions.advance(units, U256::from(price) * U256::from(ONE / 1_000));
            }
        }
    }

    #[test]
    fn checkers_get_all_of_their_share_in_four_years() {
        let (mut base, mut bonus) = (U256::ZERO, U256::ZERO);
        let mut emissions = Emissions::new(1);
        for epoch in 1..=CHECKER_EPOCHS + 3 {
            emissions.epoch = epoch;
            let pools = emissions.pools();
            base += pools.checkers;
            bonus += pools.bonus;
            assert!(base + bonus <= checkers_until(epoch));
        }
        assert_eq!(base, checkers_total() * U256::from(2) / U256::from(3));
        assert_eq!(base + bonus, checkers_total());
        assert_eq!(quarter_end(1), 91);
        assert_eq!(quarter_ending(1_460), Some(16));
        assert_eq!(quarter_ending(92), None);
    }
}
