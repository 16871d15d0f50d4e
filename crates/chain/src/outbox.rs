//! Which transaction goes out when, with which number and fee: one account's outgoing transactions
//! as a state machine.
//!
//! Every transaction of an account carries the next number (its *nonce*), and takes effect once.
//! The outbox gives out numbers, repeats what a node may have lost, raises the fee of what no block
//! takes, notices when somebody else used the account's number, and calls a transaction done when
//! its block lies as deep as asked; a block that vanishes before is a reorganisation, and its
//! transaction goes out again under the same number. It does no I/O: a [`Step`] is asked for by an
//! [`Event`], and every step may be carried out more than once without harm.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes};
use welkin_types::UnixMillis;

use crate::rpc::Receipt;

/// How the outbox behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxConfig {
    /// How many blocks must lie upon a transaction's block before it is called done.
    pub depth: u64,
    /// The most to pay for a unit of gas, in wei; above it transactions wait.
    pub fee_max: u128,
    /// After how long without a block a transaction is sent again, with a higher fee.
    pub stuck_after: Duration,
    /// How long to wait before asking again for what has not happened yet.
    pub look_every: Duration,
    /// The most transactions out at once.
    pub flying_max: usize,
    /// The most that wait; further ones are refused.
    pub waiting_max: usize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            depth: 0,
            fee_max: 100_000_000_000,
            stuck_after: Duration::from_secs(30),
            look_every: Duration::from_millis(500),
            flying_max: 16,
            waiting_max: 4_096,
        }
    }
}

/// What is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names it to whoever asked.
    pub id: u64,
    /// The contract; none makes one.
    pub to: Option<Address>,
    /// The call's data.
    pub input: Bytes,
    /// The most gas it may use.
    pub gas: u64,
    /// Whether doing it twice is as good as once. Where it is not, a transaction that may have
    /// taken effect is never made again under another number.
    pub is_repeatable: bool,
}

/// The price of gas that a transaction offers, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fees {
    /// The most in all.
    pub max: u128,
    /// Of it for the block's maker.
    pub tip: u128,
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction is asked for.
    Submit(Job),
    /// The chain expects this number next, and gas costs this much.
    State {
        /// The account's next number by the newest block.
        nonce: u64,
        /// The newest block's number.
        head: u64,
        /// What to offer for gas.
        fees: Fees,
    },
    /// The node has taken a transaction.
    Sent {
        /// Its number.
        nonce: u64,
        /// Its hash.
        hash: B256,
    },
    /// The node has not taken a transaction.
    NotSent {
        /// Its number.
        nonce: u64,
        /// What its hash would be.
        hash: B256,
        /// Why not.
        why: NotSent,
    },
    /// What became of a transaction.
    Looked {
        /// Its number.
        nonce: u64,
        /// Its receipt, if it is in a block.
        receipt: Option<Receipt>,
    },
    /// The node can't be reached, whatever it was asked.
    Unreachable,
    /// Time has passed.
    Tick,
}

/// Why a node takes no transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// It has it already.
    Known,
    /// The number is used up.
    NonceTooLow,
    /// Another of the same number offers as much, or a block asks for more.
    Underpriced,
    /// The account can't pay for the gas.
    NoCoins,
    /// Something else.
    Other(String),
}

impl NotSent {
    /// Reads a node's words, which are geth's in most nodes.
    pub fn read(message: &str) -> Self {
        let message = message.to_lowercase();
        let has = |words: &str| message.contains(words);
        if has("already known") || has("already imported") || has("known transaction") {
            Self::Known
        } else if has("nonce too low") || has("nonce is too low") {
            Self::NonceTooLow
        } else if has("underpriced") || has("less than block base fee") || has("fee cap less than")
        {
            Self::Underpriced
        } else if has("insufficient funds") {
            Self::NoCoins
        } else {
            Self::Other(message.chars().take(200).collect())
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for the account's number, the newest block and the price of gas.
    AskState,
    /// Sign and send.
    Send {
        /// Its number.
        nonce: u64,
        /// What it calls.
        job: Job,
        /// What it offers.
        fees: Fees,
    },
    /// Ask what became of any of these, which share a number.
    Look {
        /// Their number.
        nonce: u64,
        /// Their hashes, newest first.
        hashes: Vec<B256>,
    },
    /// Tell whoever asked.
    Done {
        /// Which job.
        id: u64,
        /// What became of it.
        outcome: Outcome,
    },
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a block as deep as asked; whether it took effect stands in the receipt.
    Included(Box<Receipt>),
    /// It was never sent: too many wait.
    Full,
    /// It was never sent, or no node takes it.
    Refused(String),
    /// Somebody else used its number with the same key, and it may not be repeated.
    Replaced,
}

/// What the outbox waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing to do.
    Idle,
    /// Its turn: the account's next number, or transactions before it.
    Turn,
    /// The node to be reached.
    Node,
    /// Gas to become cheaper.
    Gas {
        /// What it would cost, in wei.
        price: u128,
        /// What may be paid.
        limit: u128,
    },
    /// A block to take the oldest transaction.
    Block,
    /// Blocks upon it.
    Depth,
    /// Coins to pay for gas with.
    Coins,
}

#[derive(Clone, Debug)]
struct Flight {
    job: Job,
    fees: Fees,
    /// Of every attempt, newest first.
    hashes: Vec<B256>,
    sent: UnixMillis,
    looked: UnixMillis,
    receipt: Option<Box<Receipt>>,
    /// Whether a node has ever taken it.
    was_taken: bool,
    /// Since when it is in no block though its number is used up.
    missing: Option<UnixMillis>,
}

/// The most attempts of one transaction whose hashes are remembered.
const ATTEMPTS_MAX: usize = 16;

/// The id of a transaction that only fills a number.
const FILLER: u64 = u64::MAX;
/// The gas of a transaction that does nothing.
const FILLER_GAS: u64 = 21_000;

/// One account's outgoing transactions.
#[derive(Debug)]
pub struct Outbox {
    config: OutboxConfig,
    account: Address,
    /// Since when no transaction has the number that the chain expects, though later ones fly.
    gap: Option<UnixMillis>,
    next: Option<u64>,
    /// The account's next number by the newest block that is known.
    chain_next: u64,
    head: u64,
    fees: Fees,
    waiting: VecDeque<Job>,
    flights: BTreeMap<u64, Flight>,
    /// When the state was asked for last.
    asked: Option<UnixMillis>,
    /// Whether that question is on its way.
    is_asking: bool,
    is_reached: bool,
    has_coins: bool,
}

impl Outbox {
    /// Nothing to send yet.
    pub const fn new(config: OutboxConfig, account: Address) -> Self {
        Self {
            config,
            account,
            gap: None,
            next: None,
            chain_next: 0,
            head: 0,
            fees: Fees { max: 0, tip: 0 },
            waiting: VecDeque::new(),
            flights: BTreeMap::new(),
            asked: None,
            is_asking: false,
            is_reached: true,
            has_coins: true,
        }
    }

    /// What it waits for.
    pub fn waiting_for(&self) -> Waiting {
        let is_idle = self.flights.is_empty() && self.waiting.is_empty();
        if is_idle {
            Waiting::Idle
        } else if !self.is_reached {
            Waiting::Node
        } else if !self.has_coins {
            Waiting::Coins
        } else if self.flights.values().any(|flight| flight.receipt.is_none()) {
            Waiting::Block
        } else if !self.flights.is_empty() {
            Waiting::Depth
        } else if self.fees.max > self.config.fee_max {
            Waiting::Gas { price: self.fees.max, limit: self.config.fee_max }
        } else {
            Waiting::Turn
        }
    }

    /// When to come again with [`Event::Tick`] at the latest; none while there is nothing to do.
    pub fn wake(&self, now: UnixMillis) -> Option<UnixMillis> {
        let is_idle = self.flights.is_empty() && self.waiting.is_empty();
        (!is_idle).then(|| now.after(self.config.look_every))
    }

    /// Takes what happened, says what to do.
    pub fn handle(&mut self, now: UnixMillis, event: Event) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::Submit(job) => self.submit(job, &mut steps),
            Event::State { nonce, head, fees } => self.state(now, nonce, head, fees, &mut steps),
            Event::Sent { nonce, hash } => self.sent(now, nonce, hash, &mut steps),
            Event::NotSent { nonce, hash, why } => self.not_sent(now, nonce, hash, why, &mut steps),
            Event::Looked { nonce, receipt } => self.looked(now, nonce, receipt, &mut steps),
            Event::Unreachable => {
                self.is_reached = false;
                // What no node has seen goes out as soon as one is reached.
                for flight in self.flights.values_mut().filter(|flight| flight.hashes.is_empty()) {
                    flight.sent = UnixMillis(0);
                }
                // Asked again only after a pause.
                self.asked = Some(now);
                self.is_asking = false;
                return steps;
            }
            Event::Tick => {}
        }
        self.go_on(now, &mut steps);
        steps
    }

    fn submit(&mut self, job: Job, steps: &mut Vec<Step>) {
        if self.waiting.len() >= self.config.waiting_max {
            steps.push(Step::Done { id: job.id, outcome: Outcome::Full });
            return;
        }
        self.waiting.push_back(job);
    }

    fn state(&mut self, now: UnixMillis, nonce: u64, head: u64, fees: Fees, steps: &mut Vec<Step>) {
        self.is_reached = true;
        self.is_asking = false;
        self.head = head;
        self.fees = fees;
        self.chain_next = nonce;
        let Some((first, _)) = self.flights.first_key_value() else {
            (self.next, self.gap) = (Some(nonce), None);
            return;
        };
        let (is_gap, after_last) = (nonce < *first, self.after_last());
        self.next = Some(after_last.max(nonce));
        if !is_gap {
            self.gap = None;
            return;
        }
        // The chain went back over a transaction that was another sender's. Those after it can't be
        // given other numbers, as they may come in yet; a transaction that does nothing lets them.
        let since = *self.gap.get_or_insert(now);
        let is_cheap = self.fees.max <= self.config.fee_max;
        if is_cheap && now >= since.after(self.config.stuck_after) {
            self.gap = None;
            let job = Job {
                id: FILLER,
                to: Some(self.account),
                input: Bytes::new(),
                gas: FILLER_GAS,
                is_repeatable: false,
            };
            self.take_off(now, nonce, job, steps);
        }
    }

    fn after_last(&self) -> u64 {
        self.flights.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Sends a job under a number.
    fn take_off(&mut self, now: UnixMillis, nonce: u64, job: Job, steps: &mut Vec<Step>) {
        let fees = self.fees;
        let flight = Flight {
            job: job.clone(),
            fees,
            hashes: Vec::new(),
            sent: now,
            looked: now,
            receipt: None,
            was_taken: false,
            missing: None,
        };
        self.flights.insert(nonce, flight);
        steps.push(Step::Send { nonce, job, fees });
    }

    fn sent(&mut self, now: UnixMillis, nonce: u64, hash: B256, steps: &mut Vec<Step>) {
        self.is_reached = true;
        self.has_coins = true;
        let Some(flight) = self.flights.get_mut(&nonce) else { return };
        remember(flight, hash);
        flight.was_taken = true;
        flight.sent = now;
        // Where a block is made at once, it is there already.
        flight.looked = now;
        steps.push(Step::Look { nonce, hashes: flight.hashes.clone() });
    }

    fn not_sent(
        &mut self,
        now: UnixMillis,
        nonce: u64,
        hash: B256,
        why: NotSent,
        steps: &mut Vec<Step>,
    ) {
        self.is_reached = true;
        let Some(flight) = self.flights.get_mut(&nonce) else { return };
        match why {
            NotSent::Known | NotSent::NonceTooLow => {
                // Ours or somebody else's: the receipts tell.
                remember(flight, hash);
                flight.was_taken |= why == NotSent::Known;
                flight.sent = now;
                flight.looked = now;
                steps.push(Step::Look { nonce, hashes: flight.hashes.clone() });
                if why == NotSent::NonceTooLow {
                    self.chain_next = self.chain_next.max(nonce + 1);
                    self.next = None;
                }
            }
            NotSent::Underpriced => {
                flight.fees = raised(flight.fees, self.fees, self.config.fee_max);
            }
            NotSent::NoCoins => self.has_coins = false,
            NotSent::Other(message) => {
                let Some(flight) = self.flights.remove(&nonce) else { return };
                // Numbers after it wait for this one: it is given out again.
                self.next = None;
                let outcome = Outcome::Refused(message);
                done(flight.job.id, outcome, steps);
                self.call_back_after(nonce);
            }
        }
    }

    /// Takes transactions that were not included back, as a number before them is free again.
    fn call_back_after(&mut self, nonce: u64) {
        let later = self.flights.split_off(&nonce);
        for (nonce, flight) in later.into_iter().rev() {
            if flight.receipt.is_some() {
                self.flights.insert(nonce, flight);
            } else {
                self.waiting.push_front(flight.job);
            }
        }
    }

    fn looked(
        &mut self,
        now: UnixMillis,
        nonce: u64,
        receipt: Option<Receipt>,
        steps: &mut Vec<Step>,
    ) {
        self.is_reached = true;
        let Some(flight) = self.flights.get_mut(&nonce) else { return };
        let Some(receipt) = receipt else {
            if flight.receipt.take().is_some() {
                // Its block is gone: out again, under the same number.
                flight.sent = UnixMillis(0);
            }
            flight.looked = now;
            self.maybe_replaced(now, nonce, steps);
            return;
        };
        self.head = self.head.max(receipt.block_number.to());
        let deep = receipt.block_number.to::<u64>().saturating_add(self.config.depth);
        if self.head >= deep {
            if let Some(flight) = self.flights.remove(&nonce) {
                let outcome = Outcome::Included(Box::new(receipt));
                done(flight.job.id, outcome, steps);
            }
        } else {
            flight.receipt = Some(Box::new(receipt));
            flight.missing = None;
            flight.looked = now;
        }
    }

    /// A transaction is in no block. If its number is used up all the same, another of this key
    /// was faster.
    fn maybe_replaced(&mut self, now: UnixMillis, nonce: u64, steps: &mut Vec<Step>) {
        let Some(flight) = self.flights.get_mut(&nonce) else { return };
        if self.chain_next <= nonce {
            flight.missing = None;
            return;
        }
        let since = *flight.missing.get_or_insert(now);
        // Its block may be gone for a moment only; what no node ever took can't come back.
        if flight.was_taken && now < since.after(self.config.stuck_after) {
            return;
        }
        let Some(flight) = self.flights.remove(&nonce) else { return };
        self.next = None;
        if flight.job.is_repeatable || !flight.was_taken {
            self.waiting.push_front(flight.job);
        } else {
            done(flight.job.id, Outcome::Replaced, steps);
        }
    }

    fn go_on(&mut self, now: UnixMillis, steps: &mut Vec<Step>) {
        if self.flights.is_empty() && self.waiting.is_empty() {
            // Numbers are asked for afresh next time: somebody else may use the key meanwhile.
            self.next = None;
            return;
        }
        let is_due = |then: UnixMillis| now >= then.after(self.config.look_every);
        let is_cheap = self.fees.max <= self.config.fee_max;
        let is_urgent = self.next.is_none() && self.is_reached && is_cheap;
        let is_wanted = self.next.is_none() || !is_cheap || !self.flights.is_empty();
        let may_ask = is_urgent || is_wanted && self.asked.is_none_or(is_due);
        if may_ask && !self.is_asking {
            self.is_asking = true;
            self.asked = Some(now);
            steps.push(Step::AskState);
        }
        for (nonce, flight) in &mut self.flights {
            if is_due(flight.looked) && !flight.hashes.is_empty() {
                flight.looked = now;
                steps.push(Step::Look { nonce: *nonce, hashes: flight.hashes.clone() });
            }
            let is_stuck =
                flight.receipt.is_none() && now >= flight.sent.after(self.config.stuck_after);
            if is_stuck {
                if flight.sent > UnixMillis(0) && !flight.hashes.is_empty() {
                    flight.fees = raised(flight.fees, self.fees, self.config.fee_max);
                }
                flight.sent = now;
                let (job, fees) = (flight.job.clone(), flight.fees);
                steps.push(Step::Send { nonce: *nonce, job, fees });
            }
        }
        while let Some(nonce) = self.next.filter(|_| is_cheap)
            && self.flights.len() < self.config.flying_max
            && let Some(job) = self.waiting.pop_front()
        {
            self.next = Some(nonce + 1);
            self.take_off(now, nonce, job, steps);
        }
    }
}

fn done(id: u64, outcome: Outcome, steps: &mut Vec<Step>) {
    if id != FILLER {
        steps.push(Step::Done { id, outcome });
    }
}

fn remember(flight: &mut Flight, hash: B256) {
    if !flight.hashes.contains(&hash) {
        flight.hashes.insert(0, hash);
        flight.hashes.truncate(ATTEMPTS_MAX);
    }
}

/// At least what gas costs now; nodes take a replacement that offers at least a tenth more, and an
/// eighth is usual.
fn raised(fees: Fees, present: Fees, limit: u128) -> Fees {
    let more = |fee: u128| fee.saturating_add(fee / 8).saturating_add(1);
    let max = more(fees.max).max(present.max).min(limit.max(fees.max));
    Fees { max, tip: more(fees.tip).max(present.tip).min(max) }
}
