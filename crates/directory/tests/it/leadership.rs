//! Who leads: never two, by whatever order of claims, renewals and silences.

use std::time::{Duration, Instant};

use welkin_directory::{Claim, Term};

use super::server::Server;
use super::{holder, open};

const LONG: Duration = Duration::from_secs(60);

fn term(claim: Claim) -> Term {
    match claim {
        Claim::Leads(term) => term,
        Claim::Waits(left) => panic!("another leads for {left:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn one_leads_until_it_lets_go_or_its_time_is_over() {
    let server = Server::start();
    let (one, two) = (open(&server).await, open(&server).await);
    let first = term(one.claim(holder(1), LONG).await.unwrap());
    let Claim::Waits(left) = two.claim(holder(2), LONG).await.unwrap() else { panic!("two lead") };
    assert!(left > LONG / 2 && left <= LONG, "{left:?}");
    // Not even the holder itself claims anew: it renews.
    assert!(matches!(one.claim(holder(1), LONG).await.unwrap(), Claim::Waits(_)));
    assert!(one.renew(first, holder(1), LONG).await.unwrap());
    assert!(!two.renew(first, holder(2), LONG).await.unwrap(), "of another holder");
    one.release(first, holder(1)).await.unwrap();
    let second = term(two.claim(holder(2), Duration::from_millis(300)).await.unwrap());
    assert!(second > first);
    // Nobody renews; the third has to wait for the end of the time and no longer.
    let began = Instant::now();
    let third = loop {
        match one.claim(holder(3), LONG).await.unwrap() {
            Claim::Leads(term) => break term,
            Claim::Waits(left) => tokio::time::sleep(left.min(Duration::from_millis(50))).await,
        }
    };
    assert!(third > second && began.elapsed() < Duration::from_secs(5));
    assert!(!two.renew(second, holder(2), LONG).await.unwrap(), "its time is over");
}

/// Each believes that it leads from the answer to its claim until so long after it asked. Of all
/// these times no two overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn of_many_that_claim_at_once_never_two_lead() {
    const LASTING: Duration = Duration::from_millis(80);
    // A slow disk would leave nobody any time to lead in.
    let server = Server::start_with(|_| vec!["fsync=off".to_owned()]);
    let mut tasks = tokio::task::JoinSet::new();
    let end = Instant::now() + Duration::from_secs(3);
    for number in 1..=6 {
        let directory = open(&server).await;
        tasks.spawn(async move {
            let mut led = Vec::new();
            while Instant::now() < end {
                let asked = Instant::now();
                let Claim::Leads(term) = directory.claim(holder(number), LASTING).await.unwrap()
                else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                led.push((term, Instant::now(), asked + LASTING));
                let asked = Instant::now();
                if number % 2 == 0 && directory.renew(term, holder(number), LASTING).await.unwrap()
                {
                    led.push((term, Instant::now(), asked + LASTING));
                }
            }
            led
        });
    }
    let mut led: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    led.retain(|(_, from, until)| from < until);
    led.sort_by_key(|(_, from, _)| *from);
    assert!(led.len() > 10, "{} times of leading", led.len());
    for pair in led.windows(2) {
        let [(before, _, until), (after, from, _)] = pair else { continue };
        assert!(before <= after, "terms only rise");
        assert!(before == after || until <= from, "{before:?} and {after:?} overlap");
    }
}
