//! The hardware challenge: work that only the claimed hardware does in time, checked on a laptop.
//!
//! 1. The checker sends a seed to all devices of a host (and of hosts that may share one) within
//!    one window. Each device has a seed of its own: a result is good for nobody else.
//! 2. A device multiplies matrices of bytes that the seed generates ([`Shape`]), in exact integers
//!    that every vendor's GPU gives alike. Each product's root seeds a factor of the next, so that rounds
//!    can't be spread over borrowed devices; the other factor is the same in all.
//! 3. It commits to the roots of all products. The checker takes the time by its own clock and
//!    subtracts the least round trip that it has observed.
//! 4. The checker chooses rows at random; the device opens them.
//! 5. [`verify`] regenerates what it needs from the seed, row by row, and tests every opened row by
//!    Freivalds' method: memory O(n), time O(n²) against the device's O(n³).
//!
//! # What can slip through
//!
//! An opened row that is wrong passes with probability at most 2⁻³² ([`PRIME`] has 33 bits and an
//! error of a row is smaller than it). Where a share f of a product's rows is wrong, s opened rows
//! miss all of them with probability (1 − f)^s. Together: at most (1 − f)^s + s·2⁻³² a round. All rounds
//! are tested with one secret vector, which nobody ever sees: that changes neither.
//! [`rows_for`] gives s for a bound of 2⁻ᵏ.
//!
//! Memory is proven apart, by [`residency`]: products can be computed piece by piece, what a
//! residency probe asks for can't be had in time unless it is there.

mod budget;
pub(crate) mod chacha;
mod class;
mod evasion;
mod examiner;
mod matrix;
mod merkle;
mod prover;
pub mod residency;
mod standard;
#[cfg(test)]
mod tests;
mod verify;
mod window;

pub use budget::Budget;
pub use class::{
    BAND, BAND_PERMILLE, CPU_CORE_MMAC_PER_S, ClassRate, ClassTable, Estimate, LEARN_STEP_BP,
    MatchedClass, estimate,
};
pub use evasion::{Asked, Refusals, TRIES_MAX, Unmet, asks_again};
pub use examiner::{Device, ExamInput, ExamOutput, Examination, Examiner, ExaminerConfig, Outcome};
pub use matrix::{
    Factor, N_MAX, Product, ROUNDS_MAX, Seeds, Shape, commit, device_seed, row_of_a, row_of_b,
    rows_of_product,
};
pub use merkle::{Opening, Tree, leaf};
pub use prover::{Prover, ProverInput, ProverOutput, ProverRefusal};
pub use standard::{device_bytes, opened_rows, standard_look, standard_work};
pub use verify::{Cost, Fraud, PRIME, Secret, rows_for, verify};
pub use window::{PARTNERS, Windows};
