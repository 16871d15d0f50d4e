//! An index built at once: every list is sorted once instead of growing entry by entry.

use super::row::{Entry, LOCATIONS_MAX, NO_APP, ROWS_MAX, Record, Row, RowId};
use super::run::Run;
use super::{Index, RowError, TIERS, VACANT, check, distinct, print_with, ready, tier_of};

impl Index {
    /// Builds an index of these containers, numbered from 0 in their order. A million of them take
    /// a third of the time that as many calls of [`Index::insert`] take.
    ///
    /// ```
    /// use welkin_match::index::{Index, Search};
    /// use welkin_match::synth::Fleet;
    /// let index = Index::build(Fleet::new(7).take(1_000)).unwrap();
    /// assert_eq!(index.len(), 1_000);
    /// assert!(!index.find(&Search::ANY).unwrap().chosen.is_empty());
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowError`] of the first container that is out of bounds.
    pub fn build(rows: impl IntoIterator<Item = Row>) -> Result<Self, RowError> {
        let rows = rows.into_iter();
        let mut index = Self { epoch: 1, ..Self::default() };
        index.records.reserve_exact(rows.size_hint().0.min(ROWS_MAX));
        for row in rows {
            index.push(&row)?;
        }
        index.list_all();
        Ok(index)
    }

    /// Takes in a container that is found once everything is listed.
    pub(crate) fn push(&mut self, row: &Row) -> Result<RowId, RowError> {
        check(row)?;
        let id = u32::try_from(self.records.len()).ok().filter(|id| (*id as usize) < ROWS_MAX);
        let id = id.ok_or(RowError::Full)?;
        let app = match &row.apps[..] {
            [] => NO_APP,
            [app] => *app,
            several => {
                let apps = distinct(several);
                if apps.len() > 1 {
                    self.more_apps.insert(id, apps[1..].to_vec());
                }
                apps.first().copied().unwrap_or(NO_APP)
            }
        };
        self.records.push(Record { free: row.free, ..Record::new(row, app) });
        Ok(RowId(id))
    }

    /// Makes room for so many more containers.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.records.reserve_exact(more.min(ROWS_MAX));
    }

    /// Takes back what [`Self::push`] did, before anything is listed.
    pub(crate) fn take_back(&mut self, row: RowId) {
        if let Some(record) = self.records.get_mut(row.0 as usize) {
            (record.location, record.app, record.free) = (VACANT, NO_APP, 0);
            self.more_apps.remove(&row.0);
            self.vacant.push(row.0);
        }
    }

    /// Makes the lists and bounds of what is free, where there are none yet.
    pub(crate) fn list_all(&mut self) {
        self.make_room();
        let cell_of = |record: &Record| {
            let row = usize::from(record.class) * TIERS + tier_of(record.quality);
            row * LOCATIONS_MAX + usize::from(record.location)
        };
        let records = (0_u32..).zip(&self.records);
        let free = records.filter(|(_, record)| record.free > 0 && record.location != VACANT);
        // Where each list begins, and after the loop where it ends.
        let mut ends = vec![0_u32; self.cells.len() + 1];
        free.clone().for_each(|(_, record)| ends[cell_of(record) + 1] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut entries = vec![Entry::default(); sum as usize];
        let mut ready = Vec::new();
        for (row, record) in free {
            let more = match self.more_apps.is_empty() {
                true => None,
                false => self.more_apps.get(&row),
            };
            let entry = record.entry(row, print_with(record.app, more.is_some()));
            let place = &mut ends[cell_of(record)];
            entries[*place as usize] = entry;
            *place += 1;
            if record.app != NO_APP {
                let others = more.map(Vec::as_slice).unwrap_or_default();
                let apps = std::iter::once(&record.app).chain(others);
                ready.extend(apps.map(|app| (*app, record.location, entry)));
            }
        }
        let mut begin = 0;
        for (cell, end) in ends[..self.cells.len()].iter().enumerate() {
            let list = &mut entries[begin..*end as usize];
            begin = *end as usize;
            if list.is_empty() {
                continue;
            }
            list.sort_unstable_by_key(Entry::key);
            let place = (cell / LOCATIONS_MAX, cell % LOCATIONS_MAX);
            for entry in list.iter() {
                self.bounds.lower(place, entry.price, entry.free);
            }
            self.cells[cell] = Run::from_sorted(list);
        }
        self.ready = ready::build(ready);
    }

    /// Makes room for the classes and locations of all records.
    fn make_room(&mut self) {
        let here = self.records.iter().filter(|record| record.location != VACANT);
        let most = here.fold(None, |most: Option<(u8, u8)>, record| {
            let (class, location) = most.unwrap_or_default();
            Some((class.max(record.class), location.max(record.location)))
        });
        if let Some((class, location)) = most {
            self.grow(class, location);
        }
    }
}
