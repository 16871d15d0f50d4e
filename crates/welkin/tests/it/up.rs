//! `welkin up`: one process, one folder, and what stays in it.

use rustix::process::Signal;
use serde_json::Value;
use welkin_types::{LeaseState, Reason};

use crate::support::{DEADLINE, Leases, Network, Place, Proc, is_root, until};

#[test]
fn up_prints_where_everything_is() {
    let Some(mut network) = Network::start() else { return };
    let text = String::from_utf8(network.process().stdout()).unwrap();
    for part in ["settlement  nod_", "indexer     nod_", "relay       127", "host        nod_"] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(text.contains("welkin run -- echo hello"), "{text}");
    network.works();
}

/// Needs `welkin-trace` beside the program, which a build of the whole workspace puts there.
#[test]
fn the_demo_runs_from_end_to_end() {
    if !is_root() {
        return;
    }
    // The built-in hosts: two, with what this machine has.
    let place = Place::new("");
    std::fs::write(place.config(), "").unwrap();
    let dir = place.path().join("net");
    let mut command = place.command(&dir, &["up", "--demo"]);
    command.current_dir(place.path());
    let output = Proc::spawn(command).finish_within(4 * DEADLINE).expect(0);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    let text = output.text() + &output.stderr;
    for part in ["as expected", "training ended with", "books add up", "WIPED"] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    let picture = std::fs::read(place.path().join("demo.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    let leases = Leases::in_dir(&dir);
    let all = leases.all();
    let hosts: std::collections::BTreeSet<_> = all.iter().map(|kept| kept.host.node).collect();
    assert_eq!(hosts.len(), 2, "the work was shared by both hosts");
    for kept in &all {
        assert_eq!(kept.state(), (LeaseState::Succeeded, Reason::ExitedZero));
        leases.receipt_file(kept.lease).verify().unwrap();
    }
}

#[test]
fn its_checkers_are_the_committee_that_signs_epochs() {
    let Some(mut network) = Network::start() else { return };
    network.down();
    // More of them, then fewer again: who is away can't sign.
    for checkers in ["1", "3", "1"] {
        let mut up = network.spawn(&["up", "--hosts", "1", "--checkers", checkers]);
        up.wait_stdout("Ctrl-C stops the network");
        let (count, majority) = (checkers.parse().unwrap(), if checkers == "3" { 2 } else { 1 });
        until(DEADLINE, "all checkers are members", || {
            let output = network.run(&["checker", "status", "--json"]);
            let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let is_member = |row: &&Value| row["is_member"] == true && row["threshold"] == majority;
            rows.iter().take(count).filter(is_member).count() == count
        });
        up.signal(Signal::INT);
        up.ended();
    }
}

#[test]
fn a_second_network_in_the_same_folder_is_refused() {
    let Some(mut network) = Network::start() else { return };
    network.run(&["up"]).expect(64).says("a network runs already in").says("--dir");
    network.works();
}

#[test]
fn state_outlives_the_process() {
    let Some(mut network) = Network::start() else { return };
    network.sh("exit 7").expect(7);
    let lease = network.leases().last();
    let receipt = network.leases().last_receipt();
    let account = network.leases().account();
    let before = network.observer().balance(account);
    assert!(before.available < before.deposited, "{before:?}");

    let output = network.down().expect(0);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    network.run(&["run", "--", "true"]).expect(69);

    network.up();
    assert_eq!(network.observer().balance(account), before);
    assert_eq!(network.leases().last(), lease);
    assert_eq!(network.leases().last_receipt(), receipt);
    network.works();
}

#[test]
fn a_stop_by_sigterm_is_orderly_too() {
    let Some(mut network) = Network::start() else { return };
    network.process().signal(Signal::TERM);
    let output = network.down_already().expect(0);
    assert!(output.stderr.contains("what is stored stays"), "{}", output.stderr);
}

#[test]
fn a_running_lease_outlives_a_restart_of_the_network() {
    let Some(mut network) = Network::start() else { return };
    let script = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.05; done";
    let mut job = network.spawn(&["run", "--", "sh", "-c", script]);
    job.wait_stdout("10\n");
    network.down().expect(0);
    network.up();
    let output = job.finish().expect(0);
    let expected: String = (0..400).map(|i| format!("{i}\n")).collect();
    assert_eq!(output.text(), expected);
    network.leases().ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    network.observer().books_close();
}
