//! Reservations: kept for their buyer with nothing running, paid by the agent, settled at their end.

use rustix::process::{Pid, Signal, kill_process};
use welkin_node::buyer::{Home, KeptReservation};
use welkin_node::outside;
use welkin_proto::ReservationReceipt;
use welkin_store::{Batch, Db};
use welkin_types::{LeaseState, Reason, ReservationEnd, ReservationId, Usd};

use crate::services::{HERE, Services};
use crate::support::{DEADLINE, Leases, Observer, Proc, eventually, processes_with, until};

const CONFIG: &str = r#"
[host.reserved]
price = "50%"
term_min = "5s"
term_max = "3h"
grace = "3s"

[[host.containers]]
cpu_milli = 1000
memory_mib = 512
disk_mib = 256
slots = 1
usd_per_hour = "0.36"
"#;

/// A network with one host that has one slot, and two buyers with money.
struct Market {
    /// Dropped first: it would start its sandbox helper again and again.
    host: Option<Proc>,
    services: Services,
    observer: Observer,
}

impl Market {
    fn start() -> Option<Self> {
        let services = Services::start(CONFIG, HERE)?;
        let host = Some(services.host("host", HERE));
        services.fund("5");
        services.client("other", HERE, &["fund", "5"]).finish().expect(0);
        let observer = services.observer();
        services.wait_free(&observer, 1);
        Some(Self { services, host, observer })
    }

    fn home(&self) -> Home {
        Home::new(self.services.dir("buyer").join("buyer"))
    }

    /// Reserves the slot, and waits until the network knows.
    #[track_caller]
    fn reserve(&self, term: &str) -> ReservationId {
        let made =
            self.services.run(&["reserve", "--term", term, "--name", "mine", "-y"]).expect(0);
        let id = made.text().trim().parse().unwrap();
        self.services.wait_free(&self.observer, 0);
        id
    }

    fn kept(&self, id: ReservationId) -> KeptReservation {
        self.home().reservation(id).unwrap().unwrap()
    }

    /// The other buyer finds nothing.
    #[track_caller]
    fn others_find_nothing(&self) {
        let args = ["run", "--queue", "1s", "-n", "--", "true"];
        self.services.client("other", HERE, &args).finish().expect(2);
    }

    #[track_caller]
    fn others_find_something(&self) {
        self.services.wait_free(&self.observer, 1);
        let args = ["run", "-n", "--", "echo", "here"];
        let output = self.services.client("other", HERE, &args).finish().expect(0);
        assert_eq!(output.text(), "here\n");
    }

    /// The receipt, verified and signed by both sides.
    #[track_caller]
    fn receipt(&self, id: ReservationId) -> ReservationReceipt {
        let file = eventually(DEADLINE, "the receipt is there", || {
            self.home().reservation_receipt(id).unwrap()
        });
        assert!(file.ack.is_some(), "the buyer did not sign: {:?}", self.kept(id).detail);
        file.verify().unwrap()
    }

    #[track_caller]
    fn ended_as(&self, id: ReservationId, end: ReservationEnd) -> ReservationReceipt {
        let receipt = self.receipt(id);
        assert_eq!(receipt.end, end, "{receipt:?}");
        let paid = receipt.kept.checked_add(receipt.refund);
        assert_eq!(paid, Some(receipt.price.cost(receipt.promised_seconds)));
        self.observer.books_close();
        let account = self.observer.balance(Leases::in_dir(&self.services.dir("buyer")).account());
        assert_eq!(account.spent, receipt.kept, "what ran on it cost nothing");
        receipt
    }

    /// Kills what pays for the buyer.
    fn kill_agents(&self) {
        let dir = self.services.dir("buyer");
        let marker = format!("{}\0agent", dir.display());
        // The one that watches first: it would start another.
        for part in [format!("{marker}\0--watch"), marker] {
            for pid in processes_with(&part).into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    #[track_caller]
    fn is_well(&mut self) {
        let host = self.host.as_mut().unwrap();
        assert!(host.is_running() && !host.stderr().contains("panicked"));
        self.services.are_well();
    }
}

#[test]
fn a_reserved_container_is_kept_used_and_given_back() {
    let Some(mut market) = Market::start() else { return };
    let id = market.reserve("2h");
    market.others_find_nothing();
    // By name, by the beginning of the id; with all that the container has.
    let script = "echo on; nproc >/dev/null";
    let ran = market.services.run(&["run", "--reserve", "mine", "-n", "--", "sh", "-c", script]);
    assert_eq!(ran.expect(0).says("pays for it until").text(), "on\n");
    let leases = market.services.leases();
    let receipt = leases.ended_as(LeaseState::Succeeded, Reason::ExitedZero);
    assert_eq!((receipt.cost, receipt.usage.seconds > 0), (Usd::ZERO, true));
    let lease = leases.last();
    assert_eq!(lease.terms.reservation, Some(id));
    let shown = market.services.run(&["show", &lease.lease.to_string()]).expect(0).text();
    assert!(shown.contains(&format!("reserved: {id} pays for it")), "{shown}");

    // One at a time; the next waits for it.
    let short = &id.to_string()[..12];
    let mut job = market.services.client(
        "buyer",
        HERE,
        &["run", "--reserve", short, "-n", "--", "sh", "-c", "echo begun; sleep 1000"],
    );
    job.wait_stdout("begun");
    let second = ["run", "--reserve", short, "--queue", "1s", "-n", "--", "true"];
    drop(market.services.run(&second).expect(2).says("the reservation is in use by lse_"));
    market.others_find_nothing();
    // A file that names it is enough for nobody else.
    let folder = market.services.dir("other").join("buyer/reservations");
    std::fs::create_dir_all(&folder).unwrap();
    let name = format!("{id}.json");
    let own = market.services.dir("buyer").join("buyer/reservations").join(&name);
    std::fs::copy(own, folder.join(&name)).unwrap();
    let theirs = ["run", "--reserve", short, "-n", "--", "true"];
    let refused = market.services.client("other", HERE, &theirs).finish();
    drop(refused.expect(2).says("there is no such reservation here"));

    let rows = market.services.run(&["--json", "reservations"]).expect(0).text();
    let row: serde_json::Value = serde_json::from_str(rows.trim()).unwrap();
    assert_eq!((&row["state"], &row["billing"]), (&"active".into(), &"on".into()), "{row}");
    let shown = market.services.run(&["reservations", "show", "mine"]).expect(0).text();
    for part in
        ["state       active, billing on", "0.18/h", "failed      days none", "runs        lse_"]
    {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }

    // Ended early: what runs on it is stopped, an hour stays paid.
    let ended = market.services.run(&["reservations", "cancel", "mine", "-y"]).expect(0).text();
    assert!(ended.contains("ended (cancelled): 36"), "{ended}");
    assert_eq!(job.finish().code, 78);
    let last = leases.ended_as(LeaseState::Expired, Reason::ReservationEnded);
    assert_eq!(last.cost, Usd::ZERO);
    let receipt = market.ended_as(id, ReservationEnd::Cancelled);
    let ahead = receipt.seconds - receipt.elapsed_seconds;
    assert!((3_598..=3_600).contains(&ahead), "{receipt:?}");
    assert_eq!(receipt.refund, Usd::ZERO);
    let path = market.home().reservation_receipt_path(id);
    let path = path.to_str().unwrap();
    let checked = market.services.run(&["receipts", "verify", path]).expect(0).text();
    assert!(checked.contains(&format!("{id} is right:")), "{checked}");
    let forged =
        std::fs::read_to_string(path).unwrap().replacen("\"seconds\": 3", "\"seconds\": 4", 1);
    std::fs::write(market.services.place.path().join("forged.json"), forged).unwrap();
    let forged = market.services.place.path().join("forged.json");
    drop(market.services.run(&["receipts", "verify", forged.to_str().unwrap()]).expect(1));
    let listed = market.services.run(&["receipts"]).expect(0).text();
    assert!(listed.contains(&format!("{}  cancelled", &id.to_string()[..12])), "{listed}");
    market.others_find_something();
    let again = ["run", "--reserve", "mine", "-n", "--", "true"];
    drop(market.services.run(&again).expect(1).says("is over: its buyer ended it"));
    market.is_well();
}

#[test]
fn who_pays_no_more_loses_it() {
    let Some(mut market) = Market::start() else { return };
    let id = market.reserve("2h");
    let heard = || market.kept(id).view.is_some_and(|view| view.promised > 3_600);
    until(DEADLINE, "the agent pays", heard);
    market.kill_agents();
    market.services.wait_free(&market.observer, 1);
    market.others_find_something();
    // Somebody looks, and an agent hears of the end.
    drop(market.services.run(&["reservations"]).expect(0));
    let receipt = market.ended_as(id, ReservationEnd::Unpaid);
    assert!(receipt.seconds > 3_600 && receipt.elapsed_seconds < 60, "{receipt:?}");
    let shown = market.services.run(&["reservations", "show", "mine"]).expect(0).text();
    assert!(shown.contains("ended (unpaid), billing off"), "{shown}");
    market.is_well();
}

#[test]
fn a_host_that_is_killed_still_keeps_it() {
    let Some(mut market) = Market::start() else { return };
    let id = market.reserve("2h");
    let mut job = market.services.client(
        "buyer",
        HERE,
        &["run", "--reserve", "mine", "-n", "--", "sh", "-c", "echo begun; sleep 4; echo done"],
    );
    job.wait_stdout("begun");
    market.host.take().unwrap().kill_9();
    market.host = Some(market.services.host("host", HERE));
    market.others_find_nothing();
    assert_eq!(job.finish().expect(0).text(), "begun\ndone\n");
    let promised = market.kept(id).machine.promised();
    until(DEADLINE, "it is paid on", || market.kept(id).machine.promised() > promised);
    let ran = market.services.run(&["run", "--reserve", "mine", "-n", "--", "echo", "again"]);
    assert_eq!(ran.expect(0).text(), "again\n");
    // Twice more, at the worst moments: with nothing running, and when it has just ended.
    market.host.take().unwrap().kill_9();
    market.host = Some(market.services.host("host", HERE));
    drop(market.services.run(&["reservations", "cancel", "mine", "-y"]).expect(0));
    market.host.take().unwrap().kill_9();
    market.host = Some(market.services.host("host", HERE));
    let receipt = market.ended_as(id, ReservationEnd::Cancelled);
    assert!(receipt.failed_days.is_empty(), "it was down for moments: {receipt:?}");
    market.others_find_something();
    market.is_well();
}

#[test]
fn a_day_in_which_the_host_was_away_costs_nothing() {
    let Some(mut market) = Market::start() else { return };
    let id = market.reserve("2h");
    market.host.take().unwrap().kill_9();
    // As if it had been down for ten minutes: it says itself when it last lived.
    let file = market.services.dir("host").join("host/host.redb");
    let db = eventually(DEADLINE, "the database is free", || Db::open(&file).ok());
    let mut batch = Batch::default();
    let alive = outside::now().0 - 600_000;
    batch.put("meta", b"alive", alive.to_le_bytes().to_vec());
    market.observer.runtime.block_on(db.commit(batch)).unwrap();
    drop(db);
    market.host = Some(market.services.host("host", HERE));
    until(DEADLINE, "the buyer hears of it", || market.kept(id).failed_days() == [0]);
    market.others_find_nothing();
    let shown = market.services.run(&["reservations", "show", "mine"]).expect(0).text();
    assert!(shown.contains("failed      days 0: not paid for"), "{shown}");
    let ended = market.services.run(&["reservations", "cancel", "mine", "-y"]).expect(0).text();
    assert!(ended.contains("0 s paid for: $0.00"), "{ended}");
    let receipt = market.ended_as(id, ReservationEnd::Cancelled);
    assert_eq!((receipt.failed_days.as_slice(), receipt.kept), ([0].as_slice(), Usd::ZERO));
    market.others_find_something();
    market.is_well();
}

#[test]
fn with_the_term_ends_what_runs_on_it() {
    let Some(mut market) = Market::start() else { return };
    let id = market.reserve("8s");
    let args = ["run", "--reserve", "mine", "-n", "--", "sh", "-c", "echo begun; sleep 1000"];
    let output = market.services.run(&args);
    assert_eq!((output.code, output.text().as_str()), (78, "begun\n"));
    drop(output.says("reservation_ended"));
    let receipt = market.ended_as(id, ReservationEnd::Term);
    assert_eq!((receipt.seconds, receipt.elapsed_seconds), (8, 8));
    assert_eq!(receipt.kept, receipt.price.cost(8));
    market.others_find_something();
    market.is_well();
}

#[test]
fn what_can_not_be_reserved_is_refused_with_a_reason() {
    let Some(market) = Market::start() else { return };
    let refused = |args: &[&str], code: i32, part: &str| {
        drop(market.services.run(args).expect(code).says(part));
    };
    refused(&["reserve", "--term", "2h"], 64, "add -y");
    refused(&["reserve", "--term", "1s", "-y"], 64, "is not between 5s and 30d");
    refused(&["reserve", "--term", "soon", "-y"], 64, "write it like");
    refused(&["reserve", "--term", "1d", "-y"], 64, "can be had for 1d");
    refused(&["reserve", "--term", "1h", "--cpu", "64", "-y"], 2, "cpu");
    refused(&["reserve", "--term", "1h", "--max-price", "0.1", "-y"], 2, "price");
    refused(&["run", "--reserve", "rsv_00", "--", "true"], 64, "no reservation `rsv_00`");
    refused(&["reservations", "cancel", "nothing", "-y"], 64, "no reservation `nothing`");
    let poor = ["reserve", "--term", "3h", "-y"];
    // What was asked for above is held for a moment.
    let output = eventually(DEADLINE, "the host is asked", || {
        let output = market.services.client("poor", HERE, &poor).finish();
        (output.code != 2).then_some(output)
    });
    drop(output.expect(78).says("fund"));
    market.services.wait_free(&market.observer, 1);
    market.observer.books_close();
}

#[test]
fn a_host_that_offers_none_keeps_none_and_a_wrong_price_is_named() {
    let plain = CONFIG.split("[[").nth(1).map(|rest| format!("[[{rest}")).unwrap();
    let Some(services) = Services::start(&plain, HERE) else { return };
    let host = services.host("host", HERE);
    services.fund("5");
    let observer = services.observer();
    services.wait_free(&observer, 1);
    let refused = services.run(&["reserve", "--term", "1h", "-y"]).expect(2);
    drop(refused.says("1 fail on capacity type"));
    drop(host);
    std::fs::write(services.place.config(), CONFIG.replace("50%", "0.37")).unwrap();
    let output = Proc::spawn(services.command("host", HERE, &["host"])).ended();
    assert_ne!(output.code, 0);
    let output = output.says("welkin.toml");
    drop(output.says("`host.reserved.price` makes it $0.37/h, which is above $0.36/h"));
    std::fs::write(services.place.config(), CONFIG.replace("3h", "1s")).unwrap();
    let output = Proc::spawn(services.command("host", HERE, &["host"])).ended();
    drop(output.says("`host.reserved.term_max` is 1s: set it to 5s to 30d"));
}
