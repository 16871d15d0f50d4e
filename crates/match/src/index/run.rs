//! A sorted list of free containers in chunks, so that a change moves little however long it is.

use super::row::Entry;

/// The most entries of a chunk.
const CHUNK_MAX: usize = 256;
/// The entries of a chunk of a list that is made at once: some more find room.
const CHUNK_FILLED: usize = 192;
/// A chunk this short joins the next one, if both fit into [`CHUNK_JOINED_MAX`].
const CHUNK_SHORT: usize = 48;
const CHUNK_JOINED_MAX: usize = 192;

/// How many entries a search for a price steps over.
const STEP: usize = 16;

/// Entries in the order of their keys.
///
/// The first chunk stands by itself, for most searches read no other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    head: Vec<Entry>,
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug, Default)]
struct Rest {
    chunks: Vec<Vec<Entry>>,
    /// The first key of each chunk, side by side: a search among them waits for memory once or
    /// twice, not for each chunk that it looks at.
    firsts: Vec<u128>,
}

impl Rest {
    fn of(chunks: Vec<Vec<Entry>>) -> Self {
        let firsts = chunks.iter().map(|chunk| first_key(chunk)).collect();
        Self { chunks, firsts }
    }

    /// The chunk's first entry may be another.
    fn renew(&mut self, place: usize) {
        if let (Some(first), Some(chunk)) = (self.firsts.get_mut(place), self.chunks.get(place)) {
            *first = first_key(chunk);
        }
    }

    fn insert(&mut self, place: usize, chunk: Vec<Entry>) {
        self.firsts.insert(place, first_key(&chunk));
        self.chunks.insert(place, chunk);
    }

    fn remove(&mut self, place: usize) -> Vec<Entry> {
        self.firsts.remove(place);
        self.chunks.remove(place)
    }
}

fn first_key(chunk: &[Entry]) -> u128 {
    chunk.first().map_or(u128::MAX, Entry::key)
}

/// The first place whose key is at least `key`. Steps of one length don't wait for each other as
/// those of a binary search do, and what they read is rarely in the cache.
fn place_of(entries: &[Entry], key: u128) -> usize {
    let is_below = |at: usize| entries.get(at).is_some_and(|entry| entry.key() < key);
    let mut at = 0;
    while is_below(at + STEP) {
        at += STEP;
    }
    while is_below(at) {
        at += 1;
    }
    at
}

/// A place in a run: a chunk and an entry in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) chunk: usize,
    pub(crate) at: usize,
}

impl Cursor {
    pub(crate) const START: Self = Self { chunk: 0, at: 0 };
}

impl Run {
    /// A run of entries that are in order.
    pub(crate) fn from_sorted(entries: &[Entry]) -> Self {
        if entries.len() <= CHUNK_MAX {
            return Self { head: entries.to_vec(), rest: None };
        }
        let mut chunks = entries.chunks(CHUNK_FILLED).map(<[Entry]>::to_vec);
        let head = chunks.next().unwrap_or_default();
        Self { head, rest: Some(Box::new(Rest::of(chunks.collect()))) }
    }

    pub(crate) fn first(&self) -> Option<&Entry> {
        self.head.first()
    }

    pub(crate) fn len(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.chunks.iter().map(Vec::len).sum());
        self.head.len() + rest
    }

    /// A chunk; none is empty, but for the first of an empty run.
    pub(crate) fn chunk(&self, chunk: usize) -> Option<&[Entry]> {
        match chunk {
            0 => Some(&self.head),
            _ => self.rest.as_ref()?.chunks.get(chunk - 1).map(Vec::as_slice),
        }
    }

    pub(crate) fn get(&self, cursor: Cursor) -> Option<&Entry> {
        self.chunk(cursor.chunk)?.get(cursor.at)
    }

    /// The next place, which may be behind the last.
    pub(crate) fn next(&self, cursor: Cursor) -> Cursor {
        let length = self.chunk(cursor.chunk).map_or(0, <[Entry]>::len);
        if cursor.at + 1 < length {
            Cursor { at: cursor.at + 1, ..cursor }
        } else {
            Cursor { chunk: cursor.chunk + 1, at: 0 }
        }
    }

    /// The first place whose key is at least `key`; behind the last, if there is none.
    pub(crate) fn seek(&self, key: u128) -> Cursor {
        let chunk = self.chunk_of(key);
        let entries = self.chunk(chunk).unwrap_or_default();
        let at = place_of(entries, key);
        if at < entries.len() { Cursor { chunk, at } } else { Cursor { chunk: chunk + 1, at: 0 } }
    }

    /// The first place with at least this price.
    pub(crate) fn seek_price(&self, price: u32) -> Cursor {
        if self.rest.is_some() {
            return self.seek(u128::from(price) << 96);
        }
        // Steps of one length don't wait for each other as those of a binary search do.
        let is_below = |at: usize| self.head.get(at).is_some_and(|entry| entry.price < price);
        let mut at = 0;
        while is_below(at + STEP) {
            at += STEP;
        }
        while is_below(at) {
            at += 1;
        }
        Cursor { chunk: 0, at }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        let key = entry.key();
        let chunk = self.chunk_of(key);
        let Some(entries) = self.chunk_mut(chunk) else { return };
        let at = place_of(entries, key);
        if entries.len() == entries.capacity() {
            // Lists grow by an eighth, not by half: there are many of them.
            entries.reserve_exact(entries.len() / 8 + 1);
        }
        entries.insert(at, entry);
        if entries.len() > CHUNK_MAX {
            let mut upper = entries.split_off(CHUNK_MAX / 2);
            upper.shrink_to_fit();
            entries.shrink_to(CHUNK_MAX / 2 + CHUNK_MAX / 8);
            self.rest.get_or_insert_default().insert(chunk, upper);
        }
        if at == 0 {
            self.renew(chunk);
        }
    }

    /// Takes the entry with this key out and says where it was.
    pub(crate) fn remove(&mut self, key: u128) -> Option<Cursor> {
        let chunk = self.chunk_of(key);
        let entries = self.chunk_mut(chunk)?;
        let at = place_of(entries, key);
        if entries.get(at).is_none_or(|entry| entry.key() != key) {
            return None;
        }
        entries.remove(at);
        if entries.len() * 2 + 8 < entries.capacity() {
            entries.shrink_to(entries.len() + entries.len() / 8 + 1);
        }
        let length = entries.len();
        if at == 0 {
            self.renew(chunk);
        }
        if length < CHUNK_SHORT {
            self.join(chunk);
        }
        Some(Cursor { chunk, at })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let rest = self.rest.as_ref().map(|rest| rest.chunks.as_slice()).unwrap_or_default();
        self.head.iter().chain(rest.iter().flatten())
    }

    /// What it takes beyond itself.
    pub(crate) fn bytes(&self) -> usize {
        let Some(rest) = &self.rest else { return self.head.capacity() * size_of::<Entry>() };
        let entries: usize = rest.chunks.iter().map(Vec::capacity).sum();
        (self.head.capacity() + entries) * size_of::<Entry>()
            + rest.chunks.capacity() * size_of::<Vec<Entry>>()
            + rest.firsts.capacity() * size_of::<u128>()
            + size_of::<Rest>()
    }

    /// Appends the next chunk to this one, if both are short; an empty one goes.
    fn join(&mut self, chunk: usize) {
        let length = self.chunk(chunk).map_or(0, <[Entry]>::len);
        let Some(rest) = self.rest.as_deref_mut() else { return };
        let next = rest.chunks.get(chunk).map(Vec::len);
        if next.is_some_and(|next| length == 0 || length + next <= CHUNK_JOINED_MAX) {
            let mut moved = rest.remove(chunk);
            let entries = match chunk.checked_sub(1) {
                None => &mut self.head,
                Some(place) => &mut rest.chunks[place],
            };
            entries.append(&mut moved);
            if let Some(place) = chunk.checked_sub(1) {
                rest.renew(place);
            }
        } else if length == 0 && chunk > 0 {
            rest.remove(chunk - 1);
        }
        if rest.chunks.is_empty() {
            self.rest = None;
        }
    }

    fn chunk_of(&self, key: u128) -> usize {
        let Some(rest) = &self.rest else { return 0 };
        rest.firsts.partition_point(|first| *first <= key)
    }

    fn chunk_mut(&mut self, chunk: usize) -> Option<&mut Vec<Entry>> {
        match chunk {
            0 => Some(&mut self.head),
            _ => self.rest.as_mut()?.chunks.get_mut(chunk - 1),
        }
    }

    /// A chunk's first entry may be another.
    fn renew(&mut self, chunk: usize) {
        if let (Some(rest), Some(place)) = (&mut self.rest, chunk.checked_sub(1)) {
            rest.renew(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Features, Sizes};
    use super::*;
    use crate::spread::Stream;

    fn entry(price: u32, row: u32) -> Entry {
        Entry {
            price,
            ring: row.wrapping_mul(0x9e37_79b1),
            row,
            features: Features::default(),
            quality: 9_000,
            free: 1,
            sizes: Sizes(0),
            class: 0,
            apps: 0,
        }
    }

    #[test]
    fn a_long_run_stays_sorted_through_growth_and_decay() {
        let (mut run, mut model, mut stream) = (Run::default(), Vec::new(), Stream::new(1));
        for round in 0..20_000_u32 {
            // It grows to thousands, then shrinks to nothing.
            let grows = stream.below(10) < if round < 10_000 { 8 } else { 1 };
            if grows || model.is_empty() {
                let price = u32::try_from(stream.below(50)).unwrap();
                run.insert(entry(price, round));
                model.push(entry(price, round).key());
            } else {
                let key = model.swap_remove(stream.below(model.len()));
                assert!(run.remove(key).is_some());
                assert!(run.remove(key).is_none());
            }
            if round % 251 == 0 {
                let mut sorted = model.clone();
                sorted.sort_unstable();
                assert!(run.iter().map(Entry::key).eq(sorted.iter().copied()));
                let mut at = run.seek(0);
                for key in &sorted {
                    assert_eq!(run.seek(*key), at);
                    at = run.next(at);
                }
                assert!(run.get(at).is_none());
            }
        }
        assert!(run.bytes() <= (model.len() + 64) * 40, "{} of {}", run.bytes(), model.len());
    }
}
