//! An embedded EVM chain: real blocks, receipts and JSON-RPC over one file, in this process.
//!
//! [`Chain`] executes transactions by revm, puts them into blocks, and acknowledges one only after
//! its block is on the disk. Transactions that arrive together share a block and its flush. One
//! thread writes; readers work on snapshots and wait for nobody. The clock is an argument, so that
//! the same transactions at the same times give the same hashes.
//!
//! It is a chain of one producer: no consensus, no peers, no blobs, and none of the system contracts
//! of Ethereum's beacon chain (EIP-2935, 4788, 7002, 7251). The base fee is constant.

#![forbid(unsafe_code)]

mod block;
mod chain;
mod clock;
mod commitment;
mod execute;
mod genesis;
mod http;
mod logs;
mod pool;
mod query;
mod rpc;
mod send;
mod state;
mod store;
mod trie;
mod view;
mod writer;

pub use chain::{Chain, Head, OpenError};
pub use clock::Clock;
pub use genesis::{Genesis, GenesisTransaction, Timestamps};
pub use http::{HttpConfig, serve_http};
pub use query::CallError;
pub use send::{SendError, Sent};
pub use store::ReadError;
