//! The system calls that need `unsafe`, each behind a function that is safe to call.
//!
//! Functions that fork or exec demand a process with one thread; [`thread_count`] tells.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

pub(crate) mod vulkan;

/// Forks a child that runs `body` and ends with the code it returns; a panic ends it with
/// [`PANICKED`]. The child owns a copy of everything, so the caller must be single-threaded.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: `fork` has no memory preconditions; callers are single-threaded (checked when the
    // helper starts, and an init has never had a second thread), so no lock is held by a thread
    // that does not exist in the child.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Unwinding further would run the parent's code in the child.
        exit_now(catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED));
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::Other.into())
}

/// The exit code of a child whose body panicked.
pub(crate) const PANICKED: i32 = 101;

/// Ends this process at once, without running anything registered by its parent's image.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Replaces this process; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: `path` and every element are NUL-terminated and outlive the call; both arrays end in
    // a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Blocks `signals` and gives a descriptor from which they can be read.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by `sigemptyset` before use and lives on this stack; the
    // descriptor is checked and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Unblocks every signal and restores the default action of each.
pub(crate) fn reset_signals() {
    // SAFETY: the set is initialised before use; `signal` with `SIG_DFL` installs no code. Errors
    // (for `SIGKILL` and `SIGSTOP`) change nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Closes every descriptor from 3 on that is not in `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    keep.push(u32::MAX);
    let mut first = 3;
    for fd in keep {
        if fd > first {
            // SAFETY: callers are in a fresh child and use none of these descriptors afterwards;
            // owners of them in this process are never dropped, because it ends by exec or `_exit`.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0_u32) };
        }
        first = first.max(fd.saturating_add(1));
    }
}

/// Moves `fd` to the number `to`, closed on exec, and returns it.
pub(crate) fn move_fd(fd: RawFd, to: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `dup3` fails on bad numbers; `to` becomes owned by the result alone, since callers are
    // fresh children that have forgotten what was there before.
    unsafe {
        if fd == to {
            return Ok(OwnedFd::from_raw_fd(to));
        }
        if libc::dup3(fd, to, libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(to))
    }
}

/// Takes a descriptor number that was inherited by agreement. Of a standard stream it takes a copy.
pub(crate) fn adopt_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` fails on a number that is not open; the process was started with this number
    // for this purpose, so nobody else owns it, and a copy is owned by nobody else anyway.
    unsafe {
        if fd < 3 {
            let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3);
            return if copy < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(OwnedFd::from_raw_fd(copy))
            };
        }
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Enters the namespace behind `fd`, which must be of `kind` (a `CLONE_NEW*` flag).
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: `setns` takes plain numbers.
    check(c_long::from(unsafe { libc::setns(fd.as_raw_fd(), kind) })).map(drop)
}

/// Leaves the namespaces named by `flags` for fresh ones.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: `unshare` takes plain numbers; no caller passes `CLONE_FILES` or `CLONE_VM`.
    check(c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Makes the detached mount `tree` read-only, without devices and set-id, and shifts its owners
/// into `userns` when given.
pub(crate) fn mount_setattr(
    tree: BorrowedFd<'_>,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attr = libc::mount_attr {
        attr_set: read_only | if userns.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: userns.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: the path is an empty NUL-terminated string, `attr` lives through the call and its
    // size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Sets the interface `lo` of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid; the name fits with its NUL; the
    // kernel reads and writes only this struct.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = from.cast_signed();
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request).into())?;
        let up = c_int::from(request.ifr_ifru.ifru_flags) | libc::IFF_UP | libc::IFF_RUNNING;
        request.ifr_ifru.ifru_flags = i16::try_from(up).map_err(io::Error::other)?;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into())?;
    }
    Ok(())
}

/// Sets the file system identity of this process, so that the kernel checks opens as `uid`.
/// Dropping to a user also drops the powers over files.
pub(crate) fn set_fs_ids(uid: u32, gid: u32) {
    // SAFETY: both take plain numbers and cannot fail for root; the effect is per thread.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Leaves every supplementary group.
pub(crate) fn clear_groups() -> io::Result<()> {
    // SAFETY: a count of zero reads no list.
    check(c_long::from(unsafe { libc::setgroups(0, ptr::null()) })).map(drop)
}

/// Adds a second system call filter to this process and all it will start: `clone` makes no
/// namespaces, and nobody types into a terminal on behalf of its reader. Both look at the lower half
/// of an argument, as the kernel does.
pub(crate) fn confine_further() -> io::Result<()> {
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equals =
        |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let number = |number: c_long| u32::try_from(number).map_err(io::Error::other);
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let any_namespace =
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 5, 4, NAMESPACE_FLAGS);
    // The first filter ends calls of foreign architectures, so numbers mean what they mean here.
    let program = [
        load(OFFSET_NUMBER),
        equals(number(libc::SYS_clone)?, 1, 0),
        equals(number(libc::SYS_ioctl)?, 2, 4),
        load(OFFSET_ARG_0),
        any_namespace,
        load(OFFSET_ARG_1),
        equals(TIOCSTI, 3, 0),
        equals(TIOCLINUX, 2, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(refuse),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program lives through the call, its length is passed with it, and the kernel
    // checks every jump; it only reads through the pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    check(result).map(drop)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    // Every code used here fits in a byte.
    libc::sock_filter { code: (code & 0xff) as u16, jt, jf, k }
}

/// Where `seccomp_data` holds the call's number and the lower halves of its arguments, on a
/// little-endian machine.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARG_0: u32 = 16;
const OFFSET_ARG_1: u32 = 24;

/// Every `CLONE_NEW*` flag that `clone` takes.
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// Makes one system call with plain numbers and reports its error number.
///
/// Used only by the escape battery, in a child that ends right afterwards.
pub(crate) fn raw(number: c_long, args: [c_long; 6]) -> Result<c_long, i32> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the battery passes null, small numbers, or pointers to live buffers of its own; the
    // process is a throw-away child, so even an unexpected success harms only itself.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        Ok(result)
    }
}

/// Turns `path` into the argument of a raw call.
pub(crate) fn path_arg(path: &CStr) -> c_long {
    path.as_ptr().addr().cast_signed() as c_long
}

/// Registers `fd` with the running reactor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for its whole life, and the result owns
    // it, deregistering before it is closed; no caller takes it out and closes it meanwhile.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Counts the threads of this process.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir(Path::new("/proc/self/task"))?.count())
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
