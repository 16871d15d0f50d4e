//! One slot and more who want it: who waits, in what order, and what it is told.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::services::{HERE, Services, UNTIL_TOLD};
use crate::support::{Proc, until};

const ONE_SLOT: &str = r#"
[[host.containers]]
cpu_milli = 1000
memory_mib = 512
disk_mib = 256
slots = 1
usd_per_hour = "0.36"
"#;

fn waits(services: &Services, name: &str, queue: &str) -> Proc {
    services.client(name, HERE, &["run", "--queue", queue, "--", "true"])
}

/// When each lease of this buyer was ordered, the first one first.
fn ordered(services: &Services, name: &str) -> Vec<u64> {
    let output = services.client(name, HERE, &["ps", "-a", "--json"]).finish().expect(0);
    let mut times: Vec<_> = output
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| row["ordered"].as_u64().unwrap())
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn one_slot_is_shared_fairly_and_places_outlive_the_indexer() {
    let Some(mut services) = Services::start(ONE_SLOT, HERE) else { return };
    let _host = services.host("host", HERE);
    services.fund("5");
    for name in ["flood", "second", "third"] {
        services.client(name, HERE, &["fund", "5"]).finish().expect(0);
    }
    let observer = services.observer();
    services.wait_free(&observer, 1);
    let script = format!("echo on; {UNTIL_TOLD}");
    let mut holder = services.client("buyer", HERE, &["run", "--", "sh", "-c", &script]);
    holder.wait_stdout("on\n");
    services.wait_free(&observer, 0);

    let mut waiting = Vec::new();
    for (name, place) in [("flood", 1), ("flood", 2), ("flood", 3)] {
        let mut job = waits(&services, name, "120s");
        job.wait_stderr(&format!(
            "queued: position {place} of {place}, the only container is busy"
        ));
        waiting.push(job);
    }
    for name in ["second", "third"] {
        let mut job = waits(&services, name, "120s");
        // Before the second and third of the flood.
        let place = if name == "second" { "2 of 4" } else { "3 of 5" };
        job.wait_stderr(&format!("queued: position {place}"));
        waiting.push(job);
    }
    let ps = services.client("flood", HERE, &["ps"]).finish().expect(0).text();
    assert_eq!(ps.matches("queued ").count(), 3, "{ps}");
    assert_eq!(ps.matches("hosts_busy").count(), 3, "{ps}");
    let ticket = ps.split_whitespace().find(|word| word.starts_with("tkt_")).unwrap();
    let show = services.client("flood", HERE, &["show", ticket]).finish().expect(0).text();
    assert!(show.contains("queued (hosts_busy), billing off"), "{show}");

    // A place can be given up from elsewhere.
    let mut stopped = waits(&services, "third", "120s");
    stopped.wait_stderr("queued: position");
    let ps = services.client("third", HERE, &["ps"]).finish().expect(0).text();
    let ticket = ps.split_whitespace().rfind(|word| word.starts_with("tkt_")).unwrap();
    let stop = services.client("third", HERE, &["stop", ticket]).finish().expect(0).text();
    assert!(stop.contains("waits no more"), "{stop}");
    stopped.ended().expect(130);

    // Time is over when it was said, and Ctrl-C gives a place up.
    let began = Instant::now();
    let late = waits(&services, "second", "2s").finish();
    assert_eq!(late.code, 2, "{}", late.stderr);
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(8));
    let mut given_up = waits(&services, "third", "120s");
    given_up.wait_stderr("queued: position");
    given_up.signal(Signal::INT);
    given_up.ended().expect(130);

    services.restart_roles(HERE);
    for job in &mut waiting {
        job.wait_stderr("queued: back at the same place");
    }
    let lease = holder.stderr();
    let lease = lease.split_whitespace().find(|word| word.starts_with("lse_")).unwrap();
    services.tell_end(lease);
    holder.ended().expect(0);
    for job in waiting {
        job.ended().expect(0);
    }
    let flood = ordered(&services, "flood");
    let (second, third) = (ordered(&services, "second")[0], ordered(&services, "third")[0]);
    let order = [flood[0], second, third, flood[1], flood[2]];
    assert!(order.is_sorted(), "{order:?}");
    services.wait_free(&observer, 1);
    let ps = services.client("flood", HERE, &["ps"]).finish().expect(0);
    assert_eq!(ps.text(), "");
    services.are_well();
}

#[test]
fn the_market_is_watched_through_a_restart_and_has_a_history() {
    let Some(mut services) = Services::start(ONE_SLOT, HERE) else { return };
    let host = services.host("host", HERE);
    let mut watch =
        services.client("buyer", HERE, &["offers", "--watch", "--every", "1s", "--json"]);
    watch.wait_stdout("\"added\"");
    services.restart_roles(HERE);
    watch.wait_stderr("the indexer answers again");
    // What is there again as it was is no change; a host that goes has nothing free any more.
    let observer = services.observer();
    services.wait_free(&observer, 1);
    host.signal(Signal::TERM);
    watch.wait_stdout("\"changed\"");
    watch.signal(Signal::INT);
    let watched = watch.ended().expect(0).text();
    for line in watched.lines() {
        let change: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(change["offer"]["container"]["class"].is_string(), "{line}");
    }
    let class = serde_json::from_str::<serde_json::Value>(watched.lines().next().unwrap()).unwrap();
    let class = class["offer"]["container"]["class"].as_str().unwrap().to_owned();
    let history =
        || services.run(&["offers", "--history", &class, "--since", "1h"]).expect(0).text();
    until(Duration::from_secs(30), "there is a history", || history().contains("MEDIAN"));
    assert!(history().contains("$0.36"), "{}", history());
    let unknown = services.run(&["offers", "--history", "h100-sxm-80"]).expect(0);
    unknown.says("nothing is known of what h100-sxm-80 cost");
    services.run(&["offers", "--history", "NO CLASS"]).expect(64).says("`welkin offers` shows");
}
