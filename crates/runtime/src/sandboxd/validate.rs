//! Bounds on what the host process may ask.
//!
//! It is unprivileged and not fully trusted, so nothing here depends on it having checked before.

use std::path::Path;

use crate::error::{Failure, FailureCode};
use crate::types::{Command, Image, Limits, SandboxSpec};

/// Checks a description of a sandbox.
pub(super) fn spec(spec: &SandboxSpec) -> Result<(), Failure> {
    limits(&spec.limits)?;
    let name = &spec.hostname;
    let is_name = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    ensure(is_name, "the host name is not 1 to 63 letters, digits or hyphens")?;
    ensure(spec.gpus.iter().map(|gpu| gpu.nodes.len()).sum::<usize>() <= 64, "too many devices")?;
    image(&spec.image)
}

/// Checks the path of an image.
pub(super) fn image(image: &Image) -> Result<(), Failure> {
    match image {
        Image::HostDirs => Ok(()),
        Image::Rootfs(path) | Image::OciLayout(path) | Image::DockerTar(path) => {
            absolute(path, "the image path")
        }
    }
}

/// Checks limits.
pub(super) fn limits(limits: &Limits) -> Result<(), Failure> {
    ensure((10..=1_024_000).contains(&limits.cpu_milli), "cpu_milli is not 10 to 1024000")?;
    let bytes = MIN_BYTES..=MAX_BYTES;
    ensure(bytes.contains(&limits.memory_bytes), "memory_bytes is not 4 MiB to 64 TiB")?;
    ensure(
        (65_536..=MAX_BYTES).contains(&limits.scratch_bytes),
        "scratch_bytes is not 64 KiB to 64 TiB",
    )?;
    ensure((4..=4_194_304).contains(&limits.pids), "pids is not 4 to 4194304")?;
    ensure((16..=1 << 20).contains(&limits.nofile), "nofile is not 16 to 1048576")
}

/// Checks a command.
pub(super) fn command(command: &Command) -> Result<(), Failure> {
    let size = |list: &[String]| list.iter().map(|text| text.len() + 1).sum::<usize>();
    ensure(command.argv.first().is_some_and(|name| !name.is_empty()), "the command is empty")?;
    ensure(size(&command.argv) <= WORDS_MAX, "the arguments exceed 256 KiB")?;
    ensure(size(&command.env) <= WORDS_MAX, "the environment exceeds 256 KiB")?;
    let texts = command.argv.iter().chain(&command.env).chain([&command.cwd]);
    ensure(texts.into_iter().all(|text| !text.contains('\0')), "the command holds a NUL byte")?;
    ensure(
        command.env.iter().all(|pair| pair.find('=').is_some_and(|at| at > 0)),
        "a variable is not NAME=value",
    )?;
    ensure(
        command.cwd.is_empty() || command.cwd.starts_with('/'),
        "the directory is not absolute",
    )?;
    ensure(command.cwd.len() <= PATH_MAX, "the directory is too long")
}

/// Checks a path inside a sandbox; it is resolved there, so only its size matters here.
pub(super) fn inside(path: &str) -> Result<(), Failure> {
    ensure(
        path.len() <= PATH_MAX && !path.contains('\0'),
        "the path is too long or holds a NUL byte",
    )
}

/// Checks a signal that a host process may send to a command.
pub(super) fn signal(signal: i32) -> Result<(), Failure> {
    ensure((1..=31).contains(&signal), "the signal is not 1 to 31")
}

fn absolute(path: &Path, what: &str) -> Result<(), Failure> {
    let text = path.to_str().unwrap_or_default();
    let is_fine = text.starts_with('/') && text.len() <= PATH_MAX && !text.contains('\0');
    ensure(is_fine, &format!("{what} is not absolute, too long, or not text"))
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(FailureCode::Invalid, otherwise)) }
}

const WORDS_MAX: usize = 256 << 10;
const PATH_MAX: usize = 4095;
const MIN_BYTES: u64 = 4 << 20;
const MAX_BYTES: u64 = 64 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        let good = SandboxSpec::new(Image::HostDirs, Limits::default());
        assert!(spec(&good).is_ok());
        for hostname in ["", "a b", "x/y", &"h".repeat(64)] {
            assert!(spec(&SandboxSpec { hostname: hostname.to_owned(), ..good.clone() }).is_err());
        }
        for image in ["relative", "/x\0y"] {
            let image = Image::Rootfs(image.into());
            assert!(spec(&SandboxSpec { image, ..good.clone() }).is_err());
        }
        assert!(limits(&Limits { pids: 0, ..Limits::default() }).is_err());
        assert!(command(&Command::new(["true"])).is_ok());
        assert!(command(&Command::new([""; 0])).is_err());
        assert!(command(&Command::new(["a\0b"])).is_err());
        assert!(command(&Command::new(["x".repeat(WORDS_MAX)])).is_err());
        assert!(command(&Command { env: vec!["=x".into()], ..Command::new(["true"]) }).is_err());
        assert!(signal(0).is_err() && signal(15).is_ok() && signal(64).is_err());
    }
}
