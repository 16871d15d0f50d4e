//! What stays root when the host process gives it up: starts the helper again when asked.
//!
//! The host process starts it before it gives up root, and can do nothing with it but name a helper:
//! directories, owner and grace time were fixed before. It ends when the host process does.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::SandboxdError;
use crate::sys;
use crate::wire::{self, LaunchReply, LaunchRequest, Packet, WireError};

/// What was fixed at the start.
#[derive(Debug)]
pub(super) struct Launcher {
    /// State directories are made here.
    dir: PathBuf,
    /// Image stores are made here.
    images: PathBuf,
    /// The user who may connect to the helpers.
    owner: String,
    /// Seconds.
    grace: String,
    /// What comes between the program and the helper's arguments.
    words: Vec<OsString>,
    /// Every helper that was asked for.
    names: BTreeSet<String>,
}

impl Launcher {
    /// Reads `--dir DIR --images DIR --owner UID --grace SECONDS [--word WORD]…`.
    pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, SandboxdError> {
        let (mut dir, mut images, mut owner, mut grace) = (None, None, None, None);
        let mut words = Vec::new();
        let mut args = args.into_iter();
        while let (Some(name), Some(value)) = (args.next(), args.next()) {
            match name.to_str() {
                Some("--dir") => dir = Some(PathBuf::from(value)),
                Some("--images") => images = Some(PathBuf::from(value)),
                Some("--owner") => owner = value.into_string().ok(),
                Some("--grace") => grace = value.into_string().ok(),
                Some("--word") => words.push(value),
                _ => {}
            }
        }
        match (dir, images, owner, grace) {
            (Some(dir), Some(images), Some(owner), Some(grace)) => {
                Ok(Self { dir, images, owner, grace, words, names: BTreeSet::new() })
            }
            _ => Err(SandboxdError::Usage {
                text: "the launcher needs --dir, --images, --owner and --grace".to_owned(),
            }),
        }
    }

    /// Serves the socket on standard input until its other end is closed.
    pub(super) fn run(mut self) -> Result<(), SandboxdError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SandboxdError::NotRoot);
        }
        let socket = sys::adopt_fd(0).map_err(SandboxdError::io("open the socket"))?;
        let null = std::fs::File::open("/dev/null").map_err(SandboxdError::io("open /dev/null"))?;
        let _ = rustix::stdio::dup2_stdin(&null);
        // Ctrl-C is for the host process, which may still need a helper to clean up.
        let _ = rustix::process::setsid();
        loop {
            match wire::recv::<LaunchRequest>(socket.as_fd()) {
                Ok((request, _)) => self.answer(&socket, &request.name)?,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn answer(&mut self, socket: &OwnedFd, name: &str) -> Result<(), SandboxdError> {
        let result = self.launch(name);
        let packet = Packet::new(&LaunchReply { result }, Vec::new()).map_err(broken)?;
        packet.send(socket.as_fd()).map_err(broken)
    }

    /// Starts a helper; returns once it listens.
    fn launch(&mut self, name: &str) -> Result<(), String> {
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name {
            return Err("the name is not 1 to 64 letters, digits or hyphens".to_owned());
        }
        if !self.names.contains(name) && self.names.len() >= NAMES_MAX {
            return Err("too many helpers".to_owned());
        }
        self.names.insert(name.to_owned());
        let state = self.dir.join(format!("sandboxd-{name}"));
        // The file that runs now, whatever lies under its name by now.
        let output = Command::new("/proc/self/exe")
            .arg0(std::env::args_os().next().unwrap_or_default())
            .args(&self.words)
            .arg("--images")
            .arg(self.images.join(name))
            .arg("--socket")
            .arg(state.join("socket"))
            .arg("--state")
            .arg(&state)
            .args(["--owner", &self.owner, "--grace", &self.grace])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .current_dir("/")
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(text.trim().chars().take(TEXT_MAX).collect())
    }
}

fn broken(error: WireError) -> SandboxdError {
    SandboxdError::io("talk to the host process")(std::io::Error::other(error))
}

/// Helpers of one host process: `welkin up` has 16 hosts at most.
const NAMES_MAX: usize = 16;

/// The longest text told of a failure.
const TEXT_MAX: usize = 1000;
