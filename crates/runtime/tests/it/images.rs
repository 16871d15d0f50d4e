//! Images as they come, honest and not.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use welkin_runtime::{Command, FailureCode, Image, RuntimeError};

use crate::support::{World, limits, with_root};

const BUSYBOX: &str = "/bin/busybox";

/// A layer with a shell, and what else is added.
fn layer(add: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let busybox = std::fs::read(BUSYBOX).unwrap();
    entry(&mut tar, "bin/busybox", EntryType::Regular, &busybox, 0o4755);
    for name in ["sh", "cat", "ls", "stat", "env", "echo"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    add(&mut tar);
    tar.into_inner().unwrap()
}

fn entry(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, bytes: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    // Written by hand, because the crate refuses what an attacker would not.
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes what `docker save` would.
fn docker_tar(dir: &Path, layers: &[Vec<u8>], diff_ids: &[String], env: &[&str]) -> PathBuf {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": env, "Cmd": ["/bin/sh"], "WorkingDir": "/work" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", sha256(&config));
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": null, "Layers": names }]);
    let path = dir.join("image.tar");
    let mut tar = Builder::new(File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add(&config_name, &config);
    add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    tar.finish().unwrap();
    path
}

fn honest(dir: &Path, layers: &[Vec<u8>], env: &[&str]) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", sha256(l))).collect();
    Image::DockerTar(docker_tar(dir, layers, &diff_ids, env))
}

fn refused(result: Result<impl std::fmt::Debug, RuntimeError>, with: &str) {
    let error = result.unwrap_err();
    let failure = error.failure().unwrap();
    assert_eq!(failure.code, FailureCode::BadImage, "{failure}");
    assert!(failure.text.contains(with), "{failure}");
}

fn has_busybox() -> bool {
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs busybox-static");
    }
    Path::new(BUSYBOX).exists()
}

#[test]
fn a_directory_is_a_root() {
    with_root(|| async {
        if !has_busybox() {
            return;
        }
        let world = World::new().await;
        let dir = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::copy(BUSYBOX, dir.path().join("bin/sh")).unwrap();
        std::fs::write(dir.path().join("private"), "p").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("private"), mode).unwrap();
        let image = Image::Rootfs(dir.path().to_owned());
        let id = world.prepare_image(image, limits()).await;
        let script = "cat /private && echo x > /work/x && cat /work/x && ! echo x > /bin/x";
        let output = world.run(id, Command::new(["/bin/sh", "-c", script])).await;
        assert!(output.exit.is_success(), "{output:?}");
        assert_eq!(output.stdout, "px\n");
        assert!(!dir.path().join("bin/x").exists());
        assert!(world.runtime.destroy(id).await.unwrap().wiped);
    });
}

#[test]
fn a_saved_image_runs_and_is_kept() {
    with_root(|| async {
        if !has_busybox() {
            return;
        }
        let world = World::new().await;
        let dir = tempfile::tempdir().unwrap();
        let first = layer(|tar| {
            entry(tar, "gone", EntryType::Regular, b"1", 0o644);
            entry(tar, "dir/old", EntryType::Regular, b"1", 0o644);
            entry(tar, "dev/disk", EntryType::Block, b"", 0o644);
        });
        let second = layer(|tar| {
            entry(tar, ".wh.gone", EntryType::Regular, b"", 0o644);
            entry(tar, "dir/new", EntryType::Regular, b"2", 0o644);
            entry(tar, "dir/.wh..wh..opq", EntryType::Regular, b"", 0o644);
        });
        let image = honest(dir.path(), &[first, second], &["LD_PRELOAD=/evil.so", "A=b"]);
        let config = world.runtime.inspect_image(image.clone()).await.unwrap();
        assert_eq!(config.env, ["LD_PRELOAD=/evil.so", "A=b"]);
        assert_eq!(config.cmd, ["/bin/sh"]);
        assert!(config.digest.starts_with("sha256:"));
        let id = world.prepare_image(image, limits()).await;
        let mut command = Command::new(["/bin/sh", "-c", "ls /dir /gone; stat -c %a /bin/busybox"]);
        command.env.extend(config.env);
        let output = world.run(id, command).await;
        assert_eq!(output.stdout, "/dir:\nnew\n755\n", "{output:?}");
    });
}

#[test]
fn wrong_digests_are_refused() {
    with_root(|| async {
        if !has_busybox() {
            return;
        }
        let world = World::new().await;
        let dir = tempfile::tempdir().unwrap();
        let diff_ids = [format!("sha256:{}", "0".repeat(64))];
        let path = docker_tar(dir.path(), &[layer(|_| ())], &diff_ids, &[]);
        refused(world.runtime.inspect_image(Image::DockerTar(path.clone())).await, "digest");
        let spec = welkin_runtime::SandboxSpec::new(Image::DockerTar(path), limits());
        refused(world.runtime.prepare(spec).await, "digest");
        let path = docker_tar(dir.path(), &[layer(|_| ())], &[], &[]);
        refused(world.runtime.inspect_image(Image::DockerTar(path)).await, "layers");
        std::fs::write(dir.path().join("image.tar"), "nonsense").unwrap();
        let image = Image::DockerTar(dir.path().join("image.tar"));
        refused(world.runtime.inspect_image(image).await, "bad image");
    });
}

#[test]
fn paths_that_lead_outside_are_refused() {
    with_root(|| async {
        if !has_busybox() {
            return;
        }
        let world = World::new().await;
        let dir = tempfile::tempdir().unwrap();
        for name in ["../evil", "a/../../evil", "/evil"] {
            let evil = layer(|tar| entry(tar, name, EntryType::Regular, b"x", 0o644));
            let image = honest(dir.path(), &[evil], &[]);
            refused(world.runtime.inspect_image(image).await, "leads outside");
        }
        // A link to the host's root stays in the image's root.
        let target = format!("/tmp/welkin-evil-{}", std::process::id());
        let sly = layer(|tar| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "host", "/").unwrap();
            tar.append_link(&mut header, "up", "../../../../../..").unwrap();
            entry(tar, &format!("host{target}"), EntryType::Regular, b"x", 0o644);
            entry(tar, &format!("up{target}"), EntryType::Regular, b"x", 0o644);
        });
        world.runtime.inspect_image(honest(dir.path(), &[sly], &[])).await.unwrap();
        assert!(!Path::new(&target).exists());
        for mark in [".wh...", ".wh..", "bin/.wh...", ".wh."] {
            let evil = layer(|tar| entry(tar, mark, EntryType::Regular, b"", 0o644));
            let image = honest(dir.path(), &[evil], &[]);
            refused(world.runtime.inspect_image(image).await, "leads outside");
        }
        let hard = layer(|tar| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            tar.append_link(&mut header, "shadow", "../../../../etc/shadow").unwrap();
        });
        refused(world.runtime.inspect_image(honest(dir.path(), &[hard], &[])).await, "outside");
    });
}

#[test]
fn a_layout_runs_compressed_layers() {
    with_root(|| async {
        if !has_busybox() {
            return;
        }
        let world = World::new().await;
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            std::fs::write(blobs.join(sha256(bytes)), bytes).unwrap();
            json!({ "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
        };
        let plain = layer(|_| ());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &plain).unwrap();
        let stored = gzip.finish().unwrap();
        let config = json!({ "config": { "Entrypoint": ["/bin/echo"] },
            "rootfs": { "diff_ids": [format!("sha256:{}", sha256(&plain))] } });
        let config = put(&serde_json::to_vec(&config).unwrap());
        let manifest = json!({ "config": config, "layers": [put(&stored)] });
        let manifest = put(&serde_json::to_vec(&manifest).unwrap());
        let index = json!({ "manifests": [manifest] });
        std::fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        let image = Image::OciLayout(dir.path().to_owned());
        let id = world.prepare_image(image.clone(), limits()).await;
        let output = world.run(id, Command::new(["/bin/echo", "hi"])).await;
        assert_eq!(output.stdout, "hi\n");
        // Kept under its digest: a damaged blob is not even read again.
        std::fs::write(blobs.join(sha256(&stored)), "damaged").unwrap();
        let config = world.runtime.inspect_image(image).await.unwrap();
        assert_eq!(config.entrypoint, ["/bin/echo"]);
    });
}
