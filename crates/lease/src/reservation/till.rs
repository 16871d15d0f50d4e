//! The vouchers of a reservation on its host, and which of them may be cashed when.
//!
//! The escrow gives nothing back, and a day in which the host fails costs nothing: so until the end
//! only what is [safe](Reservation::safe) is cashed. The newest voucher is the security for the rest.

use serde::{Deserialize, Serialize};
use welkin_proto::{SignedByAccount, Voucher};
use welkin_types::UnixMillis;

use super::Reservation;

/// A promise whose signature is good.
type Signed = SignedByAccount<Voucher>;

/// At most three vouchers, whatever the term.
///
/// Invariants: what is cashed before the end is never more than what is safe; what is cashed at the
/// end is never more than what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Till {
    newest: Signed,
    /// The best one that can become safe with the end of the present day.
    next: Option<Signed>,
    /// For what is kept in the end, where that is less than the newest.
    last: Option<Signed>,
    /// Seconds that were cashed.
    cashed: u64,
}

impl Till {
    /// Begins with what is paid ahead.
    pub const fn new(first: Signed) -> Self {
        Self { newest: first, next: None, last: None, cashed: 0 }
    }

    /// The newest promise.
    pub const fn newest(&self) -> &Signed {
        &self.newest
    }

    /// Seconds that were cashed.
    pub const fn cashed(&self) -> u64 {
        self.cashed
    }

    /// Takes a voucher; says whether it was worth something.
    pub fn take(&mut self, of: &mut Reservation, now: UnixMillis, voucher: Signed) -> bool {
        let seconds = voucher.message.seconds;
        if of.end().is_some() {
            let is_last = self.lacks(of, now) && seconds == of.settlement(now).seconds;
            if is_last {
                self.last = Some(voucher);
            }
            return is_last;
        }
        self.roll(of, now);
        if !of.voucher(now, seconds) {
            return false;
        }
        if seconds <= of.safe_next(now) {
            // The one before stays until it is cashed, if it is safe already.
            let is_due = self.next.as_ref().is_some_and(|next| self.is_due(of, now, next));
            if !is_due {
                self.next = Some(voucher.clone());
            }
        }
        self.newest = voucher;
        true
    }

    /// The voucher to cash now, if there is one.
    pub fn due(&mut self, of: &Reservation, now: UnixMillis) -> Option<Signed> {
        self.roll(of, now);
        self.next.clone().filter(|next| self.is_due(of, now, next))
    }

    /// So many seconds were cashed.
    pub fn cashed_now(&mut self, seconds: u64) {
        self.cashed = self.cashed.max(seconds);
    }

    /// Once it is over: the best voucher for what is kept.
    pub fn last(&self, of: &Reservation, now: UnixMillis) -> Option<&Signed> {
        let kept = of.settlement(now).seconds;
        let all = [Some(&self.newest), self.next.as_ref(), self.last.as_ref()];
        let all = all.into_iter().flatten().filter(|voucher| voucher.message.seconds <= kept);
        all.max_by_key(|voucher| voucher.message.seconds)
    }

    /// Once it is over: whether the buyer has to sign for what is kept, which is less than it promised.
    pub fn lacks(&self, of: &Reservation, now: UnixMillis) -> bool {
        let kept = of.settlement(now).seconds;
        self.last(of, now).map_or(0, |voucher| voucher.message.seconds).max(self.cashed) < kept
    }

    fn is_due(&self, of: &Reservation, now: UnixMillis, voucher: &Signed) -> bool {
        let seconds = voucher.message.seconds;
        seconds > self.cashed && seconds <= of.safe(now)
    }

    /// A day may have begun, or failed.
    fn roll(&mut self, of: &Reservation, now: UnixMillis) {
        let most = of.safe_next(now);
        if self.next.as_ref().is_some_and(|next| next.message.seconds > most) {
            self.next = None;
        }
        let is_used = |next: &Signed| next.message.seconds <= self.cashed;
        let is_better = |next: &Signed| next.message.seconds < self.newest.message.seconds;
        let is_free = self.next.as_ref().is_none_or(|next| is_used(next) && is_better(next));
        if is_free && self.newest.message.seconds <= most {
            self.next = Some(self.newest.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use welkin_proto::{AccountKey, Domain};
    use welkin_types::{LeaseId, Price, ReservationEnd, Usd};

    use super::super::{DAY_SECONDS, ReservationTerms};
    use super::*;

    const STEP: u64 = 600;

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(5_000_000 + seconds * 1_000)
    }

    /// Signing is not what is tested: one signature does for all.
    fn voucher(seconds: u64) -> Signed {
        static SIGNED: std::sync::LazyLock<Signed> = std::sync::LazyLock::new(|| {
            let key = AccountKey::from_secret(&[1; 32]).unwrap();
            let lease = LeaseId::from_bytes([1; 16]);
            let voucher = Voucher { lease, operator: key.id(), amount: Usd::ZERO, seconds: 0 };
            SignedByAccount::sign(&Domain::LOCAL, &key, voucher).unwrap()
        });
        let mut signed = SIGNED.clone();
        signed.message.seconds = seconds;
        signed
    }

    fn begin(term_seconds: u64) -> (Reservation, Till) {
        let price = Price::per_hour(Usd::from_micros(3_600_000));
        let terms = ReservationTerms { price, start: at(0), term_seconds };
        let ahead = terms.commitment_seconds();
        (Reservation::begin(terms, ahead).unwrap(), Till::new(voucher(ahead)))
    }

    fn pay(till: &mut Till, of: &mut Reservation, now: UnixMillis) {
        let due = of.due(now);
        till.take(of, now, voucher(due));
    }

    #[test]
    fn a_day_is_cashed_when_it_is_over_and_a_failed_one_never() {
        let (mut of, mut till) = begin(4 * DAY_SECONDS);
        let mut cashed = Vec::new();
        for seconds in (0..4 * DAY_SECONDS).step_by(600) {
            let now = at(seconds);
            if seconds == 30 * 3_600 {
                of.host_failed(now, now, now);
            }
            pay(&mut till, &mut of, now);
            if let Some(due) = till.due(&of, now) {
                till.cashed_now(due.message.seconds);
                cashed.push((seconds / DAY_SECONDS, due.message.seconds / 3_600));
            }
        }
        assert_eq!(cashed, [(1, 24), (3, 48)], "days 0 and 2; day 1 failed, and day 3 is not over");
        of.tick(at(4 * DAY_SECONDS), 10);
        assert_eq!(of.end(), Some(ReservationEnd::Term));
        assert!(!till.lacks(&of, at(4 * DAY_SECONDS)));
        let last = till.last(&of, at(4 * DAY_SECONDS)).unwrap();
        assert_eq!(last.message.seconds, 3 * DAY_SECONDS);
    }

    #[test]
    fn for_what_is_kept_of_a_failed_day_the_buyer_signs_anew() {
        let (mut of, mut till) = begin(4 * DAY_SECONDS);
        let now = at(30 * 3_600);
        pay(&mut till, &mut of, now);
        of.give_up(now);
        // A day is kept, 31 hours were promised at once: no voucher but the first is for less.
        assert!(till.lacks(&of, now));
        assert_eq!(till.last(&of, now).unwrap().message.seconds, 3_600);
        assert!(!till.take(&mut of, now, voucher(DAY_SECONDS + 1)));
        assert!(till.take(&mut of, now, voucher(DAY_SECONDS)));
        assert!(!till.lacks(&of, now));
        assert_eq!(till.last(&of, now).unwrap().message.seconds, DAY_SECONDS);
    }

    proptest! {
        #[test]
        fn never_more_is_cashed_than_is_kept(
            term_steps in 1..1_000_u64,
            acts in proptest::collection::vec((0..100_u64, 0..8_u8), 0..60),
        ) {
            let (mut of, mut till) = begin(term_steps * STEP);
            let mut seconds = 0;
            for (steps, act) in acts {
                seconds += steps * STEP;
                let now = at(seconds);
                match act {
                    0 => of.host_failed(now, now, now),
                    1 => of.tick(now, 10),
                    2 => if let Some(due) = till.due(&of, now) {
                        prop_assert!(due.message.seconds <= of.safe(now));
                        till.cashed_now(due.message.seconds);
                    },
                    _ => pay(&mut till, &mut of, now),
                }
            }
            let now = at(seconds);
            of.give_up(now);
            let kept = of.settlement(now).seconds;
            prop_assert!(till.cashed() <= kept, "{} {kept}", till.cashed());
            if till.lacks(&of, now) {
                prop_assert!(till.take(&mut of, now, voucher(kept)));
            }
            let last = till.last(&of, now).map_or(0, |last| last.message.seconds);
            prop_assert_eq!(last.max(till.cashed()), kept);
        }
    }
}
