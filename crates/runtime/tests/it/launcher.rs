//! Helpers that are started in place of a process that gave up root.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use welkin_runtime::privileges::{User, UserError};
use welkin_runtime::{Launcher, LauncherConfig, Runtime, RuntimeConfig, RuntimeError};

use crate::support::{World, fresh_name, wait_until, with_root};

const HELPER: &str = env!("CARGO_BIN_EXE_welkin-sandboxd");

/// A user who need not be in any table.
const OWNER: &str = "54321";

fn launcher_config() -> LauncherConfig {
    LauncherConfig {
        command: vec![HELPER.into()],
        dir: "/run/welkin".into(),
        images: PathBuf::from("/run/welkin").join(format!("images-{}", fresh_name())),
        orphan_grace: Duration::from_secs(1),
    }
}

async fn world(launcher: &LauncherConfig) -> World {
    let user = User::find(OWNER).unwrap();
    // Only the launcher can start it: the command is none.
    let mut config = RuntimeConfig::new(["/nonexistent"], &fresh_name());
    config.launcher = Some(Launcher::start(launcher, &user).unwrap());
    World::with_config(config).await
}

#[test]
fn a_launcher_starts_helpers_as_often_as_they_die() {
    with_root(|| async {
        let launcher = launcher_config();
        let mut world = world(&launcher).await;
        assert_eq!(world.sh("echo one").await.stdout, "one\n");
        for _ in 0..2 {
            let pid = world.helper_pid();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(status.contains("\nUid:\t0\t0\t0\t0\n"), "{status}");
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            world.runtime.closed().await;
            world.runtime.0 = Some(Runtime::connect(&world.config).await.unwrap());
            assert_eq!(world.sh("echo again").await.stdout, "again\n");
        }
        // In another directory it starts none.
        let mut other = world.config.clone();
        other.state = "/tmp/sandboxd-x".into();
        other.socket = other.state.join("socket");
        let refused = Runtime::connect(&other).await.unwrap_err();
        assert!(matches!(refused, RuntimeError::Spawn { .. }), "{refused}");
        assert!(!other.state.exists());
        let _ = std::fs::remove_dir_all(&launcher.images);
    });
}

#[test]
fn a_launcher_ends_with_its_handle_and_works_in_roots_folders_only() {
    with_root(|| async {
        let mut config = launcher_config();
        let marker = config.images.to_string_lossy().into_owned();
        let launcher = Launcher::start(&config, &User::find(OWNER).unwrap()).unwrap();
        let is_there = || {
            let numbers = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
            numbers.filter(|entry| !entry.file_name().to_string_lossy().starts_with("self")).any(
                |entry| {
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let state = std::fs::read_to_string(entry.path().join("stat"));
                    String::from_utf8_lossy(&line).contains(&marker)
                        && state.is_ok_and(|state| !state.contains(") Z "))
                },
            )
        };
        wait_until("it runs", is_there);
        drop(launcher);
        wait_until("it has ended", || !is_there());

        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(54_321), None).unwrap();
        config.images = dir.path().join("images");
        let refused = Launcher::start(&config, &User::find(OWNER).unwrap()).unwrap_err();
        assert!(matches!(refused, UserError::Exposed { path } if path == dir.path()));
    });
}

/// Connects to a socket as some user and prints the first answer.
fn connect_as(uid: &str, world: &World) -> Output {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
        s.connect(sys.argv[1])\n\
        s.settimeout(1)\n\
        print(s.recv(1000))\n";
    Command::new("setpriv")
        .args(["--reuid", uid, "--regid", uid, "--clear-groups", "/usr/bin/python3", "-c", script])
        .arg(&world.config.socket)
        .output()
        .unwrap()
}

#[test]
fn only_the_owner_may_connect() {
    with_root(|| async {
        let launcher = launcher_config();
        let mut world = world(&launcher).await;
        let text = |output: &Output| {
            String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
        };
        let refused = text(&connect_as("54322", &world));
        assert!(refused.contains("PermissionError"), "{refused}");
        // Whoever they are is asked of the kernel, not only of the file.
        let socket = &world.config.socket;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(socket, open).unwrap();
        let refused = text(&connect_as("54322", &world));
        assert!(refused.contains("not the owner"), "{refused}");
        // The owner is let in, one at a time.
        let busy = text(&connect_as(OWNER, &world));
        assert!(busy.contains("another host process"), "{busy}");
        world.runtime.0 = None;
        wait_until("the connection is gone", || {
            text(&connect_as(OWNER, &world)).contains("TimeoutError")
        });
        world.runtime.0 = Some(Runtime::connect(&world.config).await.unwrap());
        let _ = std::fs::remove_dir_all(&launcher.images);
    });
}

#[test]
fn only_root_is_taken_for_the_helper() {
    with_root(|| async {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(54_321), None).unwrap();
        let mut config = RuntimeConfig::new(["/nonexistent"], "impostor");
        config.socket = dir.path().join("socket");
        let script = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            s.bind(sys.argv[1])\n\
            s.listen()\n\
            s.accept()[0].recv(1000)\n";
        let mut impostor = Command::new("setpriv")
            .args([
                "--reuid",
                OWNER,
                "--regid",
                OWNER,
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
            ])
            .arg(&config.socket)
            .spawn()
            .unwrap();
        let refused = loop {
            match Runtime::attach(&config).await.unwrap_err() {
                // It does not listen yet.
                RuntimeError::Connect { source, .. }
                    if matches!(
                        source.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                error => break error,
            }
        };
        let _ = impostor.kill();
        let _ = impostor.wait();
        assert!(matches!(refused, RuntimeError::Connect { source, .. }
            if source.to_string().contains("user 54321 listens there")));
    });
}
