//! Transactions that are not yet in a block.
//!
//! Those whose turn it is stand in one line, in the order of their arrival. One whose nonce has a gap
//! before it waits until the gap is filled, it is replaced, or it has waited too long. A transaction
//! stays here until its block is on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use alloy_consensus::{Transaction as _, TxEnvelope, transaction::Recovered};
use alloy_primitives::{Address, B256};
use tokio::sync::oneshot;

use crate::send::SendError;

/// The most transactions of one sender.
const SENDER_MAX: usize = 1_024;
/// The most transactions in all.
const POOL_MAX: usize = 16_384;
/// The most bytes of call data in all.
const POOL_BYTES_MAX: usize = 64 << 20;
/// How long one waits for those before it, in seconds of the clock.
const WAIT_SECONDS_MAX: u64 = 600;

/// Told when a transaction's fate is known.
pub(crate) type Done = oneshot::Sender<Result<B256, SendError>>;

/// A transaction with its place in the line.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) place: u64,
    pub(crate) transaction: Arc<Recovered<TxEnvelope>>,
}

#[derive(Debug)]
struct Entry {
    transaction: Arc<Recovered<TxEnvelope>>,
    since: u64,
    is_taken: bool,
    done: Option<Done>,
}

impl Entry {
    fn end(self, result: Result<B256, SendError>) {
        if let Some(done) = self.done {
            // Whoever waited may have gone.
            let _ = done.send(result);
        }
    }

    fn bytes(&self) -> usize {
        self.transaction.input().len()
    }
}

#[derive(Debug, Default)]
struct Sender {
    /// The nonce of the next transaction to stand in the line.
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

/// The pool; its user holds the lock around it for one call at a time.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    senders: BTreeMap<Address, Sender>,
    /// Place in the line to sender and nonce.
    line: BTreeMap<u64, (Address, u64)>,
    places: u64,
    count: usize,
    bytes: usize,
}

impl Pool {
    pub(crate) fn has_ready(&self) -> bool {
        !self.line.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The nonce after those that stand here without a gap.
    pub(crate) fn next_nonce(&self, from: Address) -> Option<u64> {
        self.senders.get(&from).map(|sender| sender.next)
    }

    /// Takes a transaction in; `state_nonce` is that of its sender in the newest state. Returns
    /// whether it stands in the line.
    pub(crate) fn add(
        &mut self,
        transaction: Recovered<TxEnvelope>,
        state_nonce: u64,
        is_free: bool,
        now: u64,
        done: Done,
    ) -> Result<bool, SendError> {
        let (from, nonce) = (transaction.signer(), transaction.nonce());
        let known = self.senders.get(&from);
        // Those which are being written count: the state is behind them.
        let base = known.map_or(state_nonce, |sender| {
            sender
                .entries
                .first_key_value()
                .map_or(sender.next, |(first, _)| *first)
                .min(sender.next)
        });
        if nonce < base.max(state_nonce) {
            return Err(SendError::NonceTooLow { next: base.max(state_nonce), nonce });
        }
        let old = known.and_then(|sender| sender.entries.get(&nonce));
        if let Some(old) = old {
            may_replace(old, &transaction, is_free)?;
        } else {
            self.room_for(known, &transaction)?;
        }
        let entry = Entry {
            transaction: Arc::new(transaction),
            since: now,
            is_taken: false,
            done: Some(done),
        };
        self.bytes += entry.bytes();
        let sender = self
            .senders
            .entry(from)
            .or_insert_with(|| Sender { next: state_nonce, entries: BTreeMap::new() });
        if sender.next < state_nonce {
            // An authorization (EIP-7702) of somebody else's transaction used nonces of this sender.
            sender.next = state_nonce;
        }
        match sender.entries.insert(nonce, entry) {
            Some(old) => {
                self.bytes -= old.bytes();
                old.end(Err(SendError::Replaced));
            }
            None => self.count += 1,
        }
        self.line_up(from);
        Ok(self.senders.get(&from).is_some_and(|sender| nonce < sender.next))
    }

    fn room_for(
        &self,
        sender: Option<&Sender>,
        transaction: &Recovered<TxEnvelope>,
    ) -> Result<(), SendError> {
        if sender.is_some_and(|sender| sender.entries.len() >= SENDER_MAX) {
            return Err(SendError::PoolFull { what: "too many transactions of this account" });
        }
        if self.count >= POOL_MAX || self.bytes + transaction.input().len() > POOL_BYTES_MAX {
            return Err(SendError::PoolFull { what: "too many transactions" });
        }
        Ok(())
    }

    /// Puts those of a sender in the line whose turn has come.
    fn line_up(&mut self, from: Address) {
        let Some(sender) = self.senders.get_mut(&from) else { return };
        while sender.entries.contains_key(&sender.next) {
            self.line.insert(self.places, (from, sender.next));
            self.places += 1;
            sender.next += 1;
        }
    }

    /// Takes the first of the line for a block.
    pub(crate) fn take(&mut self, most: usize) -> VecDeque<Ready> {
        let mut taken = VecDeque::new();
        while taken.len() < most {
            let Some((place, (from, nonce))) = self.line.pop_first() else { break };
            let entry =
                self.senders.get_mut(&from).and_then(|sender| sender.entries.get_mut(&nonce));
            if let Some(entry) = entry {
                entry.is_taken = true;
                taken.push_back(Ready { place, transaction: Arc::clone(&entry.transaction) });
            }
        }
        taken
    }

    /// Puts one back that was taken, at its old place.
    pub(crate) fn give_back(&mut self, ready: &Ready) {
        let (from, nonce) = (ready.transaction.signer(), ready.transaction.nonce());
        let Some(sender) = self.senders.get_mut(&from) else { return };
        if let Some(entry) = sender.entries.get_mut(&nonce) {
            entry.is_taken = false;
            self.line.insert(ready.place, (from, nonce));
        }
    }

    /// One that was taken is in a block, or never will be.
    pub(crate) fn finish(&mut self, ready: &Ready, result: Result<B256, SendError>) {
        let (from, nonce) = (ready.transaction.signer(), ready.transaction.nonce());
        let Some(sender) = self.senders.get_mut(&from) else { return };
        if result.is_err() && nonce < sender.next {
            // Those behind it have a gap before them again.
            sender.next = match result {
                Err(SendError::NonceTooLow { next, .. }) => next,
                _ => nonce,
            };
            self.line.retain(|_, (owner, _)| *owner != from);
            sender.entries.values_mut().for_each(|entry| entry.is_taken = false);
        }
        if let Some(entry) = sender.entries.remove(&nonce) {
            self.count -= 1;
            self.bytes -= entry.bytes();
            entry.end(result);
        }
        if sender.entries.is_empty() {
            self.senders.remove(&from);
        }
        self.line_up(from);
    }

    /// Drops those that waited too long for those before them.
    pub(crate) fn expire(&mut self, now: u64) {
        let mut expired = Vec::new();
        for (from, sender) in &self.senders {
            for (nonce, entry) in sender.entries.range(sender.next..) {
                if now.saturating_sub(entry.since) > WAIT_SECONDS_MAX {
                    expired.push((*from, *nonce));
                }
            }
        }
        for (from, nonce) in expired {
            let Some(sender) = self.senders.get_mut(&from) else { continue };
            if let Some(entry) = sender.entries.remove(&nonce) {
                self.count -= 1;
                self.bytes -= entry.bytes();
                entry.end(Err(SendError::Expired));
            }
            if sender.entries.is_empty() {
                self.senders.remove(&from);
            }
        }
    }

    /// Ends all of them with an error.
    pub(crate) fn clear(&mut self, error: &SendError) {
        let old = std::mem::take(self);
        self.places = old.places;
        for sender in old.senders.into_values() {
            sender.entries.into_values().for_each(|entry| entry.end(Err(error.clone())));
        }
    }
}

/// Whether a transaction may take the place of one with its nonce.
fn may_replace(old: &Entry, new: &Recovered<TxEnvelope>, is_free: bool) -> Result<(), SendError> {
    if old.transaction.tx_hash() == new.tx_hash() {
        return Err(SendError::AlreadyKnown);
    }
    if old.is_taken {
        return Err(SendError::Underpriced);
    }
    let tip = |transaction: &TxEnvelope| {
        transaction.max_priority_fee_per_gas().unwrap_or(transaction.max_fee_per_gas())
    };
    let is_more = |old: u128, new: u128| new > old && new >= old.saturating_add(old / 10);
    let (old, new) = (old.transaction.inner(), new.inner());
    if is_free
        || (is_more(old.max_fee_per_gas(), new.max_fee_per_gas()) && is_more(tip(old), tip(new)))
    {
        return Ok(());
    }
    Err(SendError::Underpriced)
}

#[cfg(test)]
mod tests {
    //! Bounds and time, which take too long from outside.

    use alloy_consensus::{SignableTransaction as _, TxLegacy};
    use alloy_primitives::{Signature, U256};

    use super::*;

    fn transaction(from: u8, nonce: u64, bytes: usize) -> Recovered<TxEnvelope> {
        let unsigned = TxLegacy { nonce, input: vec![from; bytes].into(), ..TxLegacy::default() };
        let signature = Signature::new(U256::ONE, U256::ONE, false);
        let signed = TxEnvelope::from(unsigned.into_signed(signature));
        Recovered::new_unchecked(signed, Address::repeat_byte(from))
    }

    type End = oneshot::Receiver<Result<B256, SendError>>;

    fn add(
        pool: &mut Pool,
        transaction: Recovered<TxEnvelope>,
        now: u64,
    ) -> (Result<bool, SendError>, End) {
        let (done, end) = oneshot::channel();
        (pool.add(transaction, 0, true, now, done), end)
    }

    #[test]
    fn only_those_behind_a_gap_expire() {
        let mut pool = Pool::default();
        let (ready, mut first) = add(&mut pool, transaction(1, 0, 0), 100);
        assert_eq!(ready, Ok(true));
        let (waits, mut gapped) = add(&mut pool, transaction(1, 2, 0), 100);
        assert_eq!(waits, Ok(false));
        pool.expire(100 + WAIT_SECONDS_MAX);
        assert!(gapped.try_recv().is_err());
        pool.expire(101 + WAIT_SECONDS_MAX);
        assert_eq!(gapped.try_recv().unwrap(), Err(SendError::Expired));
        assert!(first.try_recv().is_err());
        assert_eq!(pool.take(10).len(), 1);
    }

    #[test]
    fn one_sender_and_all_together_are_bounded() {
        let mut pool = Pool::default();
        let mut ends = Vec::new();
        for nonce in 1..=1_024 {
            let (added, end) = add(&mut pool, transaction(1, nonce, 0), 0);
            assert_eq!(added, Ok(false));
            ends.push(end);
        }
        let (refused, _) = add(&mut pool, transaction(1, 1_025, 0), 0);
        assert!(matches!(refused, Err(SendError::PoolFull { .. })));
        let long = 100_000;
        for nonce in 0..POOL_BYTES_MAX / long {
            let (added, end) = add(&mut pool, transaction(2, nonce as u64, long), 0);
            assert_eq!(added, Ok(true));
            ends.push(end);
        }
        let (refused, _) = add(&mut pool, transaction(3, 0, long), 0);
        assert!(matches!(refused, Err(SendError::PoolFull { .. })));
        // What ends gives its room back.
        let taken = pool.take(1).pop_front().unwrap();
        pool.finish(&taken, Ok(B256::ZERO));
        assert_eq!(add(&mut pool, transaction(3, 0, long), 0).0, Ok(true));
        pool.clear(&SendError::Closed);
        assert!(pool.is_empty() && pool.bytes == 0 && !pool.has_ready());
        assert!(
            ends.iter_mut().skip(1_025).all(|end| end.try_recv().is_ok_and(|end| end.is_err()))
        );
    }

    #[test]
    fn a_failure_puts_those_behind_it_aside_and_the_next_brings_them_back() {
        let mut pool = Pool::default();
        let _ends: Vec<_> =
            (0..3).map(|nonce| add(&mut pool, transaction(1, nonce, 0), 0).1).collect();
        let taken = pool.take(2);
        pool.finish(&taken[0], Err(SendError::Closed));
        assert!(!pool.has_ready());
        assert_eq!(pool.next_nonce(Address::repeat_byte(1)), Some(0));
        assert_eq!(add(&mut pool, transaction(1, 0, 1), 0).0, Ok(true));
        let nonces: Vec<_> = pool.take(10).iter().map(|ready| ready.transaction.nonce()).collect();
        assert_eq!(nonces, [0, 1, 2]);
    }
}
