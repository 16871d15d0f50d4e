//! When vouchers are redeemed, and which together: one operator's open vouchers as a state machine.
//!
//! A transaction costs gas, and a voucher is worth the same later: so vouchers are collected, the
//! newest of each lease in place of the older ones, and go out in batches. At once where gas costs
//! nothing; else when gas costs at most a share of what they bring; and whatever it costs when half
//! of what is aside for a lease is used up, when a voucher must be redeemed by then, or when too
//! much is due in all. It does no I/O: every [`Offer`] gets one [`Answer`], sooner or later, and
//! what is open is never forgotten: it leaves by being paid, or refused, or with its lease's end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use welkin_proto::{SignedByAccount, Voucher};
use welkin_types::{AccountId, BasisPoints, LeaseId, UnixMillis, Usd};

/// The most vouchers of one transaction: what fits a block of any chain.
pub const BATCH_MAX: usize = 100;
/// The most batches on their way.
const FLYING_MAX: usize = 4;
/// How long what gas costs is believed.
const GAS_FRESH: Duration = Duration::from_secs(15);
/// The first pause after a batch that failed; doubled each time.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How vouchers are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// The most that redeeming may cost of what it brings.
    pub share_max: BasisPoints,
    /// The most that may be due in all before it is redeemed whatever that costs.
    pub due_max: Usd,
    /// The most leases with open vouchers.
    pub leases_max: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            share_max: BasisPoints::new(200).unwrap_or(BasisPoints::WHOLE),
            due_max: Usd::from_micros(100_000_000),
            leases_max: 4_096,
        }
    }
}

/// A voucher to be redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who pays.
    pub buyer: AccountId,
    /// The promise.
    pub voucher: SignedByAccount<Voucher>,
    /// How much to have aside beyond it.
    pub beyond: Usd,
}

impl Entry {
    const fn lease(&self) -> LeaseId {
        self.voucher.message.lease
    }

    const fn amount(&self) -> Usd {
        self.voucher.message.amount
    }
}

/// How a voucher's lease stands on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Paid so far.
    pub paid: Usd,
    /// Aside beyond that.
    pub held: Usd,
    /// When it must be on its way.
    pub redeem_by: UnixMillis,
    /// Whether only the chain can tell if the voucher is good, so that it is not to wait.
    pub is_doubtful: bool,
}

/// A voucher that somebody wants to know redeemed, or safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the offer to who made it.
    pub id: u64,
    /// The voucher.
    pub entry: Entry,
    /// How its lease stands.
    pub standing: Standing,
}

/// What gas costs, in money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GasCost {
    /// Of a transaction.
    pub base: Usd,
    /// Of each voucher in it.
    pub each: Usd,
}

/// What became of one voucher of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Paid as far as the buyer's money goes.
    Paid,
    /// Passed over, with the selector of the contract's error.
    Refused([u8; 4]),
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A voucher came.
    Offered(Offer),
    /// Gas costs this much; none: it can't be told now.
    Gas(Option<GasCost>),
    /// A batch has taken effect.
    Settled {
        /// Which.
        batch: u64,
        /// What became of each voucher.
        verdicts: BTreeMap<LeaseId, Verdict>,
    },
    /// A batch has not taken effect.
    Failed {
        /// Which.
        batch: u64,
    },
    /// Time has passed.
    Tick,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask what gas costs.
    AskGas,
    /// Redeem these in one transaction.
    Send {
        /// Names it.
        batch: u64,
        /// At most [`BATCH_MAX`].
        entries: Vec<Entry>,
    },
    /// Tell who offered.
    Answer {
        /// Which offer.
        id: u64,
        /// What became of it.
        answer: Answer,
    },
    /// A voucher is refused by the contract, and nobody waits to hear of it.
    Dropped {
        /// Whose lease.
        lease: LeaseId,
        /// The selector of the contract's error.
        why: [u8; 4],
    },
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is kept, and redeemed when that is worth its gas.
    Kept,
    /// It, or a newer one of its lease, is redeemed by this batch.
    Redeemed(u64),
    /// The contract refuses it, with the selector of its error.
    Refused([u8; 4]),
    /// It could not be sent this time by this batch; it is kept.
    Failed(u64),
    /// It is not kept: there are too many.
    Full,
}

/// Why no further credit should be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCredit {
    /// Redeeming fails, and too much is due.
    #[error("vouchers can't be redeemed now, and {due} are due ({limit} may be)")]
    Due {
        /// So much.
        due: Usd,
        /// The most.
        limit: Usd,
    },
    /// Too many leases have open vouchers.
    #[error("vouchers of {0} leases wait to be redeemed: no more are kept")]
    Leases(usize),
}

#[derive(Debug)]
struct Open {
    entry: Entry,
    standing: Standing,
    /// The offers that were not answered yet.
    asking: BTreeSet<u64>,
    /// Its batch, and the amount there.
    flying: Option<(u64, Usd)>,
    /// Was refused: only the chain can tell whether the newer one is good.
    is_doubtful: bool,
}

impl Open {
    const fn due(&self) -> Usd {
        self.entry.amount().saturating_sub(self.standing.paid)
    }

    /// Whether it goes out whatever gas costs.
    fn is_urgent(&self, now: UnixMillis) -> bool {
        let (due, held) = (self.due().micros(), self.standing.held.micros());
        self.is_doubtful
            || self.standing.is_doubtful
            || now >= self.standing.redeem_by
            || due.saturating_mul(2) >= held
            || held < self.entry.beyond.micros() / 2
    }
}

/// One operator's open vouchers.
#[derive(Debug)]
pub struct Batch {
    config: BatchConfig,
    open: BTreeMap<LeaseId, Open>,
    next_batch: u64,
    flying: BTreeSet<u64>,
    gas: Option<GasCost>,
    /// When what gas costs was said last.
    asked: Option<UnixMillis>,
    is_asking: bool,
    /// How long to pause after the next failure, and until when.
    pause: Duration,
    paused: Option<UnixMillis>,
}

impl Batch {
    /// None is open yet.
    pub const fn new(config: BatchConfig) -> Self {
        Self {
            config,
            open: BTreeMap::new(),
            next_batch: 0,
            flying: BTreeSet::new(),
            gas: None,
            asked: None,
            is_asking: false,
            pause: PAUSE,
            paused: None,
        }
    }

    /// What is due in all.
    pub fn due(&self) -> Usd {
        let sum = self.open.values().map(|open| open.due().micros());
        Usd::from_micros(sum.fold(0, u64::saturating_add).min(Usd::MAX.micros()))
    }

    /// Why no further credit should be given; none: it may.
    pub fn no_credit(&self) -> Option<NoCredit> {
        if self.open.len() >= self.config.leases_max {
            return Some(NoCredit::Leases(self.open.len()));
        }
        let (due, limit) = (self.due(), self.config.due_max);
        (self.paused.is_some() && due >= limit).then_some(NoCredit::Due { due, limit })
    }

    /// A lease's open voucher.
    pub fn open(&self, lease: LeaseId) -> Option<&Entry> {
        self.open.get(&lease).map(|open| &open.entry)
    }

    /// Forgets a lease's open voucher, as closing has paid it; returns the offers of it that were not
    /// answered, and will not be.
    pub fn take(&mut self, lease: LeaseId) -> BTreeSet<u64> {
        self.open.remove(&lease).map(|open| open.asking).unwrap_or_default()
    }

    /// When to come again with [`Event::Tick`] at the latest; none while nothing is open.
    pub fn wake(&self, now: UnixMillis) -> Option<UnixMillis> {
        let waiting = self.open.values().filter(|open| open.flying.is_none());
        let first = waiting.map(|open| open.standing.redeem_by).min()?;
        let gas = self.asked.map_or(now, |asked| asked.after(GAS_FRESH));
        let wake = if self.is_asking { first } else { first.min(gas) };
        // Nothing goes out before a pause's end, and everything is judged anew then.
        let wake = self.paused.filter(|until| *until > now).unwrap_or(wake);
        Some(wake.max(now.after(PAUSE / 20)))
    }

    /// Takes what happened, says what to do.
    pub fn handle(&mut self, now: UnixMillis, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Offered(offer) => self.offered(offer, &mut effects),
            Event::Gas(gas) => {
                (self.gas, self.is_asking, self.asked) = (gas, false, Some(now));
            }
            Event::Settled { batch, verdicts } => self.settled(batch, &verdicts, &mut effects),
            Event::Failed { batch } => self.failed(now, batch, &mut effects),
            Event::Tick => {}
        }
        self.go_on(now, &mut effects);
        effects
    }

    fn offered(&mut self, offer: Offer, effects: &mut Vec<Effect>) {
        let Offer { id, entry, standing } = offer;
        let (lease, is_full) = (entry.lease(), self.open.len() >= self.config.leases_max);
        if let Some(open) = self.open.get_mut(&lease) {
            open.asking.insert(id);
            // An older one that comes late takes nothing away; the later look counts.
            if entry.amount() >= open.entry.amount() {
                open.entry = entry;
            }
            let paid = open.standing.paid.max(standing.paid);
            let redeem_by = open.standing.redeem_by.min(standing.redeem_by);
            open.standing = Standing { paid, redeem_by, ..standing };
            return;
        }
        if is_full {
            effects.push(Effect::Answer { id, answer: Answer::Full });
            return;
        }
        let asking = BTreeSet::from([id]);
        let open = Open { entry, standing, asking, flying: None, is_doubtful: false };
        self.open.insert(lease, open);
    }

    fn settled(
        &mut self,
        batch: u64,
        verdicts: &BTreeMap<LeaseId, Verdict>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.flying.remove(&batch) {
            return;
        }
        (self.pause, self.paused) = (PAUSE, None);
        for lease in self.of(batch) {
            let Some(open) = self.open.get_mut(&lease) else { continue };
            let Some((_, amount)) = open.flying.take() else { continue };
            // A voucher that the batch's receipt does not name was not passed over.
            let verdict = verdicts.get(&lease).copied().unwrap_or(Verdict::Paid);
            let is_newer = open.entry.amount() > amount;
            let answer = match verdict {
                Verdict::Paid => Answer::Redeemed(batch),
                Verdict::Refused(why) => Answer::Refused(why),
            };
            if let Verdict::Refused(why) = verdict
                && open.asking.is_empty()
            {
                effects.push(Effect::Dropped { lease, why });
            }
            for id in std::mem::take(&mut open.asking) {
                effects.push(Effect::Answer { id, answer });
            }
            if !is_newer {
                self.open.remove(&lease);
            } else if verdict == Verdict::Paid {
                let paid = amount.saturating_sub(open.standing.paid);
                open.standing.held = open.standing.held.saturating_sub(paid);
                open.standing.paid = open.standing.paid.max(amount);
            } else {
                open.is_doubtful = true;
            }
        }
    }

    fn failed(&mut self, now: UnixMillis, batch: u64, effects: &mut Vec<Effect>) {
        if !self.flying.remove(&batch) {
            return;
        }
        self.paused = Some(now.after(self.pause));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        for lease in self.of(batch) {
            let Some(open) = self.open.get_mut(&lease) else { continue };
            open.flying = None;
            for id in std::mem::take(&mut open.asking) {
                effects.push(Effect::Answer { id, answer: Answer::Failed(batch) });
            }
        }
    }

    /// The leases of a batch.
    fn of(&self, batch: u64) -> Vec<LeaseId> {
        let of = |open: &Open| open.flying.is_some_and(|(flying, _)| flying == batch);
        self.open.iter().filter(|(_, open)| of(open)).map(|(lease, _)| *lease).collect()
    }

    fn go_on(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        let is_paused = self.paused.is_some_and(|until| now < until);
        while !is_paused && self.flying.len() < FLYING_MAX {
            let leases = self.choose(now);
            if leases.is_empty() {
                break;
            }
            self.send(&leases, effects);
        }
        let is_stuck = |open: &Open| open.is_urgent(now) && open.flying.is_none();
        let is_over = self.due() >= self.config.due_max;
        let is_open = self.open.values().any(|open| open.flying.is_none());
        if is_open && !self.is_asking && !self.is_gas_fresh(now) {
            self.is_asking = true;
            effects.push(Effect::AskGas);
        }
        for open in self.open.values_mut().filter(|open| open.flying.is_none()) {
            // What must go out and can't yet is answered when it went; the others as soon as it is
            // known that waiting is better.
            let is_going = is_stuck(open) || is_over && !open.due().is_zero();
            if is_going || self.is_asking {
                continue;
            }
            for id in std::mem::take(&mut open.asking) {
                effects.push(Effect::Answer { id, answer: Answer::Kept });
            }
        }
    }

    fn is_gas_fresh(&self, now: UnixMillis) -> bool {
        self.asked.is_some_and(|asked| now < asked.after(GAS_FRESH))
    }

    /// The next batch's leases; none where waiting is better.
    fn choose(&self, now: UnixMillis) -> Vec<LeaseId> {
        let waiting = self.open.iter().filter(|(_, open)| open.flying.is_none());
        let is_over = self.due() >= self.config.due_max;
        let (mut urgent, mut others): (Vec<_>, Vec<_>) =
            waiting.partition(|(_, open)| open.is_urgent(now) || is_over && !open.due().is_zero());
        let by_due = |list: &mut Vec<(&LeaseId, &Open)>| {
            list.sort_by_key(|(lease, open)| (std::cmp::Reverse(open.due()), **lease));
        };
        by_due(&mut urgent);
        by_due(&mut others);
        urgent.truncate(BATCH_MAX);
        let mut chosen: Vec<_> = urgent.iter().map(|(lease, _)| **lease).collect();
        let room = BATCH_MAX - chosen.len();
        chosen.extend(self.worth(now, &others, room, !urgent.is_empty()));
        chosen
    }

    /// Of these, largest first, as many as are worth their gas together.
    fn worth(
        &self,
        now: UnixMillis,
        others: &[(&LeaseId, &Open)],
        room: usize,
        is_going: bool,
    ) -> Vec<LeaseId> {
        let Some(gas) = self.gas.filter(|_| self.is_gas_fresh(now)) else { return Vec::new() };
        let base = if is_going { 0 } else { gas.base.micros() };
        let (mut cost, mut due) = (u128::from(base), 0_u128);
        let mut count = 0;
        for (index, (_, open)) in others.iter().take(room).enumerate() {
            cost += u128::from(gas.each.micros());
            due += u128::from(open.due().micros());
            if cost * 10_000 <= due * u128::from(self.config.share_max.points()) {
                count = index + 1;
            }
        }
        others.iter().take(count).map(|(lease, _)| **lease).collect()
    }

    fn send(&mut self, leases: &[LeaseId], effects: &mut Vec<Effect>) {
        let batch = self.next_batch;
        self.next_batch += 1;
        self.flying.insert(batch);
        let mut entries = Vec::with_capacity(leases.len());
        for lease in leases {
            if let Some(open) = self.open.get_mut(lease) {
                open.flying = Some((batch, open.entry.amount()));
                entries.push(open.entry.clone());
            }
        }
        effects.push(Effect::Send { batch, entries });
    }
}
