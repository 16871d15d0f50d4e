//! Reading lines of the kernel log, as `/dev/kmsg`, `dmesg` and journals print them.
//!
//! The log holds text that others choose (names of processes and devices), so a symptom is read
//! only from where the driver writes it: at the beginning of the message.

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
            // From 8 on it is a program that writes there.
            return (priority < 8).then_some((Some(at), message.trim_start()));
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

/// `amdgpu 0000:03:00.0: amdgpu: GPU reset begin!`
fn amd(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("amdgpu ")?;
    let (device, rest) = rest.split_once(": ")?;
    let rest = rest.strip_prefix("amdgpu: ").unwrap_or(rest);
    let symptom = match rest {
        _ if rest.starts_with("GPU reset begin") || rest.contains("ring timeout") => {
            Symptom::AmdReset
        }
        _ if rest.contains("uncorrectable hardware errors detected") => Symptom::AmdUncorrected,
        _ => return None,
    };
    Some(of(symptom, device))
}

/// `pcieport 0000:00:03.0: AER: Corrected error received: 0000:03:00.0`, and the lines after it.
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

/// `EDAC MC0: 1 UE memory read error on …`
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

/// `mce: [Hardware Error]: CPU 10: Machine Check: 0 Bank 5: bea0000000000108`
fn machine_check(message: &str) -> Option<Event> {
    let rest = message
        .strip_prefix("mce: [Hardware Error]: ")
        .or_else(|| message.strip_prefix("[Hardware Error]: "))?;
    let (device, rest) = rest.split_once(": ")?;
    (device.starts_with("CPU ") && rest.starts_with("Machine Check"))
        .then(|| of(Symptom::MachineCheck, device))
}

/// `mce: CPU3: Core temperature above threshold, cpu clock throttled (total events = 1)`
fn thermal(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("mce: ").unwrap_or(message);
    let (device, rest) = rest.split_once(": ")?;
    let is_hot = device.starts_with("CPU") && rest.contains("temperature above threshold")
        || device.starts_with("thermal thermal_zone")
            && rest.contains("critical temperature reached");
    is_hot.then(|| of(Symptom::Hot, device))
}

/// `nvme nvme0: controller is down; will reset: CSTS=0x3, PCI_STATUS=0x10`
fn nvme(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("nvme ")?;
    let (device, rest) = rest.split_once(": ")?;
    let is_down = [
        "controller is down",
        "Device not ready",
        "Removing after probe failure",
        "I/O timeout, reset controller",
    ]
    .iter()
    .any(|text| rest.contains(text));
    is_down.then(|| of(Symptom::NvmeDown, device))
}

/// `blk_update_request: I/O error, dev sda, sector 12345 …`, without the first word since Linux 5.18.
fn disk(message: &str) -> Option<Event> {
    let rest = ["blk_update_request: ", "print_req_error: "]
        .iter()
        .find_map(|head| message.strip_prefix(head));
    let rest = rest.unwrap_or(message);
    let kinds = ["I/O error, dev ", "critical medium error, dev ", "critical target error, dev "];
    let device = kinds.iter().find_map(|head| rest.strip_prefix(head))?;
    Some(of(Symptom::DiskError, device.split_whitespace().next()?))
}

/// `EXT4-fs error (device sda1): …`, `EXT4-fs (sda1): Remounting filesystem read-only`, XFS, btrfs.
fn file_system(message: &str) -> Option<Event> {
    let (kind, rest) = message.split_once(' ')?;
    if !["EXT4-fs", "XFS", "BTRFS"].contains(&kind) {
        return None;
    }
    let (_, device) = rest.split_once('(')?;
    let (device, text) = device.split_once(')')?;
    let device = device.strip_prefix("device ").unwrap_or(device);
    let device = device.split([' ', ':']).next()?;
    let text = text.trim_start_matches([':', ' ']);
    let is_read_only = text.starts_with("Remounting filesystem read-only")
        || text.contains("forced readonly")
        || text.contains("Shutting down filesystem")
        || text.contains("Filesystem has been shut down");
    if is_read_only {
        return Some(of(Symptom::FileSystemReadOnly, device));
    }
    let is_error =
        rest.starts_with("error") || rest.starts_with("critical") || text.contains("Corruption");
    is_error.then(|| of(Symptom::FileSystem, device))
}

/// `Memory cgroup out of memory: Killed process 7 (x) …`, `Out of memory: Killed process 7 (x) …`
fn oom(message: &str) -> Option<Event> {
    let (symptom, rest) = match message.strip_prefix("Memory cgroup out of memory: ") {
        Some(rest) => (Symptom::LeaseOutOfMemory, rest),
        None => (Symptom::HostOutOfMemory, message.strip_prefix("Out of memory: ")?),
    };
    let pid = number(rest.trim_start_matches("Killed process").trim_start_matches("Kill process"));
    Some(Event { pid, ..event(symptom) })
}

/// Lockups, links, and clocks.
fn other(message: &str) -> Option<Event> {
    let lockup = message.starts_with("watchdog: BUG: soft lockup")
        || message.starts_with("watchdog: Watchdog detected hard LOCKUP")
        || message.starts_with("INFO: task ") && message.contains(" blocked for more than ");
    if lockup {
        return Some(event(Symptom::Lockup));
    }
    if message.starts_with("clocksource: timekeeping watchdog")
        && message.contains("skew is too large")
    {
        return Some(event(Symptom::ClockSkew));
    }
    let (head, text) = message.rsplit_once(": ")?;
    let is_down = text == "Link is Down" || text == "NIC Link is Down" || text == "Link down";
    let device = head.rsplit([' ', ':']).find(|word| !word.is_empty())?;
    is_down.then(|| of(Symptom::LinkDown, device))
}
