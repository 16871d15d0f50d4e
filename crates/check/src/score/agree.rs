//! One number from what several say, some of whom may lie.

use std::collections::BTreeMap;

use super::Ppm;

/// Up to so many values the median is taken, of more a trimmed mean.
pub const MEDIAN_MAX: usize = 5;
/// What is left out at each end of a trimmed mean, in percent.
pub const TRIM_PERCENT: usize = 20;
/// How far from what was agreed a value is an outlier.
pub const OUTLIER: Ppm = Ppm::new(200_000);
/// The lower median of up to five values, of more the mean without a fifth at each end.
pub fn agreed(values: &[Ppm]) -> Option<Ppm> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    if sorted.len() <= MEDIAN_MAX {
        return sorted.get(sorted.len().checked_sub(1)? / 2).copied();
    }
    let trim = sorted.len() * TRIM_PERCENT / 100;
    let kept = &sorted[trim..sorted.len() - trim];
    let sum: u64 = kept.iter().map(|value| u64::from(value.ppm())).sum();
    let mean = sum / u64::try_from(kept.len()).unwrap_or(1);
    Some(Ppm::new(u32::try_from(mean).unwrap_or(u32::MAX)))
}

/// Who said something far from what was agreed.
pub fn outliers<K: Copy + Ord>(said: &BTreeMap<K, Ppm>) -> Vec<K> {
    let values: Vec<_> = said.values().copied().collect();
    let Some(agreed) = agreed(&values) else { return Vec::new() };
    let is_far = |value: &Ppm| value.ppm().abs_diff(agreed.ppm()) > OUTLIER.ppm();
    said.iter().filter(|(_, value)| is_far(value)).map(|(who, _)| *who).collect()
}
