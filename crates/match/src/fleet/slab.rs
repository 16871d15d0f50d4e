//! Things by number; numbers are used again.

/// The number of nothing.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds a thing. The caller bounds how many there are, below [`NONE`].
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(number) = self.vacant.pop() {
            self.items[number as usize] = Some(item);
            return number;
        }
        self.items.push(Some(item));
        u32::try_from(self.items.len() - 1).unwrap_or(NONE)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let item = self.items.get_mut(number as usize)?.take();
        if item.is_some() {
            self.vacant.push(number);
        }
        item
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.items.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.items.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.vacant.len()
    }

    /// One more than the highest number that was ever used.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(NONE)
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.items.reserve(more.saturating_sub(self.vacant.len()));
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<Option<T>>() + self.vacant.capacity() * size_of::<u32>()
    }
}
