//! Under which terms a lease is made, as a part of what its buyer signs.

use serde::{Deserialize, Serialize};
use welkin_types::{CapacityType, ReservationId};

/// The terms of a lease beside its price. They stand in the task, whose SHA-256 is in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The kind of the lease.
    pub capacity: CapacityType,
    /// How long a spot lease goes on when its container is taken back, at least; 0 for others.
    pub notice_seconds: u16,
    /// The reservation that it runs on, which pays for it: its own price is zero then.
    #[serde(default)]
    pub reservation: Option<ReservationId>,
}

impl Terms {
    /// The terms of a lease on demand.
    pub const ON_DEMAND: Self = Self::plain(CapacityType::OnDemand, 0);

    /// The terms of a lease that pays for itself.
    pub const fn plain(capacity: CapacityType, notice_seconds: u16) -> Self {
        Self { capacity, notice_seconds, reservation: None }
    }

    /// The terms of a lease on a reservation.
    pub const fn reserved(reservation: ReservationId) -> Self {
        let reservation = Some(reservation);
        Self { capacity: CapacityType::Reserved, notice_seconds: 0, reservation }
    }
}

/// How the progress of a task is kept when its container is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Run in the sandbox at the notice, before the command is asked to end. Empty: nothing.
    pub argv: Vec<String>,
    /// The file or folder that the buyer fetches then, and puts in place where the task runs next.
    /// Empty: none.
    pub path: String,
}
