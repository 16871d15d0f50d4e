//! Device nodes inside sandboxes, with harmless devices in the place of GPUs.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use welkin_runtime::{Command, GpuDevice, Image, SandboxId, SandboxSpec};

use crate::support::{World, limits, with_root};

/// Devices that do nothing by being opened and that sandboxes do not have.
const HARMLESS: [&str; 5] =
    ["/dev/fuse", "/dev/loop-control", "/dev/kvm", "/dev/autofs", "/dev/hpet"];

/// A node that is named like a GPU's; removed at the end.
struct Node(PathBuf);

impl Node {
    /// One for each of two harmless devices; `None` where there are none.
    fn two(test: &str) -> Option<[Self; 2]> {
        let mut found = HARMLESS.iter().filter_map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            let is_there = std::fs::File::open(path).is_ok();
            (metadata.file_type().is_char_device() && is_there).then(|| metadata.rdev())
        });
        let mut make = |name: &str| {
            let path = format!("/dev/nvidia-{test}-{}-{name}", std::process::id());
            // Nobody but root: what is inside must not depend on it.
            let mode = Mode::from(0o600);
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, &path, kind, mode, found.next()?).ok()?;
            Some(Self(PathBuf::from(path)))
        };
        let nodes = make("a").zip(make("b")).map(<[Self; 2]>::from);
        if nodes.is_none() {
            eprintln!("skipped: needs two of {HARMLESS:?} and the right to make nodes");
        }
        nodes
    }

    fn text(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    fn number(&self) -> String {
        let number = std::fs::metadata(&self.0).unwrap().rdev();
        format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

async fn prepare(world: &World, gpus: &[&[&Node]]) -> SandboxId {
    let device =
        |nodes: &&[&Node]| GpuDevice { nodes: nodes.iter().map(|n| n.0.clone()).collect() };
    let gpus = gpus.iter().map(device).collect();
    let spec = SandboxSpec { gpus, ..SandboxSpec::new(Image::HostDirs, limits()) };
    world.runtime.prepare(spec).await.unwrap().id
}

async fn sh(world: &World, id: SandboxId, script: &str) -> String {
    let output = world.run(id, Command::new(["/bin/sh", "-c", script])).await;
    output.stdout + &output.stderr
}

#[test]
fn a_sandbox_has_its_own_nodes_and_no_others() {
    with_root(|| async {
        let Some([a, b]) = Node::two("own") else { return };
        let world = World::new().await;
        let list = format!(
            "ls /dev | grep nvidia; stat -c %Hr:%Lr:%a {0}; exec 3<>{0} && echo opened",
            a.text()
        );
        let name = |node: &Node| node.text().replace("/dev/", "");
        // Both GPUs name the node that they share.
        let id = prepare(&world, &[&[&a], &[&a]]).await;
        let output = sh(&world, id, &list).await;
        assert_eq!(output, format!("{}\n{}:666\nopened\n", name(&a), a.number()));
        assert!(world.runtime.destroy(id).await.unwrap().wiped);
        let id = prepare(&world, &[&[&a], &[&b]]).await;
        let output = sh(&world, id, "ls /dev | grep nvidia").await;
        assert_eq!(output, format!("{}\n{}\n", name(&a), name(&b)));
        // Neither can be had by other ways.
        let id = prepare(&world, &[&[&a]]).await;
        let (major, minor) = (b.number(), b.number());
        let (major, minor) = (major.split(':').next().unwrap(), minor.split(':').nth(1).unwrap());
        let script = format!("mknod /work/b c {major} {minor} 2>&1; ls {} /work/b", b.text());
        let output = sh(&world, id, &script).await;
        assert!(output.contains("not permitted"), "{output}");
        assert_eq!(output.matches("No such file").count(), 2, "{output}");
        let output = world.sh("ls /dev | grep nvidia || echo none").await;
        assert_eq!(output.stdout, "none\n");
    });
}

#[test]
fn the_control_group_lets_no_other_device_pass() {
    with_root(|| async {
        let Some([a, b]) = Node::two("group") else { return };
        let world = World::new().await;
        prepare(&world, &[&[&a]]).await;
        let groups = world.cgroups();
        let rules = groups.iter().find(|group| group.join("devices.list").is_file());
        let Some(group) = rules else {
            eprintln!("skipped: only control groups of version 1 filter devices");
            return;
        };
        // A process outside that is let into the group only: nothing else holds it back.
        let opens = |path: &Path| {
            let group = group.join("cgroup.procs");
            let script = format!("echo $$ > {} && exec 3<>{}", group.display(), path.display());
            let mut shell = std::process::Command::new("/bin/sh");
            shell
                .args(["-c", &script])
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        assert!(opens(&a.0), "its own device");
        assert!(opens(Path::new("/dev/null")), "one that every sandbox has");
        assert!(!opens(&b.0), "the device of another");
    });
}

#[test]
fn an_image_is_shown_the_drivers_libraries() {
    with_root(|| async {
        let Some([a, _b]) = Node::two("driver") else { return };
        let dir = tempfile::tempdir().unwrap();
        let (host, image) = (dir.path().join("host"), dir.path().join("image"));
        let lib = host.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        for dir in [&lib, &host.join("usr/bin"), &host.join("etc/vulkan/icd.d"), &image.join("bin")]
        {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(lib.join("libcuda.so.1.2"), b"\x7fELF\x02\nthe driver\n").unwrap();
        std::os::unix::fs::symlink("libcuda.so.1.2", lib.join("libcuda.so.1")).unwrap();
        std::fs::copy("/bin/busybox", image.join("bin/sh")).unwrap();
        std::fs::copy("/bin/busybox", host.join("usr/bin/nvidia-smi")).unwrap();
        std::fs::write(host.join("etc/vulkan/icd.d/nvidia_icd.json"), "{}").unwrap();
        let world = World::with(|config| config.driver_root = Some(host.clone())).await;
        let run = async |gpus: Vec<GpuDevice>| {
            let image = Image::Rootfs(image.clone());
            let spec = SandboxSpec { gpus, ..SandboxSpec::new(image, limits()) };
            let prepared = world.runtime.prepare(spec).await.unwrap();
            let script = "for f in /.welkin-driver/*/* /etc/vulkan/icd.d/*; do echo $f; done\n\
                while read -r line; do echo \"$line\"; done < /.welkin-driver/lib/libcuda.so.1\n\
                echo no > /.welkin-driver/lib/libcuda.so.1; echo no > /.welkin-driver/x";
            let mut command = Command::new(["/bin/sh", "-c", script]);
            command.env.extend(prepared.image.env.clone());
            let output = world.run(prepared.id, command).await;
            assert!(world.runtime.destroy(prepared.id).await.unwrap().wiped);
            (prepared.image.env, output)
        };
        let (env, output) = run(vec![GpuDevice { nodes: vec![a.0.clone()] }]).await;
        assert!(env.contains(&"LD_LIBRARY_PATH=/.welkin-driver/lib".to_owned()), "{env:?}");
        let expected = "/.welkin-driver/bin/nvidia-smi\n/.welkin-driver/lib/libcuda.so.1\n\
            /.welkin-driver/lib/libcuda.so.1.2\n/etc/vulkan/icd.d/nvidia_icd.json\n";
        assert!(output.stdout.starts_with(expected), "{output:?}");
        assert!(output.stdout.ends_with("\nthe driver\n"), "{output:?}");
        assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:?}");
        // Without a GPU of NVIDIA there is none of it.
        let (env, output) = run(Vec::new()).await;
        assert_eq!(env, [""; 0]);
        assert!(!output.stdout.contains("nvidia"), "{output:?}");
    });
}
