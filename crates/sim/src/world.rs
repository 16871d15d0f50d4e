//! The clock, the network, and one step after the other.

mod books;
mod buyer;
mod check;
mod host;
mod indexer;
mod laws;

use std::collections::BTreeMap;

use welkin_check::Checker;
use welkin_match::Fleet;
use welkin_proto::{Domain, SignedByAccount, Voucher};
use welkin_types::{LeaseId, NodeId, UnixMillis, Usd};

use crate::actors::{Buyer, Host, Message};
use crate::chance::Chance;
use books::{Books, RELEASE_GRACE_SECONDS, Refusal};

/// How many hosts there are.
const HOSTS: u8 = 5;
/// How many buyers there are.
const BUYERS: u8 = 4;
/// How many vouchers are remembered to be replayed.
const REPLAYED_MAX: usize = 256;
/// When the world begins: a full minute.
const BEGIN_MS: u64 = 29_000_000 * 60_000;

/// A law was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Violation {
    /// The world's seed.
    pub seed: u64,
    /// After how many steps.
    pub step: u64,
    /// What was broken.
    pub what: String,
}

/// What has happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that found candidates.
    pub matched: u64,
    /// Requests that found none.
    pub why_not: u64,
    /// Leases made.
    pub accepted: u64,
    /// Orders refused because no slot was free.
    pub busy: u64,
    /// Orders refused because their buyer could not pay, or came too late.
    pub unfunded: u64,
    /// Vouchers cashed.
    pub redeemed: u64,
    /// Leases ended by their host.
    pub closed: u64,
    /// Leases stopped because nothing covered them.
    pub uncovered: u64,
    /// Reservations that a buyer got back.
    pub released: u64,
    /// Attempts to take money that is not due.
    pub attacks: u64,
    /// Messages that were lost.
    pub lost: u64,
    /// Hosts that vanished.
    pub vanished: u64,
    /// Checks that were reported.
    pub reports: u64,
}

/// What happens at a time.
#[derive(Clone, Debug)]
enum Event {
    Deliver(Message),
    /// The next regular beat of a host.
    BeatDue(usize),
    /// A host looks at its leases.
    MeterDue(usize),
    /// A buyer wants something.
    WantDue(usize),
    /// A host starts or vanishes.
    FateDue(usize),
    /// The indexer forgets, the checker ticks, somebody tries to cheat.
    SecondDue,
}

/// A whole small network. See the crate's page.
#[derive(Debug)]
pub struct World {
    seed: u64,
    step: u64,
    chance: Chance,
    domain: Domain,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    fleet: Fleet,
    books: Books,
    checker: Checker,
    hosts: Vec<Host>,
    buyers: Vec<Buyer>,
    /// The connection that the indexer knows of each host.
    connections: Vec<u64>,
    sent: Vec<SignedByAccount<Voucher>>,
    /// The largest amount that was signed for each lease.
    promised: BTreeMap<LeaseId, Usd>,
    stats: Stats,
}

impl World {
    /// Makes a world.
    ///
    /// # Errors
    ///
    /// [`Violation`] if it can't even begin.
    pub fn new(seed: u64) -> Result<Self, Violation> {
        let broken = |what: &str| Violation { seed, step: 0, what: what.to_owned() };
        let (mut chance, domain) = (Chance::new(seed), Domain::LOCAL);
        let hosts: Result<_, _> =
            (1..=HOSTS).map(|number| Host::new(number, &domain, &mut chance)).collect();
        let buyers: Result<_, _> = (1..=BUYERS).map(Buyer::new).collect();
        let mut world = Self {
            seed,
            step: 0,
            chance,
            domain,
            now: BEGIN_MS,
            queue: BTreeMap::new(),
            queued: 0,
            fleet: Fleet::default(),
            books: Books::new(),
            checker: Checker::new(NodeId::from_bytes([0xcc; 32]), check::CONFIG),
            hosts: hosts.map_err(|_| broken("a host's key"))?,
            buyers: buyers.map_err(|_| broken("a buyer's key"))?,
            connections: vec![0; usize::from(HOSTS)],
            sent: Vec::new(),
            promised: BTreeMap::new(),
            stats: Stats::default(),
        };
        world.begin()?;
        Ok(world)
    }

    fn begin(&mut self) -> Result<(), Violation> {
        for buyer in 0..self.buyers.len() {
            // Some are poor: their money ends while they lease.
            let amount = Usd::from_micros(self.chance.between(20_000, 2_000_000));
            self.books.deposit(self.buyers[buyer].key.id(), amount);
            let at = self.chance.between(1_000, 5_000);
            self.after(at, Event::WantDue(buyer));
        }
        for host in 0..self.hosts.len() {
            let at = self.chance.between(0, 500);
            self.after(at, Event::FateDue(host));
        }
        self.after(1_000, Event::SecondDue);
        Ok(())
    }

    /// What has happened so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Lets the next thing happen and checks every law.
    ///
    /// # Errors
    ///
    /// [`Violation`] naming the law that was broken.
    pub fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Err(self.broken("nothing is left to happen"));
        };
        self.step += 1;
        self.now = at;
        self.happen(event)?;
        self.check_laws()
    }

    /// Lets everybody go home but one host: hosts end their leases, what is abandoned is released.
    ///
    /// # Errors
    ///
    /// [`Violation`] if a law was broken, or money is still aside.
    pub fn finish(&mut self) -> Result<(), Violation> {
        // One never comes home.
        if let Some(host) = self.hosts.iter_mut().max_by_key(|host| host.leases.len()) {
            host.is_up = false;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_up {
                let leases: Vec<_> = self.hosts[host].leases.keys().copied().collect();
                leases.into_iter().try_for_each(|lease| self.end_lease(host, lease))?;
            }
        }
        self.now += 2_000 * RELEASE_GRACE_SECONDS;
        for buyer in 0..self.buyers.len() {
            self.release_abandoned(buyer)?;
        }
        // A host that is down has not heard of it.
        self.check_money()?;
        self.law(self.books.is_settled(), "money is still aside at the end")
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver(message) => self.deliver(message)?,
            Event::BeatDue(host) => {
                if self.hosts[host].is_up {
                    self.send_beat(host);
                }
                self.after(10_000, Event::BeatDue(host));
            }
            Event::MeterDue(host) => {
                self.on_meter(host)?;
                self.after(2_000, Event::MeterDue(host));
            }
            Event::WantDue(buyer) => {
                self.on_want(buyer);
                let pause = self.chance.between(500, 8_000);
                self.after(pause, Event::WantDue(buyer));
            }
            Event::FateDue(host) => self.on_fate(host)?,
            Event::SecondDue => {
                while self.fleet.expire(UnixMillis(self.now)) {}
                self.on_check()?;
                self.on_attack()?;
                self.after(1_000, Event::SecondDue);
            }
        }
        Ok(())
    }

    fn deliver(&mut self, message: Message) -> Result<(), Violation> {
        match message {
            Message::Announce { host, connection, capability } => {
                self.on_announce(host, connection, *capability)?;
            }
            Message::Beat { host, connection, beat } => self.on_beat(host, connection, &beat),
            Message::Lost { host, connection } => self.on_lost(host, connection),
            Message::Match { buyer, want } => self.on_match(buyer, want)?,
            Message::Offers { buyer, want, offers } => self.on_offers(buyer, want, offers)?,
            Message::Open { host, buyer, want, order } => {
                self.on_open(host, buyer, want, &order)?;
            }
            Message::Answer { buyer, want, lease, is_accepted } => {
                self.on_answer(buyer, want, lease, is_accepted)?;
            }
            Message::Usage { buyer, lease, seconds } => self.on_usage(buyer, lease, seconds)?,
            Message::Voucher { host, voucher } => self.on_voucher(host, *voucher)?,
            Message::Stop { host, lease } => self.end_lease(host, lease)?,
        }
        Ok(())
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + ms, self.queued), event);
    }

    /// Sends over a network that delays all, loses some and repeats a few.
    fn send(&mut self, message: Message) {
        if self.chance.happens(4) {
            self.stats.lost += 1;
            return;
        }
        if self.chance.happens(2) {
            let late = self.chance.between(100, 6_000);
            self.after(late, Event::Deliver(message.clone()));
        }
        let delay = self.chance.between(5, 300);
        self.after(delay, Event::Deliver(message));
    }

    /// What the escrow must not have refused.
    fn settled(&self, done: Result<(), Refusal>) -> Result<(), Violation> {
        done.map_err(|refusal| self.broken(&format!("the escrow refused: {refusal}")))
    }

    fn law(&self, holds: bool, what: &str) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(self.broken(what)) }
    }

    fn broken(&self, what: &str) -> Violation {
        Violation { seed: self.seed, step: self.step, what: what.to_owned() }
    }
}
