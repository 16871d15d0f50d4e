//! The host's NVIDIA libraries inside images.
//!
//! The user's half of NVIDIA's driver must be of the kernel's version, so an image does not bring it:
//! the host's is shown inside, read-only, as NVIDIA's own toolkit for containers does. Files are known
//! by name. They stand in a directory of their own, [`INSIDE`], and not where the image has its
//! libraries: those paths may be links or missing, and a read-only root takes no new entries.
//! `LD_LIBRARY_PATH` and `PATH` lead there; loaders of Vulkan, EGL and `OpenCL` find their
//! descriptions in `/etc`.
//!
//! Mesa's drivers for AMD and Intel do not depend on the kernel's version, and come with the image.
//!
//! Tried with made-up files only, never with a real driver.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::devices::DeviceNode;
use super::mounts;

/// Where the driver is inside.
pub(super) const INSIDE: &str = "/.welkin-driver";

/// The parts of the host's driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Driver {
    /// Libraries by file name.
    libraries: BTreeMap<String, PathBuf>,
    /// Other names of libraries.
    links: BTreeMap<String, String>,
    /// Programs by file name.
    programs: BTreeMap<String, PathBuf>,
    /// Descriptions for loaders, by their place in `/etc`.
    descriptions: BTreeMap<&'static str, PathBuf>,
}

/// What was mounted of it.
#[derive(Debug)]
pub(super) struct Mounted {
    /// To be bound to [`INSIDE`], with what is mounted below.
    pub(super) files: PathBuf,
    /// A layer above the image: the mount point and the descriptions.
    pub(super) layer: PathBuf,
}

impl Driver {
    /// Looks below `root` for what these devices need; `None` where they need nothing or nothing is
    /// there.
    pub(super) fn find(root: &Path, devices: &[DeviceNode]) -> Option<Self> {
        if !devices.iter().any(DeviceNode::is_nvidia) {
            return None;
        }
        let mut driver = Self::default();
        for dir in library_dirs() {
            driver.add_libraries(&root.join(dir));
        }
        let programs = PROGRAMS.iter().map(|name| (name, root.join("usr/bin").join(name)));
        for (name, path) in programs.filter(|(_, path)| path.is_file()) {
            driver.programs.insert((*name).to_owned(), path);
        }
        for place in DESCRIPTIONS {
            let found = ["etc", "usr/share"].map(|dir| root.join(dir).join(place));
            if let Some(path) = found.into_iter().find(|path| path.is_file()) {
                driver.descriptions.insert(place, path);
            }
        }
        (!driver.libraries.is_empty()).then_some(driver)
    }

    /// Takes the libraries of a directory that no directory before had.
    fn add_libraries(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_known = self.libraries.contains_key(&name) || self.links.contains_key(&name);
            if is_known || !is_library(&name) {
                continue;
            }
            let Ok(path) = entry.path().canonicalize() else { continue };
            let Some(file) = path.file_name().map(|f| f.to_string_lossy().into_owned()) else {
                continue;
            };
            if !is_native(&path) {
                continue;
            }
            if file != name {
                self.links.insert(name, file.clone());
            }
            self.libraries.entry(file).or_insert(path);
        }
    }

    /// Mounts everything below `dir`.
    pub(super) fn mount(&self, dir: &Path) -> io::Result<Mounted> {
        mounts::make_dir(dir, 0o711)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mounts::mount_tmpfs(dir, flags, "size=1m,mode=0711")?;
        let mounted = Mounted { files: dir.join("files"), layer: dir.join("layer") };
        for (name, files) in [("lib", &self.libraries), ("bin", &self.programs)] {
            let into = mounted.files.join(name);
            mounts::make_dir(&into, 0o755)?;
            for (name, source) in files {
                let target = into.join(name);
                fs::File::create(&target)?;
                rustix::mount::mount_bind(source, &target)?;
            }
        }
        for (name, file) in &self.links {
            std::os::unix::fs::symlink(file, mounted.files.join("lib").join(name))?;
        }
        mounts::make_dir(&mounted.layer.join(INSIDE.trim_start_matches('/')), 0o755)?;
        for (place, source) in &self.descriptions {
            let target = mounted.layer.join("etc").join(place);
            if let Some(parent) = target.parent() {
                mounts::make_dir(parent, 0o755)?;
            }
            fs::copy(source, &target)?;
        }
        Ok(mounted)
    }
}

/// Adds the driver to what an image says of its environment.
pub(super) fn add_to_env(env: &mut Vec<String>) {
    let mut change = |name: &str, default: &str, with: &dyn Fn(&str) -> String| {
        let prefix = format!("{name}=");
        let at = env.iter().rposition(|pair| pair.starts_with(&prefix));
        let old = at.map(|at| env.remove(at));
        let value = old.as_deref().and_then(|pair| pair.strip_prefix(&prefix)).unwrap_or(default);
        env.push(format!("{prefix}{}", with(value)));
    };
    // An image may hold a library that only stands in for the driver, so the driver comes first.
    change("LD_LIBRARY_PATH", "", &|old| {
        format!("{INSIDE}/lib:{old}").trim_end_matches(':').to_owned()
    });
    change("PATH", PATH, &|old| format!("{old}:{INSIDE}/bin"));
}

/// Where distributions put them; Debian's are reached through links in the first.
fn library_dirs() -> [String; 4] {
    let arch = std::env::consts::ARCH;
    [
        format!("usr/lib/{arch}-linux-gnu"),
        "usr/lib64".to_owned(),
        "usr/lib".to_owned(),
        format!("usr/lib/{arch}-linux-gnu/nvidia/current"),
    ]
}

fn is_library(name: &str) -> bool {
    let is_of_toolkit = name.starts_with("libnvidia-container");
    name.contains(".so")
        && !is_of_toolkit
        && LIBRARIES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether it is a program file of 64 bits: some directories are for both kinds.
fn is_native(path: &Path) -> bool {
    let mut head = [0; 5];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
        && head == *b"\x7fELF\x02"
}

/// How the names of the driver's libraries begin.
const LIBRARIES: [&str; 10] = [
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-",
    "libnvcuvid.so",
    "libnvoptix.so",
    "libGLX_nvidia.so",
    "libEGL_nvidia.so",
    "libGLESv1_CM_nvidia.so",
    "libGLESv2_nvidia.so",
    "libvdpau_nvidia.so",
];

const PROGRAMS: [&str; 1] = ["nvidia-smi"];

/// What tells loaders of the driver, below `/etc` or `/usr/share`.
const DESCRIPTIONS: [&str; 4] = [
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_icd.x86_64.json",
    "glvnd/egl_vendor.d/10_nvidia.json",
    "OpenCL/vendors/nvidia.icd",
];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_driver_is_found() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join(&library_dirs()[0]);
        fs::create_dir_all(&lib).unwrap();
        let elf = |name: &str| fs::write(lib.join(name), b"\x7fELF\x02...").unwrap();
        for name in
            ["libcuda.so.1.2", "libnvidia-ml.so.1.2", "libnvidia-container.so.1", "libc.so.6"]
        {
            elf(name);
        }
        fs::write(lib.join("libnvidia-old.so.1"), b"\x7fELF\x01...").unwrap();
        for (name, target) in [("libcuda.so.1", "libcuda.so.1.2"), ("libcuda.so", "libcuda.so.1")] {
            std::os::unix::fs::symlink(target, lib.join(name)).unwrap();
        }
        let icd = root.path().join("usr/share/vulkan/icd.d");
        fs::create_dir_all(&icd).unwrap();
        fs::write(icd.join("nvidia_icd.json"), "{}").unwrap();
        let node =
            |path: &str| DeviceNode { path: path.into(), major: 1, minor: 3, source: path.into() };
        let found = Driver::find(root.path(), &[node("/dev/nvidia0")]).unwrap();
        let names: Vec<&String> = found.libraries.keys().collect();
        assert_eq!(names, ["libcuda.so.1.2", "libnvidia-ml.so.1.2"]);
        assert_eq!(found.links["libcuda.so"], "libcuda.so.1.2");
        assert_eq!(found.links["libcuda.so.1"], "libcuda.so.1.2");
        assert_eq!(found.descriptions.keys().next(), Some(&"vulkan/icd.d/nvidia_icd.json"));
        assert_eq!(Driver::find(root.path(), &[node("/dev/dri/renderD128")]), None);
        assert_eq!(Driver::find(&root.path().join("usr/share"), &[node("/dev/nvidia0")]), None);
    }

    #[test]
    fn the_environment_leads_to_it() {
        let mut env = vec!["A=b".to_owned(), "LD_LIBRARY_PATH=/x".to_owned()];
        add_to_env(&mut env);
        let expected = [
            "A=b".to_owned(),
            format!("LD_LIBRARY_PATH={INSIDE}/lib:/x"),
            format!("PATH={PATH}:{INSIDE}/bin"),
        ];
        assert_eq!(env, expected);
        let mut env = vec!["PATH=/bin".to_owned()];
        add_to_env(&mut env);
        assert_eq!(
            env,
            [format!("LD_LIBRARY_PATH={INSIDE}/lib"), format!("PATH=/bin:{INSIDE}/bin")]
        );
    }
}
