//! A host that root started and that is not root: `host.user`.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::services::{HERE, Services};
use crate::support::{
    CONTAINERS, DEADLINE, Network, Place, Proc, children, files_below, is_root, until,
};

/// Someone who need not be in any table.
const USER: u32 = 54_321;
/// What reading of a thread says that ends meanwhile.
const GONE: i32 = Errno::SRCH.raw_os_error();

/// The configuration of a place, with its user.
fn with_user(place: &Place, user: &str) {
    let store = place.sandboxes().join("images");
    let host = format!("[host]\nuser = \"{user}\"\nimage_store = \"{}\"\n", store.display());
    std::fs::write(place.config(), format!("{host}{CONTAINERS}")).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Every thread of the process is that user, and has no way to be anything else.
#[track_caller]
fn is_unprivileged(pid: Pid) {
    let tasks = children(Path::new(&format!("/proc/{}/task", pid.as_raw_nonzero())));
    // A thread that was idle may end meanwhile.
    let read = |task: &PathBuf| match std::fs::read_to_string(task.join("status")) {
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(GONE) => {
            None
        }
        status => Some(status.unwrap()),
    };
    let all: Vec<_> = tasks.iter().filter_map(read).collect();
    assert!(all.len() > 1);
    for status in all {
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(value("Uid:"), "54321 54321 54321 54321");
        assert_eq!(value("Gid:"), "54321 54321 54321 54321");
        assert_eq!(value("Groups:"), "");
        assert_eq!(value("NoNewPrivs:"), "1");
        for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(key), "0000000000000000", "{key}");
        }
    }
}

#[track_caller]
fn belongs_to_user(dir: &Path) {
    let files = files_below(dir);
    assert!(!files.is_empty(), "{} is empty", dir.display());
    for path in files.iter().map(std::path::PathBuf::as_path).chain([dir]) {
        let owner = std::fs::symlink_metadata(path).unwrap().uid();
        assert_eq!(owner, USER, "{}", path.display());
    }
}

#[test]
fn a_network_that_root_started_is_not_root() {
    let Some(mut network) = Network::start() else { return };
    // What root made before is taken over.
    network.works();
    network.down().expect(0);
    chmod(network.place().path(), 0o711);
    with_user(network.place(), &USER.to_string());
    network.up();
    network.works();
    let pid = network.process().pid();
    is_unprivileged(pid);
    for name in ["host-1", "settlement", "relay", "indexer", "network.toml", "up.lock"] {
        let path = network.dir().join(name);
        if path.is_dir() {
            belongs_to_user(&path);
        } else {
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), USER, "{name}");
        }
    }

    // A helper that dies is replaced by root's launcher; this process could not.
    let helpers = || {
        let state = format!("{}/sandboxd-", network.place().sandboxes().display());
        crate::support::processes_with(&format!("--state\0{state}"))
    };
    until(DEADLINE, "a helper runs", || !helpers().is_empty());
    for pid in helpers().into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    network.process().wait_stderr("a new sandbox helper runs");
    network.works();
    is_unprivileged(pid);

    let output = network.down().expect(0);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert!(output.stderr.contains("gave up root"), "{}", output.stderr);
}

#[test]
fn a_host_that_root_started_is_not_root() {
    let Some(mut services) = Services::start("", HERE) else { return };
    chmod(services.place.path(), 0o711);
    with_user(&services.place, &USER.to_string());
    let mut host = services.host("host", HERE);
    services.fund("1");
    let script = "id -u; cat /proc/self/status | grep CapEff; exit 3";
    let output = services.run(&["run", "--", "sh", "-c", script]).expect(3);
    assert!(output.text().contains("0000000000000000"), "{}", output.text());
    is_unprivileged(host.pid());
    belongs_to_user(&services.dir("host").join("host"));
    assert!(host.is_running());
    services.are_well();
}

#[test]
fn what_is_in_the_way_of_the_user_is_said() {
    if !is_root() {
        return;
    }
    let place = Place::new("");
    let dir = place.path().join("net");
    let up = || Proc::spawn(place.command(&dir, &["up", "--hosts", "1"])).finish();
    with_user(&place, "no-such-user");
    up().expect(64).says("no user `no-such-user`").says("useradd");
    with_user(&place, "root");
    up().expect(64).says("`root` is root");

    with_user(&place, &USER.to_string());
    chmod(place.path(), 0o700);
    let closed = format!("chmod o+x {}", place.path().display());
    up().expect(64).says("can't get to").says("mode 0700").says(&closed).says("--dir");
    assert!(!dir.exists());

    chmod(place.path(), 0o711);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.tex"), "x").unwrap();
    up().expect(64).says("holds other things");
    assert_eq!(std::fs::metadata(&dir).unwrap().uid(), 0);

    // Somebody else cannot become the user.
    let welkin = place.command(&dir, &["up"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54322", "--regid", "54322", "--clear-groups"]);
    command.arg(welkin.get_program()).args(welkin.get_args());
    chmod(&place.config(), 0o644);
    Proc::spawn(command).finish().expect(64).says("only root can become").says("sudo");
}
