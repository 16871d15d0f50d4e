//! Waiting in an indexer's queue: the place is kept through lost connections and a restart of the
//! indexer, and turns are pushed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;
use welkin_net::{Connection, SendStream};
use welkin_proto::index::{IndexHello, MatchRequest, WhyNot};
use welkin_proto::queue::{
    REFUSING_MAX, STANDING_EVERY_MS, Standing, Ticket, WAIT_MS_MAX, Wait, WaitAnswer, WaitEvent,
};
use welkin_proto::{Offer, Signed};
use welkin_types::NodeId;
use welkin_types::task::Needs;

use super::gang::is_whole;
use super::{Buyer, BuyerError, is_within};
use crate::connect::{CallError, Caller};
use crate::wire::{self, WireError};

/// How long an indexer may take to give a place.
const TICKET_TIMEOUT: Duration = Duration::from_secs(5);
/// An indexer that says nothing for so long is asked anew.
const SILENCE_MAX: Duration = Duration::from_millis(3 * STANDING_EVERY_MS);
/// The longest pause between two tries to come back.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// So long the indexer that the place is at is tried before another one is.
const LOYALTY: Duration = Duration::from_secs(15);
/// How long an indexer may take to read an answer: what is leased is not kept waiting for it.
const ANSWER: Duration = Duration::from_secs(1);
/// How long giving the place up may take.
const FAREWELL: Duration = Duration::from_millis(200);
/// Events that wait to be looked at.
const EVENTS_MAX: usize = 16;

/// What happens to one that waits.
#[derive(Clone, Debug)]
pub enum QueueEvent {
    /// Where it stands.
    Standing(Box<Standing>),
    /// The connection to the indexer is lost; it is tried again.
    Lost,
    /// It waits at this indexer, after one was lost. Whether its place was kept.
    Back(NodeId, bool),
    /// Its turn: a slot is kept for each of these for a few seconds.
    Offers(Vec<Offer>),
}

/// Why waiting is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The time is over.
    #[error("nothing became free in time")]
    TimedOut,
    /// Waiting would not help.
    #[error("nothing on this network fits the task")]
    NothingFits(Box<WhyNot>),
    /// The indexer refuses.
    #[error("the indexer refuses: {0}")]
    Refused(String),
    /// No indexer of the network has a queue, or none can be reached.
    #[error("no indexer of this network lets this wait in a queue")]
    NoQueue(#[source] Option<CallError>),
}

/// One place in a queue.
#[derive(Debug)]
pub struct QueuePlace<'a> {
    buyer: &'a Buyer,
    request: MatchRequest,
    deadline: Instant,
    ticket: Option<Signed<Ticket>>,
    /// Where it may wait, in the order in which they are asked.
    indexers: Vec<Arc<Caller>>,
    /// Where it waits, by its place among these.
    indexer: usize,
    line: Option<Line>,
    lost: Option<Instant>,
    pause: Duration,
}

/// The stream to the indexer.
#[derive(Debug)]
struct Line {
    send: SendStream,
    events: mpsc::Receiver<WaitEvent>,
    _reading: Reading,
    _connection: Connection,
}

/// Ends its task when dropped.
#[derive(Debug)]
struct Reading(tokio::task::JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Buyer {
    /// Waits in the queue of an indexer, until it is taken up, given up by dropping it, or `wait`
    /// is over.
    ///
    /// # Errors
    ///
    /// [`QueueError`] where no indexer lets this wait.
    pub async fn queue(
        &self,
        needs: &Needs,
        exclude: &[NodeId],
        wait: Duration,
    ) -> Result<QueuePlace<'_>, QueueError> {
        let exclude = exclude.iter().copied().take(REFUSING_MAX).collect();
        self.queue_for(self.match_request(needs, 1, true, exclude), wait).await
    }

    /// As [`Buyer::queue`], with the whole question.
    pub(super) async fn queue_for(
        &self,
        request: MatchRequest,
        wait: Duration,
    ) -> Result<QueuePlace<'_>, QueueError> {
        let indexers = self.indexers.callers(&request.needs.regions);
        let mut place = QueuePlace {
            buyer: self,
            request,
            deadline: Instant::now() + wait.min(Duration::from_millis(WAIT_MS_MAX)),
            ticket: None,
            indexers,
            indexer: 0,
            line: None,
            lost: None,
            pause: Duration::from_millis(50),
        };
        let (mut over, mut last) = (None, None);
        for number in 0..place.indexers.len() {
            place.indexer = number;
            match place.join().await {
                Ok(_) => return Ok(place),
                // The nearest one's reason stands; what it does not have another region may.
                Err(Failed::Over(error)) => over = over.or(Some(error)),
                Err(Failed::Call(error)) => last = Some(error),
            }
        }
        Err(over.unwrap_or(QueueError::NoQueue(last)))
    }
}

/// Why an indexer gave no place.
enum Failed {
    Over(QueueError),
    Call(CallError),
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::Call(CallError::Wire(error))
    }
}

impl QueuePlace<'_> {
    /// The indexer at which it waits.
    pub fn indexer(&self) -> Option<NodeId> {
        self.caller().map(|caller| caller.addr().node)
    }

    fn caller(&self) -> Option<&Arc<Caller>> {
        self.indexers.get(self.indexer)
    }

    /// The next thing that happens. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// [`QueueError`] once waiting is over.
    pub async fn next(&mut self) -> Result<QueueEvent, QueueError> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(QueueError::TimedOut);
            }
            let Some(line) = &mut self.line else {
                if let Some(event) = self.come_back().await? {
                    return Ok(event);
                }
                continue;
            };
            // The indexer says it when the time is over, and this side knows it as well.
            let until = (Instant::now() + SILENCE_MAX).min(self.deadline + TICKET_TIMEOUT);
            match timeout_at(until, line.events.recv()).await.ok().flatten() {
                Some(WaitEvent::Ticket { .. }) => (),
                Some(WaitEvent::Standing(standing)) => {
                    return Ok(QueueEvent::Standing(Box::new(standing)));
                }
                Some(WaitEvent::Offers(signed)) => {
                    let mut offers = self.buyer.open_turn(&self.request, &signed);
                    offers.retain(|offer| is_within(&self.request.needs, offer));
                    if is_whole(&self.request, &offers) {
                        let by = self.indexer().into_iter();
                        by.for_each(|by| self.buyer.offered(&offers, by));
                        return Ok(QueueEvent::Offers(offers));
                    }
                    self.refused(&[]).await;
                }
                Some(WaitEvent::TimedOut) => return Err(QueueError::TimedOut),
                Some(WaitEvent::WhyNot(why)) => {
                    return Err(QueueError::NothingFits(Box::new(why)));
                }
                Some(WaitEvent::Refused(why)) => return Err(QueueError::Refused(why)),
                None => {
                    self.line = None;
                    self.lost = Some(Instant::now());
                    return Ok(QueueEvent::Lost);
                }
            }
        }
    }

    /// The offers came to nothing: these hosts refused. The place is kept.
    pub async fn refused(&mut self, hosts: &[NodeId]) {
        let hosts = hosts.iter().copied().take(REFUSING_MAX).collect();
        self.answer(WaitAnswer::Refused(hosts)).await;
    }

    /// The offers were taken up: gives the place to the next one.
    pub async fn placed(mut self) {
        self.answer(WaitAnswer::Placed).await;
        self.leave().await;
    }

    /// Gives the place up.
    pub async fn leave(mut self) {
        if let Some(mut line) = self.line.take() {
            let _ = line.send.finish();
            // The indexer ends its side once it has understood.
            let ended = async { while line.events.recv().await.is_some() {} };
            let _ = timeout(FAREWELL, ended).await;
        }
    }

    async fn answer(&mut self, answer: WaitAnswer) {
        let Some(line) = &mut self.line else { return };
        match timeout(ANSWER, wire::send(&mut line.send, &answer)).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => debug!(%error, "the indexer does not hear the answer"),
            Err(_) => debug!("the indexer does not read answers"),
        }
    }

    /// One try to come back to the queue.
    async fn come_back(&mut self) -> Result<Option<QueueEvent>, QueueError> {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let is_loyal = self.lost.is_none_or(|lost| lost.elapsed() < LOYALTY);
        if !is_loyal && self.indexers.len() > 1 {
            self.indexer = (self.indexer + 1) % self.indexers.len();
        }
        match self.join().await {
            Ok(is_kept) => {
                self.pause = Duration::from_millis(50);
                self.lost = None;
                let node = self.indexer().unwrap_or(NodeId::from_bytes([0; 32]));
                Ok(Some(QueueEvent::Back(node, is_kept)))
            }
            Err(Failed::Over(QueueError::NothingFits(_))) => {
                // After a restart an indexer knows nothing for a moment.
                Ok(None)
            }
            Err(Failed::Over(error)) => Err(error),
            Err(Failed::Call(error)) => {
                debug!(error = %crate::chain(&error), "not back in the queue yet");
                Ok(None)
            }
        }
    }

    /// Opens the stream; says whether the place of the ticket was kept.
    async fn join(&mut self) -> Result<bool, Failed> {
        let Some(caller) = self.caller() else {
            return Err(Failed::Over(QueueError::NoQueue(None)));
        };
        let joining = async {
            let connection = caller.connection().await.map_err(Failed::Call)?;
            let opened = connection.open().await;
            let (mut send, mut recv) =
                opened.map_err(|lost| Failed::Call(CallError::Lost(lost)))?;
            let left = self.deadline.saturating_duration_since(Instant::now());
            let wait = Wait {
                request: Box::new(self.request.clone()),
                wait_ms: u64::try_from(left.as_millis()).unwrap_or(WAIT_MS_MAX),
                ticket: self.ticket.clone(),
            };
            wire::send(&mut send, &IndexHello::Wait(Box::new(wait))).await?;
            let first: WaitEvent = wire::expect(&mut recv, TICKET_TIMEOUT).await?;
            Ok::<_, Failed>((connection, send, recv, first))
        };
        let late = |_| Failed::from(WireError::Late(TICKET_TIMEOUT));
        let (connection, send, mut recv, first) =
            timeout(TICKET_TIMEOUT, joining).await.map_err(late)??;
        let (ticket, is_kept) = match first {
            WaitEvent::Ticket { ticket, is_kept } => (ticket, is_kept),
            WaitEvent::WhyNot(why) => {
                return Err(Failed::Over(QueueError::NothingFits(Box::new(why))));
            }
            WaitEvent::Refused(why) => return Err(Failed::Over(QueueError::Refused(why))),
            WaitEvent::TimedOut => return Err(Failed::Over(QueueError::TimedOut)),
            WaitEvent::Standing(_) | WaitEvent::Offers(_) => return Err(WireError::Ended.into()),
        };
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        // Frames are read by a task of their own: one half read must not be given up.
        #[expect(clippy::disallowed_methods, reason = "ends with the place, which aborts it")]
        let reading = tokio::spawn(async move {
            while let Ok(Some(event)) = wire::recv(&mut recv).await {
                if tell.send(event).await.is_err() {
                    return;
                }
            }
        });
        self.ticket = Some(ticket);
        self.line =
            Some(Line { send, events, _reading: Reading(reading), _connection: connection });
        Ok(is_kept)
    }
}

impl From<QueueError> for BuyerError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TimedOut => Self::NoHost(welkin_types::Reason::HostsBusy),
            QueueError::NothingFits(why) => Self::NothingFits(why),
            QueueError::Refused(why) => Self::IndexerRefuses(why),
            QueueError::NoQueue(Some(error)) => Self::NoIndexer(error),
            QueueError::NoQueue(None) => Self::NoIndexerNamed,
        }
    }
}
