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

/// How often a container is challenged in a row before less than its class is believed.
pub const TRIES_MAX: u32 = 3;

/// Whether to ask again after so many tries. A wrong row is no matter of time: it is not asked again.
pub const fn asks_again(tries: u32, is_claimed: bool, is_wrong: bool) -> bool {
    !is_claimed && !is_wrong && tries < TRIES_MAX
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_the_claimed_class_is_asked_thrice() {
        assert!(asks_again(1, false, false) && asks_again(2, false, false));
        assert!(!asks_again(3, false, false) && !asks_again(1, true, false));
        assert!(!asks_again(1, false, true));
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
