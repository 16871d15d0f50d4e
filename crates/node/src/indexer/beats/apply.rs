//! What a beat says, told to the fleet.

use welkin_match::{Fleet, State, Taken};
use welkin_types::{ContainerId, UnixMillis};

/// What a host that leases nothing beats for: it is there, and may have something later.
pub(super) const NO_CONTAINER: ContainerId = ContainerId::from_bytes([0; 16]);

/// Returns whether the fleet knows the host as the beat describes it; if not, the host is to announce
/// itself again.
pub(super) fn beat(fleet: &mut Fleet, now: UnixMillis, taken: &Taken) -> bool {
    let vitals = &taken.vitals;
    if vitals.is_leaving {
        fleet.leave(now, taken.host);
        return true;
    }
    let state = State {
        revision: vitals.revision,
        free: vitals.free.into(),
        spot_used: vitals.spot_used.into(),
        is_draining: vitals.is_draining,
    };
    let told = fleet.beat_one(now, (taken.host, taken.container), &state);
    told.is_ok() || taken.container == NO_CONTAINER
}
