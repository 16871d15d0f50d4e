//! Testing opened rows against what the seed says, in O(n) memory.
//!
//! For a secret vector v, w = B·v takes one pass over the rows of B as they are generated, for all rounds
//! together. For an opened row c of index i then c·v must be `A_i·w`, in the field of [`PRIME`] elements. v is chosen
//! after the commitment and never shown.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::matrix::{Seeds, Shape, row_of_a, row_of_b};
use super::merkle::Opening;

/// The least prime above 2³²: larger than any error of an entry, so that none vanishes.
pub const PRIME: u64 = 4_294_967_311;
const MODULUS: i64 = 4_294_967_311;

/// What a checker chooses at random once a commitment is there, and keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// From fresh random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The secret of one device: who sees which rows one must open knows nothing of another's.
    #[must_use]
    pub fn of_device(&self, number: usize) -> Self {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let hash = Sha256::new()
            .chain_update(b"welkin/challenge/of-device/1\0")
            .chain_update(self.0)
            .chain_update(number.to_be_bytes());
        Self(hash.finalize().into())
    }

    fn stream(&self, purpose: u8, round: u32) -> impl Iterator<Item = u32> + use<> {
        let secret = self.0;
        (0_u32..).flat_map(move |number| {
            let hash = Sha256::new()
                .chain_update(b"welkin/challenge/secret/1\0")
                .chain_update(secret)
                .chain_update([purpose])
                .chain_update(round.to_be_bytes())
                .chain_update(number.to_be_bytes())
                .finalize();
            let words = hash.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            words.collect::<Vec<_>>()
        })
    }

    /// Which rows to open of a round: `count` different ones, or all if there are fewer.
    pub fn rows(&self, shape: Shape, round: u32, count: u32) -> Vec<u32> {
        if count >= shape.n() {
            return (0..shape.n()).collect();
        }
        // Words that would favour low rows are passed over.
        let fair = u32::MAX - u32::MAX % shape.n();
        let mut rows = BTreeSet::new();
        for word in self.stream(1, round).filter(|word| *word < fair) {
            if rows.len() >= usize::try_from(count).unwrap_or(usize::MAX) {
                break;
            }
            rows.insert(word % shape.n());
        }
        rows.into_iter().collect()
    }

    /// The vector of all rounds.
    fn vector(&self, shape: Shape) -> Vec<i64> {
        self.stream(0, 0).take(shape.len()).map(i64::from).collect()
    }
}

/// How many rows must be opened so that a share of wrong rows (in basis points) is missed with
/// probability at most 2⁻ᵏ.
///
/// ```
/// // (1 − 0.05)^271 < 2^-20
/// assert_eq!(welkin_check::challenge::rows_for(20, 500), 271);
/// ```
pub fn rows_for(bits: u32, wrong_bp: u32) -> u32 {
    // In 2^-32 parts, rounded up, so that the bound holds.
    let keep = u64::from(10_000_u32.saturating_sub(wrong_bp.clamp(1, 10_000)));
    let goal = 1_u64 << 62_u32.saturating_sub(bits.min(60));
    let (mut missed, mut rows) = (1_u64 << 62, 0);
    while missed > goal {
        missed = u64::try_from((u128::from(missed) * u128::from(keep)).div_ceil(10_000))
            .unwrap_or(u64::MAX);
        rows += 1;
        if missed == 0 {
            break;
        }
    }
    rows
}

/// What a verification cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiplications and additions.
    pub macs: u64,
    /// Bytes of matrices generated.
    pub generated: u64,
    /// Bytes hashed.
    pub hashed: u64,
}

/// Why a challenge was not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fraud {
    /// Not as many roots or rounds as asked for.
    #[error("{found} rounds instead of {wanted}")]
    Rounds {
        /// Asked for.
        wanted: u32,
        /// Given.
        found: u32,
    },
    /// Other rows than those asked for.
    #[error("round {0}: not the rows that were asked for")]
    Rows(u32),
    /// A row does not belong to the commitment.
    #[error("round {round}: row {row} does not belong to the commitment")]
    Commitment {
        /// Which round.
        round: u32,
        /// Which row.
        row: u32,
    },
    /// A row is not that of the product.
    #[error("round {round}: row {row} is not that of the product")]
    Product {
        /// Which round.
        round: u32,
        /// Which row.
        row: u32,
    },
}

/// Tests the opened rows of all rounds.
///
/// # Errors
///
/// [`Fraud`], the first that is found.
pub fn verify(
    seed: &[u8; 32],
    shape: Shape,
    roots: &[[u8; 32]],
    secret: &Secret,
    rows_a_round: u32,
    openings: &[Vec<Opening>],
) -> Result<Cost, Fraud> {
    let wanted = usize::try_from(shape.rounds()).unwrap_or(usize::MAX);
    for found in [roots.len(), openings.len()] {
        if found != wanted {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Fraud::Rounds { wanted: shape.rounds(), found });
        }
    }
    let mut cost = Cost::default();
    // What is cheap comes first, so that rubbish costs little.
    for ((round, root), opened) in (0..).zip(roots).zip(openings) {
        let rows = secret.rows(shape, round, rows_a_round);
        if !opened.iter().map(|opening| opening.index).eq(rows) {
            return Err(Fraud::Rows(round));
        }
        for opening in opened {
            let is_whole = opening.row.len() == shape.len();
            cost.hashed += 4 * u64::from(shape.n());
            if !is_whole || !opening.belongs(root, shape.n()) {
                return Err(Fraud::Commitment { round, row: opening.index });
            }
        }
    }
    let mut seeds = Seeds::first(*seed);
    let test = Test::new(&seeds, shape, secret, &mut cost);
    for ((round, root), opened) in (0..).zip(roots).zip(openings) {
        for opening in opened {
            if !test.is_of_product(&seeds, opening, &mut cost) {
                return Err(Fraud::Product { round, row: opening.index });
            }
        }
        seeds = seeds.next(root);
    }
    Ok(cost)
}

/// A secret vector, and its product with B.
struct Test {
    vector: Vec<i64>,
    product: Vec<i64>,
}

impl Test {
    fn new(seeds: &Seeds, shape: Shape, secret: &Secret, cost: &mut Cost) -> Self {
        let vector = secret.vector(shape);
        let mut row = vec![0; shape.len()];
        let product = (0..shape.n()).map(|index| {
            row_of_b(seeds.b(), index, &mut row);
            dot(&row, &vector)
        });
        let product = product.collect();
        let n = u64::from(shape.n());
        cost.generated += n * n;
        cost.macs += n * n;
        Self { vector, product }
    }

    /// Whether a row is that of the product with the round's A.
    fn is_of_product(&self, seeds: &Seeds, opening: &Opening, cost: &mut Cost) -> bool {
        let mut row = vec![0; self.vector.len()];
        row_of_a(seeds.a(), opening.index, &mut row);
        let expected = dot(&row, &self.product);
        let found =
            opening.row.iter().zip(&self.vector).fold(0_i128, |sum, (entry, factor)| {
                sum + i128::from(*entry) * i128::from(*factor)
            });
        let n = u64::try_from(row.len()).unwrap_or(u64::MAX);
        cost.generated += n;
        cost.macs += 2 * n;
        found.rem_euclid(i128::from(MODULUS)) == i128::from(expected)
    }
}

/// A byte times 33 bits, 2¹⁷ times: below 2⁵⁸, so that one reduction at the end is enough.
fn dot(row: &[i8], vector: &[i64]) -> i64 {
    let sum = row.iter().zip(vector).fold(0_i64, |sum, (a, b)| sum + i64::from(*a) * *b);
    sum.rem_euclid(MODULUS)
}
