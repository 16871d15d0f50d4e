//! The conversation with one buyer that waits.

use tokio::sync::mpsc;
use tracing::info;
use welkin_match::queue::{Join, JoinRefusal, Joined, Wish};
use welkin_net::{ConnectionLost, FrameError, ReadError, RecvStream, SendStream, WriteError};
use welkin_proto::Signed;
use welkin_proto::index::{MatchRequest, ROUND_TRIPS_MAX};
use welkin_proto::queue::{REFUSING_MAX, Ticket, Wait, WaitAnswer, WaitEvent};
use welkin_types::{AccountId, TicketId};

use super::super::matching::LISTED_MAX;
use super::super::{Indexer, Peer};
use super::{EVENTS_MAX, Line, Reason, Seat, Slots, digest_of};
use crate::outside;
use crate::wire::{self, WireError};

/// Lets a buyer wait on this stream until its turn, its time or its end.
pub(in super::super) async fn wait(
    indexer: &Indexer,
    peer: &Peer,
    wait: Wait,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let (seat, ticket, mut events) = match admit(indexer, peer, wait) {
        Ok(admitted) => admitted,
        Err(why) => {
            wire::send(&mut send, &*why).await?;
            let _ = send.finish();
            return Ok(());
        }
    };
    wire::send(&mut send, &ticket).await?;
    indexer.waiting.freed();
    let pushing = async {
        while let Some(event) = events.recv().await {
            wire::send(&mut send, &event).await?;
        }
        // The place is gone; what it was told last is read before the stream ends.
        let _ = send.finish();
        Ok(Heard::Over)
    };
    let heard = tokio::select! {
        heard = listen(indexer, &seat, &mut recv) => heard,
        pushed = pushing => pushed,
    };
    match heard {
        Ok(Heard::Over) => {
            seat.leave();
            Ok(())
        }
        Err(error) if is_given_up(&error) => {
            seat.leave();
            Ok(())
        }
        // Dropping the seat keeps the place for a while.
        Err(error) => Err(error),
    }
}

enum Heard {
    /// The buyer does not wait any more.
    Over,
}

/// Whether the buyer ended the conversation, rather than lost it.
fn is_given_up(error: &WireError) -> bool {
    let WireError::Frame(error) = error else { return error.is_peers_fault() };
    matches!(
        **error,
        FrameError::Read(
            ReadError::Reset { .. } | ReadError::Lost(ConnectionLost::ClosedByPeer { .. })
        ) | FrameError::Write(
            WriteError::Stopped { .. } | WriteError::Lost(ConnectionLost::ClosedByPeer { .. })
        )
    )
}

async fn listen(
    indexer: &Indexer,
    seat: &Seat<'_>,
    recv: &mut RecvStream,
) -> Result<Heard, WireError> {
    while let Some(answer) = wire::recv(recv).await? {
        match answer {
            WaitAnswer::Placed => return Ok(Heard::Over),
            WaitAnswer::Refused(hosts) => {
                let hosts = hosts.get(..REFUSING_MAX).unwrap_or(&hosts);
                let mut inner = indexer.waiting.lock();
                if seat.is_present(&inner) {
                    inner.queue.returned(outside::now(), seat.ticket, hosts);
                    if let Some(line) = inner.lines.get_mut(&seat.ticket) {
                        line.told = None;
                    }
                }
                drop(inner);
                indexer.waiting.freed();
            }
        }
    }
    Ok(Heard::Over)
}

type Admitted<'a> = (Seat<'a>, WaitEvent, mpsc::Receiver<WaitEvent>);

fn refused(why: impl ToString) -> Box<WaitEvent> {
    Box::new(WaitEvent::Refused(why.to_string()))
}

/// Gives a buyer its place; or says why not.
fn admit<'a>(
    indexer: &'a Indexer,
    peer: &Peer,
    wait: Wait,
) -> Result<Admitted<'a>, Box<WaitEvent>> {
    let now = outside::now();
    let MatchRequest { buyer, needs, exclude, from, round_trips_us, gang, .. } = *wait.request;
    let buyer = peer.account(&indexer.domain, &buyer);
    let buyer = buyer.ok_or_else(|| refused("no account vouches for this node"))?;
    peer.pass.identify(buyer).map_err(refused)?;
    let lists = [needs.regions.len(), needs.operators_allow.len(), needs.operators_deny.len()];
    let is_long = lists.into_iter().chain([needs.features.len()]).any(|length| length > LISTED_MAX);
    if exclude.len() > REFUSING_MAX || round_trips_us.len() > ROUND_TRIPS_MAX || is_long {
        return Err(refused("the wish names too many hosts, regions, operators or features"));
    }
    let wish = Wish { needs, gang, exclude: Vec::new(), from, round_trips_us };
    let digest = digest_of(&wish);
    let wish = Wish { exclude, ..wish };
    let reason = {
        let mut fleet = indexer.fleet();
        let why = Slots::new(&mut fleet, now).why_not(&wish);
        if let Some(why) = why.as_ref().filter(|why| !why.is_only_busy()) {
            return Err(Box::new(WaitEvent::WhyNot(why.clone())));
        }
        why.map(Reason::from).unwrap_or_default()
    };
    let kept = wait.ticket.and_then(|ticket| own_ticket(indexer, &ticket, buyer, digest));
    let fresh = || Ticket {
        id: TicketId::from_bytes(outside::random()),
        buyer,
        wish: digest,
        since: now,
        deadline: now.after(std::time::Duration::from_millis(wait.wait_ms)),
    };
    let (seat, ticket, is_kept, events) = {
        let mut inner = indexer.waiting.lock();
        let mut join = |ticket: &Ticket| {
            let (deadline, since) = (ticket.deadline, ticket.since);
            let wish = wish.clone();
            inner.queue.join(now, Join { ticket: ticket.id, buyer, since, deadline, wish })
        };
        let mut ticket = kept.clone().unwrap_or_else(fresh);
        let mut joined = join(&ticket);
        if matches!(joined, Err(JoinRefusal::Spent | JoinRefusal::Stranger)) {
            ticket = fresh();
            joined = join(&ticket);
        }
        let joined = joined.map_err(refused)?;
        inner.numbers += 1;
        let (number, (push, events)) = (inner.numbers, mpsc::channel(EVENTS_MAX));
        inner.lines.insert(ticket.id, Line { number, push, told: None, reason });
        indexer.waiting.counted(&inner);
        let seat = Seat { indexer, buyer, ticket: ticket.id, number, is_over: false };
        let is_kept = kept.is_some_and(|kept| kept.id == ticket.id);
        let how = if joined == Joined::Again { "again" } else { "newly" };
        info!(ticket = %ticket.id, %buyer, waiting = inner.queue.len(), how, "a buyer waits");
        (seat, ticket, is_kept, events)
    };
    let ticket = Signed::sign(&indexer.domain, &indexer.key, &ticket).map_err(refused)?;
    Ok((seat, WaitEvent::Ticket { ticket, is_kept }, events))
}

/// The ticket, if this indexer gave it, to this buyer, for this, and it is not over.
fn own_ticket(
    indexer: &Indexer,
    ticket: &Signed<Ticket>,
    buyer: AccountId,
    wish: [u8; 32],
) -> Option<Ticket> {
    let ticket = ticket.open_by(&indexer.domain, indexer.key.id()).ok()?;
    let is_own = ticket.buyer == buyer && ticket.wish == wish;
    (is_own && ticket.deadline > outside::now()).then_some(ticket)
}
