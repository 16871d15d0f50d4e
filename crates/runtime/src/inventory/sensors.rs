//! What NVIDIA's library measures of its GPUs. A value that a GPU does not have is absent.

use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use super::drivers::{self, Source};
use super::gpus::{GpuSearch, normal_pci};

/// One reading of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuReading {
    /// Its place on the PCI bus, as in [`super::Gpu::pci`].
    pub pci: String,
    /// Whether the driver has lost it.
    pub is_lost: bool,
    /// Its temperature and where it slows down, in degrees Celsius.
    pub temperature_c: Option<(u32, u32)>,
    /// Why its clocks are low: bits of NVML's clocks event reasons.
    pub throttle: Option<u64>,
    /// Lanes of its link to the bus, now and at most.
    pub pcie_width: Option<(u32, u32)>,
    /// The generation of its link to the bus, now and at most.
    pub pcie_generation: Option<(u32, u32)>,
    /// How busy it is, in percent.
    pub busy_percent: Option<u32>,
    /// What it draws of its limit, in percent.
    pub power_percent: Option<u32>,
    /// Memory errors since the driver was loaded that were not corrected.
    pub ecc_uncorrected: Option<u64>,
    /// Whether pages of its memory wait for a reset to be retired.
    pub has_pending_pages: Option<bool>,
}

/// Reads all GPUs that NVIDIA's library knows; nothing where it fails or takes too long. It may take
/// seconds, and is done by a process of its own: a driver whose card is gone can hang.
#[must_use]
pub fn gpu_readings(search: &GpuSearch) -> Vec<GpuReading> {
    drivers::ask(&search.command, Source::NvidiaSensors)
}

/// Reads in this process.
pub(super) fn read() -> Vec<GpuReading> {
    let Ok(nvml) = Nvml::init() else { return Vec::new() };
    let count = nvml.device_count().unwrap_or(0);
    let devices = (0..count).filter_map(|index| nvml.device_by_index(index).ok());
    devices.filter_map(|device| reading(&device)).collect()
}

fn reading(device: &Device<'_>) -> Option<GpuReading> {
    let pci = normal_pci(&device.pci_info().ok()?.bus_id);
    let temperature = device.temperature(TemperatureSensor::Gpu);
    let is_lost = matches!(temperature, Err(NvmlError::GpuLost));
    let slowdown = device.temperature_threshold(TemperatureThreshold::Slowdown);
    let power = device.power_usage().ok().zip(device.enforced_power_limit().ok());
    let ecc = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    Some(GpuReading {
        pci,
        is_lost,
        temperature_c: temperature.ok().zip(slowdown.ok()),
        throttle: device.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
        pcie_width: device.current_pcie_link_width().ok().zip(device.max_pcie_link_width().ok()),
        pcie_generation: device.current_pcie_link_gen().ok().zip(device.max_pcie_link_gen().ok()),
        busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        power_percent: power.and_then(|(now, limit)| now.saturating_mul(100).checked_div(limit)),
        ecc_uncorrected: ecc.ok(),
        has_pending_pages: device.are_pages_pending_retired().ok(),
    })
}
