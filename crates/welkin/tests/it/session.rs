//! What can be done with a lease besides running it: detach, logs, exec, cp, forward, receipts.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use welkin_types::{LeaseState, Reason};

use crate::support::{DEADLINE, Network, Proc, eventually, files_below, until};

/// Starts a detached job; returns its lease's id.
#[track_caller]
fn detached(network: &Network, script: &str) -> String {
    let output = network.run(&["run", "-d", "--name", "job", "--", "sh", "-c", script]).expect(0);
    let lease = output.text().trim().to_owned();
    assert!(lease.starts_with("lse_"), "{lease}");
    until(DEADLINE, "the job runs", || network.leases().last().state().0 == LeaseState::Running);
    lease
}

#[test]
fn a_detached_lease_is_paid_shown_followed_and_stopped() {
    let Some(network) = Network::start() else { return };
    let script = "i=0; while :; do echo line $i; echo err $i >&2; i=$((i+1)); sleep 0.1; done";
    let lease = detached(&network, script);
    let short = &lease[..12];

    let shown = network.run(&["ps"]).expect(0).text();
    assert!(shown.contains(short) && shown.contains("running"), "{shown}");
    let shown = network.run(&["show", "job"]).expect(0).text();
    assert!(shown.contains(&lease) && shown.contains("line $i"), "{shown}");
    network.run(&["show", "no-such-lease"]).expect(64);

    let mut logs = network.spawn(&["logs", "-f", short]);
    logs.wait_stdout("line 0\nline 1\n");
    logs.wait_stderr("err 1\n");
    // Twelve seconds are more than the host works without being paid.
    logs.wait_stdout("line 115\n");
    assert!(network.leases().last().promised >= 9, "{:?}", network.leases().last());
    network.run(&["stop", "job"]).expect(0);
    logs.finish().expect(0);
    let receipt = network.leases().ended_as(LeaseState::Stopped, Reason::BuyerStopped);
    assert!(receipt.usage.seconds >= 12, "{receipt:?}");
    network.observer().books_close();

    let shown = network.run(&["ps"]).expect(0).text();
    assert!(!shown.contains(short), "{shown}");
    let shown = network.run(&["ps", "-a"]).expect(0).text();
    assert!(shown.contains(short), "{shown}");
    let tail = network.run(&["logs", "--tail", "2", short]).expect(0);
    assert_eq!(tail.text().lines().count(), 2, "{}", tail.text());

    network.run(&["rm", "job"]).expect(0);
    network.run(&["show", "job"]).expect(64);
    let shown = network.run(&["receipts"]).expect(0).text();
    assert!(shown.contains(short), "receipts stay: {shown}");
}

#[test]
fn a_detached_lease_ends_by_itself() {
    let Some(network) = Network::start() else { return };
    detached(&network, "sleep 1; echo done; exit 3");
    until(DEADLINE, "the lease ends", || network.leases().last().state().0.is_final());
    eventually(DEADLINE, "the receipt arrives", || {
        let lease = network.leases().last().lease;
        network.leases().receipt_path(lease).exists().then_some(())
    });
    let receipt = network.leases().ended_as(LeaseState::Failed, Reason::ExitedNonZero);
    assert_eq!(receipt.exit.unwrap().code, Some(3));
    until(DEADLINE, "the log is copied", || {
        network.run(&["logs", "job"]).expect(0).text() == "done\n"
    });
}

#[test]
fn exec_runs_one_more_command() {
    let Some(network) = Network::start() else { return };
    let lease = detached(&network, "echo $$ > /work/pid; sleep 300");
    let exec = |args: &[&str]| {
        let args: Vec<&str> = ["exec", &lease].into_iter().chain(args.iter().copied()).collect();
        network.spawn(&args)
    };
    let output = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 5"]).finish().expect(5);
    assert_eq!((output.text().as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let mut cat = exec(&["--", "cat"]);
    cat.stdin().write_all(b"through").unwrap();
    assert_eq!(cat.finish().expect(0).text(), "through");
    let output = exec(&["-e", "X=y z", "--", "sh", "-c", "echo $X; kill -0 $(cat /work/pid)"]);
    assert_eq!(output.finish().expect(0).text(), "y z\n");
    let mut left = exec(&["--", "sh", "-c", "echo on; exec sleep 300"]);
    left.wait_stdout("on\n");
    network.run(&["stop", &lease]).expect(0);
    left.ended().expect(137).says("killed by signal 9 (so ends all that still runs when");
    until(DEADLINE, "the lease ends", || network.leases().last().state().0.is_final());
    assert_ne!(exec(&["--", "true"]).finish().code, 0);
}

#[test]
fn files_go_both_ways() {
    let Some(network) = Network::start() else { return };
    let lease = detached(&network, "sleep 300");
    let here = network.place().path().join("here");
    std::fs::create_dir_all(here.join("tree/deep")).unwrap();
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
    std::fs::write(here.join("tree/deep/bytes"), &bytes).unwrap();
    std::fs::write(here.join("tree/text"), "text\n").unwrap();
    let path = |name: &str| here.join(name).to_string_lossy().into_owned();
    let inside = |name: &str| format!("{lease}:{name}");

    network.run(&["cp", &path("tree"), &inside("/work/tree")]).expect(0);
    network.run(&["cp", &inside("/work/tree"), &path("back")]).expect(0);
    assert!(std::fs::read(here.join("back/deep/bytes")).unwrap() == bytes, "bytes differ");
    assert_eq!(std::fs::read_to_string(here.join("back/text")).unwrap(), "text\n");
    assert_eq!(files_below(&here.join("back")).len(), 2);

    network.run(&["cp", &path("tree/text"), &inside("/work/one")]).expect(0);
    network.run(&["cp", &inside("/work/one"), &path("one")]).expect(0);
    assert_eq!(std::fs::read_to_string(here.join("one")).unwrap(), "text\n");

    // How much comes is bounded here, and what was too much leaves nothing behind.
    let output = network.run(&["cp", "--max-size", "1MiB", &inside("/work/tree"), &path("much")]);
    assert_ne!(output.code, 0);
    output.says("larger than 1 MiB").says("--max-size");
    assert!(!here.join("much").exists());

    network.run(&["cp", &inside("/work/nothing"), &path("nothing")]).says("nothing");
    assert!(!here.join("nothing").exists());
    // What the job may not read is not fetched by a detour.
    let output = network.run(&["cp", &inside("/etc/shadow"), &path("shadow")]);
    assert_ne!(output.code, 0);
    assert!(!here.join("shadow").exists());
    network.run(&["stop", &lease]).expect(0);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_port_inside_is_reachable_here() {
    let Some(network) = Network::start() else { return };
    let serve = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nwhile True:\n    \
                 c, _ = s.accept()\n    d = b''\n    while True:\n        p = c.recv(65536)\n        \
                 if not p: break\n        d += p\n    c.sendall(d[::-1])\n    c.close()\n";
    let script = format!("exec /usr/bin/python3 -c \"{serve}\"");
    let lease = detached(&network, &script);
    let port = free_port();
    let mut forward = network.spawn(&["forward", &lease, &format!("{port}:8000")]);
    let ask = |bytes: &[u8]| -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(bytes).ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    };
    let answer = eventually(DEADLINE, "an answer comes", || ask(b"abc"));
    assert_eq!(answer, b"cba");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 241).to_le_bytes()[0]).collect();
    let mut answer = ask(&sent).unwrap();
    answer.reverse();
    assert!(answer == sent, "{} of {} bytes came back", answer.len(), sent.len());
    // The port outside of the lease's network is not the host's own.
    assert!(forward.is_running());
    forward.signal(Signal::INT);
    forward.ended();
    assert!(ask(b"abc").is_none());
    network.run(&["stop", &lease]).expect(0);
}

#[test]
fn a_plan_leases_nothing() {
    let Some(network) = Network::start() else { return };
    let observer = network.observer();
    let free = observer.free();
    let text = network.run(&["plan", "--", "true"]).expect(0).text();
    assert!(text.contains("cpu-1") && text.contains("$0.36"), "{text}");
    assert!(network.leases().all().is_empty());
    assert_eq!(observer.free(), free);
    network.run(&["plan", "--cpu", "64", "--", "true"]).expect(2);
    let text = network.run(&["offers"]).expect(0).text();
    assert!(text.contains("cpu-1") && text.contains("$0.36"), "{text}");
}

#[test]
fn receipts_can_be_checked_by_anybody_and_forgeries_are_found() {
    let Some(network) = Network::start() else { return };
    network.run(&["run", "--", "true"]).expect(0);
    let receipt = network.leases().last_receipt();
    let path = network.leases().receipt_path(receipt.lease);
    let name = path.to_string_lossy().into_owned();
    network.run(&["receipts", "verify", &name]).expect(0);
    network.run(&["receipts", "show", &receipt.lease.to_string()]).expect(0);

    let text = std::fs::read_to_string(&path).unwrap();
    let forged: PathBuf = network.place().path().join("forged.json");
    let mut tried = 0;
    // Each number and each digit of hexadecimal text, one at a time, a sample of both.
    for (index, old) in text.char_indices() {
        let is_digit = old.is_ascii_digit();
        let is_hex =
            matches!(old, 'a'..='f') && text[..index].ends_with(|c: char| c.is_ascii_hexdigit());
        let is_amount = is_digit && {
            let line = text[..index].rsplit('\n').next().unwrap();
            line.contains("amount") || line.contains("seconds") || line.contains("budget")
        };
        if !(is_amount || (is_digit || is_hex) && index % 97 == 0) {
            continue;
        }
        let new = if old == '1' { '2' } else { '1' };
        let mut changed = text.clone();
        changed.replace_range(index..=index, new.encode_utf8(&mut [0; 4]));
        std::fs::write(&forged, changed).unwrap();
        let output = network.run(&["receipts", "verify", &forged.to_string_lossy()]);
        assert_ne!(output.code, 0, "byte {index} is not signed: {}", &text[index - 20..index + 20]);
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
}

/// Runs a `welkin` command on a terminal of 33 lines and 101 columns.
fn on_terminal(network: &Network, args: &[&str]) -> Proc {
    on_terminal_of(&network.command(args))
}

/// Runs a command on such a terminal.
pub(crate) fn on_terminal_of(welkin: &std::process::Command) -> Proc {
    let mut line = vec![quote(&welkin.get_program().to_string_lossy())];
    line.extend(welkin.get_args().map(|arg| quote(&arg.to_string_lossy())));
    let line = format!("stty rows 33 cols 101; exec {}", line.join(" "));
    let mut command = std::process::Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).stdout(Stdio::piped());
    for (name, value) in welkin.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Proc::spawn(command)
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn a_job_can_have_a_terminal() {
    let Some(network) = Network::start() else { return };
    let script =
        "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x; exit 9";
    let mut job = on_terminal(&network, &["run", "-y", "-t", "--", "sh", "-c", script]);
    job.wait_stdout("33 101\r\n");
    job.wait_stdout("all\r\n");
    job.stdin().write_all(b"word\r").unwrap();
    job.wait_stdout("got word\r\n");
    job.ended().expect(9);
    // Without a terminal here there is none there.
    network.run(&["run", "-t", "--", "true"]).expect(64).says("terminal");
}

#[test]
fn a_terminal_has_a_name_inside() {
    let Some(network) = Network::start() else { return };
    let mut job = on_terminal(&network, &["run", "-y", "-t", "--", "tty"]);
    job.wait_stdout("/dev/pts/0\r\n");
    job.ended().expect(0);
    let lease = detached(&network, "sleep 300");
    let script = "tty; ls /dev/pts/0 && stty size; exit 3";
    let mut more = on_terminal(&network, &["exec", "-t", &lease, "--", "sh", "-c", script]);
    more.wait_stdout("/dev/pts/0\r\n/dev/pts/0\r\n33 101\r\n");
    more.ended().expect(3);
    network.run(&["stop", &lease]).expect(0);
}

#[test]
fn ctrl_c_on_a_terminal_goes_to_the_job() {
    let Some(network) = Network::start() else { return };
    let script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.1; done";
    let mut job = on_terminal(&network, &["run", "-y", "-t", "--", "sh", "-c", script]);
    job.wait_stdout("ready\r\n");
    job.stdin().write_all(b"\x03").unwrap();
    job.wait_stdout("caught\r\n");
    job.ended().expect(4);
}

#[test]
fn a_person_is_asked_what_ctrl_c_means() {
    let Some(network) = Network::start() else { return };
    let script = "echo ready; while :; do sleep 0.1; done";
    let mut job = on_terminal(&network, &["run", "--", "sh", "-c", script]);
    job.wait_stdout("[Y/n]");
    job.stdin().write_all(b"\r").unwrap();
    job.wait_stdout("ready\r\n");
    job.stdin().write_all(b"\x03").unwrap();
    job.wait_stdout("[d]etach");
    job.stdin().write_all(b"d\r").unwrap();
    job.ended().expect(0);
    let lease = network.leases().last().lease.to_string();
    until(DEADLINE, "the agent keeps it", || network.leases().last().by_agent);
    network.run(&["stop", &lease]).expect(0);
    until(DEADLINE, "the lease ends", || network.leases().last().state().0.is_final());
}
