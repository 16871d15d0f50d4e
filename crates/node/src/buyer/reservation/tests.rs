//! What the buyer's side counts by itself.

use welkin_proto::{AccountKey, Domain};
use welkin_types::{AccountId, ContainerId, NodeId, OfferId, Price, Usd};

use super::*;

fn at(seconds: u64) -> UnixMillis {
    UnixMillis(1_000_000 + seconds * 1_000)
}

fn kept(term_seconds: u64) -> KeptReservation {
    let key = AccountKey::from_secret(&[3; 32]).unwrap();
    let node = NodeId::from_bytes([7; 32]);
    let price = Price::per_hour(Usd::from_micros(36_000));
    let offer = Offer {
        id: OfferId::from_bytes([1; 16]),
        buyer: key.id(),
        addr: NodeAddr { node, relay: None, direct: Vec::new() },
        operator: AccountId::from_bytes([2; 20]),
        container: ContainerId::from_bytes([5; 16]),
        class: "cpu-1".parse().unwrap(),
        resources: Resources { cpu_milli: 1, memory_bytes: 1, disk_bytes: 1, gpus: Vec::new() },
        capacity: welkin_types::CapacityType::Reserved,
        notice_seconds: 0,
        reserved: Some(welkin_proto::ReservedTerms {
            price,
            term_seconds_min: 60,
            term_seconds_max: 2_592_000,
            grace_seconds: 1_800,
        }),
        price,
        tier: Tier::Container,
        region: Region::local(),
        online_bp: None,
        expires: at(0),
        matched: None,
    };
    let reservation = ReservationId::from_bytes([9; 16]);
    let order = Order {
        lease: reservation.lane(),
        buyer: key.id(),
        operator: offer.operator,
        host: node,
        container: offer.container,
        price,
        budget: price.cost(term_seconds),
        task_sha256: [0; 32],
        issued: at(0),
        expires: at(term_seconds),
    };
    let order = SignedByAccount::sign(&Domain::LOCAL, &key, order).unwrap();
    let terms = ReservationTerms { price, start: at(0), term_seconds };
    let machine = Reservation::begin(terms, terms.commitment_seconds()).unwrap();
    KeptReservation::new(reservation, "", &offer, order, machine)
}

fn view(of: &KeptReservation, failed_days: Vec<u32>) -> ReservationView {
    ReservationView {
        reservation: of.reservation,
        start: at(900),
        until: of.machine.until(),
        promised: of.machine.promised(),
        failed_days,
        lease: None,
        end: None,
        last_seconds: None,
        receipt: None,
    }
}

#[test]
fn this_side_counts_from_when_it_heard_yes() {
    let mut kept = kept(10 * DAY_SECONDS);
    assert_eq!(kept.machine.due(at(100)), 3_700);
    kept.heard(at(40), view(&kept, Vec::new()));
    assert_eq!(kept.machine.due(at(100)), 3_660, "never ahead of the host");
    assert_eq!(kept.pay_every(), Duration::from_secs(300));
    assert_eq!(kept.next_payment(), Some(at(340)));
    let text = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<KeptReservation>(&text).unwrap(), kept);
}

#[test]
fn days_away_must_be_in_the_receipt() {
    let mut kept = kept(10 * DAY_SECONDS);
    kept.heard(at(0), view(&kept, Vec::new()));
    kept.away(at(59), at(0));
    assert!(kept.away_days.is_empty(), "a short absence is none");
    // From the end of the first day into the third.
    kept.heard(at(DAY_SECONDS - 10), view(&kept, Vec::new()));
    kept.away(at(2 * DAY_SECONDS + 10), at(DAY_SECONDS - 10));
    assert_eq!(kept.away_days, BTreeSet::from([0, 1, 2]));
    kept.heard(at(2 * DAY_SECONDS + 20), view(&kept, vec![0, 1]));
    assert_eq!(kept.failed_days(), [0, 1]);
    let receipt = |failed_days: Vec<u32>, end| ReservationReceipt {
        reservation: kept.reservation,
        buyer: kept.order.message.buyer,
        operator: kept.order.message.operator,
        host: kept.order.message.host,
        container: kept.order.message.container,
        price: kept.order.message.price,
        start: at(0),
        term_seconds: 864_000,
        elapsed_seconds: 0,
        end,
        failed_days,
        promised_seconds: 3_600,
        seconds: 0,
        kept: Usd::ZERO,
        fee: Usd::ZERO,
        refund: Usd::ZERO,
    };
    let failed = ReservationEnd::HostFailed;
    assert_eq!(kept.objection(&receipt(vec![0, 1, 2], failed), false), None);
    let why = kept.objection(&receipt(vec![0, 1], failed), false).unwrap();
    assert_eq!(why, "it was away on the days [2] of the term and bills them");
    let cancelled = receipt(vec![0, 1, 2], ReservationEnd::Cancelled);
    assert_eq!(kept.objection(&cancelled, false).unwrap(), "nobody here ended it");
    assert_eq!(kept.objection(&cancelled, true), None);
    // A host that ends it has earned no commitment; the buyer's end leaves it there.
    let bills = |receipt, seconds| ReservationReceipt { seconds, ..receipt };
    let why = kept.objection(&bills(receipt(vec![0, 1, 2], failed), 1), false).unwrap();
    assert_eq!(why, "it bills 1 s, and 0 s are due");
    let cancelled = |seconds| bills(receipt(vec![0, 1, 2], ReservationEnd::Cancelled), seconds);
    assert_eq!(kept.objection(&cancelled(3_600), true), None);
    assert!(kept.objection(&cancelled(3_601), true).is_some());
}
