//! How money and receipts read.

use welkin_proto::{
    AccountKey, Delegation, Domain, Exit, LogSummary, Matched, NodeKey, Order, ReceiptAck, Signed,
    SignedByAccount, StageTime, Usage as Used, Voucher, Wipe,
};
use welkin_types::{AccountId, BasisPoints, ContainerId, NodeId, Price, Reason};

use super::*;

const DOMAIN: Domain = Domain::LOCAL;

/// A receipt of 10 s at $3.60 an hour.
fn good_file() -> ReceiptFile {
    let buyer = AccountKey::from_secret(&[1; 32]).unwrap();
    let operator = AccountKey::from_secret(&[2; 32]).unwrap();
    let host = NodeKey::from_secret(&[3; 32]);
    let order = Order {
        lease: LeaseId::from_bytes([4; 16]),
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
    let receipt = Signed::sign(&DOMAIN, &host, &statement(&order)).unwrap();
    let voucher = Voucher {
        lease: order.lease,
        operator: operator.id(),
        amount: Usd::from_micros(10_000),
        seconds: 10,
    };
    let ack = ReceiptAck { lease: order.lease, receipt_sha256: receipt.digest() };
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

fn statement(order: &Order) -> Receipt {
    let stage = |state, reason, at| StageTime { state, reason, at: UnixMillis(at) };
    let cost = Usd::from_micros(10_000);
    Receipt {
        lease: order.lease,
        buyer: order.buyer,
        operator: order.operator,
        host: order.host,
        container: order.container,
        price: order.price,
        stages: vec![
            stage(LeaseState::Pulling, Reason::Normal, 1_000),
            stage(LeaseState::Running, Reason::Normal, 1_028),
            stage(LeaseState::Succeeded, Reason::ExitedZero, 10_528),
        ],
        exit: Some(Exit { code: Some(0), ..Exit::default() }),
        usage: Used { seconds: 10, cpu_us: 9_000_000, memory_peak_bytes: 3 << 20 },
        cost,
        fee: cost.split(BasisPoints::SERVICE_FEE).0,
        logs: LogSummary { stdout_bytes: 2_048, stderr_bytes: 0 },
        wipe: Wipe { complete: true, processes_killed: 1, scratch_bytes: 4_096, elapsed_ms: 7 },
        matched: Some(Matched {
            indexer: NodeId::from_bytes([4; 32]),
            account: AccountId::from_bytes([5; 20]),
        }),
    }
}

/// Writes a receipt into a home as a keeper would.
fn home_with_receipt() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().to_owned());
    home.save_receipt(LeaseId::from_bytes([4; 16]), &good_file()).unwrap();
    (dir, home)
}

#[test]
fn a_waterfall_shows_every_millisecond_and_cent() {
    let file = good_file();
    let receipt = file.verify().unwrap();
    insta::assert_snapshot!(waterfall(&file, &receipt, None), @r"
    lease      lse_04040404040404040404040404040404
    host       nod_ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1

    STAGE      MS    BILLING  REASON       SINCE
    pulling    28    free     normal       1970-01-01T00:00:01.000Z
    running    9500  paid     normal       1970-01-01T00:00:01.028Z
    succeeded                 exited_zero  1970-01-01T00:00:10.528Z
    in all     9528

    billed     10 s of running
    price      $3.60/h
    cost       $0.01
      fee      $0.002 (20 %)
      operator $0.008
    voucher    $0.01 for 10 s promised
    exit       code 0
    memory     3 MiB at most
    processor  9000 ms
    logs       2 KiB stdout, 0 B stderr
    wipe       complete, 4 KiB in scratch, 1 processes killed, 7 ms
    checked    signed by host and buyer; order, voucher, times and arithmetic are right
    ");
}

#[test]
fn a_right_receipt_says_what_was_checked() {
    let file = good_file();
    insta::assert_snapshot!(verified(&file, &file.verify().unwrap()), @r"
    lse_04040404040404040404040404040404 is right:
      signed by the host nod_ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
      ordered by the buyer 0x1a642f0e3c3af545e7acbd38b07251b3990914f1 at $3.60/h
      the operator 0x5050a4f4b3f9338c3472dcc01a87c76a144b3c9c vouches for the host
      the indexer nod_0404040404040404040404040404040404040404040404040404040404040404 matched it, for 0x0505050505050505050505050505050505050505
      10 s billed of 10 s running by its stages
      $0.01 is within the budget of $1.00 and the voucher of $0.01 for 10 s
      the fee of $0.002 is 20 %
      the buyer signed under it
    ");
}

#[test]
fn a_receipt_is_found_by_the_beginning_of_its_id_without_its_lease() {
    let (_dir, home) = home_with_receipt();
    assert_eq!(find(&home, "lse_0404").unwrap(), good_file());
    assert_eq!(find(&home, "04").unwrap(), good_file());
    assert!(find(&home, "lse_05").unwrap_err().is::<Usage>());
    let rows: Vec<_> = receipt_ids(&home).unwrap();
    assert_eq!(rows, [LeaseId::from_bytes([4; 16])]);
}

#[test]
fn a_list_is_a_line_for_each() {
    let row = Row::of(&good_file().verify().unwrap());
    insta::assert_snapshot!(table(&[row]), @r"
    LEASE         STATE      SECONDS  COST   FEE     ENDED
    lse_04040404  succeeded  10       $0.01  $0.002  1970-01-01T00:00:10.528Z
    ");
}

#[test]
fn wrong_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    let mut bent = good_file();
    bent.voucher = None;
    std::fs::write(&path, serde_json::to_vec(&bent).unwrap()).unwrap();
    let error = format!("{:#}", verify(&path, false).unwrap_err());
    assert!(error.contains("is wrong") && error.contains("promised $0.00"), "{error}");
    std::fs::write(&path, vec![b' '; 1_100_000]).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("too large"));
    std::fs::write(&path, "{}").unwrap();
    let error = format!("{:#}", verify(&path, false).unwrap_err());
    assert!(error.contains("is no receipt"), "{error}");
}

#[test]
fn an_account_reads_well() {
    let view = AccountView {
        available: "9.50".parse().unwrap(),
        held: "0.40".parse().unwrap(),
        deposited: "10".parse().unwrap(),
        spent: "0.10".parse().unwrap(),
        earned: Usd::ZERO,
    };
    let purse = Purse {
        account: alloy_primitives::Address::ZERO,
        wallet_wei: U256::from(1_500_000_000_000_000_000_u64),
        withdrawing_wei: U256::from(20_000_000_000_000_000_000_u128),
        withdrawing_at: 1_800_000_000,
    };
    let account = Account { account: AccountId::from_bytes([2; 20]), view, purse: Some(purse) };
    insta::assert_snapshot!(account_text(&account), @r"
    account    0x0202020202020202020202020202020202020202
    available  $9.50          free to use
    held       $0.40          set aside for leases that have not ended
    deposited  $10.00         put in, in all
    spent      $0.10          paid for leases, fees included
    earned     $0.00          by leases to others, after fees
    wallet     1.5 ATH        outside, to stake, to vote or to send
    leaving    20 ATH         `welkin withdraw` takes it from 2027-01-15 08:00:00 UTC on
    ");
    let json = serde_json::to_value(&account).unwrap();
    assert_eq!(json["available"], 9_500_000);
    assert_eq!(json["wallet_wei"], "0x14d1120d7b160000");
}
