//! What waits to be written: the last change of each key, in the order in which keys came.
//!
//! Putting never waits. A later change takes the place of an earlier one of its key, so what waits
//! is bounded by what there is, not by how often it changes. Beyond [`QUEUE_MAX`] keys or
//! [`QUEUE_BYTES_MAX`] bytes the oldest is dropped and counted: hosts announce themselves again, so
//! a dropped row mends itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::row::{Change, Key};

/// The most changes that wait.
pub const QUEUE_MAX: usize = 1 << 20;
/// The most memory that they take, about.
pub const QUEUE_BYTES_MAX: usize = 512 << 20;

/// How a queue has fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that wait.
    pub waiting: usize,
    /// Changes that were written.
    pub written: u64,
    /// Changes that a later one of their key replaced before they were written.
    pub replaced: u64,
    /// Changes that were dropped: too much waited, or the database would never take them.
    pub dropped: u64,
}

/// Changes on their way to a directory.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    came: Notify,
    /// All changes up to this number are written or dropped.
    done: watch::Sender<u64>,
    limits: (usize, usize),
}

#[derive(Debug, Default)]
struct State {
    by_number: BTreeMap<u64, Change>,
    by_key: HashMap<Key, u64>,
    bytes: usize,
    /// The number of the last change.
    last: u64,
    /// The number of the first change that is being written.
    writing: Option<u64>,
    counts: Counts,
}

impl Default for Queue {
    fn default() -> Self {
        Self::bounded(QUEUE_MAX, QUEUE_BYTES_MAX)
    }
}

impl Queue {
    /// With bounds of its own.
    pub fn bounded(changes_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            came: Notify::new(),
            done: watch::Sender::new(0),
            limits: (changes_max, bytes_max),
        }
    }

    /// Puts a change at the end, or in the place of an earlier one of its key. Never waits.
    pub fn put(&self, change: Change) {
        let key = change.key();
        let mut guard = self.state();
        let state = &mut *guard;
        state.last += 1;
        state.bytes += change.bytes();
        if let Some(before) = state.by_key.get(&key).and_then(|at| state.by_number.get_mut(at)) {
            state.bytes -= before.bytes();
            *before = change;
            state.counts.replaced += 1;
        } else {
            state.by_key.insert(key, state.last);
            state.by_number.insert(state.last, change);
        }
        let (changes_max, bytes_max) = self.limits;
        while state.by_number.len() > changes_max || state.bytes > bytes_max {
            if state.pop().is_none() {
                break;
            }
            state.counts.dropped += 1;
        }
        drop(guard);
        self.came.notify_one();
    }

    /// Waits until there is something to write.
    pub async fn ready(&self) {
        loop {
            let came = self.came.notified();
            if !self.state().by_number.is_empty() {
                return;
            }
            came.await;
        }
    }

    /// Takes up to `count` changes, each of another key, oldest first. Say [`Self::written`] or
    /// [`Self::given_up`] before taking more.
    pub fn take(&self, count: usize) -> Vec<Change> {
        let mut state = self.state();
        state.writing = state.by_number.keys().next().copied();
        let mut taken = Vec::with_capacity(count.min(state.by_number.len()));
        while taken.len() < count {
            let Some(change) = state.pop() else { break };
            taken.push(change);
        }
        taken
    }

    /// So many changes of those taken are written, and none is left.
    pub fn written(&self, count: usize) {
        let mut state = self.state();
        state.counts.written += count as u64;
        self.finish(state);
    }

    /// So many changes of those taken will never be written.
    pub fn given_up(&self, count: usize) {
        let mut state = self.state();
        state.counts.dropped += count as u64;
        self.finish(state);
    }

    /// Drops all that waits.
    pub fn clear(&self) {
        let mut state = self.state();
        state.counts.dropped += state.by_number.len() as u64;
        state.by_number.clear();
        state.by_key.clear();
        state.bytes = 0;
        // Whoever was writing may have been stopped in the middle.
        state.writing = None;
        let done = state.done();
        drop(state);
        self.done.send_replace(done);
    }

    /// Waits until all that was put before is written or dropped.
    pub async fn flushed(&self) {
        let last = self.state().last;
        let mut done = self.done.subscribe();
        // The sender lives as long as `self`.
        let _ = done.wait_for(|done| *done >= last).await;
    }

    /// How it has fared.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts { waiting: state.by_number.len(), ..state.counts }
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) {
        state.writing = None;
        let done = state.done();
        drop(state);
        self.done.send_replace(done);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Option<Change> {
        let (_, change) = self.by_number.pop_first()?;
        self.by_key.remove(&change.key());
        self.bytes -= change.bytes();
        Some(change)
    }

    /// The last number of which all before it are done too.
    fn done(&self) -> u64 {
        let waiting = self.by_number.keys().next().copied();
        let first = self.writing.or(waiting);
        first.map_or(self.last, |first| first - 1)
    }
}

#[cfg(test)]
mod tests;
