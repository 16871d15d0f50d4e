//! What must not be possible from inside.

use welkin_runtime::{Command, Tier, WipeRecord};

use crate::support::{World, with_root};

#[test]
fn the_battery_finds_no_escape() {
    with_root(|| async {
        let world = World::new().await;
        let found = world.runtime.probe().await.unwrap();
        let escapes: Vec<_> = found.escapes().collect();
        assert!(escapes.is_empty(), "{escapes:#?}");
        assert!(found.findings.len() > 50);
        assert_eq!(found.reasons, []);
        assert_eq!(found.tier, Tier::Container);
        assert!(found.limits.pause);
    });
}

#[test]
fn files_of_the_host_stay_there() {
    with_root(|| async {
        let world = World::new().await;
        for path in ["/etc/shadow", "/root", "/home", "/var/lib/dpkg", "/run", "/sys/kernel"] {
            let output = world.sh(&format!("ls -d {path}")).await;
            assert!(!output.exit.is_success(), "{path}: {}", output.stdout);
        }
        let output = world.sh("echo x > /usr/bin/x").await;
        assert!(!output.exit.is_success());
        let output = world.sh("echo x > /x || echo x > /etc/x").await;
        assert!(!output.exit.is_success());
        let output = world.sh("cat /proc/1/environ; ls /proc/1/fd").await;
        assert!(!output.exit.is_success());
        assert_eq!(output.stdout, "");
        let output = world.sh("cat /proc/kcore /proc/keys | wc -c").await;
        assert_eq!(output.stdout, "0\n");
    });
}

#[test]
fn two_sandboxes_do_not_see_each_other() {
    with_root(|| async {
        let world = World::new().await;
        let (a, b) = (world.prepare().await, world.prepare().await);
        let _a = world
            .start_sh(a, "echo secret > /work/s; echo secret > /dev/shm/s; exec sleep 1000")
            .await;
        let _b = world.start_sh(b, "exec sleep 1000").await;
        let wait = "until [ -s /dev/shm/s ]; do :; done; cat /proc/self/uid_map";
        let map_a = world.exec_sh(a, wait).await.stdout;
        let map_b = world.exec_sh(b, "cat /proc/self/uid_map").await.stdout;
        assert_ne!(map_a, map_b);
        let seen =
            world.exec_sh(b, "cat /work/s /dev/shm/s /tmp/s; cat /proc/[0-9]*/cmdline").await;
        assert!(!seen.stdout.contains("secret"));
        let count = world.exec_sh(b, "ls -d /proc/[0-9]* | wc -l").await;
        assert!(count.stdout.trim().parse::<u32>().unwrap() <= 5, "{}", count.stdout);
        let mounts = world.exec_sh(b, "cat /proc/self/mountinfo").await.stdout;
        assert!(!mounts.contains(&a.to_string()), "{mounts}");
    });
}

#[test]
fn destroy_is_complete_and_may_be_repeated() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let script =
            "dd if=/dev/zero of=/work/x bs=1M count=4 2>/dev/null; sleep 1000 & >/work/up; wait";
        let _streams = world.start_sh(id, script).await;
        let wait = "until [ -e /work/up ]; do :; done";
        assert!(world.exec_sh(id, wait).await.exit.is_success());
        let record = world.runtime.destroy(id).await.unwrap();
        assert!(record.wiped && record.unmounted && record.cgroup_removed, "{record:?}");
        assert!(record.processes_killed >= 3, "{record:?}");
        assert!(record.scratch_bytes >= 4 << 20, "{record:?}");
        assert_eq!(world.runtime.destroy(id).await.unwrap(), WipeRecord::nothing());
        assert_eq!(world.cgroups(), Vec::<std::path::PathBuf>::new());
        assert!(!world.config.state.join("sb").join(id.to_string()).exists());
        assert!(world.runtime.list().await.unwrap().is_empty());
    });
}

#[test]
fn whoever_waits_hears_of_a_removal() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let _streams = world.start_sh(id, "exec sleep 1000").await;
        let command = Command::new(["sleep", "1000"]);
        let stdio = welkin_runtime::Stdio::null().unwrap();
        let exec = world.runtime.exec(id, command, stdio).await.unwrap();
        let spec = welkin_runtime::SandboxSpec {
            id: Some(welkin_runtime::SandboxId::from_bytes([9; 16])),
            ..welkin_runtime::SandboxSpec::new(
                welkin_runtime::Image::HostDirs,
                crate::support::limits(),
            )
        };
        let unborn = spec.id.unwrap();
        // All are asked in this order: the last in the middle of the preparation.
        let (job, extra, born, first, second) = tokio::join!(
            biased;
            world.runtime.wait(id),
            world.runtime.wait_exec(exec),
            world.runtime.prepare(spec),
            world.runtime.destroy(id),
            world.runtime.destroy(unborn),
        );
        assert_eq!(job.unwrap().signal, Some(9));
        assert_eq!(extra.unwrap().signal, Some(9));
        let code = born.unwrap_err().failure().unwrap().code;
        assert_eq!(code, welkin_runtime::FailureCode::Died);
        assert!(first.unwrap().wiped);
        assert!(second.unwrap().wiped);
        assert!(world.cgroups().is_empty());
    });
}

#[test]
fn no_descriptor_of_the_helper_gets_inside() {
    with_root(|| async {
        let world = World::new().await;
        // Others exist, whose sockets must not leak into the one looked at.
        let _other = world.prepare().await;
        let id = world.prepare().await;
        let output = world.run(id, Command::new(["/bin/ls", "/proc/self/fd"])).await;
        // The fourth is the directory being listed.
        assert_eq!(output.stdout, "0\n1\n2\n3\n");
        let inits: std::collections::BTreeSet<String> = world
            .cgroups()
            .iter()
            .filter(|dir| dir.ends_with(id.to_string()))
            .filter_map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert_eq!(inits.len(), 1, "{inits:?}");
        for init in inits {
            let fds = std::fs::read_dir(format!("/proc/{init}/fd")).unwrap();
            let mut targets: Vec<String> = fds
                .filter_map(Result::ok)
                .filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .map(|target| target.to_string_lossy().into_owned())
                .collect();
            targets.sort();
            assert_eq!(targets.len(), 5, "{targets:?}");
            assert_eq!(targets[..3], ["/dev/null", "/dev/null", "/dev/null"]);
            assert!(targets[3].starts_with("anon_inode:[signalfd]"), "{targets:?}");
            assert!(targets[4].starts_with("socket:"), "{targets:?}");
        }
    });
}
