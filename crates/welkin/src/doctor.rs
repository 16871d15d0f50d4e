//! `welkin doctor`: what this machine can do, tried rather than assumed, and what to mend.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::timeout;
use welkin_node::Shutdown;
use welkin_node::host::{HostContainer, SandboxdLaunch, Sandboxes, containers_of};
use welkin_runtime::inventory::{self, Gpu, Inventory};
use welkin_runtime::{Capabilities, CgroupVersion};
use welkin_types::{NodeId, Tier};

use crate::client::{self, Client};
use crate::market::size;
use crate::{Context, Quit, out, roles, unprivileged};

/// How long a service may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `sudo` may take to say whether it lets us.
const SUDO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a trial of a sandbox may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the trial's helper outlives the trial.
const TRIAL_GRACE: Duration = Duration::from_secs(1);
/// How long the trial's helper may take to end.
const TRIAL_END_TIMEOUT: Duration = Duration::from_secs(4);
/// The oldest kernel with what the sandbox helper needs: `mount_setattr`.
const KERNEL_MIN: (u32, u32) = (5, 12);

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// It works, less well than it could.
    Warn,
    /// A host can't run like this.
    Fail,
    /// Not checked.
    Skip,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) status: Status,
    found: String,
    /// What to do about it; empty where nothing needs to be done.
    remedy: String,
}

impl Check {
    pub(crate) fn new(
        name: &'static str,
        status: Status,
        found: impl Into<String>,
        remedy: &str,
    ) -> Self {
        Self { name, status, found: found.into(), remedy: remedy.to_owned() }
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found, "")
    }

    /// Fine if so, else a failure with its remedy.
    fn must(name: &'static str, is_so: bool, found: [&str; 2], remedy: &str) -> Self {
        let [good, bad] = found;
        if is_so { Self::ok(name, good) } else { Self::new(name, Status::Fail, bad, remedy) }
    }
}

/// Finds out what this machine can do; leaves with 2 where no host could run here.
pub(crate) async fn doctor(context: &Context) -> anyhow::Result<()> {
    let search = roles::gpu_search(&context.config.host)?;
    let asked = tokio::task::spawn_blocking(move || inventory::inventory(&search)).await;
    let stock = asked.context("failed to look at this machine")?;
    let mut checks = kernel_checks(&stock);
    let has_root = privileges(&mut checks).await;
    checks.push(host_user(context));
    stock_checks(context, &stock, &mut checks);
    checks.extend(crate::health::checks(context));
    network_checks(context, &mut checks).await;
    let can_host = sandbox_check(context, has_root, &mut checks).await;
    if context.is_json {
        checks.iter().try_for_each(out::json)?;
    } else {
        out::text(&text(&checks))?;
        if !context.is_quiet {
            out::note(if can_host {
                "\na host can run here: `welkin up`, or `welkin host` in a network of others"
            } else {
                "\nno host can run here; leasing from others works without"
            });
        }
    }
    if can_host { Ok(()) } else { Err(Quit(2).into()) }
}

pub(crate) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
            Status::Skip => "skip",
        };
        text.push_str(&format!("{status:<5} {:<12} {}\n", check.name, check.found));
        if !check.remedy.is_empty() {
            text.push_str(&format!("{:<18} -> {}\n", "", check.remedy));
        }
    }
    text
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel_checks(stock: &Inventory) -> Vec<Check> {
    let filesystems = read("/proc/filesystems");
    let spaces = read("/proc/sys/user/max_user_namespaces");
    let has_spaces = Path::new("/proc/self/ns/user").exists() && spaces.trim() != "0";
    vec![
        kernel(&stock.kernel),
        cgroup(stock.cgroup),
        Check::must(
            "namespaces",
            has_spaces,
            ["user namespaces are on", "user namespaces are off"],
            "set user.max_user_namespaces above 0 with sysctl",
        ),
        overlay(&filesystems),
        Check::must(
            "seccomp",
            Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            ["system calls can be filtered", "the kernel filters no system calls"],
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ]
}

fn kernel(release: &str) -> Check {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version >= KERNEL_MIN {
        return Check::ok("kernel", release);
    }
    let remedy = format!("use Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1);
    Check::new("kernel", Status::Fail, format!("{release} is too old"), &remedy)
}

fn cgroup(version: CgroupVersion) -> Check {
    match version {
        CgroupVersion::V2 => Check::ok("cgroup", "v2"),
        CgroupVersion::Hybrid => Check::ok("cgroup", "v1 with a v2 tree beside"),
        CgroupVersion::V1 => Check::ok("cgroup", "v1"),
        CgroupVersion::None => Check::new(
            "cgroup",
            Status::Fail,
            "none: nothing can be limited",
            "mount a control group hierarchy at /sys/fs/cgroup",
        ),
    }
}

fn overlay(filesystems: &str) -> Check {
    if filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Check::ok("overlay", "known to the kernel");
    }
    let found = "not loaded: only the image `host` can be used";
    Check::new("overlay", Status::Warn, found, "`modprobe overlay`")
}

/// Whether the helper could run as root.
async fn privileges(checks: &mut Vec<Check>) -> bool {
    if rustix::process::geteuid().is_root() {
        checks.push(Check::ok("root", "yes"));
        return true;
    }
    let has_sudo = sudo().await;
    checks.push(Check::must(
        "root",
        has_sudo,
        [
            "no, but `sudo -n` works: the sandbox helper is started through it",
            "no root: this machine can't isolate tenants: hosts here offer nothing to others",
        ],
        "run with sudo",
    ));
    has_sudo
}

/// Whether the process that talks to the network would be privileged.
fn host_user(context: &Context) -> Check {
    let (name, own) = ("host user", rustix::process::geteuid());
    let user = match unprivileged::wanted(context) {
        Ok(user) => user,
        Err(error) => {
            let (found, hint) = (format!("{error:#}"), "mend `host.user`: `welkin config`");
            return Check::new(name, Status::Fail, found, hint);
        }
    };
    match user {
        None if own.is_root() => {
            let found = "root: the process that talks to the network would keep every privilege";
            Check::new(name, Status::Warn, found, "name an ordinary user in `host.user`")
        }
        None => Check::ok(name, format!("uid {}, unprivileged", own.as_raw())),
        Some(user) if own.is_root() => match user.must_reach(&context.dir.join("host")) {
            Ok(()) => {
                Check::ok(name, format!("{} (uid {}), unprivileged", user.name(), user.uid()))
            }
            Err(error) => {
                let remedy = "take a folder that it can reach with --dir";
                Check::new(name, Status::Fail, error.to_string(), remedy)
            }
        },
        Some(user) if own.as_raw() == user.uid() => {
            Check::ok(name, format!("{}, unprivileged", user.name()))
        }
        Some(user) => {
            let found = format!("only root can become user {}", user.name());
            Check::new(name, Status::Fail, found, "run with sudo, or leave `host.user` empty")
        }
    }
}

async fn sudo() -> bool {
    let asked = tokio::process::Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(timeout(SUDO_TIMEOUT, asked).await, Ok(Ok(status)) if status.success())
}

fn stock_checks(context: &Context, stock: &Inventory, checks: &mut Vec<Check>) {
    let cpu = &stock.cpu;
    let cores = format!("{} cores, {} threads: {}", cpu.cores, cpu.threads, cpu.model);
    checks.push(Check::ok("processor", cores));
    checks.push(Check::ok("memory", size(stock.memory_bytes)));
    checks.push(disk(&context.dir));
    checks.push(gpus(&stock.gpus));
    // The host's key is not needed to see what it would lease.
    let key = NodeId::from_bytes([0; 32]);
    checks.push(match containers_of(&context.config.host, key, &stock.gpus) {
        Ok(containers) => {
            let each = containers.iter().map(|HostContainer { offer: container, .. }| {
                let (class, gets) = (&container.class, &container.resources);
                format!("{} x {class} ({gets}) at {}", container.slots, container.price)
            });
            Check::ok("offers", each.collect::<Vec<_>>().join("; "))
        }
        Err(why) => {
            Check::new("offers", Status::Fail, why, "mend `host.containers`: `welkin config`")
        }
    });
}

fn gpus(gpus: &[Gpu]) -> Check {
    let one = |gpu: &Gpu| {
        let mut known: Vec<String> = gpu.vram_bytes.map(size).into_iter().collect();
        known.extend(gpu.driver.clone());
        known.extend(gpu.pci.clone());
        if gpu.is_software {
            known.push("software".to_owned());
        }
        if gpu.vram_bytes.is_none() {
            known.push("memory not known: not offered".to_owned());
        } else if !gpu.is_usable() {
            known.push("no device node: not offered".to_owned());
        }
        format!("{} ({})", gpu.name, known.join(", "))
    };
    if gpus.is_empty() {
        return Check::ok("gpus", "none");
    }
    let found = gpus.iter().map(one).collect::<Vec<_>>().join("; ");
    if gpus.iter().any(|gpu| gpu.is_nvidia() && !gpu.has_uvm()) {
        let remedy =
            "CUDA needs /dev/nvidia-uvm: `nvidia-modprobe -u -c=0`, then start the host anew";
        return Check::new("gpus", Status::Warn, found, remedy);
    }
    Check::ok("gpus", found)
}

fn disk(dir: &Path) -> Check {
    // The folder itself may not be made yet.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("/"));
    match inventory::disk_free_bytes(there) {
        Ok(bytes) if bytes < 1 << 30 => {
            let found = format!("{} free in {}", size(bytes), there.display());
            Check::new("disk", Status::Warn, found, "logs and images need room: free some")
        }
        Ok(bytes) => Check::ok("disk", format!("{} free in {}", size(bytes), there.display())),
        Err(error) => {
            Check::new("disk", Status::Warn, error.to_string(), "name another folder with --dir")
        }
    }
}

async fn network_checks(context: &Context, checks: &mut Vec<Check>) {
    checks.push(Check::new(
        "clock",
        Status::Skip,
        "not compared: no service of the network tells its time",
        "",
    ));
    let remedy = "start one with `welkin up`, or name its folder with --dir";
    match client::network(context) {
        Ok(network) => {
            let file = client::network_file(context);
            let found = format!("{}, indexers: {}", file.display(), network.indexers.len());
            checks.push(Check::ok("network", found));
        }
        Err(error) => {
            checks.push(Check::new("network", Status::Warn, format!("{error:#}"), remedy));
            return;
        }
    }
    let client = match Client::open(context).await {
        Ok(client) => client,
        Err(error) => {
            checks.push(Check::new("transport", Status::Fail, format!("{error:#}"), ""));
            return;
        }
    };
    let (buyer, begun) = (&client.buyer, Instant::now());
    let balance = async {
        let view = buyer.settle().balance(buyer.account()).await;
        (view.map(|view| format!("{} available", view.available)), begun.elapsed())
    };
    let offers = async {
        let rows = buyer.offers(None).await;
        (rows.map(|rows| format!("{} containers on offer", rows.len())), begun.elapsed())
    };
    let (balance, offers) =
        tokio::join!(timeout(CALL_TIMEOUT, balance), timeout(CALL_TIMEOUT, offers));
    checks.push(answer("settlement", balance.ok()));
    checks.push(answer("indexer", offers.ok()));
    client.close().await;
}

/// What a service said and after how long; `None` if it said nothing in time.
fn answer<E: std::error::Error>(
    name: &'static str,
    said: Option<(Result<String, E>, Duration)>,
) -> Check {
    let remedy = "is the network up? `welkin up` starts one";
    match said {
        Some((Ok(text), took)) => Check::ok(name, format!("{} ms, {text}", took.as_millis())),
        Some((Err(error), _)) => Check::new(name, Status::Warn, welkin_node::chain(&error), remedy),
        None => Check::new(name, Status::Warn, "no answer", remedy),
    }
}

/// Tries a sandbox; returns whether tenants can be isolated.
async fn sandbox_check(context: &Context, has_root: bool, checks: &mut Vec<Check>) -> bool {
    if !has_root {
        checks.push(Check::new("sandbox", Status::Skip, "not tried without root", ""));
        return false;
    }
    let name = format!("doctor-{}", std::process::id());
    let dir = context.config.host.sandbox_dir.clone();
    let state = dir.join(format!("sandboxd-{name}"));
    let command = match roles::sandboxd_command() {
        Ok(command) => command,
        Err(error) => {
            checks.push(Check::new("sandbox", Status::Fail, format!("{error:#}"), ""));
            return false;
        }
    };
    let images = state.join("images");
    let launch = SandboxdLaunch { command, launcher: None, dir, name, images, grace: TRIAL_GRACE };
    let shutdown = Shutdown::default();
    let tried = timeout(TRIAL_TIMEOUT, Sandboxes::connect(launch, shutdown.clone())).await;
    let can_host = match &tried {
        Ok(Ok(sandboxes)) => {
            capability_checks(sandboxes.tier(), sandboxes.capabilities(), checks);
            sandboxes.tier() > Tier::Process
        }
        Ok(Err(error)) => {
            let remedy = "see `host.sandbox_dir` in `welkin config`, and the kernel's log";
            checks.push(Check::new("sandbox", Status::Fail, welkin_node::chain(error), remedy));
            false
        }
        Err(_) => {
            checks.push(Check::new("sandbox", Status::Fail, "the trial did not end", ""));
            false
        }
    };
    drop(tried);
    shutdown.finish(TRIAL_GRACE).await;
    tidy(&state).await;
    can_host
}

fn capability_checks(tier: Tier, found: &Capabilities, checks: &mut Vec<Check>) {
    let status = if tier > Tier::Process { Status::Ok } else { Status::Fail };
    let remedy = if status == Status::Ok { "" } else { "see the reasons below" };
    checks.push(Check::new("sandbox", status, format!("tier {tier}"), remedy));
    let escapes: Vec<_> = found.escapes().map(|finding| finding.name.as_str()).collect();
    let tried = found.findings.len();
    checks.push(if escapes.is_empty() {
        Check::ok("escapes", format!("none: {tried} forbidden operations tried, all refused"))
    } else {
        let text = format!("{} of {tried} forbidden operations allowed: ", escapes.len());
        let remedy = "tell us the kernel version and these names";
        Check::new("escapes", Status::Fail, text + &escapes.join(", "), remedy)
    });
    let limits = &found.limits;
    let (mut hold, mut fail) = (Vec::new(), Vec::new());
    for (name, holds) in [
        ("cpu", limits.cpu),
        ("memory", limits.memory),
        ("processes", limits.pids),
        ("scratch", limits.scratch),
        ("pause", limits.pause),
    ] {
        if holds { hold.push(name) } else { fail.push(name) }
    }
    checks.push(if fail.is_empty() {
        Check::ok("limits", format!("{} hold", hold.join(", ")))
    } else {
        let found = format!("{} do not hold", fail.join(", "));
        Check::new("limits", Status::Warn, found, "run where the helper may change control groups")
    });
    for reason in &found.reasons {
        checks.push(Check::new("reason", Status::Warn, reason.text.clone(), &reason.remedy));
    }
}

/// Removes what the trial's helper leaves, once it has ended. Never anything below a folder: what a
/// failed helper left there may be a mount.
async fn tidy(state: &Path) {
    let until = Instant::now() + TRIAL_END_TIMEOUT;
    while state.exists() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if state.join("socket").exists() {
            continue;
        }
        if !rustix::process::geteuid().is_root() {
            // The helper's folder is root's: it stays until the next boot.
            return;
        }
        for entry in fs::read_dir(state).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        }
        let _ = fs::remove_dir(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_read_well() {
        let checks = [
            kernel("6.8.0-31-generic"),
            kernel("4.19.0"),
            cgroup(CgroupVersion::Hybrid),
            overlay("nodev\ttmpfs\n\text4\n"),
        ];
        insta::assert_snapshot!(text(&checks), @r"
        ok    kernel       6.8.0-31-generic
        FAIL  kernel       4.19.0 is too old
                           -> use Linux 5.12 or newer
        ok    cgroup       v1 with a v2 tree beside
        warn  overlay      not loaded: only the image `host` can be used
                           -> `modprobe overlay`
        ");
    }

    #[test]
    fn overlay_is_a_word_of_its_own() {
        assert_eq!(overlay("nodev\toverlay\n").status, Status::Ok);
        assert_eq!(overlay("nodev\toverlayfs2\n").status, Status::Warn);
    }

    #[test]
    fn a_weak_sandbox_is_no_host() {
        let found = Capabilities {
            tier: welkin_runtime::Tier::Process,
            findings: Vec::new(),
            cgroup: CgroupVersion::V1,
            limits: welkin_runtime::LimitSupport::default(),
            reasons: Vec::new(),
        };
        let mut checks = Vec::new();
        capability_checks(Tier::Process, &found, &mut checks);
        assert_eq!(checks[0].status, Status::Fail);
        let limits = &checks[2].found;
        assert_eq!(limits, "cpu, memory, processes, scratch, pause do not hold");
    }
}
