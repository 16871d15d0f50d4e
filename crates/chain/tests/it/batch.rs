//! Collected vouchers against a chain that is dear, fails and refuses: none is lost, each is
//! redeemed at its highest value, and in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use welkin_chain::batch::{
    Answer, BATCH_MAX, Batch, BatchConfig, Effect, Entry, Event, GasCost, NoCredit, Offer,
    Standing, Verdict,
};
use welkin_proto::{AccountSignature, SignedByAccount, Voucher};
use welkin_types::{AccountId, BasisPoints, LeaseId, UnixMillis, Usd};

/// Aside for each lease, beyond what is paid.
const HELD: u64 = 600_000;
/// After how long a voucher must be on its way.
const REDEEM_WITHIN: Duration = Duration::from_secs(43_200);
/// How late time may be noticed.
const LATE: Duration = Duration::from_secs(61);
const DUE_MAX: u64 = 2_000_000;
const LEASES_MAX: usize = 16;

fn usd(micros: u64) -> Usd {
    Usd::from_micros(micros)
}

fn lease(n: u8) -> LeaseId {
    LeaseId::from_bytes([n; 16])
}

fn entry(n: u8, amount: u64) -> Entry {
    let voucher = Voucher {
        lease: lease(n),
        operator: AccountId::from_bytes([2; 20]),
        amount: usd(amount),
        seconds: amount / 1_000,
    };
    let signature = AccountSignature { r: [0; 32], s: [0; 32], v: 27 };
    let voucher = SignedByAccount { message: voucher, signature };
    Entry { buyer: AccountId::from_bytes([1; 20]), voucher, beyond: usd(HELD) }
}

#[derive(Clone, Copy, Debug)]
enum Chance {
    /// A voucher for so much more comes for this lease.
    Offer {
        lease: u8,
        more: u64,
    },
    /// An old one comes again.
    Again {
        lease: u8,
    },
    Gas(Option<u64>),
    Wait(u64),
    /// The oldest batch takes effect, but for this lease's voucher.
    Settle {
        refuses: Option<u8>,
    },
    Fail,
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let one = prop_oneof![
        8 => (0..12_u8, 0..400_000_u64).prop_map(|(lease, more)| Chance::Offer { lease, more }),
        1 => (0..12_u8).prop_map(|lease| Chance::Again { lease }),
        3 => prop::option::of(0..200_000_u64).prop_map(Chance::Gas),
        4 => (0..40_000_u64).prop_map(Chance::Wait),
        4 => prop::option::weighted(0.2, 0..12_u8)
            .prop_map(|refuses| Chance::Settle { refuses }),
        2 => Just(Chance::Fail),
    ];
    prop::collection::vec(one, 1..120)
}

struct World {
    batch: Batch,
    now: UnixMillis,
    next_id: u64,
    /// The highest voucher of each lease.
    promised: BTreeMap<LeaseId, u64>,
    paid: BTreeMap<LeaseId, u64>,
    /// When what is unpaid of a lease came.
    since: BTreeMap<LeaseId, UnixMillis>,
    refused: BTreeSet<LeaseId>,
    flying: BTreeMap<u64, Vec<Entry>>,
    asking: BTreeSet<u64>,
    gas: Option<GasCost>,
    is_gas_wanted: bool,
    /// Whether the last batch failed, and since when none has.
    is_failing: bool,
    well_since: UnixMillis,
}

impl World {
    fn new() -> Self {
        let config = BatchConfig {
            share_max: BasisPoints::new(200).unwrap(),
            due_max: usd(DUE_MAX),
            leases_max: LEASES_MAX,
        };
        Self {
            batch: Batch::new(config),
            now: UnixMillis(1_000_000),
            next_id: 0,
            promised: BTreeMap::new(),
            paid: BTreeMap::new(),
            since: BTreeMap::new(),
            refused: BTreeSet::new(),
            flying: BTreeMap::new(),
            asking: BTreeSet::new(),
            gas: Some(GasCost::default()),
            is_gas_wanted: false,
            is_failing: false,
            well_since: UnixMillis(0),
        }
    }

    fn paid(&self, lease: LeaseId) -> u64 {
        self.paid.get(&lease).copied().unwrap_or(0)
    }

    fn event(&mut self, event: Event) {
        let mut effects = self.batch.handle(self.now, event);
        // Gas is told as soon as it is asked for.
        while !effects.is_empty() {
            for effect in effects {
                self.effect(effect);
            }
            effects = Vec::new();
            if std::mem::take(&mut self.is_gas_wanted) {
                effects = self.batch.handle(self.now, Event::Gas(self.gas));
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::AskGas => self.is_gas_wanted = true,
            Effect::Send { batch, entries } => {
                assert!(!entries.is_empty() && entries.len() <= BATCH_MAX);
                let known = self.flying.values().flatten().map(|entry| entry.voucher.message.lease);
                let mut known: BTreeSet<_> = known.collect();
                for entry in &entries {
                    let Voucher { lease, amount, .. } = entry.voucher.message;
                    assert!(known.insert(lease), "{lease} flies twice");
                    assert!(amount.micros() <= self.promised[&lease]);
                }
                assert!(self.flying.insert(batch, entries).is_none());
            }
            Effect::Answer { id, answer } => {
                assert!(self.asking.remove(&id), "{id} is answered twice: {answer:?}");
            }
            Effect::Dropped { lease, .. } => {
                assert!(self.refused.contains(&lease), "{lease} was not refused");
            }
        }
    }

    fn offer(&mut self, n: u8, amount: u64) {
        let (id, lease) = (self.next_id, lease(n));
        self.next_id += 1;
        self.asking.insert(id);
        let standing = Standing {
            paid: usd(self.paid(lease)),
            held: usd(HELD),
            redeem_by: self.now.after(REDEEM_WITHIN),
            is_doubtful: false,
        };
        self.promised.insert(lease, amount.max(self.promised.get(&lease).copied().unwrap_or(0)));
        if self.promised[&lease] > self.paid(lease) {
            self.since.entry(lease).or_insert(self.now);
        }
        self.event(Event::Offered(Offer { id, entry: entry(n, amount), standing }));
    }

    fn settle(&mut self, refuses: Option<u8>) {
        let Some((batch, entries)) = self.flying.pop_first() else { return };
        let mut verdicts = BTreeMap::new();
        for entry in entries {
            let Voucher { lease: of, amount, .. } = entry.voucher.message;
            if refuses.is_some_and(|n| lease(n) == of) {
                verdicts.insert(of, Verdict::Refused([1, 2, 3, 4]));
                self.refused.insert(of);
                continue;
            }
            verdicts.insert(of, Verdict::Paid);
            self.paid.insert(of, self.paid(of).max(amount.micros()));
            self.since.remove(&of);
            if self.promised[&of] > self.paid(of) {
                self.since.insert(of, self.now);
            }
        }
        if std::mem::take(&mut self.is_failing) {
            self.well_since = self.now;
        }
        self.event(Event::Settled { batch, verdicts });
    }

    fn step(&mut self, chance: Chance) {
        match chance {
            Chance::Offer { lease: n, more } => {
                let amount = self.promised.get(&lease(n)).copied().unwrap_or(0) + more;
                self.offer(n, amount);
            }
            Chance::Again { lease: n } => {
                let amount = self.promised.get(&lease(n)).copied().unwrap_or(0) / 2;
                self.offer(n, amount);
            }
            Chance::Gas(each) => {
                self.gas = each.map(|each| GasCost { base: usd(each * 2), each: usd(each) });
                self.event(Event::Gas(self.gas));
            }
            Chance::Wait(seconds) => self.wait(seconds),
            Chance::Settle { refuses } => self.settle(refuses),
            Chance::Fail => {
                if let Some((batch, _)) = self.flying.pop_first() {
                    self.is_failing = true;
                    self.event(Event::Failed { batch });
                }
            }
        }
    }

    /// Lets time pass, waking the batch when it asks to be.
    fn wait(&mut self, seconds: u64) {
        let end = self.now.after(Duration::from_secs(seconds));
        for _ in 0..10_000 {
            let wake = self.batch.wake(self.now).unwrap_or(end);
            assert!(wake > self.now, "it would spin");
            self.now = wake.min(end);
            self.event(Event::Tick);
            self.check();
            if self.now == end {
                return;
            }
        }
        self.now = end;
        self.event(Event::Tick);
    }

    fn check(&self) {
        // What must be on its way is, unless the chain does not take anything.
        let on_way: BTreeSet<_> =
            self.flying.values().flatten().map(|entry| entry.voucher.message.lease).collect();
        let is_full = self.flying.len() >= 4;
        for (lease, since) in &self.since {
            let late = since.after(REDEEM_WITHIN).after(LATE);
            let is_kept = !self.refused.contains(lease);
            if self.now > late && is_kept && !self.is_failing && !is_full {
                let is_well = self.now > self.well_since.after(LATE);
                assert!(!is_well || on_way.contains(lease), "{lease} is late");
            }
        }
        if !self.is_failing && !is_full && self.flying.is_empty() {
            assert!(self.batch.due().micros() < DUE_MAX, "too much is due: {}", self.batch.due());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_voucher_is_lost_and_each_is_redeemed_at_its_highest(chances in chances()) {
        let mut world = World::new();
        for chance in chances {
            world.step(chance);
            world.check();
        }
        // Everything that is open goes out in time, and every offer is answered.
        for _ in 0..2 {
            world.wait(43_200 + 120);
            while !world.flying.is_empty() {
                world.settle(None);
            }
        }
        prop_assert!(world.asking.is_empty(), "not answered: {:?}", world.asking);
        prop_assert_eq!(world.batch.due(), Usd::ZERO);
        for (lease, promised) in &world.promised {
            let is_refused = world.refused.contains(lease);
            prop_assert!(is_refused || world.paid(*lease) == *promised, "{lease}");
        }
    }
}

/// A batch with gas at this cost, in micro-dollars, and what it did with these vouchers.
fn sent(each: u64, vouchers: &[(u8, u64)]) -> (World, Vec<usize>) {
    let mut world = World::new();
    world.gas = Some(GasCost { base: usd(each), each: usd(each) });
    for (lease, amount) in vouchers {
        world.offer(*lease, *amount);
    }
    let sizes = world.flying.values().map(Vec::len).collect();
    (world, sizes)
}

#[test]
fn what_costs_nothing_goes_at_once() {
    assert_eq!(sent(0, &[(1, 10), (2, 0)]).1, [1, 1]);
}

#[test]
fn what_costs_too_much_waits_until_half_of_what_is_aside_is_due() {
    let (mut world, sizes) = sent(1_000, &[(1, 50_000), (2, 50_000)]);
    assert_eq!((sizes, world.asking.len()), (vec![], 0), "kept, and said so");
    // Two percent of 150,000 pay for a transaction with two vouchers.
    world.offer(1, 100_000);
    assert_eq!(world.flying.values().map(Vec::len).collect::<Vec<_>>(), [2]);
    let (mut world, sizes) = sent(1_000_000, &[(1, 299_999), (2, 50_000)]);
    assert_eq!(sizes, [0; 0]);
    world.offer(1, 300_000);
    let only = world.flying.values().flatten().map(|entry| entry.voucher.message.lease);
    assert_eq!(only.collect::<Vec<_>>(), [lease(1)], "the other one is not worth it");
}

#[test]
fn a_batch_has_at_most_a_hundred() {
    let config = BatchConfig { due_max: usd(u64::MAX >> 8), ..BatchConfig::default() };
    let mut world = World::new();
    world.batch = Batch::new(config);
    world.gas = None;
    for n in 0..=200 {
        world.offer(n, 1_000);
    }
    assert!(world.flying.is_empty());
    world.gas = Some(GasCost::default());
    world.wait(60);
    assert_eq!(world.flying.values().map(Vec::len).collect::<Vec<_>>(), [100, 100, 1]);
}

#[test]
fn one_refused_voucher_stops_no_other() {
    let (mut world, _) = sent(100, &[(1, 200_000), (2, 1), (2, 250_000), (3, 299_000)]);
    while !world.flying.is_empty() {
        world.settle(Some(2));
    }
    assert_eq!((world.paid(lease(1)), world.paid(lease(3))), (200_000, 299_000));
    assert_eq!(world.paid(lease(2)), 0);
    assert!(world.asking.is_empty());
}

#[test]
fn who_cannot_redeem_stops_giving_credit_and_says_why() {
    let (mut world, _) = sent(0, &[(1, 290_000)]);
    assert_eq!(world.batch.no_credit(), None);
    let failing = |world: &mut World| {
        while let Some((batch, _)) = world.flying.pop_first() {
            world.event(Event::Failed { batch });
        }
    };
    failing(&mut world);
    for n in 2..9 {
        world.offer(n, 290_000);
        failing(&mut world);
    }
    let why = world.batch.no_credit().unwrap();
    assert!(matches!(why, NoCredit::Due { limit, .. } if limit == usd(DUE_MAX)), "{why}");
    // It goes on by itself as soon as the chain does.
    world.wait(120);
    while !world.flying.is_empty() {
        world.settle(None);
    }
    assert_eq!(world.batch.no_credit(), None);
    assert!(world.asking.is_empty());
}

#[test]
fn the_queue_is_bounded() {
    let mut world = World::new();
    world.gas = Some(GasCost { base: usd(1_000_000), each: usd(1_000_000) });
    for n in 0..16 {
        world.offer(n, 1_000);
    }
    assert_eq!(world.batch.no_credit(), Some(NoCredit::Leases(LEASES_MAX)));
    let offer = Offer {
        id: 77,
        entry: entry(16, 1_000),
        standing: Standing {
            paid: Usd::ZERO,
            held: usd(HELD),
            redeem_by: world.now.after(REDEEM_WITHIN),
            is_doubtful: false,
        },
    };
    let effects = world.batch.handle(world.now, Event::Offered(offer));
    assert!(effects.contains(&Effect::Answer { id: 77, answer: Answer::Full }), "{effects:?}");
    // Who closes a lease takes its voucher along.
    assert_eq!(world.batch.open(lease(3)), Some(&entry(3, 1_000)));
    assert!(world.batch.take(lease(3)).is_empty());
    assert_eq!(world.batch.no_credit(), None);
}
