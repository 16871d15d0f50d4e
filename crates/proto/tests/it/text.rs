//! The text forms that people keep: receipts in JSON and addresses.

use proptest::prelude::*;
use welkin_proto::{
    AccountKey, Delegation, Domain, Exit, LogSummary, NodeAddr, NodeKey, Order, Receipt,
    ReceiptAck, ReceiptFile, RelayAddr, Signed, SignedByAccount, StageTime, Usage, Voucher, Wipe,
};
use welkin_types::{BasisPoints, ContainerId, LeaseId, LeaseState, Price, Reason, UnixMillis, Usd};

use crate::make::{Make, Source};

/// How a host alters its receipt before it signs.
type Bend = fn(&mut Receipt);

const BUYER: [u8; 32] = [1; 32];
const OPERATOR: [u8; 32] = [2; 32];
const HOST: [u8; 32] = [3; 32];
const DOMAIN: Domain = Domain::LOCAL;

#[test]
fn a_good_receipt_is_verified_and_survives_json() {
    let file = good_file(|_| ());
    assert_eq!(file.verify().unwrap().usage.seconds, 10);
    let json = serde_json::to_string_pretty(&file).unwrap();
    let read: ReceiptFile = serde_json::from_str(&json).unwrap();
    assert_eq!(read, file);
    assert!(read.verify().is_ok());
}

#[test]
fn a_host_that_bends_its_receipt_is_found_out() {
    let wrong: [(&str, Bend); 10] = [
        ("more seconds than it ran", |r| r.usage.seconds = 11),
        ("a higher cost", |r| r.cost = Usd::from_micros(10_001)),
        ("a cost that nobody promised", |r| {
            r.price = Price::per_hour("7.20".parse().unwrap());
            r.cost = Usd::from_micros(20_000);
        }),
        ("a larger fee", |r| r.fee = Usd::from_micros(2_001)),
        ("a smaller fee", |r| r.fee = Usd::ZERO),
        ("an end that is none", |r| r.stages.truncate(2)),
        ("stages that run backwards", |r| r.stages[1].at = UnixMillis(0)),
        ("another lease", |r| r.lease = LeaseId::from_bytes([9; 16])),
        ("another container", |r| r.container = ContainerId::from_bytes([9; 16])),
        ("no stages", |r| r.stages.clear()),
    ];
    for (what, bend) in wrong {
        assert!(good_file(bend).verify().is_err(), "{what}");
    }
}

#[test]
fn parts_of_another_lease_or_party_are_refused() {
    let good = good_file(|_| ());
    let buyer = AccountKey::from_secret(&BUYER).unwrap();
    let stranger = AccountKey::from_secret(&[9; 32]).unwrap();
    let voucher = good.voucher.clone().unwrap().message;
    let signed = |key, message| SignedByAccount::sign(&DOMAIN, key, message).unwrap();

    let mut file = good.clone();
    file.voucher = Some(signed(&stranger, voucher.clone()));
    assert!(file.verify().is_err(), "a stranger's voucher");
    let other = Voucher { lease: LeaseId::from_bytes([9; 16]), ..voucher };
    file.voucher = Some(signed(&buyer, other));
    assert!(file.verify().is_err(), "the voucher of another lease");
    file.voucher = None;
    assert!(file.verify().is_err(), "no voucher");

    let mut file = good.clone();
    file.ack.as_mut().unwrap().message.receipt_sha256 = [0; 32];
    assert!(file.verify().is_err(), "an acknowledgement of another receipt");

    let mut file = good.clone();
    let permission = file.operator.message.clone();
    file.operator = SignedByAccount::sign(&DOMAIN, &stranger, permission).unwrap();
    assert!(file.verify().is_err(), "an operator that is not the one paid");

    let mut file = good;
    file.domain.chain_id += 1;
    assert!(file.verify().is_err(), "another chain");
}

proptest! {
    #[test]
    fn receipt_files_survive_json(source in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        let file = ReceiptFile::make(&mut Source::new(&source));
        let json = serde_json::to_string(&file).unwrap();
        prop_assert_eq!(serde_json::from_str::<ReceiptFile>(&json).unwrap(), file);
    }

    #[test]
    fn no_damage_to_a_receipt_file_panics_or_passes(
        at: prop::sample::Index,
        len in 0..6_usize,
        with in "[0-9a-f\"{}\\[\\],:x é]{0,4}",
    ) {
        let good = good_file(|_| ());
        let mut json = serde_json::to_string(&good).unwrap();
        let from = at.index(json.len());
        let to = (from + len).min(json.len());
        json.replace_range(from..to, &with);
        if let Ok(file) = serde_json::from_str::<ReceiptFile>(&json)
            && file != good
        {
            // The buyer's last word may be missing; nothing else may differ.
            prop_assert!(file.verify().is_err() || file.ack.is_none(), "{json}");
        }
    }

    #[test]
    fn no_text_is_an_address_that_panics(text: String, near in "nod_[0-9a-f]{60,66}@[0-9.:,+#a-f\\[\\]]{0,40}") {
        for text in [text, near] {
            if let Ok(addr) = text.parse::<NodeAddr>() {
                prop_assert_eq!(addr.to_string().parse::<NodeAddr>().unwrap(), addr);
            }
            let _ = text.parse::<RelayAddr>();
        }
    }
}

/// A receipt of 10 s at $3.60 an hour, bent before its host signs it.
fn good_file(bend: impl Fn(&mut Receipt)) -> ReceiptFile {
    let buyer = AccountKey::from_secret(&BUYER).unwrap();
    let operator = AccountKey::from_secret(&OPERATOR).unwrap();
    let host = NodeKey::from_secret(&HOST);
    let lease = LeaseId::from_bytes([4; 16]);
    let order = Order {
        lease,
        buyer: buyer.id(),
        operator: operator.id(),
        host: host.id(),
        container: ContainerId::from_bytes([5; 16]),
        price: Price::per_hour("3.60".parse().unwrap()),
        budget: "1".parse().unwrap(),
        task_sha256: [6; 32],
        issued: UnixMillis(0),
        expires: UnixMillis(60_000),
    };
    let stage = |state, reason, at| StageTime { state, reason, at: UnixMillis(at) };
    let cost = Usd::from_micros(10_000);
    let mut receipt = Receipt {
        lease,
        buyer: order.buyer,
        operator: order.operator,
        host: order.host,
        container: order.container,
        price: order.price,
        stages: vec![
            stage(LeaseState::Pulling, Reason::Normal, 1_000),
            stage(LeaseState::Running, Reason::Normal, 2_000),
            stage(LeaseState::Succeeded, Reason::ExitedZero, 11_500),
        ],
        exit: Some(Exit { code: Some(0), ..Exit::default() }),
        usage: Usage { seconds: 10, ..Usage::default() },
        cost,
        fee: cost.split(BasisPoints::SERVICE_FEE).0,
        logs: LogSummary::default(),
        wipe: Wipe { complete: true, ..Wipe::default() },
        matched: None,
    };
    bend(&mut receipt);
    let receipt = Signed::sign(&DOMAIN, &host, &receipt).unwrap();
    let voucher = Voucher { lease, operator: operator.id(), amount: cost, seconds: 10 };
    let ack = ReceiptAck { lease, receipt_sha256: receipt.digest() };
    let delegation = Delegation { node: host.id(), expires: UnixMillis(u64::MAX) };
    ReceiptFile {
        domain: DOMAIN,
        operator: SignedByAccount::sign(&DOMAIN, &operator, delegation).unwrap(),
        order: SignedByAccount::sign(&DOMAIN, &buyer, order).unwrap(),
        receipt,
        voucher: Some(SignedByAccount::sign(&DOMAIN, &buyer, voucher).unwrap()),
        ack: Some(SignedByAccount::sign(&DOMAIN, &buyer, ack).unwrap()),
    }
}
