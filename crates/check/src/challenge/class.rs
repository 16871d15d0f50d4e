//! How fast hardware of a class is, learnt from what honest hardware does.
//!
//! A table begins with published figures and learns from verified challenges: the centre by Huber's
//! estimate, the spread by the median absolute deviation, so that a minority of liars moves neither
//! far; and no epoch moves a centre by more than [`LEARN_STEP_BP`]. Hardware below its class is
//! matched with a lower class instead of being turned away: cards are power-capped or throttled for
//! good reasons.

use std::collections::BTreeMap;

use welkin_types::Class;

/// How far an epoch can move a centre, in basis points of it.
pub const LEARN_STEP_BP: u64 = 500;
/// The fewest samples that are learnt from.
const SAMPLES_MIN: usize = 8;
/// The least spread, in thousandths of the centre: clocks and drivers differ by as much.
const SPREAD_MIN_PERMILLE: u64 = 20;
/// MAD to standard deviation, in ten-thousandths: 1 / Φ⁻¹(3/4).
const MAD_SCALE: u64 = 14_826;
/// Huber's tuning constant, in thousandths of the spread: 95 % as good as a mean on clean data.
const HUBER_PERMILLE: u64 = 1_345;
/// How many spreads below its centre a class ends.
pub const BAND: u64 = 4;
/// A class never ends above this share of its centre, in thousandths, or below the other.
pub const BAND_PERMILLE: std::ops::Range<u64> = 700..920;

/// What a class does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRate {
    /// Integer multiplications and additions a second, in millions.
    pub mmac_per_s: u64,
    /// The spread of it.
    pub spread: u64,
    /// Its memory.
    pub memory_mib: u64,
    /// Where the first figure is from.
    pub source: &'static str,
}

/// Centre and spread of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Huber's estimate of the centre.
    pub centre: u64,
    /// Median absolute deviation, scaled to a standard deviation.
    pub spread: u64,
}

/// Estimates centre and spread in integers, by eight steps of reweighting from the median.
pub fn estimate(samples: &[u64]) -> Option<Estimate> {
    let median = median(samples)?;
    let deviations: Vec<_> = samples.iter().map(|sample| sample.abs_diff(median)).collect();
    let least = median * SPREAD_MIN_PERMILLE / 1_000;
    let spread = (self::median(&deviations)? * MAD_SCALE / 10_000).max(least).max(1);
    let bound = (spread * HUBER_PERMILLE / 1_000).max(1);
    let mut centre = median;
    for _ in 0..8 {
        let (mut sum, mut weights) = (0_u128, 0_u128);
        for sample in samples {
            let weight = bound * 1_000 / sample.abs_diff(centre).max(bound);
            sum += u128::from(*sample) * u128::from(weight);
            weights += u128::from(weight);
        }
        let next = sum.checked_div(weights).and_then(|next| u64::try_from(next).ok());
        centre = next.unwrap_or(centre);
    }
    Some(Estimate { centre, spread })
}

/// The lower median.
fn median(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Which class hardware was matched with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchedClass {
    /// The claimed one.
    Claimed,
    /// A lower one.
    Lower(Class),
    /// None: it is slower than all.
    None,
}

/// Rates of all classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTable {
    rates: BTreeMap<Class, ClassRate>,
}

/// Class, measured FP32 matrix TFLOPS, memory in MiB.
const SEEDS: [(&str, u64, u64); 8] = [
    ("h200-sxm-141", 49_600, 144_384),
    ("h100-sxm-80", 49_000, 81_920),
    ("h100-pcie-80", 37_200, 81_920),
    ("a100-sxm-80", 18_200, 81_920),
    ("l40s-48", 35_500, 46_080),
    ("rtx4090-24", 48_500, 24_576),
    ("rtx3090-24", 21_700, 24_576),
    ("l4-24", 9_000, 23_034),
];
/// The most cores of a class without a GPU.
const CPU_CORES_MAX: u32 = 256;
/// Millions of multiply-adds a second of one core: what one does that is shared by four, so that
/// none is turned away before the population has spoken.
pub const CPU_CORE_MMAC_PER_S: u64 = 250;
const CPU_SOURCE: &str = "Welkin: the reference's product on one core with 128-bit vectors";
const SOURCE: &str = "NI-Compute (Bittensor subnet 27) reference table of measured FP32 products";

impl ClassTable {
    /// The table of published figures.
    ///
    /// The figures are GFLOPS of products in FP32. A shader without matrix units is taken to do as
    /// many integer multiply-adds as half of that: a beginning that the population corrects.
    pub fn published() -> Self {
        let rates = SEEDS.iter().filter_map(|(name, gflops, memory_mib)| {
            let class = Class::try_from((*name).to_owned()).ok()?;
            let mmac_per_s = gflops * 1_000 / 2;
            let rate = ClassRate {
                mmac_per_s,
                spread: mmac_per_s / 10,
                memory_mib: *memory_mib,
                source: SOURCE,
            };
            Some((class, rate))
        });
        let cpus = (1..=CPU_CORES_MAX).map(|cores| {
            let mmac_per_s = CPU_CORE_MMAC_PER_S * u64::from(cores);
            let (spread, source) = (mmac_per_s / 10, CPU_SOURCE);
            (Class::cpu(cores * 1_000), ClassRate { mmac_per_s, spread, memory_mib: 0, source })
        });
        Self { rates: rates.chain(cpus).collect() }
    }

    /// A table of these rates.
    pub const fn new(rates: BTreeMap<Class, ClassRate>) -> Self {
        Self { rates }
    }

    /// All classes, in order, with what is known of each.
    pub fn rates(&self) -> impl Iterator<Item = (&Class, &ClassRate)> {
        self.rates.iter()
    }

    /// What is known of a class.
    pub fn rate(&self, class: &Class) -> Option<&ClassRate> {
        self.rates.get(class)
    }

    /// The least rate that still belongs to a class.
    pub fn least(&self, class: &Class) -> Option<u64> {
        self.rate(class).map(|rate| {
            let from = rate.mmac_per_s * BAND_PERMILLE.start / 1_000;
            let to = rate.mmac_per_s * BAND_PERMILLE.end / 1_000;
            rate.mmac_per_s.saturating_sub(BAND * rate.spread).clamp(from, to)
        })
    }

    /// How long work of so many multiply-adds may take, in microseconds: what the slowest class of
    /// the claimed one's kind needs, so that slow hardware is measured instead of being late. Classes
    /// that the table does not know have the time of the slowest GPU. Who shares a device among
    /// identities has the rate of a lower class with each, which earns no more than one.
    pub fn limit_us(&self, claimed: &Class, macs: u64) -> Option<u64> {
        let of_kind = self.rates.keys().filter(|class| is_cpu(class) == is_cpu(claimed));
        let slowest = of_kind.filter_map(|class| self.least(class)).min()?;
        Some((macs / slowest.max(1)).saturating_add(1))
    }

    /// Matches a measured rate and memory with the claimed class, or with the fastest lower one
    /// whose band it reaches.
    pub fn matched(&self, claimed: &Class, mmac_per_s: u64, memory_mib: u64) -> MatchedClass {
        let fits = |class: &Class, rate: &ClassRate| {
            let is_fast = self.least(class).is_some_and(|least| mmac_per_s >= least);
            // A part of the memory is the driver's.
            is_fast && memory_mib * 1_000 >= rate.memory_mib * 700
        };
        let Some(claimed_rate) = self.rates.get(claimed) else { return MatchedClass::None };
        if fits(claimed, claimed_rate) {
            return MatchedClass::Claimed;
        }
        let lower = self.rates.iter().filter(|(class, rate)| {
            let is_lower = rate.mmac_per_s <= claimed_rate.mmac_per_s && *class != claimed;
            is_lower && is_cpu(class) == is_cpu(claimed) && fits(class, rate)
        });
        lower
            .max_by_key(|(_, rate)| (rate.mmac_per_s, rate.memory_mib))
            .map_or(MatchedClass::None, |(class, _)| MatchedClass::Lower(class.clone()))
    }

    /// Learns from the rates of hardware that met its challenge in an epoch. The order of samples
    /// does not matter.
    pub fn learn(&mut self, class: &Class, samples: &[u64]) {
        let Some(rate) = self.rates.get_mut(class) else { return };
        if samples.len() < SAMPLES_MIN {
            return;
        }
        let Some(found) = estimate(samples) else { return };
        let step = rate.mmac_per_s * LEARN_STEP_BP / 10_000;
        let (low, high) = (rate.mmac_per_s - step, rate.mmac_per_s + step);
        rate.mmac_per_s = found.centre.clamp(low, high);
        rate.spread = (rate.spread * 3 + found.spread) / 4;
    }
}

/// Whether a class is one without a GPU.
fn is_cpu(class: &Class) -> bool {
    class.as_str().starts_with("cpu-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(name: &str) -> Class {
        Class::try_from(name.to_owned()).unwrap()
    }

    proptest! {
        /// A third of liars, wherever they lie, moves an estimate by less than a spread or two.
        #[test]
        fn a_minority_moves_an_estimate_little(
            honest in prop::collection::vec(9_800..10_200_u64, 40..80), lie in 0..1_000_000_u64,
        ) {
            let clean = estimate(&honest).unwrap();
            let mut samples = honest.clone();
            samples.extend(vec![lie; honest.len() / 3]);
            let dirty = estimate(&samples).unwrap();
            prop_assert!(clean.centre.abs_diff(dirty.centre) < 2 * clean.spread.max(200));
            samples.reverse();
            prop_assert_eq!(estimate(&samples), Some(dirty));
        }
    }

    #[test]
    fn slow_cards_go_down_a_class_and_are_not_turned_away() {
        let table = ClassTable::published();
        let claimed = class("h100-sxm-80");
        let rate = table.rate(&claimed).unwrap().mmac_per_s;
        assert_eq!(table.matched(&claimed, rate, 81_000), MatchedClass::Claimed);
        assert_eq!(table.matched(&claimed, rate * 9 / 10, 81_000), MatchedClass::Claimed);
        let capped = table.matched(&claimed, rate / 2, 81_000);
        assert_eq!(capped, MatchedClass::Lower(class("rtx3090-24")));
        let small = table.matched(&claimed, rate, 24_000);
        assert_eq!(small, MatchedClass::Lower(class("rtx4090-24")));
        // The slowest is an L4: 9 TFLOPS, of which 70 % is the least, as multiply-adds.
        assert_eq!(table.limit_us(&claimed, 3_150_000_000), Some(1_001));
        assert_eq!(table.matched(&claimed, 1, 81_000), MatchedClass::None);
        assert_eq!(table.matched(&class("unheard-of"), rate, 81_000), MatchedClass::None);
    }

    #[test]
    fn processors_are_compared_with_processors() {
        let table = ClassTable::published();
        let claimed = Class::cpu(8_000);
        assert_eq!(table.matched(&claimed, 2_000, 0), MatchedClass::Claimed);
        assert_eq!(table.matched(&claimed, 1_000, 0), MatchedClass::Lower(Class::cpu(5_000)));
        assert_eq!(table.matched(&claimed, 174, 0), MatchedClass::None);
        assert_eq!(table.limit_us(&claimed, 175_000), Some(1_001));
        // A GPU that is slower than all GPUs is no processor.
        assert_eq!(table.matched(&class("l4-24"), 1_000_000, 23_034), MatchedClass::None);
    }

    #[test]
    fn a_table_learns_in_small_steps() {
        let mut table = ClassTable::published();
        let known = class("rtx4090-24");
        let first = table.rate(&known).unwrap().mmac_per_s;
        table.learn(&known, &[10 * first; 7]);
        assert_eq!(table.rate(&known).unwrap().mmac_per_s, first);
        table.learn(&known, &[10 * first; 100]);
        assert_eq!(table.rate(&known).unwrap().mmac_per_s, first + first / 20);
        for _ in 0..200 {
            table.learn(&known, &[2 * first; 100]);
        }
        assert_eq!(table.rate(&known).unwrap().mmac_per_s, 2 * first);
        table.learn(&class("unheard-of"), &[1; 100]);
    }

    #[test]
    fn nothing_has_no_estimate() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[7]), Some(Estimate { centre: 7, spread: 1 }));
    }
}
