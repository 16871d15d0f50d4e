//! Random inputs: the checker does what it has drawn, once a minute, and no more at a time than
//! it may.

use proptest::prelude::*;
use welkin_proto::settle::Listed;
use welkin_proto::{ContainerOffer, Seating};
use welkin_types::{AccountId, Class, Price, Region, Resources, Tier};

use super::*;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

pub(super) fn listing(host: u8, number: u8) -> Listing {
    Listing {
        addr: NodeAddr { node: node(host), relay: None, direct: Vec::new() },
        operator: AccountId::from_bytes([0; 20]),
        container: ContainerOffer {
            id: ContainerId::from_bytes([number; 16]),
            class: Class::cpu(1_000),
            resources: Resources::default(),
            slots: 1,
            price: Price::default(),
            tier: Tier::Container,
            features: Vec::new(),
            driver: None,
            apps: Vec::new(),
            spot: None,
            reserved: None,
        },
        region: Region::local(),
        free: 1,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    }
}

fn view(epoch: u64, seed: u8, checkers: u8) -> EpochView {
    let listed = |number| Listed { node: node(number), number: number.into(), vrf: [0; 32] };
    let checkers = (0..checkers).map(listed).collect();
    EpochView { epoch, seed: [seed; 32], checkers, epoch_seconds: 120 }
}

/// What node 0 has drawn for a minute, as if it had proven it.
fn lot(minute: u64) -> (Turn, Lot) {
    let part = [u8::try_from(minute % 251).unwrap(); 32];
    let proof = TurnProof { output: part, challenge: part, response: part };
    (Turn { minute, proof }, Lot::new(part))
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Epoch {
        ahead: u64,
        seed: u8,
        checkers: u8,
    },
    Listings(Vec<(u8, u8)>),
    /// A probe ends, and so much later than the last step.
    Done {
        which: usize,
        online: bool,
        ms: u64,
    },
    Stray,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![8 => 0..4_000_u64, 1 => 0..200_000_u64].prop_map(Step::Wait),
        2 => (0..2_u64, any::<u8>(), 1..6_u8)
            .prop_map(|(ahead, seed, checkers)| Step::Epoch { ahead, seed, checkers }),
        1 => prop::collection::vec((100..103_u8, 0..30_u8), 0..40).prop_map(Step::Listings),
        4 => (any::<usize>(), any::<bool>(), prop_oneof![4 => Just(0_u64), 1 => 0..8_000_u64])
            .prop_map(|(which, online, ms)| Step::Done { which, online, ms }),
        1 => Just(Step::Stray),
    ]
}

/// A checker, and everything it was told and did.
struct World {
    checker: Checker,
    now: u64,
    committees: BTreeMap<u64, Committees>,
    drawn: BTreeSet<u64>,
    listed: BTreeSet<Target>,
    probed: BTreeSet<(Target, u64)>,
    under_way: BTreeMap<(Target, u64), UnixMillis>,
    /// Minutes that were said to be over, by what was known.
    over: BTreeSet<u64>,
}

const CONFIG: Config =
    Config { committee: 2, probes_max: 3, new_max: 2, silent_max: 1, deadline_ms: 5_000 };

impl World {
    fn new() -> Self {
        Self {
            checker: Checker::new(node(0), CONFIG),
            now: 100 * 60_000,
            committees: BTreeMap::new(),
            drawn: BTreeSet::new(),
            listed: BTreeSet::new(),
            probed: BTreeSet::new(),
            under_way: BTreeMap::new(),
            over: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let mut done = None;
        if matches!(step, Step::Epoch { .. } | Step::Listings(_)) {
            self.over.clear();
        }
        let input = match step {
            Step::Wait(ms) => {
                self.now += ms;
                Input::Tick
            }
            Step::Epoch { ahead, seed, checkers } => {
                let view = view(epoch_of(self.now / 60_000, 120) + ahead, seed, checkers);
                let committees = Committees::new(&view, CONFIG.committee);
                self.committees.entry(view.epoch).or_insert(committees);
                Input::Epoch(view)
            }
            Step::Listings(rows) => {
                let rows: Vec<_> = rows.into_iter().map(|(host, id)| listing(host, id)).collect();
                self.listed.extend(rows.iter().map(|row| (row.addr.node, row.container.id)));
                Input::Listings(rows)
            }
            Step::Done { which, online, ms } => {
                self.now += ms;
                let Some(at) = which.checked_rem(self.under_way.len()) else { return };
                let (probe, _) = self.under_way.iter().nth(at).unwrap();
                let finding =
                    if online { Finding::Online { rtt_us: 7 } } else { Finding::NotListed };
                done = Some((*probe, finding));
                let ((host, container), minute) = *probe;
                Input::ProbeDone { host, container, minute, finding }
            }
            Step::Stray => Input::ProbeDone {
                host: node(200),
                container: ContainerId::from_bytes([0; 16]),
                minute: self.now / 60_000,
                finding: Finding::Unreachable,
            },
        };
        self.checker.handle(UnixMillis(self.now), input);
        self.drain(done);
        let now = UnixMillis(self.now);
        if let Some((minute, ..)) = self.checker.ticket_wanted(now) {
            assert!(self.drawn.insert(minute), "one ticket a minute");
            let (turn, lot) = lot(minute);
            self.over.clear();
            self.checker.handle(now, Input::Drawn { turn, lot });
            self.drain(None);
        }
    }

    fn drain(&mut self, mut done: Option<((Target, u64), Finding)>) {
        loop {
            match self.checker.poll() {
                Output::Probe { addr, container, minute, deadline, turn, .. } => {
                    self.check_probe((addr.node, container), minute, deadline, turn.is_some());
                }
                Output::Report(report) => {
                    assert_eq!(report.checker, node(0));
                    let probe = ((report.host, report.container), report.minute);
                    let deadline = self.under_way.remove(&probe).expect("a report of each probe");
                    let (turn, lot) = lot(report.minute);
                    let committees = &self.committees[&epoch_of(report.minute, 120)];
                    let is_drawn = committees.visits(&lot, report.minute, report.container);
                    assert_eq!(report.turn, Some(turn.proof).filter(|_| is_drawn));
                    let expected = done.take_if(|(done, _)| *done == probe);
                    let in_time = expected.filter(|_| deadline.0 >= self.now);
                    let found = in_time.map_or(Finding::Unreachable, |(_, finding)| finding);
                    assert_eq!(report.finding, found);
                    assert!(expected.is_some() || deadline.0 < self.now);
                }
                Output::Idle { wake_at } => {
                    assert!(wake_at.0 > self.now, "no busy waiting");
                    for (_, minute) in self.under_way.keys() {
                        assert!(!self.checker.is_over(*minute));
                    }
                    // Without anything new a minute that is over stays so.
                    let minute = self.now / 60_000;
                    let is_over = self.checker.is_over(minute);
                    assert!(is_over || !self.over.contains(&minute));
                    self.over.extend(Some(minute).filter(|_| is_over));
                    break;
                }
            }
        }
        assert!(self.under_way.values().all(|deadline| deadline.0 >= self.now));
        assert_eq!(self.checker.probes(), self.under_way.len());
    }

    fn check_probe(&mut self, target: Target, minute: u64, deadline: UnixMillis, is_drawn: bool) {
        assert_eq!(minute, self.now / 60_000, "missed minutes are not made up");
        assert!(self.listed.contains(&target));
        let committees = &self.committees[&epoch_of(minute, 120)];
        let (_, lot) = lot(minute);
        let seating = committees.seating(node(0), minute, target.1, Some(&lot));
        match seating {
            Seating::Drawn => assert!(is_drawn),
            Seating::StandIn(_) => assert!(!is_drawn && committees.span().is_last_minute(minute)),
            Seating::Nobody => panic!("only what it has drawn or stands in for"),
        }
        let second = lot.second(target.1);
        assert!(self.now >= minute * 60_000 + u64::from(second) * 1_000, "not too early");
        assert!(self.probed.insert((target, minute)), "once a minute");
        assert!(!self.over.contains(&minute), "what was said to be over is over");
        assert_eq!(deadline.0, self.now + 5_000);
        self.under_way.insert((target, minute), deadline);
        assert!(self.under_way.len() <= CONFIG.probes_max + CONFIG.new_max + CONFIG.silent_max);
    }
}

proptest! {
    #[test]
    fn it_probes_what_it_is_assigned_once_and_reports_each(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}

/// With time to spare, nothing that is assigned is left out, minute after minute.
#[test]
fn quiet_minutes_are_complete() {
    let mut world = World::new();
    world.take(Step::Epoch { ahead: 0, seed: 1, checkers: 5 });
    world.take(Step::Listings((0..30).map(|id| (100, id)).collect()));
    for _ in 0..1_199 {
        world.take(Step::Wait(100));
        world.take(Step::Done { which: 0, online: true, ms: 0 });
    }
    let committees = &world.committees[&50];
    let mut stood_in = 0;
    for (host, container) in &world.listed {
        for minute in [100, 101] {
            let was_probed = world.probed.contains(&((*host, *container), minute));
            let seating = committees.seating(node(0), minute, *container, Some(&lot(minute).1));
            assert_eq!(was_probed, seating != Seating::Nobody);
            // Periods are of a minute: it stands in whether it is needed or not.
            stood_in += usize::from(matches!(seating, Seating::StandIn(_)));
        }
    }
    assert!(world.probed.len() > 10 && stood_in > 0);
}

#[test]
fn it_asks_for_the_epoch_that_it_lacks() {
    let mut checker = Checker::new(node(0), CONFIG);
    assert_eq!(checker.epoch_wanted(UnixMillis(6_000_000), 60), Some(100));
    checker.handle(UnixMillis(6_000_000), Input::Epoch(view(50, 1, 1)));
    assert_eq!(checker.epoch_wanted(UnixMillis(6_000_000), 60), None);
    assert_eq!(checker.epoch_wanted(UnixMillis(6_120_000), 60), Some(51));
    for minute in 100..200_u64 {
        let now = UnixMillis(minute * 60_000);
        checker.handle(now, Input::Epoch(view(minute / 2, 1, 1)));
        checker.handle(now, Input::Epoch(view(u64::MAX - minute, 1, 1)));
        assert_eq!(checker.epoch_wanted(now, 60), None);
    }
    assert_eq!(checker.epochs.len(), EPOCHS_MAX);
}

/// What was drawn decides whom and when: without it nobody is visited.
#[test]
fn it_comes_when_it_has_drawn() {
    let begin = 101 * 60_000;
    let run = |checkers, is_drawn| {
        let mut checker = Checker::new(node(0), CONFIG);
        checker.handle(UnixMillis(begin), Input::Epoch(view(50, 1, checkers)));
        let (turn, lot) = lot(101);
        let other = Turn { minute: 100, ..turn };
        // Of another minute, and another one of the same: they change nothing.
        checker.handle(UnixMillis(begin), Input::Drawn { turn: other, lot });
        if is_drawn {
            checker.handle(UnixMillis(begin), Input::Drawn { turn, lot });
            let lot = Lot::new([8; 32]);
            checker.handle(UnixMillis(begin), Input::Drawn { turn, lot });
        }
        checker.handle(UnixMillis(begin), Input::Listings(vec![listing(100, 3)]));
        for second in 0..60 {
            checker.handle(UnixMillis(begin + second * 1_000), Input::Tick);
            if let Output::Probe { container, .. } = checker.poll() {
                return Some((second, container));
            }
        }
        None
    };
    assert_eq!(run(2, false), None);
    let committees = Committees::new(&view(50, 1, 2), 2);
    let container = ContainerId::from_bytes([3; 16]);
    let second = lot(101).1.second(container);
    assert!(committees.are_all());
    assert_eq!(run(2, true), Some((u64::from(second), container)));
    let committees = Committees::new(&view(50, 1, 9), 2);
    let seating = committees.seating(node(0), 101, container, Some(&lot(101).1));
    let expected = Some((u64::from(second), container)).filter(|_| seating != Seating::Nobody);
    assert_eq!(run(9, true), expected);
}

/// Ticks through a minute and returns who was probed in it, each probe ending at once.
fn minute_of_probes(checker: &mut Checker, minute: u64) -> Vec<ContainerId> {
    let begin = UnixMillis(minute * 60_000);
    checker.handle(begin, Input::Tick);
    let (turn, lot) = lot(minute);
    checker.handle(begin, Input::Drawn { turn, lot });
    let mut probed = Vec::new();
    for second in 0..60 {
        let now = UnixMillis(begin.0 + second * 1_000);
        checker.handle(now, Input::Tick);
        loop {
            match checker.poll() {
                Output::Probe { addr, container, minute, .. } => {
                    probed.push(container);
                    let (host, finding) = (addr.node, Finding::Unreachable);
                    let done = Input::ProbeDone { host, container, minute, finding };
                    checker.handle(now, done);
                }
                Output::Report(_) => (),
                Output::Idle { .. } => break,
            }
        }
    }
    probed
}

/// Who is listed no more is visited until the epoch is over, and those that are listed go on.
#[test]
fn who_falls_silent_is_visited_until_the_epoch_ends() {
    // Epochs of an hour, whose periods are of two and a half minutes.
    let view = |epoch| EpochView { epoch_seconds: 3_600, ..view(epoch, 1, 1) };
    let (epoch, first) = (10_u64, 600);
    let mut checker = Checker::new(node(0), CONFIG);
    checker.handle(UnixMillis(first * 60_000), Input::Epoch(view(epoch)));
    let (silent, there) = (listing(100, 1), listing(101, 2));
    let both = vec![silent.clone(), there.clone()];
    checker.handle(UnixMillis(first * 60_000), Input::Listings(both));
    let mut probed = BTreeMap::<u64, BTreeSet<_>>::new();
    for minute in first..first + 65 {
        let now = UnixMillis(minute * 60_000);
        checker.handle(now, Input::Listings(vec![there.clone()]));
        if minute == first + 60 {
            checker.handle(now, Input::Epoch(view(epoch + 1)));
        }
        probed.insert(minute, minute_of_probes(&mut checker, minute).into_iter().collect());
    }
    for (minute, probed) in probed {
        assert!(probed.contains(&there.container.id), "{minute}");
        assert_eq!(probed.contains(&silent.container.id), minute < first + 60, "{minute}");
    }
}

/// More containers than a list has rows, learnt page by page: all are visited.
#[test]
fn what_comes_page_by_page_is_all_visited() {
    let mut checker = Checker::new(node(0), Config { new_max: 4_096, silent_max: 4_096, ..CONFIG });
    checker.handle(UnixMillis(6_000_000), Input::Epoch(view(50, 1, 1)));
    for host in 100..112 {
        let page = (0..250).map(|number| listing(host, number)).collect();
        checker.handle(UnixMillis(6_000_000), Input::Listings(page));
    }
    assert_eq!(minute_of_probes(&mut checker, 100).len(), 3_000);
}

/// Ticks through a minute in which the dead answer nothing, and their probes last until their deadline;
/// returns who was probed in it.
fn minute_among_the_dead(checker: &mut Checker, minute: u64, live: &[u8]) -> BTreeSet<NodeId> {
    let begin = minute * 60_000;
    checker.handle(UnixMillis(begin), Input::Tick);
    let (turn, lot) = lot(minute);
    checker.handle(UnixMillis(begin), Input::Drawn { turn, lot });
    let mut probed = BTreeSet::new();
    for ms in (0..60_000).step_by(100) {
        let now = UnixMillis(begin + ms);
        checker.handle(now, Input::Tick);
        loop {
            match checker.poll() {
                Output::Probe { addr, container, minute, is_silent, .. } => {
                    let host = addr.node;
                    probed.insert(host);
                    if live.contains(&host.as_bytes()[0]) {
                        assert!(!is_silent);
                        let finding = Finding::Online { rtt_us: 900 };
                        checker.handle(now, Input::ProbeDone { host, container, minute, finding });
                    }
                }
                Output::Report(_) => (),
                Output::Idle { .. } => break,
            }
        }
    }
    probed
}

/// Another 2,000 hosts, of which nobody answers.
fn dead() -> Vec<Listing> {
    let row = |number: u32| {
        let mut bytes = [250; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes[0] = 240;
        let mut row = listing(240, 0);
        row.addr.node = NodeId::from_bytes(bytes);
        row.container.id = ContainerId::from_bytes(*bytes.first_chunk().unwrap());
        row
    };
    (0..2_000).map(row).collect()
}

/// However many hosts are dead, those that answer are visited each in its minute, and the dead ones go
/// on to be visited, as many as there are places for.
#[test]
fn the_dead_keep_nobody_from_visiting_the_living() {
    let view = |epoch| EpochView { epoch_seconds: 86_400, ..view(epoch, 1, 1) };
    let first = 1_440;
    let mut checker = Checker::new(node(0), Config::default());
    let begin = UnixMillis(first * 60_000);
    checker.handle(begin, Input::Epoch(view(1)));
    let live: Vec<u8> = (1..=50).collect();
    checker.handle(begin, Input::Listings(live.iter().map(|host| listing(*host, *host)).collect()));
    let is_live = |host: &NodeId| live.contains(&host.as_bytes()[0]);
    assert_eq!(minute_among_the_dead(&mut checker, first, &live).len(), 50);
    // The dead come, and all are new at first.
    checker.handle(UnixMillis(begin.0 + 60_000), Input::Listings(dead()));
    let mut visited = BTreeMap::<NodeId, usize>::new();
    for minute in first + 1..first + 60 {
        let probed = minute_among_the_dead(&mut checker, minute, &live);
        assert_eq!(probed.iter().filter(|host| is_live(host)).count(), 50, "{minute}");
        let dead: Vec<_> = probed.iter().filter(|host| !is_live(host)).collect();
        // Each place is taken for five seconds, and the second is one of the first 55.
        assert!((150..=600).contains(&dead.len()), "{minute}: {}", dead.len());
        dead.into_iter().for_each(|host| *visited.entry(*host).or_default() += 1);
    }
    // Nobody is spared for ever.
    assert_eq!(visited.len(), 2_000);
    // Who comes now finds a place at once, and keeps it.
    let live: Vec<u8> = (1..=51).collect();
    checker.handle(UnixMillis((first + 60) * 60_000), Input::Listings(vec![listing(51, 51)]));
    for minute in first + 60..first + 63 {
        assert!(minute_among_the_dead(&mut checker, minute, &live).contains(&node(51)));
    }
}
