//! How a host's parts stand, as it is kept on the disk and shown: one file, replaced as a whole.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use welkin_lease::Unit;
use welkin_types::{Fault, UnixMillis};

use super::log::{Cursor, LogCounters};

/// The folder in a host's folder.
const FOLDER: &str = "health";
/// What stands for the machine among units.
const HOST: &str = "host";
/// The most units, events and past faults that are read back.
pub(super) const UNITS_MAX: usize = 64;
pub(super) const EVENTS_MAX: usize = 64;
pub(super) const PAST_MAX: usize = 16;
/// The largest file that is read back.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How a part of a host stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// As it should be.
    #[default]
    InService,
    /// In service, slower or nearer to a fault than it should be.
    Degraded,
    /// Takes no new lease; the present ones end.
    Draining,
    /// Is being tested.
    Testing,
    /// Waits for its next test.
    Waiting,
    /// Out of service until its operator says that it is repaired.
    Retired,
}

impl UnitState {
    /// Its name, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InService => "in service",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Testing => "testing",
            Self::Waiting => "waits for a test",
            Self::Retired => "retired",
        }
    }
}

/// One time out of service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outage {
    /// Why: the symptom's name.
    pub reason: String,
    /// When that was seen.
    pub seen: UnixMillis,
    /// When nothing ran any more.
    pub drained: Option<UnixMillis>,
    /// When it had passed a test.
    pub back: Option<UnixMillis>,
}

/// One part of a host: a GPU, or the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitReport {
    /// `host`, or the GPU's place.
    pub unit: String,
    /// How it stands.
    pub state: UnitState,
    /// Why it is not in service, or degraded: the symptom's name.
    pub reason: Option<String>,
    /// Whose fault that is.
    pub fault: Option<Fault>,
    /// The same in words.
    pub meaning: String,
    /// What its operator should do.
    pub remedy: String,
    /// Since when.
    pub since: Option<UnixMillis>,
    /// When something happens next at the latest: leases have ended, a test ends or begins.
    pub next: Option<UnixMillis>,
    /// Self-tests since the fault.
    pub attempt: u32,
    /// How often it failed within a day of its return.
    pub relapses: u32,
    /// What the last self-test found.
    pub test: String,
    /// When it was out of service, the latest last.
    pub outages: Vec<Outage>,
}

/// Something that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventReport {
    /// When, the last time.
    pub at: UnixMillis,
    /// On which unit; empty: on a part that is not leased.
    pub unit: String,
    /// What.
    pub symptom: String,
    /// Whose fault, if nothing else is known.
    pub fault: Option<Fault>,
    /// How often without anything else between.
    pub count: u64,
}

/// The kernel's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogReport {
    /// Which; empty: none.
    pub path: PathBuf,
    /// Why it can't be read, if it can't.
    pub trouble: Option<String>,
    /// What has become of its lines.
    pub counters: LogCounters,
    pub(super) cursor: Cursor,
}

/// A host's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthReport {
    /// When this was written.
    pub at: UnixMillis,
    /// The kernel's log.
    pub log: LogReport,
    /// The parts.
    pub units: Vec<UnitReport>,
    /// What was seen, the latest last.
    pub events: Vec<EventReport>,
}

impl HealthReport {
    /// Reads what a host has written in its folder.
    ///
    /// # Errors
    ///
    /// Where there is none, or it is damaged.
    pub fn load(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(FOLDER).join("report.json");
        let too_large = |len| len > FILE_BYTES_MAX;
        if too_large(std::fs::metadata(&path)?.len()) {
            return Err(std::io::Error::other("it is larger than any that a host writes"));
        }
        let mut report: Self = serde_json::from_slice(&std::fs::read(&path)?)?;
        report.units.truncate(UNITS_MAX);
        report.events.truncate(EVENTS_MAX);
        Ok(report)
    }

    /// Replaces the file; what is there afterwards is whole, whatever happens meanwhile.
    pub(super) fn save(&self, dir: &Path, is_urgent: bool) -> std::io::Result<()> {
        let dir = dir.join(FOLDER);
        std::fs::create_dir_all(&dir)?;
        let (new, path) = (dir.join("report.new"), dir.join("report.json"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        if is_urgent {
            file.sync_all()?;
        }
        std::fs::rename(&new, &path)?;
        if is_urgent {
            File::open(&dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// A unit's name in the report.
pub(super) fn name_of(unit: &Unit) -> &str {
    match unit {
        Unit::Host => HOST,
        Unit::Device(id) => id,
    }
}

/// The unit of this name.
pub(super) fn unit_of(name: &str) -> Unit {
    if name == HOST { Unit::Host } else { Unit::Device(name.to_owned()) }
}

fn repaired(dir: &Path, unit: &str) -> PathBuf {
    dir.join(FOLDER).join(format!("repaired-{}", unit.replace('/', "_")))
}

/// Leaves word for the host of this folder that a unit is repaired.
///
/// # Errors
///
/// Where the folder can't be written to.
pub fn say_repaired(dir: &Path, unit: &str) -> std::io::Result<()> {
    File::create(repaired(dir, unit)).map(drop)
}

/// Whether there is word that a unit is repaired; it is taken away.
pub(super) fn is_repaired(dir: &Path, unit: &Unit) -> bool {
    std::fs::remove_file(repaired(dir, name_of(unit))).is_ok()
}
