//! What Vulkan knows of the machine's GPUs, asked in a process of its own.
//!
//! Drivers may hang or crash while they are asked, above all half-installed ones. So the question is
//! put by a child that may take [`TIMEOUT`]; when it fails, Vulkan has nothing to say.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

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

/// A device as Vulkan describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VulkanDevice {
    /// Its name.
    pub(crate) name: String,
    /// The PCI vendor number, or a larger one of the Khronos registry.
    pub(crate) vendor: u32,
    /// The vendor's number of the model.
    pub(crate) device: u32,
    /// What it is.
    pub(crate) kind: VulkanKind,
    /// The sum of its own memory in bytes.
    pub(crate) vram_bytes: u64,
    /// The driver and its version.
    pub(crate) driver: Option<String>,
    /// Its place on the PCI bus.
    pub(crate) pci: Option<String>,
    /// The number of its render node: N in `/dev/dri/renderDN`.
    pub(crate) render: Option<u32>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VulkanKind {
    /// A card with memory of its own.
    Discrete,
    /// A part of the processor.
    Integrated,
    /// A part of a card, in a virtual machine.
    Virtual,
    /// A program that does on the processor what a GPU would do.
    Software,
    /// None of these.
    Other,
}

/// Prints the devices of this machine as JSON: what the child runs.
#[must_use]
pub fn list_vulkan() -> ExitCode {
    let text = serde_json::to_vec(&crate::sys::vulkan::devices()).unwrap_or_default();
    match std::io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has `command` list the devices; nothing where it fails or takes too long.
pub(super) fn ask(command: &[OsString]) -> Vec<VulkanDevice> {
    ask_within(command, TIMEOUT)
}

fn ask_within(command: &[OsString], timeout: Duration) -> Vec<VulkanDevice> {
    let Some((program, args)) = command.split_first() else { return Vec::new() };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A layer of Mesa that would reorder devices after asking the display server.
    command.env("NODEVICE_SELECT", "1");
    for name in NOT_FOR_DRIVERS {
        command.env_remove(name);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::debug!(%error, "Vulkan is not asked");
            return Vec::new();
        }
    };
    let answer = read_within(&mut child, timeout);
    end(child);
    let devices = answer.and_then(|text| serde_json::from_slice(&text).ok());
    devices.unwrap_or_else(|| {
        tracing::warn!("Vulkan did not say which GPUs there are: its loader or a driver is broken");
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

    fn sh(script: &str) -> Vec<VulkanDevice> {
        ask_within(&["sh".into(), "-c".into(), script.into()], Duration::from_millis(1_500))
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
        assert_eq!(ask(&["/nonexistent/program".into()]), []);
        assert_eq!(ask(&[]), []);
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
