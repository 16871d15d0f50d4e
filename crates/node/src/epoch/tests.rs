//! Reports of a network with more checkers than a committee: what they show is verified, and nothing else
//! counts.

use welkin_check::score::{Dimension, Ppm};
use welkin_check::sortition::VrfKey;
use welkin_ledger::epoch::Probed;
use welkin_proto::check::{Finding, Report, Sheet};
use welkin_proto::epoch::Roll;
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::site::{Site, SiteReport};
use welkin_proto::{
    AccountKey, Delegation, Domain, NodeKey, Signed, SignedByAccount, container_id,
};
use welkin_types::{ContainerId, UnixMillis};

use super::*;

const SECONDS: u64 = 600;
const EPOCH: u64 = 100;
const FIRST: u64 = EPOCH * SECONDS / 60;
const MINUTES: u64 = SECONDS / 60;
const DOMAIN: Domain = Domain::LOCAL;
/// Its checkers have numbers and keys from 1.
const CHECKERS: u8 = 8;

fn node(number: u8) -> NodeKey {
    NodeKey::from_secret(&[number; 32])
}

fn container() -> ContainerId {
    container_id(node(99).id(), 0)
}

fn heading() -> Heading {
    let vrf = |number| VrfKey::from_seed(&[number; 32]).unwrap().public().0;
    let listed =
        |number: u8| Listed { node: node(number).id(), number: number.into(), vrf: vrf(number) };
    let mut checkers: Vec<_> = (1..=CHECKERS).map(listed).collect();
    checkers.sort();
    let view = EpochView { epoch: EPOCH, seed: [5; 32], checkers, epoch_seconds: SECONDS };
    Heading::new(DOMAIN, view)
}

fn committees() -> Committees {
    Committees::new(&heading().view, COMMITTEE)
}

fn turn(of: u8, minute: u64) -> TurnProof {
    let (ticket, _) = committees().ticket(node(of).id(), minute).unwrap();
    let (proof, _) = VrfKey::from_seed(&[of; 32]).unwrap().prove(&ticket, [9; 32]);
    TurnProof::from_bytes(&proof.0)
}

fn roll(of: u8, containers: Vec<(ContainerId, Class)>) -> Statement {
    let account = AccountKey::from_secret(&[of; 32]).unwrap();
    let delegation = Delegation { node: node(of).id(), expires: UnixMillis(u64::MAX) };
    let account = SignedByAccount::sign(&DOMAIN, &account, delegation).unwrap();
    let issued = UnixMillis(EPOCH * SECONDS * 1_000);
    let region = Some("kr-seoul".parse().unwrap()).filter(|_| !containers.is_empty());
    let roll = Roll { epoch: EPOCH, issued, account, containers, region };
    Statement::Roll(Box::new(Signed::sign(&DOMAIN, &node(of), &roll).unwrap()))
}

fn probe(by: u8, minute: u64, finding: Finding, turn: Option<TurnProof>) -> Statement {
    let (checker, host) = (node(by).id(), node(99).id());
    let report = Report { checker, host, container: container(), minute, finding, turn };
    let sheet = Sheet::of(&report).unwrap();
    Statement::Sheet(Box::new(Signed::sign(&DOMAIN, &node(by), &sheet).unwrap()))
}

const ONLINE: Finding = Finding::Online { rtt_us: 900 };

fn rolls() -> Vec<Statement> {
    let hosts = [roll(99, vec![(container(), Class::cpu(4_000))])];
    hosts.into_iter().chain((1..=CHECKERS).map(|of| roll(of, Vec::new()))).collect()
}

fn is_drawn(by: u8, minute: u64) -> bool {
    let seating =
        committees().seating_of(node(by).id(), minute, container(), Some(turn(by, minute)));
    seating == Seating::Drawn
}

/// What honest checkers say: who has drawn it, with the proof, and who stands in.
fn honest(silent: &[u8]) -> Published {
    let mut statements = rolls();
    for minute in FIRST..FIRST + MINUTES {
        let named = committees().stand_ins(minute, container());
        for by in (1..=CHECKERS).filter(|by| !silent.contains(by)) {
            if is_drawn(by, minute) {
                statements.push(probe(by, minute, ONLINE, Some(turn(by, minute))));
            } else if named.contains(&node(by).id()) {
                statements.push(probe(by, minute, ONLINE, None));
            }
        }
    }
    Published { heading: heading(), statements }
}

fn refused(published: &Published) -> BTreeMap<Unfit, u64> {
    published.gather().refused
}

fn root(published: &Published) -> [u8; 32] {
    let book = Book::new(welkin_ledger::epoch::Emissions::new(5_000_000));
    outcome(published.gather(), &book).unwrap().settled.claims.root()
}

#[test]
fn committees_are_full_whoever_has_drawn_it_and_whoever_is_silent() {
    let span = *committees().span();
    for silent in [&[][..], &[3], &[2, 7]] {
        let gathered = honest(silent).gather();
        for period in 0..span.periods {
            let of_it = |probed: &&Probed| span.period_of(probed.seat.minute) == Some(period);
            let count = gathered.probes.iter().filter(of_it).count();
            // Five are named, so that two may be silent.
            assert!((3..=8).contains(&count), "{count} in period {period}");
        }
        let spare = |why: &Unfit| *why == Unfit::Spare;
        assert!(gathered.refused.keys().all(spare), "{:?}", gathered.refused);
    }
}

/// A host learns nothing by asking, and a checker cannot choose: a report counts only with the proof of its
/// own minute.
#[test]
fn what_was_not_drawn_does_not_count() {
    let whole = honest(&[]);
    let minutes = || FIRST..FIRST + MINUTES;
    let may = |by: u8, minute| {
        let named = committees().stand_ins(minute, container());
        is_drawn(by, minute) || named.contains(&node(by).id())
    };
    let (by, minute) = (1..=CHECKERS)
        .flat_map(|by| minutes().map(move |minute| (by, minute)))
        .find(|(by, minute)| !may(*by, *minute))
        .unwrap();
    let other = (1..=CHECKERS).find(|by| is_drawn(*by, minute)).unwrap();
    let drawn = minutes().find(|minute| is_drawn(by, *minute)).unwrap();
    for shown in [None, Some(turn(by, minute)), Some(turn(other, minute)), Some(turn(by, drawn))] {
        let mut with = whole.clone();
        with.statements.push(probe(by, minute, Finding::Unreachable, shown));
        let more = refused(&with);
        assert_eq!(more.get(&Unfit::Unassigned), Some(&1), "{shown:?}");
        assert_eq!(root(&with), root(&whole));
    }
    // Nor without it where it was drawn, or with a bent one.
    let shown = turn(by, drawn);
    let named = committees().stand_ins(drawn, container());
    let mut bent = shown.to_bytes();
    bent[40] ^= 1;
    for bad in [None, Some(TurnProof::from_bytes(&bent))] {
        let published = Published {
            heading: heading(),
            statements: [rolls(), vec![probe(by, drawn, ONLINE, bad)]].concat(),
        };
        let is_heard = named.contains(&node(by).id());
        assert_eq!(published.gather().probes.len(), usize::from(is_heard));
    }
}

#[test]
fn a_flipped_report_changes_the_root_and_lots_are_shown() {
    let whole = honest(&[]);
    let lots = whole.lots();
    for ((minute, checker), lot) in &lots {
        assert!(committees().visits(lot, *minute, container()), "{checker}");
    }
    let all = (1..=CHECKERS).flat_map(|by| (FIRST..FIRST + MINUTES).map(move |at| (by, at)));
    assert_eq!(lots.len(), all.filter(|(by, minute)| is_drawn(*by, *minute)).count());
    let heard = whole.gather().probes[0].seat;
    let mut flipped = whole.clone();
    for statement in &mut flipped.statements {
        if let Statement::Sheet(signed) = statement {
            let Sheet { checker, minute, turn, .. } = signed.read_unverified().unwrap();
            let by = (1..=CHECKERS).find(|by| node(*by).id() == signed.signer()).unwrap();
            if (checker, minute) == (heard.checker, heard.minute) {
                *statement = probe(by, minute, Finding::Unreachable, turn);
            }
        }
    }
    assert_ne!(root(&flipped), root(&whole));
}

fn site(by: u8, minute: u64, change: impl FnOnce(&mut Site)) -> Statement {
    let (checker, host, turn) = (node(by).id(), node(99).id(), Some(turn(by, minute)));
    let mut site = Site {
        rtt_us: 9_000,
        down_kib_s: Some(9),
        ports_named: 2,
        ports_open: 1,
        ..Site::default()
    };
    change(&mut site);
    let report = SiteReport { checker, host, container: container(), minute, site, turn };
    Statement::Site(Box::new(Signed::sign(&DOMAIN, &node(by), &report).unwrap()))
}

/// What is seen of one dimension.
fn seen(dimension: Dimension, published: &Published) -> Vec<Ppm> {
    let all = observations(&published.gather(), container());
    all.into_iter().filter(|seen| seen.dimension == dimension).map(|seen| seen.value).collect()
}

#[test]
fn measurements_are_of_the_network() {
    let drawn = |by: u8| (FIRST..FIRST + MINUTES).find(|minute| is_drawn(by, *minute));
    let drawn: Vec<_> = (1..=CHECKERS).filter_map(|by| Some((by, drawn(by)?))).collect();
    assert!(drawn.len() >= 4);
    let with = |changes: &[fn(&mut Site)]| {
        let sites = drawn.iter().zip(changes).map(|((by, minute), of)| site(*by, *minute, of));
        let sites: Vec<_> = sites.collect();
        let mut published = honest(&[]);
        published.statements.extend(sites);
        let mut values = seen(Dimension::Network, &published);
        values.sort_unstable();
        values.into_iter().map(Ppm::ppm).collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), [0; 0]);
    let good: fn(&mut Site) = |_| ();
    let lost: fn(&mut Site) = |site| site.ports_open = 0;
    let wrong: fn(&mut Site) = |site| site.is_wrong = true;
    assert_eq!(with(&[good, lost, wrong]), [0, 500_000, 1_000_000]);
    let broken: fn(&mut Site) = |site| site.down_kib_s = None;
    assert_eq!(with(&[good, broken]), [0, 1_000_000]);
    // It says that it is in Seoul, and answers New York in 9 ms: who is near can't tell.
    let far: fn(&mut Site) = |site| site.from = Some("us-new-york".parse().unwrap());
    let near: fn(&mut Site) = |site| site.from = Some("kr-seoul".parse().unwrap());
    assert_eq!(with(&[far, near, near]), [0, 1_000_000, 1_000_000]);
}

#[test]
fn hours_without_a_fault_are_good_ones() {
    let published = honest(&[]);
    let periods = usize::from(committees().span().periods);
    assert_eq!(seen(Dimension::Health, &published), vec![Ppm::ONE; periods]);
    // Nobody was there: nothing is known of it.
    let silent = Published { heading: heading(), statements: rolls() };
    assert!(seen(Dimension::Health, &silent).is_empty());
}
