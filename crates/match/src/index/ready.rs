//! Free containers on which an application is ready, by location.

use super::row::Entry;
use super::run::Run;

/// The lists of one application: only of locations where there is something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    /// The locations that have a list, in whose order the lists stand.
    locations: u128,
    leasts: Vec<i32>,
    runs: Vec<Run>,
}

impl Ready {
    /// Each location with the price of its cheapest.
    pub(crate) fn leasts(&self) -> impl Iterator<Item = (usize, i32)> {
        let mut locations = self.locations;
        self.leasts.iter().map(move |least| {
            let location = locations.trailing_zeros() as usize;
            locations &= locations.wrapping_sub(1);
            (location, *least)
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
        } else {
            self.runs.remove(place);
            self.leasts.remove(place);
            self.locations &= !(1 << location);
        }
    }

    fn insert(&mut self, location: usize, entry: Entry) {
        let place = self.place(location);
        if self.locations >> location & 1 == 0 {
            self.runs.reserve_exact(usize::from(self.runs.len() == self.runs.capacity()));
            self.runs.insert(place, Run::default());
            self.leasts.insert(place, entry.price.cast_signed());
            self.locations |= 1 << location;
        }
        self.runs[place].insert(entry);
        self.leasts[place] = self.leasts[place].min(entry.price.cast_signed());
    }
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
