//! A checker that is an ordinary buyer: what it found is among the evidence of the epoch.

use std::time::Duration;

use serde_json::Value;

use crate::services::{HERE, Services};
use crate::support::until;

/// Sessions come at any moment of an epoch, and what they were is known when they are over.
const THREE_EPOCHS: Duration = Duration::from_secs(400);

const CONFIG: &str = "[checker]\nexam_percent = 0\n\
    [checker.mystery]\nenabled = true\nsessions_per_epoch = 3\nseconds_max = 2\n\
    [settlement]\nepoch_seconds = 120\n";

/// What an epoch's evidence shows of mystery sessions.
struct Seen {
    summary: Value,
    statements: Vec<Value>,
    /// Who was the buyer.
    checker: String,
    /// The finished lease.
    lease: Value,
    /// What it counts for the container.
    observation: Value,
}

impl Seen {
    /// From what lies in a file; `None` where a session is not there whole: one that began before the
    /// epoch did has its digests in the other one.
    fn read(services: &Services, file: &str, summary: &Value) -> Option<Self> {
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap());
        let statements: Vec<Value> = lines.collect();
        let of = |kind: &'static str| statements.iter().filter_map(move |said| said.get(kind));
        let by_checker = of("digests").find(|said| said["series"]["side"] == "checker")?;
        let checker = by_checker["seal"]["checker"][0]["signer"].as_str()?.to_owned();
        let lease = of("lease").next()?.clone();
        let container = lease["order"]["message"]["container"].as_str()?;
        let args = ["--json", "score", "explain", container, "--evidence", file];
        let score: Value =
            serde_json::from_str(services.run(&args).expect(0).text().trim()).unwrap();
        let mut seen = score["observations"].as_array()?.iter();
        let is_its = |seen: &&Value| seen["dimension"] == "quality" && seen["by"] == *checker;
        let observation = seen.find(is_its)?.clone();
        Some(Self { summary: summary.clone(), statements, checker, lease, observation })
    }
}

/// The first epoch with digests of three sides and what follows from them.
fn until_found(services: &Services, file: &str) -> Seen {
    let mut found = None;
    until(THREE_EPOCHS, "a mystery session is among the evidence", || {
        let now = welkin_node::outside::now().0 / 1_000 / 120;
        [now, now.saturating_sub(1)].into_iter().any(|epoch| {
            let epoch = epoch.to_string();
            let output = services.run(&["--json", "epoch", "--epoch", &epoch, "--save", file]);
            if output.code == 0 {
                let summary: Value = serde_json::from_str(output.text().trim()).unwrap();
                if summary["digests"].as_u64() >= Some(3) {
                    found = Seen::read(services, file, &summary);
                }
            }
            found.is_some()
        })
    });
    found.unwrap()
}

#[test]
fn a_checker_that_was_the_buyer_says_what_it_found() {
    let Some(mut services) = Services::start(CONFIG, HERE) else { return };
    let _host = services.host("host", HERE);
    services.checker(HERE);
    let file = services.place.path().join("evidence");
    let Seen { summary, statements, checker, lease, observation } =
        until_found(&services, file.to_str().unwrap());
    // A session that began before the epoch did may be of the other one.
    for why in ["forged", "malformed", "contradicting", "unsound"] {
        assert_eq!(summary["refused"][why], Value::Null, "{summary}");
    }
    assert!(summary["leases"].as_u64() <= Some(3), "more sessions than an epoch may have");

    let digests = statements.iter().filter_map(|said| said.get("digests"));
    let sides: Vec<_> = digests.map(|said| said["series"]["side"].clone()).collect();
    for side in ["host", "buyer", "checker"] {
        assert!(sides.contains(&side.into()), "{sides:?}");
    }
    // The order is one of an account that nobody has seen before, and names no checker.
    assert!(!lease.to_string().contains(&checker), "{lease}");
    // It started, answered, and printed what it should.
    assert!(observation["value_ppm"].as_u64() > Some(900_000), "{observation}");
    assert_eq!(observation["weight_ppm"], 1_000_000, "{observation}");
    services.are_well();
}
