//! Small numbers for names, used again when nobody has the name.

use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) struct Numbers<K> {
    /// The name and how often it is in use.
    names: Vec<Option<(K, u32)>>,
    known: BTreeMap<K, u32>,
    vacant: Vec<u32>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { names: Vec::new(), known: BTreeMap::new(), vacant: Vec::new() }
    }
}

impl<K: Ord + Clone> Numbers<K> {
    pub(crate) fn get(&self, name: &K) -> Option<u32> {
        self.known.get(name).copied()
    }

    pub(crate) fn name(&self, number: u32) -> Option<&K> {
        self.names.get(number as usize)?.as_ref().map(|(name, _)| name)
    }

    /// The names in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &K)> {
        let names = (0..).zip(&self.names);
        names.filter_map(|(number, entry)| entry.as_ref().map(|(name, _)| (number, name)))
    }

    /// One use more: the name's number, a new one if need be.
    pub(crate) fn take(&mut self, name: &K) -> u32 {
        if let Some(number) = self.get(name) {
            self.take_again(number, 1);
            return number;
        }
        let entry = Some((name.clone(), 1));
        let number = match self.vacant.pop() {
            Some(number) => {
                self.names[number as usize] = entry;
                number
            }
            None => {
                self.names.push(entry);
                u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.known.insert(name.clone(), number);
        number
    }

    /// So many uses more of a number that is in use.
    pub(crate) fn take_again(&mut self, number: u32, uses: u32) {
        if let Some(Some((_, known))) = self.names.get_mut(number as usize) {
            *known += uses;
        }
    }

    /// One use less.
    pub(crate) fn give_back(&mut self, number: u32) {
        let Some(entry) = self.names.get_mut(number as usize) else { return };
        let Some((name, uses)) = entry else { return };
        *uses -= 1;
        if *uses == 0 {
            self.known.remove(name);
            *entry = None;
            self.vacant.push(number);
        }
    }
}
