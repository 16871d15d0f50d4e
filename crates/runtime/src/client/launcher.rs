//! The handle to the launcher, which stays root when this process gives it up.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::privileges::{User, UserError, must_be_roots};
use crate::wire::{self, LaunchReply, LaunchRequest, Packet};

/// Starts helpers for a process that can't. It ends with the last copy of its handle.
#[derive(Clone, Debug)]
pub struct Launcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One request at a time.
    socket: Mutex<OwnedFd>,
    dir: PathBuf,
}

/// What a launcher does for as long as it lives.
#[derive(Clone, Debug)]
pub struct LauncherConfig {
    /// The words that start the helper, without `sudo`.
    pub command: Vec<OsString>,
    /// Where helpers have their state directories `sandboxd-NAME`.
    pub dir: PathBuf,
    /// Where helpers keep unpacked images, each in a directory of its own.
    pub images: PathBuf,
    /// How long sandboxes outlive this process.
    pub orphan_grace: Duration,
}

impl Launcher {
    /// Starts it, as root, for helpers that serve `user`.
    ///
    /// # Errors
    ///
    /// [`UserError::Exposed`] where others than root could change what it works in.
    pub fn start(config: &LauncherConfig, user: &User) -> Result<Self, UserError> {
        must_be_roots(&config.dir)?;
        must_be_roots(&config.images)?;
        let (program, words) = config.command.split_first().map_or_else(
            || (Path::new("").as_os_str().to_owned(), [].as_slice()),
            |(program, words)| (program.clone(), words),
        );
        let io = |source| UserError::Io {
            doing: "start the launcher of sandbox helpers:",
            path: PathBuf::from(&program),
            source,
        };
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|errno| io(errno.into()))?;
        Command::new(&program)
            .args(words)
            .arg("--launcher")
            .arg("--dir")
            .arg(&config.dir)
            .arg("--images")
            .arg(&config.images)
            .args(["--owner", &user.uid().to_string()])
            .args(["--grace", &config.orphan_grace.as_secs().to_string()])
            .args(words.iter().flat_map(|word| [OsString::from("--word"), word.clone()]))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(io)?;
        Ok(Self(Arc::new(Inner { socket: Mutex::new(ours), dir: config.dir.clone() })))
    }

    /// Starts the helper whose state directory this is; returns once it listens.
    pub(super) fn launch(&self, state: &Path) -> Result<(), String> {
        let name = state.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_prefix("sandboxd-"));
        let name = name.filter(|_| state.parent() == Some(&self.0.dir));
        let name = name.ok_or("the launcher starts helpers in another directory")?;
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let told = || -> Result<LaunchReply, wire::WireError> {
            let request = LaunchRequest { name: name.to_owned() };
            Packet::new(&request, Vec::new())?.send(socket.as_fd())?;
            wire::recv(socket.as_fd()).map(|(reply, _)| reply)
        };
        // It is gone when somebody killed it.
        let gone = |error| format!("the launcher that stays root is gone ({error}): start again");
        told().map_err(gone)?.result
    }
}

/// Starts a helper without keeping a thread of the reactor.
pub(super) async fn launch(launcher: &Launcher, state: &Path) -> io::Result<Result<(), String>> {
    let (launcher, state) = (launcher.clone(), state.to_owned());
    let launched = tokio::task::spawn_blocking(move || launcher.launch(&state));
    launched.await.map_err(io::Error::other)
}
