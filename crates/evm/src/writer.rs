//! The one thread that makes blocks.
//!
//! It takes whatever stands in the line, executes it as one block, writes block and state in one
//! transaction of the file, shows the new head to readers, and only then tells those who wait. What
//! arrives while the disk is busy shares the next block: the slower the disk, the larger the group.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use alloy_primitives::B256;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::commitment::{Before, commit};
use crate::execute::{Building, Outcome, Rules};
use crate::pool::{Pool, Ready};
use crate::send::SendError;
use crate::state::{Changes, Undo};
use crate::store::{ReadError, Store};
use crate::view::View;

/// The most transactions of a block.
const BLOCK_TRANSACTIONS_MAX: usize = 2_000;
/// The most commands that wait.
const COMMANDS_MAX: usize = 64;
/// How often the pool is searched for transactions that waited too long.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// Something for the writer that is no transaction; for tests.
#[derive(Debug)]
pub(crate) enum Command {
    /// Makes a block of what stands in the line, even of nothing.
    Mine,
    /// Goes back to a block.
    Revert(u64),
}

pub(crate) type Answer = oneshot::Sender<Result<bool, SendError>>;

/// What waits for the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) pool: Pool,
    pub(crate) commands: VecDeque<(Command, Answer)>,
    pub(crate) is_closed: bool,
}

/// Time as tests bend it.
#[derive(Debug, Default)]
pub(crate) struct Bend {
    pub(crate) ahead: u64,
    pub(crate) next: Option<u64>,
}

/// What the writer and its callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) clock: Clock,
    pub(crate) is_testing: bool,
    pub(crate) store: Store,
    pub(crate) bend: Mutex<Bend>,
    view: RwLock<Arc<View>>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// Closes the queue when the writer ends, by a panic too.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.is_closed = true;
        queue.pool.clear(&SendError::Closed);
        queue.commands.clear();
    }
}

enum Job {
    Block(VecDeque<Ready>),
    Command(Command, Answer),
    Close,
}

impl Shared {
    pub(crate) fn new(
        rules: Rules,
        clock: Clock,
        is_testing: bool,
        store: Store,
        view: View,
    ) -> Self {
        Self {
            rules,
            clock,
            is_testing,
            store,
            bend: Mutex::default(),
            view: RwLock::new(Arc::new(view)),
            queue: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// The newest snapshot.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The clock's time, as tests bend it.
    pub(crate) fn now(&self) -> u64 {
        let bend = self.bend.lock().unwrap_or_else(PoisonError::into_inner);
        bend.next.unwrap_or_else(|| self.clock.now().saturating_add(bend.ahead))
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the writer that something waits.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Puts a command before the transactions that wait.
    pub(crate) fn command(&self, command: Command, answer: Answer) -> Result<(), SendError> {
        let mut queue = self.queue();
        if queue.is_closed {
            return Err(SendError::Closed);
        }
        if queue.commands.len() >= COMMANDS_MAX {
            return Err(SendError::PoolFull { what: "too many commands" });
        }
        queue.commands.push_back((command, answer));
        self.wake();
        Ok(())
    }

    /// Makes blocks until the chain is closed.
    pub(crate) fn run(&self) {
        // However it ends, nobody must wait for it afterwards.
        let _closing = Closing(self);
        loop {
            match self.next_job() {
                Job::Block(taken) => {
                    // Those who wait were told; there is nobody else to tell.
                    let _ = self.write(taken, false);
                }
                Job::Command(Command::Mine, answer) => {
                    let taken = self.queue().pool.take(BLOCK_TRANSACTIONS_MAX);
                    let _ = answer.send(self.write(taken, true).map(|()| true));
                }
                Job::Command(Command::Revert(number), answer) => {
                    let result = self.revert(number);
                    let _ = answer.send(result.map_err(|error| disk(&error)));
                }
                Job::Close => return,
            }
        }
    }

    fn next_job(&self) -> Job {
        let mut queue = self.queue();
        loop {
            if queue.is_closed {
                return Job::Close;
            }
            if let Some((command, answer)) = queue.commands.pop_front() {
                return Job::Command(command, answer);
            }
            if queue.pool.has_ready() {
                return Job::Block(queue.pool.take(BLOCK_TRANSACTIONS_MAX));
            }
            let (again, waited) =
                self.wake.wait_timeout(queue, EXPIRE_EVERY).unwrap_or_else(PoisonError::into_inner);
            queue = again;
            if waited.timed_out() && !queue.pool.is_empty() {
                queue.pool.expire(self.now());
            }
        }
    }

    /// Makes a block of what was taken, and tells what became of each.
    fn write(&self, taken: VecDeque<Ready>, is_empty_made: bool) -> Result<(), SendError> {
        if self.store.is_closed() {
            self.reload();
        }
        let mut building = Building::new(self.rules, self.view(), self.now());
        let mut ends = Vec::with_capacity(taken.len());
        let mut later = Vec::new();
        let result = build(&mut building, taken, &mut ends, &mut later)
            .and_then(|()| {
                let is_made = is_empty_made || !building.is_empty();
                if is_made { self.append(building) } else { Ok(()) }
            })
            .map_err(|error| {
                let error = disk(&error);
                tracing::error!(%error, "block not written");
                error
            });
        if result.is_err() {
            // Whether the block is on the disk is known only then.
            self.reload();
        }
        let mut queue = self.queue();
        for (ready, end) in ends {
            queue.pool.finish(&ready, result.clone().and(end));
        }
        // Backwards, so that a sender's first stands first whatever happened.
        for ready in later.iter().rev() {
            queue.pool.give_back(ready);
        }
        result
    }

    fn append(&self, building: Building) -> Result<(), ReadError> {
        let view = self.view();
        let block = building.seal()?;
        let mut history = view.history.clone();
        let forgotten = history.push(block.undo.clone());
        self.store.append(&block, &forgotten, true)?;
        self.show(view.next(&self.store, history)?);
        self.bend.lock().unwrap_or_else(PoisonError::into_inner).next = None;
        Ok(())
    }

    /// Opens the file anew, and shows what is on it. Where that fails nothing can be read until
    /// the next transaction comes, which tries again.
    fn reload(&self) {
        let reopened = self.store.reopen().and_then(|()| View::load(&self.store));
        match reopened {
            Ok(view) => self.show(view),
            Err(error) => tracing::error!(error = %disk(&error), "the chain's file stays closed"),
        }
    }

    fn show(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// Goes back to a block; false where it or a state on the way is not kept.
    fn revert(&self, number: u64) -> Result<bool, ReadError> {
        let view = self.view();
        if !view.has_state(number) {
            return Ok(false);
        }
        self.queue().pool.clear(&SendError::Replaced);
        let mut history = view.history.clone();
        let mut changes = Changes::default();
        let mut blocks = Vec::new();
        for gone in (number + 1..=view.number()).rev() {
            let Some(undo) = history.pop() else { return Ok(false) };
            changes.accounts.extend(undo.accounts.iter().map(|(key, value)| (*key, *value)));
            changes.slots.extend(undo.slots.iter().map(|(key, value)| (*key, *value)));
            let block =
                view.block(gone)?.ok_or(ReadError::Damaged { what: "a block to be reverted" })?;
            blocks.push((block.sealed, block.body));
        }
        let target = view.header(number)?.ok_or(ReadError::Damaged { what: "a header" })?;
        let (root, nodes) = commit(Before(Some(&view)), &mut changes, &mut Undo::default())?;
        if root != target.header.state_root {
            return Err(ReadError::Damaged { what: "an undo record" });
        }
        self.store.unwind(&blocks, &changes, &nodes)?;
        self.show(view.next(&self.store, history)?);
        Ok(true)
    }
}

/// Executes in order; what does not fit goes to `later`.
fn build(
    building: &mut Building,
    taken: VecDeque<Ready>,
    ends: &mut Vec<(Ready, Result<B256, SendError>)>,
    later: &mut Vec<Ready>,
) -> Result<(), ReadError> {
    let mut failed = BTreeSet::new();
    let mut result = Ok(());
    for ready in taken {
        let from = ready.transaction.signer();
        if failed.contains(&from) {
            // The pool puts it aside when it hears of the failure.
            continue;
        }
        if result.is_err() || !later.is_empty() {
            later.push(ready);
            continue;
        }
        match building.add(&ready.transaction) {
            Ok(Outcome::Included) => {
                let hash = *ready.transaction.tx_hash();
                ends.push((ready, Ok(hash)));
            }
            Ok(Outcome::NoRoom) if building.gas_used() > 0 => later.push(ready),
            Ok(Outcome::NoRoom) => {
                failed.insert(from);
                ends.push((ready, Err(SendError::GasLimit)));
            }
            Ok(Outcome::Refused(error)) => {
                failed.insert(from);
                ends.push((ready, Err(error)));
            }
            Err(error) => {
                // Its outcome is the error that all of them get.
                ends.push((ready, Err(SendError::Closed)));
                result = Err(error);
            }
        }
    }
    result
}

fn disk(error: &ReadError) -> SendError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    SendError::Disk(text.into())
}
