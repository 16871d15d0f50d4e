//! Finds the helper's socket, and starts the helper.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{RuntimeConfig, launcher};
use crate::error::RuntimeError;
use crate::sys;

/// Connects to the socket, if it is the helper who listens: tenants' secrets go through it.
pub(super) fn open_socket(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?.uid;
    if peer.is_root() {
        return Ok(socket);
    }
    let text = format!("user {} listens there, who is not root", peer.as_raw());
    Err(io::Error::other(text))
}

/// Waits until a socket that is being connected is connected.
pub(super) async fn connected(socket: OwnedFd) -> io::Result<OwnedFd> {
    let socket = sys::watch(socket)?;
    drop(socket.writable().await?);
    rustix::net::sockopt::socket_error(socket.get_ref())??;
    Ok(socket.into_inner())
}

/// Runs the helper's command, which returns as soon as the helper listens.
pub(super) async fn launch(config: &RuntimeConfig) -> Result<(), RuntimeError> {
    let failed = |text: String| RuntimeError::Spawn { text };
    let late = |_| failed("it did not listen in time".to_owned());
    if let Some(launcher) = &config.launcher {
        let launched = launcher::launch(launcher, &config.state);
        let launched = tokio::time::timeout(config.timeout, launched).await.map_err(late)?;
        return launched.map_err(|error| failed(error.to_string()))?.map_err(failed);
    }
    let (program, args) =
        config.command.split_first().ok_or_else(|| failed("no command".to_owned()))?;
    let owner = rustix::process::geteuid().as_raw().to_string();
    let images = config.images.as_ref().map(|dir| [OsStr::new("--images"), dir.as_os_str()]);
    let driver = config.driver_root.as_ref();
    let driver = driver.map(|dir| [OsStr::new("--driver-root"), dir.as_os_str()]);
    let output = tokio::process::Command::new(program)
        .args(args)
        .args(images.iter().flatten())
        .args(driver.iter().flatten())
        .arg("--state")
        .arg(&config.state)
        .arg("--socket")
        .arg(&config.socket)
        .args(["--owner", &owner])
        .args(["--grace", &config.orphan_grace.as_secs().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir("/")
        .output();
    let output = tokio::time::timeout(config.timeout, output)
        .await
        .map_err(late)?
        .map_err(|error| failed(format!("{}: {error}", program.display())))?;
    if output.status.success() {
        Ok(())
    } else {
        let text = String::from_utf8_lossy(&output.stderr);
        Err(failed(text.trim().chars().take(1000).collect()))
    }
}
