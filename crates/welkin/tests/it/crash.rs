//! What remains true when a host dies in the middle of a job.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use welkin_types::{LeaseState, Reason};

use crate::services::{HERE, Services, UNTIL_TOLD};
use crate::session::on_terminal_of;
use crate::support::{
    DEADLINE, Network, Proc, contains, eventually, files_below, processes_with, until,
};

/// Prints numbers, one each 50 ms.
const COUNT: &str = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.05; done";

fn numbers(to: u32) -> String {
    (0..to).map(|i| format!("{i}\n")).collect()
}

fn counting(services: &Services) -> Proc {
    services.fund("5");
    let mut job = services.client("buyer", HERE, &["run", "--", "sh", "-c", COUNT]);
    job.wait_stdout("\n40\n");
    job
}

#[test]
fn a_killed_host_that_comes_back_goes_on_with_the_job() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    let began = Instant::now();
    let job = counting(&services);
    host.kill_9();
    let host = services.host("host", HERE);
    let output = job.finish().expect(0);
    let elapsed = began.elapsed().as_secs() + 1;
    assert_eq!(output.text(), numbers(400), "no line is missing and none is there twice");
    assert!(output.stderr.contains("the host is there again"), "{}", output.stderr);
    let receipt = services.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    assert!(receipt.usage.seconds <= elapsed, "{} s billed in {elapsed} s", receipt.usage.seconds);
    assert!(receipt.usage.seconds >= 20, "400 lines took {} s", receipt.usage.seconds);
    let observer = services.observer();
    observer.books_close();
    services.wait_free(&observer, 3);
    assert!(!host.stderr().contains("panicked"), "{}", host.stderr());
    services.are_well();
}

#[test]
fn a_host_that_comes_back_late_finds_the_job_as_well() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    let job = counting(&services);
    host.kill_9();
    // Later than the work that a host does without a voucher, sooner than the sandboxes' grace.
    std::thread::sleep(Duration::from_secs(11));
    let _host = services.host("host", HERE);
    assert_eq!(job.finish().expect(0).text(), numbers(400));
    services.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    services.observer().books_close();
}

#[test]
fn a_host_that_never_comes_back_is_lost_and_costs_nothing_more() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    let mut job = counting(&services);
    let promised = services.leases().last().promised;
    host.kill_9();
    let killed = Instant::now();
    job.wait_stderr("the connection to the host is lost");
    // The sandbox goes on its own.
    until(Duration::from_secs(45), "the orphaned sandbox is gone", || {
        services.place.cgroups().is_empty() && services.place.helpers().is_empty()
    });
    assert!(killed.elapsed() > Duration::from_secs(10), "the grace was kept");
    assert!(services.place.mounts().is_empty());
    let output = job.finish_within(Duration::from_secs(60)).expect(69).says("lost");
    let shown = output.text();
    assert!(numbers(400).starts_with(&shown) && shown.contains("\n40\n"), "{shown}");
    let lease = services.leases().last();
    assert_eq!(lease.state(), (LeaseState::Lost, Reason::HostUnreachable));
    assert!(lease.promised <= promised + 2, "{} s after {promised} s", lease.promised);
    // What had arrived can still be read.
    let logs = services.run(&["logs", &lease.lease.to_string()]).expect(0);
    assert_eq!(logs.text(), shown);
    services.are_well();
}

#[test]
fn a_host_without_its_sandboxes_ends_the_lease_and_frees_the_slot() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    let job = counting(&services);
    host.kill_9();
    for pid in services.place.helpers().into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _host = services.host("host", HERE);
    let output = job.finish().expect(69);
    assert!(numbers(400).starts_with(&output.text()), "{}", output.text());
    services.leases().ended_as(LeaseState::Lost, Reason::HostRestarted);
    let observer = services.observer();
    observer.books_close();
    services.wait_free(&observer, 3);
    // One sandbox waits in the pool; of the lease's nothing is left.
    eventually(DEADLINE, "only the pool is left", || {
        (services.place.sandbox_folders().len() == 1).then_some(())
    });
    services.run(&["run", "--", "true"]).expect(0);
}

#[test]
fn a_host_lost_before_the_start_is_noticed_within_seconds() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    services.fund("5");
    let helpers = || services.place.helpers().into_iter().filter_map(Pid::from_raw);
    helpers().for_each(|pid| kill_process(pid, Signal::STOP).unwrap());
    let mut job = services.client("buyer", HERE, &["run", "--", "true"]);
    job.wait_stderr("placed in");
    let killed = Instant::now();
    host.kill_9();
    job.ended_within(Duration::from_secs(30)).expect(69).says("lost");
    let took = killed.elapsed();
    helpers().for_each(|pid| kill_process(pid, Signal::CONT).unwrap());
    assert!(took < Duration::from_secs(13), "{took:?}");
    let lease = services.leases().last();
    assert_eq!((lease.state().0, lease.promised), (LeaseState::Lost, 0));
}

#[test]
fn a_killed_helper_loses_its_leases_but_not_its_host() {
    let Some(services) = Services::start("", HERE) else { return };
    let mut host = services.host("host", HERE);
    let job = counting(&services);
    for pid in services.place.helpers().into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    job.finish().expect(69);
    services.leases().ended_as(LeaseState::Lost, Reason::SandboxLost);
    services.observer().books_close();
    services.run(&["run", "--", "true"]).expect(0);
    assert!(host.is_running());
    assert!(!host.stderr().contains("panicked"), "{}", host.stderr());
}

#[test]
fn a_helper_that_dies_while_nothing_runs_is_replaced_unseen() {
    let Some(mut network) = Network::start() else { return };
    for pid in network.place().helpers().into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    network.process().wait_stderr("a new sandbox helper runs");
    network.works();
}

/// The other tests kill where it hurts by design; this one finds moments nobody thought of. What it
/// prints says which: the pause after the request, in milliseconds.
#[test]
fn kills_at_random_moments_leave_nothing_behind() {
    const ROUNDS: u32 = 6;
    let Some(mut services) = Services::start("", HERE) else { return };
    services.fund("5");
    let observer = services.observer();
    let mut host = services.host("host", HERE);
    services.wait_free(&observer, 3);
    for round in 0..ROUNDS {
        let word = format!("round {round}");
        let script = format!("echo {word} begins; sleep 0.3; echo {word} ends");
        let job = services.client("buyer", HERE, &["run", "--", "sh", "-c", &script]);
        // From the order to the receipt a job like this takes about 500 ms.
        let [low, high] = welkin_node::outside::random::<2>();
        let pause = Duration::from_millis(u64::from(u16::from_le_bytes([low, high]) % 700));
        eprintln!("{word}: killed after {pause:?}");
        std::thread::sleep(pause);
        host.kill_9();
        host = services.host("host", HERE);
        let output = job.ended_within(2 * DEADLINE);
        let whole = format!("{word} begins\n{word} ends\n");
        match output.code {
            0 => assert_eq!(output.text(), whole, "{}", output.stderr),
            // Not placed (2), or lost (69): what came is what was printed, once.
            2 | 69 => assert!(whole.starts_with(&output.text()), "{}", output.text()),
            code => panic!("ended with {code}: {}", output.stderr),
        }
        observer.books_close();
        services.wait_free(&observer, 3);
        assert!(!host.stderr().contains("panicked"), "{}", host.stderr());
    }
    // One sandbox waits in the pool; of the leases nothing is left.
    until(DEADLINE, "only the pool is left", || services.place.sandbox_folders().len() == 1);
    for lease in services.leases().all() {
        assert!(lease.promised <= 3, "{} s promised for half a second of work", lease.promised);
    }
    services.run(&["run", "--", "true"]).expect(0);
    services.are_well();
}

#[test]
fn settlement_and_indexer_may_be_restarted_while_a_job_runs() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    let job = counting(&services);
    services.restart_roles(HERE);
    assert_eq!(job.finish().expect(0).text(), numbers(400));
    services.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    let observer = services.observer();
    observer.books_close();
    services.wait_free(&observer, 3);
    services.run(&["run", "--", "true"]).expect(0);
}

#[test]
fn two_hosts_share_the_work_and_one_may_die() {
    let Some(services) = Services::start("", HERE) else { return };
    let one = services.host("host-1", HERE);
    let _two = services.host("host-2", HERE);
    services.fund("5");
    let observer = services.observer();
    services.wait_free(&observer, 6);
    let sleep = ["run", "--retry", "1", "--", "sh", "-c", "echo begun; sleep 8; echo done"];
    let mut jobs: Vec<_> = (0..6).map(|_| services.client("buyer", HERE, &sleep)).collect();
    for job in &mut jobs {
        job.wait_stdout("begun\n");
    }
    one.kill_9();
    // Those of the dead host are placed again once it is given up.
    for job in jobs {
        assert!(job.finish_within(2 * DEADLINE).expect(0).text().ends_with("done\n"));
    }
}

/// Two hosts, and a detached job with a secret and a file; returns the host that has it.
#[track_caller]
fn detached_on_two(services: &Services) -> (Proc, Proc) {
    let mut hosts = [services.host("host-1", HERE), services.host("host-2", HERE)];
    services.fund("5");
    services.wait_free(&services.observer(), 6);
    let task = services.place.path().join("task.yaml");
    std::fs::write(services.place.path().join("data"), "of the file").unwrap();
    let script = "echo begun $KEY; cat /work/data; echo; sleep 600";
    let text = format!(
        "name: job\ncommand: [sh, -c, '{script}']\nsecrets: [KEY]\nfiles:\n  - {{from: data, to: /work/}}\n\
         retry: {{max: 1, on: [host-lost]}}\n"
    );
    std::fs::write(&task, text).unwrap();
    let args = ["run", "-d", "-f", &task.to_string_lossy()];
    let mut command = services.command("buyer", HERE, &args);
    command.env("KEY", "word");
    Proc::spawn(command).finish().expect(0);
    eventually(DEADLINE, "the job prints", || {
        let output = services.run(&["logs", "job"]);
        (output.text() == "begun word\nof the file\n").then_some(())
    });
    let node = services.leases().last().host.node.to_string();
    hosts[0].wait_stdout("\n");
    let is_first = String::from_utf8_lossy(&hosts[0].stdout()).contains(&node);
    let [one, two] = hosts;
    if is_first { (one, two) } else { (two, one) }
}

#[test]
fn a_detached_lease_is_placed_again_when_its_host_is_lost() {
    let Some(services) = Services::start("", HERE) else { return };
    let (lost, _other) = detached_on_two(&services);
    let old = services.leases().last();
    until(DEADLINE, "the log is copied", || {
        let folder = services.dir("buyer").join("buyer/logs").join(old.lease.to_string());
        files_below(&folder).iter().any(|file| file.metadata().is_ok_and(|meta| meta.len() > 20))
    });
    lost.kill_9();
    let new = eventually(2 * DEADLINE, "the task is placed again", || {
        services.leases().all().into_iter().find(|kept| kept.replaces == Some(old.lease))
    });
    assert_eq!((new.name.as_str(), new.tries, new.by_agent), ("job", 1, true));
    assert_ne!(new.host.node, old.host.node);
    until(DEADLINE, "it runs", || services.leases().last().state().0 == LeaseState::Running);
    let kept = services.leases().all().into_iter().find(|kept| kept.lease == old.lease).unwrap();
    assert_eq!(kept.state(), (LeaseState::Lost, Reason::HostUnreachable));
    // Each has its own log, by its id; the name is the newest one's.
    let (old, new) = (old.lease.to_string(), new.lease.to_string());
    for name in [old.as_str(), new.as_str(), "job"] {
        let output = services.run(&["logs", name]).expect(0);
        assert_eq!(output.text(), "begun word\nof the file\n", "{name}: {}", output.stderr);
    }
    let shown = services.run(&["show", &old]).expect(0).text();
    assert!(shown.contains("lost (host_unreachable)") && shown.contains(&new), "{shown}");
    let shown = services.run(&["show", "job"]).expect(0).text();
    assert!(shown.contains(&new) && shown.contains(&old) && shown.contains("running"), "{shown}");
    let shown = services.run(&["ps", "-a"]).expect(0).text();
    assert!(shown.contains(&old[..12]) && shown.contains(&new[..12]), "{shown}");
    // Nothing of the secret is in a file of this machine.
    for file in files_below(&services.dir("buyer")) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let is_log = file.components().any(|part| part.as_os_str() == "logs");
        assert!(is_log || !contains(&bytes, b"word"), "{}", file.display());
    }
    services.run(&["stop", "job"]).expect(0);
    services.leases().ended_as(LeaseState::Stopped, Reason::BuyerStopped);
}

#[test]
fn what_a_person_stops_is_not_placed_again() {
    let Some(services) = Services::start("", HERE) else { return };
    let (lost, _other) = detached_on_two(&services);
    lost.kill_9();
    // Its host is gone: the end is not confirmed, yet wanted.
    services.run(&["stop", "job"]);
    until(2 * DEADLINE, "it is given up", || services.leases().last().state().0.is_final());
    until(DEADLINE, "the agent has ended", || {
        services.run(&["ps", "-a"]).expect(0);
        services.leases().all().len() == 1
    });
    assert!(!services.dir("buyer").join("buyer/tasks").read_dir().unwrap().any(|_| true));
}

#[test]
fn detached_leases_are_paid_for_also_after_a_crash_of_their_agent() {
    let Some(network) = Network::start() else { return };
    network.run(&["run", "-d", "--name", "job", "--", "sleep", "600"]).expect(0);
    let promised = || network.leases().last().promised;
    until(DEADLINE, "it is paid for", || promised() > 0);
    // The one that works, not the one that watches it.
    let agents = || {
        let dir = network.dir().to_string_lossy().into_owned();
        let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut agents = processes_with(&dir);
        agents.retain(|pid| line(pid).ends_with(b"\0agent\0"));
        agents
    };
    for _ in 0..2 {
        let before = eventually(DEADLINE, "an agent works", || agents().pop());
        kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
        let paid = promised();
        // Longer than a host works without being paid.
        until(DEADLINE, "it is paid for again", || promised() > paid + 14);
        assert_ne!(agents(), [before]);
    }
    assert_eq!(network.leases().last().state().0, LeaseState::Running);
    network.run(&["stop", "job"]).expect(0);
}

/// Says back what it reads, line by line.
const ECHO: &str = "echo ready; while read x; do echo got $x; done; echo end";

#[test]
fn input_goes_on_after_a_lost_connection_without_loss_or_repetition() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    services.fund("5");
    let mut job = services.client("buyer", HERE, &["run", "--", "sh", "-c", ECHO]);
    job.wait_stdout("ready\n");
    let mut expected = String::from("ready\n");
    let mut type_line = |job: &mut Proc, i: u32| {
        writeln!(job.stdin(), "{i}").unwrap();
        writeln!(expected, "got {i}").unwrap();
    };
    for i in 0..20 {
        type_line(&mut job, i);
    }
    job.wait_stdout("got 19\n");
    // The host falls silent for so long that its buyer comes again; input goes on meanwhile.
    host.signal(Signal::STOP);
    for i in 20..40 {
        type_line(&mut job, i);
        std::thread::sleep(Duration::from_millis(20));
    }
    job.wait_stderr("the connection to the host is lost");
    for i in 40..60 {
        type_line(&mut job, i);
    }
    host.signal(Signal::CONT);
    job.wait_stderr("the host is there again");
    for i in 60..80 {
        type_line(&mut job, i);
    }
    let output = job.finish().expect(0);
    expected.push_str("end\n");
    assert_eq!(output.text(), expected);
}

#[test]
fn a_terminal_can_be_typed_on_after_a_restart_of_its_host() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    services.fund("5");
    let args = ["run", "-y", "-t", "--", "sh", "-c", ECHO];
    let mut job = on_terminal_of(&services.command("buyer", HERE, &args));
    job.wait_stdout("ready\r\n");
    job.stdin().write_all(b"one\r").unwrap();
    job.wait_stdout("got one\r\n");
    host.kill_9();
    let _host = services.host("host", HERE);
    job.wait_stdout("the host is there again");
    job.stdin().write_all(b"two\r").unwrap();
    job.wait_stdout("got two\r\n");
    job.stdin().write_all(b"\x04").unwrap();
    job.wait_stdout("end\r\n");
    job.ended().expect(0);
}

#[test]
fn who_types_into_a_pipe_that_is_gone_is_told() {
    let Some(services) = Services::start("", HERE) else { return };
    let host = services.host("host", HERE);
    services.fund("5");
    let script = format!("{ECHO}; {UNTIL_TOLD}");
    let args = ["run", "-q", "--name", "typed", "--", "sh", "-c", &script];
    let mut job = services.client("buyer", HERE, &args);
    job.wait_stdout("ready\n");
    host.kill_9();
    let _host = services.host("host", HERE);
    job.wait_stderr("standard input ends here: the host was restarted");
    services.tell_end("typed");
    // The command saw the end of its input when the host died.
    let output = job.ended().expect(0);
    assert_eq!(output.text(), "ready\nend\n");
}

#[test]
fn a_slow_reader_gets_everything_before_the_exit_code() {
    let Some(network) = Network::start() else { return };
    let script = "seq 1 300000; exit 5";
    let command = network.command(&["run", "--", "sh", "-c", script]);
    let (mut job, mut stdout) = Proc::spawn_unread(command);
    job.wait_stderr("failed (exited_non_zero)");
    // Longer than anything on the way waits for.
    std::thread::sleep(Duration::from_secs(14));
    assert!(job.is_running(), "there is more to show than a pipe holds");
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    job.ended().expect(5);
    let all: String = (1..=300_000).map(|i| format!("{i}\n")).collect();
    assert!(text == all, "{} of {} bytes", text.len(), all.len());
}
