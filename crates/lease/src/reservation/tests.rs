//! What is kept and what is given back, against a count of every ten minutes.

use proptest::prelude::*;

use super::*;

/// The unit of the reference: what it counts is whole ones.
const STEP: u64 = 600;
const HOUR: u64 = 3_600;
const START: UnixMillis = UnixMillis(5_000_000);

fn at(seconds: u64) -> UnixMillis {
    START.after(Duration::from_secs(seconds))
}

/// A dollar a second.
fn terms(term_seconds: u64) -> ReservationTerms {
    let price = Price::per_hour(Usd::from_micros(3_600_000_000));
    ReservationTerms { price, start: START, term_seconds }
}

/// A reservation that is paid as it is due until then, by the hour.
fn paid(term_seconds: u64, until: u64) -> Reservation {
    let mut reservation = Reservation::begin(terms(term_seconds), COMMITMENT_SECONDS).unwrap();
    for seconds in (0..=until).step_by(600) {
        let due = reservation.due(at(seconds));
        reservation.voucher(at(seconds), due);
    }
    reservation
}

fn dollars(reservation: &Reservation, now: u64) -> (u64, u64) {
    let settlement = reservation.settlement(at(now));
    (settlement.kept.micros() / 1_000_000, settlement.refund.micros() / 1_000_000)
}

#[test]
fn a_whole_term_costs_its_seconds_and_the_commitment_is_in_them() {
    let mut reservation = paid(10 * HOUR, 10 * HOUR);
    reservation.tick(at(10 * HOUR), 10);
    assert_eq!(reservation.end(), Some(ReservationEnd::Term));
    assert_eq!(dollars(&reservation, 10 * HOUR), (36_000, 0));
    assert!(!reservation.voucher(at(11 * HOUR), 11 * HOUR), "it is over");
}

#[test]
fn who_goes_early_leaves_an_hour_behind() {
    let mut cancelled = paid(72 * HOUR, 5 * HOUR);
    cancelled.cancel(at(5 * HOUR));
    assert_eq!(dollars(&cancelled, 5 * HOUR), (6 * 3_600, 0));
    // Who stops paying loses as much, and not more than was promised.
    let mut unpaid = paid(72 * HOUR, 5 * HOUR);
    unpaid.tick(at(5 * HOUR + 10), 10);
    assert_eq!(unpaid.end(), None);
    unpaid.tick(at(5 * HOUR + 11), 10);
    assert_eq!(unpaid.end(), Some(ReservationEnd::Unpaid));
    assert_eq!(dollars(&unpaid, 5 * HOUR + 11), (6 * 3_600, 0));
    let mut late = paid(72 * HOUR, 72 * HOUR - 600);
    late.cancel(at(72 * HOUR - 600));
    assert_eq!(dollars(&late, 72 * HOUR), (72 * 3_600, 0), "no more than the term");
}

#[test]
fn a_day_of_the_hosts_failure_is_not_paid_for() {
    // A minute on the second day; what was promised for it pays for the third.
    let mut reservation = paid(72 * HOUR, 30 * HOUR);
    reservation.host_failed(at(30 * HOUR), at(29 * HOUR), at(29 * HOUR + 60));
    assert_eq!(reservation.due(at(30 * HOUR)), 25 * HOUR, "a day, and the commitment");
    assert_eq!(reservation.due(at(48 * HOUR)), 25 * HOUR);
    assert_eq!(reservation.promised(), 31 * HOUR);
    assert_eq!(reservation.due(at(56 * HOUR)), 33 * HOUR);
    // Both days where it lasted over midnight; the one that has not begun is not touched.
    let mut long = paid(72 * HOUR, 25 * HOUR);
    long.host_failed(at(25 * HOUR), at(23 * HOUR), at(60 * HOUR));
    assert_eq!(long.due(at(48 * HOUR)), COMMITMENT_SECONDS);
    // The host can't go on: nothing of that day, nothing ahead.
    let mut given_up = paid(72 * HOUR, 30 * HOUR);
    given_up.give_up(at(30 * HOUR));
    assert_eq!(given_up.end(), Some(ReservationEnd::HostFailed));
    assert_eq!(dollars(&given_up, 30 * HOUR), (24 * 3_600, 7 * 3_600));
    let settlement = given_up.settlement(at(0));
    assert_eq!(settlement.fee, settlement.kept.split(BasisPoints::SERVICE_FEE).0);
}

#[test]
fn terms_and_first_vouchers_are_checked() {
    for seconds in [0, TERM_SECONDS_MIN - 1, TERM_SECONDS_MAX + 1, u64::MAX] {
        let error = Reservation::begin(terms(seconds), u64::MAX).unwrap_err();
        assert_eq!(error, ReservationError::Term { seconds });
    }
    let error = Reservation::begin(terms(2 * HOUR), 3_599).unwrap_err();
    assert_eq!(error, ReservationError::Ahead { needed: 3_600, paid: 3_599 });
    let all = Reservation::begin(terms(2 * HOUR), u64::MAX).unwrap();
    assert_eq!(all.promised(), 2 * HOUR, "never more than the term");
    let error = Reservation::begin(terms(60), 59).unwrap_err();
    assert_eq!(
        error,
        ReservationError::Ahead { needed: 60, paid: 59 },
        "a short term is paid whole"
    );
    let mut short = Reservation::begin(terms(60), 60).unwrap();
    short.cancel(at(1));
    assert_eq!(dollars(&short, 1), (60, 0));
}

#[derive(Clone, Debug)]
enum Act {
    Pay,
    PayTooMuch,
    Fail { ago: u64, steps: u64 },
    Cancel,
    GiveUp,
    Tick,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Pay),
        1 => Just(Act::PayTooMuch),
        2 => (0..300_u64, 0..300_u64).prop_map(|(ago, steps)| Act::Fail { ago, steps }),
        1 => Just(Act::Cancel),
        1 => Just(Act::GiveUp),
        4 => Just(Act::Tick),
    ]
}

/// Counts, ten minutes by ten minutes, what is paid for of the first seconds of the term.
fn count(failures: &[(u64, u64)], seconds: u64) -> u64 {
    let is_failed = |cell: u64| {
        let day = cell * STEP / DAY_SECONDS;
        failures.iter().any(|(from, to)| (from / DAY_SECONDS..=to / DAY_SECONDS).contains(&day))
    };
    (0..seconds / STEP).filter(|cell| !is_failed(*cell)).count() as u64 * STEP
}

/// Whether a failure was told of on a later day: then it may have been cashed already.
fn cashed_late(failures: &[(u64, u64)], now: u64) -> bool {
    failures.iter().any(|(from, _)| from / DAY_SECONDS < now / DAY_SECONDS)
}

proptest! {
    #[test]
    fn money_is_conserved_and_failed_days_are_free(
        term_steps in 1..1_500_u64,
        acts in proptest::collection::vec((0..60_u64, any_act()), 0..60),
    ) {
        let term = term_steps * STEP;
        let commitment = COMMITMENT_SECONDS.min(term);
        let mut reservation = Reservation::begin(terms(term), commitment).unwrap();
        let (mut now, mut last, mut ended_at, mut safe) = (0, 0, None, 0);
        let mut failures = Vec::new();
        for (steps, act) in acts {
            now += steps * STEP;
            let was_over = reservation.end().is_some();
            match act {
                Act::Pay => {
                    let due = reservation.due(at(now));
                    reservation.voucher(at(now), due);
                }
                Act::PayTooMuch => {
                    let due = reservation.due(at(now).after(CLOCKS_APART));
                    prop_assert!(!reservation.voucher(at(now), due + 1));
                }
                Act::Fail { ago, steps } => {
                    let from = now.saturating_sub(ago * STEP);
                    let to = (from + steps * STEP).min(now);
                    reservation.host_failed(at(now), at(from), at(to));
                    if !was_over && from < term {
                        failures.push((from, to.min(term - 1)));
                    }
                }
                Act::Cancel => reservation.cancel(at(now)),
                Act::GiveUp => {
                    reservation.give_up(at(now));
                    if !was_over && now < term {
                        failures.push((now, now));
                    }
                }
                Act::Tick => reservation.tick(at(now), 10),
            }
            if !was_over && reservation.end().is_some() {
                ended_at = Some(now);
            }
            prop_assert!(reservation.promised() >= last && reservation.promised() <= term);
            last = reservation.promised();
            let settlement = reservation.settlement(at(now));
            let promised = terms(term).price.cost(last);
            prop_assert_eq!(settlement.kept.checked_add(settlement.refund), Some(promised));
            prop_assert!(settlement.fee <= settlement.kept);
            let until = ended_at.unwrap_or(now).min(term);
            let reserved = count(&failures, until);
            let is_buyers = reservation.end().is_none_or(ReservationEnd::is_buyers);
            let ahead = if is_buyers { commitment } else { 0 };
            // What may be cashed is never more than what is kept in the end, whatever follows.
            safe = safe.max(if was_over { 0 } else { reservation.safe(at(now)) });
            if reservation.end().is_none() {
                prop_assert!(reservation.safe(at(now)) <= reservation.safe_next(at(now)));
            }
            let earned = (reserved + ahead).min(count(&failures, term));
            prop_assert_eq!(settlement.seconds, earned.min(last));
            prop_assert!(cashed_late(&failures, now) || safe <= settlement.seconds);
        }
    }
}

proptest! {
    /// The buyer counts from when it heard yes, and hears of failed days when it pays.
    #[test]
    fn who_pays_in_time_by_its_own_clock_is_never_late_and_both_agree(
        (term_steps, lag) in (6..2_000_u64, 0..30_u64),
        failures in proptest::collection::vec(0..2_000_u64, 0..5),
    ) {
        const GRACE: u64 = 4 * 300;
        let term = term_steps * STEP;
        let commitment = COMMITMENT_SECONDS.min(term);
        let mut host = Reservation::begin(terms(term), commitment).unwrap();
        let theirs = ReservationTerms { start: at(lag), ..terms(term) };
        let mut buyer = Reservation::begin(theirs, commitment).unwrap();
        for now in (lag..=term + lag).step_by(300) {
            host.tick(at(now), GRACE);
            if host.end().is_some() {
                break;
            }
            if failures.contains(&(now / STEP)) {
                host.host_failed(at(now), at(now), at(now));
            }
            let due = buyer.due(at(now));
            buyer.voucher(at(now), due);
            host.voucher(at(now), buyer.promised());
            buyer.take_failed(at(now), host.failed_days());
            prop_assert!(host.promised() <= buyer.promised());
            prop_assert!(buyer.promised() - host.promised() <= 300 + lag + commitment);
        }
        host.tick(at(term + lag), GRACE);
        prop_assert_eq!(host.end(), Some(ReservationEnd::Term));
        buyer.take_failed(at(term + lag), host.failed_days());
        buyer.tick(at(term + lag), u64::MAX);
        let (by_host, by_buyer) = (host.settlement(at(term)), buyer.settlement(at(term)));
        prop_assert!(by_host.seconds <= by_buyer.seconds);
    }
}
