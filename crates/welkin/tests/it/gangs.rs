//! Tasks of several nodes: all of them are leased or none, and they end together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use welkin_types::{LeaseState, Reason};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Network, contains, until};

/// The lines of each rank, in order, without their prefix.
fn by_rank(text: &str) -> BTreeMap<u16, Vec<&str>> {
    let mut lines: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let (rank, line) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap();
        lines.entry(rank.parse().unwrap()).or_default().push(line);
    }
    lines
}

#[test]
fn a_command_runs_on_every_node_and_knows_its_rank() {
    let Some(mut network) = Network::start() else { return };
    let script = "echo $WELKIN_NODE_RANK of $WELKIN_NODES; echo $RANK/$WORLD_SIZE $NNODES; \
                  echo $WELKIN_JOB >&2";
    let output = network
        .run(&["run", "--nodes", "3", "--name", "train", "--", "sh", "-c", script])
        .expect(0)
        .says("3 nodes for $1.08/h in all")
        .says("[2] train");
    let lines = by_rank(std::str::from_utf8(&output.stdout).unwrap()).into_iter();
    let expected = (0..3).map(|rank| (rank, vec![format!("{rank} of 3"), format!("{rank}/3 3")]));
    let lines = lines.map(|(rank, lines)| (rank, lines.iter().map(ToString::to_string).collect()));
    assert_eq!(lines.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let leases = network.leases();
    for kept in leases.all() {
        let receipt = leases.receipt_file(kept.lease).verify().unwrap();
        assert_eq!(receipt.stages.last().unwrap().state, LeaseState::Succeeded);
    }

    // Afterwards they are one by their name, and each by its rank.
    let listed = network.run(&["ps", "-a"]).expect(0);
    assert!(contains(&listed.stdout, b"train/0") && contains(&listed.stdout, b"train/2"));
    let logs = network.run(&["logs", "train"]).expect(0);
    assert_eq!(by_rank(&logs.text())[&1], ["1 of 3", "1/3 3"]);
    let logs = network.run(&["logs", "train/2"]).expect(0);
    assert_eq!(logs.text(), "[2] 2 of 3\n[2] 2/3 3\n");
    let shown = network.run(&["--json", "show", "train"]).expect(0);
    assert_eq!(shown.text().lines().count(), 3);
    network.run(&["exec", "train", "--", "true"]).expect(64).says("names 3 nodes");
    network.run(&["logs", "train/3"]).expect(64).says("no such node");
    network.observer().books_close();
    network.works();
}

#[test]
fn too_many_nodes_are_refused_at_once_and_a_plan_shows_the_whole_price() {
    let Some(network) = Network::start() else { return };
    let plan = network.run(&["plan", "--nodes", "2", "--", "true"]).expect(0);
    assert!(contains(&plan.stdout, b"2, all of them or none"), "{}", plan.text());
    assert!(contains(&plan.stdout, b"$0.72/h"), "{}", plan.text());
    let began = Instant::now();
    network.run(&["run", "--nodes", "4", "--", "true"]).expect(2).says("too few fit together");
    let spread = ["run", "--nodes", "2", "--distinct-hosts", "--", "true"];
    network.run(&spread).expect(2).says("too few fit together");
    assert!(began.elapsed() < Duration::from_secs(10), "nobody waits for what never comes");
    network.run(&["run", "--distinct-hosts", "--", "true"]).expect(64).says("distinct_hosts");
    network.run(&["run", "--nodes", "65", "--", "true"]).expect(64).says("at most 64");
    assert!(network.leases().all().is_empty(), "nothing was leased");
    network.observer().books_close();
}

#[test]
fn the_first_failure_ends_all_and_gives_the_code() {
    let Some(mut network) = Network::start() else { return };
    let script = "if [ $RANK = 1 ]; then sleep 0.5; exit 7; fi; sleep 600";
    let began = Instant::now();
    network
        .run(&["run", "--nodes", "3", "--", "sh", "-c", script])
        .expect(7)
        .says("node 1 has failed: the others are stopped");
    assert!(began.elapsed() < Duration::from_secs(60));
    let leases = network.leases();
    let ends: BTreeMap<_, _> = leases
        .all()
        .iter()
        .map(|kept| {
            let receipt = leases.receipt_file(kept.lease).verify().unwrap();
            (kept.gang.unwrap().rank, receipt.stages.last().unwrap().state)
        })
        .collect();
    let (failed, stopped) = (LeaseState::Failed, LeaseState::Stopped);
    assert_eq!(ends, BTreeMap::from([(0, stopped), (1, failed), (2, stopped)]));
    network.observer().books_close();
    network.works();
}

#[test]
fn what_is_not_whole_waits_in_the_queue_and_holds_nothing() {
    let Some(network) = Network::start() else { return };
    let mut alone = network.spawn(&["run", "--", "sh", "-c", "echo on; read x; true"]);
    alone.wait_stdout("on");
    let mut all = network.spawn(&["run", "--nodes", "3", "--queue", "60s", "--", "echo", "here"]);
    all.wait_stderr("queued");
    // Two are free all the while: another may have one.
    network.run(&["run", "--", "true"]).expect(0);
    alone.finish().expect(0);
    assert_eq!(by_rank(&all.finish().expect(0).text()).len(), 3);
    // Its turn came with a receipt from which the choice follows.
    let known = network.run(&["--json", "indexers"]).expect(0).text();
    assert!(known.contains("\"receipts_disproved\":0"), "{known}");
    assert!(!known.contains("\"receipts_proved\":0"), "{known}");
    network.observer().books_close();
}

#[test]
fn ctrl_c_stops_all_nodes() {
    let Some(network) = Network::start() else { return };
    let mut job =
        network.spawn(&["run", "--nodes", "2", "--", "sh", "-c", "echo on $RANK; sleep 600"]);
    job.wait_stdout("on 0");
    job.wait_stdout("on 1");
    job.signal(Signal::INT);
    job.ended().expect(130);
    let leases = network.leases();
    for kept in leases.all() {
        let receipt = leases.receipt_file(kept.lease).verify().unwrap();
        let last = receipt.stages.last().unwrap();
        assert_eq!((last.state, last.reason), (LeaseState::Stopped, Reason::BuyerStopped));
    }
    network.observer().books_close();
}

#[test]
fn ctrl_c_while_nodes_are_placed_lets_go_of_those_that_have_accepted() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let (mut one, other) = (services.host("one", HERE), services.host("other", HERE));
    services.fund("5");
    // It is asked and does not answer.
    other.signal(Signal::STOP);
    let spread = ["run", "--nodes", "2", "--distinct-hosts", "--", "sleep", "600"];
    let mut job = services.client("buyer", HERE, &spread);
    one.wait_stderr("state=pulling");
    job.signal(Signal::INT);
    one.wait_stderr("state=stopped");
    job.wait_stderr("nodes that were accepted are let go");
    other.signal(Signal::CONT);
    job.ended().expect(130);
    let left = services.run(&["--json", "ps"]).expect(0).text();
    assert_eq!(left, "", "no lease is left");
    services.are_well();
}

#[test]
fn detached_nodes_stop_together() {
    let Some(network) = Network::start() else { return };
    let run = |name: &str, script: &str| {
        let args = ["run", "-d", "--nodes", "2", "--name", name, "--", "sh", "-c", script];
        let output = network.run(&args).expect(0);
        assert_eq!(output.text().lines().count(), 2);
    };
    let states = |name: &str| -> Vec<LeaseState> {
        let leases = network.leases().all();
        leases.iter().filter(|kept| kept.name == name).map(|kept| kept.state().0).collect()
    };
    // By a person.
    run("pair", "sleep 600");
    until(DEADLINE, "both run", || states("pair") == [LeaseState::Running; 2]);
    network.run(&["stop", "pair"]).expect(0);
    assert_eq!(states("pair"), [LeaseState::Stopped; 2]);
    // By the agent, where one fails.
    run("weak", "test $RANK = 0 && exit 3; sleep 600");
    until(DEADLINE, "both have ended", || states("weak").iter().all(|state| state.is_final()));
    let mut ends = states("weak");
    ends.sort();
    assert!(ends.contains(&LeaseState::Failed) && ends.contains(&LeaseState::Stopped), "{ends:?}");
    network.observer().books_close();
}
