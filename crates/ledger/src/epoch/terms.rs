//! By which numbers an epoch is settled. They are the program's: whoever settles by others signs
//! something else ([`Terms::digest`] stands in it), and no vote changes them yet.

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_proto::epoch::COMMITTEE;
use welkin_types::Class;

/// What the online score is counted in: [`Terms::score_up`] and [`Terms::score_down`] are exact.
pub const SCORE_WHOLE: u16 = 504;
/// The most periods of an epoch.
pub const PERIODS_MAX: u8 = 32;
/// The whole of a quality or weight, in basis points.
pub const WHOLE_BP: u16 = 10_000;

/// A class and its capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTerms {
    /// Which.
    pub class: Class,
    /// Its capacity K.
    pub capacity: u32,
}

/// The parameters of an epoch's settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Classes; a container names one by its place here.
    pub classes: Vec<ClassTerms>,
    /// How many periods an epoch has, at most [`PERIODS_MAX`].
    pub periods: u8,
    /// The seconds of a period.
    pub period_seconds: u16,
    /// How many checkers judge a container in a period: 2N + 1. More than half of them must agree.
    pub committee: u8,
    /// What a good period adds to the online score, in parts of [`SCORE_WHOLE`].
    pub score_up: u16,
    /// What a bad period takes from it.
    pub score_down: u16,
    /// What an idle second weighs against a delivered one, in basis points.
    pub idle_bp: u16,
    /// For how many epochs a proof of capacity holds.
    pub proof_epochs: u32,
    /// The most that a unit of capacity can earn in an epoch, in wei.
    pub unit_cap_wei: U256,
    /// The uptime above which a checker has its part of the bonus, in basis points.
    pub uptime_bp: u16,
}

impl Terms {
    /// The public network's terms: 24 hours a day, a score of −1/72 and +1/168 an hour, committees
    /// of three, daily proofs that hold for two days, uptime above 95 %.
    pub fn public(classes: Vec<ClassTerms>) -> Self {
        Self {
            classes,
            periods: 24,
            period_seconds: 3_600,
            committee: COMMITTEE,
            score_up: SCORE_WHOLE / 168,
            score_down: SCORE_WHOLE / 72,
            idle_bp: WHOLE_BP,
            proof_epochs: 2,
            unit_cap_wei: U256::MAX,
            uptime_bp: 9_500,
        }
    }

    /// How many periods count.
    pub fn periods(&self) -> u8 {
        self.periods.min(PERIODS_MAX)
    }

    /// The capacity of the class with this number; 0 if there is none.
    pub fn capacity(&self, class: u16) -> u32 {
        self.classes.get(usize::from(class)).map_or(0, |terms| terms.capacity)
    }

    /// What the terms are, in 32 bytes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(b"welkin/epoch/terms/1\0");
        hash.update([self.periods, self.committee]);
        let shorts =
            [self.period_seconds, self.score_up, self.score_down, self.idle_bp, self.uptime_bp];
        shorts.iter().for_each(|short| hash.update(short.to_be_bytes()));
        hash.update(self.proof_epochs.to_be_bytes());
        hash.update(self.unit_cap_wei.to_be_bytes::<32>());
        for terms in &self.classes {
            hash.update([u8::try_from(terms.class.as_str().len()).unwrap_or(u8::MAX)]);
            hash.update(terms.class.as_str());
            hash.update(terms.capacity.to_be_bytes());
        }
        hash.finalize().into()
    }
}
