//! What sensors say, by thresholds.

use super::rules::Symptom;

/// How far a clock may be off the middle of other hosts' clocks, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 500;
/// How near to its slow-down temperature a GPU may be, in degrees.
pub const TEMPERATURE_MARGIN_C: u32 = 2;
/// From this utilisation on a GPU is busy enough to draw power.
pub const BUSY_PERCENT: u32 = 90;
/// A busy GPU draws at least this share of its limit.
pub const IDLE_POWER_PERCENT: u32 = 15;
/// Work that waits for memory this share of a minute is slow by it.
pub const MEMORY_PRESSURE_PERCENT: u32 = 20;
/// A disk with less free space than this is full.
pub const DISK_FREE_PERCENT: u32 = 1;

/// Why a GPU runs below its clocks: bits of NVML's clocks event reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle(pub u64);

impl Throttle {
    const POWER_CAP: u64 = 0x04;
    const HARDWARE: u64 = 0x08;
    const SOFTWARE_THERMAL: u64 = 0x20;
    const HARDWARE_THERMAL: u64 = 0x40;
    const POWER_BRAKE: u64 = 0x80;

    const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
}

/// A reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensor {
    /// Why a GPU is slowed down.
    Throttle(Throttle),
    /// A GPU's temperature.
    Temperature {
        /// Now, in degrees.
        now_c: u32,
        /// Where it slows down.
        slowdown_c: u32,
    },
    /// A PCIe link under load.
    Pcie {
        /// Lanes now.
        width: u32,
        /// Lanes that card and slot both have.
        width_max: u32,
        /// Generation now.
        generation: u32,
        /// Generation that card and slot both have.
        generation_max: u32,
    },
    /// A GPU's load and power, over at least ten seconds.
    Power {
        /// Utilisation in percent.
        busy_percent: u32,
        /// Power drawn, in percent of the limit.
        power_percent: u32,
    },
    /// Rows of GPU memory.
    Remapping {
        /// Whether rows wait for a reset.
        is_pending: bool,
        /// Whether rows could not be remapped.
        has_failed: bool,
    },
    /// Memory errors of a GPU since the last reading that were not corrected.
    Ecc(u64),
    /// The share of the last minute in which all work waited for memory, in percent.
    MemoryPressure(u32),
    /// The clock against several others', in milliseconds.
    ClockSkew(u64),
    /// Space left for leases, in percent.
    DiskFree(u32),
}

/// What a reading means; nothing if all is well.
pub fn read_sensor(sensor: &Sensor) -> Option<Symptom> {
    match *sensor {
        Sensor::Throttle(reasons) => match reasons {
            _ if reasons.has(Throttle::SOFTWARE_THERMAL | Throttle::HARDWARE_THERMAL) => {
                Some(Symptom::Hot)
            }
            _ if reasons.has(Throttle::POWER_BRAKE | Throttle::HARDWARE) => {
                Some(Symptom::PowerBrake)
            }
            _ if reasons.has(Throttle::POWER_CAP) => Some(Symptom::PowerCap),
            _ => None,
        },
        Sensor::Temperature { now_c, slowdown_c } => {
            (now_c + TEMPERATURE_MARGIN_C >= slowdown_c).then_some(Symptom::Hot)
        }
        Sensor::Pcie { width, width_max, generation, generation_max } => {
            (width < width_max || generation < generation_max).then_some(Symptom::PcieNarrow)
        }
        Sensor::Power { busy_percent, power_percent } => {
            let is_odd = busy_percent >= BUSY_PERCENT && power_percent < IDLE_POWER_PERCENT;
            is_odd.then_some(Symptom::BusyWithoutPower)
        }
        Sensor::Remapping { has_failed: true, .. } => Some(Symptom::RemapFailed),
        Sensor::Remapping { is_pending, .. } => is_pending.then_some(Symptom::RemapPending),
        Sensor::Ecc(errors) => (errors > 0).then_some(Symptom::EccUncorrected),
        Sensor::MemoryPressure(percent) => {
            (percent >= MEMORY_PRESSURE_PERCENT).then_some(Symptom::MemoryPressure)
        }
        Sensor::ClockSkew(ms) => (ms > CLOCK_SKEW_MS_MAX).then_some(Symptom::ClockSkew),
        Sensor::DiskFree(percent) => (percent < DISK_FREE_PERCENT).then_some(Symptom::DiskFull),
    }
}
