//! Jobs that mean harm: they hit their limits, the host goes on, and nothing of them remains.

use std::io::Read as _;

use welkin_types::{LeaseState, Reason};

use crate::support::{DEADLINE, Network, memory_kib, processes_with, until};

fn python(network: &Network, script: &str) -> crate::support::Output {
    network.run(&["run", "--timeout", "20s", "--", "/usr/bin/python3", "-c", script])
}

#[test]
fn a_fork_bomb_stays_in_its_box() {
    let Some(mut network) = Network::start() else { return };
    let script = "import os, time\nn = 0\nwhile True:\n    try:\n        if os.fork() == 0:\n            \
                  time.sleep(600)\n        n += 1\n    except OSError as e:\n        break\n\
                  print('refused after', 100 < n < 1000, flush=True)\nos._exit(3)";
    let output = python(&network, script).expect(3);
    assert_eq!(output.text(), "refused after True\n");
    network.leases().ended_as(LeaseState::Failed, Reason::ExitedNonZero);
    network.works();

    // The classic one never ends by itself.
    let bomb = "b() { b | b & }; b; sleep 600";
    let output = network.run(&["run", "--timeout", "3s", "--", "sh", "-c", bomb]);
    assert_ne!(output.code, 0);
    assert!(network.leases().last_receipt().stages.last().unwrap().state.is_final());
    network.works();
    network.observer().books_close();
}

#[test]
fn a_memory_hog_is_killed_and_the_receipt_says_why() {
    let Some(mut network) = Network::start() else { return };
    let script = "x = []\nwhile True: x.append(bytearray(16 << 20))";
    python(&network, script).expect(137);
    let receipt = network.leases().ended_as(LeaseState::Failed, Reason::OutOfMemory);
    assert!(receipt.exit.unwrap().oom, "{receipt:?}");
    network.works();
}

#[test]
fn a_disk_filler_meets_its_limit() {
    let Some(mut network) = Network::start() else { return };
    let script = "import errno, os\nn = 0\ntry:\n    f = open('/work/big', 'wb', buffering=0)\n    \
                  while True: n += f.write(b'x' * (1 << 20))\nexcept OSError as e:\n    \
                  print(errno.errorcode[e.errno], 100 < n >> 20 <= 256)";
    assert_eq!(python(&network, script).expect(0).text(), "ENOSPC True\n");
    let tmp =
        "cd /tmp && dd if=/dev/zero of=big bs=1M count=2000 2>&1 | grep -o 'No space' ; rm -f big";
    let output = network.run(&["run", "--", "sh", "-c", tmp]).expect(0);
    assert_eq!(output.text(), "No space\n");
    network.works();
}

#[test]
fn shared_memory_has_the_room_that_was_asked_for() {
    let Some(mut network) = Network::start() else { return };
    let task = |shm: &str| {
        let path = network.place().path().join("task.yaml");
        let command = "head -c 60000000 /dev/zero > /dev/shm/tensor && echo fits";
        let text = format!(
            "version: 1\nresources: {{memory: 256MiB, disk: 16MiB{shm}}}\nrun: {command}\n"
        );
        std::fs::write(&path, text).unwrap();
        network.run(&["run", "-f", path.to_str().unwrap()])
    };
    assert_eq!(task(", shm: 64MiB").expect(0).text(), "fits\n");
    assert_ne!(task("").code, 0, "scratch has no such room");
    assert_ne!(task(", shm: 300MiB").code, 0, "it is a part of the memory");
    network.works();
}

#[test]
fn endless_output_to_a_slow_reader_is_held_back() {
    let Some(mut network) = Network::start() else { return };
    network.works();
    let pid = network.process().pid();
    let before = memory_kib(pid);
    let (mut job, mut stdout) = crate::support::Proc::spawn_unread(network.command(&[
        "run",
        "--timeout",
        "6s",
        "--",
        "yes",
    ]));
    job.wait_stderr("billing is on");
    // Nothing is read until the host has ended the job.
    job.wait_stderr("expired (run_timeout)");
    let grown = memory_kib(pid).saturating_sub(before);
    assert!(grown < 100 << 10, "the host grew by {grown} KiB");
    let own = memory_kib(job.pid());
    assert!(own < 250 << 10, "the client has {own} KiB");
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).unwrap();
    assert!(text.chunks(2).all(|line| line == b"y\n"), "bytes of the output are lost or wrong");
    job.ended().expect(78);
    assert_eq!(network.leases().last_receipt().logs.stdout_bytes, text.len() as u64);
    network.works();
}

/// Regression: 2 049 small packets of one stream that nobody reads end a connection of noq 1.4.
#[test]
fn a_reader_that_pauses_keeps_its_connection() {
    let Some(mut network) = Network::start() else { return };
    let script = "import sys, time\nfor i in range(9000):\n    print(f'{i:0199}', flush=True)\n    \
                  time.sleep(0.0005)";
    let (mut job, mut stdout) = crate::support::Proc::spawn_unread(network.command(&[
        "run",
        "--",
        "/usr/bin/python3",
        "-c",
        script,
    ]));
    job.wait_stderr("succeeded (exited_zero)");
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let output = job.ended().expect(0);
    let all: String = (0..9_000).map(|i| format!("{i:0199}\n")).collect();
    assert!(text == all, "{} of {} bytes", text.len(), all.len());
    assert!(!output.stderr.contains("is lost"), "{}", output.stderr);

    // The same of one more command. It waits for its reader here, so how long is up to this test.
    network.run(&["run", "--detach", "--name", "box", "--", "sleep", "600"]).expect(0);
    let (job, mut stdout) = crate::support::Proc::spawn_unread(network.command(&[
        "exec",
        "box",
        "--",
        "/usr/bin/python3",
        "-c",
        script,
    ]));
    std::thread::sleep(std::time::Duration::from_secs(5));
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    job.ended().expect(0);
    assert!(text == all, "{} of {} bytes", text.len(), all.len());
    network.run(&["stop", "box"]).expect(0);
    network.works();
}

#[test]
fn a_job_cannot_reach_the_host() {
    let Some(mut network) = Network::start() else { return };
    let secret = network.place().path().join("host-only");
    std::fs::write(&secret, "of the host").unwrap();
    let secret = secret.to_string_lossy().into_owned();
    let tries = [
        "cat /etc/shadow",
        "ls /root",
        &format!("cat {secret}"),
        "mount -t tmpfs none /work",
        "unshare -m true",
        "unshare -U true",
        "mknod /work/null c 1 3",
        "strace -f true",
        "kill -9 1; test -d /proc/1 && exit 1",
        "echo x > /proc/sys/kernel/hostname",
        "echo x > /usr/bin/x",
        "chroot / true",
        "nsenter -t 1 -m true",
        "cat /proc/1/root/etc/shadow",
        "dmesg",
        "hostname elsewhere",
        "ls /sys/fs/cgroup/memory/welkin-*",
        "echo > /dev/tcp/127.0.0.1/1",
    ];
    for script in tries {
        let output = network.sh(&format!("{script} 2>&1"));
        assert_ne!(output.code, 0, "`{script}` works inside:\n{}", output.text());
    }
    // Nor does it see who else is there.
    let text = network.sh("ls /proc | grep -c '^[0-9]'").expect(0).text();
    let processes: u32 = text.trim().parse().unwrap();
    assert!(processes < 8, "{text}");
    network.works();
}

#[test]
fn the_network_inside_has_no_way_out() {
    let Some(network) = Network::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "import socket\nfor a in [('127.0.0.1', {port}), ('1.1.1.1', 53), ('169.254.169.254', 80)]:\n    \
         try:\n        socket.create_connection(a, 2)\n        print('reached', a)\n    \
         except OSError: print('no')"
    );
    assert_eq!(python(&network, &script).expect(0).text(), "no\nno\nno\n");
}

#[test]
fn nothing_of_a_lease_remains() {
    let Some(mut network) = Network::start() else { return };
    let tag = format!("48{:07}", std::process::id());
    // Processes that leave their session, ignore signals and keep files open.
    let script = format!(
        "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM INT HUP; exec sleep {tag}' & done\n\
         echo data > /work/file; mkfifo /work/fifo; exec 9</work/file; echo ready; read x; true"
    );
    let mut job = network.spawn(&["run", "--", "sh", "-c", &script]);
    job.wait_stdout("ready\n");
    until(DEADLINE, "its processes are seen", || processes_with(&tag).len() >= 5);
    let place = network.place();
    assert!(!place.cgroups().is_empty() && !place.mounts().is_empty(), "there is what must go");
    job.finish().expect(0);
    let receipt = network.leases().last_receipt();
    assert!(receipt.wipe.scratch_bytes > 0, "{:?}", receipt.wipe);
    assert!(processes_with(&tag).is_empty(), "{:?}", processes_with(&tag));
    network.down().expect(0);
    until(DEADLINE, "helpers, groups and mounts are gone", || {
        let place = network.place();
        place.helpers().is_empty()
            && place.cgroups().is_empty()
            && place.mounts().is_empty()
            && place.sandbox_folders().is_empty()
    });
}

#[test]
fn only_the_pool_remains_while_the_host_runs() {
    let Some(network) = Network::start() else { return };
    for _ in 0..3 {
        network.run(&["run", "--", "true"]).expect(0);
    }
    let is_only_the_pool = || {
        let place = network.place();
        let folders = place.sandbox_folders();
        let [pooled] = folders.as_slice() else { return false };
        let (groups, mounts) = (place.cgroups(), place.mounts());
        let id = pooled.file_name().unwrap();
        let of_it = |line: &String| line.contains(&*id.to_string_lossy());
        !groups.is_empty()
            && groups.iter().all(|group| group.file_name() == Some(id))
            && mounts.iter().all(of_it)
    };
    until(DEADLINE, "one sandbox waits, and of the others nothing is left", is_only_the_pool);
}
