//! The queue of those who could not be placed: rounds, turns, and what those who wait are told.
//!
//! The order is `welkin-match`'s [`Queue`]; this feeds it with what the fleet has, keeps a slot for
//! each turn, and pushes what happens over the streams of [`stream`]. Who asks anew is answered
//! only after those who wait have had what is free.
//!
//! Locks are taken in this order: queue, fleet, hosts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, info};
use welkin_match::queue::{Dropped, Grant, Queue, Stand, Wish};
use welkin_proto::encode;
use welkin_proto::index::{Candidates, Filter, MatchRequest, WhyNot};
use welkin_proto::queue::{STANDING_EVERY_MS, Standing, WaitEvent};
use welkin_types::{AccountId, NodeId, TicketId, UnixMillis};

use super::matching::signed;
use super::{Indexer, OFFER_LASTING};
use crate::outside;

mod stream;
mod supply;

pub(super) use stream::wait;
use supply::{Kept, Slots};

/// How often those who wait are told of changes, and holds that have ended are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether something has become free.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The least time between two rounds.
const ROUND_GAP: Duration = Duration::from_millis(5);
/// Events that wait to be sent to a buyer.
const EVENTS_MAX: usize = 16;
/// Reasons for waiting that are looked up anew in one look.
const REASONS_MAX: usize = 4;

/// Those who wait at an indexer.
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    /// How many wait, to be read without the lock.
    count: AtomicUsize,
    /// Whether something may have become free since the last round.
    is_due: AtomicBool,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    queue: Queue,
    lines: BTreeMap<TicketId, Line>,
    /// What is kept for gangs that lack others.
    reserved: Vec<Kept>,
    /// Tells a line from an earlier one of the same ticket.
    numbers: u64,
    looked: UnixMillis,
    /// What the fleet had gained at the last round.
    gains: u64,
    /// When hosts were last asked to keep what is reserved.
    pushed: UnixMillis,
}

/// The stream of one place.
struct Line {
    number: u64,
    push: mpsc::Sender<WaitEvent>,
    /// What it was told last, and when.
    told: Option<(Stand, UnixMillis)>,
    reason: Reason,
}

/// Why a place waits.
#[derive(Clone, Debug, Default)]
struct Reason {
    busy: u32,
    removed: Vec<(Filter, u32)>,
}

impl From<WhyNot> for Reason {
    fn from(why: WhyNot) -> Self {
        let mut reason = Self::default();
        for (filter, count) in why.removed {
            match filter {
                Filter::Free | Filter::Excluded => reason.busy = reason.busy.saturating_add(count),
                other => reason.removed.push((other, count)),
            }
        }
        reason
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            count: AtomicUsize::new(0),
            is_due: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have become free, other than by a host's word, which the fleet counts: those
    /// who wait are served before the next question is answered.
    pub(super) fn freed(&self) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.is_due.store(true, Ordering::Release);
            self.changed.notify_one();
        }
    }

    fn counted(&self, inner: &Inner) {
        self.count.store(inner.queue.len(), Ordering::Release);
    }
}

/// Gives what is free to those whose turn it is, if something may have become free. Cheap where
/// nobody waits.
pub(super) fn serve(indexer: &Indexer) {
    let waiting = &indexer.waiting;
    if waiting.count.load(Ordering::Acquire) == 0 {
        return;
    }
    let mut inner = waiting.lock();
    let now = outside::now();
    let round = {
        let mut fleet = indexer.fleet();
        let gains = fleet.gains();
        let has_gained = std::mem::replace(&mut inner.gains, gains) != gains;
        if !waiting.is_due.swap(false, Ordering::AcqRel) && !has_gained {
            return;
        }
        let mut slots = Slots::new(&mut fleet, now);
        slots.free(std::mem::take(&mut inner.reserved));
        inner.queue.round(now, &mut slots)
    };
    inner.reserved = round.reserved;
    if now.since(inner.pushed) >= OFFER_LASTING {
        // Until the holds of the last time have ended: a host keeps one slot for each.
        inner.pushed = now;
        inner.reserved.iter().for_each(|kept| kept.push(indexer));
    }
    for grant in round.grants {
        offer(indexer, &mut inner, grant);
    }
    if round.has_more {
        waiting.freed();
    }
}

/// Pushes the offers of a turn to its buyer and the holds to the hosts.
fn offer(indexer: &Indexer, inner: &mut Inner, grant: Grant<Kept>) {
    let offers = grant.slots.iter().map(|kept| kept.offer(grant.buyer)).collect();
    let receipt = grant.slots.first().and_then(Kept::receipt);
    let (at, buyer) = (outside::now(), grant.buyer);
    let signed = signed(indexer, Candidates { at, buyer, offers, receipt });
    let line = inner.lines.get_mut(&grant.ticket);
    let is_sent = match (line, signed) {
        (Some(line), Ok(signed)) => {
            line.told = None;
            line.push.try_send(WaitEvent::Offers(signed)).is_ok()
        }
        _ => false,
    };
    if !is_sent {
        // Nobody is there to take it, or to read: its turn comes again when it comes back.
        inner.queue.away(outside::now(), grant.ticket);
        let mut fleet = indexer.fleet();
        Slots::new(&mut fleet, outside::now()).free(grant.slots);
        return;
    }
    debug!(ticket = %grant.ticket, slots = grant.slots.len(), "a turn");
    grant.slots.iter().for_each(|kept| kept.push(indexer));
}

/// What is waited for, in 32 bytes: what the ticket names, and the receipt of the turn. Hosts that
/// refused meanwhile are not in it.
pub fn turn_digest(request: &MatchRequest) -> [u8; 32] {
    let MatchRequest { needs, gang, from, round_trips_us, .. } = request.clone();
    digest_of(&Wish { needs, gang, exclude: Vec::new(), from, round_trips_us })
}

fn digest_of(wish: &Wish) -> [u8; 32] {
    let Wish { needs, gang, from, round_trips_us, .. } = wish;
    // As the wish itself is encoded without hosts that are not wanted.
    let asked = (needs, gang, Vec::<NodeId>::new(), from, round_trips_us);
    // What was decoded from a frame fits into one.
    Sha256::digest(encode(&asked).unwrap_or_default()).into()
}

/// Keeps the queue going for ever.
pub(super) async fn keep(indexer: Arc<Indexer>) {
    let waiting = &indexer.waiting;
    loop {
        let due = {
            let inner = waiting.lock();
            let next = inner.queue.next_due();
            next.map(|due| due.since(outside::now()).min(POLL_EVERY))
        };
        let pause = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = waiting.changed.notified() => (),
            () = pause => (),
        }
        look(&indexer);
        tokio::time::sleep(ROUND_GAP).await;
    }
}

/// Ends what is over, serves, and tells those whose place has changed.
fn look(indexer: &Indexer) {
    let now = outside::now();
    let waiting = &indexer.waiting;
    let is_whole = {
        let mut inner = waiting.lock();
        end(&mut inner, now);
        waiting.counted(&inner);
        let is_whole = now.since(inner.looked) >= LOOK_EVERY;
        if is_whole {
            inner.looked = now;
        }
        is_whole
    };
    if is_whole {
        // Holds may have ended, and hosts fallen silent.
        waiting.is_due.store(true, Ordering::Release);
    }
    serve(indexer);
    let mut inner = waiting.lock();
    let is_new = inner.lines.values().any(|line| line.told.is_none());
    if is_whole {
        renew_reasons(indexer, &mut inner, now);
    }
    if is_whole || is_new {
        tell(&mut inner, now, is_whole);
    }
}

fn end(inner: &mut Inner, now: UnixMillis) {
    for (ticket, why) in inner.queue.tick(now) {
        // The stream ends behind the last event.
        let line = inner.lines.remove(&ticket);
        if let (Some(line), Dropped::TimedOut) = (line, why) {
            let _ = line.push.try_send(WaitEvent::TimedOut);
        }
        debug!(%ticket, ?why, "no longer waits");
    }
}

/// Looks up why some of those wait who are to be told next.
fn renew_reasons(indexer: &Indexer, inner: &mut Inner, now: UnixMillis) {
    let due = |line: &Line| line.told.is_some_and(|(_, at)| is_stale(at, now));
    let due = inner.lines.iter().filter(|(_, line)| due(line)).map(|(ticket, _)| *ticket);
    let due: Vec<_> = due.take(REASONS_MAX).collect();
    let mut fleet = indexer.fleet();
    let mut slots = Slots::new(&mut fleet, now);
    for ticket in due {
        let why = inner.queue.wish(ticket).and_then(|wish| slots.why_not(wish));
        if let (Some(why), Some(line)) = (why, inner.lines.get_mut(&ticket)) {
            line.reason = why.into();
        }
    }
}

const fn is_stale(told: UnixMillis, now: UnixMillis) -> bool {
    // A look before it is too late.
    now.0.saturating_sub(told.0) + 2_000 >= STANDING_EVERY_MS
}

/// Tells where they stand: those who do not know, and in a whole look those whose place changed.
fn tell(inner: &mut Inner, now: UnixMillis, is_whole: bool) {
    for (ticket, stand) in inner.queue.standings(now) {
        let Some(line) = inner.lines.get_mut(&ticket) else { continue };
        let is_due = match line.told {
            None => true,
            Some((before, at)) => is_whole && (is_stale(at, now) || has_moved(&before, &stand)),
        };
        if !is_due {
            continue;
        }
        let standing = Standing {
            position: stand.position,
            of: stand.of,
            busy: line.reason.busy,
            removed: line.reason.removed.clone(),
            is_reserved: stand.is_reserved,
            estimate_ms: stand.estimate_ms,
            left_ms: stand.deadline.0.saturating_sub(now.0),
        };
        // A buyer that does not read what it was told is told again later.
        if line.push.try_send(WaitEvent::Standing(standing)).is_ok() {
            line.told = Some((stand, now));
        }
    }
}

fn has_moved(before: &Stand, now: &Stand) -> bool {
    (before.position, before.of, before.is_reserved) != (now.position, now.of, now.is_reserved)
        || before.estimate_ms.is_some() != now.estimate_ms.is_some()
}

/// A place and its stream. Dropped without a word, the buyer counts as away.
struct Seat<'a> {
    indexer: &'a Indexer,
    buyer: AccountId,
    ticket: TicketId,
    number: u64,
    is_over: bool,
}

impl Seat<'_> {
    /// The place is given up.
    fn leave(mut self) {
        self.is_over = true;
        let waiting = &self.indexer.waiting;
        let mut inner = waiting.lock();
        if self.is_present(&inner) {
            inner.lines.remove(&self.ticket);
            inner.queue.leave(self.ticket);
            waiting.counted(&inner);
            drop(inner);
            waiting.freed();
        }
    }

    fn is_present(&self, inner: &Inner) -> bool {
        inner.lines.get(&self.ticket).is_some_and(|line| line.number == self.number)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut inner = self.indexer.waiting.lock();
        if self.is_present(&inner) {
            inner.lines.remove(&self.ticket);
            inner.queue.away(outside::now(), self.ticket);
            info!(ticket = %self.ticket, buyer = %self.buyer, "who waits is away");
        }
    }
}
