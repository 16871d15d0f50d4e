//! Turns a fresh child of init into the program it was asked to run.
//!
//! Failures before the program runs are told as a shell tells them: one line on standard error, exit
//! code 127 for a program that is not there and 126 for one that cannot be run.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;

use super::files;
use crate::sys;
use crate::types::Command;

/// Sets up the process and executes; returns the exit code only on failure.
pub(super) fn exec(command: &Command, fds: Vec<OwnedFd>, files_dir: Option<&str>) -> i32 {
    match prepare(command, fds, files_dir) {
        Ok(()) => {}
        Err(text) => return complain(&text, CANNOT_RUN),
    }
    let name = command.argv.first().map_or("", String::as_str);
    let (Some(argv), Some(envp)) = (c_strings(&command.argv), c_strings(&command.env)) else {
        return complain("argument holds a NUL byte", CANNOT_RUN);
    };
    let mut denied = None;
    for candidate in candidates(name, &command.env) {
        let Ok(path) = CString::new(candidate) else { continue };
        let error = sys::execve(&path, &argv, &envp);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            _ => denied = Some(error),
        }
    }
    match denied {
        Some(error) => complain(&format!("{name}: {}", plain(&error)), CANNOT_RUN),
        None => complain(&format!("{name}: command not found"), NOT_FOUND),
    }
}

/// Session, terminal, stdio, files and directory.
fn prepare(command: &Command, fds: Vec<OwnedFd>, files_dir: Option<&str>) -> Result<(), String> {
    let mut fds = fds.into_iter();
    let (Some(stdin), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next()) else {
        return Err("missing stdio".to_owned());
    };
    let fail = |doing: &'static str| move |error: rustix::io::Errno| format!("{doing}: {error}");
    rustix::process::setsid().map_err(fail("new session"))?;
    rustix::stdio::dup2_stdin(&stdin).map_err(fail("stdin"))?;
    rustix::stdio::dup2_stdout(&stdout).map_err(fail("stdout"))?;
    rustix::stdio::dup2_stderr(&stderr).map_err(fail("stderr"))?;
    for fd in [stdin, stdout, stderr] {
        // A blocking file is what programs expect; the caller may use non-blocking ends.
        let _ = rustix::io::ioctl_fionbio(&fd, false);
    }
    if command.tty {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(fail("terminal"))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(dir) = files_dir {
        files::put(dir, fds.by_ref().take(1).collect())?;
    }
    drop(fds);
    sys::close_all_but(&[]);
    let cwd = if command.cwd.is_empty() { HOME } else { &command.cwd };
    rustix::process::chdir(cwd).map_err(|error| format!("cannot enter {cwd}: {error}"))
}

/// The files that `name` may mean: itself with a slash, else one a directory of `PATH`.
fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|dir| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") })
        .collect()
}

fn c_strings(list: &[String]) -> Option<Vec<CString>> {
    list.iter().map(|text| CString::new(text.as_str()).ok()).collect()
}

fn complain(text: &str, code: i32) -> i32 {
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("welkin: {text}\n").as_bytes());
    code
}

fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOEXEC) => "cannot execute this format".to_owned(),
        _ => error.to_string(),
    }
}

const NOT_FOUND: i32 = 127;
const CANNOT_RUN: i32 = 126;
const HOME: &str = "/work";
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
