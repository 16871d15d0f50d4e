//! Free containers on which an application is ready, by location.

use super::row::Entry;
use super::run::Run;

/// The lists of one application: only of locations where there is something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    /// The locations that have a list, in whose order the lists stand.
    locations: u128,
    lists: Vec<List>,
}

/// A list with what a search must know before it opens it.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    /// Which classes it may have, modulo 64: all that it has, and perhaps some that it had.
    pub(crate) classes: u64,
    /// The price of its cheapest.
    pub(crate) least: u32,
    run: Run,
}

impl Ready {
    /// Each list with its location.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (usize, &List)> {
        let mut locations = self.locations;
        self.lists.iter().map(move |list| {
            let location = locations.trailing_zeros() as usize;
            locations &= locations.wrapping_sub(1);
            (location, list)
        })
    }

    /// What the cheapest costs where there is something first.
    pub(crate) fn first_least(&self) -> Option<u32> {
        self.lists.first().map(|list| list.least)
    }

    pub(crate) fn run(&self, location: usize) -> Option<&Run> {
        if self.locations >> location & 1 == 0 {
            return None;
        }
        self.lists.get(self.place(location)).map(|list| &list.run)
    }

    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.lists.iter().map(|list| list.run.bytes()).sum();
        entries + self.lists.capacity() * size_of::<List>()
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lists.iter().flat_map(|list| list.run.iter())
    }

    fn place(&self, location: usize) -> usize {
        (self.locations & ((1 << location) - 1)).count_ones() as usize
    }

    fn remove(&mut self, location: usize, key: u128) {
        let place = self.place(location);
        if self.locations >> location & 1 == 0 {
            return;
        }
        let list = &mut self.lists[place];
        list.run.remove(key);
        if let Some(first) = list.run.first() {
            list.least = first.price;
            if list.run.len() <= COUNTED_MAX {
                list.classes = list.run.iter().fold(0, |all, entry| all | bit_of(entry.class));
            }
        } else {
            self.lists.remove(place);
            self.locations &= !(1 << location);
        }
    }

    fn insert(&mut self, location: usize, entry: Entry) {
        let place = self.place(location);
        if self.locations >> location & 1 == 0 {
            self.lists.reserve_exact(usize::from(self.lists.len() == self.lists.capacity()));
            self.lists.insert(place, List { least: entry.price, ..List::default() });
            self.locations |= 1 << location;
        }
        let list = &mut self.lists[place];
        list.run.insert(entry);
        list.classes |= bit_of(entry.class);
        list.least = list.least.min(entry.price);
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
        ready.lists.reserve_exact(usize::from(ready.lists.len() == ready.lists.capacity()));
        ready.lists.push(List {
            classes: list.iter().fold(0, |all, entry| all | bit_of(entry.class)),
            least: first.price,
            run: Run::from_sorted(&list),
        });
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
