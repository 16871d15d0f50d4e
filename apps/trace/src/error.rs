//! Why the program failed, and how it says so.

use crate::args::{USAGE, UsageError};
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use welkin_trace::{CodecError, JoinError};

/// The exit code when the command line was not understood (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum RunError {
    Usage(UsageError),
    NoBand,
    Read { path: PathBuf, source: io::Error },
    Decode { path: PathBuf, source: CodecError },
    Join(JoinError),
    Write { path: PathBuf, source: io::Error },
    Stdout(io::Error),
}

impl RunError {
    /// Prints the error with its causes to stderr and picks the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("error: {self}\n");
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!("  caused by: {error}\n"));
            cause = error.source();
        }
        let is_usage = matches!(self, Self::Usage(_));
        if is_usage {
            text.push('\n');
            text.push_str(USAGE);
        }
        // With stderr closed the exit code still tells.
        let _ = io::stderr().write_all(text.as_bytes());
        if is_usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => write!(f, "{error}"),
            Self::NoBand => write!(f, "there is nothing to render or join"),
            Self::Read { path, .. } => write!(f, "failed to read {}", path.display()),
            Self::Decode { path, .. } => write!(f, "{} holds no usable tile", path.display()),
            Self::Join(_) => write!(f, "failed to join the tiles"),
            Self::Write { path, .. } => write!(f, "failed to write {}", path.display()),
            Self::Stdout(_) => write!(f, "failed to write to stdout"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Usage(_) | Self::NoBand => None,
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Decode { source, .. } => Some(source),
            Self::Join(source) => Some(source),
            Self::Stdout(source) => Some(source),
        }
    }
}
