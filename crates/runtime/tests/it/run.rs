//! Programs start, speak, end, and are told apart.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use welkin_runtime::{
    Command, FailureCode, GpuDevice, Image, RuntimeError, SandboxId, SandboxSpec, StartOptions,
    Stdio,
};

use crate::support::{World, limits, with_root};

#[test]
fn hello_world() {
    with_root(|| async {
        let world = World::new().await;
        let output = world.sh("echo hello; echo oops >&2; pwd; id -u; hostname").await;
        assert_eq!(output.stdout, "hello\n/work\n0\nsandbox\n");
        assert_eq!(output.stderr, "oops\n");
        assert!(output.exit.is_success());
    });
}

#[test]
fn ends_are_told_apart() {
    with_root(|| async {
        let world = World::new().await;
        assert_eq!(world.sh("exit 0").await.exit.code, Some(0));
        assert_eq!(world.sh("exit 7").await.exit.code, Some(7));
        let killed = world.sh("kill -KILL $$").await.exit;
        assert_eq!((killed.code, killed.signal, killed.oom), (None, Some(9), false));

        let id = world.prepare().await;
        let missing = world.run(id, Command::new(["no-such-program"])).await;
        assert_eq!(missing.exit.code, Some(127));
        assert_eq!(missing.stderr, "welkin: no-such-program: command not found\n");

        let id = world.prepare().await;
        let directory = world.run(id, Command::new(["/usr"])).await;
        assert_eq!(directory.exit.code, Some(126));
        assert!(directory.stderr.contains("permission denied"), "{}", directory.stderr);
    });
}

#[test]
fn environment_directory_and_arguments_are_exact() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let command = Command {
            argv: vec!["/usr/bin/env".into()],
            env: vec!["A=1".into(), "B=two words".into()],
            cwd: "/tmp".into(),
            tty: false,
        };
        let output = world.run(id, command).await;
        assert_eq!(output.stdout, "A=1\nB=two words\n");

        let id = world.prepare().await;
        let command = Command { cwd: "/tmp".into(), ..Command::new(["/bin/sh", "-c", "pwd"]) };
        assert_eq!(world.run(id, command).await.stdout, "/tmp\n");

        let id = world.prepare().await;
        let long = "x".repeat(200_000);
        // One argument may have 128 KiB at most; the kernel says so, not we.
        let halves = [&long[..100_000], &long[100_000..]];
        let script = "echo ${#1} ${#2}";
        let words = ["/bin/sh", "-c", script, "sh", halves[0], halves[1]];
        assert_eq!(world.run(id, Command::new(words)).await.stdout, "100000 100000\n");
    });
}

#[test]
fn input_reaches_the_program_and_ends() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let mut streams = world.start_sh(id, "cat; echo end").await;
        streams.write("one\ntwo\n");
        streams.stdin = None;
        let exit = world.runtime.wait(id).await.unwrap();
        assert_eq!(streams.finish(exit).await.stdout, "one\ntwo\nend\n");
    });
}

#[test]
fn signals_reach_the_command() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let (ready, told) = std::io::pipe().unwrap();
        let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let stdio = Stdio {
            stdin: std::fs::File::open("/dev/null").unwrap().into(),
            stdout: told.into(),
            stderr: std::fs::File::open("/dev/null").unwrap().into(),
        };
        let command = Command::new(["/bin/sh", "-c", script]);
        world.runtime.start(id, command, StartOptions::new(stdio)).await.unwrap();
        let mut lines = BufReader::new(ready).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        world.runtime.signal(id, 15).await.unwrap();
        assert_eq!(world.runtime.wait(id).await.unwrap().code, Some(3));
        assert_eq!(lines.next().unwrap().unwrap(), "got");
    });
}

#[test]
fn orphans_are_reaped_and_do_not_outlive_the_command() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let script = "(sleep 1000 &) ; (true &) ; exit 4";
        let output = world.run(id, Command::new(["/bin/sh", "-c", script])).await;
        assert_eq!(output.exit.code, Some(4));
        assert_eq!(world.runtime.stats(id).await.unwrap().pids, 1, "only init is left");
    });
}

#[test]
fn more_programs_run_beside() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let streams = world.start_sh(id, "echo 5 > /work/x; read line; exit 0").await;
        let script = "until [ -s /work/x ]; do :; done; cat /work/x; exit 6";
        let output = world.exec_sh(id, script).await;
        assert_eq!((output.stdout.as_str(), output.exit.code), ("5\n", Some(6)));
        let confined = world.exec_sh(id, "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true || echo refused").await;
        assert!(confined.stdout.contains("CapEff:\t0000000000000000"), "{}", confined.stdout);
        assert!(confined.stdout.contains("NoNewPrivs:\t1"));
        assert!(confined.stdout.contains("Seccomp:\t2"));
        assert!(confined.stdout.ends_with("refused\n"));
        let own = world.exec_sh(id, "cat /proc/self/cgroup").await;
        assert!(!own.stdout.contains("welkin"), "the cgroup namespace hides the path");
        assert!(world.exec_sh(id, "exit 0").await.exit.is_success());
        drop(streams);
        assert!(world.runtime.wait(id).await.unwrap().is_success());
        let late = world.runtime.exec(id, Command::new(["true"]), Stdio::null().unwrap()).await;
        assert_eq!(late.unwrap_err().failure().unwrap().code, FailureCode::WrongState);
    });
}

/// Starts a shell script on a terminal; what it prints, and what is typed.
async fn on_terminal(world: &World, id: SandboxId, script: &str) -> (impl BufRead, File) {
    let terminal = world.runtime.terminal(id).await.unwrap();
    let mut command = Command::new(["/bin/sh", "-c", script]);
    command.tty = true;
    let options = StartOptions::new(Stdio::from_terminal(terminal.slave).unwrap());
    world.runtime.start(id, command, options).await.unwrap();
    let master = File::from(terminal.master);
    (BufReader::new(master.try_clone().unwrap()), master)
}

fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_terminal_is_a_terminal() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let script = "test -t 0 && test -t 1 && echo tty; read x; stty size; read x; exit 2";
        let (mut lines, mut master) = on_terminal(&world, id, script).await;
        assert_eq!(next_line(&mut lines), "tty");
        let size = rustix::termios::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        master.write_all(b"\n").unwrap();
        assert_eq!(next_line(&mut lines), "");
        assert_eq!(next_line(&mut lines), "33 101");
        // Control-C reaches the foreground group only of a controlled terminal.
        master.write_all(b"\x03").unwrap();
        let exit = world.runtime.wait(id).await.unwrap();
        assert_eq!(exit.signal, Some(2));
    });
}

#[test]
fn a_terminal_has_a_name_inside() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        // The name opens the same terminal, and its owner may open it.
        let script = "tty; ls /dev/pts; stat -c '%u %a %t' /dev/pts/0; echo by name >$(tty); \
            ls /proc/1/fd 2>/dev/null; ls /proc/self/fd | tr '\\n' ' '; echo; read x";
        let (mut lines, mut master) = on_terminal(&world, id, script).await;
        assert_eq!(next_line(&mut lines), "/dev/pts/0");
        assert_eq!(next_line(&mut lines), "0  ptmx");
        assert_eq!(next_line(&mut lines), "0 620 88");
        assert_eq!(next_line(&mut lines), "by name");
        // The last one is the directory that is being read: the master is not inside.
        assert_eq!(next_line(&mut lines), "0 1 2 3");
        // A second one, for one more program, has the next name; the first one still works.
        let terminal = world.runtime.terminal(id).await.unwrap();
        let mut command = Command::new(["/bin/sh", "-c", "tty && ls /dev/pts"]);
        command.tty = true;
        let stdio = Stdio::from_terminal(terminal.slave).unwrap();
        let exec = world.runtime.exec(id, command, stdio).await.unwrap();
        let mut second = BufReader::new(File::from(terminal.master));
        assert_eq!(next_line(&mut second), "/dev/pts/1");
        assert_eq!(next_line(&mut second), "0  1  ptmx");
        assert_eq!(world.runtime.wait_exec(exec).await.unwrap().code, Some(0));
        drop(second);
        master.write_all(b"\n").unwrap();
        assert_eq!(world.runtime.wait(id).await.unwrap().code, Some(0));
        let late = world.runtime.terminal(id).await.unwrap_err();
        assert_eq!(late.failure().unwrap().code, FailureCode::WrongState);
    });
}

#[test]
fn a_closed_terminal_hangs_up() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let (mut lines, master) = on_terminal(&world, id, "echo up; exec sleep 1000").await;
        assert_eq!(next_line(&mut lines), "up");
        drop((lines, master));
        let exit = world.runtime.wait(id).await.unwrap();
        assert_eq!(exit.signal, Some(1));
    });
}

#[test]
fn terminals_of_a_sandbox_are_bounded() {
    with_root(|| async {
        let world = World::new().await;
        let (id, other) = (world.prepare().await, world.prepare().await);
        let mut terminals = Vec::new();
        let refused = loop {
            match world.runtime.terminal(id).await {
                Ok(terminal) => terminals.push(terminal),
                Err(error) => break error,
            }
            assert!(terminals.len() < 1000);
        };
        assert_eq!(refused.failure().unwrap().code, FailureCode::Host);
        assert_eq!(terminals.len(), 64);
        world.runtime.terminal(other).await.unwrap();
    });
}

#[test]
fn a_port_inside_can_be_dialled() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let script = "import socket\n\
            s = socket.create_server(('127.0.0.1', 8080))\n\
            print('up', flush=True)\n\
            c, _ = s.accept()\n\
            c.sendall(c.recv(100).upper())\n";
        let (reader, writer) = std::io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = Stdio {
            stdin: null.try_clone().unwrap().into(),
            stdout: writer.into(),
            stderr: null.into(),
        };
        let command = Command::new(["/usr/bin/python3", "-c", script]);
        world.runtime.start(id, command, StartOptions::new(stdio)).await.unwrap();
        let refused = world.runtime.dial(id, 9).await.unwrap_err();
        assert_eq!(refused.failure().unwrap().code, FailureCode::Inside);
        assert_eq!(BufReader::new(reader).lines().next().unwrap().unwrap(), "up");
        let socket = world.runtime.dial(id, 8080).await.unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HELLO");
        assert!(world.runtime.wait(id).await.unwrap().is_success());
    });
}

#[test]
fn a_warm_sandbox_starts_at_once() {
    with_root(|| async {
        let world = World::new().await;
        let mut pool = Vec::new();
        for _ in 0..3 {
            pool.push(world.prepare().await);
        }
        for id in pool {
            let begin = Instant::now();
            let output = world.run(id, Command::new(["/bin/true"])).await;
            assert!(output.exit.is_success());
            // Generous: the machine may be busy. The benchmark measures.
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        }
    });
}

#[test]
fn nonsense_is_refused() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let code = |result: Result<(), RuntimeError>| result.unwrap_err().failure().unwrap().code;
        let start = |command: Command| {
            world.runtime.start(id, command, StartOptions::new(Stdio::null().unwrap()))
        };
        assert_eq!(code(start(Command::new([""; 0])).await), FailureCode::Invalid);
        let long = Command::new(["x", &"y".repeat(300_000)]);
        assert_eq!(code(start(long).await), FailureCode::Invalid);
        let other = SandboxId::from_bytes([7; 16]);
        assert_eq!(code(world.runtime.kill(other).await), FailureCode::NotFound);
        assert!(world.runtime.destroy(other).await.unwrap().wiped);
        let spec = SandboxSpec {
            gpus: vec![GpuDevice { nodes: vec!["/dev/vda".into()] }],
            ..SandboxSpec::new(Image::HostDirs, limits())
        };
        let refused = world.runtime.prepare(spec).await.unwrap_err();
        assert_eq!(refused.failure().unwrap().code, FailureCode::Invalid);
        start(Command::new(["true"])).await.unwrap();
        world.runtime.wait(id).await.unwrap();
        assert_eq!(code(start(Command::new(["true"])).await), FailureCode::WrongState);
    });
}

#[test]
fn many_at_once_do_not_mix() {
    with_root(|| async {
        let world = World::new().await;
        let one = |n: usize| {
            let world = &world;
            async move {
                let id = world.prepare().await;
                let script = format!("echo {n} > /work/n; cat /work/n; exit {n}");
                let output = world.run(id, Command::new(["/bin/sh", "-c", &script])).await;
                assert_eq!(output.stdout, format!("{n}\n"));
                assert_eq!(output.exit.code, i32::try_from(n).ok());
                assert!(world.runtime.destroy(id).await.unwrap().wiped);
            }
        };
        tokio::join!(one(1), one(2), one(3), one(4), one(5), one(6), one(7), one(8));
        tokio::join!(one(9), one(10), one(11), one(12), one(13), one(14), one(15), one(16));
        assert!(world.cgroups().is_empty());
    });
}
