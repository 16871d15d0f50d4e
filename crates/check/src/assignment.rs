//! Minutes, epochs, and who would check which container in a minute if it were public: by rendezvous
//! hashing. Nodes draw instead ([`crate::sortition`]); the simulation compares the two.
//!
//! Every checker has a weight for every container and minute: SHA-256 of
//! `"welkin/check/weight/1" 0x00`, the epoch's seed (32 bytes), the minute (8 bytes, big-endian),
//! the checker (32 bytes) and the container (16 bytes). The committee are the checkers of the
//! highest weights, compared as big-endian numbers. A checker that goes leaves its containers to
//! others and moves no other container.
//!
//! The second is taken likewise with `"welkin/check/second/1" 0x00`: the first 8 bytes as a
//! big-endian number, modulo [`PROBE_SECONDS`].

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use welkin_types::{ContainerId, NodeId, UnixMillis};

/// Probes begin in the first so many seconds of a minute, so that they end within it.
pub const PROBE_SECONDS: u8 = 55;

/// The minute (since 1970) of a moment.
pub const fn minute_of(now: UnixMillis) -> u64 {
    now.0 / 60_000
}

/// The epoch whose seed holds for a minute: the one in which the minute begins.
pub const fn epoch_of(minute: u64, epoch_seconds: u64) -> u64 {
    let seconds = if epoch_seconds == 0 { 1 } else { epoch_seconds };
    minute.saturating_mul(60) / seconds
}

/// The checkers that check a container in a minute, highest weight first: `committee` of them, or
/// all if there are fewer. The order of `checkers` does not matter, nor does a repeated one.
///
/// ```
/// use welkin_check::assignment;
/// use welkin_types::{ContainerId, NodeId};
/// let checkers = [1, 2, 3].map(|number| NodeId::from_bytes([number; 32]));
/// let container = ContainerId::from_bytes([9; 16]);
/// let committee = assignment(&[0; 32], 29_000_000, &checkers, container, 2);
/// assert_eq!(committee.len(), 2);
/// ```
pub fn assignment(
    seed: &[u8; 32],
    minute: u64,
    checkers: &[NodeId],
    container: ContainerId,
    committee: usize,
) -> Vec<NodeId> {
    let weights = Hashes::new(b"welkin/check/weight/1\0", seed, minute);
    let weighted: BTreeSet<_> =
        checkers.iter().map(|checker| (weights.of(*checker, container), *checker)).collect();
    weighted.into_iter().rev().take(committee).map(|(_, checker)| checker).collect()
}

/// The second of the minute at which a checker probes a container, so that probes spread.
pub fn second_of_minute(
    seed: &[u8; 32],
    minute: u64,
    checker: NodeId,
    container: ContainerId,
) -> u8 {
    let hash = Hashes::new(b"welkin/check/second/1\0", seed, minute).of(checker, container);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    let second = u64::from_be_bytes(first) % u64::from(PROBE_SECONDS);
    u8::try_from(second).unwrap_or(0)
}

/// The hashes of one domain, seed and minute.
struct Hashes(Sha256);

impl Hashes {
    fn new(domain: &[u8], seed: &[u8; 32], minute: u64) -> Self {
        Self(
            Sha256::new()
                .chain_update(domain)
                .chain_update(seed)
                .chain_update(minute.to_be_bytes()),
        )
    }

    fn of(&self, checker: NodeId, container: ContainerId) -> [u8; 32] {
        let hasher = self.0.clone().chain_update(checker.as_bytes());
        hasher.chain_update(container.as_bytes()).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn checkers(count: u8) -> Vec<NodeId> {
        (0..count).map(|number| NodeId::from_bytes([number; 32])).collect()
    }

    fn container(number: u32) -> ContainerId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ContainerId::from_bytes(bytes)
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            seed: [u8; 32], minute: u64, number: u32, committee in 0..6_usize,
            (sorted, shuffled) in (0..20_u8)
                .prop_map(checkers)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            let container = container(number);
            let first = assignment(&seed, minute, &sorted, container, committee);
            prop_assert_eq!(&first, &assignment(&seed, minute, &shuffled, container, committee));
            let twice = [shuffled, sorted.clone()].concat();
            prop_assert_eq!(&first, &assignment(&seed, minute, &twice, container, committee));
            prop_assert_eq!(first.len(), committee.min(sorted.len()));
            let distinct: BTreeSet<_> = first.iter().collect();
            prop_assert_eq!(distinct.len(), first.len());
        }

        /// The others stay in their order; the gone one's place falls to one more.
        #[test]
        fn a_checker_that_goes_moves_only_its_containers(
            seed: [u8; 32], minute: u64, gone in 0..12_usize, committee in 1..5_usize,
        ) {
            let all = checkers(12);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone);
            for number in 0..20 {
                let before = assignment(&seed, minute, &all, container(number), committee);
                let after = assignment(&seed, minute, &fewer, container(number), committee);
                let stayed: Vec<_> = before.iter().copied().filter(|c| *c != gone).collect();
                prop_assert_eq!(&after[..stayed.len()], &stayed);
                prop_assert!(before.contains(&gone) || after == before);
            }
        }
    }

    /// Chi-square with 19 degrees of freedom: above 60 by chance once in 250 000.
    #[test]
    fn checks_are_balanced_over_checkers_and_seconds() {
        let checkers = checkers(20);
        let mut counts: BTreeMap<NodeId, f64> = BTreeMap::new();
        let mut seconds = [0_f64; 55];
        for number in 0..2_000 {
            for checker in assignment(&[5; 32], 7, &checkers, container(number), 3) {
                *counts.entry(checker).or_default() += 1.0;
                let second = second_of_minute(&[5; 32], 7, checker, container(number));
                seconds[usize::from(second)] += 1.0;
            }
        }
        let chi = |counts: &mut dyn Iterator<Item = f64>, expected: f64| -> f64 {
            counts.map(|count| (count - expected).powi(2) / expected).sum()
        };
        assert_eq!(counts.len(), 20);
        assert!(chi(&mut counts.values().copied(), 300.0) < 60.0, "{counts:?}");
        assert!(chi(&mut seconds.into_iter(), 6_000.0 / 55.0) < 120.0, "{seconds:?}");
    }

    /// Anybody must be able to recompute it, so it must never change.
    #[test]
    fn the_hash_is_what_the_page_says() {
        let mut bytes = b"welkin/check/weight/1\0".to_vec();
        bytes.extend([3; 32]);
        bytes.extend(7_u64.to_be_bytes());
        bytes.extend([1; 32]);
        bytes.extend([2; 16]);
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        let hashes = Hashes::new(b"welkin/check/weight/1\0", &[3; 32], 7);
        let hash = hashes.of(NodeId::from_bytes([1; 32]), ContainerId::from_bytes([2; 16]));
        assert_eq!(hash, expected);
    }

    #[test]
    fn the_epoch_of_a_minute_is_the_one_it_begins_in() {
        assert_eq!(epoch_of(10, 60), 10);
        assert_eq!(epoch_of(1_440, 86_400), 1);
        assert_eq!(epoch_of(1, 7), 8);
        assert_eq!(epoch_of(2, 0), 120);
        assert_eq!(minute_of(UnixMillis(119_999)), 1);
    }
}
