//! The escape battery: operations that must fail inside, tried for real.
//!
//! Each one runs in its own child, so that one success cannot help or hide the next, and so that a
//! filter that kills counts as a refusal. The child's exit code is the error number.

use std::ffi::{CStr, c_long};
use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

use crate::sys;
use crate::types::Finding;
use crate::wire::{Check, CheckResult};

/// Runs one check and encodes its result.
pub(super) fn check(check: Check) -> Result<Vec<u8>, String> {
    let result = match check {
        Check::Battery => CheckResult::Battery(battery()),
        Check::Memory { bytes } => touch_memory(bytes)?,
        Check::Pids { max } => CheckResult::Reached(count_forks(max)),
        Check::Cpu { millis } => CheckResult::Reached(burn(millis)?),
        Check::Scratch { bytes } => CheckResult::Reached(fill_scratch(bytes)?),
    };
    postcard::to_stdvec(&result).map_err(|error| error.to_string())
}

/// Tries every forbidden operation.
fn battery() -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, number, args) in CALLS {
        findings.push(try_in_child(name, || sys::raw(*number, *args).err().unwrap_or(0)));
    }
    for (name, path, flags) in OPENS {
        findings.push(try_in_child(name, || {
            let args = [i64::from(libc::AT_FDCWD), sys::path_arg(path), i64::from(*flags), 0, 0, 0];
            sys::raw(libc::SYS_openat, args).err().unwrap_or(0)
        }));
    }
    for (name, flag) in CLONES {
        findings.push(try_in_child(name, || clone_with(*flag)));
    }
    findings.push(try_in_child("mount tmpfs", || {
        let args =
            [sys::path_arg(c"none"), sys::path_arg(c"/tmp"), sys::path_arg(c"tmpfs"), 0, 0, 0];
        sys::raw(libc::SYS_mount, args).err().unwrap_or(0)
    }));
    findings.push(try_in_child("mknod of a disk", || {
        let disk = libc::makedev(8, 0).cast_signed();
        let mode = i64::from(libc::S_IFBLK | 0o600);
        let at = i64::from(libc::AT_FDCWD);
        let args = [at, sys::path_arg(c"/tmp/.disk"), mode, disk, 0, 0];
        sys::raw(libc::SYS_mknodat, args).err().unwrap_or(0)
    }));
    findings.push(try_in_child("write to the root", || {
        let flags = i64::from(libc::O_CREAT | libc::O_WRONLY);
        let args = [i64::from(libc::AT_FDCWD), sys::path_arg(c"/.probe"), flags, 0o600, 0, 0];
        sys::raw(libc::SYS_openat, args).err().unwrap_or(0)
    }));
    findings.push(try_in_child("chroot", || {
        sys::raw(libc::SYS_chroot, [sys::path_arg(c"/work"), 0, 0, 0, 0, 0]).err().unwrap_or(0)
    }));
    findings.push(try_in_child("type into a terminal", || {
        let null = i64::from(libc::STDIN_FILENO);
        let byte = c"x";
        let args = [null, i64::from(0x5412), sys::path_arg(byte), 0, 0, 0];
        // Standard input is no terminal, so another error would prove nothing.
        sys::raw(libc::SYS_ioctl, args).err().filter(|errno| *errno == libc::EPERM).unwrap_or(0)
    }));
    findings
        .push(status_line("capabilities", "CapEff:", |value| value.trim_matches('0').is_empty()));
    findings
        .push(status_line("bounding set", "CapBnd:", |value| value.trim_matches('0').is_empty()));
    findings.push(status_line("no new privileges", "NoNewPrivs:", |value| value == "1"));
    findings.push(status_line("seccomp filter", "Seccomp:", |value| value == "2"));
    findings.push(foreign_processes());
    findings.push(foreign_interfaces());
    findings.push(host_user());
    findings
}

/// Runs `body` in a child and takes its exit code as an error number.
fn try_in_child(name: &str, body: impl FnOnce() -> i32) -> Finding {
    let errno = match sys::fork(|| body().clamp(0, 250)) {
        Ok(pid) => wait_code(pid).unwrap_or(libc::ENOSYS),
        // Without a child nothing was tried, and that must not pass for a refusal.
        Err(_) => 0,
    };
    Finding { name: name.to_owned(), denied: errno != 0, errno }
}

/// The exit code, or nothing when a signal ended it.
fn wait_code(pid: Pid) -> Option<i32> {
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty()).ok()??;
    status.exit_status()
}

/// Clones with a namespace flag; a child that appears ends at once.
fn clone_with(flag: i32) -> i32 {
    let flags = c_long::from(flag | libc::SIGCHLD);
    match sys::raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) {
        Ok(_) => 0,
        Err(errno) => errno,
    }
}

/// Checks a line of `/proc/self/status`.
fn status_line(name: &str, key: &str, is_safe: impl Fn(&str) -> bool) -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let safe = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .is_some_and(|value| is_safe(value.trim()));
    Finding { name: name.to_owned(), denied: safe, errno: if safe { libc::EPERM } else { 0 } }
}

/// Every visible process must be ours: process 1 is init, whose number outside is another.
fn foreign_processes() -> Finding {
    let visible = fs::read_dir("/proc").map_or(usize::MAX, |dir| {
        dir.filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .count()
    });
    let safe = visible < 16;
    Finding {
        name: "see processes of the host".to_owned(),
        denied: safe,
        errno: if safe { libc::ESRCH } else { 0 },
    }
}

/// Only the loopback interface may be there.
fn foreign_interfaces() -> Finding {
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names: Vec<&str> = interfaces
        .lines()
        .filter_map(|line| line.split_once(':').map(|(name, _)| name.trim()))
        .collect();
    let safe = names == ["lo"];
    Finding {
        name: "see interfaces of the host".to_owned(),
        denied: safe,
        errno: if safe { libc::ENODEV } else { 0 },
    }
}

/// User 0 inside must not be user 0 outside.
fn host_user() -> Finding {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_whitespace().skip(1);
    let safe =
        words.next().and_then(|base| base.parse::<u32>().ok()).is_some_and(|base| base > 65535);
    Finding {
        name: "be a user of the host".to_owned(),
        denied: safe,
        errno: if safe { libc::EPERM } else { 0 },
    }
}

/// Touches memory in a child until the kernel kills it.
fn touch_memory(bytes: u64) -> Result<CheckResult, String> {
    let size = usize::try_from(bytes).map_err(|error| error.to_string())?;
    let pid = sys::fork(|| {
        let mut blocks = Vec::new();
        for _ in 0..size >> 20 {
            blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
        0
    })
    .map_err(|error| error.to_string())?;
    Ok(wait_code(pid).map_or(CheckResult::Killed, |_| CheckResult::Reached(bytes)))
}

/// Forks children that wait, and counts them until the kernel refuses.
fn count_forks(max: u32) -> u64 {
    let mut pids = Vec::new();
    for _ in 0..max {
        let forked = sys::fork(|| {
            std::thread::sleep(Duration::from_secs(60));
            0
        });
        match forked {
            Ok(pid) => pids.push(pid),
            Err(_) => break,
        }
    }
    for pid in &pids {
        let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
    }
    for pid in &pids {
        let _ = wait_code(*pid);
    }
    pids.len() as u64
}

/// Spins for a while and returns the processor time it got, in microseconds.
fn burn(millis: u32) -> Result<u64, String> {
    let end = Instant::now() + Duration::from_millis(u64::from(millis.min(5_000)));
    let mut state = 1_u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            state =
                std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000);
    u64::try_from(micros).map_err(|error| error.to_string())
}

/// Writes to scratch until refused and returns how much went in.
fn fill_scratch(bytes: u64) -> Result<u64, String> {
    let path = "/work/.probe";
    let mut file = File::create(path).map_err(|error| error.to_string())?;
    let block = vec![0x5a; 256 << 10];
    let mut written = 0;
    while written < bytes {
        match file.write(&block) {
            Ok(0) | Err(_) => break,
            Ok(n) => written += n as u64,
        }
    }
    drop(file);
    let _ = fs::remove_file(path);
    Ok(written)
}

/// Calls whose arguments need no memory. They are shaped so that, if permitted, they either succeed
/// or fail for a reason other than permission only where the kernel checks permission first.
const CALLS: &[(&str, c_long, [c_long; 6])] = &[
    ("unshare user namespace", libc::SYS_unshare, [libc::CLONE_NEWUSER as c_long, 0, 0, 0, 0, 0]),
    ("unshare mount namespace", libc::SYS_unshare, [libc::CLONE_NEWNS as c_long, 0, 0, 0, 0, 0]),
    ("setns", libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
    ("fsopen", libc::SYS_fsopen, [0, 0, 0, 0, 0, 0]),
    ("open_tree", libc::SYS_open_tree, [libc::AT_FDCWD as c_long, 0, 1, 0, 0, 0]),
    ("umount", libc::SYS_umount2, [0, 2, 0, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [0, 0, 0, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, [0, 0, 0, 0, -3, 0]),
    ("request_key", libc::SYS_request_key, [0, 0, 0, 0, 0, 0]),
    ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1, -1, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [4, 0, 0, 0, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0, 0]),
    ("delete_module", libc::SYS_delete_module, [0, 0, 0, 0, 0, 0]),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, [0, 0, 0, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0, 0]),
    ("ptrace process 1", libc::SYS_ptrace, [libc::PTRACE_ATTACH as c_long, 1, 0, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0, 0]),
    ("kcmp", libc::SYS_kcmp, [1, 1, 0, 0, 0, 0]),
    ("raw socket", libc::SYS_socket, [2, 3, 1, 0, 0, 0]),
    ("packet socket", libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
    ("vsock socket", libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
    ("crypto socket", libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
    ("netfilter socket", libc::SYS_socket, [16, 3, 12, 0, 0, 0]),
    ("bluetooth socket", libc::SYS_socket, [31, 3, 1, 0, 0, 0]),
    ("sethostname", libc::SYS_sethostname, [0, 0, 0, 0, 0, 0]),
    ("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
    ("clock_adjtime", libc::SYS_clock_adjtime, [0, 0, 0, 0, 0, 0]),
    ("swapoff", libc::SYS_swapoff, [0, 0, 0, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
    ("syslog", libc::SYS_syslog, [3, 0, 0, 0, 0, 0]),
    ("acct", libc::SYS_acct, [0, 0, 0, 0, 0, 0]),
    ("quotactl", libc::SYS_quotactl, [0, 0, 0, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
    ("personality without randomisation", libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm, [0, 1, 1, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt, [0, 0, 0, 0, 0, 0]),
];

/// Files of the host or the kernel that must not open.
const OPENS: &[(&str, &CStr, i32)] = &[
    ("read /etc/shadow", c"/etc/shadow", libc::O_RDONLY),
    ("read /root", c"/root", libc::O_RDONLY | libc::O_DIRECTORY),
    ("read /home", c"/home", libc::O_RDONLY | libc::O_DIRECTORY),
    ("read /var/lib", c"/var/lib", libc::O_RDONLY | libc::O_DIRECTORY),
    ("read /dev/kmsg", c"/dev/kmsg", libc::O_RDONLY),
    ("read /dev/mem", c"/dev/mem", libc::O_RDONLY),
    ("open /dev/kvm", c"/dev/kvm", libc::O_RDWR),
    ("open /dev/fuse", c"/dev/fuse", libc::O_RDWR),
    ("write core pattern", c"/proc/sys/kernel/core_pattern", libc::O_WRONLY),
    ("write sysrq", c"/proc/sysrq-trigger", libc::O_WRONLY),
    ("read cgroup files", c"/sys/fs/cgroup/memory/cgroup.procs", libc::O_WRONLY),
    ("read /sys", c"/sys/kernel", libc::O_RDONLY | libc::O_DIRECTORY),
    ("memory of process 1", c"/proc/1/mem", libc::O_RDWR),
    ("environment of process 1", c"/proc/1/environ", libc::O_RDONLY),
    ("descriptors of process 1", c"/proc/1/fd", libc::O_RDONLY | libc::O_DIRECTORY),
    ("program of process 1", c"/proc/1/exe", libc::O_RDONLY),
    ("helper's root", c"/proc/1/root/root", libc::O_RDONLY | libc::O_DIRECTORY),
];

/// Namespaces that a plain `clone` must not make.
const CLONES: &[(&str, i32)] = &[
    ("clone user namespace", libc::CLONE_NEWUSER),
    ("clone network namespace", libc::CLONE_NEWNET),
    ("clone mount namespace", libc::CLONE_NEWNS),
];
