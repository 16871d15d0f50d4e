//! What a checker tells indexers: to each by a queue and a task of its own, so that one that is silent or
//! slow costs its own reports and nobody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};
use welkin_proto::Signed;
use welkin_proto::check::Sheet;
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};

use super::ASK_TIMEOUT;
use super::unheard::Unheard;
use crate::Shutdown;
use crate::connect::Caller;

/// The most reports that wait for one indexer: where there are more, the oldest are dropped.
const WAITING_MAX: usize = 1_024;
/// The most that are on their way to one indexer.
const AT_ONCE: usize = 32;
/// What is not taken now is sent again after this, then after three times as long, so often.
const SEND_PAUSE: Duration = Duration::from_secs(2);
const SENDS: u32 = 4;
/// A sheet is signed anew for one indexer at most so often: each time it lists less.
const CUTS_MAX: u32 = 3;
/// How often it is said of an indexer what it did not take.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Reports on their way to all indexers.
#[derive(Debug)]
pub(super) struct Desk {
    lanes: Vec<Arc<Lane>>,
}

impl Desk {
    /// Begins a task for each indexer.
    pub(super) fn start(
        indexers: &Arc<Vec<Caller>>,
        sign: &Sign,
        unheard: &Unheard,
        shutdown: &Shutdown,
    ) -> Self {
        let lanes: Vec<_> = indexers.iter().map(|_| Arc::<Lane>::default()).collect();
        for (place, lane) in lanes.iter().enumerate() {
            let indexers = Arc::clone(indexers);
            let to = To { indexers, place, sign: Arc::clone(sign), unheard: unheard.clone() };
            let sending = Arc::clone(lane).run(to);
            shutdown.spawn_until_asked("reports", sending);
        }
        Self { lanes }
    }

    /// Says something to each indexer, aside.
    pub(super) fn send(&self, hello: IndexHello) {
        let hello = Arc::new(hello);
        for lane in &self.lanes {
            let (hello, due) = (Arc::clone(&hello), Instant::now());
            lane.queue().put(Report { hello, sends: 0, cuts: 0, due });
            lane.has_more.notify_one();
        }
    }
}

/// Signs a sheet anew, for an indexer that does not list all of it.
pub(super) type Sign = Arc<dyn Fn(&Sheet) -> Option<Signed<Sheet>> + Send + Sync>;

/// The same sheet without some visits; none where nothing is left, or it is no sheet.
fn without(hello: &IndexHello, places: &[u16], sign: &Sign) -> Option<IndexHello> {
    let IndexHello::Ask(asked) = hello else { return None };
    let IndexRequest::Sheet(signed) = &**asked else { return None };
    let mut sheet = signed.read_unverified().ok()?;
    let all = sheet.visits.len();
    if places.len() > all {
        return None;
    }
    let mut place = 0_u16..;
    sheet.visits.retain(|_| place.next().is_some_and(|place| !places.contains(&place)));
    if sheet.visits.is_empty() || sheet.visits.len() == all {
        return None;
    }
    Some(IndexHello::Ask(Box::new(IndexRequest::Sheet(Box::new(sign(&sheet)?)))))
}

/// To whom a lane goes: one of these indexers.
#[derive(Clone)]
struct To {
    indexers: Arc<Vec<Caller>>,
    place: usize,
    sign: Sign,
    unheard: Unheard,
}

/// What is on its way to one indexer.
#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<Queue>,
    has_more: Notify,
}

/// One thing to say.
#[derive(Clone, Debug)]
struct Report {
    hello: Arc<IndexHello>,
    /// How often it was sent.
    sends: u32,
    /// How often it was signed anew.
    cuts: u32,
    /// When it is to be sent next.
    due: Instant,
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<u64, Report>,
    next: u64,
    /// What was dropped, and what the indexer had no room for, since it was last told of.
    dropped: u64,
    full: u64,
}

impl Queue {
    fn put(&mut self, report: Report) {
        self.put_at(self.next, report);
        self.next += 1;
    }

    fn put_at(&mut self, number: u64, report: Report) {
        self.waiting.insert(number, report);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_first();
            self.dropped += 1;
        }
    }

    /// The oldest that is due, or when one is.
    fn take(&mut self, now: Instant) -> Result<(u64, Report), Option<Instant>> {
        let due = self.waiting.iter().find(|(_, report)| report.due <= now);
        let Some(number) = due.map(|(number, _)| *number) else {
            return Err(self.waiting.values().map(|report| report.due).min());
        };
        self.waiting.remove(&number).map(|report| (number, report)).ok_or(None)
    }
}

/// How an indexer took something.
enum Taken {
    /// It is done with: taken, or refused.
    Done,
    Full,
    NotNow,
    /// It takes this instead.
    Only(IndexHello),
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, to: To) {
        let mut under_way = JoinSet::new();
        let mut warn_at = Instant::now();
        loop {
            let wake = self.begin(&mut under_way, &to);
            let wake = wake.unwrap_or_else(|| Instant::now() + WARN_EVERY);
            if let Some(indexer) = to.indexers.get(to.place).filter(|_| Instant::now() >= warn_at)
                && self.tell(indexer)
            {
                warn_at = Instant::now() + WARN_EVERY;
            }
            tokio::select! {
                Some(Ok((number, report, taken))) = under_way.join_next() => {
                    self.took(number, report, taken);
                }
                () = self.has_more.notified() => (),
                () = tokio::time::sleep_until(wake) => (),
            }
        }
    }

    /// Sends what is due, as far as there is room; when to look again.
    fn begin(&self, under_way: &mut JoinSet<(u64, Report, Taken)>, to: &To) -> Option<Instant> {
        while under_way.len() < AT_ONCE {
            let (number, report) = match self.queue().take(Instant::now()) {
                Ok(due) => due,
                Err(wake) => return wake,
            };
            let to = to.clone();
            under_way.spawn(async move {
                let taken = match to.indexers.get(to.place) {
                    Some(indexer) => send(indexer, &report.hello, &to).await,
                    None => Taken::Done,
                };
                (number, report, taken)
            });
        }
        None
    }

    fn took(&self, number: u64, mut report: Report, taken: Taken) {
        let mut queue = self.queue();
        match taken {
            Taken::Done => return,
            Taken::Full => {
                queue.full += 1;
                return;
            }
            Taken::NotNow => {
                report.sends += 1;
                report.due = Instant::now() + SEND_PAUSE * 3_u32.pow(report.sends - 1);
            }
            Taken::Only(hello) => {
                report.cuts += 1;
                (report.hello, report.due) = (Arc::new(hello), Instant::now());
            }
        }
        if report.sends >= SENDS || report.cuts > CUTS_MAX {
            queue.dropped += 1;
            return;
        }
        queue.put_at(number, report);
    }

    /// Tells the operator what an indexer did not take; whether there was something.
    fn tell(&self, indexer: &Caller) -> bool {
        let mut queue = self.queue();
        let (dropped, full) = (std::mem::take(&mut queue.dropped), std::mem::take(&mut queue.full));
        drop(queue);
        let node = indexer.addr().node;
        if dropped > 0 {
            warn!(
                indexer = %node, dropped,
                "an indexer is silent or too slow: reports to it are dropped, to others they go on"
            );
        }
        if full > 0 {
            warn!(indexer = %node, reports = full, "it has no room in this epoch");
        }
        dropped > 0 || full > 0
    }
}

/// Says something to an indexer once.
async fn send(indexer: &Caller, hello: &IndexHello, To { sign, unheard, .. }: &To) -> Taken {
    let node = indexer.addr().node;
    match indexer.ask(hello, ASK_TIMEOUT).await {
        Ok(IndexReply::NotKept { is_full: true }) => return Taken::Full,
        Ok(IndexReply::NotKept { is_full: false }) => return Taken::NotNow,
        Ok(IndexReply::NotListed(places)) => {
            unheard.taken(node, hello);
            return without(hello, &places, sign).map_or(Taken::Done, Taken::Only);
        }
        Ok(IndexReply::Reported) => unheard.taken(node, hello),
        Ok(IndexReply::Refused(why)) => {
            debug!(why, "a report is refused");
            unheard.refused(node, hello, &why);
        }
        Ok(_) => debug!("a report got no answer"),
        Err(error) => {
            debug!(error = %crate::chain(&error), "a report was not delivered");
            return Taken::NotNow;
        }
    }
    Taken::Done
}

/// Says something to all indexers, again to those that can't be reached or have no room now; whether
/// all took it.
pub(super) async fn deliver(
    indexers: Arc<Vec<Caller>>,
    hello: IndexHello,
    unheard: Unheard,
) -> bool {
    let hello = Arc::new(hello);
    let mut left: Vec<_> = (0..indexers.len()).collect();
    let (mut is_taken, mut pause) = (true, SEND_PAUSE);
    for send in 0..SENDS {
        if send > 0 {
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        // All at once: one that is down keeps nothing from the others.
        let mut asking = JoinSet::new();
        for place in left.drain(..) {
            let (indexers, hello) = (Arc::clone(&indexers), Arc::clone(&hello));
            asking.spawn(async move { (place, indexers[place].ask(&hello, ASK_TIMEOUT).await) });
        }
        let mut again = Vec::new();
        while let Some(Ok((place, said))) = asking.join_next().await {
            let node = indexers[place].addr().node;
            match said {
                Ok(IndexReply::Reported) => unheard.taken(node, &hello),
                Ok(IndexReply::NotKept { is_full: false }) => again.push(place),
                Ok(IndexReply::NotKept { is_full: true }) => {
                    warn!(indexer = %node, "it has no room in this epoch");
                }
                Ok(IndexReply::Refused(why)) => {
                    debug!(why, "a report is refused");
                    unheard.refused(node, &hello, &why);
                    is_taken = false;
                }
                Ok(_) => debug!("a report got no answer"),
                Err(error) => {
                    debug!(error = %crate::chain(&error), "a report was not delivered");
                    again.push(place);
                }
            }
        }
        left = again;
        if left.is_empty() {
            break;
        }
    }
    is_taken && left.is_empty()
}

#[cfg(test)]
mod tests;
