//! Settlement on a chain of somebody else's: `anvil`, a node for development with real blocks, gas
//! and a pool of transactions.
//!
//! It comes with the npm packages of `contracts/`, or `WELKIN_ANVIL` names it.

mod batches;
mod bridge;
mod faults;
mod life;
mod node;
mod world;
