//! Which containers are challenged in one window, so that nobody has one device for several.
//!
//! A challenge takes a second, so that challenges of two containers seldom meet by chance. So every
//! challenge has a few partners, drawn at random from those that the caller gives: nodes give the other
//! containers of the same host and class, and only the simulation of adversaries all of a class, which
//! would meet devices that are registered with several owners, too. A window in which somebody was slow is
//! kept: its container is from then on challenged together with the same partners. If some of them share a
//! device, somebody stays slow; if it was the network, all are fast the next times and the window is given
//! up. A window counts as a whole, so that those who share a device can't take turns in being fast.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use welkin_types::ContainerId;

/// Partners of a challenge.
pub const PARTNERS: usize = 4;
/// The most windows that are kept; the first ones by container go first.
const KEPT_MAX: usize = 1 << 16;
/// So often all of a window must be fast until it is given up.
const FAST_MIN: u8 = 3;

/// Windows that are kept together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    kept: BTreeMap<ContainerId, (BTreeSet<ContainerId>, u8)>,
}

impl Windows {
    /// Whom to challenge together with a container: those of its kept window, else some of these, drawn
    /// by fresh random bytes.
    pub fn partners(
        &self,
        container: ContainerId,
        from: &[ContainerId],
        random: &[u8; 32],
    ) -> Vec<ContainerId> {
        if let Some((kept, _)) = self.kept.get(&container) {
            return kept.iter().copied().collect();
        }
        let mut partners = BTreeSet::new();
        // Each number is drawn anew, so that it ends where there are few, too.
        for number in 0..4 * u32::try_from(PARTNERS).unwrap_or(u32::MAX) {
            if partners.len() == PARTNERS || from.is_empty() {
                break;
            }
            let hash = Sha256::new()
                .chain_update(b"welkin/challenge/partner/1\0")
                .chain_update(random)
                .chain_update(number.to_be_bytes())
                .finalize();
            let mut first = [0; 8];
            first.copy_from_slice(&hash[..8]);
            let count = u64::try_from(from.len()).unwrap_or(u64::MAX);
            let place = usize::try_from(u64::from_be_bytes(first) % count).unwrap_or(0);
            partners.extend(from.get(place).filter(|other| **other != container));
        }
        partners.into_iter().collect()
    }

    /// Beside these a container, or one of these beside it, proved less than its class.
    pub fn slow(&mut self, container: ContainerId, beside: &[ContainerId]) {
        if beside.is_empty() {
            return;
        }
        self.kept.insert(container, (beside.iter().copied().collect(), 0));
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
    }

    /// It and all its partners proved their class.
    pub fn fast(&mut self, container: ContainerId) {
        if let Some((_, times)) = self.kept.get_mut(&container) {
            *times += 1;
            if *times >= FAST_MIN {
                self.kept.remove(&container);
            }
        }
    }

    /// Whether a window is kept for a container.
    pub fn is_suspect(&self, container: ContainerId) -> bool {
        self.kept.contains_key(&container)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> ContainerId {
        ContainerId::from_bytes([number; 16])
    }

    proptest! {
        #[test]
        fn partners_are_others_of_the_class(count in 0..40_u8, random in any::<[u8; 32]>()) {
            let class: Vec<_> = (0..count).map(id).collect();
            let partners = Windows::default().partners(id(0), &class, &random);
            let others = class.len().saturating_sub(1);
            prop_assert!(partners.len() <= PARTNERS.min(others));
            prop_assert!(others < 10 || partners.len() == PARTNERS);
            prop_assert!(partners.iter().all(|other| *other != id(0) && class.contains(other)));
            prop_assert!(partners.is_sorted());
        }
    }

    #[test]
    fn a_window_in_which_somebody_was_slow_is_kept() {
        let mut windows = Windows::default();
        windows.slow(id(1), &[id(2), id(3)]);
        let partners = |windows: &Windows| windows.partners(id(1), &[id(7)], &[0; 32]);
        assert_eq!(partners(&windows), [id(2), id(3)]);
        windows.fast(id(1));
        windows.fast(id(1));
        assert!(windows.is_suspect(id(1)));
        // Slow again: it begins anew.
        windows.slow(id(1), &[id(2), id(3)]);
        (0..3).for_each(|_| windows.fast(id(1)));
        assert_eq!(partners(&windows), [id(7)]);
        windows.slow(id(4), &[]);
        assert!(!windows.is_suspect(id(4)));
    }
}
