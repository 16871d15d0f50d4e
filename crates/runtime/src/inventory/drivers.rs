//! Asks drivers for their GPUs, in processes of their own.
//!
//! Drivers may hang or crash while they are asked: half-installed ones, and those whose card has gone.
//! So each question is put by a child that may take [`TIMEOUT`]; when it fails, that driver has
//! nothing to say.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::gpus::nvidia_gpus;

/// How long the child may take. A driver that has to wake its device first takes seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two looks at whether a killed child is gone.
const STEP: Duration = Duration::from_millis(5);
/// How long a killed child is waited for: one that hangs in the kernel ends when it can.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);
/// The most that a child may say.
const ANSWER_MAX: u64 = 1 << 20;
/// Whatever would make a driver talk to a display server.
const NOT_FOR_DRIVERS: [&str; 4] =
    ["DISPLAY", "WAYLAND_DISPLAY", "VK_INSTANCE_LAYERS", "VK_LOADER_LAYERS_ENABLE"];

/// Whose drivers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// NVIDIA's management library.
    Nvidia,
    /// The same, for what it measures.
    NvidiaSensors,
    /// Every driver that the Vulkan loader finds.
    Vulkan,
}

impl Source {
    const ALL: [Self; 3] = [Self::Nvidia, Self::NvidiaSensors, Self::Vulkan];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::NvidiaSensors => "nvidia-sensors",
            Self::Vulkan => "vulkan",
        }
    }
}

/// Prints as JSON what one source knows: what the child runs. Its argument names the source.
#[must_use]
pub fn list_gpus(source: Option<&OsStr>) -> ExitCode {
    let named = Source::ALL.into_iter().find(|known| source == Some(known.as_str().as_ref()));
    match named {
        Some(Source::Nvidia) => print(&nvidia_gpus()),
        Some(Source::NvidiaSensors) => print(&super::sensors::read()),
        Some(Source::Vulkan) => print(&crate::sys::vulkan::devices()),
        None => ExitCode::FAILURE,
    }
}

fn print<T: Serialize>(list: &[T]) -> ExitCode {
    let text = serde_json::to_vec(list).unwrap_or_default();
    match std::io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has `command` ask a source; nothing where it fails or takes too long.
pub(super) fn ask<T: DeserializeOwned>(command: &[OsString], source: Source) -> Vec<T> {
    let Some((program, args)) = command.split_first() else { return Vec::new() };
    let mut command = Command::new(program);
    command.args(args).arg(source.as_str());
    ask_within(command, source, TIMEOUT)
}

fn ask_within<T: DeserializeOwned>(
    mut command: Command,
    source: Source,
    timeout: Duration,
) -> Vec<T> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A layer of Mesa that would reorder devices after asking the display server.
    command.env("NODEVICE_SELECT", "1");
    for name in NOT_FOR_DRIVERS {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::debug!(%error, source = source.as_str(), "drivers are not asked");
            return Vec::new();
        }
    };
    let answer = read_within(&mut child, timeout);
    end(child);
    let devices = answer.and_then(|text| serde_json::from_slice(&text).ok());
    devices.unwrap_or_else(|| {
        let source = source.as_str();
        tracing::warn!(source, "no answer to which GPUs there are: a driver is broken");
        Vec::new()
    })
}

fn read_within(child: &mut Child, timeout: Duration) -> Option<Vec<u8>> {
    let stdout = child.stdout.take()?;
    let (done, answer) = mpsc::sync_channel(1);
    // Ends with the child, or with whoever inherited its output; nobody waits for it.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if stdout.take(ANSWER_MAX).read_to_end(&mut text).is_ok() {
            let _ = done.send(text);
        }
    });
    answer.recv_timeout(timeout).ok()
}

fn end(mut child: Child) {
    let _ = child.kill();
    let end = Instant::now() + KILL_TIMEOUT;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::VulkanDevice;

    fn sh(script: &str) -> Vec<VulkanDevice> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ask_within(command, Source::Vulkan, Duration::from_millis(1_500))
    }

    #[test]
    fn what_a_child_says_is_read() {
        let said = sh(r#"echo '[{"name":"X","vendor":1,"device":2,"kind":"Discrete",
            "vram_bytes":3,"driver":null,"pci":"0000:01:00.0","render":128}]'"#);
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].name.as_str(), said[0].render), ("X", Some(128)));
    }

    #[test]
    fn a_child_that_fails_says_nothing() {
        assert_eq!(sh("kill -SEGV $$"), []);
        assert_eq!(sh("echo nonsense"), []);
        assert_eq!(sh("exec head -c 3000000 /dev/zero"), []);
        let missing = ["/nonexistent/program".into()];
        assert_eq!(ask::<VulkanDevice>(&missing, Source::Vulkan), []);
        assert_eq!(ask::<VulkanDevice>(&[], Source::Nvidia), []);
    }

    #[test]
    fn a_child_that_hangs_is_given_up() {
        let begun = Instant::now();
        assert_eq!(sh("echo '['; exec sleep 1000"), []);
        // Its output stays open in a grandchild.
        assert_eq!(sh("sleep 20 & wait"), []);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
