//! Random histories, honest and hostile, checked after every step against the laws and against
//! the naive model.

use proptest::prelude::*;

use super::model::{Lease, Model};
use super::*;

const ACCOUNTS: usize = 4;
const LEASES: u8 = 3;

/// What is wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    /// Somebody else asks.
    Caller,
    /// Somebody else signs.
    Signer,
    /// Signed for another chain.
    Chain,
    /// Raised after it was signed.
    Bent,
    /// The signature's end is cut off.
    Cut,
    /// Signed for another operator.
    Operator,
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Deposit {
        who: usize,
        amount: u64,
        key: u8,
    },
    Reserve {
        lease: u8,
        buyer: usize,
        operator: usize,
        variant: u8,
        budget: u64,
        amount: u64,
        fault: Fault,
    },
    Redeem {
        lease: u8,
        amount: u64,
        beyond: u64,
        fault: Fault,
    },
    Replay {
        index: usize,
        beyond: u64,
    },
    Close {
        lease: u8,
        amount: Option<u64>,
        fault: Fault,
    },
    Release {
        lease: u8,
        who: usize,
    },
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::Nothing),
        1 => Just(Fault::Caller),
        1 => Just(Fault::Signer),
        1 => Just(Fault::Chain),
        1 => Just(Fault::Bent),
        1 => Just(Fault::Cut),
        1 => Just(Fault::Operator),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..ACCOUNTS;
    let lease = || 0..LEASES;
    prop_oneof![
        1 => (0..4_000_000_u64).prop_map(Step::Wait),
        3 => (who(), 0..300_u64, 0..20_u8)
            .prop_map(|(who, amount, key)| Step::Deposit { who, amount, key }),
        3 => (lease(), who(), who(), 0..2_u8, 0..400_u64, 0..400_u64, fault()).prop_map(
            |(lease, buyer, operator, variant, budget, amount, fault)| Step::Reserve {
                lease, buyer, operator, variant, budget, amount, fault
            }
        ),
        6 => (lease(), 0..400_u64, 0..400_u64, fault())
            .prop_map(|(lease, amount, beyond, fault)| Step::Redeem { lease, amount, beyond, fault }),
        3 => (any::<usize>(), 0..400_u64)
            .prop_map(|(index, beyond)| Step::Replay { index, beyond }),
        1 => (lease(), prop::option::of(0..400_u64), fault())
            .prop_map(|(lease, amount, fault)| Step::Close { lease, amount, fault }),
        1 => (lease(), who()).prop_map(|(lease, who)| Step::Release { lease, who }),
    ]
}

/// The ledger under test, a store of its rows, the model, and what has been signed.
struct World {
    ledger: Ledger,
    accounts: BTreeMap<AccountId, AccountRow>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    treasury: Usd,
    model: Model,
    keys: Vec<AccountKey>,
    now: u64,
    /// The leases' ids change when they are closed, so that a history does not end early.
    rounds: [u8; LEASES as usize],
    sent: Vec<(u8, SignedByAccount<Voucher>)>,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            accounts: BTreeMap::new(),
            leases: BTreeMap::new(),
            treasury: Usd::ZERO,
            model: Model::default(),
            keys: (1..=ACCOUNTS).map(|seed| key(u8::try_from(seed).unwrap())).collect(),
            now: NOW.0,
            rounds: [0; LEASES as usize],
            sent: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let before = self.ledger.clone();
        let (planned, expected) = self.plan(step);
        assert_eq!(planned.is_ok(), expected, "{planned:?}");
        assert_eq!(self.ledger, before, "a plan changes nothing");
        if let Ok(changes) = planned {
            self.accounts.extend(changes.accounts.iter().cloned());
            self.leases.extend(changes.lease);
            self.treasury = changes.treasury.unwrap_or(self.treasury);
            self.ledger.apply(&changes).unwrap();
        }
        self.check(&before);
    }

    fn plan(&mut self, step: Step) -> (Result<Changes, SettleRefusal>, bool) {
        match step {
            Step::Wait(ms) => {
                self.now += ms;
                (Ok(self.ledger.forget(UnixMillis(0))), true)
            }
            Step::Deposit { who, amount, key } => {
                let planned = self.ledger.deposit(self.keys[who].id(), usd(amount), [key; 16]);
                (planned, self.model.deposit(who, amount.into(), key))
            }
            Step::Reserve { lease, buyer, operator, variant, budget, amount, fault } => {
                self.reserve(lease, (buyer, operator), variant, (budget, amount), fault)
            }
            Step::Redeem { lease, amount, beyond, fault } => {
                let id = self.id(lease);
                let promise = self.promise(id, amount, fault);
                let caller = self.caller(id, fault);
                let now = UnixMillis(self.now);
                let planned = self.ledger.redeem(&DOMAIN, now, caller, &promise, usd(beyond));
                if fault == Fault::Nothing {
                    self.sent.push((id, promise));
                }
                let expected = fault == Fault::Nothing
                    && self.model.redeem(id, amount.into(), beyond.into(), self.now);
                (planned, expected)
            }
            Step::Replay { index, beyond } => self.replay(index, beyond),
            Step::Close { lease, amount, fault } => self.close(lease, amount, fault),
            Step::Release { lease, who } => {
                let id = self.id(lease);
                let now = UnixMillis(self.now);
                let planned = self.ledger.release(self.keys[who].id(), lease_id(id), now);
                (planned, self.model.release(id, who, self.now))
            }
        }
    }

    fn reserve(
        &mut self,
        slot: u8,
        (buyer, operator): (usize, usize),
        variant: u8,
        (budget, amount): (u64, u64),
        fault: Fault,
    ) -> (Result<Changes, SettleRefusal>, bool) {
        let rounds = &mut self.rounds[usize::from(slot)];
        let id = slot + *rounds * LEASES;
        if *rounds < 60 && self.model.leases.get(&id).is_some_and(|l| l.is_closed && variant == 0) {
            *rounds += 1;
        }
        let id = self.id(slot);
        let expires = self.now / 1_000_000 * 1_000_000 + 500_000;
        let message = Order {
            task_sha256: [variant; 32],
            expires: UnixMillis(expires),
            ..order(&self.keys[buyer], &self.keys[operator], id, budget)
        };
        let mut signed = self.signed(message, buyer, fault);
        if fault == Fault::Bent {
            signed.message.budget = usd(budget + 1);
        }
        if fault == Fault::Operator {
            signed.message.operator = self.keys[(operator + 1) % ACCOUNTS].id();
        }
        let caller = self.keys[(operator + usize::from(fault == Fault::Caller)) % ACCOUNTS].id();
        let now = UnixMillis(self.now);
        let planned = self.ledger.reserve(&DOMAIN, now, caller, &signed, usd(amount));
        let lease = Lease {
            buyer,
            operator,
            variant,
            budget: budget.into(),
            expires,
            active: self.now,
            aside_in_all: amount.into(),
            paid: 0,
            is_closed: false,
        };
        (planned, fault == Fault::Nothing && self.model.reserve(id, lease, self.now))
    }

    fn replay(&mut self, index: usize, beyond: u64) -> (Result<Changes, SettleRefusal>, bool) {
        let Some(at) = index.checked_rem(self.sent.len()) else {
            return (Ok(self.ledger.forget(UnixMillis(0))), true);
        };
        let (id, promise) = self.sent[at].clone();
        let caller = self.caller(id, Fault::Nothing);
        let now = UnixMillis(self.now);
        let planned = self.ledger.redeem(&DOMAIN, now, caller, &promise, usd(beyond));
        // What was signed before the lease was there is signed by a guess and may not fit it.
        let is_fitting = self.model.leases.get(&id).is_some_and(|lease| {
            promise.message.operator == self.keys[lease.operator].id()
                && promise.signer(&DOMAIN) == Ok(self.keys[lease.buyer].id())
        });
        let amount = promise.message.amount.micros().into();
        (planned, is_fitting && self.model.redeem(id, amount, beyond.into(), self.now))
    }

    fn close(
        &mut self,
        slot: u8,
        amount: Option<u64>,
        fault: Fault,
    ) -> (Result<Changes, SettleRefusal>, bool) {
        let id = self.id(slot);
        let promise = amount.map(|amount| self.promise(id, amount, fault));
        let caller = self.caller(id, fault);
        let now = UnixMillis(self.now);
        let planned = self.ledger.close(&DOMAIN, now, caller, lease_id(id), promise.as_ref());
        let is_faulty = fault == Fault::Caller || fault != Fault::Nothing && amount.is_some();
        let expected = !is_faulty && self.model.close(id, amount.map(Into::into), self.now);
        (planned, expected)
    }

    fn id(&self, slot: u8) -> u8 {
        slot + self.rounds[usize::from(slot)] * LEASES
    }

    fn parties(&self, id: u8) -> (usize, usize) {
        self.model.leases.get(&id).map_or((0, 1), |lease| (lease.buyer, lease.operator))
    }

    fn caller(&self, id: u8, fault: Fault) -> AccountId {
        let shift = usize::from(fault == Fault::Caller);
        self.keys[(self.parties(id).1 + shift) % ACCOUNTS].id()
    }

    fn promise(&self, id: u8, amount: u64, fault: Fault) -> SignedByAccount<Voucher> {
        let (buyer, operator) = self.parties(id);
        let operator = (operator + usize::from(fault == Fault::Operator)) % ACCOUNTS;
        let mut signed = self.signed(voucher(&self.keys[operator], id, amount), buyer, fault);
        if fault == Fault::Bent {
            signed.message.amount = usd(amount + 1);
        }
        signed
    }

    fn signed<T: welkin_proto::Eip712>(
        &self,
        message: T,
        by: usize,
        fault: Fault,
    ) -> SignedByAccount<T> {
        let by = (by + usize::from(fault == Fault::Signer)) % ACCOUNTS;
        let chain_id = DOMAIN.chain_id + u64::from(fault == Fault::Chain);
        let domain = Domain { chain_id, ..DOMAIN };
        let mut signed = SignedByAccount::sign(&domain, &self.keys[by], message).unwrap();
        if fault == Fault::Cut {
            signed.signature.s[16..].fill(0);
        }
        signed
    }

    fn check(&self, before: &Ledger) {
        let micros = |amount: Usd| i128::from(amount.micros());
        let totals = self.ledger.totals();
        let there = micros(totals.available) + micros(totals.held) + micros(totals.treasury);
        assert_eq!(micros(totals.deposited), there);
        assert_eq!(micros(totals.treasury), self.model.treasury());
        for (who, key) in self.keys.iter().enumerate() {
            let view = self.ledger.account(key.id());
            assert_eq!(micros(view.available), self.model.available(who));
            assert_eq!(micros(view.held), self.model.held(who));
            assert_eq!(micros(view.spent), self.model.spent(who));
            assert_eq!(micros(view.earned), self.model.earned(who));
            assert_eq!(micros(view.deposited), self.model.deposited(who));
        }
        assert_eq!(self.ledger.leases().count(), self.model.leases.len());
        for (id, lease) in &self.model.leases {
            let view = self.ledger.lease(lease_id(*id)).unwrap();
            assert_eq!(micros(view.paid), lease.paid);
            assert_eq!(micros(view.held), lease.held());
            assert_eq!(view.closed, lease.is_closed);
            assert!(micros(view.paid) + micros(view.held) <= lease.budget);
        }
        for (id, row) in before.leases() {
            let now = &self.ledger.leases[&id];
            assert!(now.paid >= row.paid && now.fee >= row.fee && now.closed >= row.closed);
            let rest = now.paid.checked_sub(now.fee);
            assert_eq!(rest, Some(now.earned()));
        }
        let (accounts, leases) = (self.accounts.clone(), self.leases.clone());
        let restored = Ledger::restore(accounts, leases, self.treasury).unwrap();
        assert_eq!(restored.accounts, self.ledger.accounts);
        assert_eq!(restored.leases, self.ledger.leases);
        assert_eq!(restored.totals, totals);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn money_is_neither_lost_nor_made(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}
