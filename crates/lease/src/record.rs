//! What a host writes down of a lease. It holds no secret.

use serde::{Deserialize, Serialize};
use welkin_proto::lease::Launch;
use welkin_proto::{
    Delegation, Exit, LogSummary, Matched, Order, Receipt, ReceiptAck, Signed, SignedByAccount,
    StageTime, Usage, Voucher, Wipe,
};
use welkin_types::{CapacityType, LeaseState, Price, Reason, UnixMillis, Usd};

use crate::slots::{Claim, Devices};

/// A lease as it stands on the host's disk. Its state machine is [`crate::HostLease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The buyer's order.
    pub order: SignedByAccount<Order>,
    /// Who vouches for the host.
    pub operator: SignedByAccount<Delegation>,
    /// What to run. Secrets are not in it.
    pub launch: Launch,
    /// The host's fencing number of this lease.
    pub fencing: u64,
    /// The devices that it has for itself, by the host's names for them.
    pub devices: Devices,
    /// The sandbox that runs it; zero until there is one.
    pub sandbox: [u8; 16],
    /// The states and when each began.
    pub stages: Vec<StageTime>,
    /// The newest voucher.
    pub voucher: Option<SignedByAccount<Voucher>>,
    /// How the command ended.
    pub exit: Option<Exit>,
    /// What it used; its seconds are final once the command has ended.
    pub usage: Usage,
    /// What it printed.
    pub logs: LogSummary,
    /// What became of its data.
    pub wipe: Option<Wipe>,
    /// What the last voucher left unpaid is given up once this is set.
    pub settled: bool,
    /// The final statement.
    pub receipt: Option<Signed<Receipt>>,
    /// The buyer's signature under it.
    pub ack: Option<SignedByAccount<ReceiptAck>>,
    /// Who matched it, as the buyer says.
    pub matched: Option<Matched>,
}

impl LeaseRecord {
    /// Makes the record of a lease that has just been accepted.
    pub fn new(
        order: SignedByAccount<Order>,
        operator: SignedByAccount<Delegation>,
        launch: Launch,
        claim: Claim,
        now: UnixMillis,
    ) -> Self {
        Self {
            order,
            operator,
            launch,
            fencing: claim.fencing,
            devices: claim.devices,
            sandbox: [0; 16],
            stages: vec![StageTime { state: LeaseState::Pulling, reason: Reason::Normal, at: now }],
            voucher: None,
            exit: None,
            usage: Usage::default(),
            logs: LogSummary::default(),
            wipe: None,
            settled: false,
            receipt: None,
            ack: None,
            matched: None,
        }
    }

    /// The same of a lease that waits for the slot of a spot lease.
    #[must_use]
    pub fn waiting(mut self, now: UnixMillis) -> Self {
        let (state, reason) = (LeaseState::Placing, Reason::AwaitsSpot);
        self.stages = vec![StageTime { state, reason, at: now }];
        self
    }

    /// What keeps it from being ended for an order on demand: nothing for a spot lease that is not on
    /// its way out. Its price and fencing number.
    pub fn preemptible(&self) -> Option<(Price, u64)> {
        let is_spot = self.launch.terms.capacity == CapacityType::Spot;
        let is_leaving = self.state() == LeaseState::Stopping || self.state().is_final();
        (is_spot && !is_leaving).then_some((self.order.message.price, self.fencing))
    }

    /// The present state.
    pub fn state(&self) -> LeaseState {
        self.stages.last().map_or(LeaseState::Queued, |stage| stage.state)
    }

    /// Seconds and amount that the newest voucher covers.
    pub fn covered(&self) -> (u64, Usd) {
        self.voucher
            .as_ref()
            .map_or((0, Usd::ZERO), |voucher| (voucher.message.seconds, voucher.message.amount))
    }

    /// Whole seconds in `running` until `now`, a begun one counted; of a spot lease only once it has
    /// ended without being taken back, so that the last begun second of one that was is free.
    pub fn seconds(&self, now: UnixMillis) -> u64 {
        let mut millis = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            if stage.state == LeaseState::Running {
                let end = self.stages.get(index + 1).map_or(now, |next| next.at);
                // What began was used, however short it was.
                millis += end.since(stage.at).as_millis().max(1);
            }
        }
        let state = self.state();
        let is_spot = self.launch.terms.capacity == CapacityType::Spot;
        let is_taken_back = !state.is_final() || state == LeaseState::Preempted;
        let seconds =
            if is_spot && is_taken_back { millis / 1_000 } else { millis.div_ceil(1_000) };
        u64::try_from(seconds).unwrap_or(u64::MAX)
    }
}
