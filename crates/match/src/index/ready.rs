//! Free containers on which an application is ready, by location.

use super::row::Entry;
use super::run::Run;

/// The lists of one application: only of locations where there is something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    /// The locations that have a list, in whose order the lists stand.
    locations: u128,
    leasts: Vec<i32>,
    /// Which classes a list may have, modulo 64: all that it has, and perhaps some that it had.
    classes: Vec<u64>,
    runs: Vec<Run>,
}

impl Ready {
    /// Each location with the price of its cheapest, the classes that it may have.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (usize, i32, u64)> {
        let mut locations = self.locations;
        self.leasts.iter().zip(&self.classes).map(move |(least, classes)| {
            let location = locations.trailing_zeros() as usize;
            locations &= locations.wrapping_sub(1);
            (location, *least, *classes)
        })
    }

    pub(crate) fn run(&self, location: usize) -> Option<&Run> {
        if self.locations >> location & 1 == 0 {
            return None;
        }
        self.runs.get(self.place(location))
    }

    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.runs.iter().map(Run::bytes).sum();
        entries
            + self.runs.capacity() * size_of::<Run>()
            + self.leasts.capacity() * size_of::<i32>()
            + self.classes.capacity() * size_of::<u64>()
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(Run::iter)
    }

    fn place(&self, location: usize) -> usize {
        (self.locations & ((1 << location) - 1)).count_ones() as usize
    }

    fn remove(&mut self, location: usize, key: u128) {
        let place = self.place(location);
        if self.locations >> location & 1 == 0 {
            return;
        }
        let run = &mut self.runs[place];
        run.remove(key);
        if let Some(first) = run.first() {
            self.leasts[place] = first.price.cast_signed();
            if run.len() <= COUNTED_MAX {
                self.classes[place] = run.iter().fold(0, |all, entry| all | bit_of(entry.class));
            }
        } else {
            self.runs.remove(place);
            self.leasts.remove(place);
            self.classes.remove(place);
            self.locations &= !(1 << location);
        }
    }

    fn insert(&mut self, location: usize, entry: Entry) {
        let place = self.place(location);
        if self.locations >> location & 1 == 0 {
            self.runs.reserve_exact(usize::from(self.runs.len() == self.runs.capacity()));
            self.runs.insert(place, Run::default());
            self.leasts.insert(place, entry.price.cast_signed());
            self.classes.insert(place, 0);
            self.locations |= 1 << location;
        }
        self.runs[place].insert(entry);
        self.classes[place] |= bit_of(entry.class);
        self.leasts[place] = self.leasts[place].min(entry.price.cast_signed());
    }
}

/// The classes of longer lists are not counted again, for they have nearly all.
const COUNTED_MAX: usize = 16;

const fn bit_of(class: u8) -> u64 {
    1 << (class % 64)
}

/// Makes the lists of all applications at once.
pub(crate) fn build(mut entries: Vec<(u16, u8, Entry)>) -> Vec<Ready> {
    entries.sort_unstable_by_key(|(app, location, entry)| (*app, *location, entry.key()));
    let count = entries.last().map_or(0, |(app, ..)| usize::from(*app) + 1);
    let mut all = vec![Ready::default(); count];
    let mut list = Vec::new();
    for same in entries.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some((app, location, first)) = same.first() else { continue };
        list.clear();
        list.extend(same.iter().map(|(.., entry)| *entry));
        let ready = &mut all[usize::from(*app)];
        ready.locations |= 1 << location;
        ready.leasts.push(first.price.cast_signed());
        ready.classes.push(list.iter().fold(0, |all, entry| all | bit_of(entry.class)));
        ready.runs.reserve_exact(usize::from(ready.runs.len() == ready.runs.capacity()));
        ready.runs.push(Run::from_sorted(&list));
    }
    all
}

/// Replaces a container's entry; 0 free slots stand in no list.
pub(crate) fn update(
    ready: &mut Vec<Ready>,
    app: u16,
    location: u8,
    (free, old): (u16, Entry),
    new: Entry,
) {
    let (place, location) = (usize::from(app), usize::from(location));
    if ready.len() <= place {
        ready.resize(place + 1, Ready::default());
    }
    if free > 0 {
        ready[place].remove(location, old.key());
    }
    if new.free > 0 {
        ready[place].insert(location, new);
    }
}
