//! Floor 2: sandboxes, images and inventory.
//!
//! A sandbox is a confined, limited, disposable place for one command. It is made in two steps:
//! [`Runtime::prepare`] builds it without knowing the command, so that a pool of them can wait, and
//! [`Runtime::start`] hands the command to the process that waits inside, which takes milliseconds.
//!
//! The crate has two halves, which run in different processes. [`Runtime`] is the client: async,
//! unprivileged, part of the host role. [`sandboxd`] is the helper: root, one thread, small. They
//! talk over a local socket, descriptors included. The helper outlives the client, so a host process
//! that died finds its sandboxes again through [`Runtime::list`].
//!
//! [`privileges`] turns a process that was started as root into an unprivileged one; its
//! [`Launcher`] then starts the helper in its place.
//!
//! [`inventory`] says what the machine has; it needs no privileges and no helper.
//!
//! **Invariant:** a tenant's words (command, environment, paths) never reach code that runs with
//! privileges: they go to the confined init of the sandbox and are interpreted there.

mod client;
mod error;
mod image;
mod init;
pub mod inventory;
pub mod privileges;
mod probe;
pub mod sandboxd;
#[expect(unsafe_code, reason = "fork, exec, namespaces and mounts have no safe interface")]
mod sys;
mod types;
mod wire;

pub use client::{
    FilesIn, Launcher, LauncherConfig, Pty, Runtime, RuntimeConfig, SandboxInfo, StartOptions,
    Stdio,
};
pub use error::{Failure, FailureCode, RuntimeError, SandboxdError};
pub use types::{
    Capabilities, CgroupVersion, Command, Event, ExecId, Exit, Finding, GpuDevice, Image,
    ImageConfig, LimitSupport, Limits, Network, Prepared, Reason, SandboxId, SandboxSpec,
    SandboxState, ScratchKind, Stats, Tier, WipeRecord,
};
