//! A prover's part: all rounds one after the other, and rows when they are asked for.

use welkin_check::challenge::{Opening, Seeds, Shape, Tree};

use crate::{Device, KernelError, Stop};

/// The work of a challenge, done. It keeps hashes only: rows that are asked for are computed again,
/// which costs their share of a product.
#[derive(Clone, Debug)]
pub struct Commitment {
    shape: Shape,
    /// The seeds and the tree of each round.
    rounds: Vec<(Seeds, Tree)>,
}

/// Computes all rounds. Memory: 64 n bytes a round besides the device's.
///
/// # Errors
///
/// [`KernelError`]
pub fn commit(
    device: &mut dyn Device,
    seed: &[u8; 32],
    shape: Shape,
    stop: &Stop,
) -> Result<Commitment, KernelError> {
    let mut seeds = Seeds::first(*seed);
    let mut rounds = Vec::new();
    for _ in 0..shape.rounds() {
        let tree = Tree::new(device.product(&seeds, shape, stop)?);
        let next = seeds.next(&tree.root());
        rounds.push((seeds, tree));
        seeds = next;
    }
    Ok(Commitment { shape, rounds })
}

impl Commitment {
    /// What is committed to: a root for each round.
    pub fn roots(&self) -> Vec<[u8; 32]> {
        self.rounds.iter().map(|(_, tree)| tree.root()).collect()
    }

    /// Opens the rows of one round; none where there is no such round.
    ///
    /// # Errors
    ///
    /// [`KernelError`]
    pub fn open_round(
        &self,
        device: &mut dyn Device,
        round: usize,
        rows: &[u32],
        stop: &Stop,
    ) -> Result<Vec<Opening>, KernelError> {
        let Some((seeds, tree)) = self.rounds.get(round) else { return Ok(Vec::new()) };
        let n = usize::try_from(self.shape.n()).unwrap_or(usize::MAX);
        let entries = device.rows(seeds, self.shape, rows, stop)?;
        let opening = |(index, row): (&u32, &[i32])| Opening {
            index: *index,
            row: row.to_vec(),
            path: tree.path(*index),
        };
        Ok(rows.iter().zip(entries.chunks_exact(n)).map(opening).collect())
    }

    /// Opens rows of all rounds.
    ///
    /// # Errors
    ///
    /// [`KernelError`]
    pub fn open(
        &self,
        device: &mut dyn Device,
        rows: &[Vec<u32>],
        stop: &Stop,
    ) -> Result<Vec<Vec<Opening>>, KernelError> {
        let rounds = rows.iter().enumerate();
        rounds.map(|(round, rows)| self.open_round(device, round, rows, stop)).collect()
    }
}
