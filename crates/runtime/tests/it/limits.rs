//! Limits hold, and are told from other ends.

use std::time::Duration;

use welkin_runtime::{Command, Limits, StartOptions, Stdio};

use crate::support::{World, limits, with_root};

#[test]
fn a_memory_hog_is_killed() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let command = Command::new(["/usr/bin/python3", "-c", "x = bytearray(256 << 20)"]);
        let output = world.run(id, command).await;
        assert_eq!((output.exit.signal, output.exit.oom), (Some(9), true), "{output:?}");
        assert!(world.runtime.stats(id).await.unwrap().oom_kills >= 1);
    });
}

#[test]
fn a_fork_bomb_is_stopped() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare_with(Limits { pids: 20, ..limits() }).await;
        let script = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all";
        let output = world.run(id, Command::new(["/bin/sh", "-c", script])).await;
        assert_ne!(output.stdout, "all\n");
        assert!(output.stderr.to_lowercase().contains("fork"), "{}", output.stderr);
        assert!(!output.exit.oom);
    });
}

#[test]
fn scratch_has_its_size_also_after_a_change() {
    with_root(|| async {
        let world = World::new().await;
        let script = "dd if=/dev/zero of=/work/x bs=64k 2>&1; stat -c %s /work/x";
        let id = world.prepare().await;
        let output = world.run(id, Command::new(["/bin/sh", "-c", script])).await;
        assert!(output.stdout.contains("No space left"), "{}", output.stdout);
        let written: u64 = output.stdout.lines().last().unwrap().parse().unwrap();
        assert!((15 << 20..=16 << 20).contains(&written), "{written}");
        let used = world.runtime.stats(id).await.unwrap().scratch_used_bytes;
        assert!((15 << 20..=16 << 20).contains(&used), "{used}");

        let id = world.prepare().await;
        let (stdio, streams) = crate::support::Streams::new();
        let options = StartOptions {
            limits: Some(Limits { scratch_bytes: 4 << 20, ..limits() }),
            ..StartOptions::new(stdio)
        };
        let command = Command::new(["/bin/sh", "-c", script]);
        world.runtime.start(id, command, options).await.unwrap();
        let exit = world.runtime.wait(id).await.unwrap();
        let output = streams.finish(exit).await;
        let written: u64 = output.stdout.lines().last().unwrap().parse().unwrap();
        assert!((3 << 20..=4 << 20).contains(&written), "{written}");
    });
}

#[test]
fn the_processor_is_shared_out() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare_with(Limits { cpu_milli: 100, ..limits() }).await;
        // Spins for a second of wall time, whatever it gets of it.
        let script = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass";
        let output = world.run(id, Command::new(["/usr/bin/python3", "-c", script])).await;
        assert!(output.exit.is_success());
        let stats = world.runtime.stats(id).await.unwrap();
        assert!(stats.cpu_usec < 400_000, "{stats:?}");
        assert!(stats.throttled_usec > 0, "{stats:?}");
    });
}

#[test]
fn a_paused_sandbox_uses_nothing_and_can_be_killed() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let streams = world.start_sh(id, "while :; do :; done").await;
        world.runtime.pause(id).await.unwrap();
        let first = world.runtime.stats(id).await.unwrap().cpu_usec;
        std::thread::sleep(std::time::Duration::from_millis(100));
        let second = world.runtime.stats(id).await.unwrap().cpu_usec;
        assert!(second - first < 20_000, "{first} {second}");
        world.runtime.resume(id).await.unwrap();
        world.runtime.pause(id).await.unwrap();
        world.runtime.kill(id).await.unwrap();
        let exit = world.runtime.wait(id).await.unwrap();
        assert_eq!((exit.signal, exit.oom), (Some(9), false));
        streams.finish(exit).await;
        assert!(world.runtime.destroy(id).await.unwrap().wiped);
    });
}

#[test]
fn open_files_are_bounded() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare_with(Limits { nofile: 100, ..limits() }).await;
        let output = world.run(id, Command::new(["/bin/sh", "-c", "ulimit -Hn"])).await;
        assert_eq!(output.stdout, "100\n");
        // More than the helper may grant is lowered, not refused.
        let id = world.prepare_with(Limits { nofile: 1 << 20, ..limits() }).await;
        let options = StartOptions::new(Stdio::null().unwrap());
        world.runtime.start(id, Command::new(["true"]), options).await.unwrap();
        assert!(world.runtime.wait(id).await.unwrap().is_success());
    });
}

#[test]
fn a_helper_that_sudo_started_makes_sandboxes() {
    with_root(|| async {
        // `sudo` takes away core files, and nobody inside may allow them again.
        let words = ["sh", "-c", "ulimit -c 0; exec \"$@\"", "sh"];
        let world = World::started_by(&words, Duration::ZERO).await;
        assert_eq!(world.sh("ulimit -Hc").await.stdout, "0\n");
        let core = std::fs::read_to_string(format!("/proc/{}/limits", world.helper_pid())).unwrap();
        let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        // Not even every root may raise a limit: the sandbox works with the lower one as well.
        let may_raise = {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap() & (1 << CAP_SYS_RESOURCE) != 0
        };
        let hard = if may_raise { "1" } else { "0" };
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", hard]);
    });
}

const CAP_SYS_RESOURCE: u32 = 24;
