//! Passive health: what a machine says about itself, what it means, whose fault it is, what to do.
//!
//! Lines of the kernel log are read by [`read_line`] into [`Event`]s, values of sensors by
//! [`read_sensor`]; [`RULES`] says for each [`Symptom`] how bad it is and whose fault, with its
//! source; [`attribute`] decides for a device from everything that happened about the same time;
//! [`Watch`] drains, requalifies and brings back.
//!
//! A host's own log can be silent about a fault, so nothing here proves health: that is what
//! challenges and sessions are for. It finds faults early, and tells a host's from a buyer's.

mod attribute;
mod line;
mod rules;
mod sensor;
mod watch;

pub use attribute::{Attribution, WINDOW_US, attribute};
pub use line::{Event, LINE_BYTES_MAX, read_line};
pub use rules::{RULES, Rule, Severity, Symptom, rule_of};
pub use sensor::{
    BUSY_PERCENT, CLOCK_SKEW_MS_MAX, DISK_FREE_PERCENT, IDLE_POWER_PERCENT,
    MEMORY_PRESSURE_PERCENT, Sensor, TEMPERATURE_MARGIN_C, Throttle, read_sensor,
};
pub use watch::{Kept, Past, Stage, Watch, WatchConfig, WatchInput, WatchOutput};

#[cfg(test)]
mod tests;
