//! How the helper is started.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::mounts;
use crate::error::SandboxdError;
use crate::sys;

/// Where the helper listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// One inherited socket; the helper ends with it.
    Inherited {
        /// Its number; 0 is the only one that `sudo` passes on.
        fd: RawFd,
    },
    /// A socket on the file system, for one user.
    Listen {
        /// Its path.
        path: PathBuf,
        /// The only user who may connect.
        owner: u32,
    },
}

/// How the helper is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxdConfig {
    /// The directory for everything the helper keeps. Every directory above it must let any user
    /// pass, because sandboxes reach their files through it.
    pub state: PathBuf,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where unpacked images are kept; in the state directory when absent. It should not be memory.
    pub images: Option<PathBuf>,
    /// Where the host's driver libraries are looked for: `/`, unless the driver lives elsewhere.
    pub driver_root: PathBuf,
    /// How long sandboxes outlive the connection of their host process.
    pub orphan_grace: Duration,
    /// Whether to stay in the foreground.
    pub is_foreground: bool,
}

impl SandboxdConfig {
    /// Reads arguments as described at [`main`](super::main).
    pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, SandboxdError> {
        let (mut state, mut images, mut socket, mut owner, mut fd) = (None, None, None, None, None);
        let mut driver_root = PathBuf::from("/");
        let mut grace = Self::ORPHAN_GRACE;
        let mut is_foreground = false;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            if name == "--foreground" {
                is_foreground = true;
                continue;
            }
            let value = args.next().ok_or_else(|| usage(format!("{name} lacks a value")))?;
            let number = || {
                let text = value.to_string_lossy();
                text.parse::<u32>().map_err(|_| usage(format!("{name} {text} is not a number")))
            };
            match name.as_str() {
                "--state" => state = Some(PathBuf::from(value)),
                "--images" => images = Some(PathBuf::from(value)),
                "--driver-root" => driver_root = PathBuf::from(value),
                "--socket" => socket = Some(PathBuf::from(value)),
                "--owner" => owner = Some(number()?),
                "--fd" => fd = Some(number()?),
                "--grace" => grace = Duration::from_secs(u64::from(number()?)),
                _ => return Err(usage(format!("{name} is unknown"))),
            }
        }
        let endpoint = match (fd, socket, owner) {
            (Some(fd), None, None) => Endpoint::Inherited {
                fd: RawFd::try_from(fd).map_err(|_| usage("--fd is too large".to_owned()))?,
            },
            (None, Some(path), Some(owner)) => Endpoint::Listen { path, owner },
            _ => return Err(usage("give --fd, or --socket and --owner".to_owned())),
        };
        let state = state.ok_or_else(|| usage("--state is missing".to_owned()))?;
        // The path becomes part of mount options, where these characters mean something.
        let is_plain = |path: &PathBuf| {
            path.is_absolute()
                && path.to_str().is_some_and(|text| {
                    text.len() < 200 && !text.contains([',', ':', '\\', ' ', '\n', '\t'])
                })
        };
        if !is_plain(&state) || !images.as_ref().is_none_or(is_plain) {
            return Err(usage("--state or --images is not a plain absolute path".to_owned()));
        }
        Ok(Self { state, endpoint, images, driver_root, orphan_grace: grace, is_foreground })
    }

    /// How long sandboxes outlive their host process, unless told otherwise.
    pub const ORPHAN_GRACE: Duration = Duration::from_secs(15);
}

/// Runs `body` in a background process with its own session; returns when it calls what it is given,
/// or with its error.
pub(super) fn run_in_background(
    config: &SandboxdConfig,
    body: impl FnOnce(&dyn Fn() -> Result<(), SandboxdError>) -> Result<(), SandboxdError>,
) -> Result<(), SandboxdError> {
    let start = SandboxdError::io("start in the background");
    let (ready, told) = match pipe_with(PipeFlags::CLOEXEC) {
        Ok(pipe) => pipe,
        Err(errno) => return Err(start(errno.into())),
    };
    let mut told = Some(std::fs::File::from(told));
    let mut ready = std::fs::File::from(ready);
    sys::fork(|| {
        let Some(told) = told.take() else { return 1 };
        let told = std::cell::RefCell::new(Some(told));
        let _ = rustix::process::setsid();
        let is_ready = || {
            detach_stdio(config).map_err(SandboxdError::io("open the log"))?;
            if let Some(mut told) = told.borrow_mut().take() {
                let _ = told.write_all(b"!");
            }
            Ok(())
        };
        match body(&is_ready) {
            Ok(()) => 0,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let _ = writeln!(io::stderr(), "error: {error}{}", cause.unwrap_or_default());
                1
            }
        }
    })
    .map_err(start)?;
    drop(told);
    let mut answer = [0];
    match ready.read(&mut answer) {
        Ok(1) => Ok(()),
        _ => Err(SandboxdError::Io {
            doing: "start in the background",
            source: io::Error::other("see above"),
        }),
    }
}

/// Whoever started the helper must not be kept waiting by its open output.
fn detach_stdio(config: &SandboxdConfig) -> io::Result<()> {
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(config.state.join("sandboxd.log"))?;
    log.set_len(0)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

/// Makes the state directory, and what is missing above it, passable for sandboxes.
pub(super) fn make_state_dir(config: &SandboxdConfig) -> io::Result<()> {
    if let Some(parent) = config.state.parent() {
        std::fs::DirBuilder::new().recursive(true).create(parent)?;
    }
    mounts::make_dir(&config.state, 0o711)
}

fn usage(text: String) -> SandboxdError {
    SandboxdError::Usage { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<SandboxdConfig, SandboxdError> {
        SandboxdConfig::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn arguments_are_read() {
        let config = parse("--state /run/x --socket /run/x/s --owner 7 --grace 3").unwrap();
        let endpoint = Endpoint::Listen { path: "/run/x/s".into(), owner: 7 };
        assert_eq!(config.endpoint, endpoint);
        assert_eq!(config.orphan_grace, Duration::from_secs(3));
        assert!(!config.is_foreground);
        let config = parse("--state /run/x --fd 5 --foreground").unwrap();
        assert_eq!(config.endpoint, Endpoint::Inherited { fd: 5 });
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "--state /run/x",
            "--state relative --fd 5",
            "--state /run/x:y --fd 5",
            "--state /run/x --fd 5 --socket /s --owner 1",
            "--state /run/x --socket /s",
            "--state /run/x --fd five",
            "--what",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
