//! What indexers refuse of this checker: told its operator once it lasts, again where it changes, and shown
//! by `welkin checker status`.
//!
//! A refusal now and then is nothing: who has just registered is on no list yet, and a sheet may come late.
//! What an indexer refuses for minutes, of its kind taking nothing, has a cause that somebody must mend: the
//! clock, mostly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_proto::epoch::Statement;
use welkin_proto::index::{IndexHello, IndexRequest};
use welkin_types::{NodeId, UnixMillis};

use crate::outside;

/// What is refused so often …
const TIMES_MIN: u32 = 3;
/// … and for so long is told of.
const LASTING: Duration = Duration::from_secs(120);
/// Of one kind and indexer it is told again so soon at the earliest, however its words change.
const AGAIN: Duration = Duration::from_secs(600);

/// What an indexer refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Matter {
    /// What was found in a minute.
    Sheet,
    /// That it takes part in the epoch.
    Roll,
    /// What it measured as a buyer.
    Digests,
    /// Its signature of an epoch.
    Cosign,
    /// Its signature of a root.
    RootWord,
    /// Something of another release.
    #[serde(other)]
    Other,
}

impl Matter {
    /// Its name, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheet => "sheets",
            Self::Roll => "roll",
            Self::Digests => "digests of sessions",
            Self::Cosign => "signature of an epoch",
            Self::RootWord => "signature of a root",
            Self::Other => "statements",
        }
    }

    /// What to do where it is refused.
    pub const fn next(self) -> &'static str {
        match self {
            Self::Sheet | Self::Digests | Self::Cosign | Self::RootWord | Self::Other => {
                "compare this machine's clock with the time (NTP), and the releases of checker and indexer"
            }
            Self::Roll => {
                "compare this machine's clock with the time (NTP). Who has just registered is listed from a \
                 later epoch on: then it needs nothing"
            }
        }
    }

    /// What is told an indexer of; challenges and sites are not counted: of a container that an indexer
    /// does not list they are refused, and nothing is wrong.
    fn of(hello: &IndexHello) -> Option<Self> {
        let IndexHello::Ask(asked) = hello else { return None };
        match &**asked {
            IndexRequest::Sheet(_) => Some(Self::Sheet),
            IndexRequest::Cosign(_) => Some(Self::Cosign),
            IndexRequest::RootWord(_) => Some(Self::RootWord),
            IndexRequest::State(statement) => match **statement {
                Statement::Roll(_) => Some(Self::Roll),
                Statement::Digests(_) => Some(Self::Digests),
                Statement::Lease(_)
                | Statement::Sheet(_)
                | Statement::Exam(_)
                | Statement::Site(_) => None,
            },
            _ => None,
        }
    }
}

/// What an indexer refuses at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedBy {
    /// The indexer.
    pub indexer: NodeId,
    /// What.
    pub what: Matter,
    /// Why, in its words.
    pub why: String,
    /// Since when it takes nothing of the kind.
    pub since: UnixMillis,
}

/// What all indexers refuse, by indexer and kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Unheard(Arc<Mutex<BTreeMap<(NodeId, Matter), Refused>>>);

#[derive(Debug, Default)]
struct Refused {
    /// Why, since when; none where it takes them.
    now: Option<(String, Instant, UnixMillis)>,
    /// How often since then, and when last.
    times: u32,
    last: Option<Instant>,
    /// Whether that was told.
    is_told: bool,
    /// When it was told of last.
    told: Option<Instant>,
}

impl Refused {
    /// Whether it was refused often, and from the first time to the last one for long: one refusal says
    /// nothing, however long nothing more is sent.
    fn lasts(&self) -> bool {
        let since = self.now.as_ref().map(|(_, since, _)| *since);
        let lasted = since.zip(self.last).map(|(since, last)| last.duration_since(since));
        self.times >= TIMES_MIN && lasted.is_some_and(|lasted| lasted >= LASTING)
    }
}

impl Unheard {
    /// Notes that an indexer refused something; whether that was told of.
    pub(super) fn refused(&self, indexer: NodeId, hello: &IndexHello, why: &str) -> bool {
        let Some(what) = Matter::of(hello) else { return false };
        let why = crate::quoted(why);
        let mut all = self.lock();
        let entry = all.entry((indexer, what)).or_default();
        match &mut entry.now {
            Some((known, ..)) if is_alike(known, &why) => (),
            Some((known, ..)) => (*known, entry.is_told) = (why.clone(), false),
            None => {
                entry.now = Some((why.clone(), Instant::now(), outside::now()));
                (entry.is_told, entry.times) = (false, 0);
            }
        }
        (entry.times, entry.last) = (entry.times.saturating_add(1), Some(Instant::now()));
        let is_soon = entry.told.is_some_and(|told| told.elapsed() < AGAIN);
        if !entry.lasts() || entry.is_told || is_soon {
            return false;
        }
        (entry.is_told, entry.told) = (true, Some(Instant::now()));
        drop(all);
        warn!(%indexer, what = what.as_str(), why, next = what.next(), "an indexer takes nothing of this");
        true
    }

    /// Notes that an indexer took something.
    pub(super) fn taken(&self, indexer: NodeId, hello: &IndexHello) {
        let Some(what) = Matter::of(hello) else { return };
        let mut all = self.lock();
        let Some(entry) = all.get_mut(&(indexer, what)) else { return };
        if entry.now.take().is_some() && entry.is_told {
            info!(%indexer, what = what.as_str(), "an indexer takes them again");
        }
    }

    /// What has been refused for long, for people.
    pub(super) fn shown(&self) -> Vec<RefusedBy> {
        let shown = |(&(indexer, what), entry): (&(NodeId, Matter), &Refused)| {
            let (why, _, at) = entry.now.as_ref()?;
            let refused = RefusedBy { indexer, what, why: why.clone(), since: *at };
            entry.lasts().then_some(refused)
        };
        self.lock().iter().filter_map(shown).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Matter), Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two texts differ in their numbers alone: minutes and epochs go on.
fn is_alike(one: &str, other: &str) -> bool {
    let words = |text: &'_ str| text.replace(|c: char| c.is_ascii_digit(), "");
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use welkin_proto::check::Sheet;
    use welkin_proto::{Domain, NodeKey, Signed};

    use super::*;

    fn sheet() -> IndexHello {
        let key = NodeKey::from_secret(&[1; 32]);
        let sheet = Sheet { checker: key.id(), minute: 7, turn: None, visits: Vec::new() };
        let signed = Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap();
        IndexHello::Ask(Box::new(IndexRequest::Sheet(Box::new(signed))))
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_told_once_and_again_only_where_it_changes() {
        let (unheard, sheet) = (Unheard::default(), sheet());
        let indexer = NodeId::from_bytes([3; 32]);
        // An hour of refused sheets, one a minute, of which only the minute's number changes.
        let mut told = 0;
        for minute in 0..60 {
            let why = format!("minute {minute} is over for long");
            told += u32::from(unheard.refused(indexer, &sheet, &why));
            assert_eq!(unheard.shown().is_empty(), minute < 2);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(told, 1);
        assert_eq!(unheard.shown()[0].why, "minute 0 is over for long");
        // For another reason: told. Words that change all the time: not each time.
        let mut told = 0;
        for minute in 0..60 {
            let why = if minute % 2 == 0 { "no account vouches" } else { "another network" };
            told += u32::from(unheard.refused(indexer, &sheet, why));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert!((1..=6).contains(&told), "{told}");
        assert_eq!(unheard.shown().len(), 1);
        unheard.taken(indexer, &sheet);
        assert_eq!(unheard.shown(), []);
        // One refusal now and then is nothing, nor is one after which nothing is sent.
        assert!(!unheard.refused(indexer, &sheet, "too late"));
        tokio::time::advance(Duration::from_secs(36_000)).await;
        assert_eq!(unheard.shown(), []);
        unheard.taken(indexer, &sheet);
        for _ in 0..60 {
            assert!(!unheard.refused(indexer, &sheet, "too late"));
            unheard.taken(indexer, &sheet);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        // What is refused where nothing is wrong is not counted.
        let other = IndexHello::Ask(Box::new(IndexRequest::Indexers));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(!unheard.refused(indexer, &other, "no") && unheard.shown().is_empty());
    }
}
