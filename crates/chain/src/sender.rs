//! One account's transaction sender: carries out what the [outbox](crate::outbox) says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use welkin_proto::AccountKey;
use welkin_types::UnixMillis;

use crate::address;
use crate::outbox::{Event, Fees, Job, NotSent, Outbox, OutboxConfig, Outcome, Step, Waiting};
use crate::rpc::{CallRequest, Receipt, Rpc, RpcError};

/// A clock: milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// How many calls may wait to be taken up.
const QUEUE: usize = 1_024;
/// What is added to the gas that a call was found to need: the state may change until it runs.
const GAS_SPARE_PERCENT: u64 = 25;
/// The gas of a call where gas is free, so that nothing need be estimated.
const GAS_FREE: u64 = 10_000_000;

/// Why a call did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The node was not reached, or the contract refuses.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It was put into a block, and undone there.
    #[error("transaction {0} was undone by the contract")]
    Undone(B256),
    /// No node takes it.
    #[error("no node takes the transaction: {0}")]
    Refused(String),
    /// The account can't pay for the gas.
    #[error(
        "account {account} has {} of the chain's coins, and gas may cost {}: send coins to \
         {account}",
        coins(*has),
        coins(*needed)
    )]
    NoCoins {
        /// Which account.
        account: Address,
        /// What it has, in wei.
        has: U256,
        /// What the transaction may cost at most, in wei.
        needed: U256,
    },
    /// Another transaction of the same key took its place.
    #[error(
        "another sender with the same key was faster: look whether it is still needed, then try again"
    )]
    Replaced,
    /// Too many wait already.
    #[error("too many transactions wait to be sent: try again later")]
    Full,
    /// The sender has ended.
    #[error("the transaction sender has ended")]
    Ended,
}

/// Who may send what: signs and sends one account's transactions, in order.
#[derive(Clone)]
pub struct Sender {
    rpc: Rpc,
    from: Address,
    chain_id: u64,
    is_gas_free: bool,
    next_id: Arc<AtomicU64>,
    jobs: mpsc::Sender<(Job, oneshot::Sender<Outcome>)>,
    waiting: watch::Receiver<Waiting>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} on chain {})", self.from, self.chain_id)
    }
}

/// How a sender is set up.
#[derive(Clone)]
pub struct SenderConfig {
    /// The chain's id: signatures hold there only.
    pub chain_id: u64,
    /// How the outbox behaves.
    pub outbox: OutboxConfig,
    /// Whether gas costs nothing, as on an embedded chain.
    pub is_gas_free: bool,
    /// The clock.
    pub clock: Clock,
}

impl fmt::Debug for SenderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderConfig")
            .field("chain_id", &self.chain_id)
            .field("outbox", &self.outbox)
            .field("is_gas_free", &self.is_gas_free)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender, and the task that does its work; the task ends when all clones of the sender are
    /// gone and nothing is on its way any more.
    pub fn new(
        rpc: Rpc,
        key: AccountKey,
        config: SenderConfig,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (told, waiting) = watch::channel(Waiting::Idle);
        let from = address(key.id());
        let sender = Self {
            rpc: rpc.clone(),
            from,
            chain_id: config.chain_id,
            is_gas_free: config.is_gas_free,
            next_id: Arc::default(),
            jobs,
            waiting,
        };
        let worker = Worker {
            rpc,
            key: Arc::new(key),
            outbox: Outbox::new(config.outbox, from),
            config,
            asking: JoinSet::new(),
            replies: BTreeMap::new(),
            told,
        };
        (sender, worker.run(inbox))
    }

    /// In whose name it sends.
    pub const fn from(&self) -> Address {
        self.from
    }

    /// The node it sends to.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// What it waits for.
    pub fn waiting_for(&self) -> Waiting {
        *self.waiting.borrow()
    }

    /// Calls a contract and waits until that is in a block as deep as configured. First tried
    /// without changing anything, so that what the contract refuses costs nothing.
    ///
    /// # Errors
    ///
    /// [`SendError`]. If this future is dropped, the transaction may still take effect.
    pub async fn send(
        &self,
        to: Option<Address>,
        input: Bytes,
        is_repeatable: bool,
    ) -> Result<Receipt, SendError> {
        let request = CallRequest { from: Some(self.from), to, input: input.clone() };
        let gas = if self.is_gas_free {
            self.rpc.call(&request).await?;
            GAS_FREE
        } else {
            let gas = self.rpc.estimate(&request).await?;
            let gas = gas.saturating_add(gas / 100 * GAS_SPARE_PERCENT);
            self.can_pay(gas).await?;
            gas
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let job = Job { id, to, input, gas, is_repeatable };
        self.jobs.send((job, reply)).await.map_err(|_| SendError::Ended)?;
        match answer.await.map_err(|_| SendError::Ended)? {
            Outcome::Included(receipt) if receipt.status.is_zero() => {
                // Why is told by the same call, unless something else changed meanwhile.
                self.rpc.call(&request).await?;
                Err(SendError::Undone(receipt.transaction_hash))
            }
            Outcome::Included(receipt) => Ok(*receipt),
            Outcome::Full => Err(SendError::Full),
            Outcome::Refused(why) => Err(SendError::Refused(why)),
            Outcome::Replaced => Err(SendError::Replaced),
        }
    }
}

impl Sender {
    /// Whether the account can pay for so much gas at what it costs now; a node would keep such a
    /// transaction waiting, or drop it.
    async fn can_pay(&self, gas: u64) -> Result<(), SendError> {
        let (_, fees) = head_and_fees(&self.rpc).await?;
        let needed = U256::from(gas).saturating_mul(U256::from(fees.max));
        let has = self.rpc.coins(self.from).await?;
        if has >= needed {
            return Ok(());
        }
        Err(SendError::NoCoins { account: self.from, has, needed })
    }
}

/// Wei of the chain's own coin as a decimal number.
fn coins(wei: U256) -> String {
    let text = crate::ath::show(wei);
    text.strip_suffix(" ATH").unwrap_or(&text).to_owned()
}

/// The newest block's number, and what to offer for gas.
///
/// # Errors
///
/// [`RpcError`]
pub async fn head_and_fees(rpc: &Rpc) -> Result<(u64, Fees), RpcError> {
    let head = rpc.head().await?;
    let tip = rpc.tip().await?;
    let base = head.base_fee_per_gas.unwrap_or_default();
    let base = u128::try_from(base).unwrap_or(u128::MAX);
    // Twice the base fee lasts for six full blocks of rises by an eighth.
    let fees = Fees { max: base.saturating_mul(2).saturating_add(tip), tip };
    Ok((head.number.to(), fees))
}

struct Worker {
    rpc: Rpc,
    key: Arc<AccountKey>,
    config: SenderConfig,
    outbox: Outbox,
    asking: JoinSet<Event>,
    replies: BTreeMap<u64, oneshot::Sender<Outcome>>,
    told: watch::Sender<Waiting>,
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::Receiver<(Job, oneshot::Sender<Outcome>)>) {
        let mut is_open = true;
        loop {
            let now = (self.config.clock)();
            let wake = self.outbox.wake(now);
            if !is_open && wake.is_none() {
                return;
            }
            let pause = wake.map_or(Duration::from_secs(3_600), |at| {
                Duration::from_millis(at.0.saturating_sub(now.0))
            });
            let event = tokio::select! {
                Some(asked) = self.asking.join_next() => match asked {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::error!(%error, "a question to the chain was dropped");
                        Event::Tick
                    }
                },
                job = inbox.recv(), if is_open => match job {
                    Some((job, reply)) => {
                        self.replies.insert(job.id, reply);
                        Event::Submit(job)
                    }
                    None => {
                        is_open = false;
                        Event::Tick
                    }
                },
                () = tokio::time::sleep(pause) => Event::Tick,
            };
            let now = (self.config.clock)();
            for step in self.outbox.handle(now, event) {
                self.carry_out(step);
            }
            self.tell();
        }
    }

    fn tell(&self) {
        let waiting = self.outbox.waiting_for();
        self.told.send_if_modified(|told| {
            let is_new = std::mem::replace(told, waiting) != waiting;
            if is_new && matches!(waiting, Waiting::Gas { .. } | Waiting::Coins | Waiting::Node) {
                tracing::warn!(account = %self.key.id(), ?waiting, "transactions wait");
            }
            is_new
        });
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Done { id, outcome } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = reply.send(outcome);
                }
            }
            Step::AskState => {
                let (rpc, from) = (self.rpc.clone(), address(self.key.id()));
                let is_free = self.config.is_gas_free;
                self.asking.spawn(async move { state(&rpc, from, is_free).await });
            }
            Step::Look { nonce, hashes } => {
                let rpc = self.rpc.clone();
                self.asking.spawn(async move { look(&rpc, nonce, hashes).await });
            }
            Step::Send { nonce, job, fees } => {
                match sign(&self.key, self.config.chain_id, nonce, &job, fees) {
                    Ok((hash, raw)) => {
                        let rpc = self.rpc.clone();
                        self.asking.spawn(async move { put(&rpc, nonce, hash, raw).await });
                    }
                    Err(error) => tracing::error!(%error, "a transaction can't be signed"),
                }
            }
        }
    }
}

async fn state(rpc: &Rpc, from: Address, is_free: bool) -> Event {
    let ask = async {
        let nonce = rpc.nonce(from).await?;
        if is_free {
            return Ok((nonce, rpc.head().await?.number.to(), Fees::default()));
        }
        let (head, fees) = head_and_fees(rpc).await?;
        Ok::<_, RpcError>((nonce, head, fees))
    };
    match ask.await {
        Ok((nonce, head, fees)) => Event::State { nonce, head, fees },
        Err(error) => {
            tracing::debug!(%error, "the chain's state can't be asked for");
            Event::Unreachable
        }
    }
}

async fn look(rpc: &Rpc, nonce: u64, hashes: Vec<B256>) -> Event {
    for hash in hashes {
        match rpc.receipt(hash).await {
            Ok(Some(receipt)) => return Event::Looked { nonce, receipt: Some(receipt) },
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a receipt can't be asked for");
                return Event::Unreachable;
            }
        }
    }
    Event::Looked { nonce, receipt: None }
}

async fn put(rpc: &Rpc, nonce: u64, hash: B256, raw: Vec<u8>) -> Event {
    match rpc.send_raw(&raw).await {
        Ok(_) => Event::Sent { nonce, hash },
        Err(RpcError::Refused { message, .. }) => {
            Event::NotSent { nonce, hash, why: NotSent::read(&message) }
        }
        Err(error) => {
            tracing::debug!(%error, "a transaction was not handed over");
            Event::Unreachable
        }
    }
}

/// Signs a transaction (EIP-1559); its hash, and its bytes as they travel.
fn sign(
    key: &AccountKey,
    chain_id: u64,
    nonce: u64,
    job: &Job,
    fees: Fees,
) -> Result<(B256, Vec<u8>), welkin_proto::KeyError> {
    let transaction = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: job.gas,
        max_fee_per_gas: fees.max,
        max_priority_fee_per_gas: fees.tip,
        to: job.to.map_or(TxKind::Create, TxKind::Call),
        value: U256::ZERO,
        access_list: Default::default(),
        input: job.input.clone(),
    };
    let signature = key.sign(&transaction.signature_hash().0)?;
    let signature = Signature::new(
        U256::from_be_bytes(signature.r),
        U256::from_be_bytes(signature.s),
        signature.v == 28,
    );
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    Ok((*envelope.tx_hash(), envelope.encoded_2718()))
}
