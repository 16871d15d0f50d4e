//! Keeps the book of all epochs, and brings each epoch's root to the settlement contract.
//!
//! For each epoch that the contract awaits, the network's epoch that belongs to it is settled from the
//! published evidence, upon the book of all epochs before. What came out is written down first. Where this
//! account is a member of the committee it is signed, and the signature travels through the indexers; with a
//! quorum one member after the other has its turn to propose it, and when the window is over to make it
//! count ([`welkin_check::roots`]).
//!
//! Nothing is signed that was not found here, and of an epoch nothing else than what was found first: so no
//! two roots have a quorum. A checker that has missed epochs settles them anew from what indexers still show,
//! and goes on where it finds the roots that count. Where it does not it says from which epoch on, and
//! signs nothing.

mod pages;
mod reason;
mod sending;
mod status;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, error, info, warn};
use welkin_chain::ops::committee::{self, Counted, Grants, Standing};
use welkin_chain::ops::{Act, OpsError};
use welkin_check::roots::{Contract, Council, Found, Proposal, Step, epoch_within};
use welkin_ledger::epoch::{Book, Emissions};
use welkin_proto::epoch::Span;
use welkin_proto::{AccountKey, AccountSignature};
use welkin_types::{AccountId, UnixMillis};

use super::Deps;
use super::evidence::{self, ATTEMPTS_WHOLE, PAUSE_MAX, SETTLED_AFTER, SPREAD_MAX, Unfound};
use super::unheard::Unheard;
use crate::connect::Caller;
use crate::epoch::{BookFile, Published, TARGET_MICROS, contract_epoch, outcome};
use crate::outside;
use crate::settlement::{Contracts, account};
use pages::{Page, Pages};
use reason::State;
use sending::Sending;

pub use pages::{CountedClaims, PageError};
pub use reason::{Concern, RootsReason};
pub use status::RootsStatus;

/// How often the contract and the indexers are looked at: a 32nd of an epoch within these bounds.
const LOOK_MIN: Duration = Duration::from_secs(2);
const LOOK_MAX: Duration = Duration::from_secs(60);
/// After so many looks it is the next member's turn.
const LOOKS_A_TURN: u32 = 4;

/// What bringing roots needs beside what every checker has.
#[derive(Debug)]
pub struct RootsDeps {
    /// The operator's account, which signs where it is a member of the committee.
    pub account: AccountKey,
    /// The folder of the book.
    pub dir: PathBuf,
}

/// Keeps the book and brings roots, for ever.
pub(super) async fn run(
    deps: Arc<Deps>,
    own: RootsDeps,
    indexers: Arc<Vec<Caller>>,
    unheard: Unheard,
) {
    let Some(contracts) = deps.settle.contracts() else {
        let state = State::new(RootsReason::NoContracts, RootsReason::NoContracts.meaning());
        return stopped(&own, state).await;
    };
    let (dir, unreadable) = (own.dir.clone(), State::of(RootsReason::BookUnreadable));
    let pages = match tokio::task::spawn_blocking(move || Pages::open(dir)).await {
        Ok(Ok(pages)) => Arc::new(Mutex::new(pages)),
        Ok(Err(error)) => return stopped(&own, unreadable(&error)).await,
        Err(error) => return stopped(&own, unreadable(&error)).await,
    };
    let epoch_seconds = evidence::epoch_seconds(&deps).await;
    let look = Duration::from_secs(epoch_seconds / 32).clamp(LOOK_MIN, LOOK_MAX);
    let council = Council::new(own.account.id(), look * LOOKS_A_TURN);
    let status = RootsStatus::new(own.account.id());
    let spread = f64::from(outside::random::<1>()[0]) / 256.0;
    let (tries, refused, unshown, said) = (0, 0, (0, 0), None);
    let role = Role {
        deps,
        own,
        contracts,
        indexers,
        unheard,
        pages,
        council,
        epoch_seconds,
        look,
        spread,
        tries,
        sending: Sending::new(),
        refused,
        unshown,
        status,
        said,
    };
    role.run().await;
}

/// It can't begin.
async fn stopped(own: &RootsDeps, state: State) {
    let (code, next) = (state.reason.code(), state.reason.next());
    error!(code, why = state.text, next, "no root is signed");
    status::tell(own, RootsStatus::new(own.account.id()).at(state)).await;
}

struct Role {
    deps: Arc<Deps>,
    own: RootsDeps,
    contracts: Contracts,
    indexers: Arc<Vec<Caller>>,
    unheard: Unheard,
    pages: Arc<Mutex<Pages>>,
    council: Council,
    epoch_seconds: u64,
    look: Duration,
    /// Which part of the spread this checker waits for.
    spread: f64,
    /// How often in a row it has failed.
    tries: u32,
    sending: Sending,
    /// How often the contract took nothing of what was sent.
    refused: u32,
    /// How often the evidence of this epoch was not shown by all.
    unshown: (u32, u32),
    status: RootsStatus,
    /// What was told last.
    said: Option<RootsStatus>,
}

impl Role {
    async fn run(mut self) {
        loop {
            let pause = match self.round().await {
                Ok((state, pause)) => {
                    self.tries = 0;
                    self.tell(state).await;
                    pause
                }
                Err(state) => {
                    self.tries = self.tries.saturating_add(1);
                    self.tell(state).await;
                    let longer = 2_u32.saturating_pow(self.tries.min(8));
                    self.look.saturating_mul(longer).min(PAUSE_MAX)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Logs and shows how it stands, where that is new.
    async fn tell(&mut self, state: State) {
        self.status = self.status.clone().at(state);
        self.status.refused = self.unheard.shown();
        if self.said.as_ref() == Some(&self.status) {
            return;
        }
        let told = |status: &RootsStatus| (status.number, status.reason, status.state.clone());
        if self.said.as_ref().map(told) != Some(told(&self.status)) {
            let RootsStatus { number, reason, ref state, .. } = self.status;
            let (code, next) = (reason.code(), reason.next());
            match reason.concern() {
                Concern::Waits => info!(number, code, state, "the root of an epoch"),
                Concern::Retries => warn!(number, code, state, next, "a root is tried again"),
                Concern::Stopped => {
                    warn!(number, code, state, next, "somebody should look at a root")
                }
            }
        }
        status::tell(&self.own, self.status.clone()).await;
        self.said = Some(self.status.clone());
    }

    /// Looks at how things stand and does what is to be done; what it waits for then, and for how long.
    async fn round(&mut self) -> Result<(State, Duration), State> {
        let standing = committee::standing(self.contracts.desk()).await;
        let standing = standing.map_err(silent)?;
        self.status.look(&standing, self.own.account.id());
        self.follow(&standing).await?;
        let book = self.pages().number();
        self.status.own_book(book);
        let number = standing.counted.saturating_add(1);
        if self.pages().next().is_none() {
            let epoch = self.epoch_of(standing.next_ends)?;
            let opens = self.settled_from(epoch);
            let wait = opens.since(outside::now());
            if !wait.is_zero() {
                let text = format!("the evidence of the network's epoch {epoch} is open");
                let state = State::new(RootsReason::EvidenceOpen, text);
                return Ok((state, wait.clamp(self.look, LOOK_MAX)));
            }
            let page = self.settle(number, standing.next_ends, standing.grants).await?;
            info!(number, epoch, root = %page.root, "the root of an epoch is found");
            self.put_next(page).await?;
        }
        // Who is no member only watches.
        let pause = if self.status.is_member { self.look } else { LOOK_MAX };
        Ok((self.bring(&standing).await?, pause))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch_of(&self, ends: u64) -> Result<u64, State> {
        epoch_within(ends, self.epoch_seconds).ok_or_else(|| {
            let length = self.epoch_seconds;
            let text = format!("an epoch has {length} seconds, more than the contract's");
            State::new(RootsReason::EpochTooLong, text)
        })
    }

    /// When an epoch is settled: its evidence is closed and on the disks, and not all come at once.
    fn settled_from(&self, epoch: u64) -> UnixMillis {
        let span = Span::of(epoch, self.epoch_seconds);
        let period = Duration::from_secs(span.period_seconds.into());
        let spread = period.min(SPREAD_MAX).mul_f64(self.spread);
        UnixMillis(span.closes().saturating_mul(1_000)).after(SETTLED_AFTER + spread)
    }

    /// Brings the book up to the last epoch that counts.
    async fn follow(&mut self, standing: &Standing) -> Result<(), State> {
        let (number, root) = {
            let pages = self.pages();
            (pages.number(), pages.counted().map(|page| page.root))
        };
        let (counted, theirs) = (standing.counted, standing.root);
        if number > counted || (number == counted && root.is_some_and(|root| root != theirs)) {
            let text = format!(
                "the book in {} stands after epoch {number}, and the contract counts {counted} with \
                 another root",
                self.own.dir.display()
            );
            return Err(State::new(RootsReason::OtherBook, text));
        }
        if number == counted {
            return Ok(());
        }
        let missed = committee::counted_after(self.contracts.desk(), standing, number).await;
        for epoch in missed.map_err(silent)? {
            self.catch_up(epoch).await?;
        }
        Ok(())
    }

    /// Enters an epoch that counts: as it was found here before, or is found now.
    async fn catch_up(&mut self, counted: Counted) -> Result<(), State> {
        let Counted { number, root, ends, grants } = counted;
        let known = self.pages().next().map(|page| page.root);
        if known != Some(root) {
            let page = self.settle(number, ends, grants).await.map_err(|state| {
                let why = state.text;
                let text = format!(
                    "epoch {number} counts and can't be settled here, so that from it on nothing is \
                     signed: {why}"
                );
                State::new(state.reason, text)
            })?;
            if page.root != root {
                let text = format!(
                    "the contract counts the root {root} of epoch {number}, and {} is found here",
                    page.root
                );
                return Err(State::new(RootsReason::OtherCounted, text));
            }
            self.put_next(page).await?;
        }
        let pages = Arc::clone(&self.pages);
        let turn = move || pages.lock().unwrap_or_else(PoisonError::into_inner).turn();
        on_disk(turn).await?;
        info!(number, %root, "an epoch counts");
        Ok(())
    }

    async fn put_next(&self, page: Page) -> Result<(), State> {
        let pages = Arc::clone(&self.pages);
        on_disk(move || pages.lock().unwrap_or_else(PoisonError::into_inner).put_next(page)).await
    }

    /// Settles the network's epoch that belongs to one of the contract's, upon the book.
    async fn settle(&mut self, number: u32, ends: u64, grants: Grants) -> Result<Page, State> {
        let epoch = self.epoch_of(ends)?;
        let view = self.deps.settle.epoch(epoch).await.map_err(silent)?;
        if self.unshown.0 != number {
            self.unshown = (number, 0);
        }
        let is_last = self.unshown.1 >= ATTEMPTS_WHOLE;
        let published = evidence::published(&self.deps, &self.indexers, view, is_last).await;
        let published = published.map_err(|why| {
            // Where nobody shows anything it is as likely this checker that is cut off.
            if matches!(why, Unfound::Partly(_)) {
                self.unshown.1 = self.unshown.1.saturating_add(1);
            }
            State::new((&why).into(), format!("the network's epoch {epoch}: {why}"))
        })?;
        let pages = Arc::clone(&self.pages);
        let settling = tokio::task::spawn_blocking(move || {
            let before = {
                let pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
                pages.counted().map(|page| page.book.clone())
            };
            settled(published, before, (number, grants))
        });
        settling.await.unwrap_or_else(|error| Err(State::of(RootsReason::Unsettled)(&error)))
    }

    /// Signs, proposes, and makes count what was found for the awaited epoch.
    async fn bring(&mut self, standing: &Standing) -> Result<State, State> {
        let desk = self.contracts.desk().clone();
        let page = self.pages().next().map(|page| (page.contract(), page.epoch, page.seed.0));
        let Some((epoch, of, seed)) = page else {
            return Ok(State::new(RootsReason::NothingFound, RootsReason::NothingFound.meaning()));
        };
        self.status.found(of, epoch.root);
        if self.epoch_of(standing.next_ends)? != of {
            let text = format!(
                "what is in {} was found for another epoch of the network ({of})",
                self.own.dir.display()
            );
            return Err(State::new(RootsReason::OtherBook, text));
        }
        let digest = committee::digest(&desk, &epoch).await.map_err(silent)?;
        if committee::is_dropped(&desk, digest).await.map_err(silent)? {
            let text =
                format!("a court has dropped the root {} of epoch {}", epoch.root, epoch.number);
            return Err(State::new(RootsReason::Dropped, text));
        }
        if let Some(Err(why)) = self.sending.ended() {
            info!(why, "what was sent to the contract has failed");
            self.refused = self.refused.wrapping_add(1);
        }
        let is_over = outside::now().0 / 1_000 >= standing.next_ends;
        let found = Found { number: epoch.number, root: epoch.root.0, seed, is_over };
        let contract = self.contract(standing, found.root).await;
        let signatures = self.exchange(&contract, &found, digest).await;
        let signers = signatures.keys().copied().collect();
        self.status.signed = signatures.len();
        let step = self.council.next(outside::now(), &contract, &found, &signers);
        if !matches!(step, Step::Wait(_))
            && let Some((what, is_stuck)) = self.sending.on_its_way()
        {
            let reason = if is_stuck { RootsReason::Stuck } else { RootsReason::Sending };
            return Ok(State::new(reason, format!("on its way: {what}")));
        }
        let act = match step {
            Step::Wait(why) => return Ok(State::new(why.into(), why.to_string())),
            Step::Propose => {
                let chosen = chosen(&signatures, standing.threshold, self.refused);
                let chosen = chosen.map(|(by, s)| (welkin_chain::address(by), s.into()));
                committee::propose(&desk, &epoch, chosen.collect()).await
            }
            Step::Accept => committee::accept(&desk).await,
        };
        Ok(self.send(act).await)
    }

    /// Sends it and waits a while; how that stands.
    async fn send(&mut self, act: Result<Act, OpsError>) -> State {
        let sent = match act {
            Ok(act) => {
                let (what, contracts) = (act.what.clone(), self.contracts.clone());
                let sending = async move { contracts.send(&act).await };
                match self.sending.send(what.clone(), sending).await {
                    Some(sent) => sent,
                    None => {
                        return State::new(RootsReason::Sending, format!("on its way: {what}"));
                    }
                }
            }
            Err(error) => Err(crate::chain(&error)),
        };
        match sent {
            Ok(what) => State::new(RootsReason::Sent, format!("done: {what}")),
            // Another member may have been faster: the next look tells.
            Err(why) => {
                self.refused = self.refused.wrapping_add(1);
                State::new(RootsReason::NotTaken, format!("not done, tried again: {why}"))
            }
        }
    }

    async fn contract(&self, standing: &Standing, root: [u8; 32]) -> Contract {
        let proposal = match standing.proposed {
            None => None,
            Some(proposed) => {
                let is_own = proposed.root.0 == root && !proposed.is_contested;
                let is_ready = is_own && self.is_ready().await;
                let (root, is_contested) = (proposed.root.0, proposed.is_contested);
                Some(Proposal { root, is_ready, is_contested })
            }
        };
        Contract {
            counted: standing.counted,
            members: standing.members.iter().map(|member| account(*member)).collect(),
            threshold: standing.threshold,
            proposal,
        }
    }

    /// Whether the contract would count what is proposed: by its own clock.
    async fn is_ready(&self) -> bool {
        let tried = committee::accept(self.contracts.desk()).await;
        if let Err(error) = &tried {
            debug!(error = %crate::chain(error), "the proposed epoch does not count yet");
        }
        tried.is_ok()
    }
}

/// As many signatures as must be, others at each try: the contract takes none where one is not right by
/// its rules, which an account with code makes for itself.
fn chosen(
    signatures: &BTreeMap<AccountId, AccountSignature>,
    threshold: usize,
    tries: u32,
) -> impl Iterator<Item = (AccountId, AccountSignature)> {
    let count = signatures.len().max(1);
    let all = signatures.iter().cycle().skip(tries as usize % count);
    all.take(threshold.min(count)).map(|(by, signature)| (*by, *signature))
}

/// The settlement service, or the chain behind it, gave no answer.
fn silent(error: impl std::error::Error + 'static) -> State {
    State::of(RootsReason::ChainSilent)(&error)
}

/// What came of work on the disk.
async fn on_disk(
    work: impl FnOnce() -> Result<(), pages::PageError> + Send + 'static,
) -> Result<(), State> {
    let unwritable = State::of(RootsReason::BookUnwritable);
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| unwritable(&error))?;
    done.map_err(|error| unwritable(&error))
}

fn settled(
    mut published: Published,
    before: Option<BookFile>,
    (number, grants): (u32, Grants),
) -> Result<Page, State> {
    published.drop_forged();
    let unsettled = State::of(RootsReason::Unsettled);
    let view = &published.heading.view;
    let (epoch, seed) = (view.epoch, view.seed);
    let mut book = match before {
        Some(file) => file.before(epoch).map_err(|error| unsettled(&error))?,
        None => Book::new(Emissions::new(TARGET_MICROS)),
    };
    // What there is to give is the contract's to say.
    let Grants { pool, granted, pool_min, target_micros, .. } = grants;
    book.emissions = Emissions { epoch: number, pool, pool_min, granted, target_micros };
    let outcome = outcome(published.gather(), &book).map_err(|error| unsettled(&error))?;
    let book = BookFile::new(epoch, &outcome.settled.book);
    Ok(Page::new(contract_epoch(&outcome.settled), (epoch, seed), book))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signature_that_the_contract_refuses_does_not_stop_the_others() {
        let key = AccountKey::from_secret(&[7; 32]).unwrap();
        let signature = key.sign(&[1; 32]).unwrap();
        let of = |n: u8| AccountId::from_bytes([n; 20]);
        let signatures: BTreeMap<_, _> = (1..=4).map(|n| (of(n), signature)).collect();
        let tried = |tries| chosen(&signatures, 3, tries).map(|(by, _)| by).collect::<Vec<_>>();
        assert_eq!(tried(0), [1, 2, 3].map(of));
        assert_eq!(tried(u32::MAX), [4, 1, 2].map(of));
        let without = |bad| (0..4).any(|tries| !tried(tries).contains(&of(bad)));
        assert!((1..=4).all(without));
        assert_eq!(chosen(&BTreeMap::new(), 1, 3).count(), 0);
    }
}
