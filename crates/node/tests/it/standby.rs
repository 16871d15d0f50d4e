//! Who answers when several share a directory: never two, and soon the next one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use welkin_directory::{
    Change, Claim, Counts, HolderId, HostRow, PriceRow, SessionRow, Span, StandingRow, Term,
};
use welkin_node::Shutdown;
use welkin_node::indexer::directory::{Directory, DirectoryError};
use welkin_node::indexer::standby::{self, Contender, Lead, Timing};
use welkin_node::settlement::BoxFuture;
use welkin_types::{NodeId, UnixMillis};

/// The row of the leadership in memory, which may be away for a while.
#[derive(Debug, Default)]
struct Row {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    term: u64,
    holder: Option<HolderId>,
    until: Option<Instant>,
    /// Whether nobody gets an answer.
    is_away: bool,
    /// Who gets none.
    is_cut_off: Vec<HolderId>,
    released: u64,
}

impl State {
    fn answer<T>(&self, holder: Option<HolderId>, value: T) -> Result<T, DirectoryError> {
        let is_cut_off = holder.is_some_and(|holder| self.is_cut_off.contains(&holder));
        if self.is_away || is_cut_off {
            return Err(DirectoryError::File(welkin_store::CommitError::Closed));
        }
        Ok(value)
    }

    fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn is_holders(&self, term: Term, holder: HolderId) -> bool {
        self.term == term.0 && self.holder == Some(holder) && !self.left().is_zero()
    }
}

impl Directory for Row {
    fn is_shared(&self) -> bool {
        true
    }
    fn put(&self, _: Change) {}
    fn keep_writing(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn flushed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    fn counts(&self) -> Counts {
        Counts::default()
    }
    fn load_hosts(
        &self,
        _: UnixMillis,
        _: mpsc::Sender<Vec<HostRow>>,
    ) -> BoxFuture<'_, Result<u64, DirectoryError>> {
        Box::pin(std::future::ready(Ok(0)))
    }
    fn load_sessions(
        &self,
        _: UnixMillis,
    ) -> BoxFuture<'_, Result<Vec<(NodeId, Vec<SessionRow>)>, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn load_standings(&self, _: usize) -> BoxFuture<'_, Result<Vec<StandingRow>, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn load_prices<'a>(
        &'a self,
        _: (&'a str, &'a str),
        _: Span,
        _: UnixMillis,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<PriceRow>, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn load_price_places(
        &self,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, String)>, DirectoryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn claim(
        &self,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<Claim, DirectoryError>> {
        let mut state = self.state.lock().unwrap();
        let claim = match state.left() {
            Duration::ZERO if state.answer(Some(holder), ()).is_ok() => {
                state.term += 1;
                state.holder = Some(holder);
                state.until = Some(Instant::now() + lasting);
                Claim::Leads(Term(state.term))
            }
            left => Claim::Waits(left),
        };
        Box::pin(std::future::ready(state.answer(Some(holder), claim)))
    }

    fn look(&self) -> BoxFuture<'_, Result<Duration, DirectoryError>> {
        let state = self.state.lock().unwrap();
        Box::pin(std::future::ready(state.answer(None, state.left())))
    }

    fn renew(
        &self,
        term: Term,
        holder: HolderId,
        lasting: Duration,
    ) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        let mut state = self.state.lock().unwrap();
        let answer = state.answer(Some(holder), state.is_holders(term, holder));
        if let Ok(true) = answer {
            state.until = Some(Instant::now() + lasting);
        }
        Box::pin(std::future::ready(answer))
    }

    fn stand_down(&self) {}

    fn release(&self, term: Term, holder: HolderId) -> BoxFuture<'_, Result<(), DirectoryError>> {
        let mut state = self.state.lock().unwrap();
        if state.is_holders(term, holder) {
            state.until = None;
            state.released += 1;
        }
        Box::pin(std::future::ready(state.answer(Some(holder), ())))
    }
}

const TIMING: Timing = Timing {
    lasting: Duration::from_secs(3),
    renew: Duration::from_millis(300),
    margin: Duration::from_millis(800),
    deference: Duration::from_secs(1),
};

/// One of several, with its present lead.
struct Process {
    shutdown: Shutdown,
    leads: Arc<Mutex<Vec<(Term, Lead)>>>,
}

impl Process {
    fn start(row: &Arc<Row>, is_standby: bool, all: &Shutdown) -> Self {
        let (shutdown, leads) = (all.child(), Arc::new(Mutex::new(Vec::new())));
        let process = Self { shutdown: shutdown.clone(), leads: Arc::clone(&leads) };
        let directory: Arc<dyn Directory> = Arc::<Row>::clone(row);
        all.spawn("process", async move {
            let contender = Contender::new(directory, TIMING);
            let serve = |won: standby::Won, _| {
                leads.lock().unwrap().push((won.term, won.lead));
                welkin_net::Endpoint::bind(welkin_net::EndpointConfig::new([3; 32]))
            };
            standby::run(&contender, is_standby, &shutdown, serve).await.unwrap();
        });
        process
    }

    fn answers(&self) -> bool {
        self.leads.lock().unwrap().last().is_some_and(|(_, lead)| lead.is_held())
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_one_leads_when_the_leader_stops_or_is_cut_off() {
    let (row, all) = (Arc::new(Row::default()), Shutdown::default());
    let standby = Process::start(&row, true, &all);
    let primary = Process::start(&row, false, &all);
    until("the primary leads", || primary.answers()).await;
    assert!(!standby.answers());
    // Cut off from the directory alone, it stops before another one may lead.
    let holder = row.state.lock().unwrap().holder.unwrap();
    row.state.lock().unwrap().is_cut_off.push(holder);
    until("the primary stops", || {
        assert!(!(primary.answers() && standby.answers()));
        !primary.answers()
    })
    .await;
    until("the standby leads", || standby.answers()).await;
    row.state.lock().unwrap().is_cut_off.clear();
    // Asked to stop, it lets go at once.
    standby.shutdown.ask();
    until("it leads again", || primary.answers()).await;
    assert_eq!(row.state.lock().unwrap().released, 1);
    assert!(all.finish(Duration::from_secs(10)).await);
    let terms: BTreeSet<_> = [&primary, &standby]
        .iter()
        .flat_map(|process| {
            process.leads.lock().unwrap().iter().map(|(term, _)| *term).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(terms.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_away_shortly_changes_nothing_and_longer_stops_all() {
    let (row, all) = (Arc::new(Row::default()), Shutdown::default());
    let primary = Process::start(&row, false, &all);
    let standby = Process::start(&row, true, &all);
    until("one leads", || primary.answers()).await;
    row.state.lock().unwrap().is_away = true;
    until("nobody answers", || !primary.answers() && !standby.answers()).await;
    row.state.lock().unwrap().is_away = false;
    until("one answers", || {
        let (one, two) = (primary.answers(), standby.answers());
        assert!(!(one && two), "two answer");
        one || two
    })
    .await;
    assert!(all.finish(Duration::from_secs(10)).await);
}
