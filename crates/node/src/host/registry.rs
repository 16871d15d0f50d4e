//! The leases that a host knows, running and ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use welkin_lease::{Devices, Heard, LeaseRecord};
use welkin_proto::digest::{DigestUpdate, SessionDigests};
use welkin_proto::lease::TermSize;
use welkin_proto::{ReceiptAck, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, Reason, UnixMillis};

use super::spool::Spool;
use super::stdio::Terminal;

/// The most leases that a host remembers; beyond it the oldest ended ones are forgotten.
pub(crate) const LEASES_MAX: usize = 20_000;

/// What a lease's task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A voucher whose signature is good, and what the connection is that brought it.
    Voucher(Box<SignedByAccount<Voucher>>, Heard),
    /// What the buyer has measured.
    Digest(Box<DigestUpdate>),
    /// It waited for a slot and has one now, with these devices.
    Placed(Devices),
    /// An order on demand needs its container.
    Preempt,
    /// The reservation that it runs on is over.
    ReservationEnded,
    /// What it has must leave service, for this reason.
    Drain(Reason),
    /// What it has failed: reason and words.
    Fault(Reason, String),
    /// The buyer has the checkpoint.
    Fetched,
    /// End it within this time.
    Stop(std::time::Duration),
    /// Send a signal to the command.
    Signal(i32),
    /// The terminal has a new size.
    Resize(TermSize),
    /// The files of the task have arrived, or why not.
    Files(Result<Spool, String>),
    /// The buyer's signature under the receipt, verified.
    Ack(Box<SignedByAccount<ReceiptAck>>),
}

/// A lease as connections see it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What is written down.
    pub(crate) record: Arc<LeaseRecord>,
    /// More about the present state.
    pub(crate) detail: Option<String>,
    /// How often a voucher was asked for, and the last question: seconds used, seconds covered.
    pub(crate) asked: (u64, u64, u64),
    /// Until when the buyer can fetch the checkpoint.
    pub(crate) offered: Option<UnixMillis>,
    /// What the host has measured, once the lease has its receipt.
    pub(crate) digests: Arc<[SessionDigests]>,
    /// The logs that are being written.
    pub(crate) terminal: Option<Terminal>,
}

impl View {
    /// The view of a lease of which nothing else is known yet.
    pub(crate) fn of(record: LeaseRecord) -> Self {
        let record = Arc::new(record);
        let digests = Arc::from(Vec::new());
        Self { record, detail: None, asked: (0, 0, 0), offered: None, digests, terminal: None }
    }
}

/// How to reach a lease's task.
#[derive(Clone, Debug)]
pub(crate) struct LeaseHandle {
    /// Whose lease it is.
    pub(crate) buyer: AccountId,
    /// To its task; closed once it is over.
    pub(crate) commands: mpsc::Sender<Command>,
    /// How it stands.
    pub(crate) view: watch::Receiver<View>,
}

/// All leases of a host.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    leases: Mutex<BTreeMap<LeaseId, LeaseHandle>>,
}

impl Registry {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<LeaseId, LeaseHandle>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, lease: LeaseId, handle: LeaseHandle) {
        self.map().insert(lease, handle);
    }

    pub(crate) fn remove(&self, lease: LeaseId) {
        self.map().remove(&lease);
    }

    pub(crate) fn len(&self) -> usize {
        self.map().len()
    }

    pub(crate) fn contains(&self, lease: LeaseId) -> bool {
        self.map().contains_key(&lease)
    }

    /// A lease, if it is this buyer's. Others' leases look as if there were none.
    pub(crate) fn find(&self, lease: LeaseId, buyer: AccountId) -> Option<LeaseHandle> {
        self.map().get(&lease).filter(|handle| handle.buyer == buyer).cloned()
    }

    /// A lease, whosever it is.
    pub(crate) fn handle(&self, lease: LeaseId) -> Option<LeaseHandle> {
        self.map().get(&lease).cloned()
    }

    /// All leases of a buyer.
    pub(crate) fn of(&self, buyer: AccountId) -> Vec<LeaseHandle> {
        self.map().values().filter(|handle| handle.buyer == buyer).cloned().collect()
    }

    /// The ended leases, with the time of their end.
    pub(crate) fn ended(&self) -> Vec<(LeaseId, UnixMillis)> {
        let ended = |(lease, handle): (&LeaseId, &LeaseHandle)| {
            let view = handle.view.borrow();
            let last = view.record.stages.last()?;
            (view.record.receipt.is_some()).then_some((*lease, last.at))
        };
        self.map().iter().filter_map(ended).collect()
    }
}
