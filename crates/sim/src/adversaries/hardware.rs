//! What hardware does and what it is worth. The unit of money is a K-day: what one unit of capacity
//! earns that is idle and proven for a day. A stake is 30 of them, as the coefficient is a month's
//! average revenue. Amounts are in thousandths.

use alloy_primitives::U256;
use welkin_check::challenge::ClassTable;
use welkin_ledger::epoch::{ClassTerms, SCORE_WHOLE, Terms, WHOLE_BP};
use welkin_types::Class;

/// Classes with their capacity K: about prices an hour in US cents, halved. K must not rise where the
/// rate falls: who is matched with a slower class would lose nothing.
pub const CLASSES: [(&str, u32); 8] = [
    ("h200-sxm-141", 120),
    ("h100-sxm-80", 100),
    ("h100-pcie-80", 80),
    ("a100-sxm-80", 50),
    ("l40s-48", 40),
    ("rtx4090-24", 20),
    ("rtx3090-24", 10),
    ("l4-24", 9),
];
/// A stake, in K-days: a month of average revenue.
pub const STAKE_DAYS: u64 = 30;
/// What it costs to have a card of one's own, in percent of what it earns.
pub const OWN_PERCENT: i64 = 50;
/// What it costs to rent one.
pub const RENT_PERCENT: i64 = 80;
/// Of what was earned lately so much is still pending, in percent: 30 % vests at once.
pub(super) const PENDING_PERCENT: u64 = 70;
/// Thousandths of a K-day.
pub(super) const MILLI: u64 = 1_000;

/// What a K-day weighs in a pool.
const KDAY_WEIGHT: u128 = SCORE_WHOLE as u128 * WHOLE_BP as u128 * 86_400;

/// The terms of settlement with these classes.
pub(super) fn terms(committee: u8) -> Terms {
    let class = |(name, capacity): &(&str, u32)| {
        let class = Class::try_from((*name).to_owned()).ok()?;
        Some(ClassTerms { class, capacity: *capacity })
    };
    Terms { committee, ..Terms::public(CLASSES.iter().filter_map(class).collect()) }
}

/// A class's number in the terms.
pub(super) fn number(class: &str) -> u16 {
    let place = CLASSES.iter().position(|(name, _)| *name == class);
    place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX)
}

/// A class's capacity.
pub(super) fn capacity(class: &str) -> u64 {
    CLASSES.iter().find(|(name, _)| *name == class).map_or(0, |(_, k)| u64::from(*k))
}

/// What a class does, in millions of multiply-adds a second, and its memory in MiB.
pub(super) fn rate(table: &ClassTable, class: &str) -> (u64, u64) {
    let class = Class::try_from(class.to_owned()).ok();
    let rate = class.and_then(|class| table.rate(&class).cloned());
    rate.map_or((1, 0), |rate| (rate.mmac_per_s, rate.memory_mib))
}

/// A weight in a pool as thousandths of a K-day.
pub(super) fn kdays(weight: u128) -> u64 {
    u64::try_from(weight * u128::from(MILLI) / KDAY_WEIGHT).unwrap_or(u64::MAX)
}

/// The stake of a class, in thousandths of a K-day.
pub(super) fn stake(class: &str) -> U256 {
    U256::from(capacity(class) * STAKE_DAYS * MILLI)
}
