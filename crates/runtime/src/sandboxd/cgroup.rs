//! Control groups of both versions, written and read as files.
//!
//! Each sandbox has one group `/welkin-<instance>/<id>` in every hierarchy. libcontainer moves the
//! first process in by the same path; limits, freezing, killing, counting and removal are done here,
//! because they must also work on what an earlier helper left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use crate::types::{CgroupVersion, Limits, Stats};

/// Where the hierarchies are mounted.
#[derive(Clone, Debug)]
pub(super) struct Hierarchies {
    version: CgroupVersion,
    /// Mount point by controller; on v2 every controller has the same.
    mounts: BTreeMap<String, PathBuf>,
}

/// The group of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    hierarchies: Hierarchies,
    /// Below the mount points, such as `welkin-1a2b/3c4d…`.
    path: PathBuf,
}

impl Hierarchies {
    /// Reads the mount table.
    pub(super) fn detect() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        }))
    }

    fn parse(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Self {
        let mut mounts = BTreeMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup") => {
                    for option in right.nth(1).unwrap_or_default().split(',') {
                        if V1_CONTROLLERS.contains(&option) {
                            mounts.insert(option.to_owned(), point.clone());
                        }
                    }
                }
                Some("cgroup2") => unified = Some(point),
                _ => {}
            }
        }
        let version = match (&unified, mounts.is_empty()) {
            (None, true) => CgroupVersion::None,
            (None, false) => CgroupVersion::V1,
            (Some(_), false) => CgroupVersion::Hybrid,
            (Some(root), true) => {
                for name in v2_controllers(root).split_whitespace() {
                    mounts.insert(name.to_owned(), root.clone());
                }
                // Freezing and killing are part of every v2 group.
                mounts.insert("freezer".to_owned(), root.clone());
                CgroupVersion::V2
            }
        };
        Self { version, mounts }
    }

    pub(super) fn version(&self) -> CgroupVersion {
        self.version
    }

    /// The controllers found.
    pub(super) fn controllers(&self) -> Vec<String> {
        self.mounts.keys().cloned().collect()
    }

    /// Names the group of a sandbox.
    pub(super) fn group(&self, instance: &str, name: &str) -> Cgroup {
        Cgroup { hierarchies: self.clone(), path: Path::new(instance).join(name) }
    }

    /// Names every group that exists under `instance`, in any hierarchy.
    pub(super) fn leftovers(&self, instance: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for root in self.roots() {
            let Ok(dir) = fs::read_dir(root.join(instance)) else { continue };
            for entry in dir.filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names
    }

    /// Removes the parent group of this instance, if empty.
    pub(super) fn remove_parent(&self, instance: &str) {
        for root in self.roots() {
            let _ = fs::remove_dir(root.join(instance));
        }
    }

    fn roots(&self) -> BTreeSet<&PathBuf> {
        self.mounts.values().collect()
    }

    fn is_v2(&self) -> bool {
        self.version == CgroupVersion::V2
    }
}

impl Cgroup {
    /// The path as libcontainer wants it.
    pub(super) fn oci_path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Makes the group in every hierarchy.
    pub(super) fn create(&self) -> io::Result<()> {
        if self.hierarchies.is_v2() {
            self.enable_v2_controllers();
        }
        for root in self.hierarchies.roots() {
            let dir = root.join(&self.path);
            fs::create_dir_all(&dir)?;
            if !self.hierarchies.is_v2() {
                self.inherit_cpuset(root);
            }
        }
        Ok(())
    }

    /// Moves a process into the hierarchy that freezes, and on v2 into all.
    pub(super) fn adopt(&self, pid: i32) -> io::Result<()> {
        self.write("freezer", "cgroup.procs", &pid.to_string())
    }

    /// Writes the limits. Memory and scratch count together, because scratch is memory.
    pub(super) fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        let memory = limits.memory_bytes.saturating_add(limits.scratch_bytes);
        let quota = u64::from(limits.cpu_milli) * CPU_PERIOD_USEC / 1000;
        if self.hierarchies.is_v2() {
            self.write("memory", "memory.max", &memory.to_string())?;
            let _ = self.write("memory", "memory.swap.max", "0");
            let _ = self.write("memory", "memory.oom.group", "0");
            self.write("cpu", "cpu.max", &format!("{quota} {CPU_PERIOD_USEC}"))?;
        } else {
            self.set_memory_v1(memory)?;
            self.write("cpu", "cpu.cfs_period_us", &CPU_PERIOD_USEC.to_string())?;
            self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        }
        self.write("pids", "pids.max", &limits.pids.to_string())
    }

    /// The limit with swap may never be below the one without, so the order depends on direction.
    fn set_memory_v1(&self, memory: u64) -> io::Result<()> {
        let memory = memory.to_string();
        let with_swap = "memory.memsw.limit_in_bytes";
        let raised = self.write("memory", with_swap, &memory).is_ok();
        self.write("memory", "memory.limit_in_bytes", &memory)?;
        if !raised && self.file("memory", with_swap).is_some_and(|file| file.exists()) {
            self.write("memory", with_swap, &memory)?;
        }
        let _ = self.write("memory", "memory.swappiness", "0");
        Ok(())
    }

    /// Stops or continues every process.
    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        if self.hierarchies.is_v2() {
            self.write("freezer", "cgroup.freeze", if frozen { "1" } else { "0" })
        } else {
            self.write("freezer", "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
        }
    }

    /// Every process in the group, in any hierarchy.
    pub(super) fn processes(&self) -> BTreeSet<i32> {
        let mut pids = BTreeSet::new();
        for root in self.hierarchies.roots() {
            let text = fs::read_to_string(root.join(&self.path).join("cgroup.procs"));
            pids.extend(
                text.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()),
            );
        }
        pids.remove(&0);
        pids
    }

    /// Kills everything inside and returns how many processes it saw. Frozen first on v1, so that
    /// nothing can fork away from the list.
    pub(super) fn kill(&self) -> u32 {
        let seen = if self.hierarchies.is_v2() {
            let pids = self.processes();
            if self.write("freezer", "cgroup.kill", "1").is_err() {
                kill_each(&pids);
            }
            let _ = self.freeze(false);
            pids
        } else {
            let _ = self.freeze(true);
            let pids = self.processes();
            kill_each(&pids);
            let _ = self.freeze(false);
            pids
        };
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }

    /// Reads the counters; what a kernel does not count is zero.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats { pids: self.number("pids", "pids.current"), ..Stats::default() };
        if self.hierarchies.is_v2() {
            // Counted in every group, with the controller or without.
            stats.cpu_usec = self.keyed("freezer", "cpu.stat", "usage_usec");
            stats.throttled_usec = self.keyed("cpu", "cpu.stat", "throttled_usec");
            stats.waited_usec = self.pressure("freezer", "cpu.pressure");
            stats.memory_bytes = self.number("memory", "memory.current");
            stats.memory_peak_bytes = self.number("memory", "memory.peak");
        } else {
            stats.cpu_usec = self.number("cpuacct", "cpuacct.usage") / 1000;
            stats.throttled_usec = self.keyed("cpu", "cpu.stat", "throttled_time") / 1000;
            stats.memory_bytes = self.number("memory", "memory.usage_in_bytes");
            stats.memory_peak_bytes = self.number("memory", "memory.max_usage_in_bytes");
        }
        stats.oom_kills = self.oom_kills();
        stats
    }

    /// Counts the processes that the memory limit killed.
    pub(super) fn oom_kills(&self) -> u64 {
        let file = if self.hierarchies.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.keyed("memory", file, "oom_kill")
    }

    /// Removes the group everywhere; true when nothing of it is left.
    pub(super) fn remove(&self) -> bool {
        let mut gone = true;
        for root in self.hierarchies.roots() {
            let dir = root.join(&self.path);
            let _ = fs::remove_dir(&dir);
            gone &= !dir.exists();
        }
        // libcontainer joins hierarchies that are not used here; they may be mounted elsewhere.
        if !self.hierarchies.is_v2() {
            for sibling in v1_siblings() {
                let _ = fs::remove_dir(sibling.join(&self.path));
            }
        }
        gone
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        Some(self.hierarchies.mounts.get(controller)?.join(&self.path).join(name))
    }

    fn write(&self, controller: &str, name: &str, value: &str) -> io::Result<()> {
        let lacks = || format!("the kernel offers no {controller} controller here");
        let file = self
            .file(controller, name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, lacks()))?;
        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }

    fn read(&self, controller: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.file(controller, name)?).ok()
    }

    fn number(&self, controller: &str, name: &str) -> u64 {
        self.read(controller, name).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn keyed(&self, controller: &str, name: &str, key: &str) -> u64 {
        let text = self.read(controller, name).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0)
    }

    /// The total of a pressure file's line `some`, in microseconds.
    fn pressure(&self, controller: &str, name: &str) -> u64 {
        let text = self.read(controller, name).unwrap_or_default();
        let some = text.lines().find_map(|line| line.strip_prefix("some "));
        let total =
            some.and_then(|some| some.split(' ').find_map(|part| part.strip_prefix("total=")));
        total.and_then(|total| total.parse().ok()).unwrap_or(0)
    }

    /// On v2 a controller works in a group only if every group above hands it down.
    fn enable_v2_controllers(&self) {
        let Some(root) = self.hierarchies.mounts.get("freezer") else { return };
        let mut dir = root.clone();
        for part in self.path.parent().into_iter().flat_map(Path::components) {
            for controller in ["cpu", "memory", "pids"] {
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            dir = dir.join(part);
            let _ = fs::create_dir(&dir);
        }
        for controller in ["cpu", "memory", "pids"] {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }

    /// A v1 cpuset takes no process until it names processors and memory.
    fn inherit_cpuset(&self, root: &Path) {
        let mut dir = root.to_path_buf();
        for part in self.path.components() {
            let parent = dir.clone();
            dir = dir.join(part);
            for name in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(name)) {
                    let _ = fs::write(dir.join(name), value.trim());
                }
            }
        }
    }
}

fn kill_each(pids: &BTreeSet<i32>) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Every directory beside the known hierarchies in the usual place.
fn v1_siblings() -> Vec<PathBuf> {
    fs::read_dir("/sys/fs/cgroup").map_or_else(
        |_| Vec::new(),
        |dir| dir.filter_map(Result::ok).map(|entry| entry.path()).collect(),
    )
}

const CPU_PERIOD_USEC: u64 = 100_000;

const V1_CONTROLLERS: [&str; 8] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

#[cfg(test)]
mod tests;
