//! What a checker looks at beside the challenge: room, disk, ports, clock, the kernel's log.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use welkin_check::health::{
    CLOCK_SKEW_MS_MAX, LINE_BYTES_MAX, Rule, Sensor, Severity, Symptom, read_line, read_sensor,
    rule_of,
};
use welkin_node::host::HostContainer;
use welkin_node::{Caller, outside};
use welkin_proto::check::{Probe, ProbeReply};
use welkin_proto::{ALPN_CHECK, Signed};
use welkin_runtime::inventory;

use crate::Context;
use crate::client::{self, Client};
use crate::doctor::{Check, Status};
use crate::market::size;

/// What is written to measure the disk.
const DISK_BYTES: usize = 64 << 20;
/// A disk that writes less than this makes images and logs wait.
const DISK_MIB_PER_S_MIN: u64 = 50;
/// Hosts that are asked what time it is.
const CLOCKS: usize = 5;
/// How long one may take to answer.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// The most that is read of the kernel's log.
const LOG_BYTES_MAX: usize = 16 << 20;
const KERNEL_LOG: &str = "/dev/kmsg";

pub(super) fn offers(containers: &[HostContainer]) -> Check {
    let each = containers.iter().map(|container| {
        let offer = &container.offer;
        format!("{} x {} ({})", offer.slots, offer.class, offer.resources)
    });
    Check::ok("offers", each.collect::<Vec<_>>().join("; "))
}

/// All leases at once must fit.
pub(super) fn memory(containers: &[HostContainer], there: u64) -> Check {
    let each = containers.iter().map(|container| {
        let offer = &container.offer;
        offer.resources.memory_bytes.saturating_mul(offer.slots.into())
    });
    let offered = each.fold(0_u64, u64::saturating_add);
    let found = format!("{} offered of {}", size(offered), size(there));
    if offered > there {
        let remedy = "offer less: fewer slots or a smaller `memory_mib` in `host.containers`";
        return Check::new("memory", Status::Fail, found, remedy);
    }
    Check::ok("memory", found)
}

/// How fast the host's folder takes what is written, on the disk and not in memory.
pub(super) async fn disk(context: &Context) -> Check {
    let own = &context.config.host.dir;
    let dir = if own.as_os_str().is_empty() { context.dir.join("host") } else { own.clone() };
    // The folder itself may not be made yet.
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/"));
    let there = there.to_owned();
    let shown = there.display().to_string();
    let free = inventory::disk_free_bytes(&there);
    let measured = tokio::task::spawn_blocking(move || written(&there)).await;
    let failed = |why: String| {
        let remedy = "name a folder that this user may write to: --dir, or `host.dir`";
        Check::new("disk", Status::Fail, format!("{shown}: {why}"), remedy)
    };
    let took = match measured {
        Ok(Ok(took)) => took,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(error) => return failed(error.to_string()),
    };
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let rate = ((DISK_BYTES as u64).saturating_mul(1_000_000) / micros) >> 20;
    let free = free.map_or_else(|error| error.to_string(), |bytes| format!("{} free", size(bytes)));
    let found = format!("{rate} MiB/s written, {free} in {shown}");
    if rate < DISK_MIB_PER_S_MIN {
        let remedy =
            format!("take a disk that writes {DISK_MIB_PER_S_MIN} MiB/s or more: `host.dir`");
        return Check::new("disk", Status::Fail, found, &remedy);
    }
    Check::ok("disk", found)
}

fn written(dir: &Path) -> std::io::Result<Duration> {
    // Bytes that no file system shortens.
    let mut state = u64::from_le_bytes(outside::random()) | 1;
    let mut block = vec![0; 1 << 20];
    for bytes in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&state.to_le_bytes());
    }
    // Without a name: it goes with this process, whatever happens to it.
    let file = rustix::fs::open(
        dir,
        OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )?;
    let (mut file, begun) = (std::fs::File::from(file), Instant::now());
    for _ in 0..DISK_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(begun.elapsed())
}

/// Whether the host's own address can be had.
pub(super) fn ports(listen: &str) -> Check {
    let name = "ports";
    let Ok(addr) = listen.parse::<SocketAddr>() else {
        let found = format!("`{listen}` is no address");
        return Check::new(name, Status::Fail, found, "set `host.listen` to ADDRESS:PORT");
    };
    match UdpSocket::bind(addr) {
        Ok(_) if addr.port() == 0 => Check::ok(name, format!("any free port of {}", addr.ip())),
        Ok(_) => Check::ok(name, format!("UDP {addr} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let remedy = "fine if that is this host; else choose another port in `host.listen`";
            Check::new(name, Status::Warn, format!("UDP {addr} is in use"), remedy)
        }
        Err(error) => {
            let remedy = "set `host.listen` to an address of this machine";
            Check::new(name, Status::Fail, format!("UDP {addr}: {error}"), remedy)
        }
    }
}

/// The clock against those of other hosts: the middle one, so that few wrong ones do no harm.
pub(super) async fn clock(context: &Context) -> Check {
    let name = "clock";
    let skipped = |why: &str| {
        let found = format!("not compared: {why}");
        Check::new(name, Status::Skip, found, "run NTP, and test again within a network")
    };
    if client::network(context).is_err() {
        return skipped("no network is known here");
    }
    let Ok(client) = Client::open(context).await else { return skipped("no network was reached") };
    let mut skews = skews(&client).await;
    client.close().await;
    skews.sort_unstable();
    let Some(skew) = skews.get(skews.len() / 2).copied() else {
        return skipped("no other host answered");
    };
    let found = format!("{skew} ms from the middle of {} hosts", skews.len());
    match read_sensor(&Sensor::ClockSkew(skew.unsigned_abs())).map(rule_of) {
        None => Check::ok(name, found),
        Some(rule) => {
            let found = format!("{found}; at most {CLOCK_SKEW_MS_MAX} ms may be");
            Check::new(name, Status::Fail, found, rule.remedy)
        }
    }
}

async fn skews(client: &Client) -> Vec<i64> {
    let rows = client.buyer.offers(None).await.unwrap_or_default();
    let hosts: BTreeMap<_, _> = rows.into_iter().map(|row| (row.addr.node, row.addr)).collect();
    let mut skews = Vec::new();
    for (node, addr) in hosts.into_iter().take(CLOCKS) {
        let caller = Caller::new(client.buyer.endpoint().clone(), addr, ALPN_CHECK);
        // Dialling must not count as the way.
        let Ok(Ok(_)) = tokio::time::timeout(CLOCK_TIMEOUT, caller.connection()).await else {
            continue;
        };
        let probe = Probe { nonce: outside::random(), minute: outside::now().0 / 60_000 };
        let sent = outside::now();
        let Ok(reply) = caller.ask::<_, Signed<ProbeReply>>(&probe, CLOCK_TIMEOUT).await else {
            continue;
        };
        let middle = (sent.0 + outside::now().0) / 2;
        let reply = reply.open_by(client.buyer.domain(), node);
        let skew = reply.ok().filter(|reply| reply.nonce == probe.nonce).and_then(|reply| {
            let (theirs, ours) = (i64::try_from(reply.at.0).ok()?, i64::try_from(middle).ok()?);
            theirs.checked_sub(ours)
        });
        skews.extend(skew);
    }
    skews
}

/// What the kernel's log tells of faults.
pub(super) fn health(log: Option<&Path>) -> Vec<Check> {
    let name = "health";
    let path = log.unwrap_or_else(|| Path::new(KERNEL_LOG));
    let text = match read_log(path) {
        Ok(text) => text,
        Err(error) => {
            let found = format!("{} can't be read: {error}", path.display());
            let remedy = "run as root, or `dmesg > FILE` as root and pass --kernel-log FILE";
            return vec![Check::new(name, Status::Skip, found, remedy)];
        }
    };
    let mut seen: BTreeMap<_, (u32, Option<String>)> = BTreeMap::new();
    let mut lines = 0_u32;
    for line in text.split(|byte| *byte == b'\n') {
        lines += 1;
        let line = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let Some(event) = read_line(&line) else { continue };
        let entry = seen.entry(event.symptom).or_default();
        entry.0 += 1;
        entry.1 = entry.1.take().or(event.device);
    }
    if seen.is_empty() {
        return vec![Check::ok(name, format!("no fault in {lines} lines of the kernel's log"))];
    }
    let of = |(symptom, (count, device)): (Symptom, (u32, Option<String>))| {
        let Rule { severity, meaning, remedy, .. } = rule_of(symptom);
        let status = match severity {
            Severity::Note => Status::Ok,
            Severity::Degraded => Status::Warn,
            Severity::Drain | Severity::Lost => Status::Fail,
        };
        let at = device.map_or_else(String::new, |device| format!(" ({device})"));
        let found = format!("{symptom:?}{at}: {meaning}, {count} times since the start");
        Check::new(name, status, found, if status == Status::Ok { "" } else { remedy })
    };
    seen.into_iter().map(of).collect()
}

/// A file, or the kernel's log as far as it goes now.
fn read_log(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let (mut text, mut record) = (Vec::new(), vec![0; 64 << 10]);
    while text.len() < LOG_BYTES_MAX {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(len) => text.extend_from_slice(&record[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            // Records were overwritten meanwhile: it goes on with the oldest that there is.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => (),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}
