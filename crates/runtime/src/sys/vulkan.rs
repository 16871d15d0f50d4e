//! Asks the Vulkan loader which devices there are.
//!
//! The loader and the drivers behind it are other people's code in this process: call it only where
//! a crash or a hang hurts nobody, see [`crate::inventory::list_gpus`].

use std::ffi::CStr;

use ash::{Entry, Instance, vk};

use crate::inventory::{VulkanDevice, VulkanKind};

/// Every device of every driver; nothing where there is no loader or no driver.
pub(crate) fn devices() -> Vec<VulkanDevice> {
    // SAFETY: loading runs the initialisers of libvulkan, which is what the caller agreed to; the
    // library stays loaded as long as `entry`, which outlives the instance.
    let Ok(entry) = (unsafe { Entry::load() }) else { return Vec::new() };
    let application =
        vk::ApplicationInfo::default().application_name(c"welkin").api_version(vk::API_VERSION_1_1);
    let info = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: `info` and what it points to live through the call, and name no layer or extension.
    let Ok(instance) = (unsafe { entry.create_instance(&info, None) }) else { return Vec::new() };
    // SAFETY: the instance is alive.
    let found = unsafe { instance.enumerate_physical_devices() }.unwrap_or_default();
    let devices = found.into_iter().filter_map(|device| describe(&instance, device)).collect();
    // SAFETY: nothing made from the instance is in use any more.
    unsafe { instance.destroy_instance(None) };
    devices
}

fn describe(instance: &Instance, device: vk::PhysicalDevice) -> Option<VulkanDevice> {
    // SAFETY: the device was enumerated from this instance, which is alive.
    let (basic, memory, extensions) = unsafe {
        (
            instance.get_physical_device_properties(device),
            instance.get_physical_device_memory_properties(device),
            instance.enumerate_device_extension_properties(device).unwrap_or_default(),
        )
    };
    // Older drivers do not know the question that follows.
    if basic.api_version < vk::API_VERSION_1_1 {
        return None;
    }
    let has = |name: &CStr| extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
    let has_driver =
        basic.api_version >= vk::API_VERSION_1_2 || has(ash::khr::driver_properties::NAME);
    let (has_pci, has_drm) =
        (has(ash::ext::pci_bus_info::NAME), has(ash::ext::physical_device_drm::NAME));
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut pci = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
    let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
    let mut all = vk::PhysicalDeviceProperties2::default();
    if has_driver {
        all = all.push_next(&mut driver);
    }
    if has_pci {
        all = all.push_next(&mut pci);
    }
    if has_drm {
        all = all.push_next(&mut drm);
    }
    // SAFETY: as above; the chain holds structures that the device knows, each once, all alive.
    unsafe { instance.get_physical_device_properties2(device, &mut all) };
    Some(VulkanDevice {
        name: text(basic.device_name_as_c_str().ok()),
        vendor: basic.vendor_id,
        device: basic.device_id,
        kind: kind(basic.device_type),
        vram_bytes: local_bytes(&memory),
        driver: has_driver.then(|| {
            let name = text(driver.driver_name_as_c_str().ok());
            let info = text(driver.driver_info_as_c_str().ok());
            format!("{name} {info}").trim().to_owned()
        }),
        pci: has_pci.then(|| {
            let (domain, bus) = (pci.pci_domain, pci.pci_bus);
            format!("{domain:04x}:{bus:02x}:{:02x}.{:x}", pci.pci_device, pci.pci_function)
        }),
        render: (has_drm && drm.has_render == vk::TRUE)
            .then(|| u32::try_from(drm.render_minor).ok())
            .flatten(),
    })
}

/// The sum of the memory that belongs to the device.
fn local_bytes(memory: &vk::PhysicalDeviceMemoryProperties) -> u64 {
    memory
        .memory_heaps_as_slice()
        .iter()
        .filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .fold(0, |sum, heap| sum.saturating_add(heap.size))
}

fn kind(of: vk::PhysicalDeviceType) -> VulkanKind {
    match of {
        vk::PhysicalDeviceType::DISCRETE_GPU => VulkanKind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => VulkanKind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => VulkanKind::Virtual,
        vk::PhysicalDeviceType::CPU => VulkanKind::Software,
        _ => VulkanKind::Other,
    }
}

fn text(from: Option<&CStr>) -> String {
    from.map(|text| text.to_string_lossy().trim().to_owned()).unwrap_or_default()
}
