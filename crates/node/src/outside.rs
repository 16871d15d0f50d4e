//! The clock and the dice: the only place above floor 2 that reads either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use welkin_types::UnixMillis;

/// The present time.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the machine started, its sleep included. It never jumps, as the time of day may.
pub fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos)
}

/// Fresh random bytes from the system.
///
/// # Panics
///
/// If the system has no randomness: nothing could be kept secret then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness no key is a secret")]
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
