//! Floor 2: an EVM chain as Welkin sees it.
//!
//! [`rpc`] asks a node, [`outbox`] decides what goes out when, and [`sender`] carries that out.
//! [`contracts`] knows the calls, events and errors of Welkin's contracts, [`refusals`] says what
//! the errors mean, [`deployment`] how a network is set up, and [`genesis`] how that is done on a
//! local chain. The chain itself may be the embedded one or any node that speaks JSON-RPC: the way
//! to it is a [`rpc::Transport`], such as [`http::Http`]; [`node`] tells whether it is the right one.

pub mod ath;
pub mod batch;
pub mod contracts;
pub mod deployment;
pub mod genesis;
pub mod http;
pub mod node;
pub mod ops;
pub mod outbox;
pub mod refusals;
pub mod rpc;
pub mod sender;

use alloy_primitives::Address;
use welkin_types::AccountId;

/// An account in the words of the contracts.
pub fn address(account: AccountId) -> Address {
    Address::from(*account.as_bytes())
}
