//! Keeping a lease: answer its host's questions for vouchers, follow its states, take its receipt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};
use welkin_lease::Payer;
use welkin_net::Connection;
use welkin_proto::lease::{FromHost, RefusalCode, ToHost};
use welkin_proto::{
    Delegation, Receipt, ReceiptAck, ReceiptFile, Signed, SignedByAccount, StageTime, Voucher,
};
use welkin_types::{LeaseState, Reason};

use super::checkpoint::{self, Fetching, KeptCheckpoint};
use super::quality::{self, Quality};
use super::{Buyer, BuyerError, HostSession, KeptGang, KeptLease, Line, Placed};
use crate::outside;

/// A host that can't be reached for so long has lost the lease.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// The same before the command runs: nothing is lost then by placing it elsewhere.
const UNSTARTED_LOST_AFTER: Duration = Duration::from_secs(3);
/// A connection carries something at least every five seconds, if only to stay alive. One that
/// carries nothing for so long before the command runs is taken for broken.
const UNSTARTED_SILENCE_MAX: Duration = Duration::from_secs(7);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A host asks a running lease for a voucher every two seconds; one that says nothing for so long
/// is dialled anew, long before its connection falls silent: it may have been restarted, and work
/// that nobody pays for is stopped.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// The most states of one lease; a host that tells more is not listened to.
const STAGES_MAX: usize = 32;
/// Pause between tries to reach a host.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What a keeper has to tell.
#[derive(Clone, Debug)]
pub enum LeaseEvent {
    /// A new state.
    Stage(StageTime, Option<String>),
    /// The connection was lost; it is being made again.
    Disconnected,
    /// The connection is there again: streams must be opened anew.
    Reconnected,
    /// The container is taken back, and this is the task's checkpoint on this machine, or why there
    /// is none.
    Checkpoint(Result<std::path::PathBuf, String>),
    /// A voucher was sent: seconds promised in all.
    Paid(u64),
    /// The end, with the receipt.
    Receipt(Box<ReceiptFile>),
    /// The end, without a receipt: the host is gone.
    Lost(String),
}

/// Keeps one lease. Drive it with [`Keeper::next`] until a receipt or a loss.
#[derive(Debug)]
pub struct Keeper {
    buyer: Arc<Buyer>,
    pub(super) kept: KeptLease,
    session: Option<HostSession>,
    pub(super) fetching: Option<Fetching>,
    payer: Payer,
    voucher: Option<SignedByAccount<Voucher>>,
    quality: Quality,
    lost_at: Option<Instant>,
    heard_at: Instant,
    /// Bytes that the connection had brought when it was last looked at.
    carried: u64,
    /// Whether this process has reached the host before.
    was_connected: bool,
    is_over: bool,
    /// Why the lease is lost, where that is known before it was asked.
    doomed: Option<String>,
}

impl Keeper {
    /// Keeps a lease that was just placed.
    pub fn new(buyer: Arc<Buyer>, placed: Placed, name: String, command: String) -> Self {
        let kept = KeptLease {
            lease: placed.lease,
            name,
            command,
            host: placed.offer.addr.clone(),
            stages: Vec::new(),
            detail: None,
            running_since: None,
            promised: 0,
            by_agent: false,
            tries: 0,
            replaces: None,
            gang: None,
            checkpoint: KeptCheckpoint::of(&placed.launch),
            terms: placed.launch.terms,
            order: placed.order.clone(),
            matched: placed.offer.matched,
        };
        Self::begin(buyer, placed, kept)
    }

    /// Writes down that the lease was placed together with others.
    pub fn join(&mut self, gang: KeptGang) {
        self.kept.gang = Some(gang);
        self.save();
    }

    /// Keeps a lease that was placed in the stead of one that has ended.
    pub fn replacing(buyer: Arc<Buyer>, placed: Placed, old: &KeptLease) -> Self {
        let kept = KeptLease {
            lease: placed.lease,
            host: placed.offer.addr.clone(),
            stages: Vec::new(),
            detail: None,
            running_since: None,
            promised: 0,
            tries: old.tries.saturating_add(1),
            replaces: Some(old.lease),
            terms: placed.launch.terms,
            order: placed.order.clone(),
            matched: placed.offer.matched,
            ..old.clone()
        };
        Self::begin(buyer, placed, kept)
    }

    fn begin(buyer: Arc<Buyer>, placed: Placed, kept: KeptLease) -> Self {
        let payer = Payer::new(kept.order.message.clone(), 0);
        let carried = placed.session.connection().traffic().received_bytes;
        let keeper = Self {
            session: Some(placed.session),
            was_connected: true,
            carried,
            ..Self::bare(buyer, kept, payer)
        };
        keeper.save();
        keeper
    }

    /// Takes up a lease that another process kept before.
    pub fn resume(buyer: Arc<Buyer>, kept: KeptLease) -> Self {
        let payer = Payer::new(kept.order.message.clone(), kept.promised);
        let quality = Quality::of(&kept, Some(buyer.home()));
        Self { lost_at: Some(Instant::now()), quality, ..Self::bare(buyer, kept, payer) }
    }

    fn bare(buyer: Arc<Buyer>, kept: KeptLease, payer: Payer) -> Self {
        Self {
            quality: Quality::of(&kept, None),
            buyer,
            kept,
            session: None,
            fetching: None,
            payer,
            voucher: None,
            lost_at: None,
            heard_at: Instant::now(),
            carried: 0,
            was_connected: false,
            is_over: false,
            doomed: None,
        }
    }

    /// Whose lease it is.
    pub fn buyer(&self) -> &Buyer {
        &self.buyer
    }

    /// The same, to be kept by another lease.
    pub fn shared_buyer(&self) -> Arc<Buyer> {
        Arc::clone(&self.buyer)
    }

    /// Takes in how sending the files went. Where the host was lost meanwhile the lease is: its files
    /// can't be sent a second time, so it would never start.
    ///
    /// # Errors
    ///
    /// What is no fault of the connection.
    pub async fn files_sent(&mut self, sent: Result<(), BuyerError>) -> Result<(), BuyerError> {
        match sent {
            Err(error @ (BuyerError::HostLost | BuyerError::Wire(_))) => {
                self.stop(Duration::ZERO).await;
                self.doom(&format!("the files could not be sent: {}", crate::chain(&error)));
                Ok(())
            }
            other => other,
        }
    }

    /// Adds to what is known of how it ended.
    pub fn remark(&mut self, text: &str) {
        let before = self.kept.detail.take();
        self.kept.detail =
            Some(before.map_or_else(|| text.to_owned(), |before| format!("{before}; {text}")));
        self.save();
    }

    /// What is remembered of the lease.
    pub const fn kept(&self) -> &KeptLease {
        &self.kept
    }

    /// Says who keeps it.
    pub fn mark(&mut self, by_agent: bool) {
        self.kept.by_agent = by_agent;
        self.save();
    }

    /// The connection for streams, while there is one.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.session.as_ref().map(|session| session.connection().clone())
    }

    /// The connection for tasks of their own, while there is one.
    pub fn line(&self) -> Option<Line> {
        self.session.as_ref().map(HostSession::line)
    }

    /// The session, while there is one.
    pub const fn session(&self) -> Option<&HostSession> {
        self.session.as_ref()
    }

    /// Asks for the end of the lease.
    pub async fn stop(&self, grace: Duration) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.send(ToHost::Stop { lease: self.kept.lease, grace_ms }).await;
    }

    /// Sends a message to the host, if it can be reached.
    pub async fn send(&self, message: ToHost) {
        if let Some(session) = &self.session {
            let _ = session.send(message).await;
        }
    }

    pub(super) fn save(&self) {
        if let Err(error) = self.buyer.home().save(&self.kept) {
            warn!(error = %crate::chain(&error), "a lease can't be written down");
        }
    }

    /// What happens next; `None` once it is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<LeaseEvent> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(why) = self.doomed.take() {
                return Some(self.lose(why));
            }
            let is_running = self.kept.state().0 == LeaseState::Running;
            let is_unstarted = self.is_unstarted();
            let silent_at = self.heard_at + SILENCE_MAX;
            let Some(session) = &mut self.session else {
                if let Some(event) = self.reconnect().await {
                    return Some(event);
                }
                continue;
            };
            let heard = if is_running {
                tokio::time::timeout_at(silent_at, session.recv()).await.unwrap_or_default()
            } else if is_unstarted {
                match tokio::time::timeout(LOOK_EVERY, session.recv()).await {
                    Ok(heard) => heard,
                    Err(_) => {
                        let carried = session.connection().traffic().received_bytes;
                        if carried != self.carried {
                            self.carried = carried;
                            self.heard_at = Instant::now();
                        }
                        if self.heard_at.elapsed() < UNSTARTED_SILENCE_MAX {
                            continue;
                        }
                        None
                    }
                }
            } else {
                tokio::select! {
                    heard = session.recv() => heard,
                    fetched = checkpoint::fetched(&mut self.fetching) => {
                        return Some(self.end_fetch(fetched).await);
                    }
                }
            };
            let Some(message) = heard else {
                session.close();
                self.session = None;
                self.lost_at.get_or_insert_with(Instant::now);
                return Some(LeaseEvent::Disconnected);
            };
            self.heard_at = Instant::now();
            if let Some(event) = self.take(message).await {
                return Some(event);
            }
        }
    }

    /// Whether the command does not run yet.
    fn is_unstarted(&self) -> bool {
        !self.has_run() && !self.kept.state().0.is_final()
    }

    /// What follows is the loss.
    fn doom(&mut self, why: &str) {
        self.doomed = Some(why.to_owned());
    }

    async fn reconnect(&mut self) -> Option<LeaseEvent> {
        let since = *self.lost_at.get_or_insert_with(Instant::now);
        let is_brief = self.was_connected && self.is_unstarted();
        let lost_at = since + if is_brief { UNSTARTED_LOST_AFTER } else { LOST_AFTER };
        match tokio::time::timeout_at(lost_at, self.buyer.connect(&self.kept.host)).await {
            Ok(Ok(session)) => {
                let resume = session.send(ToHost::Resume(self.kept.lease)).await;
                if resume.is_ok() {
                    self.session = Some(session);
                    self.lost_at = None;
                    self.was_connected = true;
                    self.heard_at = Instant::now();
                    self.quality.resend();
                    return Some(LeaseEvent::Reconnected);
                }
            }
            Ok(Err(error)) => debug!(error = %crate::chain(&error), "the host is not there"),
            Err(_) => debug!("the host does not answer"),
        }
        if lost_at <= Instant::now() {
            return Some(self.lose("the host can't be reached any more".to_owned()));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
        None
    }

    /// The end without a receipt. What was promised stays promised, nothing more is.
    fn lose(&mut self, detail: String) -> LeaseEvent {
        self.is_over = true;
        let at = outside::now();
        if !self.kept.state().0.is_final() {
            let reason = Reason::HostUnreachable;
            self.kept.stages.push(StageTime { state: LeaseState::Lost, reason, at });
        }
        self.kept.detail = Some(detail.clone());
        self.save();
        LeaseEvent::Lost(detail)
    }

    async fn take(&mut self, message: FromHost) -> Option<LeaseEvent> {
        match message {
            FromHost::Stage { lease, stage, detail } if lease == self.kept.lease => {
                let told = self.stage(stage, detail);
                if stage.state > LeaseState::Running {
                    self.quality.save(self.buyer.home());
                    self.tell_digests().await;
                }
                told
            }
            FromHost::Usage { lease, seconds, .. } if lease == self.kept.lease => {
                let paid = self.pay(seconds).await;
                let heard = self.session.as_ref().map(|s| quality::heard(s.connection()));
                let reported = self.buyer.home().take_figures(self.kept.lease);
                if self.quality.heard(heard.unwrap_or_default(), reported) {
                    // Written before it is sent: what was signed is never forgotten.
                    self.quality.save(self.buyer.home());
                    self.tell_digests().await;
                }
                paid
            }
            FromHost::Digests(digests) if digests.series.lease == self.kept.lease => {
                self.quality.told(&self.buyer.domain, &self.kept, *digests);
                None
            }
            FromHost::Checkpoint { lease, within_ms } if lease == self.kept.lease => {
                if self.fetching.is_none() {
                    self.begin_fetch(Duration::from_millis(within_ms.into()));
                }
                None
            }
            FromHost::Receipt { lease, receipt, operator } if lease == self.kept.lease => {
                Some(self.receipt(*receipt, *operator).await)
            }
            FromHost::Refused(refusal)
                if refusal.lease == self.kept.lease && refusal.code == RefusalCode::Unknown =>
            {
                Some(self.lose(format!("the host does not know the lease: {}", refusal.detail)))
            }
            _ => None,
        }
    }

    fn stage(&mut self, stage: StageTime, detail: Option<String>) -> Option<LeaseEvent> {
        // After a reconnection the host tells all of them again.
        if self.kept.stages.contains(&stage) {
            self.note_running(&stage);
            return None;
        }
        if self.kept.stages.len() >= STAGES_MAX {
            return None;
        }
        self.note_running(&stage);
        self.quality.stage(&self.kept, &stage);
        if stage.state != LeaseState::Running && self.has_run() {
            self.payer.ended(outside::now());
        }
        self.kept.stages.push(stage);
        self.kept.detail.clone_from(&detail);
        self.save();
        Some(LeaseEvent::Stage(stage, detail))
    }

    fn has_run(&self) -> bool {
        self.kept.stages.iter().any(|stage| stage.state == LeaseState::Running)
    }

    fn note_running(&mut self, stage: &StageTime) {
        if stage.state == LeaseState::Running {
            // By our own clock, also where another process heard it first: what the host says of
            // time counts for nothing here.
            let now = outside::now();
            let since = *self.kept.running_since.get_or_insert(now);
            self.payer.running(now, now.since(since));
            self.quality.running(since);
        }
    }

    /// Signs what was measured since the last time, beside the vouchers.
    async fn tell_digests(&mut self) {
        if let Some(update) = self.quality.update(&self.buyer.domain, &self.buyer.account) {
            self.send(ToHost::Digest(Box::new(update))).await;
        }
    }

    /// What this side measured of the session so far.
    pub fn digests(&self) -> &[welkin_proto::digest::Series] {
        self.quality.own()
    }

    async fn pay(&mut self, claimed: u64) -> Option<LeaseEvent> {
        let voucher = self.payer.voucher(outside::now(), claimed)?;
        let seconds = voucher.seconds;
        let signed =
            SignedByAccount::sign(&self.buyer.domain, &self.buyer.account, voucher).ok()?;
        self.voucher = Some(signed.clone());
        // Written before it is sent: a promise is never forgotten.
        self.kept.promised = seconds;
        self.save();
        self.send(ToHost::Voucher(Box::new(signed))).await;
        Some(LeaseEvent::Paid(seconds))
    }

    async fn receipt(
        &mut self,
        receipt: Signed<Receipt>,
        operator: SignedByAccount<Delegation>,
    ) -> LeaseEvent {
        let voucher = self.voucher.clone().or_else(|| self.promise_again());
        let mut file = ReceiptFile {
            domain: self.buyer.domain,
            order: self.kept.order.clone(),
            operator,
            receipt,
            voucher,
            ack: None,
        };
        match file.verify() {
            Ok(receipt) if receipt.matched != self.kept.matched => {
                warn!("the host's receipt names another indexer than the offer and is not signed");
                let text = "the host's receipt names another indexer than the offer came from";
                self.kept.detail = Some(text.to_owned());
            }
            Ok(_) => file.ack = self.acknowledge(&file),
            Err(error) => {
                warn!(%error, "the host's receipt is wrong and is not signed");
                self.kept.detail = Some(format!("the host's receipt is wrong: {error}"));
            }
        }
        if let (Some(ack), Some(session)) = (&file.ack, self.session.take()) {
            let _ = session.send(ToHost::Ack(Box::new(ack.clone()))).await;
            session.finish().await;
        }
        self.quality.save(self.buyer.home());
        if let Err(error) = self.buyer.home().save_receipt(self.kept.lease, &file) {
            warn!(error = %crate::chain(&error), "a receipt can't be written down");
        }
        self.is_over = true;
        self.save();
        LeaseEvent::Receipt(Box::new(file))
    }

    /// The last promise once more, where another process made it.
    fn promise_again(&self) -> Option<SignedByAccount<Voucher>> {
        let order = &self.kept.order.message;
        let seconds = self.kept.promised;
        let amount = order.price.cost(seconds);
        let voucher = Voucher { lease: order.lease, operator: order.operator, amount, seconds };
        (seconds > 0)
            .then(|| SignedByAccount::sign(&self.buyer.domain, &self.buyer.account, voucher).ok())?
    }

    fn acknowledge(&self, file: &ReceiptFile) -> Option<SignedByAccount<ReceiptAck>> {
        let ack = ReceiptAck { lease: self.kept.lease, receipt_sha256: file.receipt.digest() };
        SignedByAccount::sign(&self.buyer.domain, &self.buyer.account, ack).ok()
    }
}
