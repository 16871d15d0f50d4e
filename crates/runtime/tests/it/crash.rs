//! Deaths of the host process and of the helper.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use welkin_runtime::{
    Command, Event, Exit, Runtime, RuntimeConfig, RuntimeError, SandboxState, StartOptions, Stdio,
};

use crate::support::{Client, World, wait_until, with_root};

/// Starts a program whose far ends the helper keeps; ours are dropped, as a crash would.
async fn start_kept(world: &World, id: welkin_runtime::SandboxId, script: &str) {
    let (stdin, stdin_ours) = std::io::pipe().unwrap();
    let (stdout_ours, stdout) = std::io::pipe().unwrap();
    let stderr = stdout.try_clone().unwrap();
    let options = StartOptions {
        keep: vec![stdin_ours.into(), stdout_ours.into()],
        ..StartOptions::new(Stdio {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    };
    world.runtime.start(id, Command::new(["/bin/sh", "-c", script]), options).await.unwrap();
}

/// Joins a helper whose last client is about to be gone.
async fn attached(config: &RuntimeConfig) -> Runtime {
    loop {
        let attached = Runtime::attach(config).await;
        if !attached.as_ref().is_err_and(RuntimeError::is_retryable) {
            return attached.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_new_host_process_takes_over() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(20)).await;
        let (a, b) = (world.prepare().await, world.prepare().await);
        start_kept(&world, a, "echo before; read x; echo $x; exit 5").await;
        start_kept(&world, b, "read x; exit 6").await;
        let waiting = world.prepare().await;
        // What a kill -9 of the host process looks like to the helper: the socket closes.
        world.runtime.0 = None;
        let runtime = attached(&world.config).await;
        world.runtime = Client(Some(runtime));
        let mut infos = world.runtime.list().await.unwrap();
        infos.sort_by_key(|info| (info.id != a, info.id != b));
        let states: Vec<_> = infos.iter().map(|info| info.state).collect();
        assert_eq!(states, [SandboxState::Running, SandboxState::Running, SandboxState::Created]);
        assert_eq!(infos[2].id, waiting);
        let mut kept: Vec<OwnedFd> = std::mem::take(&mut infos[0].kept);
        let stdout = File::from(kept.pop().unwrap());
        let mut stdin = File::from(kept.pop().unwrap());
        let mut lines = BufReader::new(stdout).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "before");
        stdin.write_all(b"after\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "after");
        assert_eq!(world.runtime.wait(a).await.unwrap().code, Some(5));
    });
}

#[test]
fn an_end_without_witness_is_told_later() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(20)).await;
        let id = world.prepare().await;
        start_kept(&world, id, "read x; exit 9").await;
        let mut kept = world.runtime.list().await.unwrap().remove(0).kept;
        world.runtime.0 = None;
        let mut stdin = File::from(kept.remove(0));
        stdin.write_all(b"go\n").unwrap();
        let mut stdout = BufReader::new(File::from(kept.remove(0)));
        // The end of its output is the end of the program.
        assert_eq!(stdout.read_line(&mut String::new()).unwrap(), 0);
        let runtime = attached(&world.config).await;
        let mut events = runtime.events();
        world.runtime = Client(Some(runtime));
        world.runtime.list().await.unwrap();
        let exit = Exit { code: Some(9), signal: None, oom: false };
        assert_eq!(events.recv().await.unwrap(), Event::Exited { id, exit });
        assert_eq!(world.runtime.wait(id).await.unwrap(), exit);
        let state = world.runtime.list().await.unwrap().remove(0).state;
        assert_eq!(state, SandboxState::Exited(exit));
    });
}

#[test]
fn orphans_are_removed_after_their_grace() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(1)).await;
        let id = world.prepare().await;
        start_kept(&world, id, "sleep 1000 & sleep 1000").await;
        assert!(!world.cgroups().is_empty());
        let helper = world.helper_pid();
        world.runtime.0 = None;
        wait_until("the helper ends", || !Path::new(&format!("/proc/{helper}")).exists());
        assert!(world.cgroups().is_empty());
        assert!(!world.config.state.join("sb").join(id.to_string()).exists());
    });
}

#[test]
fn a_helper_that_is_about_to_end_is_waited_for() {
    with_root(|| async {
        let mut world = World::new().await;
        let runtime = world.runtime.0.take().unwrap();
        runtime.shutdown().await.unwrap();
        // Stands for a helper that still unmounts: it does not listen, and holds the directory.
        let held = std::fs::File::open(world.config.state.join("lock")).unwrap();
        held.lock().unwrap();
        let config = world.config.clone();
        let mut next = std::pin::pin!(Runtime::connect(&config));
        // Longer than the attempts that a helper is given that fails for another reason.
        tokio::time::timeout(Duration::from_secs(1), &mut next).await.unwrap_err();
        drop(held);
        world.runtime = Client(Some(next.await.unwrap()));
    });
}

#[test]
fn a_killed_helper_leaves_nothing_to_its_successor() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(1)).await;
        let id = world.prepare().await;
        let frozen = world.prepare().await;
        start_kept(&world, id, "sleep 1000 & exec sleep 1000").await;
        start_kept(&world, frozen, "sleep 1000 & exec sleep 1000").await;
        world.runtime.pause(frozen).await.unwrap();
        // With one hierarchy or several: each process once.
        let pids: BTreeSet<i32> = world
            .cgroups()
            .iter()
            .filter_map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().map(|l| l.parse().unwrap()).collect::<Vec<i32>>())
            .filter(|pid| *pid != 0)
            .collect();
        // Two inits, two commands; how far those came before the freeze is their business.
        assert!(pids.len() >= 4, "{pids:?}");
        let helper = Pid::from_raw(world.helper_pid()).unwrap();
        rustix::process::kill_process(helper, Signal::KILL).unwrap();
        world.runtime.0 = None;
        world.runtime = Client(Some(Runtime::connect(&world.config).await.unwrap()));
        assert!(world.cgroups().is_empty(), "{:?}", world.cgroups());
        for pid in pids {
            wait_until("the process is gone", || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                status.map_or(true, |text| text.contains("State:\tZ"))
            });
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(world.config.state.to_str().unwrap()), "{mounts}");
        assert!(world.runtime.list().await.unwrap().is_empty());
        assert!(world.sh("exit 0").await.exit.is_success());
    });
}

#[test]
fn one_helper_per_directory_and_one_client_per_helper() {
    with_root(|| async {
        let world = World::new().await;
        let busy = Runtime::attach(&world.config).await.unwrap_err();
        assert!(busy.is_retryable(), "{busy:?}");
        let second = std::process::Command::new(env!("CARGO_BIN_EXE_welkin-sandboxd"))
            .arg("--state")
            .arg(&world.config.state)
            .args(["--socket", "/run/welkin/never", "--owner", "0"])
            .output()
            .unwrap();
        assert!(!second.status.success());
        let text = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(text.contains("another helper"), "{text}");
        assert!(world.sh("exit 0").await.exit.is_success());
    });
}

#[test]
fn a_shutdown_leaves_nothing() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(60)).await;
        let id = world.prepare().await;
        start_kept(&world, id, "sleep 1000 & exec sleep 1000").await;
        world.runtime.0.take().unwrap().shutdown().await.unwrap();
        assert!(world.cgroups().is_empty());
        assert!(!world.config.socket.exists());
        assert!(!world.config.state.join("sb").join(id.to_string()).exists());
    });
}

/// The half of the next test that runs as somebody else.
#[test]
#[ignore = "started by another test"]
fn as_another_user() {
    let Some(socket) = std::env::var_os("WELKIN_TEST_SOCKET") else { return };
    let mut config = welkin_runtime::RuntimeConfig::new(["false"], "unused");
    config.socket = socket.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let runtime = Runtime::attach(&config).await.unwrap();
        let limits = crate::support::limits();
        let prepare = |image| runtime.prepare(welkin_runtime::SandboxSpec::new(image, limits));
        // What this user cannot read, the helper does not read for it.
        let private = prepare(welkin_runtime::Image::Rootfs("/root".into())).await;
        let code = private.unwrap_err().failure().unwrap().code;
        assert_eq!(code, welkin_runtime::FailureCode::Invalid);
        let tar = std::env::var_os("WELKIN_TEST_PRIVATE").unwrap();
        assert!(prepare(welkin_runtime::Image::DockerTar(tar.into())).await.is_err());
        // What it can read keeps its owners, so that private files in it stay private.
        let shared = prepare(welkin_runtime::Image::Rootfs("/etc".into())).await.unwrap();
        assert!(!shared.idmapped);
        runtime.destroy(shared.id).await.unwrap();
        let own = prepare(welkin_runtime::Image::HostDirs).await.unwrap().id;
        let options = StartOptions::new(Stdio::null().unwrap());
        runtime.start(own, Command::new(["true"]), options).await.unwrap();
        assert!(runtime.wait(own).await.unwrap().is_success());
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn an_unprivileged_owner_lends_no_rights() {
    use std::os::unix::process::CommandExt;
    with_root(|| async {
        let state = format!("/run/welkin/sandboxd-test-{}-owned", std::process::id());
        let socket = format!("{state}/socket");
        let helper = |owner: &str| {
            std::process::Command::new(env!("CARGO_BIN_EXE_welkin-sandboxd"))
                .args(["--state", &state, "--socket", &socket, "--owner", owner, "--grace", "0"])
                .status()
                .unwrap()
        };
        assert!(helper("12345").success());
        // A copy that another user may run, wherever the build directory is.
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("it");
        std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(dir.path(), open(0o755)).unwrap();
        let private = dir.path().join("private.tar");
        std::fs::write(&private, "x").unwrap();
        std::fs::set_permissions(&private, open(0o600)).unwrap();
        let as_user = |uid: u32| {
            std::process::Command::new(&exe)
                .args(["--exact", "crash::as_another_user", "--ignored"])
                .env("WELKIN_TEST_SOCKET", &socket)
                .env("WELKIN_TEST_PRIVATE", &private)
                .current_dir("/")
                .uid(uid)
                .gid(uid)
                .output()
                .unwrap()
        };
        assert!(!as_user(54321).status.success(), "only the owner may connect");
        let output = as_user(12345);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        wait_until("the helper ends", || !Path::new(&socket).exists());
        std::fs::remove_dir_all(&state).unwrap();
    });
}

#[test]
fn a_helper_of_ones_own_ends_with_the_connection() {
    with_root(|| async {
        let state = format!("/run/welkin/sandboxd-test-{}-own", std::process::id());
        let (ours, its) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mut helper = std::process::Command::new(env!("CARGO_BIN_EXE_welkin-sandboxd"))
            .args(["--state", &state, "--fd", "0", "--foreground"])
            .stdin(its)
            .spawn()
            .unwrap();
        let runtime = Runtime::over(ours, Duration::from_secs(30)).await.unwrap();
        let spec = welkin_runtime::SandboxSpec::new(
            welkin_runtime::Image::HostDirs,
            crate::support::limits(),
        );
        runtime.prepare(spec).await.unwrap();
        drop(runtime);
        let status = tokio::task::spawn_blocking(move || helper.wait().unwrap()).await.unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read_dir(Path::new(&state).join("sb")).unwrap().count(), 0);
        std::fs::remove_dir_all(state).unwrap();
    });
}

#[test]
fn a_helper_killed_in_the_middle_of_a_creation_leaves_nothing() {
    with_root(|| async {
        let mut world = World::with_grace(Duration::from_secs(1)).await;
        // A sweep over the whole creation, from its first step to its last.
        for delay_ms in (0..50).step_by(5) {
            let ready = world.prepare().await;
            start_kept(&world, ready, "exec sleep 1000").await;
            let helper = Pid::from_raw(world.helper_pid()).unwrap();
            let creation = world.runtime.prepare(welkin_runtime::SandboxSpec::new(
                welkin_runtime::Image::HostDirs,
                crate::support::limits(),
            ));
            let killing = async {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                rustix::process::kill_process(helper, Signal::KILL).unwrap();
            };
            let _ = tokio::join!(creation, killing);
            world.runtime.0 = None;
            world.runtime = Client(Some(Runtime::connect(&world.config).await.unwrap()));
            assert!(world.runtime.list().await.unwrap().is_empty());
            let own = world.helper_pid().to_string();
            wait_until("nothing is left", || {
                world.cgroups().is_empty() && world.processes().iter().all(|pid| *pid == own)
            });
            let kept = std::fs::read_dir(world.config.state.join("sb")).unwrap().count();
            assert_eq!(kept, 0, "after {delay_ms} ms");
        }
    });
}
