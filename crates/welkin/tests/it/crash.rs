//! What remains true when a host dies in the middle of a job.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use welkin_types::{LeaseState, Reason};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Network, Proc, eventually, until};

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
