//! Only who measured can say it, in bounds, and nobody can take back or change what was said.

use proptest::prelude::*;

use super::*;
use crate::codec::decode;

const DOMAIN: Domain = Domain::LOCAL;

fn account() -> AccountKey {
    AccountKey::from_secret(&[3; 32]).unwrap()
}

fn node(number: u8) -> NodeKey {
    NodeKey::from_secret(&[number; 32])
}

fn digest(minute: u32) -> MinuteDigest {
    MinuteDigest {
        minute,
        watched: 60,
        answered: 59,
        round_trip: Some(RoundTrip { min_us: 900, median_us: 1_000 }),
        loss: Some(3),
        figures: Figures::Job { throttled_milli: Some(12), preempted_milli: None },
    }
}

fn series(side: Side, count: u32) -> Series {
    Series {
        lease: LeaseId::from_bytes([1; 16]),
        host: node(9).id(),
        buyer: account().id(),
        side,
        part: 0,
        began: UnixMillis(1_000_000),
        start: vec![Mark { state: LeaseState::Running, after_ms: 210 }],
        minutes: (0..count).map(digest).collect(),
    }
}

fn signed(side: Side, count: u32) -> SessionDigests {
    let series = series(side, count);
    let signed = match side {
        Side::Host => SessionDigests::by_host(&DOMAIN, &node(9), series),
        Side::Buyer => SessionDigests::by_buyer(&DOMAIN, &account(), series),
        Side::Checker => SessionDigests::by_checker(&DOMAIN, &node(4), &account(), series),
    };
    signed.unwrap()
}

#[test]
fn each_side_signs_for_itself_and_for_nobody_else() {
    for side in [Side::Host, Side::Buyer, Side::Checker] {
        let good = signed(side, 3);
        assert_eq!(good.verify(&DOMAIN), Ok(()));
        let elsewhere = Domain { chain_id: 1, ..DOMAIN };
        assert_eq!(good.verify(&elsewhere), Err(DigestError::Signature));
        for other in [Side::Host, Side::Buyer, Side::Checker].into_iter().filter(|o| *o != side) {
            let taken = SessionDigests { series: series(other, 3), seal: good.seal.clone() };
            assert_eq!(taken.verify(&DOMAIN), Err(DigestError::Signature));
        }
    }
    let stranger = SessionDigests::by_host(&DOMAIN, &node(8), series(Side::Host, 3));
    assert_eq!(stranger, Err(DigestError::Signature));
    let other = AccountKey::from_secret(&[5; 32]).unwrap();
    let stranger = SessionDigests::by_checker(&DOMAIN, &node(4), &other, series(Side::Checker, 1));
    assert_eq!(stranger, Err(DigestError::Signature));
    assert_eq!(signed(Side::Checker, 1).checker(), Some(node(4).id()));
}

#[test]
fn every_number_has_its_bounds() {
    let bent: [fn(&mut Series); 8] = [
        |s| s.minutes[1].watched = 61,
        |s| s.minutes[1].answered = 61,
        |s| s.minutes[1].loss = Some(10_001),
        |s| s.minutes[1].round_trip = Some(RoundTrip { min_us: 2, median_us: 1 }),
        |s| s.minutes[1].minute = 0,
        |s| s.minutes[2].minute = MINUTES_MAX,
        |s| s.start = vec![s.start[0]; MARKS_MAX + 1],
        |s| {
            s.minutes[0].figures =
                Figures::Job { throttled_milli: Some(1_001), preempted_milli: None };
        },
    ];
    for bend in bent {
        let mut series = series(Side::Host, 3);
        bend(&mut series);
        assert_eq!(series.check(), Err(DigestError::Bounds), "{series:?}");
    }
    let whole = signed(Side::Host, MINUTES_MAX);
    assert!(encode(&whole).unwrap().len() <= crate::epoch::STATEMENT_BYTES_MAX);
}

#[test]
fn updates_make_the_same_series_and_take_nothing_back() {
    let first = signed(Side::Buyer, 2);
    let all = signed(Side::Buyer, 5);
    let known = first.update(0).unwrap().join(&DOMAIN, None).unwrap();
    assert_eq!(known, first);
    assert_eq!(all.update(2).unwrap().join(&DOMAIN, Some(&known)), Ok(all.clone()));
    assert_eq!(all.update(0).unwrap().join(&DOMAIN, Some(&known)), Ok(all.clone()));
    // What is missing in between, what is shorter, and what was said otherwise before.
    assert!(all.update(3).unwrap().join(&DOMAIN, Some(&known)).is_err());
    assert!(first.update(1).unwrap().join(&DOMAIN, Some(&all)).is_err());
    let mut other = series(Side::Buyer, 5);
    other.minutes[0].answered = 1;
    let other = SessionDigests::by_buyer(&DOMAIN, &account(), other).unwrap();
    assert!(other.update(0).unwrap().join(&DOMAIN, Some(&known)).is_err());
    assert!(other.update(2).unwrap().join(&DOMAIN, Some(&known)).is_err());
    assert!(signed(Side::Host, 2).update(0).is_none());
}

proptest! {
    #[test]
    fn any_change_breaks_the_seal(bit: prop::sample::Index, side in 0..3_u8) {
        let side = [Side::Host, Side::Buyer, Side::Checker][usize::from(side)];
        let mut bent = encode(&signed(side, 4)).unwrap();
        let bit = bit.index(bent.len() * 8);
        bent[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = decode::<SessionDigests>(&bent) {
            // Another time in the permission is another account's.
            prop_assert!(read.verify(&DOMAIN).is_err(), "bit {}", bit);
        }
    }
}
