//! What Vulkan knows of a GPU.

use serde::{Deserialize, Serialize};

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
