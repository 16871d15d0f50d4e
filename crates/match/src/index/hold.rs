//! Slots that are kept for a while: they are not free for others until the hold ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Index;
use super::kept::{Kept, KeptTable};
use super::row::{RowId, SLOTS_MAX};

/// The most holds at once.
pub const INDEX_HOLDS_MAX: usize = 1 << 20;

/// A hold's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldId {
    place: u32,
    /// Tells it from those that stood in the same place.
    number: u32,
}

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
    number: u32,
    row: RowId,
    slots: u16,
    /// Which [`Kept`] it belongs to.
    stamp: u32,
    is_ended: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    holds: Vec<Hold>,
    vacant: Vec<u32>,
    /// Ends, of holds that have ended before their time too.
    ends: BinaryHeap<Reverse<(u64, HoldId)>>,
    kept: KeptTable,
    last: u32,
}

impl Holds {
    /// Takes what a host says is free; returns what is left besides its holds, if it has any.
    pub(super) fn reported(&mut self, row: RowId, free: u16) -> Option<u16> {
        let kept = self.kept.get_mut(row.0)?;
        kept.reported = free;
        Some(kept.left())
    }

    /// What a host said is free, where something is kept of it.
    pub(super) fn reported_by(&self, row: u32) -> Option<u16> {
        self.kept.get(row).map(|kept| kept.reported)
    }

    /// Forgets what was kept of a container; its holds end without effect.
    pub(super) fn forget(&mut self, row: RowId) {
        self.kept.remove(row.0);
    }

    pub(super) fn bytes(&self) -> usize {
        self.holds.capacity() * size_of::<Hold>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.ends.capacity() * size_of::<(u64, HoldId)>()
            + self.kept.bytes()
    }

    fn len(&self) -> usize {
        self.holds.len() - self.vacant.len()
    }

    fn add(&mut self, hold: Hold, expires: u64) -> HoldId {
        let place = match self.vacant.pop() {
            Some(place) => {
                self.holds[place as usize] = hold;
                place
            }
            None => {
                self.holds.push(hold);
                u32::try_from(self.holds.len() - 1).unwrap_or(0)
            }
        };
        let id = HoldId { place, number: hold.number };
        if self.ends.len() > 2 * self.holds.len() + SPARE_ENDS {
            let (holds, ends) = (&self.holds, &mut self.ends);
            ends.retain(|Reverse((_, id))| is_present(holds, *id));
        }
        self.ends.push(Reverse((expires, id)));
        id
    }

    fn end(&mut self, id: HoldId) -> Option<Hold> {
        if !is_present(&self.holds, id) {
            return None;
        }
        let hold = self.holds.get_mut(id.place as usize)?;
        hold.is_ended = true;
        self.vacant.push(id.place);
        Some(*hold)
    }
}

/// So many ends of holds that have ended are kept at least.
const SPARE_ENDS: usize = 1_024;

fn is_present(holds: &[Hold], id: HoldId) -> bool {
    let hold = holds.get(id.place as usize);
    hold.is_some_and(|hold| hold.number == id.number && !hold.is_ended)
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
        if holds.len() >= INDEX_HOLDS_MAX {
            return Err(HoldError::Full);
        }
        holds.last = holds.last.wrapping_add(1);
        let number = holds.last;
        let new = Kept { reported: free, slots: 0, holds: 0, stamp: number };
        let kept = holds.kept.get(row.0).copied().unwrap_or(new);
        let kept = Kept { slots: kept.slots + slots, holds: kept.holds + 1, ..kept };
        holds.kept.set(row.0, kept);
        let stamp = kept.stamp;
        let id = holds.add(Hold { number, row, slots, stamp, is_ended: false }, expires);
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
        while let Some(Reverse((expires, id))) = self.holds.ends.peek().copied()
            && expires <= now
        {
            self.holds.ends.pop();
            self.release(id);
        }
    }

    /// How many holds there are.
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    fn end_hold(&mut self, id: HoldId, reported: impl FnOnce(u16, u16) -> u16) -> bool {
        let Some(hold) = self.holds.end(id) else { return false };
        let kept = self.holds.kept.get_mut(hold.row.0).filter(|kept| kept.stamp == hold.stamp);
        if let Some(kept) = kept {
            kept.reported = reported(kept.reported, hold.slots);
            (kept.slots, kept.holds) = (kept.slots - hold.slots, kept.holds - 1);
            let kept = *kept;
            if kept.holds == 0 {
                self.holds.kept.remove(hold.row.0);
            }
            self.set_free(hold.row.0, kept.left());
        }
        true
    }
}
