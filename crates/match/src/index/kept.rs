//! What is kept of containers, by their numbers: a table that is asked at every heartbeat.
//!
//! Places follow from numbers, and one that is taken gives way to the next. At most half of the
//! places are taken, and removing closes the gap, so looking up stays short. Numbers are given by
//! the index, so nobody outside can choose those that collide.

/// A container of which something is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// What the host said is free.
    pub(super) reported: u16,
    pub(super) slots: u16,
    pub(super) holds: u16,
    /// Rises with each one, for the numbers of containers are used again.
    pub(super) stamp: u32,
}

impl Kept {
    pub(super) const fn left(&self) -> u16 {
        self.reported.saturating_sub(self.slots)
    }
}

/// No container has this number.
const NONE: u32 = u32::MAX;
/// The fewest places of a table that has any.
const PLACES_MIN: usize = 16;

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptTable {
    /// As many as a power of two, or none.
    places: Vec<(u32, Kept)>,
    taken: usize,
}

impl KeptTable {
    pub(super) fn get(&self, row: u32) -> Option<&Kept> {
        let place = self.find(row)?;
        self.places.get(place).map(|(_, kept)| kept)
    }

    pub(super) fn get_mut(&mut self, row: u32) -> Option<&mut Kept> {
        let place = self.find(row)?;
        self.places.get_mut(place).map(|(_, kept)| kept)
    }

    /// Sets what is kept of a container.
    pub(super) fn set(&mut self, row: u32, kept: Kept) {
        if self.places.len() <= 2 * self.taken {
            let more = (4 * self.taken).next_power_of_two().max(PLACES_MIN);
            let old = std::mem::replace(&mut self.places, vec![(NONE, Kept::default()); more]);
            self.taken = 0;
            old.into_iter()
                .filter(|(row, _)| *row != NONE)
                .for_each(|(row, kept)| self.set(row, kept));
        }
        let mut place = self.home(row);
        while self.places[place].0 != NONE && self.places[place].0 != row {
            place = self.next(place);
        }
        self.taken += usize::from(self.places[place].0 == NONE);
        self.places[place] = (row, kept);
    }

    pub(super) fn remove(&mut self, row: u32) {
        let Some(mut gap) = self.find(row) else { return };
        self.taken -= 1;
        let mut place = self.next(gap);
        while self.places[place].0 != NONE {
            // It may stand in the gap, if that is not before its home.
            let home = self.home(self.places[place].0);
            let last = self.places.len() - 1;
            if place.wrapping_sub(home) & last >= place.wrapping_sub(gap) & last {
                self.places[gap] = self.places[place];
                gap = place;
            }
            place = self.next(place);
        }
        self.places[gap].0 = NONE;
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<(u32, Kept)>()
    }

    fn find(&self, row: u32) -> Option<usize> {
        if self.taken == 0 {
            return None;
        }
        let mut place = self.home(row);
        while self.places[place].0 != row {
            if self.places[place].0 == NONE {
                return None;
            }
            place = self.next(place);
        }
        Some(place)
    }

    /// Where a container stands, if nobody is in its way.
    fn home(&self, row: u32) -> usize {
        let mixed = row.wrapping_mul(0x9e37_79b1);
        (mixed ^ (mixed >> 15)) as usize & (self.places.len() - 1)
    }

    const fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::spread::Stream;

    #[test]
    fn the_table_is_a_map() {
        let (mut table, mut map, mut stream) =
            (KeptTable::default(), BTreeMap::new(), Stream::new(3));
        for round in 0..60_000_u32 {
            // It grows to a few hundred and shrinks again, several times.
            let row = u32::try_from(stream.below(700)).unwrap();
            if stream.below(10) < if round / 6_000 % 2 == 0 { 7 } else { 2 } {
                table.set(row, Kept { stamp: round, ..Kept::default() });
                map.insert(row, round);
            } else {
                table.remove(row);
                map.remove(&row);
            }
            let asked = u32::try_from(stream.below(700)).unwrap();
            let stamp = table.get(asked).map(|kept| kept.stamp);
            assert_eq!(stamp, map.get(&asked).copied(), "round {round}");
            assert_eq!(table.taken, map.len());
        }
        assert!(table.bytes() <= 4_096 * 16);
    }
}
