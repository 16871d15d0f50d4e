//! The messages between host process, helper and the init of each sandbox.
//!
//! Every message is one datagram of a `SOCK_SEQPACKET` socket: a tag byte, then postcard. File
//! descriptors travel beside it. A message over [`INLINE_MAX`] bytes travels in a sealed memory file
//! instead, which is then the first descriptor; sealed, because reading it must neither block nor
//! see it change. The receiver bounds both sizes before it looks inside.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::types::{
    CgroupVersion, Command, Event, ExecId, Exit, Finding, ImageConfig, Limits, Prepared, SandboxId,
    SandboxSpec, SandboxState, Stats, WipeRecord,
};

/// What the two sides must agree on.
pub(crate) const VERSION: u32 = 2;

/// What the host process asks of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First message of a connection.
    Hello { version: u32 },
    /// Create a sandbox.
    Prepare { id: SandboxId, spec: SandboxSpec },
    /// Run its command. Descriptors: three of stdio, the tar stream if `files`, then those to keep.
    Start { id: SandboxId, command: Command, limits: Option<Limits>, files: Option<String> },
    /// Run one more process. Descriptors: three of stdio.
    Exec { id: SandboxId, exec: ExecId, command: Command },
    /// Write a tar stream of `path`. One descriptor.
    FilesGet { id: SandboxId, path: String },
    /// Unpack a tar stream under `dir`. One descriptor.
    FilesPut { id: SandboxId, dir: String },
    /// Begin to connect to a port inside. The reply carries the socket.
    Dial { id: SandboxId, port: u16, family: Family },
    /// Open a terminal inside. The reply carries its master and the side for a program.
    Terminal { id: SandboxId },
    /// Send a signal to the command.
    Signal { id: SandboxId, signal: i32 },
    /// Kill everything.
    Kill { id: SandboxId },
    /// Freeze everything.
    Pause { id: SandboxId },
    /// Thaw.
    Resume { id: SandboxId },
    /// Read the counters.
    Stats { id: SandboxId },
    /// Kill, unmount, remove.
    Destroy { id: SandboxId },
    /// Name every sandbox.
    List,
    /// Hand back the kept descriptors of one.
    Reclaim { id: SandboxId },
    /// Try something inside.
    Diagnose { id: SandboxId, check: Check },
    /// Import an image and tell what it says.
    InspectImage { image: crate::types::Image },
    /// Tell about the host.
    HostFacts,
    /// Remove every sandbox and end.
    Shutdown,
}

/// Which loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Prepared(Prepared),
    Stats(Stats),
    Wiped(WipeRecord),
    List(Vec<ListEntry>),
    Kept(u32),
    Diagnosed(CheckResult),
    Image(ImageConfig),
    Host(HostFacts),
}

/// One line of a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListEntry {
    pub(crate) id: SandboxId,
    pub(crate) state: SandboxState,
}

/// What the helper knows about its machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    pub(crate) cgroup: CgroupVersion,
    pub(crate) controllers: Vec<String>,
    pub(crate) idmap: bool,
}

/// What the helper sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ServerMessage {
    Reply { request_id: u64, result: Result<Reply, Failure> },
    Event(Event),
}

/// What the host process sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientMessage {
    pub(crate) request_id: u64,
    pub(crate) request: Request,
}

/// Something to try from inside a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Check {
    /// The forbidden operations.
    Battery,
    /// Touch more memory than allowed.
    Memory { bytes: u64 },
    /// Fork until refused, at most this often.
    Pids { max: u32 },
    /// Burn processor time.
    Cpu { millis: u32 },
    /// Write to scratch until refused, at most this much.
    Scratch { bytes: u64 },
}

/// What came of a [`Check`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum CheckResult {
    Battery(Vec<Finding>),
    /// Killed by the kernel, as it should be.
    Killed,
    /// How far it came: bytes, forks, or microseconds of processor time.
    Reached(u64),
}

/// What the helper asks of the init of a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitRequest {
    /// Descriptors: three of stdio, the tar stream if `files`.
    Start {
        task: u64,
        command: Command,
        files: Option<String>,
    },
    /// Descriptors: three of stdio.
    Exec {
        task: u64,
        exec: ExecId,
        command: Command,
    },
    FilesGet {
        task: u64,
        path: String,
    },
    FilesPut {
        task: u64,
        dir: String,
    },
    Diagnose {
        task: u64,
        check: Check,
    },
    Signal {
        signal: i32,
    },
}

/// What the init of a sandbox tells; believed no more than the tenant itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitEvent {
    Ready,
    TaskDone { task: u64, result: Result<Vec<u8>, String> },
    JobExited(Ended),
    ExecExited { exec: ExecId, ended: Ended },
}

/// What the host process asks of the launcher: the helper of this name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRequest {
    pub(crate) name: String,
}

/// What the launcher answers, once the helper listens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchReply {
    pub(crate) result: Result<(), String>,
}

/// A raw end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Ended {
    /// Adds what the counters say.
    pub(crate) fn with_oom(self, oom: bool) -> Exit {
        let failed = self.code != Some(0);
        Exit { code: self.code, signal: self.signal, oom: oom && failed }
    }
}

/// Why a message could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Nothing can be read or written without waiting.
    #[error("would block")]
    WouldBlock,
    /// The far end closed.
    #[error("closed")]
    Closed,
    /// Too long, truncated, or not the agreed form.
    #[error("malformed message")]
    Malformed,
    /// The kernel refused.
    #[error("socket error")]
    Io(#[source] std::io::Error),
}

impl From<Errno> for WireError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::WOULDBLOCK => Self::WouldBlock,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// A message ready to be sent, perhaps more than once.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    memfd: Option<OwnedFd>,
    fds: Vec<OwnedFd>,
}

impl Packet {
    /// Encodes `message`; `fds` go along.
    pub(crate) fn new<T: Serialize>(message: &T, fds: Vec<OwnedFd>) -> Result<Self, WireError> {
        if fds.len() >= FDS_MAX {
            return Err(WireError::Malformed);
        }
        let payload = postcard::to_stdvec(message).map_err(|_| WireError::Malformed)?;
        if payload.len() > PAYLOAD_MAX {
            return Err(WireError::Malformed);
        }
        if payload.len() <= INLINE_MAX {
            let mut bytes = Vec::with_capacity(payload.len() + 1);
            bytes.push(TAG_INLINE);
            bytes.extend_from_slice(&payload);
            return Ok(Self { bytes, memfd: None, fds });
        }
        let memfd = rustix::fs::memfd_create(
            "welkin-message",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            let n = rustix::io::write(&memfd, rest)?;
            rest = rest.get(n..).unwrap_or_default();
        }
        rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
        Ok(Self { bytes: vec![TAG_MEMFD], memfd: Some(memfd), fds })
    }

    /// Sends without waiting for room, unless the socket itself is a blocking one.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> Result<(), WireError> {
        let fds: Vec<BorrowedFd<'_>> =
            self.memfd.iter().chain(&self.fds).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(WireError::Malformed);
        }
        loop {
            let iov = [IoSlice::new(&self.bytes)];
            match rustix::net::sendmsg(socket, &iov, &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Reads one message and its descriptors.
pub(crate) fn recv<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<(T, Vec<OwnedFd>), WireError> {
    let mut buffer = vec![0; INLINE_MAX + 2];
    let mut fds = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut iov = [IoSliceMut::new(&mut buffer)];
        match rustix::net::recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(WireError::Malformed);
    }
    let Some((&tag, inline)) = buffer.get(..received.bytes).and_then(<[u8]>::split_first) else {
        return Err(WireError::Closed);
    };
    let message = match tag {
        TAG_INLINE => postcard::from_bytes(inline).map_err(|_| WireError::Malformed)?,
        TAG_MEMFD if !fds.is_empty() => {
            let payload = read_sealed(&fds.remove(0))?;
            postcard::from_bytes(&payload).map_err(|_| WireError::Malformed)?
        }
        _ => return Err(WireError::Malformed),
    };
    Ok((message, fds))
}

/// Reads a memory file that can no longer change.
fn read_sealed(fd: &OwnedFd) -> Result<Vec<u8>, WireError> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| WireError::Malformed)?;
    if !seals.contains(SEALS) {
        return Err(WireError::Malformed);
    }
    let len = usize::try_from(rustix::fs::fstat(fd)?.st_size).map_err(|_| WireError::Malformed)?;
    if len > PAYLOAD_MAX {
        return Err(WireError::Malformed);
    }
    let mut payload = vec![0; len];
    let mut at = 0;
    while let Some(rest) = payload.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(fd, rest, at as u64)? {
            0 => return Err(WireError::Malformed),
            n => at += n,
        }
    }
    Ok(payload)
}

/// The longest message that travels in the datagram itself.
const INLINE_MAX: usize = 32 << 10;

/// The longest message at all: arguments and environment of 256 KiB each, and room.
const PAYLOAD_MAX: usize = 1 << 20;

/// The most descriptors of one message, a memory file included.
const FDS_MAX: usize = 32;

const TAG_INLINE: u8 = 0;
const TAG_MEMFD: u8 = 1;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap()
    }

    #[test]
    fn small_and_large_messages_arrive() {
        let (a, b) = pair();
        for size in [0, 1, INLINE_MAX, 600 << 10] {
            let text = "x".repeat(size);
            Packet::new(&text, vec![a.try_clone().unwrap()]).unwrap().send(a.as_fd()).unwrap();
            let (got, fds): (String, _) = recv(b.as_fd()).unwrap();
            assert_eq!(got.len(), size);
            assert_eq!(fds.len(), 1);
        }
    }

    #[test]
    fn oversize_closed_and_garbage_are_told_apart() {
        let (a, b) = pair();
        assert!(matches!(recv::<String>(b.as_fd()), Err(WireError::WouldBlock)));
        assert!(Packet::new(&"x".repeat(PAYLOAD_MAX + 1), Vec::new()).is_err());
        rustix::net::send(&a, &[7, 7, 7], SendFlags::empty()).unwrap();
        assert!(matches!(recv::<String>(b.as_fd()), Err(WireError::Malformed)));
        // A descriptor that could block or change is not read.
        let (pipe, _write) = rustix::pipe::pipe().unwrap();
        let packet = Packet { bytes: vec![TAG_MEMFD], memfd: None, fds: vec![pipe] };
        packet.send(a.as_fd()).unwrap();
        assert!(matches!(recv::<String>(b.as_fd()), Err(WireError::Malformed)));
        drop(a);
        assert!(matches!(recv::<String>(b.as_fd()), Err(WireError::Closed)));
    }
}
