//! The final two-sided statement of a lease, and how anybody checks it without a network.

use serde::{Deserialize, Serialize};
use welkin_types::{
    AccountId, BasisPoints, ContainerId, LeaseId, LeaseState, NodeId, Price, Reason, UnixMillis,
    Usd,
};

use crate::codec::CodecError;
use crate::eip712::Domain;
use crate::order::{Delegation, Order, ReceiptAck, SignedByAccount, Voucher};
use crate::signed::{Signable, Signed, read_grown};

/// When a lease entered a state, by the host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTime {
    /// The state.
    pub state: LeaseState,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: UnixMillis,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it returned.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was ended for using more memory than it had.
    pub oom: bool,
}

impl Exit {
    /// The exit code that a shell would show: the code, or 128 + the signal, or 1.
    pub fn shell_code(&self) -> u8 {
        let code =
            self.code.or_else(|| self.signal.map(|signal| signal.saturating_add(128))).unwrap_or(1);
        u8::try_from(code & 0xff).unwrap_or(1)
    }
}

/// What a lease used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whole seconds in `running`, a begun one counted.
    pub seconds: u64,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// The most memory at once, in bytes.
    pub memory_peak_bytes: u64,
}

/// What became of what the lease wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wipe {
    /// Whether every part is gone: processes, mounts, scratch and control groups.
    pub complete: bool,
    /// Processes that had to be killed.
    pub processes_killed: u32,
    /// Bytes of scratch that were in use.
    pub scratch_bytes: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// What the lease printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSummary {
    /// Bytes on standard output.
    pub stdout_bytes: u64,
    /// Bytes on standard error.
    pub stderr_bytes: u64,
}

/// A host's final statement of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which lease.
    pub lease: LeaseId,
    /// Who paid.
    pub buyer: AccountId,
    /// Who was paid.
    pub operator: AccountId,
    /// Who ran it.
    pub host: NodeId,
    /// On which container.
    pub container: ContainerId,
    /// At which price.
    pub price: Price,
    /// The states and when each began; the last is final.
    pub stages: Vec<StageTime>,
    /// How the command ended, if it ran.
    pub exit: Option<Exit>,
    /// What was used.
    pub usage: Usage,
    /// What that costs: `price.cost(usage.seconds)`, at most what the last voucher promised.
    pub cost: Usd,
    /// The service fee in it.
    pub fee: Usd,
    /// What was printed.
    pub logs: LogSummary,
    /// What became of the data.
    pub wipe: Wipe,
    /// Who matched it; none where the buyer went to the host by itself.
    pub matched: Option<Matched>,
}

impl Signable for Receipt {
    const KIND: &'static str = "receipt";

    fn read(body: &[u8]) -> Result<Self, CodecError> {
        read_grown(body)
    }
}

/// The indexer whose offer led to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Matched {
    /// Its node.
    pub indexer: NodeId,
    /// Who is paid for the match.
    pub account: AccountId,
}

/// A receipt with everything needed to check it offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptFile {
    /// Where the signatures hold.
    pub domain: Domain,
    /// What was ordered, signed by the buyer.
    pub order: SignedByAccount<Order>,
    /// Who vouches for the host.
    pub operator: SignedByAccount<Delegation>,
    /// The host's statement.
    pub receipt: Signed<Receipt>,
    /// The buyer's last promise, if anything was due.
    pub voucher: Option<SignedByAccount<Voucher>>,
    /// The buyer's signature under the receipt, if it gave one.
    pub ack: Option<SignedByAccount<ReceiptAck>>,
}

/// What is wrong with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReceiptError(String);

impl ReceiptError {
    pub(crate) const fn new(what: String) -> Self {
        Self(what)
    }
}

impl ReceiptFile {
    /// Checks signatures, parties and arithmetic; returns the receipt.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] saying the first thing that is wrong.
    pub fn verify(&self) -> Result<Receipt, ReceiptError> {
        let wrong = |what: &str| ReceiptError(what.to_owned());
        let order = &self.order.message;
        let receipt = self
            .receipt
            .open_by(&self.domain, order.host)
            .map_err(|error| ReceiptError(format!("the host's signature: {error}")))?;
        check_parties(&self.domain, &self.order, &self.operator)?;
        let same = receipt.lease == order.lease
            && receipt.buyer == order.buyer
            && receipt.operator == order.operator
            && receipt.host == order.host
            && receipt.container == order.container
            && receipt.price == order.price;
        if !same {
            return Err(wrong("the receipt is for another order"));
        }
        self.verify_times(&receipt)?;
        self.verify_money(&receipt)?;
        check_ack(&self.domain, order, self.ack.as_ref(), self.receipt.digest())?;
        Ok(receipt)
    }

    fn verify_times(&self, receipt: &Receipt) -> Result<(), ReceiptError> {
        let count = receipt.stages.len();
        if count > Receipt::STAGES_MAX {
            let text = format!("the lease has {count} stages, at most {}", Receipt::STAGES_MAX);
            return Err(ReceiptError(text));
        }
        let is_final = receipt.stages.last().is_some_and(|last| last.state.is_final());
        if !is_final {
            return Err(ReceiptError("the lease has not ended".to_owned()));
        }
        if receipt.stages.windows(2).any(|pair| pair[1].at < pair[0].at) {
            return Err(ReceiptError("the stages run backwards".to_owned()));
        }
        let running = receipt.stages.iter().filter(|stage| stage.state == LeaseState::Running);
        if running.count() > 1 {
            return Err(ReceiptError("the lease runs more than once".to_owned()));
        }
        let seconds = receipt.running_seconds();
        if receipt.usage.seconds > seconds {
            let text = format!("bills {} s, ran {seconds} s", receipt.usage.seconds);
            return Err(ReceiptError(text));
        }
        Ok(())
    }

    fn verify_money(&self, receipt: &Receipt) -> Result<(), ReceiptError> {
        let due = receipt.price.cost(receipt.usage.seconds);
        if receipt.cost > due || receipt.cost > self.order.message.budget {
            return Err(ReceiptError(format!("costs {}, due were {due}", receipt.cost)));
        }
        if receipt.fee != receipt.cost.split(BasisPoints::SERVICE_FEE).0 {
            return Err(ReceiptError(format!("the fee is not 20 % of {}", receipt.cost)));
        }
        let promised = promised(&self.domain, &self.order.message, self.voucher.as_ref())?;
        if receipt.cost > promised {
            let text = format!("costs {}, the buyer promised {promised}", receipt.cost);
            return Err(ReceiptError(text));
        }
        Ok(())
    }
}

/// Checks that the order is its buyer's, and that its operator vouches for the host.
pub(crate) fn check_parties(
    domain: &Domain,
    order: &SignedByAccount<Order>,
    operator: &SignedByAccount<Delegation>,
) -> Result<(), ReceiptError> {
    let said = &order.message;
    if order.signer(domain) != Ok(said.buyer) {
        return Err(ReceiptError::new("the order is not signed by the buyer it names".to_owned()));
    }
    if operator.signer(domain) != Ok(said.operator) || operator.message.node != said.host {
        return Err(ReceiptError::new("the operator does not vouch for the host".to_owned()));
    }
    Ok(())
}

/// Checks the buyer's signature under a receipt of this digest, if it gave one.
pub(crate) fn check_ack(
    domain: &Domain,
    order: &Order,
    ack: Option<&SignedByAccount<ReceiptAck>>,
    digest: [u8; 32],
) -> Result<(), ReceiptError> {
    let Some(ack) = ack else { return Ok(()) };
    let names_it = ack.message.lease == order.lease && ack.message.receipt_sha256 == digest;
    if !names_it || ack.signer(domain) != Ok(order.buyer) {
        let text = "the buyer's signature is for another receipt";
        return Err(ReceiptError::new(text.to_owned()));
    }
    Ok(())
}

/// What the buyer's last promise comes to.
pub(crate) fn promised(
    domain: &Domain,
    order: &Order,
    voucher: Option<&SignedByAccount<Voucher>>,
) -> Result<Usd, ReceiptError> {
    let Some(voucher) = voucher else { return Ok(Usd::ZERO) };
    let is_buyers = voucher.signer(domain) == Ok(order.buyer)
        && voucher.message.lease == order.lease
        && voucher.message.operator == order.operator;
    if is_buyers {
        Ok(voucher.message.amount)
    } else {
        Err(ReceiptError::new("the voucher is not the buyer's".to_owned()))
    }
}

impl Receipt {
    /// The most stages of a lease: a receipt is kept by many for long.
    pub const STAGES_MAX: usize = 64;

    /// Whole seconds in `running` by the stages, a begun one counted.
    pub fn running_seconds(&self) -> u64 {
        let millis: u128 = self
            .stages
            .windows(2)
            .filter(|pair| pair[0].state == LeaseState::Running)
            .map(|pair| pair[1].at.since(pair[0].at).as_millis().max(1))
            .sum();
        u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}
