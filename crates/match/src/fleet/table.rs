//! Numbers by hashed names: a table of 8 bytes a place, for a million names.
//!
//! Names are of hosts that may have chosen them, so the hash is keyed: who does not know the seed
//! can't make many fall into one place. The order of the places never shows in an answer.

/// The number of no entry.
const NONE: u32 = u32::MAX;
/// The smallest table.
const PLACES_MIN: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Place {
    /// A part of the hash; its lowest bits are where the entry would best stand.
    print: u32,
    number: u32,
}

const EMPTY: Place = Place { print: 0, number: NONE };

/// A table that is searched along a line from where the hash says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    places: Vec<Place>,
    len: usize,
    seed: u64,
}

impl Table {
    pub(super) const fn new(seed: u64) -> Self {
        Self { places: Vec::new(), len: 0, seed }
    }

    /// The print of a name that consists of these parts.
    pub(crate) fn print(&self, parts: &[&[u8]]) -> u32 {
        let mut state = self.seed;
        for part in parts {
            for chunk in part.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                state = mix(state ^ u64::from_le_bytes(word));
            }
        }
        (mix(state) >> 32) as u32
    }

    /// The number under a print for which `is_it` holds.
    pub(super) fn find(&self, print: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = print as usize & mask;
        loop {
            let place = self.places[at];
            if place.number == NONE {
                return None;
            }
            if place.print == print && is_it(place.number) {
                return Some(place.number);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a number that is not in the table.
    pub(super) fn insert(&mut self, print: u32, number: u32) {
        self.reserve(1);
        self.put(Place { print, number });
        self.len += 1;
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, print: u32, number: u32) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut hole = print as usize & mask;
        while self.places[hole].number != number {
            if self.places[hole].number == NONE {
                return;
            }
            hole = (hole + 1) & mask;
        }
        // Those behind move up, so that no search ends too early.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.number == NONE {
                break;
            }
            let home = place.print as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = EMPTY;
        self.len -= 1;
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more) * 4 / 3 + 1;
        if wanted <= self.places.len() {
            return;
        }
        let length = wanted.next_power_of_two().max(PLACES_MIN);
        let before = std::mem::replace(&mut self.places, vec![EMPTY; length]);
        before.into_iter().filter(|place| place.number != NONE).for_each(|place| self.put(place));
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
    }

    fn put(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut at = place.print as usize & mask;
        while self.places[at].number != NONE {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }
}

/// Multiplies and folds: each bit of the input moves half of the output's.
fn mix(word: u64) -> u64 {
    let wide = u128::from(word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    let folded = (wide ^ (wide >> 64)) & u128::from(u64::MAX);
    u64::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Prints of few values, so that lines are long and run around the end.
        #[test]
        fn a_table_keeps_what_a_map_keeps(
            steps in prop::collection::vec((0..40_u32, any::<bool>()), 1..400), seed: u64,
        ) {
            let (mut table, mut map) = (Table::new(seed), BTreeMap::new());
            let print_of = |number: u32| ((number % 7) * 5).wrapping_add(0xffff_fff0);
            for (number, is_added) in steps {
                let known = table.find(print_of(number), |other| other == number);
                prop_assert_eq!(known, map.get(&number).copied());
                if is_added && known.is_none() {
                    table.insert(print_of(number), number);
                    map.insert(number, number);
                } else if !is_added {
                    table.remove(print_of(number), number);
                    map.remove(&number);
                }
            }
            for number in 0..40 {
                let known = table.find(print_of(number), |other| other == number);
                prop_assert_eq!(known, map.get(&number).copied());
            }
        }
    }

    #[test]
    fn prints_depend_on_the_seed_and_on_every_byte() {
        let (one, two) = (Table::new(1), Table::new(2));
        let name = [7_u8; 48];
        assert_ne!(one.print(&[&name]), two.print(&[&name]));
        for place in 0..48 {
            let mut other = name;
            other[place] ^= 1;
            assert_ne!(one.print(&[&name]), one.print(&[&other]), "{place}");
        }
    }
}
