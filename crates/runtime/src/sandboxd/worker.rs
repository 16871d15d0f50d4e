//! A child of the helper that does one slow or dangerous thing and sends back the result.
//!
//! The helper itself never waits. A worker shares no descriptor with it but those named, and dies
//! with it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Failure, FailureCode};
use crate::sys;

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    pid: Pid,
    result: OwnedFd,
    buffer: Vec<u8>,
}

impl Worker {
    /// Starts a worker that keeps the descriptors `keep` and runs `body`.
    pub(super) fn spawn<T: Serialize>(
        keep: &[RawFd],
        body: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let host = |error: std::io::Error| Failure::host("start a worker", error);
        let (result, output) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| host(errno.into()))?;
        let parent = rustix::process::getpid();
        let pid = sys::fork(|| {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if rustix::process::getppid() != Some(parent) {
                return 1;
            }
            sys::reset_signals();
            let mut keep = keep.to_vec();
            keep.push(output.as_raw_fd());
            sys::close_all_but(&keep);
            let bytes = postcard::to_stdvec(&body()).unwrap_or_default();
            i32::from(write_all(output.as_fd(), &bytes).is_err())
        })
        .map_err(host)?;
        rustix::io::ioctl_fionbio(&result, true).map_err(|errno| host(errno.into()))?;
        Ok(Self { pid, result, buffer: Vec::new() })
    }

    /// The descriptor that becomes readable.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.result.as_fd()
    }

    /// Reads what is there; the result when it is complete.
    pub(super) fn poll<T: DeserializeOwned>(&mut self) -> Option<Result<T, Failure>> {
        let mut chunk = [0; 4096];
        loop {
            match rustix::io::read(&self.result, &mut chunk) {
                Ok(0) => break,
                Ok(n) => self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return None,
                Err(_) => break,
            }
        }
        let died = || Failure::new(FailureCode::Died, "the worker died");
        Some(postcard::from_bytes(&self.buffer).unwrap_or_else(|_| Err(died())))
    }

    /// Ends it; it is reaped with the other children.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::write(fd, bytes)?;
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}
