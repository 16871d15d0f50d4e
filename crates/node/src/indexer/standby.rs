//! Of several indexers with one key and one directory, one leads; the others stand by.
//!
//! They are started alike, with the same node key and the same database. Whoever leads listens and
//! answers; who stands by has no socket, so that nobody comes to it. A lead lasts [`Timing::lasting`]
//! by the database's clock and is renewed every [`Timing::renew`]. A leader that can't renew stops
//! to answer *before* the database lets another one lead: it counts from before it asked, by a
//! clock that goes on while the process is stopped or the machine sleeps, and keeps a margin.
//! Whatever it still writes is fenced by its term.
//!
//! **Architecture invariant:** [`Lead::is_held`] is never true in two processes at once, whatever
//! is killed, stopped and continued (`of_many_that_claim_at_once_never_two_lead`,
//! `a_leader_that_was_stopped_and_goes_on_does_not_answer`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{debug, info, warn};
use welkin_directory::{Claim, HolderId, Term};
use welkin_net::Endpoint;

use super::directory::Directory;
use crate::{Shutdown, outside};

/// How long a lead lasts and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long without renewal.
    pub lasting: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How much earlier than the database the leader itself counts its lead as over: more than
    /// two clocks may differ in that time.
    pub margin: Duration,
    /// How long one that was started as a standby leaves the first claim to others.
    pub deference: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lasting: Duration::from_secs(6),
            renew: Duration::from_secs(2),
            margin: Duration::from_secs(1),
            deference: Duration::from_secs(8),
        }
    }
}

/// The shortest and the longest pause between two claims.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause after a claim or renewal that brought no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Whether this process may answer. Clones share it; asking costs nanoseconds.
#[derive(Clone, Debug)]
pub struct Lead(Option<Arc<AtomicU64>>);

impl Lead {
    /// Of an indexer that shares its key with nobody.
    pub const fn always() -> Self {
        Self(None)
    }

    fn until(uptime: Duration) -> Self {
        Self(Some(Arc::new(AtomicU64::new(millis(uptime)))))
    }

    /// Whether it may answer now.
    pub fn is_held(&self) -> bool {
        let Some(until) = &self.0 else { return true };
        millis(outside::uptime()) < until.load(Ordering::Acquire)
    }

    /// Never goes back: an answer that comes late does not shorten what a later one granted.
    fn extend(&self, uptime: Duration) {
        if let Some(until) = &self.0 {
            until.fetch_max(millis(uptime), Ordering::AcqRel);
        }
    }

    fn end(&self) {
        if let Some(until) = &self.0 {
            until.store(0, Ordering::Release);
        }
    }

    fn left(&self) -> Duration {
        let Some(until) = &self.0 else { return Duration::MAX };
        let until = Duration::from_millis(until.load(Ordering::Acquire));
        until.saturating_sub(outside::uptime())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a stop waits for changes to be written, and for peers to be told.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A process that leads or stands by.
#[derive(Debug)]
pub struct Contender {
    directory: Arc<dyn Directory>,
    holder: HolderId,
    timing: Timing,
}

/// A lead that was won.
#[derive(Clone, Debug)]
pub struct Won {
    /// Which.
    pub term: Term,
    /// For whoever answers.
    pub lead: Lead,
}

impl Contender {
    /// One of those that share this directory.
    pub fn new(directory: Arc<dyn Directory>, timing: Timing) -> Self {
        Self { directory, holder: HolderId::from_bytes(outside::random()), timing }
    }

    /// Waits until this process leads. A standby leaves the first claim to others for a while.
    pub async fn win(&self, is_standby: bool) -> Won {
        let deference = if is_standby { self.timing.deference } else { Duration::ZERO };
        let began = outside::uptime();
        let mut has_seen_leader = false;
        loop {
            let asked = outside::uptime();
            let is_polite = !has_seen_leader && asked.saturating_sub(began) < deference;
            let claimed = if is_polite {
                self.directory.look().await.map(Claim::Waits)
            } else {
                self.directory.claim(self.holder, self.timing.lasting).await
            };
            let pause = match claimed {
                Ok(Claim::Leads(term)) => {
                    info!(term = term.0, "this indexer leads");
                    return Won { term, lead: Lead::until(self.end(asked)) };
                }
                Ok(Claim::Waits(left)) => {
                    if !left.is_zero() && !has_seen_leader {
                        info!("another indexer leads: this one stands by");
                        has_seen_leader = true;
                    }
                    left.clamp(PAUSE_MIN, PAUSE_MAX)
                }
                Err(error) => {
                    warn!(error = %crate::chain(&error), "the directory does not say who leads");
                    PAUSE_MAX
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Keeps a lead; returns when it is lost. It is over by then, or within moments.
    pub async fn keep(&self, won: &Won) {
        loop {
            let next = self.timing.renew.min(won.lead.left());
            tokio::time::sleep(next).await;
            let asked = outside::uptime();
            match self.directory.renew(won.term, self.holder, self.timing.lasting).await {
                Ok(true) => won.lead.extend(self.end(asked)),
                Ok(false) => {
                    warn!(term = won.term.0, "another indexer leads: this one stops to answer");
                    break;
                }
                Err(error) if won.lead.is_held() => {
                    debug!(error = %crate::chain(&error), "the lead is not renewed");
                    tokio::time::sleep(RETRY_PAUSE.min(won.lead.left())).await;
                }
                Err(error) => {
                    let error = crate::chain(&error);
                    warn!(error, "the lead could not be renewed: this indexer stops to answer");
                    break;
                }
            }
        }
        self.stop(won);
    }

    /// Answers no more, and lets the next one lead at once.
    pub async fn release(&self, won: &Won) {
        self.stop(won);
        if let Err(error) = self.directory.release(won.term, self.holder).await {
            debug!(error = %crate::chain(&error), "the lead ends by itself");
        }
    }

    fn stop(&self, won: &Won) {
        won.lead.end();
        self.directory.stand_down();
    }

    /// Until when a lead counts that was asked for at `asked`.
    fn end(&self, asked: Duration) -> Duration {
        asked + self.timing.lasting.saturating_sub(self.timing.margin)
    }
}

/// Leads and stands by in turns until a stop is asked for. `serve` starts the indexer under the
/// part of `shutdown` that it is given; that part ends with the lead.
///
/// # Errors
///
/// Those of `serve`, after which another one may lead.
pub async fn run<E, F>(
    contender: &Contender,
    mut is_standby: bool,
    shutdown: &Shutdown,
    mut serve: impl FnMut(Won, Shutdown) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<Endpoint, E>>,
{
    loop {
        let won = tokio::select! {
            won = contender.win(is_standby) => won,
            () = shutdown.asked() => return Ok(()),
        };
        let part = shutdown.child();
        let mut keeping = std::pin::pin!(contender.keep(&won));
        let served = tokio::select! {
            served = serve(won.clone(), part.clone()) => Some(served),
            () = &mut keeping => None,
        };
        let endpoint = match served {
            Some(Ok(endpoint)) => Some(endpoint),
            Some(Err(error)) => {
                part.ask();
                contender.release(&won).await;
                return Err(error);
            }
            None => None,
        };
        let is_stopping = endpoint.is_some()
            && tokio::select! {
                () = &mut keeping => false,
                () = shutdown.asked() => true,
            };
        if is_stopping {
            // Shorter than the lead still lasts, which nobody renews meanwhile.
            let _ = tokio::time::timeout(STOP_TIMEOUT, contender.directory.flushed()).await;
        }
        part.ask();
        if is_stopping {
            contender.release(&won).await;
        }
        if let Some(endpoint) = endpoint {
            // Whoever is connected asks the next one, and learns it at once rather than by silence.
            let _ = tokio::time::timeout(STOP_TIMEOUT, endpoint.close()).await;
        }
        if is_stopping {
            return Ok(());
        }
        is_standby = true;
    }
}
