//! Published statements: order is without meaning, and what is not sound does not count.

use proptest::prelude::*;
use welkin_proto::check::{Report, Sheet, Visit};
use welkin_proto::digest::Side;
use welkin_proto::epoch::Roll;
use welkin_proto::exam::{ExamRefusal, Verdict as ExamVerdict};
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{
    AccountKey, Delegation, Domain, Exit, LogSummary, Matched, NodeKey, Order, ReceiptAck,
    ReceiptFile, Signed, SignedByAccount, StageTime, Usage, Voucher, Wipe, container_id,
    container_ids, encode,
};
use welkin_types::{BasisPoints, LeaseState, Price, Reason, UnixMillis, Usd};

use super::super::{Book, Cause, Emissions, Settled, Stream, settle};
use super::*;

mod digests;
mod matches;
mod own;
mod silence;
mod sites;

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
    container_id(node(9).id(), 0)
}

fn delegation(to: u8, of: u8) -> SignedByAccount<Delegation> {
    let delegation = Delegation { node: node(to).id(), expires: UnixMillis(u64::MAX) };
    SignedByAccount::sign(&DOMAIN, &account(of), delegation).unwrap()
}

fn heading() -> Heading {
    let listed =
        |number: u8| Listed { node: node(number).id(), number: number.into(), vrf: [0; 32] };
    let mut checkers: Vec<_> = [1, 2, 3].map(listed).into();
    checkers.sort();
    let view = EpochView { epoch: EPOCH, seed: [7; 32], checkers, epoch_seconds: SECONDS };
    Heading::new(DOMAIN, view)
}

fn roll(of: u8, containers: Vec<(ContainerId, Class)>) -> Statement {
    roll_at(START_MS, of, of, containers)
}

fn roll_at(at: u64, of: u8, by: u8, containers: Vec<(ContainerId, Class)>) -> Statement {
    let (account, issued) = (delegation(of, by), UnixMillis(at));
    let roll = Roll { epoch: EPOCH, issued, account, containers, region: None };
    Statement::Roll(Box::new(Signed::sign(&DOMAIN, &node(of), &roll).unwrap()))
}

fn probe(by: u8, minute: u64, finding: Finding) -> Statement {
    let (checker, host) = (node(by).id(), node(9).id());
    let (container, turn) = (container(), None);
    let report = Report { checker, host, container, minute, finding, turn };
    let sheet = Sheet::of(&report).unwrap();
    Statement::Sheet(Box::new(Signed::sign(&DOMAIN, &node(by), &sheet).unwrap()))
}

const ONLINE: Finding = Finding::Online { rtt_us: 900 };

fn exam(by: u8, minute: u64, verdict: ExamVerdict) -> Statement {
    let (checker, host, evidence) = (node(by).id(), node(9).id(), None);
    let (container, n, rounds, turn) = (container(), 512, 2, None);
    let report =
        ExamReport { checker, host, container, minute, n, rounds, verdict, evidence, turn };
    Statement::Exam(Box::new(Signed::sign(&DOMAIN, &node(by), &report).unwrap()))
}

fn proved() -> ExamVerdict {
    ExamVerdict::Proved { mmac_per_s: 1_000, class: Some(Class::cpu(4_000)) }
}

/// A lease that ran for so many milliseconds from there.
fn lease_file(number: u8, from: u64, ran_ms: u64, is_acked: bool) -> ReceiptFile {
    priced_file(number, from, ran_ms, is_acked, Usd::ZERO, None)
}

/// The same at a price an hour, matched by somebody.
fn priced_file(
    number: u8,
    from: u64,
    ran_ms: u64,
    is_acked: bool,
    per_hour: Usd,
    matched: Option<Matched>,
) -> ReceiptFile {
    let (buyer, lease) = (account(20), LeaseId::from_bytes([number; 16]));
    let (price, seconds) = (Price::per_hour(per_hour), ran_ms.div_ceil(1_000));
    let cost = price.cost(seconds);
    let order = Order {
        lease,
        buyer: buyer.id(),
        operator: account(9).id(),
        host: node(9).id(),
        container: container(),
        price,
        budget: cost,
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
        usage: Usage { seconds, ..Usage::default() },
        cost,
        fee: cost.split(BasisPoints::SERVICE_FEE).0,
        logs: LogSummary::default(),
        wipe: Wipe::default(),
        matched,
    };
    let receipt = Signed::sign(&DOMAIN, &node(9), &receipt).unwrap();
    let voucher = Voucher { lease, operator: order.operator, amount: cost, seconds };
    let voucher = SignedByAccount::sign(&DOMAIN, &buyer, voucher).unwrap();
    let ack = ReceiptAck { lease, receipt_sha256: receipt.digest() };
    ReceiptFile {
        domain: DOMAIN,
        order: SignedByAccount::sign(&DOMAIN, &buyer, order).unwrap(),
        operator: delegation(9, 9),
        receipt,
        voucher: (!cost.is_zero()).then_some(voucher),
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
    statements.extend([Side::Host, Side::Buyer].map(|side| digests::said(side, 1, 60)));
    statements
}

fn read(statements: &[Statement]) -> Gathered {
    gather(&heading(), statements, |_, _| Seating::Drawn)
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
    let mut many: Vec<_> = container_ids(node(11).id()).into_iter().zip(names).collect();
    many.sort();
    strange.push(roll(11, many));
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
        turn: None,
    };
    let reported = Sheet::of(&reported).unwrap();
    let forged = Signed::sign(&DOMAIN, &node(2), &reported).unwrap();
    let forged = with(Statement::Sheet(Box::new(forged)));
    assert_eq!(refused(&forged), [(Unfit::Forged, 1)]);
    let elsewhere = Domain { chain_id: 1, ..DOMAIN };
    let foreign = Signed::sign(&elsewhere, &node(1), &reported).unwrap();
    let foreign = with(Statement::Sheet(Box::new(foreign)));
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
    let unassigned = gather(&heading(), &all, |seat, _| match seat.checker == node(2).id() {
        true => Seating::Nobody,
        false => Seating::Drawn,
    });
    assert_eq!(unassigned.refused.into_iter().collect::<Vec<_>>(), [(Unfit::Unassigned, 4)]);
}

#[test]
fn who_contradicts_itself_says_nothing() {
    let mut all = honest();
    all.push(probe(1, FIRST, Finding::Unreachable));
    assert_eq!(refused(&all), [(Unfit::Contradicting, 2)]);
    assert_eq!(read(&all).probes.len(), 8);
    // Another round trip is no other finding: of several the shortest counts.
    let mut all = honest();
    all.push(probe(1, FIRST, Finding::Online { rtt_us: 800 }));
    assert_eq!(refused(&all), []);
    let found = read(&all);
    assert_eq!(found.probes.len(), 9);
    assert!(found.probes.iter().any(|probed| probed.finding == Finding::Online { rtt_us: 800 }));
    // Nor is another fault: it was not there.
    let faults = [Finding::Unreachable, Finding::Malformed, Finding::NotListed];
    let mut all = honest();
    all.retain(|statement| *statement != probe(1, FIRST, ONLINE));
    all.extend(faults.map(|fault| probe(1, FIRST, fault)));
    assert_eq!((refused(&all), read(&all).probes.len()), (vec![], 9));
    all.push(probe(1, FIRST, ONLINE));
    assert_eq!((refused(&all), read(&all).probes.len()), (vec![(Unfit::Contradicting, 2)], 8));
    let mut all = honest();
    all.push(roll(9, Vec::new()));
    let found = read(&all);
    assert!(found.containers.is_empty());
    assert_eq!(found.refused[&Unfit::Contradicting], 2);
}

/// What stands on two sheets alike counts once; of what was not assigned only that is left out; a sheet that
/// is no sheet is refused as a whole.
#[test]
fn a_sheet_counts_container_by_container() {
    let sheet = |places: &[u8], finding| {
        let (checker, host) = (node(1).id(), node(9).id());
        let visits = places.iter().map(|place| Visit { host, place: *place, finding }).collect();
        let sheet = Sheet { checker, minute: FIRST, turn: None, visits };
        Statement::Sheet(Box::new(Signed::sign(&DOMAIN, &node(1), &sheet).unwrap()))
    };
    let offered = |place| (container_id(node(9).id(), place), Class::cpu(1_000));
    let mut named = vec![offered(0), offered(1), offered(2)];
    named.sort();
    let with =
        |sheets: &[Statement]| [&[roll(9, named.clone()), roll(1, Vec::new())], sheets].concat();
    let found = |statements: &[Statement]| {
        let gathered = read(statements);
        (gathered.probes.len(), gathered.refused.into_iter().collect::<Vec<_>>())
    };
    let (part, whole) = (sheet(&[0, 2], ONLINE), sheet(&[0, 1, 2], ONLINE));
    for both in [[part.clone(), whole.clone()], [whole.clone(), part.clone()]] {
        assert_eq!(found(&with(&both)), (3, vec![]));
    }
    assert_eq!(found(&with(&[whole.clone(), whole.clone()])), (3, vec![(Unfit::Repeated, 1)]));
    let torn = with(&[part, sheet(&[2], Finding::Unreachable)]);
    assert_eq!(found(&torn), (1, vec![(Unfit::Contradicting, 2)]));
    // One of them is nobody's, or was not to be visited.
    assert_eq!(found(&with(&[sheet(&[0, 5], ONLINE)])), (1, vec![(Unfit::Stranger, 1)]));
    let statements = with(&[whole]);
    let gathered = gather(&heading(), &statements, |seat, _| {
        if seat.container == offered(1).0 { Seating::Nobody } else { Seating::Drawn }
    });
    assert_eq!(gathered.probes.len(), 2);
    assert_eq!(gathered.refused.into_iter().collect::<Vec<_>>(), [(Unfit::Unassigned, 1)]);
    for bad in [&[][..], &[1, 0], &[0, 0], &[64]] {
        assert_eq!(found(&with(&[sheet(bad, ONLINE)])), (0, vec![(Unfit::Malformed, 1)]));
    }
}

/// A host that is started again with other containers says so, and takes nothing back.
#[test]
fn a_later_roll_adds_and_takes_nothing_back() {
    let classes = [Class::cpu(1_000), Class::cpu(8_000)];
    let other = container_id(node(9).id(), 1);
    let with = |more: &[Statement]| [&honest()[..], more].concat();
    let [low, high] = &classes;
    let later = with(&[
        roll_at(START_MS + 1, 9, 9, vec![(container(), low.clone())]),
        roll_at(START_MS + 2, 9, 9, vec![(other, high.clone())]),
        roll_at(START_MS + 3, 9, 9, Vec::new()),
    ]);
    assert_eq!(refused(&later), []);
    let found = read(&later).containers;
    assert_eq!(found[&container()].2, Class::cpu(4_000));
    assert_eq!(found[&other].2, *high);
    // For another account, or outside of the epoch.
    let elsewhere = roll_at(START_MS + 1, 9, 8, vec![(other, low.clone())]);
    assert_eq!(refused(&with(&[elsewhere])), [(Unfit::Contradicting, 1)]);
    for at in [START_MS - 60_001, START_MS + (SECONDS + 120) * 1_000] {
        let late = roll_at(at, 9, 9, vec![(other, low.clone())]);
        assert_eq!(refused(&with(&[late])), [(Unfit::Late, 1)]);
    }
}

/// Five checkers, of which each minute one or none has drawn the container and the others stand in.
fn of_five(drawn: &[(u8, u64)], ranks: [u8; 5], statements: &[Statement]) -> Gathered {
    let mut heading = heading();
    let listed =
        |number: u8| Listed { node: node(number).id(), number: number.into(), vrf: [0; 32] };
    heading.view.checkers = (1..6).map(listed).collect();
    heading.view.checkers.sort();
    let drawn: Vec<_> = drawn.iter().map(|(by, minute)| (node(*by).id(), *minute)).collect();
    let ranked = (1..6).map(|by| node(by).id()).zip(ranks);
    let ranked: BTreeMap<_, _> = ranked.collect();
    gather(&heading, statements, |seat, _| match drawn.contains(&(seat.checker, seat.minute)) {
        true => Seating::Drawn,
        false => Seating::StandIn(ranked[&seat.checker]),
    })
}

fn who(gathered: &Gathered, minute: u64) -> BTreeSet<NodeId> {
    let of_it = gathered.probes.iter().filter(|probed| probed.seat.minute == minute);
    of_it.map(|probed| probed.seat.checker).collect()
}

fn nodes(of: &[u8]) -> BTreeSet<NodeId> {
    of.iter().map(|number| node(*number).id()).collect()
}

/// Who is silent is replaced by the next in the order, and no more are heard than are missing.
#[test]
fn stand_ins_fill_a_committee_in_their_order_and_no_more() {
    let mut all = vec![roll(9, vec![(container(), Class::cpu(4_000))])];
    all.extend((1..6).map(|of| roll(of, Vec::new())));
    all.extend((1..6).map(|by| probe(by, FIRST, ONLINE)));
    let ranks = [4, 3, 2, 1, 0];
    // Three have drawn it: nobody is missing.
    let full = of_five(&[(1, FIRST), (2, FIRST), (3, FIRST)], ranks, &all);
    assert_eq!(who(&full, FIRST), nodes(&[1, 2, 3]));
    assert_eq!(full.refused[&Unfit::Spare], 2);
    // One has: the first two of the order stand in.
    let short = of_five(&[(1, FIRST)], ranks, &all);
    assert_eq!((who(&short, FIRST), short.refused[&Unfit::Spare]), (nodes(&[1, 5, 4]), 2));
    // The first one is silent: the next takes its place.
    let silent: Vec<_> = all.iter().filter(|it| **it != probe(5, FIRST, ONLINE)).cloned().collect();
    let replaced = of_five(&[(1, FIRST)], ranks, &silent);
    assert_eq!((who(&replaced, FIRST), replaced.refused[&Unfit::Spare]), (nodes(&[1, 4, 3]), 1));
    // Who has drawn it and is silent is replaced, too; it has no word any more by another's proof.
    let silent: Vec<_> = all.iter().filter(|it| **it != probe(1, FIRST, ONLINE)).cloned().collect();
    let replaced = of_five(&[(1, FIRST)], ranks, &silent);
    assert_eq!((who(&replaced, FIRST), replaced.refused[&Unfit::Spare]), (nodes(&[5, 4, 3]), 1));
    // A challenge by somebody who stands in is none.
    all.push(exam(4, FIRST, proved()));
    let found = of_five(&[(1, FIRST)], ranks, &all);
    assert_eq!((found.exams.len(), found.refused[&Unfit::Unassigned]), (0, 1));
}

proptest! {
    /// Whoever has drawn it and whatever is said: all that have drawn it are heard, of the others as
    /// many as are missing, if they have spoken; and nobody twice.
    #[test]
    fn a_committee_is_filled_from_the_first_ranks(
        drawn in prop::collection::btree_set((1..6_u8, 0..3_u64), 0..12),
        spoken in prop::collection::btree_set((1..6_u8, 0..3_u64), 0..15),
        ranks in Just([0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let mut all = vec![roll(9, vec![(container(), Class::cpu(4_000))])];
        all.extend((1..6).map(|of| roll(of, Vec::new())));
        all.extend(spoken.iter().map(|(by, at)| probe(*by, FIRST + at, ONLINE)));
        let of_drawn: Vec<_> = drawn.iter().map(|(by, at)| (*by, FIRST + at)).collect();
        let found = of_five(&of_drawn, ranks, &all);
        // Periods are of a minute.
        for at in 0..3 {
            let here = (1..6).filter(|by| spoken.contains(&(*by, at)));
            let (own, mut others): (Vec<_>, Vec<_>) = here.partition(|by| drawn.contains(&(*by, at)));
            others.sort_by_key(|by| ranks[usize::from(*by) - 1]);
            let missing = 3_usize.saturating_sub(own.len());
            let expected = [&own[..], &others[..missing.min(others.len())]].concat();
            prop_assert_eq!(who(&found, FIRST + at), nodes(&expected));
        }
    }
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

/// Challenges prove the class, and looks at memory do not find it as often as they do.
#[test]
fn memory_that_is_missing_at_half_of_the_looks_proves_no_class() {
    let there = |minute| (minute, ExamVerdict::Resident { mib: 16 });
    let missing = |minute| (minute, ExamVerdict::NotResident);
    let class = |looks: &[(u64, ExamVerdict)], by: &[u8]| {
        let mut all = honest();
        for checker in by {
            all.extend(looks.iter().map(|(place, found)| exam(*checker, *place, found.clone())));
        }
        let (_, evidence) = read(&all).evidence(&BTreeMap::from([(Class::cpu(4_000), 4)])).unwrap();
        evidence.capacities.iter().filter(|found| found.class.is_some()).count()
    };
    let (first, last) = (FIRST, FIRST + 2);
    assert_eq!(class(&[], &[1]), 3);
    assert_eq!(class(&[there(first), there(last)], &[1]), 3);
    // It was missing three times before that is said.
    assert_eq!(class(&[missing(first)], &[1]), 2);
    assert_eq!(class(&[missing(first), there(last)], &[1]), 2);
    // One checker alone takes nobody's class away, two of three do.
    let weight = |by: &[u8]| {
        let mut all = honest();
        all.extend(by.iter().map(|by| exam(*by, last, ExamVerdict::NotResident)));
        let shares = settled(&all).shares;
        shares.iter().any(|share| share.cause == Cause::Capacity(container()))
    };
    assert!(weight(&[]) && weight(&[1]));
    assert!(!weight(&[1, 2]));
}

#[test]
fn nobody_speaks_for_anothers_container() {
    let mut all = honest();
    // Other hosts claim it, with keys that sort before or after.
    all.push(roll(11, vec![(container(), Class::cpu(8_000))]));
    all.push(roll(12, vec![(container(), Class::cpu(8_000))]));
    assert_eq!(refused(&all), [(Unfit::Forged, 2)]);
    assert_eq!(read(&all).containers[&container()].0, node(9).id());
    assert_eq!(settled(&all).claims.root(), settled(&honest()).claims.root());
    // Alone it has nothing by that name either.
    let clone = [roll(11, vec![(container(), Class::cpu(8_000))])];
    assert!(read(&clone).containers.is_empty());
    // A host may offer fewer than it has names.
    let later = container_id(node(11).id(), 7);
    let mut all = honest();
    all.push(roll(11, vec![(later, Class::cpu(8_000))]));
    assert_eq!(refused(&all), []);
    assert_eq!(read(&all).containers[&later].0, node(11).id());
    let beyond = container_id(node(11).id(), 64);
    assert_eq!(refused(&[roll(11, vec![(beyond, Class::cpu(8_000))])]), [(Unfit::Forged, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn order_and_repetition_do_not_matter(
        shuffled in Just(honest()).prop_shuffle(),
        again in prop::collection::vec(0..19_usize, 0..6),
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
    fn no_bent_byte_counts(place in 0..19_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
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
                    + found.leases.values().map(|lease| lease.digests.len()).sum::<usize>()
            };
            prop_assert!(kept(&found) < kept(&whole));
        }
    }
}
