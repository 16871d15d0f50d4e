//! A container kept for one buyer for a term, and what that costs.
//!
//! Paid is for the reserved time, used or not, at a price that is locked for the term, by cumulative
//! vouchers as a lease is: so neither side has more at stake than stands here. The buyer pays
//! [`COMMITMENT_SECONDS`] ahead, which are the last of the term. Who goes early, or stops paying,
//! leaves them behind: that is the fee, and all of it. A day in which the host failed is not paid for,
//! from its first second to its last ([`DAY_SECONDS`], counted from the start of the term), and the
//! service fee is on what is kept only. What was promised already for such a day pays for the days
//! after it; what is left of that at the end is given back.
//!
//! Invariants: kept and refunded add up to what was promised; nothing of a failed day is kept; the
//! promised seconds never fall and never exceed the term; nothing is kept beyond the reserved time
//! and, where the buyer ended it, the commitment.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_types::{BasisPoints, Price, ReservationEnd, UnixMillis, Usd};

/// What is paid ahead, and lost by who goes early, in seconds; of a shorter term all of it.
pub const COMMITMENT_SECONDS: u64 = 3_600;
/// The period that is not paid for where the host fails in it, in seconds.
pub const DAY_SECONDS: u64 = 86_400;
/// The shortest term, in seconds.
pub const TERM_SECONDS_MIN: u64 = 5;
/// So much the clocks of the two sides may differ.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// The longest term, in seconds: the number of failed days is bounded by it.
pub const TERM_SECONDS_MAX: u64 = 3 * 366 * DAY_SECONDS;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationTerms {
    /// What an hour costs, used or not.
    pub price: Price,
    /// When the term begins.
    pub start: UnixMillis,
    /// How long it is.
    pub term_seconds: u64,
}

impl ReservationTerms {
    /// What is paid ahead.
    pub fn commitment_seconds(&self) -> u64 {
        COMMITMENT_SECONDS.min(self.term_seconds)
    }
}

/// Why a reservation can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReservationError {
    /// The term is out of range.
    #[error(
        "a term of {seconds} s can't be reserved: it has {TERM_SECONDS_MIN} to {TERM_SECONDS_MAX}"
    )]
    Term {
        /// What was asked for.
        seconds: u64,
    },
    /// The first voucher is too small.
    #[error("a reservation begins once {needed} s are paid ahead; {paid} s are")]
    Ahead {
        /// How much is paid ahead.
        needed: u64,
        /// How much the voucher covers.
        paid: u64,
    },
}

/// Who has what once a reservation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Seconds that are paid for.
    pub seconds: u64,
    /// What they cost, the service fee in it.
    pub kept: Usd,
    /// The service fee.
    pub fee: Usd,
    /// What was promised beyond it and goes back to the buyer.
    pub refund: Usd,
}

impl Settlement {
    /// Of a reservation that ended so many seconds after its start, for this reason: what its final
    /// statement is to say, for whoever has only that.
    pub fn of(
        terms: &ReservationTerms,
        promised: u64,
        failed: &BTreeSet<u64>,
        (elapsed, end): (u64, ReservationEnd),
    ) -> Self {
        let ahead = if end.is_buyers() { terms.commitment_seconds() } else { 0 };
        let earned = paid_within(failed, elapsed.min(terms.term_seconds)) + ahead;
        let earned = earned.min(paid_within(failed, terms.term_seconds));
        let seconds = earned.min(promised);
        let kept = terms.price.cost(seconds);
        Self {
            seconds,
            kept,
            fee: kept.split(BasisPoints::SERVICE_FEE).0,
            refund: terms.price.cost(promised).saturating_sub(kept),
        }
    }
}

/// A reservation, on either side: both come to the same sums from the same facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    terms: ReservationTerms,
    /// The seconds that the newest voucher pays for.
    promised: u64,
    /// Days of the term in which the host failed, from 0.
    failed: BTreeSet<u64>,
    /// When it ended, in seconds of the term, and why.
    end: Option<(u64, ReservationEnd)>,
}

impl Reservation {
    /// Begins a reservation with its first voucher.
    ///
    /// # Errors
    ///
    /// [`ReservationError`] where the term is out of range or too little is paid ahead.
    pub fn begin(terms: ReservationTerms, promised: u64) -> Result<Self, ReservationError> {
        let seconds = terms.term_seconds;
        if !(TERM_SECONDS_MIN..=TERM_SECONDS_MAX).contains(&seconds) {
            return Err(ReservationError::Term { seconds });
        }
        let reservation = Self { terms, promised: 0, failed: BTreeSet::new(), end: None };
        let needed = reservation.due(terms.start);
        if promised < needed {
            return Err(ReservationError::Ahead { needed, paid: promised });
        }
        Ok(Self { promised: promised.min(seconds), ..reservation })
    }

    /// What was agreed on.
    pub const fn terms(&self) -> &ReservationTerms {
        &self.terms
    }

    /// Seconds that the newest voucher pays for.
    pub const fn promised(&self) -> u64 {
        self.promised
    }

    /// The days of the term, from 0, that are not paid for because the host failed in them.
    pub fn failed_days(&self) -> impl Iterator<Item = u64> {
        self.failed.iter().copied()
    }

    /// Takes over what the other side says of failed days of the term; says whether some were new.
    /// Days that have not begun don't count.
    pub fn take_failed(&mut self, now: UnixMillis, days: impl IntoIterator<Item = u64>) -> bool {
        let before = self.failed.len();
        let last = self.elapsed(now).min(self.terms.term_seconds - 1) / DAY_SECONDS;
        if self.end.is_none() {
            self.failed.extend(days.into_iter().filter(|day| *day <= last));
        }
        self.failed.len() > before
    }

    /// Of what is promised the seconds that stay with the host whatever happens: those of the days
    /// that are over. No more is cashed before the end, because the escrow gives nothing back.
    pub fn safe(&self, now: UnixMillis) -> u64 {
        let over = self.elapsed(now) / DAY_SECONDS * DAY_SECONDS;
        self.paid_within(over).min(self.promised)
    }

    /// What [`Self::safe`] is at the end of the present day at most.
    pub fn safe_next(&self, now: UnixMillis) -> u64 {
        let day = self.elapsed(now) / DAY_SECONDS + 1;
        self.paid_within((day * DAY_SECONDS).min(self.terms.term_seconds))
    }

    /// Seconds of the term that have passed, at the end those until then.
    pub fn elapsed_seconds(&self, now: UnixMillis) -> u64 {
        self.end.map_or_else(|| self.elapsed(now), |(elapsed, _)| elapsed)
    }

    /// Why it is over, if it is.
    pub fn end(&self) -> Option<ReservationEnd> {
        self.end.map(|(_, end)| end)
    }

    /// When the term is over.
    pub fn until(&self) -> UnixMillis {
        self.terms.start.after(Duration::from_secs(self.terms.term_seconds))
    }

    /// Seconds that have to be promised at this time: the reserved ones without failed days, and the
    /// commitment, up to the end of the term.
    pub fn due(&self, now: UnixMillis) -> u64 {
        let reserved = self.paid_within(self.elapsed(now));
        (reserved + self.terms.commitment_seconds()).min(self.paid_within(self.terms.term_seconds))
    }

    /// Takes a voucher for so many seconds in all; says whether it is worth more than the last. One
    /// for more than is due at this time is not taken: it would be a promise for nothing. What is due
    /// a minute later may be promised, for the clocks of the two sides differ.
    pub fn voucher(&mut self, now: UnixMillis, seconds: u64) -> bool {
        let due = self.due(now.after(CLOCKS_APART));
        let is_better = self.end.is_none() && seconds > self.promised && seconds <= due;
        if is_better {
            self.promised = seconds;
        }
        is_better
    }

    /// The host failed from one moment to another: each day that this touches is not paid for. Days
    /// before the start, after the end, or not begun yet don't count.
    pub fn host_failed(&mut self, now: UnixMillis, from: UnixMillis, to: UnixMillis) {
        if self.end.is_some() || from >= self.until() || to < self.terms.start || to < from {
            return;
        }
        let last = self.elapsed(to.min(now)).min(self.terms.term_seconds - 1) / DAY_SECONDS;
        let first = self.elapsed(from) / DAY_SECONDS;
        self.failed.extend(first..=last);
    }

    /// The buyer ends it: the commitment stays with the host.
    pub fn cancel(&mut self, now: UnixMillis) {
        self.finish(now, ReservationEnd::Cancelled);
    }

    /// The host ends it: the day is not paid for, and no commitment is kept.
    pub fn give_up(&mut self, now: UnixMillis) {
        self.host_failed(now, now, now);
        self.finish(now, ReservationEnd::HostFailed);
    }

    /// Time has passed: ends it at the end of the term, or where more than `exposure_seconds` of what
    /// is due are not promised.
    pub fn tick(&mut self, now: UnixMillis, exposure_seconds: u64) {
        if self.elapsed(now) >= self.terms.term_seconds {
            self.finish(now, ReservationEnd::Term);
        } else if self.due(now).saturating_sub(self.promised) > exposure_seconds {
            self.finish(now, ReservationEnd::Unpaid);
        }
    }

    fn finish(&mut self, now: UnixMillis, end: ReservationEnd) {
        let elapsed = self.elapsed(now);
        let end = if elapsed >= self.terms.term_seconds { ReservationEnd::Term } else { end };
        self.end.get_or_insert((elapsed, end));
    }

    /// Who has what; as if the buyer ended it now, while it is not over.
    pub fn settlement(&self, now: UnixMillis) -> Settlement {
        let end = self.end.unwrap_or_else(|| (self.elapsed(now), ReservationEnd::Cancelled));
        Settlement::of(&self.terms, self.promised, &self.failed, end)
    }

    /// Whole seconds of the term at this time.
    fn elapsed(&self, now: UnixMillis) -> u64 {
        now.since(self.terms.start).as_secs().min(self.terms.term_seconds)
    }

    /// Of the first seconds of the term those that are paid for.
    fn paid_within(&self, seconds: u64) -> u64 {
        paid_within(&self.failed, seconds)
    }
}

/// Of the first seconds of a term those that are not in failed days.
fn paid_within(failed: &BTreeSet<u64>, seconds: u64) -> u64 {
    let unpaid = |day: &u64| {
        let begin = day.saturating_mul(DAY_SECONDS);
        seconds.saturating_sub(begin).min(DAY_SECONDS)
    };
    seconds.saturating_sub(failed.iter().map(unpaid).sum())
}

#[cfg(test)]
mod tests;
mod till;

pub use till::Till;
