//! Who checks what, when, without the checked knowing: private sortition, and a public fall-back.
//!
//! What nodes do is in [`Committees`]:
//!
//! 1. A checker's VRF key is registered before the seed of the epoch is known, so that nobody tries
//!    keys until one is assigned what it likes.
//! 2. From the seed, the minute and its number its holder makes one [`Proof`] a minute ([`VrfKey`]);
//!    nobody else can, and there is only one output, the [`Lot`]: which containers it visits in that
//!    minute, and at which second. A host learns of it when it is challenged, everybody else when
//!    the proof is shown with the report.
//! 3. Whoever is shown a proof verifies it by itself, at once.
//! 4. Where fewer than a committee reported on a container in a period, licences stand in that are
//!    publicly named by rendezvous hashing among neighbours; a silent one is replaced by the next.

mod committees;
mod lot;
mod rendezvous;
mod vrf;

pub use committees::{Committees, Map};
pub use lot::Lot;
pub use vrf::{PROOF_BYTES, Proof, Ticket, VrfKey, VrfPublic};

#[cfg(test)]
mod tests;
