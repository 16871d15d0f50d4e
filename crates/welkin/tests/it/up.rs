//! `welkin up`: one process, one folder, and what stays in it.

use rustix::process::Signal;
use welkin_types::{LeaseState, Reason};

use crate::support::Network;

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
