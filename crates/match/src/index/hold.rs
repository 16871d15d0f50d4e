//! Slots that are kept for a while: they are not free for others until the hold ends.

use std::collections::{BTreeMap, BTreeSet};

use super::Index;
use super::row::{RowId, SLOTS_MAX};

/// The most holds at once.
pub const INDEX_HOLDS_MAX: usize = 1 << 20;

/// A hold's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldId(u64);

/// Why nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// No such container.
    #[error("no such container")]
    Unknown,
    /// Too few slots are free.
    #[error("{free} slots are free, not {wanted}: take the next candidate")]
    NotFree {
        /// How many are.
        free: u16,
        /// How many were wanted.
        wanted: u16,
    },
    /// It would end at once, or nothing would be kept.
    #[error("a hold keeps from 1 to {SLOTS_MAX} slots until a time that is yet to come")]
    Nothing,
    /// There are as many as there may be.
    #[error("this index keeps {INDEX_HOLDS_MAX} holds and no more")]
    Full,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    row: RowId,
    slots: u16,
    expires: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    holds: BTreeMap<HoldId, Hold>,
    by_end: BTreeSet<(u64, HoldId)>,
    /// What the host said is free, for containers with holds, and their holds.
    by_row: BTreeMap<RowId, (u16, Vec<HoldId>)>,
    last: u64,
}

impl Holds {
    /// Takes what a host says is free; returns what is left besides its holds, if it has any.
    pub(super) fn reported(&mut self, row: RowId, free: u16) -> Option<u16> {
        if self.by_row.is_empty() {
            return None;
        }
        let known = self.by_row.get_mut(&row)?;
        known.0 = free;
        self.left(row)
    }

    /// Forgets what was kept of a container.
    pub(super) fn forget(&mut self, row: RowId) {
        let Some((_, ids)) = self.by_row.remove(&row) else { return };
        for id in ids {
            if let Some(hold) = self.holds.remove(&id) {
                self.by_end.remove(&(hold.expires, id));
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        // A tree's nodes are half full at worst.
        let each = size_of::<(HoldId, Hold)>() + size_of::<(u64, HoldId)>();
        2 * (self.holds.len() * each + self.by_row.len() * 64)
    }

    fn left(&self, row: RowId) -> Option<u16> {
        let (free, ids) = self.by_row.get(&row)?;
        let kept = ids.iter().filter_map(|id| self.holds.get(id)).map(|hold| hold.slots);
        Some(kept.fold(*free, u16::saturating_sub))
    }

    fn end(&mut self, id: HoldId) -> Option<Hold> {
        let hold = self.holds.remove(&id)?;
        self.by_end.remove(&(hold.expires, id));
        if let Some((_, ids)) = self.by_row.get_mut(&hold.row) {
            ids.retain(|other| *other != id);
        }
        Some(hold)
    }
}

impl Index {
    /// Keeps slots of a container until `expires`, in the caller's unit of time.
    ///
    /// # Errors
    ///
    /// [`HoldError`] saying why not: another request was faster, for example.
    pub fn hold(
        &mut self,
        now: u64,
        row: RowId,
        slots: u16,
        expires: u64,
    ) -> Result<HoldId, HoldError> {
        if !self.is_known(row) {
            return Err(HoldError::Unknown);
        }
        let free = self.free(row);
        if slots == 0 || slots > SLOTS_MAX || expires <= now {
            return Err(HoldError::Nothing);
        }
        if free < slots {
            return Err(HoldError::NotFree { free, wanted: slots });
        }
        let holds = &mut self.holds;
        if holds.holds.len() >= INDEX_HOLDS_MAX {
            return Err(HoldError::Full);
        }
        holds.last += 1;
        let id = HoldId(holds.last);
        holds.holds.insert(id, Hold { row, slots, expires });
        holds.by_end.insert((expires, id));
        holds.by_row.entry(row).or_insert((free, Vec::new())).1.push(id);
        self.set_free(row.0, free - slots);
        Ok(id)
    }

    /// Ends a hold before its time, for its slots were not wanted; nothing if it has ended.
    pub fn release(&mut self, id: HoldId) {
        self.end_hold(id, |free, _| free);
    }

    /// Ends a hold whose slots the host gave to a lease; false, if the hold had ended before.
    pub fn confirm(&mut self, id: HoldId) -> bool {
        self.end_hold(id, u16::saturating_sub)
    }

    /// Ends a hold that the host refused, and takes what it says is free instead.
    pub fn refused(&mut self, id: HoldId, free: u16) {
        self.end_hold(id, |_, _| free.min(SLOTS_MAX));
    }

    /// Ends the holds whose time has come.
    pub fn expire_holds(&mut self, now: u64) {
        while let Some((expires, id)) = self.holds.by_end.first().copied()
            && expires <= now
        {
            self.release(id);
        }
    }

    /// How many holds there are.
    pub fn holds(&self) -> usize {
        self.holds.holds.len()
    }

    fn end_hold(&mut self, id: HoldId, reported: impl FnOnce(u16, u16) -> u16) -> bool {
        let Some(hold) = self.holds.end(id) else { return false };
        if let Some((free, _)) = self.holds.by_row.get_mut(&hold.row) {
            *free = reported(*free, hold.slots);
        }
        let left = self.holds.left(hold.row);
        if self.holds.by_row.get(&hold.row).is_some_and(|(_, ids)| ids.is_empty()) {
            self.holds.by_row.remove(&hold.row);
        }
        if let Some(left) = left {
            self.set_free(hold.row.0, left);
        }
        true
    }
}
