//! Examples of each verb, and what is refused. Random histories are in `history.rs`.

mod history;
mod model;

use welkin_proto::{AccountKey, Delegation};
use welkin_types::{ContainerId, NodeId, Price};

use super::*;
use crate::RestoreError;

const DOMAIN: Domain = Domain::LOCAL;
const NOW: UnixMillis = UnixMillis(1_000_000);
const HOUR_MS: u64 = 3_600_000;

fn key(seed: u8) -> AccountKey {
    AccountKey::from_secret(&[seed; 32]).unwrap()
}

fn usd(micros: u64) -> Usd {
    Usd::from_micros(micros)
}

fn lease_id(number: u8) -> LeaseId {
    LeaseId::from_bytes([number; 16])
}

fn order(buyer: &AccountKey, operator: &AccountKey, lease: u8, budget: u64) -> Order {
    Order {
        lease: lease_id(lease),
        buyer: buyer.id(),
        operator: operator.id(),
        host: NodeId::from_bytes([1; 32]),
        container: ContainerId::from_bytes([1; 16]),
        price: Price::per_hour(usd(3_600)),
        budget: usd(budget),
        task_sha256: [0; 32],
        issued: NOW,
        expires: NOW.after(Duration::from_secs(30)),
    }
}

fn voucher(operator: &AccountKey, lease: u8, amount: u64) -> Voucher {
    let operator = operator.id();
    Voucher { lease: lease_id(lease), operator, amount: usd(amount), seconds: amount }
}

fn sign<T: welkin_proto::Eip712>(key: &AccountKey, message: T) -> SignedByAccount<T> {
    SignedByAccount::sign(&DOMAIN, key, message).unwrap()
}

/// A ledger where buyer 1 has 1 000 and lease 1 to operator 2 has 300 aside, budget 500.
fn begun() -> (Ledger, AccountKey, AccountKey) {
    let (buyer, operator) = (key(1), key(2));
    let mut ledger = Ledger::default();
    ledger.apply(&ledger.deposit(buyer.id(), usd(1_000), [0; 16]).unwrap()).unwrap();
    let signed = sign(&buyer, order(&buyer, &operator, 1, 500));
    ledger.apply(&ledger.reserve(&DOMAIN, NOW, operator.id(), &signed, usd(300)).unwrap()).unwrap();
    (ledger, buyer, operator)
}

impl Ledger {
    fn redeemed(
        &mut self,
        buyer: &AccountKey,
        operator: &AccountKey,
        amount: u64,
        hold: u64,
    ) -> Result<LeaseView, SettleRefusal> {
        let signed = sign(buyer, voucher(operator, 1, amount));
        let changes = self.redeem(&DOMAIN, NOW, operator.id(), &signed, usd(hold))?;
        self.apply(&changes).unwrap();
        Ok(self.lease(lease_id(1)).unwrap())
    }
}

#[test]
fn a_lease_is_paid_topped_up_and_settled() {
    let (mut ledger, buyer, operator) = begun();
    let view = ledger.redeemed(&buyer, &operator, 101, 300).unwrap();
    assert_eq!((view.paid, view.fee, view.held), (usd(101), usd(20), usd(300)));
    // The budget bounds what is aside: 500 - 250.
    let view = ledger.redeemed(&buyer, &operator, 250, 300).unwrap();
    assert_eq!((view.paid, view.fee, view.held), (usd(250), usd(50), usd(250)));
    let last = sign(&buyer, voucher(&operator, 1, 303));
    let id = lease_id(1);
    let changes = ledger.close(&DOMAIN, NOW, operator.id(), id, Some(&last)).unwrap();
    ledger.apply(&changes).unwrap();
    let view = ledger.lease(id).unwrap();
    assert!(view.closed);
    assert_eq!((view.paid, view.fee, view.refunded), (usd(303), usd(60), usd(197)));
    assert_eq!(ledger.account(operator.id()).available, usd(243));
    assert_eq!(ledger.account(buyer.id()).available, usd(697));
    assert_eq!(ledger.totals().treasury, usd(60));
    // Again: nothing, also with more: it is too late for that.
    for amount in [303, 304] {
        let voucher = sign(&buyer, voucher(&operator, 1, amount));
        let again = ledger.close(&DOMAIN, NOW, operator.id(), id, Some(&voucher)).unwrap();
        assert!(again.is_empty());
    }
    assert_eq!(ledger.redeemed(&buyer, &operator, 1, 0), Err(SettleRefusal::Closed));
}

#[test]
fn lower_and_replayed_vouchers_pay_nothing_and_are_no_error() {
    let (mut ledger, buyer, operator) = begun();
    ledger.redeemed(&buyer, &operator, 200, 0).unwrap();
    let before = ledger.clone();
    for amount in [200, 199, 0] {
        let signed = sign(&buyer, voucher(&operator, 1, amount));
        let changes = ledger.redeem(&DOMAIN, NOW, operator.id(), &signed, usd(0)).unwrap();
        assert!(changes.is_empty(), "{amount}");
    }
    assert_eq!(ledger, before);
}

#[test]
fn no_more_is_paid_than_is_aside_and_no_more_than_the_budget() {
    let (mut ledger, buyer, operator) = begun();
    let uncovered = SettleRefusal::Uncovered { amount: usd(301), covered: usd(300) };
    assert_eq!(ledger.redeemed(&buyer, &operator, 301, 0), Err(uncovered));
    assert_eq!(ledger.redeemed(&buyer, &operator, 501, 0), Err(SettleRefusal::Range));
}

#[test]
fn the_end_pays_what_is_aside_where_more_was_promised() {
    let (mut ledger, buyer, operator) = begun();
    let id = lease_id(1);
    let too_much = sign(&buyer, voucher(&operator, 1, 501));
    let refused = ledger.close(&DOMAIN, NOW, operator.id(), id, Some(&too_much));
    assert_eq!(refused, Err(SettleRefusal::Range));
    let more = sign(&buyer, voucher(&operator, 1, 450));
    let changes = ledger.close(&DOMAIN, NOW, operator.id(), id, Some(&more)).unwrap();
    ledger.apply(&changes).unwrap();
    let view = ledger.lease(id).unwrap();
    assert_eq!(
        (view.paid, view.fee, view.refunded, view.closed),
        (usd(300), usd(60), usd(0), true)
    );
    let totals = ledger.totals();
    let sum = [totals.available, totals.held, totals.treasury].map(Usd::micros).iter().sum();
    assert_eq!(totals.deposited, usd(sum));
}

#[test]
fn full_books_say_that_they_are_full() {
    let (mut ledger, buyer, operator) = begun();
    assert!(!ledger.is_full());
    let account = |n: usize| {
        let mut bytes = [0xff; 20];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        AccountId::from_bytes(bytes)
    };
    ledger.accounts.extend((0..ACCOUNTS_MAX).map(|n| (account(n), AccountRow::default())));
    assert!(ledger.is_full());
    let stranger = AccountId::from_bytes([7; 20]);
    assert_eq!(ledger.deposit(stranger, usd(1), [0; 16]), Err(SettleRefusal::Full));
    let text = SettleRefusal::Full.to_string();
    assert!(text.contains("30 days") && text.contains("another network"), "{text}");
    // Who is in the books goes on.
    assert!(ledger.deposit(buyer.id(), usd(1), [9; 16]).is_ok());
    assert!(ledger.redeemed(&buyer, &operator, 1, 0).is_ok());
}

#[test]
fn a_top_up_is_as_large_as_the_buyers_money_allows() {
    let (mut ledger, buyer, operator) = begun();
    let other = sign(&buyer, order(&buyer, &operator, 2, 650));
    let changes = ledger.reserve(&DOMAIN, NOW, operator.id(), &other, usd(650)).unwrap();
    ledger.apply(&changes).unwrap();
    let view = ledger.redeemed(&buyer, &operator, 200, 300).unwrap();
    assert_eq!((view.paid, view.held), (usd(200), usd(150)));
    assert_eq!(ledger.account(buyer.id()).available, Usd::ZERO);
    let third = sign(&buyer, order(&buyer, &operator, 3, 1));
    let refused = ledger.reserve(&DOMAIN, NOW, operator.id(), &third, usd(1));
    assert_eq!(refused, Err(SettleRefusal::Funds { needed: usd(1), available: Usd::ZERO }));
}

#[test]
fn an_order_reserves_once_and_its_id_is_taken() {
    let (ledger, buyer, operator) = begun();
    let reserve = |order: Order, amount: u64| {
        ledger.reserve(&DOMAIN, NOW, operator.id(), &sign(&buyer, order), usd(amount))
    };
    let same = order(&buyer, &operator, 1, 500);
    assert!(reserve(same.clone(), 400).unwrap().is_empty());
    let other = Order { task_sha256: [1; 32], ..same };
    assert_eq!(reserve(other, 300), Err(SettleRefusal::NotAllowed));
    assert_eq!(reserve(order(&buyer, &operator, 2, 10), 11), Err(SettleRefusal::Range));
    let dear = Order { price: Price::per_hour(usd(u64::MAX)), ..order(&buyer, &operator, 2, 10) };
    assert_eq!(reserve(dear, 10), Err(SettleRefusal::Range));
    let old = Order { expires: UnixMillis(NOW.0 - 1), ..order(&buyer, &operator, 2, 10) };
    let expired = SettleRefusal::Expired { at: old.expires };
    assert_eq!(reserve(old, 10), Err(expired));
}

#[test]
fn only_the_right_parties_and_signatures_count() {
    let (ledger, buyer, operator) = begun();
    let stranger = key(3);
    let signed = sign(&buyer, order(&buyer, &operator, 2, 100));
    let by_stranger = ledger.reserve(&DOMAIN, NOW, stranger.id(), &signed, usd(1));
    assert_eq!(by_stranger, Err(SettleRefusal::NotAllowed));
    let forged = sign(&stranger, order(&buyer, &operator, 2, 100));
    let refused = ledger.reserve(&DOMAIN, NOW, operator.id(), &forged, usd(1));
    assert_eq!(refused, Err(SettleRefusal::Signature));
    let elsewhere = Domain { chain_id: 1, ..DOMAIN };
    let refused = ledger.reserve(&elsewhere, NOW, operator.id(), &signed, usd(1));
    assert_eq!(refused, Err(SettleRefusal::Signature));

    let promise = sign(&buyer, voucher(&operator, 1, 10));
    let by_stranger = ledger.redeem(&DOMAIN, NOW, stranger.id(), &promise, usd(0));
    assert_eq!(by_stranger, Err(SettleRefusal::NotAllowed));
    let for_other = sign(&buyer, voucher(&stranger, 1, 10));
    let refused = ledger.redeem(&DOMAIN, NOW, operator.id(), &for_other, usd(0));
    assert_eq!(refused, Err(SettleRefusal::Signature));
    let own = sign(&operator, voucher(&operator, 1, 10));
    let refused = ledger.redeem(&DOMAIN, NOW, operator.id(), &own, usd(0));
    assert_eq!(refused, Err(SettleRefusal::Signature));
    let unknown = sign(&buyer, voucher(&operator, 9, 10));
    let refused = ledger.redeem(&DOMAIN, NOW, operator.id(), &unknown, usd(0));
    assert_eq!(refused, Err(SettleRefusal::UnknownLease));
    // A voucher of another lease does not close this one.
    let refused = ledger.close(&DOMAIN, NOW, operator.id(), lease_id(1), Some(&unknown));
    assert_eq!(refused, Err(SettleRefusal::Signature));
}

#[test]
fn a_deposit_is_carried_out_once_while_its_key_is_remembered() {
    let account = key(1).id();
    let mut ledger = Ledger::default();
    for number in 0..=u8::try_from(FUND_KEYS_MAX).unwrap() {
        ledger.apply(&ledger.deposit(account, usd(1), [number; 16]).unwrap()).unwrap();
    }
    assert!(ledger.deposit(account, usd(1), [1; 16]).unwrap().is_empty());
    assert!(!ledger.deposit(account, usd(1), [0; 16]).unwrap().is_empty());
    assert_eq!(ledger.deposit(account, Usd::ZERO, [99; 16]), Err(SettleRefusal::Range));
    assert_eq!(ledger.deposit(account, Usd::MAX, [99; 16]), Err(SettleRefusal::Range));
    assert_eq!(ledger.deposit(account, usd(u64::MAX), [99; 16]), Err(SettleRefusal::Range));
    assert_eq!(ledger.accounts().next().unwrap().1.fund_keys.len(), FUND_KEYS_MAX);
}

#[test]
fn an_abandoned_lease_is_released_and_a_working_one_is_not() {
    let (mut ledger, buyer, operator) = begun();
    let (id, end) = (lease_id(1), NOW.0 + 30_000 + HOUR_MS);
    let early = ledger.release(buyer.id(), id, UnixMillis(end));
    assert_eq!(early, Err(SettleRefusal::NotAllowed));
    let stranger = ledger.release(operator.id(), id, UnixMillis(end + 1));
    assert_eq!(stranger, Err(SettleRefusal::NotAllowed));
    // A payment shows that the host works; a voucher that pays nothing does not.
    let paid_at = UnixMillis(end);
    for (amount, at) in [(100, paid_at), (100, UnixMillis(end + 5))] {
        let promise = sign(&buyer, voucher(&operator, 1, amount));
        let changes = ledger.redeem(&DOMAIN, at, operator.id(), &promise, usd(0)).unwrap();
        ledger.apply(&changes).unwrap();
    }
    let working = ledger.release(buyer.id(), id, UnixMillis(end + HOUR_MS));
    assert_eq!(working, Err(SettleRefusal::NotAllowed));
    let changes = ledger.release(buyer.id(), id, UnixMillis(end + HOUR_MS + 1)).unwrap();
    ledger.apply(&changes).unwrap();
    assert_eq!(ledger.account(buyer.id()).available, usd(900));
    assert_eq!(ledger.lease(id).unwrap().refunded, usd(200));
    assert!(ledger.release(buyer.id(), id, UnixMillis(u64::MAX)).unwrap().is_empty());
}

#[test]
fn old_leases_are_forgotten_and_their_orders_stay_dead() {
    let (mut ledger, buyer, operator) = begun();
    let late = UnixMillis(NOW.0 + 40 * 24 * HOUR_MS);
    assert!(ledger.forget(late).is_empty(), "it is open");
    let changes = ledger.close(&DOMAIN, NOW, operator.id(), lease_id(1), None).unwrap();
    ledger.apply(&changes).unwrap();
    assert!(ledger.forget(NOW.after(FORGET_AFTER)).is_empty(), "it is young");
    let changes = ledger.forget(late);
    assert_eq!(changes.removed, [lease_id(1)]);
    ledger.apply(&changes).unwrap();
    assert_eq!(ledger.lease(lease_id(1)), None);
    let signed = sign(&buyer, order(&buyer, &operator, 1, 500));
    let replayed = ledger.reserve(&DOMAIN, late, operator.id(), &signed, usd(300));
    assert!(matches!(replayed, Err(SettleRefusal::Expired { .. })));
}

#[test]
fn stale_changes_are_refused() {
    let mut ledger = Ledger::default();
    let first = ledger.deposit(key(1).id(), usd(1), [1; 16]).unwrap();
    let second = ledger.deposit(key(1).id(), usd(1), [2; 16]).unwrap();
    ledger.apply(&first).unwrap();
    let stale = StaleChanges { planned: 0, present: 1 };
    assert_eq!(ledger.apply(&second), Err(stale));
    assert_eq!(ledger.apply(&first), Err(stale));
    assert_eq!(ledger.totals().deposited, usd(1));
}

#[test]
fn rows_that_contradict_each_other_are_not_restored() {
    let (ledger, ..) = begun();
    let rows = || {
        let accounts: Vec<_> = ledger.accounts().map(|(id, row)| (id, row.clone())).collect();
        let leases: Vec<_> = ledger.leases().map(|(id, row)| (id, *row)).collect();
        (accounts, leases, ledger.totals().treasury)
    };
    let (mut accounts, leases, treasury) = rows();
    accounts[0].1.available = usd(999);
    accounts[1].1.available = usd(2);
    let lost = Ledger::restore(accounts, leases, treasury);
    assert_eq!(lost, Err(RestoreError::Sums));
    let (accounts, mut leases, treasury) = rows();
    leases[0].1.fee = usd(1);
    let bent = Ledger::restore(accounts, leases, treasury);
    assert_eq!(bent, Err(RestoreError::Lease(lease_id(1))));
    let (accounts, _, treasury) = rows();
    let gone = Ledger::restore(accounts, [], treasury);
    assert!(matches!(gone, Err(RestoreError::Held(_))));
    let (mut accounts, leases, treasury) = rows();
    accounts.push(accounts[0].clone());
    assert_eq!(Ledger::restore(accounts, leases, treasury), Err(RestoreError::Rows));
}

#[test]
fn rows_keep_their_form_in_storage() {
    let (ledger, ..) = begun();
    let (id, row) = ledger.leases().next().unwrap();
    let changes = Changes { lease: Some((id, *row)), ..Changes::default() };
    let bytes = welkin_proto::encode(&changes).unwrap();
    assert_eq!(welkin_proto::decode::<Changes>(&bytes), Ok(changes.clone()));
    let json = serde_json::to_string(&changes).unwrap();
    assert_eq!(serde_json::from_str::<Changes>(&json).unwrap(), changes);
    // A delegation is a message of the same account and opens nothing here.
    let delegation = Delegation { node: NodeId::from_bytes([1; 32]), expires: NOW };
    assert_ne!(delegation.hash_struct(), row.order);
}
