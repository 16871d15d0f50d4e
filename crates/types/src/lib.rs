//! The nouns of Welkin: identities, money, resources, tasks, and the states of a lease.
//!
//! Floor 0. Every other crate may use this one and it uses none of them. It does no I/O, reads no
//! clock and holds no state.

#![forbid(unsafe_code)]

pub mod evidence;
mod id;
mod market;
mod money;
mod place;
mod reservation;
mod resources;
mod state;
pub mod task;
mod time;

pub use id::{
    AccountId, AppId, ContainerId, GangId, IdError, LeaseId, NodeId, OfferId, ReservationId,
    TicketId, TxId,
};
pub use market::{CapacityType, ChoiceError, Feature, Policy};
pub use money::{BasisPoints, MoneyError, Price, Usd};
pub use place::{Class, NameError, Region};
pub use reservation::ReservationEnd;
pub use resources::{Gpu, Resources, Tier};
pub use state::{Billing, Fault, LeaseState, Reason};
pub use time::UnixMillis;
