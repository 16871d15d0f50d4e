//! How many hosts are asked to announce themselves anew. Each answers with a handshake and a
//! signature to check, so what could ask all of them at once asks a few a second: who is not asked
//! now is asked at one of its next beats.

use welkin_types::UnixMillis;

/// The most hosts that are asked in one second.
const PER_SECOND_MAX: u32 = 500;
/// Of these, the most that are asked only for leases that were missed. Offers of theirs are right
/// all the same, so they leave room for hosts that are not known at all.
const FOR_LEASES_PER_SECOND_MAX: u32 = 50;

/// Why a host is to announce itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is not known as it stands, or its key is old.
    Unknown,
    /// It told of leases what was never heard.
    Leases,
}

/// Who was asked in the present second.
#[derive(Debug, Default)]
pub(super) struct Pokes {
    second: u64,
    all: u32,
    for_leases: u32,
}

impl Pokes {
    /// Whether one more may be asked; counts it if so.
    pub(super) fn take(&mut self, now: UnixMillis, reason: Reason) -> bool {
        let second = now.0 / 1_000;
        if self.second != second {
            *self = Self { second, ..Self::default() };
        }
        let is_for_leases = reason == Reason::Leases;
        if self.all >= PER_SECOND_MAX
            || (is_for_leases && self.for_leases >= FOR_LEASES_PER_SECOND_MAX)
        {
            return false;
        }
        self.all += 1;
        self.for_leases += u32::from(is_for_leases);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pokes: &mut Pokes, now: u64, reason: Reason, tries: u32) -> usize {
        (0..tries).filter(|_| pokes.take(UnixMillis(now), reason)).count()
    }

    #[test]
    fn a_flood_of_mismatches_leaves_room_for_those_who_are_not_known() {
        let mut pokes = Pokes::default();
        for second in 1..=3 {
            let now = second * 1_000;
            assert_eq!(taken(&mut pokes, now, Reason::Leases, 1_000_000), 50);
            assert_eq!(taken(&mut pokes, now + 999, Reason::Unknown, 1_000_000), 450);
            assert_eq!(taken(&mut pokes, now + 999, Reason::Leases, 10), 0);
        }
        assert_eq!(taken(&mut pokes, 9_000, Reason::Unknown, 1_000), 500);
        assert_eq!(taken(&mut pokes, 9_000, Reason::Leases, 1), 0, "within the bound of all");
    }
}
