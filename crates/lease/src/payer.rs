//! The buyer's side of paying: a promise for what its own clock saw, and for nothing more.

use std::time::Duration;

use welkin_proto::{Order, Voucher};
use welkin_types::UnixMillis;

/// Keeps count of one lease for its buyer.
///
/// Invariant: the promised amount never falls, never exceeds the order's budget, and never covers
/// more than the seconds between the first word of `running` and now, plus [`Self::TOLERANCE`].
#[derive(Debug)]
pub struct Payer {
    order: Order,
    running_since: Option<UnixMillis>,
    ended: Option<UnixMillis>,
    promised: u64,
}

impl Payer {
    /// How far the host's count may be ahead of ours: the message's way, and a begun second.
    pub const TOLERANCE: Duration = Duration::from_secs(2);

    /// Begins with an order and the seconds that were promised already (after a resume).
    pub const fn new(order: Order, promised: u64) -> Self {
        Self { order, running_since: None, ended: None, promised }
    }

    /// The host says that the command runs, since `ago` before now.
    pub fn running(&mut self, now: UnixMillis, ago: Duration) {
        if self.running_since.is_none() {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            self.running_since = Some(UnixMillis(now.0.saturating_sub(ago)));
        }
    }

    /// The host says that the command has ended: no second after this is paid.
    pub fn ended(&mut self, now: UnixMillis) {
        self.ended.get_or_insert(now);
    }

    /// Seconds promised so far.
    pub const fn promised(&self) -> u64 {
        self.promised
    }

    /// The promise to make for `claimed` seconds; `None` if nothing more is due.
    pub fn voucher(&mut self, now: UnixMillis, claimed: u64) -> Option<Voucher> {
        let since = self.running_since?;
        let until = self.ended.map_or(now, |ended| ended.min(now));
        let seen = until.since(since) + Self::TOLERANCE;
        let affordable = self.order.price.seconds_for(self.order.budget);
        let seconds = claimed.min(seen.as_secs()).min(affordable);
        if seconds <= self.promised {
            return None;
        }
        self.promised = seconds;
        Some(Voucher {
            lease: self.order.lease,
            operator: self.order.operator,
            amount: self.order.price.cost(seconds),
            seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use welkin_types::{AccountId, ContainerId, LeaseId, NodeId, Price, Usd};

    use super::*;

    fn order(budget_micros: u64) -> Order {
        Order {
            lease: LeaseId::from_bytes([1; 16]),
            buyer: AccountId::from_bytes([1; 20]),
            operator: AccountId::from_bytes([2; 20]),
            host: NodeId::from_bytes([3; 32]),
            container: ContainerId::from_bytes([4; 16]),
            price: Price::per_hour("3.60".parse().unwrap()),
            budget: Usd::from_micros(budget_micros),
            task_sha256: [0; 32],
            issued: UnixMillis(0),
            expires: UnixMillis(1),
        }
    }

    #[test]
    fn an_overclaiming_host_gets_what_was_seen() {
        let mut payer = Payer::new(order(1_000_000), 0);
        assert_eq!(payer.voucher(UnixMillis(0), 5), None);
        payer.running(UnixMillis(1_000), Duration::ZERO);
        let voucher = payer.voucher(UnixMillis(4_000), 1_000_000).unwrap();
        assert_eq!((voucher.seconds, voucher.amount.micros()), (5, 5_000));
        assert_eq!(payer.voucher(UnixMillis(4_000), 1_000_000), None);
    }

    #[test]
    fn the_budget_is_the_end() {
        let mut payer = Payer::new(order(3_500), 0);
        payer.running(UnixMillis(0), Duration::ZERO);
        let voucher = payer.voucher(UnixMillis(60_000), 60).unwrap();
        assert_eq!(voucher.seconds, 3);
    }

    proptest! {
        #[test]
        fn never_more_than_seen_and_never_less_than_before(
            steps in proptest::collection::vec((0..5_000_u64, 0..100_u64), 1..50),
            budget in 0..100_000_u64,
        ) {
            let mut payer = Payer::new(order(budget), 0);
            payer.running(UnixMillis(0), Duration::ZERO);
            let (mut now, mut last) = (0, Usd::ZERO);
            for (pause, claimed) in steps {
                now += pause;
                if let Some(voucher) = payer.voucher(UnixMillis(now), claimed) {
                    prop_assert!(voucher.amount.micros() <= budget);
                    prop_assert!(voucher.amount >= last);
                    prop_assert!(voucher.seconds <= now / 1_000 + 2);
                    last = voucher.amount;
                }
            }
        }
    }
}
