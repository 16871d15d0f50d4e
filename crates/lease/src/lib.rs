//! The life of a lease, on both of its sides, as pure state machines.
//!
//! * [`HostLease`]: one lease on the host: its states, the seconds it bills, when it must stop.
//! * [`Sheets`]: what it saw, as it is signed.
//! * [`Slots`]: the host's sole authority over its own slots: holds, claims, devices,
//!   fencing numbers, what is out of service.
//! * [`Gauge`]: what one side sees of a session, minute by minute.
//! * [`Payer`]: the buyer's side of paying: signs for no more than its own clock saw.
//! * [`Reservation`]: a container kept for a term: what is due, kept and given back.
//! * [`GangPlacement`]: the same walk for several containers, of which all are taken or none.
//! * [`Placement`]: the buyer's walk through candidates, and when to try again.
//!
//! Nothing here reads a clock: `now` is an argument everywhere.

#![forbid(unsafe_code)]

mod figures;
mod gang;
mod gauge;
mod host;
mod payer;
mod placement;
mod record;
mod reservation;
mod rounds;
mod sheets;
mod slots;

pub use figures::Reports;
pub use gang::{GangPlacement, GangStep};
pub use gauge::{Gauge, Heard, Worked};
pub use host::{Effect, Found, HostLease, Input, Policy, ResourcesUsed};
pub use payer::Payer;
pub use placement::{Placement, Retry, Step};
pub use record::LeaseRecord;
pub use reservation::{
    COMMITMENT_SECONDS, DAY_SECONDS, Reservation, ReservationError, ReservationTerms, Settlement,
    TERM_SECONDS_MAX, TERM_SECONDS_MIN, Till,
};
pub use sheets::{Sheets, Subject};
pub use slots::{Claim, ClaimError, Devices, Preemption, Slots, Unit, Wanted};
