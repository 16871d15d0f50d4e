//! How good a session was, from what its two sides signed, who may each lie about the other.
//!
//! The host's word stands against itself; the buyer's moves it down by [`BOUND`] at most, unless checkers
//! that were buyers there decide. What a side does not say, the rule says for it, so that no side gains
//! by silence.

use std::collections::BTreeMap;

use welkin_proto::digest::{Figures, MinuteDigest, Series, Side};

use super::service::{Minute, minute_quality};
use super::{Metric, Ppm, ServiceKind, agreed};

/// How far a buyer alone moves the quality of a minute.
pub const BOUND: Ppm = Ppm::new(100_000);
/// What a host says of a minute of which it says nothing.
pub const SILENT: Ppm = Ppm::new(900_000);
/// So many different checkers must have had a session on a container in the epoch for their word to
/// decide what is disputed there: one that lies is outvoted.
pub const CHECKERS_MIN: usize = 3;

/// What one side says of a minute: as a service's minute is valued, by what that side measured alone.
/// Nothing, where it did not look.
pub fn side_value(side: Side, digest: &MinuteDigest) -> Option<Ppm> {
    if digest.watched == 0 {
        return None;
    }
    let mut measured: BTreeMap<Metric, u32> = BTreeMap::new();
    let mut add = |metric, value: Option<u32>| measured.extend(value.map(|value| (metric, value)));
    let kind = match digest.figures {
        Figures::None => ServiceKind::Job,
        Figures::Job { throttled_milli, preempted_milli } => {
            // A host's counters are shown and not valued: to them a command that is held back at what was
            // bought looks like one whose host has not enough, so a buyer could move them at will.
            if side != Side::Host {
                add(Metric::Throttled, throttled_milli.map(u32::from));
                add(Metric::Preempted, preempted_milli.map(u32::from));
            }
            ServiceKind::Job
        }
        Figures::Stream { frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms } => {
            add(Metric::FrameRate, frame_rate_milli.map(u32::from));
            add(Metric::Resolution, resolution_milli.map(u32::from));
            add(Metric::ClickToPhoton, click_to_photon_ms.map(u32::from));
            add(Metric::Freezes, freezes_ms.map(u32::from));
            add(Metric::Loss, digest.loss.map(u32::from));
            ServiceKind::Stream
        }
        Figures::Inference { first_token_ms, tokens_milli, errors_milli } => {
            add(Metric::FirstToken, first_token_ms);
            add(Metric::Tokens, tokens_milli.map(u32::from));
            add(Metric::Errors, errors_milli.map(u32::from));
            ServiceKind::Inference
        }
    };
    // A share of the time that it looked; a partial minute is as good as a whole one.
    let available_seconds = u32::from(digest.answered) * 60 / u32::from(digest.watched);
    Some(minute_quality(kind, &Minute { available_seconds, measured }))
}

/// The quality of a minute by what host and buyer say of it, and by what checkers found on that
/// container in the epoch.
pub fn settled_value(host: Option<Ppm>, buyer: Option<Ppm>, checkers: Option<Ppm>) -> Ppm {
    let host = host.unwrap_or(SILENT);
    let least = Ppm::new(host.ppm().saturating_sub(BOUND.ppm()));
    let Some(buyer) = buyer else { return least };
    if buyer >= least {
        return buyer.min(host);
    }
    checkers.map_or(least, |found| found.clamp(buyer, host))
}

/// Everything that was said of one session.
#[derive(Clone, Debug, Default)]
pub struct Said<'a> {
    /// By the host.
    pub host: Vec<&'a Series>,
    /// By the buyer, or by the checker that was the buyer.
    pub buyer: Vec<&'a Series>,
}

/// What a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionQuality {
    /// Minutes that count.
    pub minutes: u32,
    /// The mean of what the host says, of the minutes of which it says something.
    pub host: Option<Ppm>,
    /// The mean of what the buyer says, likewise.
    pub buyer: Option<Ppm>,
    /// The mean over all minutes by the rule. This is the quality that delivery earns by.
    pub settled: Ppm,
}

impl Said<'_> {
    /// What the session came to in these of its minutes.
    pub fn quality(&self, minutes: std::ops::Range<u32>, checkers: Option<Ppm>) -> SessionQuality {
        let values = |series: &[&Series]| -> BTreeMap<u32, Ppm> {
            let digests = series
                .iter()
                .flat_map(|series| series.minutes.iter().map(|digest| (series.side, digest)));
            let digests = digests.filter(|(_, digest)| minutes.contains(&digest.minute));
            let value = |(side, digest): (Side, &MinuteDigest)| {
                Some((digest.minute, side_value(side, digest)?))
            };
            digests.filter_map(value).collect()
        };
        let (host, buyer) = (values(&self.host), values(&self.buyer));
        let settled = minutes.clone().map(|minute| {
            settled_value(host.get(&minute).copied(), buyer.get(&minute).copied(), checkers)
        });
        let settled = mean(settled).unwrap_or_else(|| settled_value(None, None, checkers));
        let count = u32::try_from(minutes.len()).unwrap_or(u32::MAX);
        let (host, buyer) = (mean(host.into_values()), mean(buyer.into_values()));
        SessionQuality { minutes: count, host, buyer, settled }
    }
}

/// What checkers that were buyers on one container found in an epoch: what is agreed of one value each,
/// if there are enough of them.
pub fn checkers_agree(found: &[Ppm]) -> Option<Ppm> {
    if found.len() < CHECKERS_MIN { None } else { agreed(found) }
}

fn mean(values: impl Iterator<Item = Ppm>) -> Option<Ppm> {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for value in values {
        sum += u64::from(value.ppm());
        count += 1;
    }
    let mean = sum.checked_div(count)?;
    Some(Ppm::new(u32::try_from(mean).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use welkin_proto::digest::RoundTrip;
    use welkin_types::{AccountId, LeaseId, NodeId, UnixMillis};

    use super::*;

    fn digest(minute: u32, answered: u8, throttled: Option<u16>) -> MinuteDigest {
        MinuteDigest {
            minute,
            watched: 60,
            answered,
            round_trip: Some(RoundTrip { min_us: 1, median_us: 1 }),
            loss: None,
            figures: Figures::Job { throttled_milli: throttled, preempted_milli: None },
        }
    }

    fn series(side: Side, minutes: Vec<MinuteDigest>) -> Series {
        Series {
            lease: LeaseId::from_bytes([1; 16]),
            host: NodeId::from_bytes([2; 32]),
            buyer: AccountId::from_bytes([3; 20]),
            side,
            part: 0,
            began: UnixMillis(0),
            start: Vec::new(),
            minutes,
        }
    }

    #[test]
    fn known_sessions() {
        let whole = series(Side::Host, (0..10).map(|m| digest(m, 60, None)).collect());
        let same = series(Side::Buyer, (0..10).map(|m| digest(m, 60, None)).collect());
        let blames = series(Side::Buyer, (0..10).map(|m| digest(m, 0, None)).collect());
        let quality = |host: &[&Series], buyer: &[&Series], checkers| {
            let said = Said { host: host.to_vec(), buyer: buyer.to_vec() };
            said.quality(0..10, checkers).settled.ppm()
        };
        assert_eq!(quality(&[&whole], &[&same], None), 1_000_000);
        // A buyer who blames alone, and a host that praises itself alone.
        assert_eq!(quality(&[&whole], &[&blames], None), 900_000);
        assert_eq!(quality(&[&whole], &[], None), 900_000);
        // A host that says nothing gains nothing by it.
        assert_eq!(quality(&[], &[&same], None), 900_000);
        assert_eq!(quality(&[], &[&blames], None), 800_000);
        assert_eq!(quality(&[], &[], None), 800_000);
        // Checkers decide what is disputed, and only that.
        let low = Some(Ppm::new(300_000));
        assert_eq!(quality(&[&whole], &[&blames], low), 300_000);
        assert_eq!(quality(&[&whole], &[&same], low), 1_000_000);
        assert_eq!(quality(&[&whole], &[], low), 900_000);
        // What the host itself says against itself stands.
        let away = series(Side::Host, (0..10).map(|m| digest(m, 30, None)).collect());
        assert_eq!(quality(&[&away], &[&same], None), 500_000);
        // A buyer's own command can make a sandbox wait for its processors: that says nothing.
        let waited = series(Side::Host, (0..10).map(|m| digest(m, 60, Some(255))).collect());
        assert_eq!(quality(&[&waited], &[&same], None), 1_000_000);
        // A session that has no minute is as one of which nobody speaks.
        let none = Said { host: Vec::new(), buyer: Vec::new() }.quality(0..0, None);
        assert_eq!(none.settled.ppm(), 800_000);
    }

    /// The figures of a kind, all measured: shares, a time and freezes.
    fn figures(kind: u8, shares: [u16; 2], ms: u16) -> Figures {
        let [first, second] = shares.map(Some);
        match kind {
            0 => Figures::Job { throttled_milli: first, preempted_milli: second },
            1 => Figures::Stream {
                frame_rate_milli: first,
                resolution_milli: second,
                click_to_photon_ms: Some(ms),
                freezes_ms: Some(ms),
            },
            _ => Figures::Inference {
                first_token_ms: Some(ms.into()),
                tokens_milli: first,
                errors_milli: second,
            },
        }
    }

    /// By which of the shares more is better.
    const MORE_IS_BETTER: [[bool; 2]; 3] = [[false, false], [true, true], [true, false]];

    fn said(side: Side, figures: Figures) -> Series {
        series(side, vec![MinuteDigest { figures, ..digest(0, 60, None) }])
    }

    #[test]
    fn known_minutes_of_each_kind() {
        let value = |side, figures| {
            side_value(side, &MinuteDigest { figures, ..digest(0, 60, None) }).unwrap().ppm()
        };
        for side in [Side::Buyer, Side::Host] {
            assert_eq!(value(side, figures(1, [990, 1_000], 0)), 1_000_000);
            assert_eq!(value(side, figures(2, [950, 0], 300)), 1_000_000);
            // A whole minute frozen, and no request that succeeded.
            assert_eq!(value(side, figures(1, [990, 1_000], 60_000)), 0);
            assert_eq!(value(side, figures(2, [950, 1_000], 300)), 0);
        }
        // Who uses it says that half of its time it was held back.
        assert_eq!(value(Side::Buyer, figures(0, [500, 0], 0)), 0);
        assert_eq!(value(Side::Host, figures(0, [500, 500], 0)), 1_000_000);
        let some = Figures::Inference {
            first_token_ms: Some(2_650),
            tokens_milli: None,
            errors_milli: None,
        };
        assert_eq!(value(Side::Buyer, some), 500_000);
    }

    #[test]
    fn few_checkers_decide_nothing() {
        let found = [Ppm::ZERO, Ppm::ONE, Ppm::ONE];
        assert_eq!(checkers_agree(&found[..2]), None);
        assert_eq!(checkers_agree(&found), Some(Ppm::ONE));
    }

    fn ppm() -> impl Strategy<Value = Ppm> {
        (0..=1_000_000_u32).prop_map(Ppm::new)
    }

    proptest! {
        /// A figure that is better never lowers what a side's minute is worth.
        #[test]
        fn better_figures_never_lower_a_minute(
            kind in 0..3_u8,
            shares in prop::array::uniform2((0..=1_000_u16, 0..=1_000_u16)),
            times in (0..=60_000_u16, 0..=60_000_u16),
        ) {
            let more = MORE_IS_BETTER[usize::from(kind)];
            let ordered = |place: usize| {
                let (a, b) = shares[place];
                if more[place] { (a.min(b), a.max(b)) } else { (a.max(b), a.min(b)) }
            };
            let (worse_shares, better_shares): (Vec<_>, Vec<_>) = (0..2).map(ordered).unzip();
            let worse = figures(kind, [worse_shares[0], worse_shares[1]], times.0.max(times.1));
            let better = figures(kind, [better_shares[0], better_shares[1]], times.0.min(times.1));
            for side in [Side::Host, Side::Buyer] {
                let value = |figures| {
                    side_value(side, &MinuteDigest { figures, ..digest(0, 60, None) }).unwrap()
                };
                prop_assert!(value(worse) <= value(better));
                prop_assert!(value(better) <= Ppm::ONE);
            }
        }

        /// Whatever figures a buyer makes up, it moves a minute by the bound at most, and not upwards.
        #[test]
        fn a_buyers_figures_alone_are_bounded(
            kind in 0..3_u8,
            shares in prop::array::uniform2(0..=1_000_u16),
            ms in 0..=60_000_u16,
            host_kind in 0..3_u8,
            host_shares in prop::array::uniform2(0..=1_000_u16),
        ) {
            let host = said(Side::Host, figures(host_kind, host_shares, 100));
            let buyer = said(Side::Buyer, figures(kind, shares, ms));
            let both = Said { host: vec![&host], buyer: vec![&buyer] }.quality(0..1, None);
            let alone = both.host.unwrap();
            prop_assert!(both.settled <= alone);
            prop_assert!(both.settled.ppm() + BOUND.ppm() >= alone.ppm());
        }

        /// What its control groups count neither helps nor harms a host.
        #[test]
        fn a_hosts_counters_are_not_valued(shares in prop::array::uniform2(0..=1_000_u16)) {
            let counted = said(Side::Host, figures(0, shares, 0));
            let none = said(Side::Host, Figures::None);
            let quality =
                |host| Said { host: vec![host], buyer: Vec::new() }.quality(0..1, None).settled;
            prop_assert_eq!(quality(&counted), quality(&none));
        }

        /// No side gains or does harm beyond the bound by what it alone says.
        #[test]
        fn one_side_alone_is_bounded(host in ppm(), buyer in prop::option::of(ppm())) {
            let settled = settled_value(Some(host), buyer, None);
            prop_assert!(settled <= host);
            prop_assert!(settled.ppm() + BOUND.ppm() >= host.ppm());
            // By silence a host that would have said more gains nothing.
            if host >= SILENT {
                prop_assert!(settled_value(None, buyer, None) <= settled);
            }
            // Nor does a buyer's silence cost it more than a buyer's blame.
            prop_assert!(settled_value(Some(host), None, None)
                == settled_value(Some(host), Some(Ppm::ZERO), None));
        }

        #[test]
        fn better_words_never_lower_it(
            a in ppm(), b in ppm(), buyer in ppm(), checkers in prop::option::of(ppm()),
        ) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(settled_value(Some(low), Some(buyer), checkers)
                <= settled_value(Some(high), Some(buyer), checkers).max(low));
            prop_assert!(settled_value(Some(buyer), Some(low), None)
                <= settled_value(Some(buyer), Some(high), None));
        }
    }
}
