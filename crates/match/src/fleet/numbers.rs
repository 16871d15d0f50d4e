//! Small numbers for names, used again when nobody has the name.

use welkin_types::{AccountId, AppId, Region};

use super::hosts::Kind;
use super::table::Table;

/// What has a number.
pub(crate) trait Name: Clone + Eq {
    /// Its print in a table.
    fn print(&self, table: &Table) -> u32;
}

impl Name for AccountId {
    fn print(&self, table: &Table) -> u32 {
        table.print(&[self.as_bytes()])
    }
}

impl Name for AppId {
    fn print(&self, table: &Table) -> u32 {
        table.print(&[self.as_bytes()])
    }
}

impl Name for Region {
    fn print(&self, table: &Table) -> u32 {
        table.print(&[self.as_str().as_bytes()])
    }
}

impl Name for Kind {
    fn print(&self, table: &Table) -> u32 {
        self.0.iter().fold(0, |print: u32, gpu| {
            let (model, form) = (gpu.model.as_bytes(), gpu.form.as_bytes());
            let lengths = [model.len() as u64, gpu.vram_bytes].map(u64::to_le_bytes);
            table.print(&[&print.to_le_bytes(), lengths.as_flattened(), model, form])
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Numbers<K> {
    /// The name and how often it is in use.
    names: Vec<Option<(K, u32)>>,
    known: Table,
    vacant: Vec<u32>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<K> Numbers<K> {
    /// No names yet; the seed is a secret, for strangers choose names.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { names: Vec::new(), known: Table::new(seed), vacant: Vec::new() }
    }
}

impl<K: Name> Numbers<K> {
    pub(crate) fn get(&self, name: &K) -> Option<u32> {
        self.find(name, name.print(&self.known))
    }

    fn find(&self, name: &K, print: u32) -> Option<u32> {
        self.known.find(print, |number| self.name(number).is_some_and(|known| known == name))
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
        let print = name.print(&self.known);
        if let Some(number) = self.find(name, print) {
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
        self.known.insert(print, number);
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
            self.known.remove(name.print(&self.known), number);
            *entry = None;
            self.vacant.push(number);
        }
    }
}
