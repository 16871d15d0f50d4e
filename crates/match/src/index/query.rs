//! What a search asks for and how it weighs what it finds.

use serde::{Deserialize, Serialize};
use welkin_types::Policy;

use super::row::{
    APPS_MAX, CLASSES_MAX, Features, LOCATIONS_MAX, PRICE_MAX, QUALITY_MAX, SLOTS_MAX,
};

/// The most candidates of one search.
pub const COUNT_MAX: u8 = 16;
/// The most places among which candidates are drawn.
pub const WIDTH_MAX: u8 = 64;
/// The longest list of hosts or operators.
pub const LIST_MAX: usize = 64;

/// Two percent: what a herd is spread over, where nothing else is said.
pub const SLACK_DEFAULT: u16 = 200;

/// How a search weighs price, latency, quality, a warm start and what it leaves of a container.
///
/// The cost of a container is the sum of the products below, in integers; the lowest is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// For each micro-dollar an hour; at most [`Weights::PRICE_MAX`].
    pub price: u32,
    /// For each tenth of a millisecond of round trip; at most [`Weights::EACH_MAX`].
    pub latency: u32,
    /// For each hundredth of a percent by which the online score is below the whole; at most
    /// [`Weights::EACH_MAX`].
    pub quality: u32,
    /// Once, where the wanted application is not ready; at most [`Weights::COLD_MAX`].
    pub cold: u32,
    /// For each slot that stays free on the container; at most [`Weights::EACH_MAX`].
    pub fragment: u32,
}

impl Weights {
    /// The largest weight of the price.
    pub const PRICE_MAX: u32 = 1 << 10;
    /// The largest weight of a counted unit.
    pub const EACH_MAX: u32 = 1 << 20;
    /// The largest weight of a cold start.
    pub const COLD_MAX: u32 = 1 << 31;

    /// A policy's weights, which are part of the protocol: who knows them can recompute a choice.
    pub const fn of(policy: Policy) -> Self {
        match policy {
            // A whole percent of score decides between prices that differ by less than
            // 100 micro-dollars an hour: in practice between equal ones.
            Policy::Cheapest => Self { price: 1, latency: 0, quality: 1, cold: 0, fragment: 0 },
            Policy::FastestStart => {
                Self { price: 1, latency: 2_000, quality: 100, cold: 20_000_000, fragment: 0 }
            }
            Policy::Closest => {
                Self { price: 1, latency: 10_000, quality: 10, cold: 0, fragment: 0 }
            }
            Policy::Best => {
                Self { price: 1, latency: 800, quality: 100, cold: 150_000, fragment: 5_000 }
            }
        }
    }
}

/// A set of hardware kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSet([u64; CLASSES_MAX / 64]);

impl ClassSet {
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; CLASSES_MAX / 64]);
    /// None.
    pub const NONE: Self = Self([0; CLASSES_MAX / 64]);

    /// Adds one.
    pub const fn insert(&mut self, class: u8) {
        self.0[class as usize / 64] |= 1 << (class % 64);
    }

    /// Whether it is in the set.
    pub const fn contains(&self, class: u8) -> bool {
        self.0[class as usize / 64] >> (class % 64) & 1 == 1
    }

    /// The set in one word: class numbers modulo 64.
    pub(crate) fn folded(&self) -> u64 {
        self.0.iter().fold(0, |all, word| all | word)
    }

    /// Those in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        [0_u8, 64, 128, 192].into_iter().zip(self.0).flat_map(|(first, mut word)| {
            std::iter::from_fn(move || {
                let bit = u8::try_from(word.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
                word &= word - 1;
                Some(first + bit)
            })
        })
    }
}

impl FromIterator<u8> for ClassSet {
    fn from_iter<I: IntoIterator<Item = u8>>(classes: I) -> Self {
        let mut set = Self::NONE;
        classes.into_iter().for_each(|class| set.insert(class));
        set
    }
}

/// What is looked for. [`Search::ANY`] asks for nothing in particular.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Hardware kinds of which any will do.
    pub classes: ClassSet,
    /// Slots on one container, at least 1.
    pub slots: u16,
    /// Hundredths of a core, at least.
    pub cpu: u16,
    /// Memory in pages of 64 KiB, at least.
    pub memory: u32,
    /// Scratch space in MiB, at least.
    pub disk: u32,
    /// Micro-dollars an hour, at most.
    pub price_max: u32,
    /// What else a container must have.
    pub features: Features,
    /// The online score, at least.
    pub quality_min: u16,
    /// Locations of which any will do, one bit each.
    pub locations: u128,
    /// The round trip to each location in tenths of a millisecond; empty where it does not matter.
    /// A location that is not in it is as far as can be.
    pub latency: &'a [u16],
    /// The longest round trip.
    pub latency_max: u16,
    /// Operators of which any will do; empty for all.
    pub operators_allow: &'a [u32],
    /// Operators not wanted.
    pub operators_deny: &'a [u32],
    /// Hosts not wanted.
    pub hosts_exclude: &'a [u32],
    /// The application to run.
    pub app: Option<u16>,
    /// Whether it must be ready.
    pub is_app_required: bool,
    /// How to weigh.
    pub weights: Weights,
    /// How many candidates, from 1 to [`COUNT_MAX`].
    pub count: u8,
    /// Among how many of the best each candidate is drawn, by the better of two draws: from 1, for
    /// the very best, to [`WIDTH_MAX`].
    pub width: u8,
    /// How much more than the best a candidate may cost that is drawn before it, in hundredths of
    /// a percent of the best's cost.
    pub slack: u16,
    /// A number of the request's own, by which ties are broken and candidates drawn.
    pub request: u64,
}

impl Search<'_> {
    /// Any container, the cheapest first.
    pub const ANY: Self = Self {
        classes: ClassSet::ALL,
        slots: 1,
        cpu: 0,
        memory: 0,
        disk: 0,
        price_max: PRICE_MAX,
        features: Features(0),
        quality_min: 0,
        locations: u128::MAX,
        latency: &[],
        latency_max: u16::MAX,
        operators_allow: &[],
        operators_deny: &[],
        hosts_exclude: &[],
        app: None,
        is_app_required: false,
        weights: Weights::of(Policy::Cheapest),
        count: 1,
        width: 1,
        slack: SLACK_DEFAULT,
        request: 0,
    };

    /// The round trip to a location.
    pub(crate) fn latency_to(&self, location: usize) -> u16 {
        match self.latency {
            [] => 0,
            known => known.get(location).copied().unwrap_or(u16::MAX),
        }
    }

    /// Where ties begin on the ring.
    pub(crate) fn point(&self) -> u32 {
        let word = crate::spread::Stream::new(self.request ^ 0x7469_6573).word();
        u32::try_from(word >> 32).unwrap_or(0)
    }

    /// The largest cost among which candidates are drawn where `best` is the lowest.
    pub(crate) fn near(&self, best: u64) -> u64 {
        // Costs are below 2^44, so nothing overflows.
        best + best * u64::from(self.slack) / 10_000
    }

    /// Checks bounds, so that what is computed from them neither overflows nor takes long.
    ///
    /// # Errors
    ///
    /// [`SearchError`] naming the first number that is out of bounds.
    pub fn check(&self) -> Result<(), SearchError> {
        let at_most = |what, given: usize, most: usize| {
            if given > most { Err(SearchError::TooLarge { what, given, most }) } else { Ok(()) }
        };
        let weights = &self.weights;
        at_most("weight of the price", weights.price as usize, Weights::PRICE_MAX as usize)?;
        for (what, weight) in [
            ("weight of latency", weights.latency),
            ("weight of quality", weights.quality),
            ("weight of fragments", weights.fragment),
        ] {
            at_most(what, weight as usize, Weights::EACH_MAX as usize)?;
        }
        at_most("weight of a cold start", weights.cold as usize, Weights::COLD_MAX as usize)?;
        for (what, list) in [
            ("list of allowed operators", self.operators_allow),
            ("list of denied operators", self.operators_deny),
            ("list of excluded hosts", self.hosts_exclude),
        ] {
            at_most(what, list.len(), LIST_MAX)?;
        }
        at_most("list of round trips", self.latency.len(), LOCATIONS_MAX)?;
        at_most("number of slots", self.slots.into(), SLOTS_MAX.into())?;
        at_most("least quality", self.quality_min.into(), QUALITY_MAX.into())?;
        at_most("number of the application", self.app.unwrap_or(0).into(), APPS_MAX - 1)?;
        at_most("number of candidates", self.count.into(), COUNT_MAX.into())?;
        at_most("width of the draw", self.width.into(), WIDTH_MAX.into())?;
        for (what, given) in [
            ("number of slots", self.slots),
            ("number of candidates", self.count.into()),
            ("width of the draw", self.width.into()),
        ] {
            if given == 0 {
                return Err(SearchError::Nothing { what });
            }
        }
        if self.is_app_required && self.app.is_none() {
            return Err(SearchError::NoApp);
        }
        Ok(())
    }
}

/// Why a search is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A number or list is larger than any that makes sense.
    #[error("the {what} is {given}, and may be at most {most}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        given: usize,
        /// How large it may be.
        most: usize,
    },
    /// A number is 0 that must not be.
    #[error("the {what} is 0, and must be at least 1")]
    Nothing {
        /// What is 0.
        what: &'static str,
    },
    /// An application must be ready, but none is named.
    #[error("an application must be ready, but none is named")]
    NoApp,
}
