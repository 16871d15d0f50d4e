//! Buyers among indexers of which some lie, by simulation.

use proptest::prelude::*;
use welkin_proto::gossip::{Evidence, HOMES_MIN, Home, day_of, homes};
use welkin_proto::index::Listing;
use welkin_proto::{AccountKey, ContainerOffer, Delegation, NodeAddr, SignedByAccount};
use welkin_types::evidence::payer_weight;
use welkin_types::{AccountId, ContainerId, Price, Region, Resources, Tier};

use super::*;

const DAY_MS: u64 = 86_400_000;
const START: u64 = 20_000 * DAY_MS;

/// How an indexer behaves, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
struct Nature {
    /// Offers of which the host is busy: a picture that is seconds old.
    stale: u64,
    /// Offers of which the host is not there.
    dead: u64,
    /// Containers that it does not show.
    hidden: u64,
    /// Offers that are its operator's own; 200 would be its share.
    own: u64,
    /// Receipts that don't recompute.
    bad_receipts: u64,
}

const HONEST: Nature = Nature { stale: 13, dead: 3, hidden: 10, own: 200, bad_receipts: 0 };

fn node(n: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(n).unwrap() + 1; 32])
}

fn evidence(account: &AccountKey, now: UnixMillis, about: Vec<(NodeId, Tally)>) -> Evidence {
    let delegation = Delegation { node: node(0), expires: UnixMillis(u64::MAX) };
    let domain = welkin_proto::Domain::LOCAL;
    let reporter = SignedByAccount::sign(&domain, account, delegation).unwrap();
    Evidence { reporter, day: day_of(now), issued: now, about }
}

/// What share of the last third of all requests each indexer was asked first.
fn simulate(natures: &[Nature], buyers: usize, requests: usize, seed: u64) -> Vec<f64> {
    let mut chance = Stream::new(seed);
    let mut happens = |per_mille: u64| chance.word() % 1_000 < per_mille;
    let mut dice = Stream::new(seed ^ 0xabcd);
    let mut ledgers = vec![Ledger::default(); buyers];
    let accounts: Vec<_> = (0..buyers)
        .map(|n| AccountKey::from_secret(&[u8::try_from(n).unwrap() + 1; 32]).unwrap())
        .collect();
    let mut reports = Reports::default();
    let mut reported = Vec::new();
    let mut asked = vec![0_u64; natures.len()];
    for request in 0..requests {
        // A request every two hours.
        let now = UnixMillis(START + request as u64 * 2 * 3_600_000);
        for (buyer, ledger) in ledgers.iter_mut().enumerate() {
            let weigh = |n| (node(n), standing(ledger, &reported, node(n), now).weight);
            let order = draw((0..natures.len()).map(weigh).collect(), dice.word());
            let first = usize::from(order[0].as_bytes()[0]) - 1;
            let nature = natures[first];
            asked[first] += u64::from(request >= requests * 2 / 3);
            let finding = match () {
                () if happens(nature.dead) => Finding::Dead,
                () if happens(nature.stale) => Finding::Stale,
                () => Finding::Good,
            };
            ledger.note(now, order[0], finding);
            let receipt =
                if happens(nature.bad_receipts) { Finding::Disproved } else { Finding::Proved };
            ledger.note(now, order[0], receipt);
            if happens(50) {
                for _ in 0..LOOKED_AT_MAX {
                    let finding =
                        if happens(nature.hidden) { Finding::Hidden } else { Finding::Shown(1) };
                    ledger.note(now, order[0], finding);
                }
                for _ in 0..8 {
                    let (is_own, expected) = (happens(nature.own), Ppm::new(200_000));
                    ledger.note(now, order[0], Finding::Compared { is_own, expected });
                }
            }
            if request % 12 == 11 {
                let about = ledger.about(now);
                let report = evidence(&accounts[buyer], now, about);
                reports.add(accounts[buyer].id(), report, payer_weight(4_000_000));
            }
        }
        reports.expire(now);
        reported = reports.together(64);
    }
    let all: u64 = asked.iter().sum();
    asked.iter().map(|count| *count as f64 / all as f64).collect()
}

#[test]
fn honest_indexers_share_alike_though_their_pictures_are_old() {
    // Half a second old, two seconds old (7 % busy), and one that often loses hosts.
    let natures =
        [HONEST, Nature { stale: 70, ..HONEST }, Nature { dead: 20, hidden: 30, ..HONEST }];
    for seed in 0..3 {
        let shares = simulate(&natures, 20, 120, seed);
        assert!(shares.iter().all(|share| (0.27..0.40).contains(share)), "{shares:?}");
    }
}

#[test]
fn each_kind_of_liar_loses_share() {
    let kinds = [
        ("dead", Nature { dead: 300, ..HONEST }, 0.08),
        ("hides", Nature { hidden: 400, ..HONEST }, 0.08),
        ("favours", Nature { own: 800, ..HONEST }, 0.14),
        ("receipts", Nature { bad_receipts: 300, ..HONEST }, 0.08),
        ("all", Nature { dead: 200, hidden: 300, own: 600, bad_receipts: 100, stale: 50 }, 0.03),
    ];
    for (name, liar, most) in kinds {
        let shares = simulate(&[HONEST, HONEST, HONEST, liar], 20, 120, 5);
        assert!(shares[3] < most, "{name}: {shares:?}");
        assert!(shares[..3].iter().all(|share| *share > 0.24), "{name}: {shares:?}");
    }
}

#[test]
fn who_mends_its_ways_comes_back() {
    let mut ledger = Ledger::default();
    let at = |day: u64| UnixMillis(START + day * DAY_MS);
    for _ in 0..60 {
        ledger.note(at(0), node(0), Finding::Dead);
    }
    let bad = standing(&ledger, &[], node(0), at(0));
    assert_eq!((bad.weight, bad.marks.as_slice()), (WEIGHT_MIN, &[Mark::Offers][..]));
    for day in 1..20 {
        for _ in 0..6 {
            ledger.note(at(day), node(0), Finding::Good);
        }
    }
    assert!(standing(&ledger, &[], node(0), at(20)).weight > Ppm::new(500_000));
}

#[test]
fn a_newcomer_is_asked_at_times_and_climbs() {
    let mut ledger = Ledger::default();
    let now = UnixMillis(START);
    let fresh = standing(&ledger, &[], node(0), now);
    assert!((50_000..200_000).contains(&fresh.weight.ppm()), "{fresh:?}");
    assert_eq!(fresh.marks, [Mark::New]);
    for _ in 0..40 {
        ledger.note(now, node(0), Finding::Good);
    }
    assert_eq!(standing(&ledger, &[], node(0), now).weight, Ppm::ONE);
}

#[test]
fn slander_that_costs_nothing_counts_nothing_and_dear_slander_little() {
    let now = UnixMillis(START);
    let mut reports = Reports::default();
    let bad = Tally { dead: 1_000_000, ..Tally::default() };
    for n in 1..=200 {
        let account = AccountKey::from_secret(&[n; 32]).unwrap();
        let report = evidence(&account, now, vec![(node(0), bad)]);
        reports.add(account.id(), report, payer_weight(0));
    }
    assert!(reports.is_empty());
    let rich = AccountKey::from_secret(&[201; 32]).unwrap();
    let report = evidence(&rich, now, vec![(node(0), bad)]);
    reports.add(rich.id(), report, payer_weight(u64::MAX));
    let reported = reports.together(8);
    assert_eq!((reported[0].accounts, reported[0].tally.dead), (1, 10));
    // Whoever has dealt with it itself believes itself.
    let mut ledger = Ledger::default();
    for _ in 0..REPORTED_MAX {
        ledger.note(now, node(0), Finding::Good);
    }
    assert_eq!(standing(&ledger, &reported, node(0), now).weight, Ppm::ONE);
    assert!(standing(&Ledger::default(), &reported, node(0), now).weight < Ppm::new(50_000));
}

#[test]
fn reports_are_bounded_and_a_later_one_replaces_an_earlier_one() {
    let mut reports = Reports::default();
    let account = AccountKey::from_secret(&[7; 32]).unwrap();
    let at = |ms: u64| UnixMillis(START + ms);
    let tally = |good| Tally { good, ..Tally::default() };
    for (ms, good) in [(10, 3), (5, 9), (20, 4), (20, 8)] {
        let report = evidence(&account, at(ms), vec![(node(1), tally(good))]);
        reports.add(account.id(), report, 10_000_000);
    }
    assert_eq!(reports.together(8)[0].tally.good, 4);
    for n in 0..u32::try_from(REPORTS_MAX).unwrap() + 100 {
        let mut bytes = [9; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let report = evidence(&account, at(30), vec![(node(2), tally(1))]);
        reports.add(AccountId::from_bytes(bytes), report, 1_000_000 + n);
    }
    assert_eq!(reports.len(), REPORTS_MAX);
    assert_eq!(reports.together(1).len(), 1);
    reports.expire(at(9 * DAY_MS));
    assert!(reports.is_empty());
}

#[test]
fn a_ledger_survives_its_text_and_forgets() {
    let mut ledger = Ledger::default();
    for day in 0..40_u64 {
        ledger.note(UnixMillis(START + day * DAY_MS), node(0), Finding::Good);
    }
    assert_eq!(ledger.hours_of(node(0)).count(), 31);
    let text = serde_json::to_string(&ledger).unwrap();
    assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    let mut both = ledger.clone();
    both.add(&ledger);
    assert!(both.hours_of(node(0)).all(|(_, tally)| tally.good == 2));
}

fn row(host: u8, operator: u8, cents: u64, free: u32) -> Listing {
    Listing {
        addr: NodeAddr { node: NodeId::from_bytes([host; 32]), relay: None, direct: Vec::new() },
        operator: AccountId::from_bytes([operator; 20]),
        container: ContainerOffer {
            id: ContainerId::from_bytes([host; 16]),
            class: "cpu-8".parse().unwrap(),
            resources: Resources::default(),
            slots: 4,
            price: Price::per_hour(welkin_types::Usd::from_micros(cents * 10_000)),
            tier: Tier::Container,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        },
        region: Region::local(),
        free,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    }
}

#[test]
fn what_only_one_shows_is_doubted_once_for_each_operator_and_not_for_its_own() {
    let all: Vec<_> = (1..=12).map(|n| row(n, n / 3, n.into(), 1)).collect();
    let some: Vec<_> =
        all.iter().filter(|row| row.operator.as_bytes()[0] % 2 == 0).cloned().collect();
    let seen = |n: usize, operator: u8, rows| Seen {
        indexer: node(n),
        operator: AccountId::from_bytes([operator; 20]),
        rows,
    };
    let comparison = compare(seen(0, 1, &all), seen(1, 99, &some), |_, _| true);
    assert_eq!(comparison.shown, [(node(1), 6), (node(0), 6)]);
    let [doubt] = comparison.doubts.as_slice() else { panic!("{comparison:?}") };
    assert_eq!((doubt.shown_by, doubt.missed_by), (node(0), node(1)));
    assert_eq!(doubt.host.node, NodeId::from_bytes([9; 32]), "not those of operator 1, who shows");
    // What need not be known is not missed; what is busy is not free.
    let none = compare(seen(0, 50, &all), seen(1, 99, &some), |_, indexer| indexer != node(1));
    assert_eq!(none.doubts, []);
    let busy: Vec<_> = all.iter().map(|row| Listing { free: 0, ..row.clone() }).collect();
    let comparison = compare(seen(0, 50, &all), seen(1, 99, &busy), |_, _| true);
    assert_eq!((comparison.shown[0], comparison.doubts.len()), ((node(1), 0), 2));
    assert_eq!(
        expected_own(&all, AccountId::from_bytes([1; 20]), all[5].container.price),
        Ppm::of(3, 6)
    );
}

#[test]
fn who_must_know_a_host_follows_from_the_cards() {
    let indexers: Vec<_> =
        (0..8).map(|n| Home { node: node(n), operator: AccountId::from_bytes([0; 20]) }).collect();
    let host = NodeId::from_bytes([77; 32]);
    assert_eq!(homes(host, &indexers, 16).len(), 8);
    assert_eq!(homes(host, &indexers, 3)[..HOMES_MIN], homes(host, &indexers, HOMES_MIN));
}

#[test]
fn draws_follow_weights() {
    let weights =
        [(node(0), Ppm::new(800_000)), (node(1), Ppm::new(200_000)), (node(2), Ppm::ZERO)];
    let mut first = [0; 3];
    for random in 0..2_000 {
        let order = draw(weights.to_vec(), random);
        assert_eq!(order.len(), 3);
        first[usize::from(order[0].as_bytes()[0]) - 1] += 1;
    }
    assert!((1_500..1_700).contains(&first[0]) && first[2] == 0, "{first:?}");
}

/// Asks three indexers of one region by weight for so many minutes, `per_minute` requests each, and
/// counts how often each was first; all buyers write into one ledger.
fn ordinary_traffic(
    (ledger, from): (&mut Ledger, u64),
    (minutes, per_minute): (u64, u64),
    natures: &[Nature; 3],
    chance: &mut Stream,
) -> [u64; 3] {
    let mut asked = [0; 3];
    for minute in from..from + minutes {
        let now = UnixMillis(START + minute * 60_000);
        let weigh = |n| (node(n), standing(ledger, &[], node(n), now).weight);
        let weights: Vec<_> = (0..3).map(weigh).collect();
        for _ in 0..per_minute {
            let first = draw(weights.clone(), chance.word())[0];
            let place = usize::from(first.as_bytes()[0]) - 1;
            asked[place] += 1;
            let luck = chance.word() % 1_000;
            let finding = match natures[place] {
                of if luck < of.dead => Finding::Dead,
                of if luck < of.dead + of.stale => Finding::Stale,
                _ => Finding::Good,
            };
            ledger.note(now, first, finding);
        }
    }
    asked
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 4, ..ProptestConfig::default() })]

    #[test]
    fn who_offers_dead_hosts_is_hardly_asked_an_hour_later(
        seed: u64, honest_for in 60_u64..400, dead in 300_u64..=1_000, per_minute in 40_u64..90,
    ) {
        let (mut chance, mut ledger) = (Stream::new(seed), Ledger::default());
        let liar = Nature { dead, ..HONEST };
        let mut run = |ledger: &mut Ledger, from, minutes, natures| {
            ordinary_traffic((ledger, from), (minutes, per_minute), natures, &mut chance)
        };
        let before = run(&mut ledger, 0, honest_for, &[HONEST; 3]);
        prop_assert!(before.iter().all(|asked| *asked > before.iter().sum::<u64>() / 4));
        let lying = [HONEST, HONEST, liar];
        run(&mut ledger, honest_for, 60, &lying);
        let after = run(&mut ledger, honest_for + 60, 120, &lying);
        let all: u64 = after.iter().sum();
        // The fewer are dead, the longer it takes to tell it from a bad network.
        let share = if dead < 450 { 10 } else { 50 };
        prop_assert!(after[2] * share < all, "{after:?} after {honest_for} honest minutes");
    }

    #[test]
    fn who_is_on_a_bad_network_is_asked_as_the_others_are(
        seed: u64, dead in 0_u64..50, stale in 0_u64..100, per_minute in 1_u64..60,
    ) {
        let (mut chance, mut ledger) = (Stream::new(seed), Ledger::default());
        let natures = [HONEST, HONEST, Nature { dead, stale, ..HONEST }];
        let mut last = [0; 3];
        // As many as tell: some hundred questions each.
        let hours = 4 + (1_000 / (60 * per_minute)).max(4);
        for hour in 0..hours {
            let asked = ordinary_traffic(
                (&mut ledger, hour * 60), (60, per_minute), &natures, &mut chance,
            );
            // At first all are new.
            if hour >= 4 {
                last.iter_mut().zip(asked).for_each(|(sum, asked)| *sum += asked);
            }
        }
        let all: u64 = last.iter().sum();
        prop_assert!(last[2] * 4 > all, "{last:?} of {:?}", natures[2]);
    }
}

#[test]
fn a_report_is_of_the_last_hours() {
    let mut ledger = Ledger::default();
    let at = |hour: u64| UnixMillis(START + hour * 3_600_000);
    for (hour, finding) in [(1, Finding::Good), (8, Finding::Dead), (9, Finding::Dead)] {
        (0..50).for_each(|_| ledger.note(at(hour), node(0), finding));
    }
    let said = ledger.about(at(9));
    assert_eq!(said, [(node(0), Tally { dead: 100, ..Tally::default() })]);
    assert_eq!(ledger.about(at(4))[0].1.good, 50);
    assert_eq!(ledger.about(at(33)), [], "of another day");
    // Days before yesterday are kept as one.
    ledger.note(at(60), node(0), Finding::Good);
    let hours: Vec<_> = ledger.hours_of(node(0)).map(|(hour, tally)| (hour % 24, *tally)).collect();
    let folded = Tally { good: 50, dead: 100, ..Tally::default() };
    assert_eq!(hours, [(23, folded), (12, Tally { good: 1, ..Tally::default() })]);
    // A file of an earlier version counts by days.
    let text = format!(r#"[{{"day":20000,"indexer":"{}","tally":{{"good":7}}}}]"#, node(0));
    let old: Ledger = serde_json::from_str(&text).unwrap();
    assert_eq!(
        old.hours_of(node(0)).map(|(hour, tally)| (hour, tally.good)).collect::<Vec<_>>(),
        [(20_000 * 24 + 23, 7)]
    );
}
