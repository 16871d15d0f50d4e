//! Published statements: order is without meaning, and what is not sound does not count.

use proptest::prelude::*;
use welkin_proto::exam::ExamRefusal;
use welkin_proto::settle::EpochView;
use welkin_proto::{
    AccountKey, Delegation, Domain, Exit, LogSummary, NodeKey, Order, ReceiptAck, SignedByAccount,
    StageTime, Usage, Wipe,
};
use welkin_types::{Price, Reason, Usd};

use super::super::{Book, Cause, Emissions, Settled, settle};
use super::*;

const EPOCH: u64 = 1_000;
const SECONDS: u64 = 180;
const DOMAIN: Domain = Domain::LOCAL;
const FIRST: u64 = EPOCH * SECONDS / 60;

fn node(number: u8) -> NodeKey {
    NodeKey::from_secret(&[number; 32])
}

fn account(number: u8) -> AccountKey {
    AccountKey::from_secret(&[number; 32]).unwrap()
}

fn container() -> ContainerId {
    ContainerId::from_bytes([5; 16])
}

fn delegation(to: u8, of: u8) -> SignedByAccount<Delegation> {
    let delegation = Delegation { node: node(to).id(), expires: UnixMillis(u64::MAX) };
    SignedByAccount::sign(&DOMAIN, &account(of), delegation).unwrap()
}

fn heading() -> Heading {
    let mut checkers: Vec<_> = [1, 2, 3].map(|number| node(number).id()).into();
    checkers.sort();
    let view = EpochView { epoch: EPOCH, seed: [7; 32], checkers, epoch_seconds: SECONDS };
    Heading::new(DOMAIN, view)
}

fn roll(of: u8, containers: Vec<(ContainerId, Class)>) -> Statement {
    let roll = Roll { epoch: EPOCH, account: delegation(of, of), containers };
    Statement::Roll(Box::new(Signed::sign(&DOMAIN, &node(of), &roll).unwrap()))
}

fn probe(by: u8, minute: u64, finding: Finding) -> Statement {
    let (checker, host) = (node(by).id(), node(9).id());
    let report = Report { checker, host, container: container(), minute, finding };
    Statement::Probe(Box::new(Signed::sign(&DOMAIN, &node(by), &report).unwrap()))
}

const ONLINE: Finding = Finding::Online { rtt_us: 900 };

fn exam(by: u8, minute: u64, verdict: ExamVerdict) -> Statement {
    let (checker, host, evidence) = (node(by).id(), node(9).id(), None);
    let container = container();
    let report =
        ExamReport { checker, host, container, minute, n: 512, rounds: 2, verdict, evidence };
    Statement::Exam(Box::new(Signed::sign(&DOMAIN, &node(by), &report).unwrap()))
}

fn proved() -> ExamVerdict {
    ExamVerdict::Proved { mmac_per_s: 1_000, class: Some(Class::cpu(4_000)) }
}

/// A lease that ran for so many milliseconds from there.
fn lease_file(number: u8, from: u64, ran_ms: u64, is_acked: bool) -> ReceiptFile {
    let (buyer, lease) = (account(20), LeaseId::from_bytes([number; 16]));
    let order = Order {
        lease,
        buyer: buyer.id(),
        operator: account(9).id(),
        host: node(9).id(),
        container: container(),
        price: Price::per_hour(Usd::ZERO),
        budget: Usd::ZERO,
        task_sha256: [0; 32],
        issued: UnixMillis(from),
        expires: UnixMillis(from + 60_000),
    };
    let stage = |state, at| StageTime { state, reason: Reason::Normal, at: UnixMillis(at) };
    let receipt = Receipt {
        lease,
        buyer: order.buyer,
        operator: order.operator,
        host: order.host,
        container: order.container,
        price: order.price,
        stages: vec![
            stage(LeaseState::Starting, from.saturating_sub(10)),
            stage(LeaseState::Running, from),
            stage(LeaseState::Succeeded, from + ran_ms),
        ],
        exit: Some(Exit::default()),
        usage: Usage { seconds: ran_ms.div_ceil(1_000), ..Usage::default() },
        cost: Usd::ZERO,
        fee: Usd::ZERO,
        logs: LogSummary::default(),
        wipe: Wipe::default(),
    };
    let receipt = Signed::sign(&DOMAIN, &node(9), &receipt).unwrap();
    let ack = ReceiptAck { lease, receipt_sha256: receipt.digest() };
    ReceiptFile {
        domain: DOMAIN,
        order: SignedByAccount::sign(&DOMAIN, &buyer, order).unwrap(),
        operator: delegation(9, 9),
        receipt,
        voucher: None,
        ack: is_acked.then(|| SignedByAccount::sign(&DOMAIN, &buyer, ack).unwrap()),
    }
}

fn lease(number: u8, from: u64, ran_ms: u64) -> Statement {
    Statement::Lease(Box::new(lease_file(number, from, ran_ms, true)))
}

const START_MS: u64 = EPOCH * SECONDS * 1_000;

fn honest() -> Vec<Statement> {
    let mut statements = vec![roll(9, vec![(container(), Class::cpu(4_000))])];
    for checker in [1, 2, 3] {
        statements.push(roll(checker, Vec::new()));
        for minute in FIRST..FIRST + 3 {
            statements.push(probe(checker, minute, ONLINE));
        }
        statements.push(exam(checker, FIRST + 1, proved()));
    }
    statements.push(lease(1, START_MS + 50_000, 20_000));
    statements
}

fn read(statements: &[Statement]) -> Gathered {
    gather(&heading(), statements, |_| true)
}

fn settled(statements: &[Statement]) -> Settled {
    let (terms, mut evidence) =
        read(statements).evidence(&BTreeMap::from([(Class::cpu(4_000), 4)])).unwrap();
    settle(&terms, &Book::new(Emissions::new(5_000_000)), &mut evidence)
}

fn refused(statements: &[Statement]) -> Vec<(Unfit, u64)> {
    read(statements).refused.into_iter().collect()
}

#[test]
fn honest_work_is_paid_and_nothing_is_refused() {
    let settled = settled(&honest());
    assert_eq!(refused(&honest()), []);
    assert_eq!(settled.refused, Default::default());
    let weight = |cause| settled.shares.iter().find(|share| share.cause == cause).unwrap().weight;
    let second = 4 * 504 * 10_000;
    assert_eq!(weight(Cause::Delivery(container())), 20 * second);
    assert_eq!(weight(Cause::Capacity(container())), 160 * second);
    let tasks = settled.shares.iter().filter(|share| matches!(share.cause, Cause::Tasks(_)));
    assert_eq!(tasks.map(|share| share.weight).collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn what_is_switched_off_delivers_nothing_whatever_is_signed() {
    let mut all = honest();
    for checker in [1, 2, 3] {
        let first = FIRST..FIRST + 3;
        all.retain(|statement| {
            !first.clone().any(|minute| *statement == probe(checker, minute, ONLINE))
        });
        all.extend(first.map(|minute| probe(checker, minute, Finding::Unreachable)));
    }
    let settled = settled(&all);
    assert_eq!(refused(&all), []);
    let is_paid = |cause: &Cause| matches!(cause, Cause::Delivery(_) | Cause::Capacity(_));
    assert!(settled.shares.iter().all(|share| !is_paid(&share.cause) || share.weight == 0));
}

#[test]
fn a_class_has_the_same_number_whoever_claims_what() {
    let mut strange = honest();
    let names = (0..40).map(|n| Class::try_from(format!("aaa-{n}")).unwrap());
    let many = names.enumerate().map(|(n, class)| {
        let mut id = [0; 16];
        id[15] = u8::try_from(n + 1).unwrap();
        (ContainerId::from_bytes(id), class)
    });
    strange.push(roll(11, many.collect()));
    let class_of = |statements: &[Statement]| {
        let classes = BTreeMap::from([(Class::cpu(4_000), 4), (Class::cpu(8_000), 8)]);
        let (terms, evidence) = read(statements).evidence(&classes).unwrap();
        let place = evidence.roster.container(container()).unwrap();
        let its = evidence.roster.containers()[usize::try_from(place).unwrap()];
        (its.class, terms.capacity(its.class), terms.classes.len())
    };
    assert_eq!(class_of(&honest()), class_of(&strange));
}

#[test]
fn one_flipped_report_changes_the_root() {
    let all = honest();
    let mut flipped = all.clone();
    for (place, minute) in [(2, FIRST), (7, FIRST)] {
        let by = if place == 2 { 1 } else { 2 };
        flipped[place] = probe(by, minute, Finding::Unreachable);
    }
    assert_ne!(settled(&all).claims.root(), settled(&flipped).claims.root());
}

#[test]
fn forged_foreign_and_late_statements_are_refused() {
    let all = honest();
    let with = |statement: Statement| [&all[..], &[statement]].concat();
    let reported = Report {
        checker: node(1).id(),
        host: node(9).id(),
        container: container(),
        minute: FIRST,
        finding: Finding::Unreachable,
    };
    let forged = Signed::sign(&DOMAIN, &node(2), &reported).unwrap();
    let forged = with(Statement::Probe(Box::new(forged)));
    assert_eq!(refused(&forged), [(Unfit::Forged, 1)]);
    let elsewhere = Domain { chain_id: 1, ..DOMAIN };
    let foreign = Signed::sign(&elsewhere, &node(1), &reported).unwrap();
    let foreign = with(Statement::Probe(Box::new(foreign)));
    assert_eq!(refused(&foreign), [(Unfit::Forged, 1)]);
    assert_eq!(refused(&with(probe(1, FIRST + 3, ONLINE))), [(Unfit::Late, 1)]);
    assert_eq!(refused(&with(probe(1, FIRST - 1, ONLINE))), [(Unfit::Late, 1)]);
    // A stranger: on nobody's list.
    assert_eq!(refused(&with(probe(4, FIRST, ONLINE))), [(Unfit::Stranger, 1)]);
    assert_eq!(refused(&with(roll(4, Vec::new()))), [(Unfit::Stranger, 1)]);
    assert_eq!(refused(&with(exam(1, FIRST, ExamVerdict::Wrong))), [(Unfit::Malformed, 1)]);
    for statements in [&forged, &foreign] {
        assert_eq!(settled(statements).claims.root(), settled(&all).claims.root());
    }
    let unassigned = gather(&heading(), &all, |seat| seat.checker != node(2).id());
    assert_eq!(unassigned.refused.into_iter().collect::<Vec<_>>(), [(Unfit::Unassigned, 4)]);
}

#[test]
fn who_contradicts_itself_says_nothing() {
    let mut all = honest();
    all.push(probe(1, FIRST, Finding::Unreachable));
    assert_eq!(refused(&all), [(Unfit::Contradicting, 2)]);
    assert_eq!(read(&all).probes.len(), 8);
    let mut all = honest();
    all.push(roll(9, Vec::new()));
    let found = read(&all);
    assert!(found.containers.is_empty());
    assert_eq!(found.refused[&Unfit::Contradicting], 2);
}

#[test]
fn leases_count_where_the_buyer_signed_and_within_the_epoch() {
    let file = |file| Statement::Lease(Box::new(file));
    let mut all = honest();
    all.push(file(lease_file(2, START_MS + 1_000, 5_000, false)));
    assert_eq!(refused(&all), [(Unfit::Unsound, 1)]);
    let mut bent = lease_file(3, START_MS + 1_000, 5_000, true);
    bent.order.message.budget = Usd::from_micros(9);
    let mut all = honest();
    all.push(file(bent));
    assert_eq!(refused(&all), [(Unfit::Unsound, 1)]);
    // It began before, and ends a second after the first period.
    let mut all = honest();
    all.push(lease(4, START_MS - 30_000, 91_000));
    let leases = read(&all).leases;
    let of_it = leases.iter().find(|((lease, _), _)| *lease == LeaseId::from_bytes([4; 16]));
    assert_eq!(of_it.unwrap().1.seconds, [(0, 60), (1, 1)]);
    // Over before, or ends when all is closed.
    for (from, ran) in [(START_MS - 30_000, 20_000), (START_MS, 400_000)] {
        let mut all = honest();
        all.push(lease(5, from, ran));
        assert_eq!(refused(&all), [(Unfit::Late, 1)]);
    }
}

#[test]
fn a_refusal_that_is_fair_proves_nothing_and_costs_nothing() {
    let mut all = honest();
    all.push(exam(1, FIRST + 2, ExamVerdict::Refused(ExamRefusal::Busy)));
    assert_eq!(settled(&all).claims.root(), settled(&honest()).claims.root());
}

#[test]
fn a_container_is_where_checkers_find_it() {
    let mut all = honest();
    // Another host claims it, with a key that sorts before or after.
    all.push(roll(11, vec![(container(), Class::cpu(8_000))]));
    all.push(roll(12, vec![(container(), Class::cpu(8_000))]));
    assert_eq!(read(&all).containers[&container()].0, node(9).id());
    assert_eq!(settled(&all).claims.root(), settled(&honest()).claims.root());
}

#[test]
fn epochs_of_any_length_are_divided() {
    let day = Span::of(20_000, 86_400);
    assert_eq!((day.periods, day.period_seconds, day.closes() - day.end()), (24, 3_600, 3_600));
    let minute = Span::of(7, 60);
    assert_eq!((minute.periods, minute.period_seconds), (1, 60));
    assert_eq!(minute.closes() - minute.end(), 120);
    assert_eq!(minute.period_of(7), Some(0));
    assert_eq!(minute.period_of(8), None);
    assert_eq!(Span::of(u64::MAX, 0).period_of(u64::MAX), None);
    assert_eq!(Span::of(0, u64::MAX).periods, 24);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn order_and_repetition_do_not_matter(
        shuffled in Just(honest()).prop_shuffle(),
        again in prop::collection::vec(0..17_usize, 0..6),
    ) {
        let all = honest();
        let expected = settled(&all);
        prop_assert_eq!(read(&shuffled), read(&all));
        prop_assert_eq!(settled(&shuffled).data, expected.data);
        let mut twice = shuffled;
        let again: Vec<_> = again.into_iter().map(|place| twice[place % all.len()].clone()).collect();
        let count = again.len() as u64;
        twice.extend(again);
        prop_assert_eq!(settled(&twice).data, expected.data);
        prop_assert_eq!(read(&twice).refused.get(&Unfit::Repeated).copied().unwrap_or(0), count);
    }

    /// Whatever is bent: it is refused, or it is no statement at all.
    #[test]
    fn no_bent_byte_counts(place in 0..17_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut all = honest();
        let place = place % all.len();
        let mut bytes = encode(&all[place]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(bent) = welkin_proto::decode::<Statement>(&bytes) {
            let whole = read(&all);
            all[place] = bent;
            let found = read(&all);
            prop_assert!(!found.refused.is_empty());
            let kept = |found: &Gathered| {
                found.probes.len() + found.exams.len() + found.leases.len()
                    + found.checkers.len() + found.containers.len()
            };
            prop_assert!(kept(&found) < kept(&whole));
        }
    }
}
