//! The life of a lease, on both of its sides, as pure state machines.
//!
//! * [`HostLease`]: one lease on the host: its states, the seconds it bills, when it must stop.
//! * [`Slots`]: the host's sole authority over its own slots: holds, claims, devices,
//!   fencing numbers, what is out of service.
//! * [`Payer`]: the buyer's side of paying: signs for no more than its own clock saw.
//! * [`Reservation`]: a container kept for a term: what is due, kept and given back.
//! * [`Placement`]: the buyer's walk through candidates, and when to try again.
//!
//! Nothing here reads a clock: `now` is an argument everywhere.

#![forbid(unsafe_code)]

mod host;
mod payer;
mod placement;
mod record;
mod reservation;
mod slots;

pub use host::{Effect, Found, HostLease, Input, Policy, ResourcesUsed};
pub use payer::Payer;
pub use placement::{Placement, Retry, Step};
pub use record::LeaseRecord;
pub use reservation::{
    COMMITMENT_SECONDS, DAY_SECONDS, Reservation, ReservationError, ReservationTerms, Settlement,
    TERM_SECONDS_MAX, TERM_SECONDS_MIN, Till,
};
pub use slots::{Claim, ClaimError, Devices, Preemption, Slots, Unit, Wanted};
