//! How a host watches its own health.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_check::health::WatchConfig;

use super::log::KERNEL_LOG;

/// The longest of the times that can be set: a day.
const SECONDS_MAX: u64 = 86_400;

/// What is watched, and how long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// The kernel's log, or a file or pipe with records of the same form. Empty: none is read.
    pub kernel_log: PathBuf,
    /// How often sensors are read, in seconds.
    pub sensor_seconds: u64,
    /// How long leases have to end where a fault leaves them time, in seconds.
    pub drain_seconds: u64,
    /// The pause before a failed self-test is repeated; it doubles each time. In seconds.
    pub retest_seconds: u64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            kernel_log: PathBuf::from(KERNEL_LOG),
            sensor_seconds: 60,
            drain_seconds: 600,
            retest_seconds: 60,
        }
    }
}

impl HealthConfig {
    /// The times of a watch.
    pub(super) fn watch(&self) -> WatchConfig {
        let micros = |seconds: u64| seconds.clamp(1, SECONDS_MAX) * 1_000_000;
        WatchConfig {
            drain_us: micros(self.drain_seconds),
            pause_us: micros(self.retest_seconds),
            ..WatchConfig::default()
        }
    }

    /// The pause between two looks at the sensors.
    pub(super) fn sensor_pause(&self) -> Duration {
        Duration::from_secs(self.sensor_seconds.clamp(1, SECONDS_MAX))
    }
}
