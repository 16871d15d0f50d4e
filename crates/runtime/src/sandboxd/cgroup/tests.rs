//! Layouts, plain files in place of the kernel's, and a real hierarchy of version 2.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const V1: &str = "\
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory
33 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";

#[test]
fn layouts_are_told_apart() {
    let none = Hierarchies::parse("24 1 0:20 / / rw - ext4 /dev/vda rw", |_| String::new());
    assert_eq!(none.version(), CgroupVersion::None);

    let v1 = Hierarchies::parse(V1, |_| String::new());
    assert_eq!(v1.version(), CgroupVersion::V1);
    assert_eq!(v1.controllers(), ["cpu", "cpuacct", "memory"]);

    let line = "40 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    let hybrid = Hierarchies::parse(&format!("{V1}\n{line}"), |_| String::new());
    assert_eq!(hybrid.version(), CgroupVersion::Hybrid);

    let v2 = Hierarchies::parse(line, |_| "cpu memory pids".to_owned());
    assert_eq!(v2.version(), CgroupVersion::V2);
    assert_eq!(v2.controllers(), ["cpu", "freezer", "memory", "pids"]);
    let path = v2.group("welkin-x", "ab").file("memory", "memory.max");
    assert_eq!(path, Some(PathBuf::from("/sys/fs/cgroup/unified/welkin-x/ab/memory.max")));
}

/// A group whose files are plain files.
fn fake(version: CgroupVersion, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let root = tempfile::tempdir().unwrap();
    let controllers = ["cpu", "cpuacct", "memory", "pids", "freezer"];
    let mounts =
        controllers.map(|name| (name.to_owned(), root.path().to_owned())).into_iter().collect();
    let group = Hierarchies { version, mounts }.group("welkin-x", "ab");
    group.create().unwrap();
    for (name, text) in files {
        fs::write(root.path().join("welkin-x/ab").join(name), text).unwrap();
    }
    (root, group)
}

#[test]
fn version_2_files_are_written_and_read() {
    let (root, group) = fake(
        CgroupVersion::V2,
        &[
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("cpu.max", ""),
            ("pids.max", ""),
            ("cgroup.freeze", ""),
            ("cgroup.kill", ""),
            ("cgroup.procs", "12\n34\n0\n"),
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nthrottled_usec 7\n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 total=11\nfull avg10=0.00 total=4\n"),
            ("memory.current", "100\n"),
            ("memory.peak", "200\n"),
            ("memory.events", "low 0\noom 1\noom_kill 2\n"),
            ("pids.current", "3\n"),
        ],
    );
    let limits =
        Limits { cpu_milli: 1500, memory_bytes: 1000, scratch_bytes: 24, pids: 9, nofile: 1 };
    group.set_limits(&limits).unwrap();
    group.freeze(true).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join("welkin-x/ab").join(name)).unwrap();
    assert_eq!(read("memory.max"), "1024");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("cpu.max"), "150000 100000");
    assert_eq!(read("pids.max"), "9");
    assert_eq!(read("cgroup.freeze"), "1");
    let stats = group.stats();
    assert_eq!((stats.cpu_usec, stats.throttled_usec, stats.pids), (5, 7, 3));
    assert_eq!(stats.waited_usec, 11);
    assert_eq!((stats.memory_bytes, stats.memory_peak_bytes, stats.oom_kills), (100, 200, 2));
    assert_eq!(group.processes(), BTreeSet::from([12, 34]));
    // Told to the kernel, which does the killing.
    assert_eq!(group.kill(), 2);
    assert_eq!(read("cgroup.kill"), "1");
    let root_control = root.path().join("cgroup.subtree_control");
    assert_eq!(fs::read_to_string(root_control).unwrap(), "+pids");
}

#[test]
fn a_limit_that_cannot_be_set_is_an_error() {
    let (_root, group) = fake(CgroupVersion::V2, &[("memory.max", ""), ("cpu.max", "")]);
    assert!(group.set_limits(&Limits::default()).is_err());
    let (_root, group) = fake(CgroupVersion::V1, &[("memory.limit_in_bytes", "")]);
    assert!(group.set_limits(&Limits::default()).is_err());
}

/// A version 2 hierarchy of the kernel, mounted in a folder of its own.
struct Unified {
    root: tempfile::TempDir,
    hierarchies: Hierarchies,
    /// A name that no test beside this one has.
    instance: String,
}

impl Unified {
    /// Mounts it, or says why not.
    fn mount(name: &str) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let mounted = rustix::mount::mount("none", root.path(), "cgroup2", flags, None);
        if let Err(error) = mounted {
            eprintln!("skipped: no version 2 hierarchy can be mounted here: {error}");
            return None;
        }
        let line = format!("40 24 0:30 / {} rw - cgroup2 none rw", root.path().display());
        let hierarchies = Hierarchies::parse(&line, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap()
        });
        assert_eq!(hierarchies.version(), CgroupVersion::V2);
        let instance = format!("welkin-test-{name}-{}", std::process::id());
        Some(Self { root, hierarchies, instance })
    }

    fn group(&self) -> Cgroup {
        self.hierarchies.group(&self.instance, "ab")
    }
}

impl Drop for Unified {
    fn drop(&mut self) {
        // What a failed test left.
        let end = Instant::now() + Duration::from_secs(5);
        while !self.group().remove() && Instant::now() < end {
            self.group().kill();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.hierarchies.remove_parent(&self.instance);
        let _ = rustix::mount::unmount(self.root.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Starts a shell script in a group.
fn run_in(group: &Cgroup, script: &str) -> Child {
    let script = format!("read x; {script}");
    let mut child = Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap();
    group.adopt(i32::try_from(child.id()).unwrap()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_real_version_2_group_counts_freezes_and_kills() {
    let Some(unified) = Unified::mount("kill") else { return };
    let group = unified.group();
    group.create().unwrap();
    let leftovers = || unified.hierarchies.leftovers(&unified.instance);
    assert_eq!(leftovers(), BTreeSet::from(["ab".to_owned()]));
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 1000 & sleep 1000 & wait";
    let mut child = run_in(&group, script);
    wait_until("three processes", || group.processes().len() == 3);
    assert!(group.stats().cpu_usec > 0);

    let is_frozen = || group.keyed("freezer", "cgroup.events", "frozen") == 1;
    group.freeze(true).unwrap();
    wait_until("it is frozen", is_frozen);
    group.freeze(false).unwrap();
    wait_until("it goes on", || !is_frozen());
    assert!(!group.remove());

    // What is frozen is killed as well.
    group.freeze(true).unwrap();
    wait_until("it is frozen", is_frozen);
    assert_eq!(group.kill(), 3);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    wait_until("nobody is left", || group.processes().is_empty());
    wait_until("it is removed", || group.remove());
    unified.hierarchies.remove_parent(&unified.instance);
    assert!(leftovers().is_empty());
    assert!(!unified.root.path().join(&unified.instance).exists());
}

#[test]
fn a_real_version_2_group_limits() {
    let Some(unified) = Unified::mount("limit") else { return };
    let group = unified.group();
    group.create().unwrap();
    let limits = Limits {
        cpu_milli: 100,
        memory_bytes: 24 << 20,
        scratch_bytes: 8 << 20,
        pids: 8,
        nofile: 1,
    };
    let has = |name: &&str| unified.hierarchies.mounts.contains_key(*name);
    let lacking: Vec<_> = ["memory", "cpu", "pids"].into_iter().filter(|name| !has(name)).collect();
    if let Some(first) = lacking.first() {
        // Never a sandbox without limits: it is refused with what is lacking.
        let error = group.set_limits(&limits).unwrap_err().to_string();
        assert_eq!(error, format!("the kernel offers no {first} controller here"));
        eprintln!("skipped: the version 2 hierarchy here lacks {lacking:?}");
    } else {
        group.set_limits(&limits).unwrap();
        assert_eq!(group.number("memory", "memory.max"), 32 << 20);
        assert_eq!(group.read("cpu", "cpu.max").unwrap(), "10000 100000\n");
        // More processes than allowed, then more memory, with a busy loop between.
        let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done";
        let mut child = run_in(&group, &format!("({forks}) 2>/dev/null; wait"));
        wait_until("the limit is reached", || group.stats().pids == 8);
        group.kill();
        child.wait().unwrap();
        wait_until("nobody is left", || group.processes().is_empty());
        let mut child = run_in(&group, "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done");
        child.wait().unwrap();
        assert!(group.stats().throttled_usec > 0, "{:?}", group.stats());
        let mut child = run_in(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
        assert!(!child.wait().unwrap().success());
        let stats = group.stats();
        assert!(stats.oom_kills > 0 && stats.memory_peak_bytes > 16 << 20, "{stats:?}");
    }
    wait_until("it is removed", || group.remove());
}
