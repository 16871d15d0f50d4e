//! What can go wrong, split by who hears of it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why the helper refused or failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCode {
    /// The request breaks a bound or names something not allowed.
    Invalid,
    /// No such sandbox.
    NotFound,
    /// The sandbox is not in the right state.
    WrongState,
    /// Too much is going on; try again.
    Busy,
    /// The sandbox died before it answered.
    Died,
    /// The image is malformed or does not match its digests.
    BadImage,
    /// The operation inside the sandbox failed.
    Inside,
    /// The host's kernel refused.
    Host,
}

/// A failed request, as told by the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// A sentence for people.
    pub text: String,
}

impl Failure {
    /// Pairs a kind with a sentence.
    pub(crate) fn new(code: FailureCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Blames the host's kernel.
    pub(crate) fn host(doing: &str, error: impl std::fmt::Display) -> Self {
        Self::new(FailureCode::Host, format!("{doing}: {error}"))
    }
}

/// How a helper says that its directory is taken.
const IN_USE: &str = "another helper already uses";

/// Why a call of [`Runtime`](crate::Runtime) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The helper could not be started.
    #[error("failed to start the sandbox helper: {text}")]
    Spawn {
        /// What it printed.
        text: String,
    },
    /// The helper's socket could not be reached.
    #[error("failed to connect to the sandbox helper at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper is gone.
    #[error("the sandbox helper went away")]
    Disconnected,
    /// The helper did not answer in time.
    #[error("the sandbox helper did not answer {request} in time")]
    Timeout {
        /// The request.
        request: &'static str,
    },
    /// The helper speaks another version or nonsense.
    #[error("the sandbox helper sent an unexpected message")]
    Protocol,
    /// The helper refused or failed the request.
    #[error("failed to {request}")]
    Failed {
        /// What was asked.
        request: &'static str,
        /// What it said.
        #[source]
        source: Failure,
    },
    /// A local system call failed.
    #[error("failed to {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Disconnected | Self::Timeout { .. } => true,
            Self::Failed { source, .. } => source.code == FailureCode::Busy,
            Self::Spawn { .. } | Self::Protocol | Self::Io { .. } => false,
        }
    }

    /// Whether the helper did not start because another one still holds its directory. It says so
    /// in words only: what it prints is all that a start gives.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::Spawn { text } if text.contains(IN_USE))
    }

    /// What the helper said, when it answered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        if let Self::Failed { source, .. } = self { Some(source) } else { None }
    }
}

/// Why the helper ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxdError {
    /// Its arguments make no sense.
    #[error("bad argument: {text}")]
    Usage {
        /// Which and why.
        text: String,
    },
    /// It needs privileges.
    #[error("must run as root")]
    NotRoot,
    /// It must be alone in its process.
    #[error("must start in a process with one thread")]
    Threads,
    /// Another one holds the state directory.
    #[error("{IN_USE} {state}")]
    Locked {
        /// The directory.
        state: PathBuf,
    },
    /// A system call failed.
    #[error("failed to {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SandboxdError {
    /// Names what was being done when `source` came.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
