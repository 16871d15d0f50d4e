//! What a beat says, told to the fleet.

use welkin_match::{Fleet, State, Taken};
use welkin_types::{ContainerId, UnixMillis};

/// What a host that leases nothing beats for: it is there, and may have something later.
pub(super) const NO_CONTAINER: ContainerId = ContainerId::from_bytes([0; 16]);

/// Returns whether the fleet knows the host as the beat describes it; if not, the host is to announce
/// itself again. Notes where the container is.
pub(super) fn beat(fleet: &mut Fleet, now: UnixMillis, taken: &mut Taken) -> bool {
    if taken.vitals.is_leaving {
        fleet.leave(now, taken.host);
        return true;
    }
    let state = state_of(taken);
    match fleet.beat_at(now, taken.place, (taken.host, taken.container), &state) {
        Ok(place) => {
            taken.place = Some(place);
            true
        }
        Err(_) => taken.container == NO_CONTAINER,
    }
}

/// What a beat says of its container.
pub(super) fn state_of(taken: &Taken) -> State {
    let vitals = &taken.vitals;
    State {
        revision: vitals.revision,
        free: vitals.free.into(),
        spot_used: vitals.spot_used.into(),
        is_draining: vitals.is_draining,
    }
}
