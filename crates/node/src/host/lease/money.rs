//! What a lease's vouchers bring: how much is aside, when they are cashed, and when work goes on for nothing.

use tracing::warn;
use welkin_lease::Input;
use welkin_proto::Voucher;
use welkin_proto::settle::LeaseView;
use welkin_types::{Price, Usd};

use super::LeaseTask;
use crate::host::cashier::Said;
use crate::settlement::SettlementError;

/// Money set aside at first, as seconds of the lease.
const HOLD_SECONDS: u64 = 600;
/// Covered seconds between two cashings.
const REDEEM_SECONDS: u64 = 120;
/// Stop once so many covered seconds could not be cashed: the rest of the hold is spare.
const UNCASHED_SECONDS_MAX: u64 = 480;

/// How much to have aside beyond what is paid.
pub(crate) fn hold(record_price: Price, budget: Usd) -> Usd {
    record_price.cost(HOLD_SECONDS).max(Usd::from_micros(1)).min(budget)
}

impl LeaseTask {
    pub(super) fn redeem(&mut self) {
        let record = self.machine.record();
        let order = &record.order.message;
        let Some(voucher) = record.voucher.clone() else { return };
        let (aside, promised) = (hold(order.price, order.budget), voucher.message.amount);
        let needed = self.needed(promised);
        let is_waiting = self.cashier.is_waiting();
        self.cashier.redeem(voucher, aside);
        // Cashing may take as long as a chain is away or its gas too dear: work goes on only for
        // what is aside.
        if is_waiting && promised.checked_add(needed).is_none_or(|end| end > self.secured) {
            warn!(lease = %self.lease, "vouchers are not cashed, and what is aside is used up");
            self.input(Input::FundsExhausted);
        }
    }

    /// What must be aside beyond a voucher: enough for the time until the next one is cashed, or it
    /// is time to stop.
    fn needed(&self, promised: Usd) -> Usd {
        let order = &self.machine.record().order.message;
        let needed = order.price.cost(REDEEM_SECONDS + self.host.policy.exposure_seconds);
        needed.min(order.budget.saturating_sub(promised))
    }

    pub(super) fn said(&mut self, said: Said) {
        match said {
            Said::Redeemed { voucher, answer } => self.redeemed(&voucher.message, answer),
            Said::Closed(paid) => self.input(Input::Settled(paid)),
        }
    }

    fn redeemed(&mut self, voucher: &Voucher, answer: Result<LeaseView, SettlementError>) {
        let covered = voucher.seconds;
        let order = &self.machine.record().order.message;
        let left = order.budget.saturating_sub(voucher.amount);
        match answer {
            Ok(view) => {
                self.redeemed = covered;
                self.secured = view.paid.checked_add(view.held).unwrap_or(Usd::MAX);
                // A voucher that waits to be worth its gas is paid from what is aside.
                let due = voucher.amount.saturating_sub(view.paid);
                if view.held.saturating_sub(due) < self.needed(voucher.amount) || left.is_zero() {
                    self.input(Input::FundsExhausted);
                }
            }
            Err(error) if !error.is_retryable() => {
                warn!(error = %crate::chain(&error), lease = %self.lease, "a voucher can't be cashed");
                self.input(Input::FundsExhausted);
            }
            Err(error) => {
                warn!(error = %crate::chain(&error), lease = %self.lease, "a voucher is not cashed yet");
                if covered.saturating_sub(self.redeemed) > UNCASHED_SECONDS_MAX {
                    self.input(Input::FundsExhausted);
                }
            }
        }
    }
}
