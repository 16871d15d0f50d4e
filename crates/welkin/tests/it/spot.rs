//! Spot leases end with notice for orders on demand, keep their progress, and are placed again.

use std::sync::Arc;
use std::time::Duration;

use welkin_node::buyer::{Ask, Buyer, Home, Keeper, LeaseEvent, PlaceProgress, place};
use welkin_node::{Shutdown, outside};
use welkin_proto::lease::Launch;
use welkin_proto::{Offer, ReceiptFile, Terms};
use welkin_types::task::TaskSpec;
use welkin_types::{CapacityType, LeaseState, Price, Reason, Usd};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Observer, Proc, until};

const CONFIG: &str = r#"
[host.spot]
price = "50%"
notice_seconds = 6

[[host.containers]]
cpu_milli = 1000
memory_mib = 512
disk_mib = 256
slots = 1
usd_per_hour = "0.36"
"#;

/// A network with one host that has one slot.
struct Market {
    services: Services,
    host: Option<Proc>,
    observer: Observer,
    buyer: Arc<Buyer>,
    /// What the host offers on demand, kept from before the slot was taken.
    offer: Offer,
}

fn until_running(keeper: &mut Keeper, market: &Market) {
    market.observer.runtime.block_on(async {
        while keeper.kept().state().0 != LeaseState::Running {
            let event = tokio::time::timeout(DEADLINE, keeper.next()).await.unwrap();
            assert!(event.is_some(), "it ended as {:?}", keeper.kept().stages);
        }
    });
}

impl Market {
    fn start() -> Option<Self> {
        let services = Services::start(CONFIG, HERE)?;
        let host = Some(services.host("host", HERE));
        services.fund("5");
        let observer = services.observer();
        services.wait_free(&observer, 1);
        let network = services.network();
        let open = Buyer::open(&network, Home::new(services.dir("rich")), Shutdown::default());
        let buyer = Arc::new(observer.runtime.block_on(open).unwrap());
        let fund = buyer.settle().fund(buyer.account(), Usd::from_micros(5_000_000));
        observer.runtime.block_on(fund).unwrap();
        let needs = TaskSpec::default().needs();
        let offers = buyer.candidates(&needs, 1, false, Vec::new());
        let mut offer = observer.runtime.block_on(offers).unwrap().remove(0);
        offer.expires = outside::now().after(Duration::from_secs(600));
        Some(Self { services, host, observer, buyer, offer })
    }

    /// `welkin run --spot only` of a script that has begun.
    fn spot(&self, script: &str) -> Proc {
        let args = ["run", "--spot", "only", "--no-stdin", "--", "sh", "-c", script];
        let mut job = self.services.client("buyer", HERE, &args);
        job.wait_stdout("begun");
        job
    }

    fn ask(script: &str) -> Ask {
        let needs = TaskSpec::default().needs();
        let launch = Launch {
            image: "host".to_owned(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: String::new(),
            cpu_milli: needs.cpu_milli_min,
            memory_bytes: 64 << 20,
            disk_bytes: 16 << 20,
            shm_bytes: 0,
            run_seconds_max: 0,
            start_seconds_max: 60,
            name: String::new(),
            terms: Terms::ON_DEMAND,
            checkpoint: None,
        };
        Ask {
            needs,
            launch,
            secrets: Vec::new(),
            tty: None,
            stdin: false,
            files: false,
            budget: None,
            queue: Duration::ZERO,
        }
    }

    /// An order for this offer; the lease, or what the host says.
    async fn order(&self, offer: Offer, script: &str) -> Result<Keeper, String> {
        let mut said = String::new();
        let mut progress = |event: PlaceProgress| {
            if let PlaceProgress::Refused(why) = event {
                said = why;
            }
        };
        let ask = Self::ask(script);
        match place(&self.buyer, &ask, vec![offer], &mut progress).await {
            Ok(placed) => {
                let name = String::new();
                Ok(Keeper::new(Arc::clone(&self.buyer), placed, name.clone(), name))
            }
            Err(_) => Err(said),
        }
    }

    fn order_now(&self, offer: Offer, script: &str) -> Result<Keeper, String> {
        self.observer.runtime.block_on(self.order(offer, script))
    }

    fn receipt(&self, keeper: Keeper) -> ReceiptFile {
        self.followed(keeper).0
    }

    /// The receipt, and what else was said of its states.
    fn followed(&self, mut keeper: Keeper) -> (ReceiptFile, Vec<String>) {
        self.observer.runtime.block_on(async {
            let mut details = Vec::new();
            loop {
                let event = tokio::time::timeout(DEADLINE, keeper.next()).await.unwrap();
                match event {
                    Some(LeaseEvent::Receipt(file)) => return (*file, details),
                    Some(LeaseEvent::Stage(_, detail)) => details.extend(detail),
                    Some(LeaseEvent::Lost(why)) => panic!("lost: {why}"),
                    Some(_) => (),
                    None => panic!("it ended as {:?}", keeper.kept().stages),
                }
            }
        })
    }

    #[track_caller]
    fn is_well(&mut self) {
        self.observer.books_close();
        self.services.wait_free(&self.observer, 1);
        let host = self.host.as_mut().unwrap();
        assert!(host.is_running() && !host.stderr().contains("panicked"));
        self.services.are_well();
    }
}

/// Ends at SIGTERM, after a look for the file that gives notice.
const POLITE: &str = r#"
trap 'echo term; [ -s "$WELKIN_PREEMPT_FILE" ] && echo noticed; exit 0' TERM
echo begun
while :; do sleep 0.05; done
"#;

#[test]
fn an_order_on_demand_ends_a_spot_lease_which_is_told_in_time() {
    let Some(mut market) = Market::start() else { return };
    let job = market.spot(POLITE);
    let ordered = outside::now();
    let keeper = market.order_now(market.offer.clone(), "echo done").unwrap();
    let (file, details) = market.followed(keeper);
    let receipt = file.verify().unwrap();
    let states: Vec<_> = receipt.stages.iter().map(|stage| (stage.state, stage.reason)).collect();
    assert_eq!(states[0], (LeaseState::Placing, Reason::AwaitsSpot), "{states:?}");
    assert_eq!(details, ["waits for a spot lease to end, at most 6 s"]);
    assert_eq!(receipt.stages.last().unwrap().state, LeaseState::Succeeded);
    let placed = receipt.stages[1].at.since(ordered);
    assert!(placed < Duration::from_secs(6), "the slot was given after {placed:?}");
    assert_eq!(receipt.usage.seconds, 1, "waiting is not billed");

    // Taken back, so not started again: nothing was said of that.
    let output = job.finish();
    assert_eq!((output.code, output.text().as_str()), (69, "begun\nterm\nnoticed\n"));
    let output = output.says("spot: taken back with 6 s notice");
    drop(output.says("stopping (preempted)"));
    let receipt = market.services.leases().ended_as(LeaseState::Preempted, Reason::Preempted);
    assert_eq!(receipt.price, Price::per_hour("0.18".parse().unwrap()));
    let ran = receipt.stages.iter().find(|stage| stage.state == LeaseState::Running).unwrap();
    let stop = receipt.stages.iter().find(|stage| stage.state == LeaseState::Stopping).unwrap();
    assert_eq!(receipt.usage.seconds, stop.at.since(ran.at).as_secs(), "a begun second is free");
    market.is_well();
}

const TASK: &str = r#"
name: train
run: |
  if [ -f /work/ckpt/state ]; then echo "resumed with $(cat /work/ckpt/state)"; exit 0; fi
  trap 'echo term; exit 1' TERM
  echo 42 > /work/progress
  echo begun
  while :; do sleep 0.05; done
checkpoint:
  path: /work/ckpt
  run: |
    mkdir -p /work/ckpt && cat /work/progress > /work/ckpt/state
    left=$((WELKIN_PREEMPT_AT - $(date +%s)))
    [ $left -gt 0 ] && [ $left -le 6 ] && echo saved
retry: {max: 1, on: [preempted]}
timeouts: {queue: 60s}
"#;

#[test]
fn a_checkpoint_goes_with_the_task_to_where_it_is_placed_again() {
    let Some(mut market) = Market::start() else { return };
    let task = market.services.place.path().join("task.yaml");
    std::fs::write(&task, TASK).unwrap();
    let args = ["run", "--no-stdin", "-f", task.to_str().unwrap()];
    let mut job = market.services.client("buyer", HERE, &args);
    job.wait_stdout("begun");
    let keeper = market.order_now(market.offer.clone(), "sleep 1; echo done").unwrap();
    let receipt = market.receipt(keeper).verify().unwrap();
    assert_eq!(receipt.stages.last().unwrap().state, LeaseState::Succeeded);
    let output = job.finish().expect(0);
    assert_eq!(output.text(), "begun\nsaved\nterm\nresumed with 42\n");
    let leases = market.services.leases().all();
    let states: Vec<_> = leases.iter().map(|kept| (kept.state().0, kept.terms.capacity)).collect();
    let spot = CapacityType::Spot;
    assert_eq!(states, [(LeaseState::Succeeded, spot), (LeaseState::Preempted, spot)]);
    market.is_well();
}

/// The agent does the same for a lease that nobody watches.
#[test]
fn a_detached_spot_lease_is_placed_again_with_its_checkpoint() {
    let Some(mut market) = Market::start() else { return };
    let task = market.services.place.path().join("task.yaml");
    std::fs::write(&task, TASK).unwrap();
    let lease = market.services.run(&["run", "-d", "-f", task.to_str().unwrap()]).expect(0).text();
    let mut log = market.services.client("buyer", HERE, &["logs", "-f", lease.trim()]);
    log.wait_stdout("begun");
    let keeper = market.order_now(market.offer.clone(), "sleep 1; echo done").unwrap();
    market.receipt(keeper);
    assert_eq!(log.finish().text(), "begun\nsaved\nterm\n");
    until(DEADLINE, "it is placed again and ends", || {
        let leases = market.services.leases().all();
        leases.len() == 2 && leases[0].state().0 == LeaseState::Succeeded
    });
    let shown = market.services.run(&["show", lease.trim()]).expect(0).text();
    for line in ["terms       spot, 6 s notice", "again       placed again as", "checkpoint  /"] {
        assert!(shown.contains(line), "{shown}");
    }
    let log = market.services.run(&["logs", &market.services.leases().last().lease.to_string()]);
    assert_eq!(log.expect(0).text(), "resumed with 42\n");
    market.is_well();
}

#[test]
fn of_two_orders_for_one_slot_one_waits_and_wrong_terms_are_refused() {
    let Some(mut market) = Market::start() else { return };
    let spot = Offer {
        capacity: CapacityType::Spot,
        notice_seconds: 6,
        price: Price::per_hour("0.18".parse().unwrap()),
        ..market.offer.clone()
    };
    let cheap = Price::per_hour("0.17".parse().unwrap());
    let wrong = [
        ("the price is $0.18/h now", Offer { price: cheap, ..spot.clone() }),
        ("the price is $0.36/h now", Offer { price: spot.price, ..market.offer.clone() }),
        ("the notice is 6 s now", Offer { notice_seconds: 7, ..spot.clone() }),
        ("names the notice", Offer { notice_seconds: 0, ..spot.clone() }),
        ("its price is zero", Offer { capacity: CapacityType::Reserved, ..spot.clone() }),
    ];
    for (expected, offer) in wrong {
        let said = market.order_now(offer, "true").unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    // It does not care for SIGTERM, so that it is there until the notice is over.
    let job = market.spot("trap '' TERM; echo begun; while :; do sleep 0.05; done");
    let said = market.order_now(spot, "true").unwrap_err();
    assert!(said.contains("all 1 slots of the container are taken"), "{said}");
    let (one, other) = market.observer.runtime.block_on(async {
        tokio::join!(
            market.order(market.offer.clone(), "echo one"),
            market.order(market.offer.clone(), "echo two"),
        )
    });
    let (waits, refused) = match (one, other) {
        (Ok(keeper), Err(said)) | (Err(said), Ok(keeper)) => (keeper, said),
        both => panic!("{both:?}"),
    };
    assert!(refused.contains("all 1 slots of the container are taken"), "{refused}");
    let receipt = market.receipt(waits).verify().unwrap();
    assert_eq!(receipt.stages.last().unwrap().state, LeaseState::Succeeded);
    assert_eq!(job.finish().code, 69);
    let ended = market.services.leases().ended_as(LeaseState::Preempted, Reason::Preempted);
    let at = |state| ended.stages.iter().find(|stage| stage.state == state).unwrap().at;
    let notice = at(LeaseState::Preempted).since(at(LeaseState::Stopping));
    assert!((5_900..8_000).contains(&notice.as_millis()), "{notice:?}");
    // The slot is handed on when that one has ended, and not before.
    assert!(receipt.stages[1].at >= at(LeaseState::Preempted), "{receipt:?}");
    let waited = receipt.stages[1].at.since(receipt.stages[0].at);
    assert!((5_900..8_000).contains(&waited.as_millis()), "{waited:?}");
    market.is_well();
}

#[test]
fn a_host_that_is_killed_during_a_notice_leaves_nothing_behind() {
    let Some(mut market) = Market::start() else { return };
    let mut job = market.spot("trap '' TERM; echo begun; while :; do sleep 0.05; done");
    let waits = market.order_now(market.offer.clone(), "echo done").unwrap();
    assert_eq!(waits.kept().state().0, LeaseState::Placing);
    job.wait_stderr("stopping (preempted)");
    market.host.take().unwrap().kill_9();
    market.host = Some(market.services.host("host", HERE));
    // What waited was in the memory of the process that is gone; nothing was billed.
    let receipt = market.receipt(waits).verify().unwrap();
    let last = receipt.stages.last().unwrap();
    assert_eq!((last.state, last.reason), (LeaseState::Lost, Reason::HostRestarted));
    assert_eq!(receipt.cost, Usd::ZERO);
    assert_eq!(job.finish().code, 69);
    let receipt = market.services.leases().ended_as(LeaseState::Preempted, Reason::Preempted);
    let stop = receipt.stages.iter().find(|stage| stage.state == LeaseState::Stopping).unwrap();
    let notice = receipt.stages.last().unwrap().at.since(stop.at);
    assert!(notice >= Duration::from_millis(5_900), "the notice was {notice:?}");
    market.is_well();
    let mut keeper = market.order_now(market.offer.clone(), "echo done; sleep 1").unwrap();
    until_running(&mut keeper, &market);
    market.receipt(keeper);
    market.is_well();
}

#[test]
fn a_spot_price_that_is_not_below_the_price_on_demand_is_refused() {
    let config = CONFIG.replace("50%", "0.36");
    let Some(services) = Services::start(&config, HERE) else { return };
    let host = Proc::spawn(services.command("host", HERE, &["host"]));
    let output = host.ended();
    assert_ne!(output.code, 0);
    let output = output.says("welkin.toml");
    drop(output.says("`host.spot.price` makes it $0.36/h, which is not below $0.36/h"));
}
