//! How often the beats of a session have told another set of leases. Pure.
//!
//! What is told is counted, not what happens: of changes that one beat tells together no other end
//! can know. An indexer that hears a count after one that does not precede it has missed a beat, and
//! asks for an announcement.

/// What a session's beats have told of leases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    count: u32,
    digest: u64,
}

impl Told {
    /// The count for a beat with this digest.
    pub(super) const fn tell(&mut self, digest: u64) -> u32 {
        if digest != self.digest {
            *self = Self { count: self.count.wrapping_add(1), digest };
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_other_set_counts_one_and_a_repeated_one_nothing() {
        let mut told = Told::default();
        let counts = [0, 0, 7, 7, 7, 9, 7, 0, 0].map(|digest| told.tell(digest));
        assert_eq!(counts, [0, 0, 1, 1, 1, 2, 3, 4, 4]);
    }
}
