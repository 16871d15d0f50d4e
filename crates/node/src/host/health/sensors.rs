//! What sensors say, at a minute's scale: the disk under the host's folder, memory, and GPUs.
//!
//! Each look is bounded: the disk is tried by one write at a time, and what has not come back in
//! [`DISK_TIMEOUT`] is a fault; GPUs are asked by a process of their own that is ended when it hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use welkin_check::health::{
    DISK_FREE_PERCENT, Sensor, Severity, Symptom, Throttle, read_sensor, rule_of,
};
use welkin_lease::Unit;
use welkin_runtime::inventory::{Gpu, GpuReading, gpu_readings};

use super::GpuLoad;
use crate::host::Host;

/// How long a small write may take to be on the disk.
pub(super) const DISK_TIMEOUT: Duration = Duration::from_secs(30);
/// What is written.
pub(super) const PROBE_BYTES: usize = 4_096;
/// How long GPUs may take to be asked; the process that asks is ended before.
const GPUS_TIMEOUT: Duration = Duration::from_secs(40);
/// From this utilisation on a GPU's link is looked at: an idle one saves power.
pub(super) const WORKING_PERCENT: u32 = 50;
/// Where the kernel says how much work waits for memory.
const PRESSURE: &str = "/proc/pressure/memory";

/// Reads the sensors until the host is asked to stop.
pub(in crate::host) async fn watch(host: Arc<Host>) {
    let pause = host.config.health.sensor_pause();
    let (mut writing, mut before) = (None, Gpus::default());
    loop {
        tokio::time::sleep(pause).await;
        for symptom in look_at_machine(&host, &mut writing).await {
            host.health.sensed(&host, Unit::Host, symptom);
        }
        if host.gpus.iter().any(Gpu::is_nvidia) {
            let search = host.gpu_search.clone();
            let asked = tokio::task::spawn_blocking(move || gpu_readings(&search));
            let readings = tokio::time::timeout(GPUS_TIMEOUT, asked).await;
            let readings = readings.ok().and_then(Result::ok).unwrap_or_default();
            host.health.loaded(loads(&host.gpus, &readings));
            for (device, symptom) in before.take(&host.gpus, &readings) {
                host.health.sensed(&host, Unit::Device(device), symptom);
            }
        }
    }
}

/// How busy and how hot each GPU is, by the host's name of it. What a sensor does not say is 0.
pub(super) fn loads(gpus: &[Gpu], readings: &[GpuReading]) -> BTreeMap<String, GpuLoad> {
    let load = |reading: &GpuReading| {
        let is_it = |gpu: &&Gpu| gpu.pci.as_deref() == Some(reading.pci.as_str());
        let gpu = gpus.iter().find(is_it).filter(|_| !reading.is_lost)?;
        let percent = reading.busy_percent.unwrap_or(0).min(100);
        let celsius = reading.temperature_c.map_or(0, |(now, _)| now);
        let load = GpuLoad {
            busy_percent: u8::try_from(percent).unwrap_or(0),
            temperature_c: u8::try_from(celsius).unwrap_or(u8::MAX),
            fault: symptoms(reading).0.into_iter().find(|symptom| is_fault(*symptom)),
        };
        Some((gpu.id.clone(), load))
    };
    readings.iter().filter_map(load).collect()
}

type Writing = tokio::task::JoinHandle<Vec<Symptom>>;

/// One look at a time: where the last one still hangs, that is what there is to say.
async fn look_at_machine(host: &Arc<Host>, writing: &mut Option<Writing>) -> Vec<Symptom> {
    let dir = host.dir.clone();
    let mut look =
        writing.take().unwrap_or_else(|| tokio::task::spawn_blocking(move || machine(&dir)));
    match tokio::time::timeout(DISK_TIMEOUT, &mut look).await {
        Ok(found) => found.unwrap_or_default(),
        Err(_) => {
            *writing = Some(look);
            vec![Symptom::DiskError]
        }
    }
}

/// With so much free space a disk is not full.
pub(super) const FREE_BYTES_LEAST: u64 = 256 << 20;

/// Whether a symptom keeps a part out of service.
pub(super) fn is_fault(symptom: Symptom) -> bool {
    rule_of(symptom).severity >= Severity::Drain
}

/// Whether none of a GPU's device nodes is there.
pub(super) fn is_gone(gpu: &Gpu) -> bool {
    !gpu.nodes.is_empty() && gpu.nodes.iter().all(|node| !node.exists())
}

/// What is wrong with the disk under a folder, and with memory.
pub(super) fn machine(dir: &Path) -> Vec<Symptom> {
    let mut found = Vec::new();
    if let Ok(stat) = rustix::fs::statvfs(dir) {
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            found.push(Symptom::FileSystemReadOnly);
        }
        let percent = stat.f_bavail.saturating_mul(100).checked_div(stat.f_blocks).unwrap_or(100);
        // Of a large disk little in percent is much.
        let is_enough = stat.f_bavail.saturating_mul(stat.f_frsize) >= FREE_BYTES_LEAST;
        let percent = if is_enough { percent.max(DISK_FREE_PERCENT.into()) } else { percent };
        found.extend(read_sensor(&Sensor::DiskFree(u32::try_from(percent).unwrap_or(100))));
    }
    if let Err(error) = try_write(dir) {
        let kind = rustix::io::Errno::from_io_error(&error);
        let symptom = match kind {
            Some(rustix::io::Errno::ROFS) => Symptom::FileSystemReadOnly,
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Symptom::DiskFull,
            _ => Symptom::DiskError,
        };
        tracing::warn!(%error, dir = %dir.display(), "the host's folder can't be written to");
        found.push(symptom);
    }
    let pressure = std::fs::read_to_string(PRESSURE).ok().and_then(|text| full_percent(&text));
    found.extend(pressure.and_then(|percent| read_sensor(&Sensor::MemoryPressure(percent))));
    found.sort_unstable();
    found.dedup();
    found
}

fn try_write(dir: &Path) -> std::io::Result<()> {
    let path = dir.join("health");
    std::fs::create_dir_all(&path)?;
    let mut file = std::fs::File::create(path.join("probe"))?;
    file.write_all(&[0; PROBE_BYTES])?;
    file.sync_all()
}

/// `full avg10=0.00 avg60=1.50 avg300=…`: the whole percent of the last minute.
fn full_percent(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let value = line.split(' ').find_map(|field| field.strip_prefix("avg60="))?;
    value.split('.').next()?.parse().ok()
}

/// The last readings of the GPUs.
#[derive(Debug, Default)]
struct Gpus {
    ecc: BTreeMap<String, u64>,
    /// Those that have answered. A GPU that is lost, or whose driver hangs, is not among the readings.
    answered: BTreeSet<String>,
    /// What only counts when it is read twice in a row.
    suspected: BTreeMap<String, Vec<Symptom>>,
}

impl Gpus {
    /// Takes readings; what they mean, by the host's name of the GPU.
    fn take(&mut self, gpus: &[Gpu], readings: &[GpuReading]) -> Vec<(String, Symptom)> {
        let mut found = Vec::new();
        for reading in readings {
            let is_it = |gpu: &&Gpu| gpu.pci.as_deref() == Some(reading.pci.as_str());
            let Some(gpu) = gpus.iter().find(is_it) else { continue };
            self.answered.insert(gpu.id.clone());
            let (mut sure, suspected) = symptoms(reading);
            if let Some(errors) = reading.ecc_uncorrected {
                // The first reading tells of the time before.
                let before = self.ecc.insert(gpu.id.clone(), errors).unwrap_or(errors);
                sure.extend(read_sensor(&Sensor::Ecc(errors.saturating_sub(before))));
            }
            sure.extend(self.again(&gpu.id, suspected));
            found.extend(sure.into_iter().map(|symptom| (gpu.id.clone(), symptom)));
        }
        let is_read = |gpu: &Gpu| {
            readings.iter().any(|reading| gpu.pci.as_deref() == Some(reading.pci.as_str()))
        };
        for gpu in gpus.iter().filter(|gpu| !is_read(gpu)) {
            if self.answered.contains(&gpu.id) {
                let silent = self.again(&gpu.id, vec![Symptom::SensorsSilent]);
                found.extend(silent.into_iter().map(|symptom| (gpu.id.clone(), symptom)));
            }
        }
        found
    }

    /// Of what is suspected now, what was suspected the last time, too.
    fn again(&mut self, id: &str, suspected: Vec<Symptom>) -> Vec<Symptom> {
        let last = self.suspected.insert(id.to_owned(), suspected.clone()).unwrap_or_default();
        suspected.into_iter().filter(|symptom| last.contains(symptom)).collect()
    }
}

/// What one reading means: what is sure, and what must be read twice.
fn symptoms(reading: &GpuReading) -> (Vec<Symptom>, Vec<Symptom>) {
    let mut sure = Vec::new();
    if reading.is_lost {
        sure.push(Symptom::Xid(79));
    }
    let pending = reading.has_pending_pages.unwrap_or(false);
    sure.extend(read_sensor(&Sensor::Remapping { is_pending: pending, has_failed: false }));
    let throttle = reading.throttle.map(|bits| Sensor::Throttle(Throttle(bits)));
    let heat =
        reading.temperature_c.map(|(now_c, slowdown_c)| Sensor::Temperature { now_c, slowdown_c });
    let is_busy = reading.busy_percent.is_some_and(|percent| percent >= WORKING_PERCENT);
    let link = reading.pcie_width.zip(reading.pcie_generation).filter(|_| is_busy);
    let link = link.map(|((width, width_max), (generation, generation_max))| Sensor::Pcie {
        width,
        width_max,
        generation,
        generation_max,
    });
    let power = reading.busy_percent.zip(reading.power_percent);
    let power =
        power.map(|(busy_percent, power_percent)| Sensor::Power { busy_percent, power_percent });
    let sensors = [throttle, heat, link, power].into_iter().flatten();
    let mut suspected: Vec<_> = sensors.filter_map(|sensor| read_sensor(&sensor)).collect();
    suspected.sort_unstable();
    suspected.dedup();
    (sure, suspected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> Gpu {
        Gpu {
            id: "0000:3b:00.0".to_owned(),
            uuid: None,
            name: "NVIDIA L4".to_owned(),
            vram_bytes: Some(24 << 30),
            driver: None,
            pci: Some("0000:3b:00.0".to_owned()),
            vendor: 0x10de,
            device: 1,
            is_software: false,
            nodes: vec!["/nonexistent/nvidia0".into()],
        }
    }

    #[test]
    fn readings_mean_what_the_table_says() {
        let mut gpus = Gpus::default();
        let mut take = |reading: GpuReading| {
            let reading = GpuReading { pci: "0000:3b:00.0".to_owned(), ..reading };
            let found = gpus.take(&[gpu()], &[reading]);
            assert!(found.iter().all(|(id, _)| *id == gpu().id));
            found.into_iter().map(|(_, symptom)| symptom).collect::<Vec<_>>()
        };
        let idle = GpuReading {
            pcie_width: Some((16, 16)),
            pcie_generation: Some((1, 4)),
            busy_percent: Some(0),
            power_percent: Some(9),
            ecc_uncorrected: Some(7),
            ..GpuReading::default()
        };
        assert_eq!(take(idle.clone()), []);
        assert_eq!(take(idle.clone()), [], "an idle link saves power");
        assert_eq!(
            take(GpuReading { ecc_uncorrected: Some(8), ..idle.clone() }),
            [Symptom::EccUncorrected]
        );
        let busy = GpuReading { busy_percent: Some(99), throttle: Some(0x40), ..idle.clone() };
        assert_eq!(take(busy.clone()), [], "once is not enough");
        let twice = [Symptom::PcieNarrow, Symptom::Hot, Symptom::BusyWithoutPower];
        assert_eq!(take(busy), twice);
        let lost = GpuReading { is_lost: true, has_pending_pages: Some(true), ..idle };
        assert_eq!(take(lost), [Symptom::Xid(79), Symptom::RemapPending]);
        let elsewhere =
            GpuReading { pci: "0000:65:00.0".to_owned(), is_lost: true, ..GpuReading::default() };
        assert_eq!(Gpus::default().take(&[gpu()], &[elsewhere]), []);
        assert!(is_gone(&gpu()));
    }

    #[test]
    fn sensors_that_fall_silent_are_noticed_once_they_have_answered() {
        let mut gpus = Gpus::default();
        let silent = (gpu().id, Symptom::SensorsSilent);
        let read = [GpuReading { pci: "0000:3b:00.0".to_owned(), ..GpuReading::default() }];
        let mut take = |readings: &[GpuReading]| gpus.take(&[gpu()], readings);
        assert_eq!([take(&[]), take(&[])], [[], []], "nothing is known of them");
        assert_eq!([take(&read), take(&[])], [[], []], "once is not enough");
        assert_eq!([take(&[]), take(&[])], [[silent.clone()], [silent]]);
        assert_eq!([take(&read), take(&[])], [[], []]);
    }

    #[test]
    fn a_load_that_is_not_read_is_not_made_up() {
        let mine = gpu();
        let pci = mine.pci.clone().unwrap();
        let silent = GpuReading { pci, ..GpuReading::default() };
        let read =
            GpuReading { busy_percent: Some(250), temperature_c: Some((71, 95)), ..silent.clone() };
        let lost = GpuReading { is_lost: true, ..read.clone() };
        let pending = GpuReading { has_pending_pages: Some(true), ..silent.clone() };
        let other = GpuReading { pci: "0000:ff:00.0".to_owned(), ..read };
        let of = |reading: GpuReading| {
            loads(std::slice::from_ref(&mine), &[reading]).get(&mine.id).copied()
        };
        assert_eq!(of(silent), Some(GpuLoad::default()));
        assert_eq!(of(read), Some(GpuLoad { busy_percent: 100, temperature_c: 71, fault: None }));
        let fault = of(pending).and_then(|load| load.fault);
        assert_eq!(fault, Some(Symptom::RemapPending), "no test brings it back before it is reset");
        assert_eq!((of(lost), of(other)), (None, None), "nothing is known of them");
    }

    #[test]
    fn a_folder_that_can_not_be_written_to_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let faults =
            |dir: &Path| machine(dir).into_iter().filter(|symptom| is_fault(*symptom)).count();
        assert_eq!(faults(dir.path()), 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(machine(&file), [Symptom::DiskError]);
        assert_eq!(
            full_percent("some avg10=1.00 avg60=2\nfull avg10=0.00 avg60=21.75 avg300=1"),
            Some(21)
        );
        assert_eq!(full_percent("nothing"), None);
    }
}
