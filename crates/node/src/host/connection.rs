//! One buyer's connection: who it is, its control stream, and the streams beside it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::digest::Side;
use welkin_proto::lease::{FromHost, Refusal, RefusalCode, ToHost};
use welkin_proto::{SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, NodeId};

use super::desk::Desk;
use super::registry::{Command, LeaseHandle, View};
use super::{Host, open, restore, streams};
use crate::gate::{Busy, CODE_TOO_MANY, Pass};
use crate::outside;
use crate::wire::{self, WireError};

/// How long a new connection may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The most messages that wait to be sent to a buyer; a slower buyer waits.
const OUT_MAX: usize = 256;
/// The most leases followed by one connection.
const FOLLOWED_MAX: usize = 512;

/// Serves a connection until it ends. Its leases live on.
pub(crate) async fn serve(host: Arc<Host>, connection: Connection, pass: Pass) {
    let Ok(Ok((send, mut recv))) = tokio::time::timeout(HELLO_TIMEOUT, connection.accept()).await
    else {
        connection.close(2, b"no hello");
        return;
    };
    let buyer = match hello(&host, &connection, &mut recv).await {
        Ok(buyer) => buyer,
        Err(reason) => {
            debug!(reason, "a buyer's connection is refused");
            connection.close(2, reason.as_bytes());
            return;
        }
    };
    if let Err(why) = pass.identify(buyer) {
        connection.close(CODE_TOO_MANY, why.to_string().as_bytes());
        return;
    }
    let mut tasks = JoinSet::new();
    let (out, queue) = mpsc::channel(OUT_MAX);
    let busy = Busy::new();
    tasks.spawn(write(send, queue));
    tasks.spawn(streams::accept(Arc::clone(&host), connection.clone(), buyer, busy.clone()));
    tasks.spawn(close_idle(Arc::clone(&host), connection.clone(), buyer, busy.clone()));
    let mut control =
        Control { host, buyer, out, tasks, busy, connection: connection.clone(), followed: 0 };
    if let Err(error) = control.run(&mut recv).await {
        debug!(%error, "a control stream ended");
        if error.is_peers_fault() {
            connection.close(3, b"malformed message");
            return;
        }
    }
    // The peer has said all it wants to say; the followers go on until the connection is gone.
    connection.closed().await;
}

/// Closes a connection on which nothing is under way, unless its buyer has a lease here.
async fn close_idle(host: Arc<Host>, connection: Connection, buyer: AccountId, busy: Busy) {
    loop {
        busy.idle().await;
        let leases = host.registry.of(buyer);
        if leases.iter().all(|handle| handle.view.borrow().record.receipt.is_some()) {
            host.gate.close_idle(&connection);
            return;
        }
        busy.note();
    }
}

async fn hello(
    host: &Host,
    connection: &Connection,
    recv: &mut RecvStream,
) -> Result<AccountId, &'static str> {
    match wire::expect(recv, HELLO_TIMEOUT).await {
        Ok(ToHost::Hello(delegation)) => delegation
            .account(&host.domain, NodeId::from_bytes(connection.peer()), outside::now())
            .map_err(|_| "no account vouches for this node on this network"),
        Ok(_) => Err("the first message must say who you are"),
        Err(_) => Err("malformed hello"),
    }
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<FromHost>) {
    while let Some(message) = queue.recv().await {
        if wire::send(&mut send, &message).await.is_err() {
            return;
        }
    }
}

struct Control {
    host: Arc<Host>,
    buyer: AccountId,
    out: mpsc::Sender<FromHost>,
    tasks: JoinSet<()>,
    busy: Busy,
    connection: Connection,
    followed: usize,
}

impl Control {
    async fn run(&mut self, recv: &mut RecvStream) -> Result<(), WireError> {
        while let Some(message) = wire::recv::<ToHost>(recv).await? {
            self.busy.note();
            self.take(message).await;
        }
        Ok(())
    }

    async fn take(&mut self, message: ToHost) {
        match message {
            // Said once already; once more changes nothing.
            ToHost::Hello(_) => (),
            ToHost::Open(open) => {
                let (host, buyer, out) = (Arc::clone(&self.host), self.buyer, self.out.clone());
                if self.may_follow() {
                    let lease = open.order.message.lease;
                    let (done, opened) = oneshot::channel();
                    // A task of the host's own: begun, it must come to an end, or a slot and money
                    // would be left taken by a connection that is gone.
                    let opener = Arc::clone(&host);
                    self.host.shutdown.spawn_until_asked("open", async move {
                        let result = open::open(&opener, buyer, *open).await;
                        let is_made = result.is_ok();
                        if done.send(result).is_err() && is_made {
                            abandon(&opener, lease, buyer).await;
                        }
                    });
                    let work = self.busy.begin();
                    self.tasks.spawn(async move {
                        let _work = work;
                        match opened.await {
                            Ok(Ok(accepted)) => {
                                let _ = out.send(FromHost::Accepted(accepted)).await;
                                if let Some(handle) = host.registry.find(lease, buyer) {
                                    follow(lease, handle, out).await;
                                }
                            }
                            Ok(Err(refusal)) => drop(out.send(FromHost::Refused(refusal)).await),
                            Err(_) => (),
                        }
                    });
                }
            }
            ToHost::Resume(lease) => {
                if let Some(handle) = self.find(lease).await
                    && self.may_follow()
                {
                    let (work, out) = (self.busy.begin(), self.out.clone());
                    self.tasks.spawn(async move {
                        follow(lease, handle, out).await;
                        drop(work);
                    });
                }
            }
            ToHost::Voucher(voucher) => self.voucher(voucher).await,
            ToHost::Digest(update) => {
                self.command(update.series.lease, Command::Digest(update)).await;
            }
            ToHost::Stop { lease, grace_ms } => {
                self.command(lease, Command::Stop(Duration::from_millis(grace_ms.into()))).await;
            }
            ToHost::Signal { lease, signal } => {
                if (1..=64).contains(&signal) {
                    self.command(lease, Command::Signal(signal)).await;
                }
            }
            ToHost::Resize { lease, size } => self.command(lease, Command::Resize(size)).await,
            ToHost::Ack(ack) => self.ack(ack).await,
            ToHost::Fetched(lease) => self.command(lease, Command::Fetched).await,
            ToHost::Remove(lease) => self.remove(lease).await,
            ToHost::Reserve(reserve) => {
                if self.may_follow() {
                    self.desk().reserve(*reserve, &mut self.tasks);
                }
            }
            ToHost::Reservation(id) => self.desk().look(id).await,
            ToHost::Cancel(id) => self.desk().cancel(id).await,
        }
    }

    /// What is said of reservations.
    fn desk(&self) -> Desk {
        Desk { host: Arc::clone(&self.host), buyer: self.buyer, out: self.out.clone() }
    }

    fn may_follow(&mut self) -> bool {
        self.followed += 1;
        self.followed <= FOLLOWED_MAX
    }

    async fn find(&self, lease: LeaseId) -> Option<LeaseHandle> {
        let found = self.host.registry.find(lease, self.buyer);
        if found.is_none() {
            let detail = "you have no such lease on this host".to_owned();
            let refusal = Refusal { lease, code: RefusalCode::Unknown, detail };
            let _ = self.out.send(FromHost::Refused(refusal)).await;
        }
        found
    }

    async fn command(&self, lease: LeaseId, command: Command) {
        if let Some(handle) = self.find(lease).await {
            // A lease that is over takes no commands, and needs none.
            let _ = handle.commands.send(command).await;
        }
    }

    async fn voucher(&self, voucher: Box<SignedByAccount<Voucher>>) {
        let Voucher { lease, operator, amount, seconds } = voucher.message;
        if self.desk().is_for(lease) {
            return self.desk().voucher(voucher).await;
        }
        let Some(handle) = self.find(lease).await else { return };
        let (price, budget) = {
            let view = handle.view.borrow();
            let order = &view.record.order.message;
            (order.price, order.budget)
        };
        let is_good = operator == self.host.operator
            && amount == price.cost(seconds)
            && amount <= budget
            && voucher.signer(&self.host.domain) == Ok(self.buyer);
        if is_good {
            let heard = crate::buyer::heard(&self.connection);
            let _ = handle.commands.send(Command::Voucher(voucher, heard)).await;
        } else {
            debug!(%lease, "a voucher is refused");
        }
    }

    async fn ack(&self, ack: Box<SignedByAccount<welkin_proto::ReceiptAck>>) {
        let lease = ack.message.lease;
        if self.desk().is_for(lease) {
            return self.desk().ack(ack).await;
        }
        let Some(handle) = self.find(lease).await else { return };
        let digest = handle.view.borrow().record.receipt.as_ref().map(|signed| signed.digest());
        let is_good = digest == Some(ack.message.receipt_sha256)
            && ack.signer(&self.host.domain) == Ok(self.buyer);
        if is_good {
            let _ = handle.commands.send(Command::Ack(ack)).await;
        }
    }

    async fn remove(&self, lease: LeaseId) {
        let Some(handle) = self.find(lease).await else { return };
        let is_over = handle.view.borrow().record.receipt.is_some();
        let reply = if is_over {
            restore::forget(&self.host, lease).await;
            FromHost::Removed(lease)
        } else {
            let detail = "the lease has not ended: stop it first".to_owned();
            FromHost::Refused(Refusal { lease, code: RefusalCode::Invalid, detail })
        };
        let _ = self.out.send(reply).await;
    }
}

/// Ends a lease whose buyer was gone before it heard of it.
async fn abandon(host: &Host, lease: LeaseId, buyer: AccountId) {
    if let Some(handle) = host.registry.find(lease, buyer) {
        let _ = handle.commands.send(Command::Stop(Duration::ZERO)).await;
    }
}

/// Tells a buyer of a lease, from its first state to its receipt.
async fn follow(lease: LeaseId, mut handle: LeaseHandle, out: mpsc::Sender<FromHost>) {
    let (mut told, mut asked, mut is_offered) = (0, 0, false);
    loop {
        let view = handle.view.borrow_and_update().clone();
        let mut messages = news(lease, &view, told);
        told = view.record.stages.len();
        let (count, seconds, covered) = view.asked;
        if count > asked {
            asked = count;
            messages.push(FromHost::Usage { lease, seconds, covered });
        }
        if let Some(until) = view.offered.filter(|_| !is_offered) {
            is_offered = true;
            let within_ms = until.since(outside::now()).as_millis();
            let within_ms = u32::try_from(within_ms).unwrap_or(u32::MAX);
            messages.push(FromHost::Checkpoint { lease, within_ms });
        }
        let receipt = view.record.receipt.clone();
        for message in messages {
            if out.send(message).await.is_err() {
                return;
            }
        }
        if let Some(receipt) = receipt {
            for digests in view.digests.iter().filter(|d| d.series.side == Side::Host) {
                let _ = out.send(FromHost::Digests(Box::new(digests.clone()))).await;
            }
            let operator = Box::new(view.record.operator.clone());
            let receipt = FromHost::Receipt { lease, receipt: Box::new(receipt), operator };
            let _ = out.send(receipt).await;
            return;
        }
        if handle.view.changed().await.is_err() {
            return;
        }
    }
}

fn news(lease: LeaseId, view: &View, told: usize) -> Vec<FromHost> {
    let stages = view.record.stages.get(told..).unwrap_or_default();
    let last = view.record.stages.last();
    stages
        .iter()
        .map(|stage| {
            let detail = view.detail.clone().filter(|_| last == Some(stage));
            FromHost::Stage { lease, stage: *stage, detail }
        })
        .collect()
}
