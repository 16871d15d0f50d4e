//! How far a chain was read, so that a chain that goes back is read again from where it parted.
//!
//! A mark is a block's number and hash with what was known at its end. Marks that the chain does
//! not have any more are given up; the newest that it has is the common ancestor. They are kept
//! dense near the newest block and ever sparser before, so that there are few of them however long
//! the chain is, and a reorganisation of any depth costs at most twice its length.

use std::collections::VecDeque;

use alloy_primitives::B256;
use welkin_chain::rpc::{Rpc, RpcError};

/// What was known at a block's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark<T> {
    number: u64,
    hash: B256,
    value: T,
}

/// Marks along a chain, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail<T>(VecDeque<Mark<T>>);

impl<T: Copy> Trail<T> {
    /// Gives up what the chain does not have any more; returns the last block that still stands and
    /// what was known there.
    pub(super) async fn roll_back(&mut self, rpc: &Rpc) -> Result<Option<(u64, T)>, RpcError> {
        while let Some(mark) = self.0.back() {
            let there = rpc.head_at(mark.number).await?;
            if there.is_some_and(|block| block.hash == mark.hash) {
                return Ok(Some((mark.number, mark.value)));
            }
            self.0.pop_back();
        }
        Ok(None)
    }

    /// Makes a mark at a block after all others.
    pub(super) fn mark(&mut self, number: u64, hash: B256, value: T) {
        while self.0.back().is_some_and(|last| last.number >= number) {
            self.0.pop_back();
        }
        self.0.push_back(Mark { number, hash, value });
        // Of those about as far back as each other, the oldest and the newest stay.
        let band = |mark: &Mark<T>| (number - mark.number).checked_ilog2();
        let bands: Vec<_> = self.0.iter().map(band).collect();
        let mut index = 0;
        self.0.retain(|_| {
            let at = index;
            index += 1;
            at == 0 || bands.get(at - 1) != bands.get(at) || bands.get(at + 1) != bands.get(at)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_reach_back_far() {
        let mut trail = Trail::default();
        for number in 0..100_000_u64 {
            trail.mark(number, B256::from(alloy_primitives::U256::from(number)), number);
            assert!(trail.0.len() <= 2 * 64, "{}", trail.0.len());
        }
        assert!(trail.0.len() <= 36, "{}", trail.0.len());
        // Whatever depth the chain goes back, a mark is not much farther.
        let head = 99_999_u64;
        for depth in [1, 2, 3, 10, 100, 1_000, 10_000, 60_000] {
            let before = head - depth;
            let kept = trail.0.iter().rev().find(|mark| mark.number <= before).unwrap();
            assert!(head - kept.number <= depth * 4, "{depth}: {}", kept.number);
        }
        // One that goes back itself takes those after it along.
        trail.mark(50_000, B256::ZERO, 0);
        assert_eq!(trail.0.back().map(|mark| mark.number), Some(50_000));
    }
}
