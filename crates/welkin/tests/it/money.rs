//! Money: no work without it, no payment without work, and nothing stays held.

use std::time::{Duration, Instant};

use welkin_types::{LeaseState, Reason, Usd};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Network, eventually, until};

#[test]
fn an_account_without_money_is_told_how_to_get_some() {
    let Some(services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.run(&["run", "--", "true"]).expect(78).says("welkin fund");
    let shown = services.run(&["balance"]).expect(0).text();
    assert!(shown.contains("$0.00"), "{shown}");
    services.fund("1.5");
    let shown = services.run(&["balance"]).expect(0).text();
    assert!(shown.contains("$1.50"), "{shown}");
    services.run(&["run", "--", "true"]).expect(0);
    services.run(&["fund", "10000000"]).expect(77);
    services.observer().books_close();
}

#[test]
fn a_price_limit_below_every_offer_shows_the_nearest() {
    let Some(network) = Network::start() else { return };
    let output = network.run(&["run", "--max-price", "0.01", "--", "true"]).expect(2);
    let output = output.says("nearest").says("$0.36/h");
    assert!(output.stderr.contains("--max-price"), "{}", output.stderr);
    network.run(&["run", "--max-price", "0.36", "--", "true"]).expect(0);
    network.run(&["run", "--gpu", "H100", "--", "true"]).expect(2).says("gpu");
}

#[test]
fn a_budget_is_the_end() {
    let Some(network) = Network::start() else { return };
    // $0.36/h is $0.0001/s: twelve seconds.
    let began = Instant::now();
    network.run(&["run", "--budget", "0.0012", "--", "sleep", "60"]).expect(78);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let receipt = network.leases().ended_as(LeaseState::Expired, Reason::FundsExhausted);
    assert!(receipt.cost <= Usd::from_micros(1_200), "{receipt:?}");
    assert!((11..=13).contains(&receipt.usage.seconds), "{receipt:?}");
    let account = network.leases().account();
    let observer = network.observer();
    observer.books_close();
    let view = observer.balance(account);
    assert_eq!(view.deposited.checked_sub(view.available), Some(receipt.cost));
}

#[test]
fn an_account_that_runs_dry_ends_its_lease() {
    // Dear enough that the first set-aside takes all there is.
    let config = "[[host.containers]]\ncpu_milli = 1000\nmemory_mib = 512\ndisk_mib = 256\n\
                  slots = 3\nusd_per_hour = \"36\"\n";
    let Some(services) = Services::start(config, HERE) else { return };
    let _host = services.host("host", HERE);
    // One cent a second.
    services.fund("6.10");
    services.run(&["run", "--", "sh", "-c", "exit 0"]).expect(0);
    let observer = services.observer();
    observer.books_close();
    let receipt = services.leases().last_receipt();
    assert_eq!(receipt.cost, receipt.price.cost(receipt.usage.seconds));
}

#[test]
fn a_killed_client_is_not_served_for_ever() {
    let Some(network) = Network::start() else { return };
    let mut job = network.spawn(&["run", "--", "sh", "-c", "echo ready; sleep 600"]);
    job.wait_stdout("ready\n");
    let account = network.leases().account();
    let observer = network.observer();
    until(DEADLINE, "the lease is paid", || network.leases().last().promised > 0);
    let free = observer.free();
    job.kill_9();
    let killed = Instant::now();
    assert!(!observer.balance(account).held.is_zero(), "money is set aside while it runs");
    // Ten seconds of work without a promise, two to be killed, three for a last promise.
    eventually(Duration::from_secs(20), "the slot is free again", || {
        (observer.free() > free).then_some(())
    });
    assert!(killed.elapsed() > Duration::from_secs(5), "{:?}", killed.elapsed());
    observer.books_close();
    let view = observer.balance(account);
    let paid = view.deposited.checked_sub(view.available).unwrap();
    let lease = network.leases().last();
    let promised = lease.order.message.price.cost(lease.promised);
    assert!(paid <= promised, "{paid} is more than the promised {promised}");
}

#[test]
fn a_full_host_makes_others_wait() {
    let Some(network) = Network::start() else { return };
    let args = ["run", "--", "sh", "-c", "echo ready; read x; true"];
    let mut jobs: Vec<_> = (0..3).map(|_| network.spawn(&args)).collect();
    for job in &mut jobs {
        job.wait_stdout("ready\n");
    }
    network.run(&["run", "--queue", "1s", "--", "true"]).expect(2);
    let mut waiting = network.spawn(&["run", "--queue", "30s", "--", "true"]);
    waiting.wait_stderr("queued");
    jobs[0].close_stdin();
    waiting.finish().expect(0);
    for job in jobs {
        job.finish().expect(0);
    }
    network.observer().books_close();
}
