//! Every number that a vote can change: its name, its present value, its bounds, and the call that
//! sets it.
//!
//! Some functions set several numbers at once: [`State`] holds them all, so that a change of one
//! keeps the others.

mod state;
mod unit;

use std::fmt;

use alloy_primitives::U256;

pub(crate) use state::tiers;
pub use state::{Change, State, read_all};
pub use unit::{Unit, UnitError};

use crate::deployment::Contract;

/// A parameter as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name: `escrow.fee`.
    pub name: String,
    /// Which contract keeps it.
    pub contract: Contract,
    /// What it counts.
    pub unit: Unit,
    /// What it is.
    pub value: U256,
    /// The least that it can be.
    pub min: U256,
    /// The most that it can be; none: what its type holds.
    pub max: Option<U256>,
    /// What it is for.
    pub about: &'static str,
}

impl Value {
    /// Its bounds, for people.
    pub fn bounds(&self) -> String {
        if self.unit == Unit::Flag {
            return "yes or no".to_owned();
        }
        let min = self.unit.show(self.min);
        match self.max {
            Some(max) => format!("{min} to {}", self.unit.show(max)),
            None => format!("{min} or more"),
        }
    }

    /// The bounds, where the value is outside of them.
    pub fn outside(&self) -> Option<String> {
        let is_inside = self.value >= self.min && self.max.is_none_or(|max| self.value <= max);
        (!is_inside).then(|| self.bounds())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.unit.show(self.value))
    }
}
