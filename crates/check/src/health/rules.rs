//! The table of rules: every symptom, how bad it is, whose fault, and where that is written.

use welkin_types::Fault;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Noted.
    Note,
    /// The part is slower or nearer to a fault than it should be; it goes on, and is shown so.
    Degraded,
    /// The part takes no new lease, ends the present ones in order and is tested.
    Drain,
    /// What runs on the part is lost: it ends at once, and the part is tested.
    Lost,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Symptom {
    /// An error that NVIDIA's driver reports, by its number.
    Xid(u16),
    /// An AMD GPU hung and was reset.
    AmdReset,
    /// Work on an AMD GPU took too long and was ended.
    AmdTimeout,
    /// An AMD GPU met memory errors that it could not correct.
    AmdUncorrected,
    /// A PCIe error that was corrected.
    PcieCorrected,
    /// A PCIe error that was not.
    PcieUncorrected,
    /// A PCIe link that is narrower or slower than it could be.
    PcieNarrow,
    /// Errors of main memory that were corrected.
    MemoryCorrected,
    /// Errors of main memory that were not.
    MemoryUncorrected,
    /// Work waits for memory much of the time.
    MemoryPressure,
    /// A processor reports a fault of its own.
    MachineCheck,
    /// A processor reports an error that it has corrected.
    MachineCheckCorrected,
    /// A processor or GPU slows down because it is too hot.
    Hot,
    /// A GPU slows down because its power supply says so.
    PowerBrake,
    /// A GPU is held below its power by configuration.
    PowerCap,
    /// A GPU says that it is busy and draws no power.
    BusyWithoutPower,
    /// A GPU's sensors have answered before and do not any more.
    SensorsSilent,
    /// GPU memory has met errors that it could not correct.
    EccUncorrected,
    /// GPU memory is to be remapped at the next reset.
    RemapPending,
    /// GPU memory could not be remapped.
    RemapFailed,
    /// A disk could not read or write.
    DiskError,
    /// An NVMe controller does not answer.
    NvmeDown,
    /// An NVMe controller did not answer in time and is reset; what it was asked for is asked again.
    NvmeReset,
    /// A file system found itself damaged.
    FileSystem,
    /// A file system is read-only because of an error.
    FileSystemReadOnly,
    /// No space is left.
    DiskFull,
    /// The clock is off.
    ClockSkew,
    /// The kernel has given up its fastest clock for a slower one. The time of day is right.
    ClockSourceUnstable,
    /// A task was killed for using more memory than its lease has.
    LeaseOutOfMemory,
    /// The machine itself ran out of memory.
    HostOutOfMemory,
    /// Nodes of memory that work had bound itself to ran out of it.
    NodeOutOfMemory,
    /// A processor was stuck in the kernel.
    Lockup,
    /// A task waits in the kernel for long.
    Hung,
    /// A network interface lost its link.
    LinkDown,
    /// It was written down how a part stood, and can't be read.
    ReportUnreadable,
}

impl Symptom {
    /// Its name, for machines: `xid_79`, `memory_uncorrected`.
    pub fn code(self) -> String {
        let name = match self {
            Self::Xid(number) => return format!("xid_{number}"),
            Self::AmdReset => "amd_reset",
            Self::AmdTimeout => "amd_timeout",
            Self::AmdUncorrected => "amd_uncorrected",
            Self::PcieCorrected => "pcie_corrected",
            Self::PcieUncorrected => "pcie_uncorrected",
            Self::PcieNarrow => "pcie_narrow",
            Self::MemoryCorrected => "memory_corrected",
            Self::MemoryUncorrected => "memory_uncorrected",
            Self::MemoryPressure => "memory_pressure",
            Self::MachineCheck => "machine_check",
            Self::MachineCheckCorrected => "machine_check_corrected",
            Self::Hot => "hot",
            Self::PowerBrake => "power_brake",
            Self::PowerCap => "power_cap",
            Self::BusyWithoutPower => "busy_without_power",
            Self::SensorsSilent => "sensors_silent",
            Self::EccUncorrected => "ecc_uncorrected",
            Self::RemapPending => "remap_pending",
            Self::RemapFailed => "remap_failed",
            Self::DiskError => "disk_error",
            Self::NvmeDown => "nvme_down",
            Self::NvmeReset => "nvme_reset",
            Self::FileSystem => "file_system",
            Self::FileSystemReadOnly => "file_system_read_only",
            Self::DiskFull => "disk_full",
            Self::ClockSkew => "clock_skew",
            Self::ClockSourceUnstable => "clock_source_unstable",
            Self::LeaseOutOfMemory => "lease_out_of_memory",
            Self::HostOutOfMemory => "host_out_of_memory",
            Self::NodeOutOfMemory => "node_out_of_memory",
            Self::Lockup => "lockup",
            Self::Hung => "hung_task",
            Self::LinkDown => "link_down",
            Self::ReportUnreadable => "report_unreadable",
        };
        name.to_owned()
    }

    /// The symptom with this name.
    pub fn of_code(code: &str) -> Option<Self> {
        let known = || RULES.iter().map(|rule| rule.symptom).find(|symptom| symptom.code() == code);
        match code.strip_prefix("xid_") {
            Some(number) => number.parse().ok().map(Self::Xid),
            None => known(),
        }
    }
}

/// What a symptom means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of what.
    pub symptom: Symptom,
    /// How bad.
    pub severity: Severity,
    /// Whose fault, if nothing else is known. [`Fault::Buyer`] holds only for work of a lease.
    pub fault: Fault,
    /// In words.
    pub meaning: &'static str,
    /// What the host's operator should do.
    pub remedy: &'static str,
    /// Where it is written.
    pub source: &'static str,
}

const XID: &str = "NVIDIA, Xid errors: docs.nvidia.com/deploy/xid-errors";
const MEMORY: &str =
    "NVIDIA, GPU memory error management: docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt";
const NVML: &str = "NVIDIA, NVML API, clocks event reasons: docs.nvidia.com/deploy/nvml-api";
const SILENT: &str = "NVIDIA, NVML API: docs.nvidia.com/deploy/nvml-api";
const HEAT: &str = "NVIDIA, NVML API, clocks event reasons: docs.nvidia.com/deploy/nvml-api; Linux, drivers/thermal/intel/therm_throt.c, drivers/thermal/thermal_core.c";
const AER: &str = "Linux, drivers/pci/pcie/aer.c: docs.kernel.org/PCI/pcieaer-howto.html";
const EDAC: &str = "Linux, drivers/edac/edac_mc.c: docs.kernel.org/driver-api/edac.html";
const MCE: &str = "Linux, arch/x86/kernel/cpu/mce/core.c, drivers/edac/mce_amd.c: docs.kernel.org/arch/x86/x86_64/machinecheck.html";
const BLOCK: &str = "Linux, block/blk-mq.c: blk_print_req_error";
const NVME: &str =
    "Linux, drivers/nvme/host/pci.c: nvme_timeout, nvme_reset_work; core.c: nvme_wait_ready";
const FILES: &str =
    "Linux, fs/ext4/super.c, fs/xfs/xfs_error.c, fs/xfs/xfs_fsops.c, fs/btrfs/messages.c";
const SPACE: &str = "Linux, statvfs(3), and ENOSPC and EDQUOT of write(2); from where on it is full is Welkin's choice";
const OOM: &str = "Linux, mm/oom_kill.c: docs.kernel.org/admin-guide/cgroup-v2.html";
const PSI: &str = "Linux, pressure stall information: docs.kernel.org/accounting/psi.html";
const LOCKUP: &str = "Linux, kernel/watchdog.c: docs.kernel.org/admin-guide/lockup-watchdogs.html";
const HUNG: &str = "Linux, kernel/hung_task.c: check_hung_task";
const CLOCK_SOURCE: &str = "Linux, kernel/time/clocksource.c: clocksource_watchdog";
const AMD: &str = "Linux, drivers/gpu/drm/amd/amdgpu, amdgpu_device.c and amdgpu_ras.c: docs.kernel.org/gpu/amdgpu";
const AMD_JOB: &str = "Linux, drivers/gpu/drm/amd/amdgpu/amdgpu_job.c: amdgpu_job_timedout";
const OPERSTATE: &str = "Linux, drivers/net: docs.kernel.org/networking/operstates.html";
const REPORT: &str = "Welkin: health/report.json in the host's folder";
const WELKIN: &str = "Welkin: signed statements carry times, so that a wrong clock voids them";
const SENSORS: &str = "Welkin: a lease was sold at the power and width that were measured";

const RESET: &str = "reset the GPU, then requalify";
const REPLACE: &str = "drain, run the vendor's diagnostics, replace the GPU if it comes back";
const BUYERS: &str = "nothing, unless it follows work of different buyers";
const SEAT: &str = "reseat the card or riser, check power and firmware";

macro_rules! rules {
    ($($symptom:expr, $severity:ident, $fault:ident, $meaning:expr, $remedy:expr, $source:expr;)*) => {
        /// All rules.
        pub const RULES: &[Rule] = &[$(Rule {
            symptom: $symptom,
            severity: Severity::$severity,
            fault: Fault::$fault,
            meaning: $meaning,
            remedy: $remedy,
            source: $source,
        }),*];
    };
}

use Symptom::*;

rules! {
    Xid(8), Note, Buyer, "a channel was idle for too long", BUYERS, XID;
    Xid(13), Note, Buyer, "the work made the GPU raise an exception", BUYERS, XID;
    Xid(31), Note, Buyer, "the work touched memory that is not its own", BUYERS, XID;
    Xid(32), Drain, Host, "commands were damaged on their way to the GPU", SEAT, XID;
    Xid(38), Drain, Host, "the GPU's firmware failed", "update the driver, then requalify", XID;
    Xid(43), Note, Buyer, "the work hung and was ended", BUYERS, XID;
    Xid(45), Note, Unknown, "the driver ended work after another error", "see the error before", XID;
    Xid(46), Drain, Host, "the GPU stopped processing", RESET, XID;
    Xid(48), Lost, Host, "memory lost two bits", REPLACE, XID;
    Xid(54), Drain, Host, "auxiliary power is not connected", "connect the card's power", XID;
    Xid(56), Degraded, Host, "the display engine failed", "update the driver", XID;
    Xid(61), Drain, Host, "the GPU's microcontroller stopped", RESET, XID;
    Xid(62), Drain, Host, "the GPU's microcontroller halted", RESET, XID;
    Xid(63), Drain, Host, "a row of memory is to be remapped at a reset", RESET, MEMORY;
    Xid(64), Lost, Host, "a row of memory could not be remapped", REPLACE, MEMORY;
    Xid(68), Note, Buyer, "the video decoder met work that it can't do", BUYERS, XID;
    Xid(69), Note, Buyer, "the work used an engine wrongly", BUYERS, XID;
    Xid(74), Drain, Host, "an NVLink failed", "reseat the bridge or board, then requalify", XID;
    Xid(79), Lost, Host, "the GPU has fallen off the bus", SEAT, XID;
    Xid(92), Degraded, Host, "many single bits of memory were corrected", REPLACE, MEMORY;
    Xid(94), Drain, Host, "a memory error was contained in one task", RESET, MEMORY;
    Xid(95), Lost, Host, "a memory error was not contained", RESET, MEMORY;
    Xid(109), Drain, Unknown, "a context switch took too long", RESET, XID;
    Xid(119), Lost, Host, "the GPU's system processor does not answer", RESET, XID;
    Xid(120), Lost, Host, "the GPU's system processor failed", RESET, XID;
    Xid(121), Drain, Host, "the link between processor and GPU failed", RESET, XID;
    Xid(140), Lost, Host, "memory errors could not be recovered", RESET, MEMORY;
    Xid(143), Lost, Host, "the GPU could not be initialised", "power-cycle the machine", XID;
    Xid(154), Note, Unknown, "what must be done after an error has changed", "see the error before", XID;
    AmdReset, Lost, Unknown, "the GPU hung and was reset", "update the firmware if it comes back", AMD;
    AmdTimeout, Note, Buyer, "the work took too long and was ended", BUYERS, AMD_JOB;
    AmdUncorrected, Lost, Host, "GPU memory had errors that were not corrected", REPLACE, AMD;
    PcieCorrected, Note, Host, "a PCIe error was corrected", SEAT, AER;
    PcieUncorrected, Drain, Host, "a PCIe error was not corrected", SEAT, AER;
    PcieNarrow, Degraded, Host, "the PCIe link is narrower or slower than it could be", SEAT, SENSORS;
    MemoryCorrected, Note, Host, "errors of main memory were corrected", "replace the module if they go on", EDAC;
    MemoryUncorrected, Lost, Host, "errors of main memory were not corrected", "replace the module", EDAC;
    MemoryPressure, Degraded, Host, "work waits for memory much of the time", "offer less memory than there is", PSI;
    MachineCheck, Drain, Host, "a processor reports a fault", "update microcode, check power and cooling", MCE;
    MachineCheckCorrected, Note, Host, "a processor has corrected an error", "update microcode, check power and cooling if they go on", MCE;
    Hot, Degraded, Host, "it slows down because it is too hot", "clean and check the cooling", HEAT;
    PowerBrake, Degraded, Host, "the power supply asks to slow down", "check supply and cables", NVML;
    PowerCap, Note, Host, "it is held below its power", "raise the limit, or offer it as a lower class", NVML;
    BusyWithoutPower, Degraded, Host, "it claims to be busy and draws no power", "check driver and sensor", SENSORS;
    SensorsSilent, Degraded, Host, "its sensors do not answer any more", "see whether `nvidia-smi` answers, restart the driver", SILENT;
    EccUncorrected, Drain, Host, "GPU memory had errors that were not corrected", RESET, MEMORY;
    RemapPending, Drain, Host, "memory is to be remapped at the next reset", RESET, MEMORY;
    RemapFailed, Lost, Host, "memory could not be remapped", REPLACE, MEMORY;
    DiskError, Drain, Host, "a disk could not read or write", "replace the disk", BLOCK;
    NvmeDown, Lost, Host, "an NVMe controller does not answer", "update its firmware, reseat or replace it", NVME;
    NvmeReset, Drain, Host, "an NVMe controller hung and is reset", "update its firmware, reseat or replace it", NVME;
    FileSystem, Drain, Host, "a file system is damaged", "check and repair it", FILES;
    FileSystemReadOnly, Lost, Host, "a file system is read-only after an error", "check and repair it", FILES;
    DiskFull, Drain, Host, "no space is left", "free space; leases have quotas of their own", SPACE;
    ClockSkew, Drain, Host, "the clock is off", "run NTP or PTP", WELKIN;
    ClockSourceUnstable, Note, Host, "reading the time is slow; the time is right", "update the firmware", CLOCK_SOURCE;
    LeaseOutOfMemory, Note, Buyer, "work used more memory than its lease has", BUYERS, OOM;
    HostOutOfMemory, Drain, Host, "the machine ran out of memory", "offer less memory than there is", OOM;
    NodeOutOfMemory, Note, Unknown, "work bound itself to a part of the memory, and that ran out", "offer less memory than there is on a node", OOM;
    Lockup, Drain, Host, "a processor was stuck in the kernel", "update the kernel, check the hardware", LOCKUP;
    Hung, Note, Unknown, "a task waits in the kernel, perhaps for a disk, perhaps for its own file system", "look for errors of a disk at that time", HUNG;
    LinkDown, Degraded, Network, "a network interface lost its link", "check cable and switch", OPERSTATE;
    ReportUnreadable, Drain, Host, "how it stood before the restart can't be read", "look into the host's log", REPORT;
}

/// The rule for a symptom. An Xid that the table does not know is noted, and nobody's fault.
pub fn rule_of(symptom: Symptom) -> Rule {
    let known = RULES.iter().find(|rule| rule.symptom == symptom).copied();
    known.unwrap_or(Rule {
        symptom,
        severity: Severity::Note,
        fault: Fault::Unknown,
        meaning: "an error that the table does not know",
        remedy: "look it up in the catalogue of the vendor",
        source: XID,
    })
}
