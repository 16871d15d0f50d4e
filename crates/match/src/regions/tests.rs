//! A simulated network of indexers: rounds, loss, partitions, liars.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::gossip::{ClassSummary, Tally, day_of};
use welkin_proto::{AccountKey, Delegation, NodeKey, SignedByAccount, encode};
use welkin_types::{Price, Region};

use super::*;

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const REGIONS: [&str; 3] = ["de-frankfurt", "us-dallas", "kr-seoul"];

fn key(n: u8) -> NodeKey {
    NodeKey::from_secret(&[n; 32])
}

fn account(n: u8) -> AccountKey {
    AccountKey::from_secret(&[n; 32]).unwrap()
}

fn delegation(operator: u8, node: NodeId) -> SignedByAccount<Delegation> {
    let delegation =
        Delegation { node, expires: START.after(std::time::Duration::from_secs(86_400)) };
    SignedByAccount::sign(&Domain::LOCAL, &account(operator), delegation).unwrap()
}

fn addr(n: u8) -> NodeAddr {
    NodeAddr { node: key(n).id(), relay: None, direct: vec![([127, 0, 0, n], 1).into()] }
}

fn card(n: u8, operator: u8, at: UnixMillis) -> IndexerCard {
    IndexerCard {
        addr: addr(n),
        operator: delegation(operator, key(n).id()),
        region: REGIONS[usize::from(n) % 3].parse().unwrap(),
        issued: at,
        expires: UnixMillis(at.0 + IndexerCard::LASTING_MS_MAX),
    }
}

fn sign<T: welkin_proto::Signable>(n: u8, statement: &T) -> Box<Signed<T>> {
    Box::new(Signed::sign(&Domain::LOCAL, &key(n), statement).unwrap())
}

fn summary(n: u8, version: u64, at: UnixMillis, free: u64) -> Summary {
    let price = |usd: &str| Price::per_hour(usd.parse().unwrap());
    let row = ClassSummary {
        class: "h100-sxm-80".parse().unwrap(),
        slots: 1_000,
        free,
        cheapest: Some(price("2.00")),
        median: price("2.50"),
    };
    Summary {
        region: REGIONS[usize::from(n) % 3].parse().unwrap(),
        version,
        issued: at,
        classes: vec![row],
    }
}

/// A network of indexers with the numbers from 1.
struct World {
    nodes: BTreeMap<NodeId, Regions>,
    now: UnixMillis,
    chance: Stream,
    /// In percent.
    loss: u64,
    /// Who can't reach those who are not in it.
    island: BTreeSet<NodeId>,
    bytes: usize,
    questions: usize,
    largest: usize,
    told: BTreeSet<NodeId>,
}

impl World {
    fn new(count: u8, seed: u64) -> Self {
        let nodes = (1..=count).map(|n| {
            // Everybody is told of the first two only.
            let config = Config {
                node: key(n).id(),
                domain: Domain::LOCAL,
                seeds: vec![addr(1), addr(2)],
                chance: seed.wrapping_mul(1_000).wrapping_add(n.into()),
            };
            (key(n).id(), Regions::new(config))
        });
        let mut world = Self {
            nodes: nodes.collect(),
            now: START,
            chance: Stream::new(seed),
            loss: 0,
            island: BTreeSet::new(),
            bytes: 0,
            questions: 0,
            largest: 0,
            told: BTreeSet::new(),
        };
        (1..=count).for_each(|n| world.speak(n, 1));
        world
    }

    /// An indexer signs anew.
    fn speak(&mut self, n: u8, version: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&key(n).id()).unwrap();
        node.handle(now, Input::Card(sign(n, &card(n, n, now))));
        node.handle(now, Input::Summary(sign(n, &summary(n, version, now, version))));
    }

    fn is_lost(&mut self, one: NodeId, other: NodeId) -> bool {
        self.island.contains(&one) != self.island.contains(&other)
            || self.chance.word() % 100 < self.loss
    }

    fn measure(&mut self, gossip: &Gossip) {
        assert!(gossip.is_bounded());
        let bytes = encode(gossip).unwrap().len();
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
    }

    /// Three seconds of everybody.
    fn round(&mut self) {
        self.now = UnixMillis(self.now.0 + PERIOD_MS);
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let now = self.now;
            self.nodes.get_mut(&id).unwrap().handle(now, Input::Tick);
            loop {
                match self.nodes.get_mut(&id).unwrap().poll() {
                    Output::Idle { wake_at } => {
                        assert!(wake_at > now);
                        break;
                    }
                    Output::Evidence(account, evidence, signed) => {
                        self.told.insert(id);
                        let node = self.nodes.get_mut(&id).unwrap();
                        node.carry(account, evidence.day, evidence.issued, *signed);
                    }
                    Output::Ask { to, gossip } => self.ask(id, to.node, *gossip),
                }
            }
        }
    }

    fn ask(&mut self, from: NodeId, to: NodeId, gossip: Gossip) {
        let now = self.now;
        self.questions += 1;
        self.measure(&gossip);
        let answer = if self.is_lost(from, to) {
            None
        } else {
            self.nodes.get_mut(&to).map(|node| node.answer(now, from, gossip).unwrap())
        };
        // An answer may be lost, too: then the other has learnt and the asker has not.
        let answer = answer.filter(|_| !self.is_lost(to, from));
        if let Some(answer) = &answer {
            self.measure(answer);
        }
        let input = answer.map_or(Input::Silent(to), |gossip| Input::Answer {
            from: to,
            gossip: Box::new(gossip),
        });
        self.nodes.get_mut(&from).unwrap().handle(now, input);
    }

    /// Whether everybody tells of everybody, with this version.
    fn agree(&self, version: u64) -> bool {
        let count = self.nodes.len();
        self.nodes.values().all(|node| {
            let summaries: Vec<_> = node.summaries().collect();
            (node.directory().cards.len() == count || self.loss > 0)
                && summaries.len() == count
                && summaries.iter().all(|summary| summary.version >= version)
        })
    }

    fn rounds_until(&mut self, version: u64, most: usize) -> usize {
        let count = u8::try_from(self.nodes.len()).unwrap();
        let found = (0..most).find(|round| {
            // As in life: everybody speaks again before what it said is too old.
            if round % 10 == 9 {
                (1..=count).for_each(|n| self.speak(n, version + *round as u64 / 10 + 1));
            }
            self.round();
            self.agree(version)
        });
        found.unwrap_or_else(|| panic!("no agreement after {most} rounds")) + 1
    }
}

#[test]
fn everybody_learns_of_everybody_in_a_few_rounds_whatever_is_lost() {
    for (loss, most) in [(0, 18), (30, 40), (60, 120)] {
        for seed in 0..3 {
            let mut world = World::new(16, seed);
            world.loss = loss;
            world.rounds_until(1, most);
            // News travel faster once everybody is known.
            (1..=16).for_each(|n| world.speak(n, 100));
            let rounds = world.rounds_until(100, most / 2 + 5);
            assert!(loss > 0 || rounds <= 8, "{rounds} rounds");
        }
    }
}

#[test]
fn a_part_that_was_cut_off_comes_back() {
    let mut world = World::new(12, 7);
    world.rounds_until(1, 20);
    world.island = (7..=12).map(|n| key(n).id()).collect();
    for version in 2..8 {
        (1..=12).for_each(|n| world.speak(n, version));
        (0..8).for_each(|_| world.round());
    }
    let of = |world: &World, n: u8, other: u8| {
        let mut all = world.nodes[&key(n).id()].summaries();
        all.any(|summary| summary.version == 7 && summary.region == summary_region(other))
    };
    fn summary_region(n: u8) -> Region {
        REGIONS[usize::from(n) % 3].parse().unwrap()
    }
    assert!(of(&world, 1, 3), "each part goes on by itself");
    assert!(!world.agree(7));
    world.island.clear();
    (1..=12).for_each(|n| world.speak(n, 8));
    world.rounds_until(8, 12);
}

#[test]
fn who_is_gone_is_forgotten() {
    let mut world = World::new(6, 3);
    world.rounds_until(1, 20);
    let gone = key(6).id();
    world.nodes.remove(&gone);
    let rounds = usize::try_from(IndexerCard::LASTING_MS_MAX / PERIOD_MS).unwrap() + 5;
    for round in 0..rounds {
        if round % 60 == 0 {
            (1..=5).for_each(|n| world.speak(n, 2 + round as u64));
        }
        world.round();
    }
    for node in world.nodes.values() {
        assert!(node.card(gone).is_none());
        assert_eq!(node.directory().cards.len(), 5);
    }
}

#[test]
fn a_liar_speaks_for_itself_only() {
    let mut world = World::new(5, 11);
    world.rounds_until(1, 20);
    let (now, node) = (world.now, key(1).id());
    let honest = world.nodes[&node].card(key(3).id()).unwrap().0.clone();
    let node = world.nodes.get_mut(&node).unwrap();
    // Another's card, signed by the liar; a card without its operator's word; one of the future;
    // one for ever; one on another chain.
    let mut stolen = card(3, 3, now);
    stolen.addr.direct = vec![([6, 6, 6, 6], 6).into()];
    let unvouched = IndexerCard { operator: delegation(9, key(3).id()), ..card(9, 9, now) };
    let early = card(9, 9, UnixMillis(now.0 + 600_000));
    let eternal = IndexerCard { expires: UnixMillis(u64::MAX), ..card(9, 9, now) };
    let elsewhere = Domain { chain_id: 1, ..Domain::LOCAL };
    let forged = vec![
        *sign(9, &stolen),
        *sign(9, &unvouched),
        *sign(9, &early),
        *sign(9, &eternal),
        Signed::sign(&elsewhere, &key(9), &card(9, 9, now)).unwrap(),
    ];
    let count = forged.len() as u64;
    // A summary of somebody without a card, one of another region than the card's, one that lists
    // more free than there are.
    let mut twice = summary(2, 99, now, 5);
    twice.classes.push(twice.classes[0].clone());
    let summaries = vec![
        *sign(9, &summary(9, 1, now, 5)),
        *sign(2, &Summary { region: REGIONS[0].parse().unwrap(), ..summary(2, 99, now, 5) }),
        *sign(2, &summary(2, 99, now, 1_001)),
        *sign(2, &twice),
    ];
    let before = node.refused();
    let gossip = Gossip { cards: forged, summaries, ..Gossip::default() };
    node.answer(now, key(9).id(), gossip).unwrap();
    assert_eq!(node.refused() - before, count + 4);
    assert_eq!(node.card(key(3).id()).unwrap().0, &honest);
    assert!(node.card(key(9).id()).is_none());
    assert!(node.summaries().all(|summary| summary.version == 1));
    // An older card of an honest one takes nothing back.
    let older = *sign(3, &card(3, 3, UnixMillis(honest.issued.0 - 5)));
    node.answer(now, key(9).id(), Gossip { cards: vec![older], ..Gossip::default() }).unwrap();
    assert_eq!(node.card(key(3).id()).unwrap().0, &honest);
}

#[test]
fn a_flood_of_names_takes_no_room_and_is_told_to_nobody() {
    let mut world = World::new(4, 5);
    world.rounds_until(1, 20);
    let now = world.now;
    let victim = world.nodes.get_mut(&key(1).id()).unwrap();
    for first in (20..=230_u8).step_by(30) {
        let cards = first..first.saturating_add(30).min(240);
        let cards = cards.map(|n| *sign(n, &card(n, n, now))).collect();
        victim.answer(now, key(9).id(), Gossip { cards, ..Gossip::default() }).unwrap();
    }
    assert!(victim.len() <= 4 + UNSEEN_MAX, "{}", victim.len());
    assert_eq!(victim.directory().cards.len(), 4, "what has not answered is not told");
    // Of one operator there are only so many.
    let cards = (20..60).map(|n| *sign(n, &card(n, 99, now))).collect();
    victim.answer(now, key(9).id(), Gossip { cards, ..Gossip::default() }).unwrap();
    let of_one = (20..60).filter(|n| {
        victim.card(key(*n).id()).is_some_and(|(_, operator)| operator == account(99).id())
    });
    assert!(of_one.count() <= OPERATOR_INDEXERS_MAX);
    let long = Gossip { cards: vec![*sign(9, &card(9, 9, now)); 65], ..Gossip::default() };
    assert!(victim.answer(now, key(9).id(), long).is_err());
    // The honest ones go on.
    world.speak(4, 2);
    for _ in 0..12 {
        world.round();
    }
    let of_four = |node: &Regions| node.summaries().filter(|summary| summary.version == 2).count();
    assert!(world.nodes.values().all(|node| of_four(node) == 1));
}

#[test]
fn evidence_reaches_everybody_once() {
    let mut world = World::new(10, 21);
    world.rounds_until(1, 20);
    let now = world.now;
    let tally = Tally { dead: 3, ..Tally::default() };
    let about = vec![(key(2).id(), tally)];
    let reporter = delegation(50, key(50).id());
    let evidence = |issued| Evidence {
        reporter: reporter.clone(),
        day: day_of(now),
        issued,
        about: about.clone(),
    };
    let first = sign(50, &evidence(now));
    world.nodes.get_mut(&key(1).id()).unwrap().report(now, (*first).clone()).unwrap();
    (0..10).for_each(|_| world.round());
    assert_eq!(world.told.len(), 10);
    // Told again, it is nothing new; a forged one is not taken.
    let node = world.nodes.get_mut(&key(1).id()).unwrap();
    node.report(now, *first).unwrap();
    assert!(matches!(node.poll(), Output::Idle { .. }));
    let stranger = Evidence { reporter: delegation(50, key(51).id()), ..evidence(now) };
    assert!(node.report(now, *sign(50, &stranger)).is_err());
    let early = evidence(UnixMillis(now.0 + 120_000));
    assert!(node.report(now, *sign(50, &early)).is_err());
    node.report(now, *sign(50, &evidence(UnixMillis(now.0 + 1)))).unwrap();
    assert!(matches!(node.poll(), Output::Evidence(..)));
}

#[test]
fn messages_are_small() {
    let mut world = World::new(40, 2);
    world.rounds_until(1, 30);
    (world.bytes, world.questions, world.largest) = (0, 0, 0);
    for version in 2..6 {
        (1..=40).for_each(|n| world.speak(n, version));
        (0..5).for_each(|_| world.round());
    }
    let each = world.bytes / 40 / 20;
    assert!(each < 64_000, "{each} bytes a round and indexer, {} questions", world.questions);
    assert!(world.largest < 64_000, "{}", world.largest);
}

#[test]
fn of_three_that_speak_for_a_region_one_may_lie() {
    let at = START;
    let said = [summary(3, 1, at, 400), summary(6, 1, at, 420), summary(9, 1, at, 0)];
    let joined = view(said.iter());
    let region = &joined[&REGIONS[0].parse::<Region>().unwrap()];
    assert_eq!((region.indexers, region.free()), (3, 400));
    assert_eq!(region.cheapest(), Some(Price::per_hour("2.00".parse().unwrap())));
    let silent = Summary { classes: Vec::new(), ..summary(6, 1, at, 0) };
    let said = [summary(3, 1, at, 400), silent, summary(9, 1, at, 10)];
    assert_eq!(view(said.iter()).values().next().unwrap().free(), 10);
}
