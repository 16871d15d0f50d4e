//! What indexers know of one another: cards and coarse summaries, spread by gossip.
//!
//! There is no master and no shared database: every indexer signs what it says of itself, others
//! carry it, and a liar can only lie about itself. Every [`PERIOD_MS`] an indexer asks
//! a few others ([`FANOUT`]) with the versions that it has; the answer brings what it lacks, and names what
//! the other lacks, which a second question brings. News reach everybody in a few rounds whatever
//! is lost on the way.
//!
//! Methods are of four kinds. Feed it with [`Regions::handle`], then drain [`Regions::poll`] until
//! [`Output::Idle`]; [`Regions::answer`] is what another's question is answered with; the rest only
//! read. Signatures are checked here, because what is carried on must hold.
//!
//! Everything is bounded: indexers by [`INDEXERS_MAX`], those of one operator by
//! [`OPERATOR_INDEXERS_MAX`], those that have not answered here by [`UNSEEN_MAX`], messages by the
//! bounds of [`Gossip`].

mod exchange;
mod view;

use std::collections::{BTreeMap, VecDeque};

use welkin_proto::gossip::{Evidence, Gossip, GossipRefusal, IndexerCard, Summary};
use welkin_proto::{Domain, NodeAddr, Signed};
use welkin_types::{AccountId, NodeId, UnixMillis};

pub use view::{ClassView, RegionView, view};

use crate::spread::Stream;

/// Time between two rounds.
pub const PERIOD_MS: u64 = 3_000;
/// Indexers that are asked in a round of those that have answered before …
pub const FANOUT: usize = 2;
/// … and of those that have not, or are silent now.
pub const FANOUT_UNSEEN: usize = 4;
/// The most indexers that are known.
pub const INDEXERS_MAX: usize = welkin_proto::gossip::VERSIONS_PER_MESSAGE;
/// The most of one operator.
pub const OPERATOR_INDEXERS_MAX: usize = 8;
/// The most that were heard of and have not answered here yet.
pub const UNSEEN_MAX: usize = 64;
/// Rounds in which news of evidence are carried on.
const RUMOUR_ROUNDS: u8 = 3;
/// The most evidence that is carried on at once.
const RUMOURS_MAX: usize = 256;
/// Reports that wait to be counted.
const EVIDENCE_WAITING_MAX: usize = 256;
/// The most accounts and days of which the version is remembered.
const HEARD_MAX: usize = 8_192;
/// Silent questions in a row after which an indexer counts as gone.
const SILENT_MAX: u8 = 5;

/// Who this is.
#[derive(Clone, Debug)]
pub struct Config {
    /// This indexer.
    pub node: NodeId,
    /// Where signatures hold.
    pub domain: Domain,
    /// The indexers that the network's file names: asked although their cards are not known yet.
    pub seeds: Vec<NodeAddr>,
    /// A number from which choices are drawn.
    pub chance: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// This indexer's own card, newly signed.
    Card(Box<Signed<IndexerCard>>),
    /// This indexer's own summary, newly signed.
    Summary(Box<Signed<Summary>>),
    /// Somebody reports of indexers.
    Evidence(Box<Signed<Evidence>>),
    /// An indexer answered.
    Answer {
        /// Which, by its key.
        from: NodeId,
        /// What it said.
        gossip: Box<Gossip>,
    },
    /// An indexer did not answer.
    Silent(NodeId),
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Ask an indexer.
    Ask {
        /// Whom.
        to: Box<NodeAddr>,
        /// What.
        gossip: Box<Gossip>,
    },
    /// Evidence came that was not known, with its account. Where that account pays fees, it is to be
    /// counted, and carried on by [`Regions::carry`].
    Evidence(AccountId, Box<Evidence>, Box<Signed<Evidence>>),
    /// Nothing until then.
    Idle {
        /// When to tick.
        wake_at: UnixMillis,
    },
}

/// What is known of an indexer.
#[derive(Clone, Debug)]
struct Known {
    signed: Signed<IndexerCard>,
    card: IndexerCard,
    operator: AccountId,
    summary: Option<(Signed<Summary>, Summary)>,
    /// Whether it has asked this indexer something: there is somebody with that key.
    is_heard: bool,
    /// Whether it has answered a question of this indexer: it is where it says.
    is_seen: bool,
    /// Questions in a row that it did not answer.
    silent: u8,
}

impl Known {
    const fn is_confirmed(&self) -> bool {
        self.is_seen && self.silent < SILENT_MAX
    }
}

#[derive(Clone, Debug)]
struct Rumour {
    signed: Signed<Evidence>,
    rounds: u8,
}

/// The state of one indexer's gossip.
#[derive(Clone, Debug)]
pub struct Regions {
    config: Config,
    known: BTreeMap<NodeId, Known>,
    rumours: BTreeMap<(u32, AccountId), Rumour>,
    heard: BTreeMap<(u32, AccountId), UnixMillis>,
    chance: Stream,
    round_at: UnixMillis,
    outputs: VecDeque<Output>,
    refused: u64,
}

impl Regions {
    /// Knows the seeds only.
    pub fn new(config: Config) -> Self {
        let chance = Stream::new(config.chance);
        Self {
            config,
            known: BTreeMap::new(),
            rumours: BTreeMap::new(),
            heard: BTreeMap::new(),
            chance,
            round_at: UnixMillis(0),
            outputs: VecDeque::new(),
            refused: 0,
        }
    }

    /// Takes something that happened. What is forged or out of bounds changes nothing, but is
    /// counted in [`Self::refused`].
    pub fn handle(&mut self, now: UnixMillis, input: Input) {
        let taken = match input {
            Input::Card(signed) => self.take_card(now, *signed),
            Input::Summary(signed) => self.take_summary(now, *signed),
            Input::Evidence(signed) => self.take_evidence(now, *signed),
            Input::Answer { from, gossip } => {
                self.on_answer(now, from, *gossip);
                Ok(())
            }
            Input::Silent(node) => {
                self.on_silent(node);
                Ok(())
            }
            Input::Tick => {
                self.on_tick(now);
                Ok(())
            }
        };
        self.refused += u64::from(taken.is_err());
    }

    /// What to do next.
    pub fn poll(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Idle { wake_at: self.round_at })
    }

    /// Takes somebody's report, and says why not.
    ///
    /// # Errors
    ///
    /// [`GossipRefusal`]
    pub fn report(
        &mut self,
        now: UnixMillis,
        signed: Signed<Evidence>,
    ) -> Result<(), GossipRefusal> {
        self.take_evidence(now, signed)
    }

    /// Carries evidence on for some rounds; it counts as known from now on.
    pub fn carry(
        &mut self,
        account: AccountId,
        day: u32,
        issued: UnixMillis,
        signed: Signed<Evidence>,
    ) {
        let key = (day, account);
        self.heard.insert(key, issued);
        while self.heard.len() > HEARD_MAX {
            self.heard.pop_first();
        }
        if self.rumours.len() < RUMOURS_MAX || self.rumours.contains_key(&key) {
            self.rumours.insert(key, Rumour { signed, rounds: RUMOUR_ROUNDS });
        }
    }

    /// How many cards, summaries and reports were refused.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn on_silent(&mut self, node: NodeId) {
        let Some(known) = self.known.get_mut(&node) else { return };
        known.silent = known.silent.saturating_add(1);
        if known.silent >= SILENT_MAX && !known.is_seen {
            self.known.remove(&node);
        }
    }

    fn on_tick(&mut self, now: UnixMillis) {
        if now < self.round_at {
            return;
        }
        self.expire(now);
        // From three quarters to five quarters, so that indexers don't fall into step.
        let jitter = self.chance.word() % (PERIOD_MS / 2);
        self.round_at = UnixMillis(now.0.saturating_add(PERIOD_MS * 3 / 4 + jitter));
        for to in self.peers() {
            let gossip = Box::new(self.question());
            self.outputs.push_back(Output::Ask { to: Box::new(to), gossip });
        }
        self.rumours.retain(|_, rumour| {
            rumour.rounds = rumour.rounds.saturating_sub(1);
            rumour.rounds > 0
        });
    }

    fn expire(&mut self, now: UnixMillis) {
        self.known.retain(|_, known| known.card.expires >= now);
        for known in self.known.values_mut() {
            let is_old = |(_, summary): &(_, Summary)| summary.check(now).is_err();
            if known.summary.as_ref().is_some_and(is_old) {
                known.summary = None;
            }
        }
        let today = welkin_proto::gossip::day_of(now);
        let is_kept = |day: u32| day.saturating_add(Evidence::DAYS_MAX) >= today;
        self.heard.retain(|(day, _), _| is_kept(*day));
    }

    /// Whom to ask in this round: some who have never answered, and some who have.
    fn peers(&mut self) -> Vec<NodeAddr> {
        let own = self.config.node;
        let others = || self.known.iter().filter(move |(node, _)| **node != own);
        let seeds = self.config.seeds.iter();
        let unmet = seeds.filter(|seed| seed.node != own && !self.known.contains_key(&seed.node));
        let unseen = others().filter(|(_, known)| !known.is_confirmed());
        let unseen = unseen.map(|(_, known)| &known.card.addr);
        let mut first: Vec<&NodeAddr> = unmet.chain(unseen).collect();
        let seen = others().filter(|(_, known)| known.is_confirmed());
        let mut rest: Vec<&NodeAddr> = seen.map(|(_, known)| &known.card.addr).collect();
        let mut peers = Vec::with_capacity(FANOUT + FANOUT_UNSEEN);
        // Each kind has its part of the round, so that a flood of names slows nothing.
        for (kind, count) in [(&mut first, FANOUT_UNSEEN), (&mut rest, FANOUT)] {
            for _ in 0..count.min(kind.len()) {
                peers.push(kind.swap_remove(self.chance.below(kind.len())).clone());
            }
        }
        peers
    }
}

#[cfg(test)]
mod tests;
