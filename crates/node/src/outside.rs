//! The clock and the dice: the only place above floor 2 that reads either.

use std::time::{SystemTime, UNIX_EPOCH};

use welkin_types::UnixMillis;

/// The present time.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
