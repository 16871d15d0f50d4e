//! `welkin run`: bytes in, bytes out, exit codes, signals, files, secrets.

use std::io::Write as _;

use rustix::process::Signal;
use welkin_types::{LeaseState, Reason};

use crate::support::{Network, Proc, children, contains, files_below};

#[test]
fn the_exit_code_is_the_jobs() {
    let Some(mut network) = Network::start() else { return };
    network.run(&["run", "--", "true"]).expect(0);
    network.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    network.sh("exit 7").expect(7);
    network.leases().ended_as(LeaseState::Failed, Reason::ExitedNonZero);
    network.sh("kill -TERM $$").expect(143);
    network.leases().ended_as(LeaseState::Failed, Reason::KilledBySignal);
    let output = network.run(&["run", "--", "no-such-program"]);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("no-such-program"), "{}", output.stderr);
    network.observer().books_close();
    network.works();
}

#[test]
fn outputs_are_apart_and_exact() {
    let Some(network) = Network::start() else { return };
    let output = network.run(&["-q", "run", "--", "sh", "-c", "echo out; echo err >&2"]).expect(0);
    assert_eq!((output.text().as_str(), output.stderr.as_str()), ("out\n", "err\n"));

    // 1 MiB of every byte value, in an order that no encoding survives by chance.
    let script = "import sys\nstate = 1\nout = bytearray()\nfor _ in range(1 << 20):\n    \
                  state = state * 1103515245 + 12345 & 0x7fffffff\n    out.append(state >> 16 & 255)\n\
                  sys.stdout.buffer.write(out)";
    let output = network.run(&["run", "--", "/usr/bin/python3", "-c", script]).expect(0);
    let mut state = 1_u64;
    let expected: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = (state * 1_103_515_245 + 12_345) & 0x7fff_ffff;
            u8::try_from(state >> 16 & 255).unwrap()
        })
        .collect();
    assert!(output.stdout == expected, "{} bytes differ from what was sent", output.stdout.len());
    assert_eq!(network.leases().last_receipt().logs.stdout_bytes, 1 << 20);
}

#[test]
fn standard_input_reaches_the_job() {
    let Some(network) = Network::start() else { return };
    let mut job = network.spawn(&["run", "--", "cat"]);
    job.stdin().write_all(b"abc").unwrap();
    assert_eq!(job.finish().expect(0).text(), "abc");

    // More than any buffer on the way holds.
    let sent: Vec<u8> =
        (0..3_000_000_u32).map(|i| i.to_le_bytes()[usize::from(i % 3 == 0)]).collect();
    let mut job = network.spawn(&["run", "--", "cat"]);
    job.stdin().write_all(&sent).unwrap();
    assert!(job.finish().expect(0).stdout == sent, "what came back differs");

    // A conversation: an answer to each line before the next is sent.
    let mut job = network.spawn(&["run", "--", "sh", "-c", "while read x; do echo got $x; done"]);
    for word in ["one", "two", "three"] {
        writeln!(job.stdin(), "{word}").unwrap();
        job.wait_stdout(&format!("got {word}\n"));
    }
    job.finish().expect(0);

    // A job that does not read its input ends all the same.
    let mut job = network.spawn(&["run", "--", "true"]);
    let _ = job.stdin().write_all(&sent);
    job.finish().expect(0);
}

#[test]
fn variables_and_secrets_arrive_and_secrets_stay_nowhere() {
    let Some(mut network) = Network::start() else { return };
    const SECRET: &str = "hunter2-9f1c5bd7a0e84c31";
    let script = "echo $PLAIN; echo $TAKEN; test \"$TOKEN\" = \"$(cat)\" && echo same; sleep 60";
    let args =
        ["run", "-e", "PLAIN=a b", "-e", "TAKEN", "--secret", "TOKEN", "--", "sh", "-c", script];
    let mut command = network.command(&args);
    command.env("TAKEN", "from here").env("TOKEN", SECRET);
    let mut job = Proc::spawn(command);
    job.stdin().write_all(SECRET.as_bytes()).unwrap();
    job.close_stdin();
    job.wait_stdout("a b\nfrom here\nsame\n");

    // While it runs: no process shows it in its arguments.
    for path in children(std::path::Path::new("/proc")) {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        assert!(!contains(&line, SECRET.as_bytes()), "{} shows the secret", path.display());
    }
    let is_clean = |network: &Network| {
        let mut files = files_below(network.place().path());
        files.extend(files_below(network.place().sandboxes()));
        assert!(files.len() > 5, "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!contains(&bytes, SECRET.as_bytes()), "{} has the secret", file.display());
        }
    };
    is_clean(&network);
    job.signal(Signal::INT);
    job.ended().expect(130);
    is_clean(&network);
    let said = network.process().stderr();
    assert!(!said.contains(SECRET), "the network logs the secret");

    network.run(&["run", "--secret", "NOT_SET_ANYWHERE", "--", "true"]).expect(64).says("NOT_SET");
}

#[test]
fn a_task_file_with_files_runs() {
    let Some(network) = Network::start() else { return };
    let folder = network.place().path().join("task");
    std::fs::create_dir_all(folder.join("data/deep")).unwrap();
    std::fs::write(folder.join("data/deep/number"), "41\n").unwrap();
    std::fs::write(folder.join("add.sh"), "echo $(( $(cat /work/data/deep/number) + ADD ))\n")
        .unwrap();
    let text = "name: sum\nfiles:\n  - {from: data, to: /work/data}\n  - {from: add.sh, to: /work}\n\
                env: {ADD: \"1\"}\ncommand: [sh, /work/add.sh]\n";
    let file = folder.join("task.yaml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_string_lossy().into_owned();
    assert_eq!(network.run(&["run", "-f", &file]).expect(0).text(), "42\n");
    assert_eq!(network.leases().last().name, "sum");
    // A flag wins over the file.
    assert_eq!(network.run(&["run", "-f", &file, "-e", "ADD=2"]).expect(0).text(), "43\n");
    assert_eq!(network.run(&["run", "-f", &file, "--", "echo", "x"]).expect(0).text(), "x\n");
}

#[test]
fn a_wrong_task_file_is_refused_with_file_and_key() {
    let Some(network) = Network::start() else { return };
    let file = network.place().path().join("bad.yaml");
    std::fs::write(&file, "command: [\"true\"]\nresources: {gpus: 1}\n").unwrap();
    let name = file.to_string_lossy().into_owned();
    network.run(&["run", "-f", &name]).expect(64).says("bad.yaml").says("gpus");
    std::fs::write(&file, "command: [\"true\"]\nresources: {cpu: many}\n").unwrap();
    network.run(&["run", "-f", &name]).expect(64).says("bad.yaml").says("cpu");
    network.run(&["run"]).expect(64).says("no command");
    network.run(&["run", "--no-such-flag", "--", "true"]).expect(64);
    assert!(network.leases().all().is_empty(), "nothing was leased");
}

#[test]
fn ctrl_c_stops_the_lease() {
    let Some(network) = Network::start() else { return };
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let mut job = network.spawn(&["run", "--", "sh", "-c", script]);
    job.wait_stdout("ready\n");
    job.signal(Signal::INT);
    let output = job.ended().expect(130);
    assert_eq!(output.text(), "ready\nbye\n");
    network.leases().ended_as(LeaseState::Stopped, Reason::BuyerStopped);
    network.observer().books_close();
}

#[test]
fn a_second_ctrl_c_kills_a_job_that_will_not_stop() {
    let Some(network) = Network::start() else { return };
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let mut job = network.spawn(&["run", "--", "sh", "-c", script]);
    job.wait_stdout("ready\n");
    let began = std::time::Instant::now();
    job.signal(Signal::INT);
    job.wait_stderr("stopping");
    job.wait_stderr("stopping (buyer_stopped)");
    job.signal(Signal::INT);
    job.ended().expect(130);
    assert!(
        began.elapsed().as_secs() < 8,
        "killed before the grace of 10 s: {:?}",
        began.elapsed()
    );
    network.leases().ended_as(LeaseState::Stopped, Reason::BuyerStopped);
}

#[test]
fn a_time_limit_ends_the_lease() {
    let Some(network) = Network::start() else { return };
    network.run(&["run", "--timeout", "1s", "--", "sleep", "60"]).expect(78);
    let receipt = network.leases().ended_as(LeaseState::Expired, Reason::RunTimeout);
    assert!((1..=3).contains(&receipt.usage.seconds), "{receipt:?}");
}
