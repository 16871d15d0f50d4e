//! An epoch of a network of processes: its evidence is kept, shown, and settled by anybody.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::services::{HERE, Services};
use crate::support::{Output, Proc, until};

/// A digest is of a minute, and is shown after it.
const TWO_MINUTES: Duration = Duration::from_secs(150);

/// An epoch and as long again until its evidence is closed, and some time to settle it.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Three epochs, whichever moment of the first it is.
const EIGHT_MINUTES: Duration = Duration::from_secs(480);

const CONFIG: &str = "[checker]\nexam_percent = 100\n[settlement]\nepoch_seconds = 120\n";

/// A command of somebody with a folder of their own.
fn by(services: &Services, who: &str, args: &[&str]) -> Output {
    Proc::spawn(services.command(who, HERE, args)).finish()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(output.text().trim()).unwrap()
}

fn shares<'a>(explained: &'a Value, cause: &str) -> Vec<&'a Value> {
    let streams = explained["streams"].as_array().unwrap().iter();
    let all = streams.flat_map(|stream| stream["shares"].as_array().unwrap());
    all.filter(|share| share["cause"] == cause).collect()
}

/// Runs a job in each epoch until there is one in which a class was proved, too; returns its summary.
///
/// Not each minute proves a class: of eight challenges one asks for memory, and an order ends one.
fn until_complete(services: &Services, file: &str) -> Value {
    let mut found = Value::Null;
    let mut leased = 0;
    until(EIGHT_MINUTES, "an epoch has a lease and a proof", || {
        let epoch = welkin_node::outside::now().0 / 1_000 / 120;
        if epoch > leased {
            services.run(&["run", "--", "sleep", "1"]).expect(0);
            leased = epoch;
        }
        let output =
            services.run(&["--json", "epoch", "--epoch", &epoch.to_string(), "--save", file]);
        found = if output.code == 0 { json(&output) } else { Value::Null };
        found["units"].as_u64() > Some(0) && found["digests"].as_u64() > Some(1)
    });
    found
}

#[test]
fn an_epoch_is_settled_alike_by_all_and_explained() {
    let Some(mut services) = Services::start(CONFIG, HERE) else { return };
    let _host = services.host("host", HERE);
    services.checker(HERE);
    services.fund("5");
    let path = services.place.path().join("evidence");
    let file = path.to_str().unwrap();
    let summary = until_complete(&services, file);
    assert_eq!(summary["refused"], serde_json::json!({}), "{summary}");
    assert_eq!(summary["checkers"], 1);

    all_agree(&services, &path, &summary);
    measured(&services);
    reported(&services);
    explained(&services, file);
    bent(&services, &path);
    signed(&services, &summary["epoch"].to_string());

    // Who keeps it has lost nothing by being killed.
    let count = summary["statements"].as_u64();
    services.restart_roles(HERE);
    let epoch = summary["epoch"].to_string();
    let again = by(&services, "late", &["--json", "epoch", "--epoch", &epoch]);
    assert!(json(&again)["statements"].as_u64() >= count, "{}", again.text());
    services.are_well();
}

/// A session is shown with what both of its sides have measured.
fn measured(services: &Services) {
    services.run(&["run", "--name", "measured", "--", "sleep", "2"]).expect(0);
    let shown = services.run(&["show", "measured"]).expect(0).text();
    assert!(shown.contains("quality     1 minutes:"), "{shown}");
    assert!(shown.contains("start: ") && shown.contains("running after"), "{shown}");
    assert!(shown.contains("minute 0: buyer ") && shown.contains("; host "), "{shown}");
}

/// What whoever uses a lease says of it stands in the digest of its buyer.
fn reported(services: &Services) {
    services.run(&["run", "-d", "--name", "served", "--", "sleep", "8"]).expect(0);
    let report = ["inference", "--first-token-ms", "240", "--errors-milli", "0"];
    services.run(&[&["measure", "served"][..], &report].concat()).expect(0);
    let wrong = ["measure", "served", "inference", "--errors-milli", "1001"];
    let output = services.run(&wrong).expect(64);
    assert!(output.stderr.contains("out of bounds"), "{}", output.stderr);
    until(TWO_MINUTES, "the report is in a digest", || {
        let shown = services.run(&["show", "served"]).expect(0).text();
        shown.contains("first token 240 ms, errors 0.0 %")
    });
}

/// Once its evidence is closed the checker settles it, too, and signs what everybody finds.
fn signed(services: &Services, epoch: &str) {
    until(FIVE_MINUTES, "the checker has signed the epoch", || {
        let output = services.run(&["--json", "epoch", "--epoch", epoch]);
        let by =
            if output.code == 0 { json(&output)["signed"]["same"].clone() } else { Value::Null };
        by.as_array().is_some_and(|by| by.len() == 1)
    });
}

/// Three processes, and a file whose lines stand in another order.
fn all_agree(services: &Services, path: &Path, summary: &Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let (heading, statements) = text.split_once('\n').unwrap();
    let reversed: Vec<_> = std::iter::once(heading).chain(statements.lines().rev()).collect();
    let other = path.with_extension("reversed");
    std::fs::write(&other, reversed.join("\n")).unwrap();
    for (who, file) in [("one", path), ("two", path), ("three", &other)] {
        let args = ["--json", "epoch", "--evidence", file.to_str().unwrap()];
        let found = json(&by(services, who, &args).expect(0));
        for field in ["root", "data", "evidence", "epoch"] {
            assert_eq!(found[field], summary[field], "{who}: {field}");
        }
    }
}

fn explained(services: &Services, file: &str) {
    let proofs = services.place.path().join("proofs");
    let (proofs, next) = (proofs.to_str().unwrap(), services.place.path().join("next"));
    let next = next.to_str().unwrap();
    let args = ["epoch", "--evidence", file, "--proofs", proofs, "--next", next];
    let text = by(services, "one", &args).expect(0).text();
    assert!(text.contains("root") && text.contains("hosts"), "{text}");
    let list: Value = serde_json::from_slice(&std::fs::read(proofs).unwrap()).unwrap();
    let account = |stream: &str| {
        let all = list.as_array().unwrap().iter();
        let mut found = all.filter(|proof| proof["stream"] == stream);
        found.next().unwrap()["account"].as_str().unwrap().to_owned()
    };
    let explain = |account: &str| {
        let args = ["--json", "rewards", "explain", account, "--evidence", file];
        json(&by(services, "two", &args).expect(0))
    };
    let host = explain(&account("hosts"));
    let delivery = shares(&host, "delivery");
    assert!(!delivery.is_empty() && !shares(&host, "capacity").is_empty(), "{host}");
    // Both sides have signed what they measured.
    assert!(delivery[0]["quality_bp"].as_u64() > Some(9_000), "{host}");
    let checker = explain(&account("checkers"));
    assert_eq!(shares(&checker, "tasks").len(), 1, "{checker}");
    // The indexer whose offer the buyer took.
    let indexer = explain(&account("indexers"));
    let matches = shares(&indexer, "matches");
    assert!(matches.len() == 1 && matches[0]["weight"] != "0", "{indexer}");
    let args = ["rewards", "explain", &account("hosts"), "--evidence", file];
    let text = by(services, "two", &args).expect(0).text();
    assert!(text.contains("capacity x seconds delivered"), "{text}");

    let container = delivery[0]["of"].as_str().unwrap();
    let args = ["--json", "score", "explain", container, "--evidence", file];
    let score = json(&by(services, "three", &args).expect(0));
    let seen = |of: &str| {
        score["observations"].as_array().unwrap().iter().any(|seen| seen["dimension"] == of)
    };
    assert!(seen("availability") && seen("start") && seen("sessions"), "{score}");
    assert!(seen("quality"), "{score}");
    assert!(score["dimensions"][0]["certain_ppm"].as_u64() > Some(0), "{score}");

    let args = ["--json", "checker", "assignments", "--container", container, "--evidence", file];
    let rows = by(services, "three", &args).expect(0).text();
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(
        Some(&row["checker"]),
        score["observations"]
            .as_array()
            .unwrap()
            .iter()
            .find(|seen| seen["dimension"] == "availability")
            .map(|seen| &seen["by"])
    );

    // A member signs nothing whose root may change, and nothing by a heading of somebody's making.
    let output = services.run(&["-q", "epoch", "sign", "--evidence", file]).expect(64);
    assert!(output.stderr.contains("still open"), "{}", output.stderr);
    let mut lines: Vec<_> =
        std::fs::read_to_string(file).unwrap().lines().map(String::from).collect();
    let mut heading: Value = serde_json::from_str(&lines[0]).unwrap();
    heading["view"]["checkers"] = serde_json::json!([]);
    lines[0] = heading.to_string();
    let foreign = services.place.path().join("foreign.json");
    std::fs::write(&foreign, lines.join("\n") + "\n").unwrap();
    let foreign = foreign.to_str().unwrap();
    let output = services.run(&["-q", "epoch", "sign", "--evidence", foreign]).expect(64);
    assert!(output.stderr.contains("another list of checkers"), "{}", output.stderr);

    // A book is for what comes after.
    let args = ["epoch", "--evidence", file, "--book", next];
    let output = by(services, "one", &args).expect(1);
    assert!(output.stderr.contains("is not later"), "{}", output.stderr);
}

/// A digit of a signature, and a broken line.
fn bent(services: &Services, path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let other = path.with_extension("bent");
    let place = text.find(r#"{"sheet""#).unwrap();
    let digit = place + text[place..].find(r#""s":""#).unwrap() + 5;
    let mut bytes = text.into_bytes();
    bytes[digit] = if bytes[digit] == b'0' { b'1' } else { b'0' };
    std::fs::write(&other, &bytes).unwrap();
    let args = ["epoch", "--evidence", other.to_str().unwrap()];
    let output = by(services, "one", &args).expect(64);
    assert!(output.stderr.contains("is forged: it is refused"), "{}", output.stderr);
    bytes[digit] = b'x';
    std::fs::write(&other, &bytes).unwrap();
    let output = by(services, "one", &args).expect(1);
    assert!(output.stderr.contains("is damaged"), "{}", output.stderr);
}
