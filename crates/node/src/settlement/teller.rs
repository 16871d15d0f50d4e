//! One operator's teller: takes vouchers over the counter and carries out what the
//! [batch](welkin_chain::batch) decides.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use welkin_chain::address;
use welkin_chain::batch::{
    Answer, Batch, BatchConfig, Effect, Entry, Event, GasCost, NoCredit, Offer, Standing, Verdict,
};
use welkin_chain::contracts::{Escrow, IEscrow};
use welkin_chain::rpc::{Receipt, Rpc, RpcError};
use welkin_chain::sender::{SendError, Sender, head_and_fees};
use welkin_types::{LeaseId, TxId, Usd};

use super::words::{signature, voucher_of};
use crate::outside;

/// How many questions may wait at the counter.
const QUEUE: usize = 1_024;
/// Gas of a transaction that redeems, beside what each voucher takes.
const GAS_BASE: u64 = 40_000;
/// Gas of each voucher, its lane topped up again (contracts/README.md).
const GAS_EACH: u64 = 33_000;

/// What came of a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redeemed {
    /// It is kept until redeeming is worth its gas.
    Kept,
    /// This transaction has redeemed it, or a newer one.
    By(TxId),
}

/// Why a voucher was not redeemed.
#[derive(Clone, Debug)]
pub(super) enum NotRedeemed {
    /// The contract refuses it, with this error's selector.
    Refused([u8; 4]),
    /// No transaction could be sent; it is kept.
    Failed(SendError),
    /// It is not kept.
    Full(NoCredit),
}

type Reply = oneshot::Sender<Result<Redeemed, NotRedeemed>>;

enum Ask {
    Redeem { entry: Box<Entry>, standing: Standing, reply: Reply },
    Open { lease: LeaseId, reply: oneshot::Sender<Option<Entry>> },
    Closed(LeaseId),
}

/// The counter.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    asks: mpsc::Sender<Ask>,
    credit: watch::Receiver<Option<NoCredit>>,
}

/// How a teller works.
#[derive(Clone, Copy, Debug)]
pub(super) struct TellerConfig {
    pub(super) escrow: Address,
    pub(super) batch: BatchConfig,
    /// What one of the chain's coins costs.
    pub(super) coin: Usd,
}

impl Teller {
    /// A teller, and the task that does its work.
    pub(super) fn new(
        config: TellerConfig,
        sender: Sender,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (asks, inbox) = mpsc::channel(QUEUE);
        let (told, credit) = watch::channel(None);
        let desk = Desk {
            config,
            sender,
            batch: Batch::new(config.batch),
            next_id: 0,
            replies: BTreeMap::new(),
            work: JoinSet::new(),
            told,
        };
        (Self { asks, credit }, desk.run(inbox))
    }

    /// Hands a voucher in; returns when it is redeemed, or kept for later.
    pub(super) async fn redeem(
        &self,
        entry: Entry,
        standing: Standing,
    ) -> Result<Redeemed, NotRedeemed> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Redeem { entry: Box::new(entry), standing, reply };
        let ended = || NotRedeemed::Failed(SendError::Ended);
        self.asks.send(ask).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// A lease's voucher that is kept.
    pub(super) async fn open(&self, lease: LeaseId) -> Option<Entry> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Open { lease, reply }).await.ok()?;
        answer.await.ok()?
    }

    /// A lease is closed: what was kept for it is paid.
    pub(super) async fn closed(&self, lease: LeaseId) {
        // A teller that has ended keeps nothing.
        let _ = self.asks.send(Ask::Closed(lease)).await;
    }

    /// Why no further credit should be given; none: it may.
    pub(super) fn no_credit(&self) -> Option<NoCredit> {
        *self.credit.borrow()
    }
}

/// What a task of the desk has found out.
enum Found {
    Gas(Option<GasCost>),
    Sent { batch: u64, entries: Vec<Entry>, result: Result<Receipt, SendError> },
}

struct Desk {
    config: TellerConfig,
    sender: Sender,
    batch: Batch,
    next_id: u64,
    replies: BTreeMap<u64, Reply>,
    work: JoinSet<Found>,
    told: watch::Sender<Option<NoCredit>>,
}

impl Desk {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        loop {
            let now = outside::now();
            let pause = self.batch.wake(now).map_or(Duration::from_secs(3_600), |at| at.since(now));
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(ask) => self.ask(ask),
                    None => return,
                },
                Some(found) = self.work.join_next() => match found {
                    Ok(found) => self.found(found),
                    Err(error) => tracing::error!(%error, "a batch of vouchers was dropped"),
                },
                () = tokio::time::sleep(pause) => self.event(Event::Tick, None),
            }
            self.tell();
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Redeem { entry, standing, reply } => {
                let id = self.next_id;
                self.next_id += 1;
                self.replies.insert(id, reply);
                self.event(Event::Offered(Offer { id, entry: *entry, standing }), None);
            }
            Ask::Open { lease, reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.batch.open(lease).cloned());
            }
            Ask::Closed(lease) => {
                for id in self.batch.take(lease) {
                    self.reply(id, Ok(Redeemed::Kept));
                }
            }
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Gas(gas) => self.event(Event::Gas(gas), None),
            Found::Sent { batch, entries, result: Ok(receipt) } => {
                let verdicts = verdicts(&entries, &receipt);
                let transaction = TxId::from_bytes(receipt.transaction_hash.0);
                self.event(Event::Settled { batch, verdicts }, Some(Ok(transaction)));
            }
            Found::Sent { batch, entries, result: Err(error) } => {
                let (vouchers, why) = (entries.len(), crate::chain(&error));
                tracing::warn!(vouchers, %why, "vouchers are not redeemed yet");
                self.event(Event::Failed { batch }, Some(Err(error)));
            }
        }
    }

    /// Carries out what an event leads to; `result` is the batch's that it is about.
    fn event(&mut self, event: Event, result: Option<Result<TxId, SendError>>) {
        for effect in self.batch.handle(outside::now(), event) {
            match effect {
                Effect::AskGas => {
                    let (rpc, coin) = (self.sender.rpc().clone(), self.config.coin);
                    self.work.spawn(async move { Found::Gas(gas(&rpc, coin).await) });
                }
                Effect::Send { batch, entries } => self.send(batch, entries),
                Effect::Answer { id, answer } => {
                    let answer = self.answer(answer, result.as_ref());
                    self.reply(id, answer);
                }
                Effect::Dropped { lease, why } => {
                    let why = welkin_chain::refusals::explain(&why).why;
                    tracing::warn!(%lease, %why, "a kept voucher is refused");
                }
            }
        }
    }

    fn answer(
        &self,
        answer: Answer,
        result: Option<&Result<TxId, SendError>>,
    ) -> Result<Redeemed, NotRedeemed> {
        match (answer, result) {
            (Answer::Redeemed(_), Some(Ok(transaction))) => Ok(Redeemed::By(*transaction)),
            (Answer::Failed(_), Some(Err(error))) => Err(NotRedeemed::Failed(error.clone())),
            (Answer::Refused(why), _) => Err(NotRedeemed::Refused(why)),
            (Answer::Full, _) => {
                let why = NoCredit::Leases(self.config.batch.leases_max);
                Err(NotRedeemed::Full(self.batch.no_credit().unwrap_or(why)))
            }
            (Answer::Kept | Answer::Redeemed(_) | Answer::Failed(_), _) => Ok(Redeemed::Kept),
        }
    }

    fn reply(&mut self, id: u64, answer: Result<Redeemed, NotRedeemed>) {
        if let Some(reply) = self.replies.remove(&id) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    fn send(&mut self, batch: u64, entries: Vec<Entry>) {
        let redemptions = entries.iter().map(|entry| IEscrow::Redemption {
            buyer: address(entry.buyer),
            voucher: voucher_of(&entry.voucher.message),
            signature: signature(&entry.voucher.signature),
            holdBeyond: entry.beyond.micros(),
        });
        let call = Escrow::redeemBatchCall { redemptions: redemptions.collect() };
        let (sender, escrow) = (self.sender.clone(), self.config.escrow);
        self.work.spawn(async move {
            let result = sender.send(Some(escrow), call.abi_encode().into(), true).await;
            Found::Sent { batch, entries, result }
        });
    }

    fn tell(&self) {
        let credit = self.batch.no_credit();
        self.told.send_if_modified(|told| {
            let is_new = std::mem::replace(told, credit).is_some() != credit.is_some();
            match credit {
                Some(why) if is_new => tracing::warn!(%why, "no new leases"),
                None if is_new => tracing::info!("vouchers are redeemed again: new leases"),
                _ => (),
            }
            is_new
        });
    }
}

/// What became of each voucher by the batch's events.
fn verdicts(entries: &[Entry], receipt: &Receipt) -> BTreeMap<LeaseId, Verdict> {
    let mut verdicts: BTreeMap<_, _> =
        entries.iter().map(|entry| (entry.voucher.message.lease, Verdict::Paid)).collect();
    for log in &receipt.logs {
        let skipped = Escrow::Skipped::decode_raw_log(log.topics.iter().copied(), &log.data);
        let Ok(skipped) = skipped else { continue };
        let index = usize::try_from(skipped.index).unwrap_or(usize::MAX);
        if let Some(entry) = entries.get(index) {
            verdicts.insert(entry.voucher.message.lease, Verdict::Refused(skipped.reason.0));
        }
    }
    verdicts
}

/// What redeeming costs at present.
async fn gas(rpc: &Rpc, coin: Usd) -> Option<GasCost> {
    match cost(rpc, coin).await {
        Ok(cost) => Some(cost),
        Err(error) => {
            tracing::debug!(%error, "what gas costs is not known");
            None
        }
    }
}

async fn cost(rpc: &Rpc, coin: Usd) -> Result<GasCost, RpcError> {
    let (_, fees) = head_and_fees(rpc).await?;
    // The most that is offered is twice the base fee and the tip: what is paid is one of each.
    let price = fees.max.saturating_sub(fees.tip) / 2 + fees.tip;
    let of = |gas: u64| {
        let wei = U256::from(price).saturating_mul(U256::from(gas));
        let micros = wei.saturating_mul(U256::from(coin.micros()))
            / U256::from(1_000_000_000_000_000_000_u64);
        super::history::micros(micros)
    };
    Ok(GasCost { base: of(GAS_BASE), each: of(GAS_EACH) })
}
