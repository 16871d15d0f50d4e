//! A checker as a process of its own: what it finds is shown to buyers. An order during a challenge.
//! The test of its hardware that a host makes of itself.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use welkin_node::settlement::Settle;
use welkin_node::{Caller, outside, wire};
use welkin_proto::ALPN_EXAM;
use welkin_proto::exam::{ExamAsk, ExamRefusal, ExamReply, ExamWork, FillWork};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Output, Place, Proc, eventually, until};

/// Each host is checked once a minute, at a moment that it can't know.
const TWO_MINUTES: Duration = Duration::from_secs(130);
/// Of eight challenges one looks at memory, which proves no class and may take the next minute, too.
const FIVE_MINUTES: Duration = Duration::from_secs(310);

#[test]
fn a_checked_host_has_a_score() {
    let config = "[checker]\nexam_percent = 100\n";
    let Some(mut services) = Services::start(config, HERE) else { return };
    let _host = services.host("host", HERE);
    services.checker(HERE);
    let observer = services.observer();
    until(TWO_MINUTES, "a score is shown", || {
        let rows = observer.runtime.block_on(observer.buyer.offers(None)).unwrap();
        rows.iter().any(|row| row.online_bp == Some(10_000))
    });
    // A challenge of the idle slots comes with each probe, and its finding is shown.
    until(FIVE_MINUTES, "a class is verified", || {
        let rows = observer.runtime.block_on(observer.buyer.verified()).unwrap();
        rows.iter().any(|row| row.class.as_ref().is_some_and(|class| class.as_str() == "cpu-1"))
    });
    let offers = services.run(&["offers"]).expect(0).text();
    assert!(offers.contains("VERIFIED") && offers.matches("cpu-1").count() == 2, "{offers}");
    let offers = services.run(&["--json", "offers"]).expect(0).text();
    assert!(offers.contains(r#""verified":{"host":"#), "{offers}");
    services.fund("1");
    services.run(&["run", "--", "true"]).expect(0).says("online 100.00 %");
    services.are_well();
}

/// The test is a checker itself, so that it knows when a challenge is under way.
#[test]
fn an_order_ends_a_challenge_and_starts_at_once() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.fund("1");
    let observer = services.observer();
    let offers = || observer.runtime.block_on(observer.buyer.offers(None)).unwrap();
    let row = eventually(DEADLINE, "it is listed", || offers().into_iter().next());
    let endpoint = observer.buyer.endpoint().clone();
    // Warm: what is measured is not the first start of a sandbox.
    services.run(&["run", "--", "true"]).expect(0);
    let (container, seed) = (row.container.id, [1; 32]);
    let ordered = observer.runtime.block_on(async {
        let minute = registered(observer.buyer.settle()).await;
        let work = ExamWork { minute, container, device: 0, seed, n: 512, rounds: 2 };
        let caller = Caller::new(endpoint, row.addr.clone(), ALPN_EXAM);
        let connection = caller.connection().await.unwrap();
        let begin = async || {
            let (mut send, mut recv) = connection.open().await.unwrap();
            wire::send(&mut send, &ExamAsk::Begin(work)).await.unwrap();
            let reply = wire::expect::<ExamReply>(&mut recv, DEADLINE).await.unwrap();
            (reply, send, recv)
        };
        // It is under way until the rows are asked for; the second of a minute is refused.
        let (committed, _send, mut recv) = begin().await;
        assert!(matches!(committed, ExamReply::Committed(_)), "{committed:?}");
        assert_eq!(begin().await.0, ExamReply::Refused(ExamRefusal::TooMany));
        let run = services.command("buyer", HERE, &["run", "--", "true"]);
        let ran = tokio::task::spawn_blocking(|| Proc::spawn(run).finish());
        let ordered = wire::expect::<ExamReply>(&mut recv, DEADLINE).await.unwrap();
        ran.await.unwrap().expect(0);
        ordered
    });
    assert_eq!(ordered, ExamReply::Refused(ExamRefusal::Ordered));
    services.are_well();
}

/// Memory that a checker had filled is given back as soon as an order comes.
#[test]
fn an_order_ends_a_look_at_memory_and_starts_at_once() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.fund("1");
    let observer = services.observer();
    let offers = || observer.runtime.block_on(observer.buyer.offers(None)).unwrap();
    let row = eventually(DEADLINE, "it is listed", || offers().into_iter().next());
    let endpoint = observer.buyer.endpoint().clone();
    let (container, seed) = (row.container.id, [1; 32]);
    let replies = observer.runtime.block_on(async {
        let minute = registered(observer.buyer.settle()).await;
        let work =
            FillWork { minute, container, device: 0, seed, units: 1 << 16, double_rounds: 8 };
        let caller = Caller::new(endpoint, row.addr.clone(), ALPN_EXAM);
        let connection = caller.connection().await.unwrap();
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Fill(work)).await.unwrap();
        let filled = wire::expect::<ExamReply>(&mut recv, DEADLINE).await.unwrap();
        let run = services.command("buyer", HERE, &["run", "--", "true"]);
        let ran = tokio::task::spawn_blocking(|| Proc::spawn(run).finish());
        let ended = wire::expect::<ExamReply>(&mut recv, DEADLINE).await.unwrap();
        ran.await.unwrap().expect(0);
        [filled, ended]
    });
    assert_eq!(replies, [ExamReply::Filled, ExamReply::Refused(ExamRefusal::Ordered)]);
    services.are_well();
}

/// Registers a checker and waits until the list of the present epoch is closed; returns the minute.
async fn registered(settle: &Settle) -> u64 {
    settle.register_checker([0; 32]).await.unwrap();
    // The first epoch has its list once those who came with the first one are in it.
    let is_listed = async || settle.epoch(outside::now().0 / 60_000).await.is_ok();
    let listed = async {
        while !is_listed().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, listed).await.unwrap();
    outside::now().0 / 60_000
}

/// `welkin host check` in a place of its own, with this log in place of the kernel's.
fn check(place: &Place, log: &Path, args: &[&str]) -> Output {
    let log = log.to_str().unwrap();
    let args: Vec<_> = args.iter().copied().chain(["host", "check", "--kernel-log", log]).collect();
    Proc::spawn(place.command(place.path(), &args)).finish()
}

fn rows(output: &Output) -> Vec<Value> {
    let text = output.text();
    let rows = serde_json::Deserializer::from_str(&text).into_iter();
    rows.map(|row| row.unwrap_or_else(|error| panic!("{error}: {text}"))).collect()
}

fn row<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {rows:?}"))
}

#[test]
fn a_sound_host_passes_its_own_test() {
    let place = Place::new("");
    let log = place.path().join("log");
    std::fs::write(&log, "[    1.000000] all is well\n").unwrap();
    let output = check(&place, &log, &["--json"]);
    let rows = rows(&output);
    for name in ["offers", "residency", "memory", "ports", "health"] {
        assert_eq!(row(&rows, name)["status"], "ok", "{rows:?}");
    }
    let found = row(&rows, "challenge")["found"].as_str().unwrap();
    assert!(found.starts_with("cpu-1: exact, ") && found.contains("cpu-1 is from 175"), "{found}");
    assert_eq!(row(&rows, "clock")["status"], "skip");
    // On a busy machine the processor or the disk may be slow: that is all that may fail.
    let failed: Vec<_> = rows.iter().filter(|row| row["status"] == "fail").collect();
    assert!(failed.iter().all(|row| row["name"] == "challenge" || row["name"] == "disk"));
    assert!(failed.iter().all(|row| row["remedy"].as_str().is_some_and(|text| !text.is_empty())));
    assert_eq!(output.code, if failed.is_empty() { 0 } else { 2 }, "{rows:?}");
}

#[test]
fn what_is_wrong_is_shown_with_its_remedy() {
    let config = r#"
[host]
listen = "nowhere"

[[host.containers]]
cpu_milli = 1000
memory_mib = 1000000
slots = 100
"#;
    let place = Place::new(config);
    let log = place.path().join("log");
    let line =
        "[ 1234.500000] NVRM: Xid (PCI:0000:3b:00): 79, pid=1896, GPU has fallen off the bus.";
    std::fs::write(&log, format!("{line}\n{line}\n")).unwrap();
    let rows = rows(&check(&place, &log, &["--json"]).expect(2));
    for (name, found, remedy) in [
        ("memory", "offered of", "fewer slots"),
        ("ports", "`nowhere` is no address", "host.listen"),
        ("health", "Xid(79) (0000:3b:00): the GPU has fallen off the bus, 2 times", "reseat"),
    ] {
        let row = row(&rows, name);
        assert_eq!(row["status"], "fail", "{row}");
        assert!(row["found"].as_str().unwrap().contains(found), "{row}");
        assert!(row["remedy"].as_str().unwrap().contains(remedy), "{row}");
    }
    let output = check(&place, Path::new("/nonexistent"), &[]).expect(2);
    assert!(output.text().contains("/nonexistent can't be read"), "{}", output.text());
    assert!(output.stderr.contains("2 checks fail"), "{}", output.stderr);
}
