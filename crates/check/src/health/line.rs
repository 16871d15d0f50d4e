//! Reading lines of the kernel log, as `/dev/kmsg`, `dmesg` and journals print them.
//!
//! The log holds text that others choose (names of processes and devices), so a symptom is read
//! only from where the driver writes it: at the beginning of the message. Each reader names the
//! kernel's file that prints what it reads, in the words of Linux 5.10 to 6.x.

use super::rules::Symptom;

/// Longer lines are cut before they are read.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Something that a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in microseconds since the machine started, if the line says so.
    pub at_us: Option<u64>,
    /// What.
    pub symptom: Symptom,
    /// Of which device: a PCI address or a device's name, if the line says so.
    pub device: Option<String>,
    /// Of which process, if the line says so.
    pub pid: Option<u32>,
}

/// Reads a line; nothing if it tells of no fault.
///
/// ```
/// use welkin_check::health::{Symptom, read_line};
/// let line = "[ 1234.500000] NVRM: Xid (PCI:0000:3b:00): 79, pid=1896, GPU has fallen off the bus.";
/// let event = read_line(line).unwrap();
/// assert_eq!(event.symptom, Symptom::Xid(79));
/// assert_eq!(event.device.as_deref(), Some("0000:3b:00"));
/// assert_eq!((event.at_us, event.pid), (Some(1_234_500_000), Some(1896)));
/// ```
pub fn read_line(line: &str) -> Option<Event> {
    let end = (0..=line.len().min(LINE_BYTES_MAX)).rev().find(|end| line.is_char_boundary(*end))?;
    let (at_us, message) = split(&line[..end])?;
    if is_of_process(message) {
        return None;
    }
    let readers =
        [xid, amd, pcie, memory, machine_check, thermal, nvme, disk, file_system, oom, other];
    let found = readers.iter().find_map(|read| read(message))?;
    Some(Event { at_us, ..found })
}

fn event(symptom: Symptom) -> Event {
    Event { at_us: None, symptom, device: None, pid: None }
}

fn of(symptom: Symptom, device: &str) -> Event {
    let device = device.trim_end_matches([':', ',', ')', '.']);
    let device = (!device.is_empty()).then(|| device.to_owned());
    Event { device, ..event(symptom) }
}

/// The time and the message, of the forms that logs have; nothing of what is not the kernel's.
fn split(line: &str) -> Option<(Option<u64>, &str)> {
    let line = line.trim();
    // /dev/kmsg: priority,sequence,microseconds,flags;message
    if let Some((head, message)) = line.split_once(';') {
        let numbers = head.split(',').take(3).map(|field| field.parse::<u64>().ok());
        if let [Some(priority), Some(_), Some(at)] = numbers.collect::<Vec<_>>()[..] {
            // From 8 on it is a program that writes there. A fragment (`c`) begins anywhere in what
            // the kernel says, so perhaps with a name.
            let is_fragment = head.split(',').nth(3).is_some_and(|flags| flags.starts_with('c'));
            let is_whole = priority < 8 && !is_fragment;
            return is_whole.then_some((Some(at), message.trim_start()));
        }
    }
    // A journal: date host kernel: message, perhaps with dmesg's time after it.
    let from_journal = line.split_once(" kernel: ").filter(|(head, _)| !head.contains(": "));
    let line = from_journal.map_or(line, |(_, message)| message);
    let line = line.strip_prefix("kernel: ").unwrap_or(line);
    // dmesg: [  seconds.micros] message
    if let Some(rest) = line.strip_prefix('[')
        && let Some((time, message)) = rest.split_once(']')
        && let Some((seconds, micros)) = time.trim().split_once('.')
        && let (Ok(seconds), Ok(micros)) = (seconds.parse::<u64>(), micros.parse::<u64>())
        && micros < 1_000_000
    {
        let at = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(micros));
        return Some((at, message.trim_start()));
    }
    Some((None, line))
}

/// The longest name of a process, in bytes (`TASK_COMM_LEN`, without its end).
const COMM_BYTES_MAX: usize = 15;

/// Whether the kernel begins this message with the name of a process, which whoever runs it has chosen:
/// `x[7]: segfault at 0 …`, `x invoked oom-killer: …`, `x: page allocation failure: …`, `x (7): …`.
fn is_of_process(message: &str) -> bool {
    let is_pid = |rest: &str, open: &str, close: char| {
        let digits = rest.strip_prefix(open).and_then(|rest| rest.split_once(close));
        digits.is_some_and(|(pid, _)| {
            !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    (0..=COMM_BYTES_MAX).filter_map(|end| message.get(end..)).any(|rest| {
        rest.starts_with(" invoked oom-killer:")
            || rest.starts_with(": page allocation failure")
            || is_pid(rest, "[", ']')
            || is_pid(rest, "(", ')')
            || is_pid(rest, " (", ')')
    })
}

/// The number at the beginning of a text.
fn number(text: &str) -> Option<u32> {
    let digits = text.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// `NVRM: Xid (PCI:0000:3b:00): 79, pid=1896, …`; older drivers leave `PCI:` out and quote pids.
fn xid(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("NVRM: Xid (")?;
    let (device, rest) = rest.split_once("):")?;
    let code = u16::try_from(number(rest)?).ok()?;
    let pid = rest.split_once("pid=").and_then(|(_, rest)| number(rest.trim_start_matches('\'')));
    let device = device.strip_prefix("PCI:").unwrap_or(device);
    Some(Event { pid, ..of(Symptom::Xid(code), device) })
}

/// `amdgpu 0000:03:00.0: amdgpu: GPU reset begin!` and `… ring gfx_0.0.0 timeout, signaled seq=…`
/// (`amdgpu_device.c`, `amdgpu_job.c`); of an older kernel a timeout names no device.
fn amd(message: &str) -> Option<Event> {
    let is_timeout = |text: &str| {
        let ring = text.strip_prefix("ring ").and_then(|text| text.split_once(" timeout, "));
        ring.is_some_and(|(ring, _)| !ring.contains(' '))
    };
    if let Some(text) = message.strip_prefix("[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ") {
        return is_timeout(text).then(|| event(Symptom::AmdTimeout));
    }
    let rest = message.strip_prefix("amdgpu ")?;
    let (device, rest) = rest.split_once(": ")?;
    let rest = rest.strip_prefix("amdgpu: ").unwrap_or(rest);
    let symptom = match rest {
        _ if rest.starts_with("GPU reset begin") => Symptom::AmdReset,
        _ if is_timeout(rest) => Symptom::AmdTimeout,
        _ if has_new_errors(rest) => Symptom::AmdUncorrected,
        _ => return None,
    };
    Some(of(symptom, device))
}

/// `2 uncorrectable hardware errors detected in umc block`, newer `{7}socket: 0, die: 0, 2 new
/// uncorrectable hardware errors …` (`amdgpu_ras.c`). What it says of all until now is said again and
/// again.
fn has_new_errors(text: &str) -> bool {
    let said = text.split_once(" uncorrectable hardware errors detected in ");
    said.is_some_and(|(head, block)| {
        let head = head.strip_suffix(" new").unwrap_or(head);
        let count = head.rsplit(' ').next().and_then(number);
        count.is_some_and(|count| count > 0) && !block.starts_with("total")
    })
}

/// `pcieport 0000:00:03.0: AER: Corrected error received: 0000:03:00.0`, and the lines after it
/// (`drivers/pci/pcie/aer.c`).
fn pcie(message: &str) -> Option<Event> {
    let (head, rest) = message.split_once(": ")?;
    let (_, device) = head.split_once(' ')?;
    let is_address = |device: &str| {
        device.len() >= 7
            && device.contains(':')
            && device.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b))
    };
    let text = rest.strip_prefix("AER: ").unwrap_or(rest);
    let is_report = text.contains("error received") || text.contains("error message received");
    if !is_address(device) || !(is_report || text.starts_with("PCIe Bus Error: severity=")) {
        return None;
    }
    let symptom = match text {
        _ if text.contains("Uncorrect") => Symptom::PcieUncorrected,
        _ if text.contains("Corrected") || text.contains("Correctable") => Symptom::PcieCorrected,
        _ => return None,
    };
    // Since Linux 6.8: `AER: Uncorrectable (Fatal) error message received from 0000:3b:00.0`.
    let source = text.rsplit_once("received: ").or_else(|| text.rsplit_once("received from "));
    let source = source.and_then(|(_, source)| source.split_whitespace().next());
    let device = source.unwrap_or(device);
    Some(if is_address(device) { of(symptom, device) } else { event(symptom) })
}

/// `EDAC MC0: 1 UE memory read error on …` (`drivers/edac/edac_mc.c`)
fn memory(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("EDAC ")?;
    let (device, rest) = rest.split_once(": ")?;
    let mut words = rest.split_whitespace();
    words.next().and_then(number)?;
    match words.next()? {
        "UE" => Some(of(Symptom::MemoryUncorrected, device)),
        "CE" => Some(of(Symptom::MemoryCorrected, device)),
        _ => None,
    }
}

/// The bit of a bank's status that says that an error was not corrected (`MCI_STATUS_UC`).
const UNCORRECTED: u64 = 1 << 61;

/// `mce: [Hardware Error]: CPU 10: Machine Check: 0 Bank 5: bea0000000000108`, and what is decoded of it
/// on AMD's processors (`arch/x86/kernel/cpu/mce/core.c`, `drivers/edac/mce_amd.c`).
fn machine_check(message: &str) -> Option<Event> {
    let decoded = message.strip_prefix("[Hardware Error]: ");
    let rest = message.strip_prefix("mce: [Hardware Error]: ").or(decoded)?;
    let is_decoded = decoded.is_some();
    match rest {
        "System Fatal error."
        | "Uncorrected, software restartable error."
        | "Uncorrected, software containable error."
            if is_decoded =>
        {
            return Some(event(Symptom::MachineCheck));
        }
        "Corrected error, no action required." if is_decoded => {
            return Some(event(Symptom::MachineCheckCorrected));
        }
        _ => (),
    }
    let (device, rest) = rest.split_once(": ")?;
    if !device.starts_with("CPU ") || !rest.starts_with("Machine Check") {
        return None;
    }
    let status = rest.rsplit_once(": ").and_then(|(_, hex)| u64::from_str_radix(hex, 16).ok());
    // One that can't be read may be the worse.
    let is_corrected = status.is_some_and(|status| status & UNCORRECTED == 0);
    let corrected = is_corrected.then_some(Symptom::MachineCheckCorrected);
    Some(of(corrected.unwrap_or(Symptom::MachineCheck), device))
}

/// `CPU3: Core temperature is above threshold, cpu clock is throttled (total events = 1)`, before Linux
/// 5.5 without `is` (`drivers/thermal/intel/therm_throt.c`), and `thermal thermal_zone0: cpu-thermal:
/// critical temperature reached, …` (`drivers/thermal/thermal_core.c`).
fn thermal(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("mce: ").unwrap_or(message);
    let (device, rest) = rest.split_once(": ")?;
    let level = ["Core ", "Package "].iter().find_map(|level| rest.strip_prefix(level));
    let is_throttled = level.is_some_and(|text| {
        let text = text.strip_prefix("temperature ");
        text.is_some_and(|text| text.trim_start_matches("is ").starts_with("above threshold"))
    });
    let is_hot = device.starts_with("CPU") && is_throttled
        || device.starts_with("thermal thermal_zone")
            && rest.contains("critical temperature reached");
    is_hot.then(|| of(Symptom::Hot, device))
}

/// `nvme nvme0: controller is down; will reset: CSTS=0x3, PCI_STATUS=0x10`, `nvme nvme0: I/O tag 12 (400c)
/// opcode 0x9 (Admin Cmd) QID 0 timeout, reset controller`, older `I/O 12 QID 0 timeout, …`
/// (`drivers/nvme/host/pci.c`, `core.c`).
fn nvme(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("nvme ")?;
    let (device, rest) = rest.split_once(": ")?;
    let has_hung = |end: &str| rest.starts_with("I/O ") && rest.ends_with(end);
    if has_hung(" timeout, reset controller") {
        return Some(of(Symptom::NvmeReset, device));
    }
    let is_down = [
        "controller is down",
        "Device not ready; aborting ",
        "Disabling device after reset failure",
        // Of older kernels.
        "Removing after probe failure",
    ]
    .iter()
    .any(|text| rest.starts_with(text));
    let is_down = is_down || has_hung(" timeout, disable controller");
    is_down.then(|| of(Symptom::NvmeDown, device))
}

/// `blk_update_request: I/O error, dev sda, sector 12345 …`, newer without the first word
/// (`block/blk-mq.c`, before `block/blk-core.c`).
fn disk(message: &str) -> Option<Event> {
    let rest = ["blk_update_request: ", "print_req_error: "]
        .iter()
        .find_map(|head| message.strip_prefix(head));
    let rest = rest.unwrap_or(message);
    let kinds = [
        "I/O error, dev ",
        "timeout error, dev ",
        "critical medium error, dev ",
        "critical target error, dev ",
    ];
    let device = kinds.iter().find_map(|head| rest.strip_prefix(head))?;
    // A sound disk that can't forget blocks by itself says so, once.
    let is_refusal = rest.starts_with("critical target")
        && ["(DISCARD)", "(WRITE_ZEROES)", "(SECURE_ERASE)", "(WRITE_SAME)"]
            .iter()
            .any(|op| rest.contains(op));
    let device = device.split_whitespace().next().filter(|_| !is_refusal)?;
    Some(of(Symptom::DiskError, device))
}

/// `EXT4-fs error (device sda1): …`, `EXT4-fs (sda1): Remounting filesystem read-only`
/// (`fs/ext4/super.c`), `XFS (dm-0): Metadata corruption detected at …` (`fs/xfs/xfs_error.c`,
/// `xfs_fsops.c`), `BTRFS: error (device sdb1: state A) in …` (`fs/btrfs/messages.c`).
fn file_system(message: &str) -> Option<Event> {
    let (kind, rest) = message.split_once(' ')?;
    let kind = if kind == "BTRFS:" { "BTRFS" } else { kind };
    if !["EXT4-fs", "XFS", "BTRFS"].contains(&kind) {
        return None;
    }
    let (_, device) = rest.split_once('(')?;
    let (device, text) = device.split_once(')')?;
    let device = device.strip_prefix("device ").unwrap_or(device);
    let device = device.split([' ', ':']).next()?;
    let text = text.trim_start_matches([':', ' ']);
    // Names of files and of what runs may stand in other lines: only each kind's own words count.
    let is_read_only = match kind {
        "XFS" => {
            text.ends_with("Shutting down filesystem.")
                || text.starts_with("Filesystem has been shut down")
        }
        "BTRFS" => text.contains("forced readonly") && !text.contains(" path"),
        _ => text.starts_with("Remounting filesystem read-only"),
    };
    if is_read_only {
        return Some(of(Symptom::FileSystemReadOnly, device));
    }
    let is_of_xfs =
        ["Metadata corruption ", "Metadata CRC error ", "Corruption ", "Internal error "]
            .iter()
            .any(|head| kind == "XFS" && text.starts_with(head));
    let is_error = rest.starts_with("error") || rest.starts_with("critical") || is_of_xfs;
    is_error.then(|| of(Symptom::FileSystem, device))
}

/// `Memory cgroup out of memory: Killed process 7 (x) …`, and for the machine `oom-kill:constraint=…,
/// task=x,pid=7,uid=0` (`mm/oom_kill.c`). The line after that, `Out of memory: Killed process …`, does not
/// tell whether the machine had none left, or only the nodes that work had bound itself to.
fn oom(message: &str) -> Option<Event> {
    if let Some(rest) = message.strip_prefix("Memory cgroup out of memory: ") {
        let killed = rest.trim_start_matches("Killed process");
        return Some(Event { pid: number(killed), ..event(Symptom::LeaseOutOfMemory) });
    }
    let rest = message.strip_prefix("oom-kill:constraint=")?;
    let (constraint, rest) = rest.split_once(',')?;
    let symptom = match constraint {
        "CONSTRAINT_NONE" => Symptom::HostOutOfMemory,
        "CONSTRAINT_CPUSET" | "CONSTRAINT_MEMORY_POLICY" => Symptom::NodeOutOfMemory,
        _ => return None,
    };
    // Whoever runs the task has chosen its name, which is before.
    let pid = rest.rsplit_once(",pid=").and_then(|(_, pid)| number(pid));
    Some(Event { pid, ..event(symptom) })
}

/// Lockups (`kernel/watchdog.c`), tasks that wait (`kernel/hung_task.c`), clocks
/// (`kernel/time/clocksource.c`) and links.
fn other(message: &str) -> Option<Event> {
    // `watchdog: BUG: soft lockup - CPU#3 stuck for 22s!`, `watchdog: CPU3: Watchdog detected hard LOCKUP
    // on cpu 3`, older `NMI watchdog: Watchdog detected hard LOCKUP …`.
    let watchdog = message.strip_prefix("NMI ").unwrap_or(message).strip_prefix("watchdog: ");
    if let Some(text) = watchdog {
        let is_numbered =
            |head: &str| head.strip_prefix("CPU").is_some_and(|n| number(n).is_some());
        let hard = text.split_once(": ").filter(|(head, _)| is_numbered(head));
        let hard = hard.map_or(text, |(_, text)| text);
        let is_lockup = text.starts_with("BUG: soft lockup")
            || hard.starts_with("Watchdog detected hard LOCKUP");
        return is_lockup.then(|| event(Symptom::Lockup));
    }
    if let Some(task) = message.strip_prefix("INFO: task ") {
        // `NAME:PID blocked for more than 120 seconds.`, perhaps `blocked in I/O wait for …`; whoever runs
        // it has chosen the name.
        let (task, _) = task.rsplit_once(" for more than ")?;
        let (task, _) = task.rsplit_once(" blocked")?;
        return Some(Event {
            pid: task.rsplit(':').next().and_then(number),
            ..event(Symptom::Hung)
        });
    }
    if message.starts_with("clocksource: timekeeping watchdog on CPU")
        && message.contains(" as unstable because the skew is too large")
    {
        return Some(event(Symptom::ClockSourceUnstable));
    }
    link_down(message)
}

/// `e1000e 0000:00:1f.6 eth0: NIC Link is Down`, `igb 0000:09:00.0 eth0: igb: eth0 NIC Link is Down`, `tg3
/// 0000:02:00.0 eth0: Link is down`: each driver's own words (`drivers/net`).
fn link_down(message: &str) -> Option<Event> {
    let ends = [" NIC Link is Down", ": Link is Down", ": Link is down", ": Link down"];
    let head = ends.iter().find_map(|end| message.strip_suffix(end))?;
    let device = head.rsplit([' ', ':']).find(|word| !word.is_empty())?;
    Some(of(Symptom::LinkDown, device))
}
