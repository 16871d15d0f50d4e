//! Carries gossip between this indexer and the others: the thinking is `welkin_match::regions`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{debug, warn};
use welkin_match::prices::Market;
use welkin_match::regions::{Config, Input, Output, Regions};
use welkin_match::trust::Reports;
use welkin_proto::gossip::{
    ClassSummary, Directory, Evidence, Gossip, IndexerCard, Summary, VERSIONS_PER_MESSAGE,
};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, Delegation, Domain, NodeAddr, NodeKey, Signed, SignedByAccount};
use welkin_types::evidence::payer_weight;
use welkin_types::{AccountId, BasisPoints, NodeId, Price, Region, UnixMillis};

use super::Indexer;
use crate::assignments::Assignments;
use crate::connect::Caller;
use crate::outside;
use crate::settlement::Settle;

/// How long another indexer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a card holds.
const CARD_LASTING: Duration = Duration::from_secs(10 * 60);
/// A card is signed anew so often, and whenever the ways to this indexer have changed.
const CARD_EVERY: Duration = Duration::from_secs(3 * 60);
/// How often the region is summed up.
const SUMMARY_EVERY: Duration = Duration::from_secs(15);
/// Questions to others, and look-ups of fees, that are under way at once.
const UNDER_WAY_MAX: usize = 32;
/// What an account pays is looked up again after this.
const FEES_LASTING: Duration = Duration::from_secs(10 * 60);
/// Accounts of which it is remembered.
const FEES_MAX: usize = 4_096;
/// Checkers of which it is remembered for whom they speak.
const CHECKERS_MAX: usize = 4_096;

/// Where an indexer stands among the others.
#[derive(Clone, Debug)]
pub struct Neighbourhood {
    /// The operator's permission for this indexer.
    pub operator: SignedByAccount<Delegation>,
    /// The part of the world that it serves.
    pub region: Region,
    /// The indexers that are known from the start: those of the network's file.
    pub seeds: Vec<NodeAddr>,
}

/// What this indexer knows of the others.
pub(super) struct Neighbours {
    at: Neighbourhood,
    domain: Domain,
    regions: Mutex<Regions>,
    reports: Mutex<Reports>,
    /// What the region had when all containers were last counted, by class.
    counted: Mutex<Option<Vec<ClassSummary>>>,
    /// What accounts have paid in fees, in micro-dollars, and when that was looked up.
    fees: Mutex<BTreeMap<AccountId, (UnixMillis, u64)>>,
    /// For whom each checker has spoken today: for one account.
    checkers: Mutex<BTreeMap<NodeId, (u32, AccountId)>>,
    settle: Settle,
}

/// Something that was under way.
enum Done {
    Input(Input),
    Counted,
}

impl Neighbours {
    pub(super) fn new(at: Neighbourhood, node: NodeId, domain: Domain, settle: Settle) -> Self {
        let chance = u64::from_le_bytes(outside::random());
        let config = Config { node, domain, seeds: at.seeds.clone(), chance };
        Self {
            at,
            domain,
            regions: Mutex::new(Regions::new(config)),
            reports: Mutex::default(),
            counted: Mutex::default(),
            fees: Mutex::default(),
            checkers: Mutex::default(),
            settle,
        }
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What hosts and buyers are told.
    pub(super) fn directory(&self) -> Directory {
        let directory = self.regions().directory();
        Directory { reported: self.reports().together(VERSIONS_PER_MESSAGE), ..directory }
    }

    /// Another indexer's question.
    pub(super) fn gossip(&self, from: NodeId, gossip: Gossip) -> IndexReply {
        match self.regions().answer(outside::now(), from, gossip) {
            Ok(answer) => IndexReply::Gossip(Box::new(answer)),
            Err(why) => IndexReply::Refused(why.to_string()),
        }
    }

    /// Somebody's report of indexers.
    pub(super) fn evidence(&self, signed: Signed<Evidence>) -> IndexReply {
        match self.regions().report(outside::now(), signed) {
            Ok(()) => IndexReply::Reported,
            Err(why) => IndexReply::Refused(why.to_string()),
        }
    }

    fn sign_card(&self, key: &NodeKey, addr: NodeAddr, now: UnixMillis) {
        let card = IndexerCard {
            addr,
            operator: self.at.operator.clone(),
            region: self.at.region.clone(),
            issued: now,
            expires: now.after(CARD_LASTING),
        };
        match Signed::sign(&self.domain, key, &card) {
            Ok(signed) => self.regions().handle(now, Input::Card(Box::new(signed))),
            Err(error) => warn!(%error, "this indexer's card can't be signed"),
        }
    }

    /// Takes a count of all containers; a region of which nothing was ever counted says nothing.
    pub(super) fn counted(&self, market: &Market) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_some() || !market.is_empty() {
            *counted = Some(classes(market, &self.at.region));
        }
    }

    /// Says what this region had at the last count: a large fleet is counted less often than
    /// a summary ends. Returns whether anything was counted yet.
    fn sign_summary(&self, key: &NodeKey, now: UnixMillis) -> bool {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(classes) = counted else { return false };
        let summary = Summary {
            region: self.at.region.clone(),
            // Rises over restarts, as time does.
            version: now.0,
            issued: now,
            classes,
        };
        match Signed::sign(&self.domain, key, &summary) {
            Ok(signed) => self.regions().handle(now, Input::Summary(Box::new(signed))),
            Err(error) => warn!(%error, "this region's summary can't be signed"),
        }
        true
    }

    /// Counts a report by the fees that its account pays, or as a checker's, and carries it on if
    /// it counts.
    async fn count(
        &self,
        assignments: &Assignments,
        (account, evidence): (AccountId, Evidence),
        signed: Signed<Evidence>,
    ) {
        if !self.reports().is_new(account, &evidence) {
            return;
        }
        let as_checker = match self.speaks_for(signed.signer(), evidence.day, account) {
            true => assignments.checkers_weight(signed.signer()).await,
            false => 0,
        };
        let fees = self.fees_of(account).await.unwrap_or(0);
        let weight = payer_weight(fees).max(as_checker);
        if weight == 0 {
            debug!(%account, "a report of an account that pays nothing and is no checker is not counted");
            return;
        }
        self.regions().carry(account, evidence.day, evidence.issued, signed);
        self.reports().add(account, evidence, weight);
    }

    /// Whether a checker speaks for this account today: as many accounts may delegate to one node as
    /// like to, and it has one voice.
    fn speaks_for(&self, checker: NodeId, day: u32, account: AccountId) -> bool {
        let mut checkers = self.checkers.lock().unwrap_or_else(PoisonError::into_inner);
        if checkers.len() >= CHECKERS_MAX {
            checkers.retain(|_, (known, _)| *known >= day);
            if checkers.len() >= CHECKERS_MAX {
                checkers.pop_first();
            }
        }
        let known = checkers.entry(checker).or_insert((day, account));
        if known.0 < day {
            *known = (day, account);
        }
        known.1 == account
    }

    async fn fees_of(&self, account: AccountId) -> Option<u64> {
        let now = outside::now();
        let fees = || self.fees.lock().unwrap_or_else(PoisonError::into_inner);
        let known = fees().get(&account).copied();
        if let Some((at, fees)) = known
            && now.since(at) < FEES_LASTING
        {
            return Some(fees);
        }
        let spent = match self.settle.balance(account).await {
            Ok(view) => view.spent,
            Err(error) => {
                debug!(error = %crate::chain(&error), "fees of a reporter are not known");
                return None;
            }
        };
        let paid = spent.split(BasisPoints::SERVICE_FEE).0.micros();
        let mut fees = fees();
        if fees.len() >= FEES_MAX {
            fees.pop_first();
        }
        fees.insert(account, (now, paid));
        Some(paid)
    }
}

/// Keeps gossip going for ever.
pub(super) async fn keep(indexer: Arc<Indexer>) {
    let mut under_way: JoinSet<Done> = JoinSet::new();
    let mut card_at = tokio::time::Instant::now();
    let mut summary_at = card_at;
    let mut signed_addr = None;
    loop {
        let here = &indexer.neighbours;
        let now = outside::now();
        let addr = crate::wire::from_net(&indexer.endpoint.addr());
        if tokio::time::Instant::now() >= card_at || signed_addr.as_ref() != Some(&addr) {
            card_at = tokio::time::Instant::now() + CARD_EVERY;
            here.sign_card(&indexer.key, addr.clone(), now);
            signed_addr = Some(addr);
        }
        if tokio::time::Instant::now() >= summary_at && here.sign_summary(&indexer.key, now) {
            summary_at = tokio::time::Instant::now() + SUMMARY_EVERY;
            here.reports().expire(now);
        }
        here.regions().handle(now, Input::Tick);
        let wake_at = drain(&indexer, &mut under_way);
        let wait = wake_at.since(outside::now()).min(SUMMARY_EVERY);
        tokio::select! {
            Some(Ok(done)) = under_way.join_next() => {
                if let Done::Input(input) = done {
                    here.regions().handle(outside::now(), input);
                }
            }
            () = tokio::time::sleep(wait) => (),
        }
    }
}

/// Starts all that is to do; returns when to come back.
fn drain(indexer: &Arc<Indexer>, under_way: &mut JoinSet<Done>) -> UnixMillis {
    loop {
        let output = indexer.neighbours.regions().poll();
        match output {
            Output::Idle { wake_at } => return wake_at,
            // What does not fit is asked again in the next round, or reported again.
            _ if under_way.len() >= UNDER_WAY_MAX => {
                debug!("gossip is slow: something is left out")
            }
            Output::Ask { to, gossip } => {
                let indexer = Arc::clone(indexer);
                under_way.spawn(async move { Done::Input(ask(&indexer, *to, gossip).await) });
            }
            Output::Evidence(account, evidence, signed) => {
                let indexer = Arc::clone(indexer);
                under_way.spawn(async move {
                    let report = (account, *evidence);
                    indexer.neighbours.count(&indexer.reports, report, *signed).await;
                    Done::Counted
                });
            }
        }
    }
}

async fn ask(indexer: &Indexer, to: NodeAddr, gossip: Box<Gossip>) -> Input {
    let node = to.node;
    let caller = Caller::new(indexer.endpoint.clone(), to, ALPN_INDEX);
    let hello = IndexHello::Ask(Box::new(IndexRequest::Gossip(gossip)));
    match caller.ask(&hello, ASK_TIMEOUT).await {
        Ok(IndexReply::Gossip(gossip)) => Input::Answer { from: node, gossip },
        Ok(_) => Input::Silent(node),
        Err(error) => {
            debug!(indexer = %node, error = %crate::chain(&error), "an indexer is silent");
            Input::Silent(node)
        }
    }
}

/// What there is of each class in a region. At most so many classes as a summary may have, those
/// with the most slots.
fn classes(market: &Market, region: &Region) -> Vec<ClassSummary> {
    let here = market.series().filter(|(series, _)| series.region.as_ref() == Some(region));
    let mut classes: Vec<_> = here
        .map(|(series, sample)| ClassSummary {
            class: series.class.clone(),
            slots: sample.total(),
            free: sample.free(),
            cheapest: sample.cheapest().map(Price::per_hour),
            median: sample.median().map(Price::per_hour).unwrap_or_default(),
        })
        .collect();
    classes.sort_by(|a, b| b.slots.cmp(&a.slots).then_with(|| a.class.cmp(&b.class)));
    classes.truncate(Summary::CLASSES_MAX);
    classes
}
