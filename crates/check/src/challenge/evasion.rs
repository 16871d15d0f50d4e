//! What becomes of challenges that come to no good end: asked again, or counted as evasion.
//!
//! A network can only make hardware look slower: a lost packet costs as much time as the work. So
//! who finds less than the claimed class asks again, and the best of [`TRIES_MAX`] counts. A window of
//! several containers is asked again as a whole, and the try in which its slowest was fastest counts
//! for all: else those that share a device would take turns at it.
//!
//! A host may refuse a challenge because an order came, or because another challenge is under way,
//! and nothing is held against it. Who has nothing to prove with could refuse all of them. So each
//! checker counts what became of its challenges of one container in an epoch: refused more often
//! than answered, the container has proven nothing to it. Refusals in periods in which the container
//! had a lease are fair and not counted; one checker alone decides nothing, since settlement takes
//! the median of all findings.

use std::collections::BTreeMap;

/// How often a container is challenged in a row before less than its class is believed.
pub const TRIES_MAX: u32 = 3;

/// Whether to ask again after so many tries. A wrong row is no matter of time: it is not asked again.
pub const fn asks_again(tries: u32, is_claimed: bool, is_wrong: bool) -> bool {
    !is_claimed && !is_wrong && tries < TRIES_MAX
}

/// Containers whose challenges a checker asks again, each with the best finding so far.
///
/// `K` says which container, `F` what was found.
#[derive(Clone, Debug)]
pub struct Unmet<K, F> {
    open: BTreeMap<K, (u32, u64, F)>,
    most: usize,
}

impl<K: Ord, F> Unmet<K, F> {
    /// None yet, and never more than `most`: what comes beyond that is believed at once.
    pub const fn new(most: usize) -> Self {
        Self { open: BTreeMap::new(), most }
    }

    /// Whether a container is to be challenged at the next occasion, and not by chance.
    pub fn is_open(&self, container: &K) -> bool {
        self.open.contains_key(container)
    }

    /// Takes a finding of less than the claimed class, with the rate that it shows, and gives the best of
    /// all tries once there were enough.
    pub fn slow(&mut self, container: K, rate: u64, finding: F) -> Option<F> {
        let (tries, best_rate, best) = match self.open.remove(&container) {
            Some((tries, best_rate, best)) if best_rate >= rate => (tries + 1, best_rate, best),
            Some((tries, ..)) => (tries + 1, rate, finding),
            None => (1, rate, finding),
        };
        if !asks_again(tries, false, false) || self.open.len() >= self.most {
            return Some(best);
        }
        self.open.insert(container, (tries, best_rate, best));
        None
    }

    /// A finding that is no matter of time, or of the claimed class: what was slower before is forgotten.
    pub fn settled(&mut self, container: &K) {
        self.open.remove(container);
    }

    /// Forgets what is not kept: containers that nobody offers any more.
    pub fn retain(&mut self, is_kept: impl Fn(&K) -> bool) {
        self.open.retain(|container, _| is_kept(container));
    }
}

/// A checker's challenges of one container in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    answered: u32,
    refused: u32,
}

impl Asked {
    /// A challenge came to a finding.
    pub const fn answered(&mut self) {
        self.answered = self.answered.saturating_add(1);
    }

    /// A challenge was refused with a fair word; `had_lease` if the container had one in that
    /// period.
    pub const fn refused(&mut self, had_lease: bool) {
        if !had_lease {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// Whether it was refused more often than answered.
    ///
    /// ```
    /// let mut asked = welkin_check::challenge::Asked::default();
    /// asked.answered();
    /// asked.refused(false);
    /// assert!(!asked.is_evasive());
    /// asked.refused(false);
    /// assert!(asked.is_evasive());
    /// ```
    pub const fn is_evasive(&self) -> bool {
        self.refused > self.answered
    }
}

/// A checker's counted refusals, by container `K`.
///
/// Whoever was refused because a slot or a device is in use asks again at its next probe, up to
/// [`TRIES_MAX`] times in a row; whoever was told that the time for challenges is spent does not, since
/// asking spends more of it. After at least [`TRIES_MAX`] refusals that no lease explains, and more of
/// them than answers, each further one is evasion.
#[derive(Clone, Debug)]
pub struct Refusals<K> {
    /// What was counted, and how many refusals in a row are to be asked again.
    counts: BTreeMap<K, (Asked, u32)>,
    most: usize,
}

impl<K: Ord> Refusals<K> {
    /// None yet, and never of more than `most` containers: of further ones nothing is said.
    pub const fn new(most: usize) -> Self {
        Self { counts: BTreeMap::new(), most }
    }

    /// Whether a container is to be challenged at the next occasion, and not by chance.
    pub fn is_open(&self, container: &K) -> bool {
        self.counts.get(container).is_some_and(|(_, row)| (1..TRIES_MAX).contains(row))
    }

    /// A challenge came to a finding.
    pub fn answered(&mut self, container: K) {
        if let Some((asked, row)) = self.count(container) {
            asked.answered();
            *row = 0;
        }
    }

    /// A challenge was refused with a fair word. `had_lease` if a lease explains it, `is_in_use` if the
    /// word was that a slot or a device is in use. Whether this is evasion.
    pub fn refused(&mut self, container: K, had_lease: bool, is_in_use: bool) -> bool {
        let Some((asked, row)) = self.count(container) else { return false };
        asked.refused(had_lease);
        *row = if had_lease || !is_in_use { 0 } else { row.saturating_add(1) };
        !had_lease && asked.refused >= TRIES_MAX && asked.is_evasive()
    }

    /// Begins anew, as with an epoch.
    pub fn clear(&mut self) {
        self.counts.clear();
    }

    fn count(&mut self, container: K) -> Option<&mut (Asked, u32)> {
        if self.counts.len() >= self.most && !self.counts.contains_key(&container) {
            return None;
        }
        Some(self.counts.entry(container).or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Who refuses only while it has a lease, or answers at least as often as not, never evades; who
        /// always refuses without one does, from the third time on.
        #[test]
        fn evasion_is_found_and_nobody_else(
            deeds in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..60),
        ) {
            let mut leased = Refusals::new(4);
            let mut mixed = Refusals::new(4);
            let (mut answered, mut refused) = (0_u32, 0_u32);
            for (is_answer, had_lease, is_in_use) in &deeds {
                if *is_answer { leased.answered(1) }
                prop_assert!(!leased.refused(1, true, *is_in_use));
                if *is_answer {
                    mixed.answered(1);
                    answered += 1;
                } else {
                    refused += u32::from(!had_lease);
                    let is_found = mixed.refused(1, *had_lease, *is_in_use);
                    prop_assert_eq!(is_found, !had_lease && refused >= 3 && refused > answered);
                }
            }
            let mut always = Refusals::new(4);
            for number in 1..=deeds.len() {
                prop_assert_eq!(always.refused(1, false, true), number >= 3);
                prop_assert_eq!(always.is_open(&1), number < 3);
            }
        }
    }

    #[test]
    fn refusals_are_bounded_and_begin_anew() {
        let mut refusals = Refusals::new(1);
        for _ in 0..9 {
            assert!(!refusals.refused("kept out", true, true) || refusals.is_open(&"kept out"));
            assert!(!refusals.refused("another", false, true), "no room for it");
        }
        // What is short of time is not asked again before its turn.
        assert!(!refusals.refused("kept out", false, false) && !refusals.is_open(&"kept out"));
        assert!(!refusals.refused("kept out", false, true) && refusals.is_open(&"kept out"));
        refusals.clear();
        assert!(!refusals.is_open(&"kept out"));
        assert!(!refusals.refused("another", false, true) && refusals.is_open(&"another"));
    }

    #[test]
    fn less_than_the_claimed_class_is_asked_thrice() {
        assert!(asks_again(1, false, false) && asks_again(2, false, false));
        assert!(!asks_again(3, false, false) && !asks_again(1, true, false));
        assert!(!asks_again(1, false, true));
    }

    #[test]
    fn the_best_of_three_slow_findings_is_believed() {
        let mut unmet = Unmet::new(2);
        assert_eq!(unmet.slow("a", 5, "first"), None);
        assert!(unmet.is_open(&"a") && !unmet.is_open(&"b"));
        assert_eq!(unmet.slow("a", 9, "second"), None);
        assert_eq!(unmet.slow("a", 7, "third"), Some("second"));
        assert!(!unmet.is_open(&"a"));
        // A good one in between begins anew.
        assert_eq!(unmet.slow("a", 5, "first"), None);
        unmet.settled(&"a");
        assert_eq!(unmet.slow("a", 4, "again"), None);
        // No room for a third container, and none kept for one that is gone.
        assert_eq!(unmet.slow("b", 1, "first"), None);
        assert_eq!(unmet.slow("c", 1, "first"), Some("first"));
        unmet.retain(|container| *container == "b");
        assert!(!unmet.is_open(&"a") && unmet.is_open(&"b"));
    }

    #[test]
    fn who_had_a_lease_may_refuse() {
        let mut asked = Asked::default();
        assert!(!asked.is_evasive());
        for _ in 0..100 {
            asked.refused(true);
        }
        assert!(!asked.is_evasive());
        asked.refused(false);
        assert!(asked.is_evasive());
        asked.answered();
        assert!(!asked.is_evasive());
    }
}
