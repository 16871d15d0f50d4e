//! A Merkle tree over the rows of a product.
//!
//! A leaf is SHA-256 of 0x00, the row's number (4 bytes, big-endian) and its entries (4 bytes each,
//! little-endian); a parent SHA-256 of 0x01 and its two children; a node without a sibling goes up
//! as it is.

use sha2::{Digest as _, Sha256};

/// The hash of a row.
pub fn leaf(index: u32, row: &[i32]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update([0]).chain_update(index.to_be_bytes());
    let mut bytes = [0; 1_024];
    for chunk in row.chunks(bytes.len() / 4) {
        for (to, entry) in bytes.chunks_exact_mut(4).zip(chunk) {
            to.copy_from_slice(&entry.to_le_bytes());
        }
        hash.update(&bytes[..4 * chunk.len()]);
    }
    hash.finalize().into()
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// All nodes, the leaves first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    levels: Vec<Vec<[u8; 32]>>,
}

impl Tree {
    /// The tree over these leaves.
    pub fn new(leaves: Vec<[u8; 32]>) -> Self {
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = last.chunks(2).map(|pair| match pair {
                [left, right] => parent(left, right),
                _ => pair[0],
            });
            let next = next.collect();
            levels.push(next);
        }
        Self { levels }
    }

    /// The root; zero without leaves.
    pub fn root(&self) -> [u8; 32] {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The siblings from a leaf to the root.
    pub fn path(&self, index: u32) -> Vec<[u8; 32]> {
        let mut place = usize::try_from(index).unwrap_or(usize::MAX);
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(place ^ 1));
            place /= 2;
        }
        path
    }
}

/// A row that was asked for, and how it belongs to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which row.
    pub index: u32,
    /// Its entries.
    pub row: Vec<i32>,
    /// The siblings from its leaf to the root.
    pub path: Vec<[u8; 32]>,
}

impl Opening {
    /// Whether the row belongs to the root of a tree of so many leaves.
    pub fn belongs(&self, root: &[u8; 32], leaves: u32) -> bool {
        if self.index >= leaves {
            return false;
        }
        let (mut place, mut width) = (self.index, leaves);
        let mut hash = leaf(self.index, &self.row);
        let mut path = self.path.iter();
        while width > 1 {
            if place ^ 1 < width {
                let Some(other) = path.next() else { return false };
                hash = match place % 2 {
                    0 => parent(&hash, other),
                    _ => parent(other, &hash),
                };
            }
            place /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none() && hash == *root
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_belongs_only_where_it_stood(count in 1..40_u32, index in 0..40_u32, entry: i32) {
            let index = index % count;
            let row = |index: u32| vec![i32::try_from(index).unwrap(), 7, -1];
            let tree = Tree::new((0..count).map(|index| leaf(index, &row(index))).collect());
            let opening = Opening { index, row: row(index), path: tree.path(index) };
            prop_assert!(opening.belongs(&tree.root(), count));
            let other = Opening { row: vec![entry, 7, -2], ..opening.clone() };
            prop_assert!(!other.belongs(&tree.root(), count));
            let moved = Opening { index: (index + 1) % (count + 1), ..opening.clone() };
            prop_assert!(!moved.belongs(&tree.root(), count));
            let mut longer = opening;
            longer.path.push([0; 32]);
            prop_assert!(!longer.belongs(&tree.root(), count));
        }
    }
}
