//! The way between a checker and a host, taken off what was timed on the checker's clock.

/// The way counts as at most this part of the time.
const WAY_SHARE: u64 = 4;

/// What a host took by itself, in microseconds: the least way is subtracted, and at most a quarter of
/// the time, so that who answers pings late on purpose gains little.
pub(crate) const fn without_way(took_us: u64, way_us: u64) -> u64 {
    let most = took_us / WAY_SHARE;
    took_us - if way_us < most { way_us } else { most }
}
