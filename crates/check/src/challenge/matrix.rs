//! The matrices of a challenge, and the reference product on a CPU.
//!
//! Row i of matrix m is a stream of ChaCha with 8 rounds: the last four words are the block's number,
//! 0, m and i. Its bytes, little-endian, are the entries as signed bytes. m is 0 for A and 1 for B. The
//! key of A is the round's seed, that of B the first round's: B is the same in all rounds, so that who
//! verifies multiplies it by a vector once. With n below [`N_MAX`] no sum leaves 32 bits, so that
//! wrapping and exact sums are the same.

use chacha20::rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use welkin_types::{ContainerId, NodeId};

use super::chacha;
use super::merkle::{Opening, Tree, leaf};

/// The largest n: (2¹⁷ − 1) · 128² is below 2³¹.
pub const N_MAX: u32 = (1 << 17) - 1;
/// The most rounds of a challenge.
pub const ROUNDS_MAX: u32 = 1 << 12;
/// Bytes of a row that are generated at once.
const BYTES_AT_ONCE: usize = 1_024;
/// Rows and columns that the reference works on at once.
const ROWS_AT_ONCE: usize = 16;
const TILE: usize = 1_024;
const A: u32 = 0;
const B: u32 = 1;

/// How large a challenge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    n: u32,
    rounds: u32,
}

impl Shape {
    /// Products of n × n matrices, one after the other. None if out of bounds.
    pub const fn new(n: u32, rounds: u32) -> Option<Self> {
        if n == 0 || n > N_MAX || rounds == 0 || rounds > ROUNDS_MAX {
            return None;
        }
        Some(Self { n, rounds })
    }

    /// Rows and columns.
    pub const fn n(self) -> u32 {
        self.n
    }

    /// How many products.
    pub const fn rounds(self) -> u32 {
        self.rounds
    }

    /// Multiplications and additions in all.
    pub const fn macs(self) -> u64 {
        // Below 2^17 cubed times 2^12: 2^63.
        let n = self.n as u64;
        n * n * n * self.rounds as u64
    }

    /// Bytes that both factors and the product take.
    pub const fn bytes(self) -> u64 {
        6 * self.n as u64 * self.n as u64
    }

    /// The largest n whose matrices fit in so many bytes.
    pub fn n_for_bytes(bytes: u64) -> u32 {
        let n = (bytes / 6).isqrt();
        u32::try_from(n).unwrap_or(u32::MAX).min(N_MAX)
    }

    pub(super) fn len(self) -> usize {
        usize::try_from(self.n).unwrap_or(usize::MAX)
    }
}

/// The first seed of a device: nobody else's result fits it.
pub fn device_seed(
    nonce: &[u8; 32],
    host: NodeId,
    container: ContainerId,
    device: u32,
) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"welkin/challenge/device/1\0")
        .chain_update(nonce)
        .chain_update(host.as_bytes())
        .chain_update(container.as_bytes())
        .chain_update(device.to_be_bytes())
        .finalize()
        .into()
}

/// What the factors of a round follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    a: [u8; 32],
    b: [u8; 32],
}

impl Seeds {
    /// The first round's: both are the challenge's seed.
    pub const fn first(seed: [u8; 32]) -> Self {
        Self { a: seed, b: seed }
    }

    /// The next round's: A follows from the product's root, B stays.
    #[must_use]
    pub fn next(&self, root: &[u8; 32]) -> Self {
        let a = Sha256::new()
            .chain_update(b"welkin/challenge/chain/2\0")
            .chain_update(self.a)
            .chain_update(root);
        Self { a: a.finalize().into(), b: self.b }
    }

    /// That of A.
    pub const fn a(&self) -> &[u8; 32] {
        &self.a
    }

    /// That of B.
    pub const fn b(&self) -> &[u8; 32] {
        &self.b
    }
}

/// Writes a row of A.
pub fn row_of_a(seed: &[u8; 32], index: u32, row: &mut [i8]) {
    generate(seed, A, index, row);
}

/// Writes a row of B.
pub fn row_of_b(seed: &[u8; 32], index: u32, row: &mut [i8]) {
    generate(seed, B, index, row);
}

fn generate(seed: &[u8; 32], matrix: u32, index: u32, row: &mut [i8]) {
    let mut stream = chacha::stream(seed, [matrix, index]);
    let mut buffer = [0; BYTES_AT_ONCE];
    for chunk in row.chunks_mut(BYTES_AT_ONCE) {
        let bytes = &mut buffer[..chunk.len()];
        stream.fill_bytes(bytes);
        for (entry, byte) in chunk.iter_mut().zip(bytes) {
            *entry = byte.cast_signed();
        }
    }
}

/// One product with its tree: what a CPU prover keeps of a round.
#[derive(Clone, Debug)]
pub struct Product {
    n: usize,
    entries: Vec<i32>,
    tree: Tree,
}

impl Product {
    /// Computes a round, by the seed of its A. Memory: 4 n² bytes beside B's.
    pub fn compute(factor: &Factor, a: &[u8; 32], shape: Shape) -> Self {
        let n = shape.len();
        let numbers: Vec<u32> = (0..shape.n).collect();
        let entries = factor.rows(a, &numbers);
        let leaves = (0..).zip(entries.chunks_exact(n)).map(|(index, row)| leaf(index, row));
        Self { n, tree: Tree::new(leaves.collect()), entries }
    }

    /// The commitment.
    pub fn root(&self) -> [u8; 32] {
        self.tree.root()
    }

    /// A row; empty if there is none.
    pub fn row(&self, index: u32) -> &[i32] {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.entries.chunks_exact(self.n).nth(index).unwrap_or_default()
    }

    /// Opens rows.
    pub fn open(&self, rows: &[u32]) -> Vec<Opening> {
        let opening = |index: &u32| Opening {
            index: *index,
            row: self.row(*index).to_vec(),
            path: self.tree.path(*index),
        };
        rows.iter().map(opening).collect()
    }
}

/// Some rows of a round's product, one after the other.
pub fn rows_of_product(seeds: &Seeds, shape: Shape, numbers: &[u32]) -> Vec<i32> {
    Factor::new(seeds.b(), shape).rows(seeds.a(), numbers)
}

/// B, ready for any rows of the product; several threads may read it at once. Memory:
/// 2 n² bytes.
#[derive(Clone, Debug)]
pub struct Factor {
    n: usize,
    /// Widened once: more machines multiply 16 bits at once than 8 or 32.
    b: Vec<i16>,
}

impl Factor {
    /// Generates B from its seed.
    pub fn new(seed: &[u8; 32], shape: Shape) -> Self {
        let n = shape.len();
        let mut bytes = vec![0; n];
        let mut b = vec![0_i16; n * n];
        for (index, row) in (0..).zip(b.chunks_exact_mut(n)) {
            row_of_b(seed, index, &mut bytes);
            row.iter_mut().zip(&bytes).for_each(|(wide, byte)| *wide = i16::from(*byte));
        }
        Self { n, b }
    }

    /// Some rows of the product with the A of a seed, one after the other.
    pub fn rows(&self, seed: &[u8; 32], numbers: &[u32]) -> Vec<i32> {
        let n = self.n;
        let mut entries = vec![0_i32; n * numbers.len()];
        let mut a = vec![0; n * ROWS_AT_ONCE];
        let parts = entries.chunks_mut(n * ROWS_AT_ONCE).zip(numbers.chunks(ROWS_AT_ONCE));
        for (rows, numbers) in parts {
            for (row, number) in a.chunks_exact_mut(n).zip(numbers) {
                row_of_a(seed, *number, row);
            }
            multiply(&a, &self.b, n, rows);
        }
        entries
    }
}

/// Adds the products of some rows of A with B to `rows`, tile by tile, so that what is added to
/// stays in the cache while B goes by.
fn multiply(a: &[i8], b: &[i16], n: usize, rows: &mut [i32]) {
    for from in (0..n).step_by(TILE) {
        let tile = from..n.min(from + TILE);
        for (k, b_row) in b.chunks_exact(n).enumerate() {
            let b_row = &b_row[tile.clone()];
            for (row, a_row) in rows.chunks_exact_mut(n).zip(a.chunks_exact(n)) {
                let factor = i16::from(a_row[k]);
                for (sum, entry) in row[tile.clone()].iter_mut().zip(b_row) {
                    *sum = sum.wrapping_add(i32::from(factor * *entry));
                }
            }
        }
    }
}

/// Computes all rounds on a CPU, and their roots.
pub fn commit(seed: &[u8; 32], shape: Shape) -> (Vec<Product>, Vec<[u8; 32]>) {
    let mut seeds = Seeds::first(*seed);
    let factor = Factor::new(seeds.b(), shape);
    let mut products = Vec::new();
    for _ in 0..shape.rounds {
        let product = Product::compute(&factor, seeds.a(), shape);
        seeds = seeds.next(&product.root());
        products.push(product);
    }
    let roots = products.iter().map(Product::root).collect();
    (products, roots)
}
