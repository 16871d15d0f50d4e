//! Sessions of made-up hosts.

use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use welkin_proto::heartbeat::Secret;
use welkin_types::{ContainerId, NodeId};

use super::*;

const START: u64 = 1_800_000_000_000;

fn key(number: u32) -> SessionKey {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let secret = Secret::from_bytes([7; 32]);
    secret.session_key(0, NodeId::from_bytes([1; 32]), ContainerId::from_bytes(id))
}

fn from(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `count` sessions that have beaten regularly for a while.
fn settled(count: u32) -> (Presence, u64) {
    let mut presence = Presence::default();
    for number in 0..count {
        assert_eq!(presence.enrol(UnixMillis(START), key(number)), Ok(number));
    }
    let mut now = START;
    for round in 1..=20 {
        now += PERIOD_MS;
        for number in 0..count {
            beat(&mut presence, number, round, now).unwrap();
        }
        assert_eq!(presence.sweep(UnixMillis(now)), []);
    }
    (presence, now)
}

fn beat(
    presence: &mut Presence,
    number: u32,
    counter: u64,
    now: u64,
) -> Result<Taken, BeatDropped> {
    let datagram = Vitals { free: 1, ..Vitals::default() }.seal(&key(number), number, counter);
    presence.beat(UnixMillis(now), from(1), &datagram)
}

#[test]
fn a_beat_is_taken_once_and_only_from_its_session() {
    let (mut presence, now) = settled(2);
    let datagram = Vitals { free: 7, ..Vitals::default() }.seal(&key(0), 0, 100);
    let taken = presence.beat(UnixMillis(now), from(9), &datagram).unwrap();
    assert_eq!((taken.session, taken.counter, taken.vitals.free), (0, 100, 7));
    assert!(taken.has_moved);
    assert_eq!(presence.way_to(0).unwrap().0, from(9));
    // Again, an older one, of another session's key, of no session, no beat at all.
    assert_eq!(presence.beat(UnixMillis(now), from(6), &datagram), Err(BeatDropped::Old));
    assert_eq!(beat(&mut presence, 0, 99, now), Err(BeatDropped::Old));
    let stolen = Vitals::default().seal(&key(1), 0, 101);
    let refused = presence.beat(UnixMillis(now), from(6), &stolen);
    assert_eq!(refused, Err(BeatDropped::Bad(HeartbeatError::Tag)));
    assert_eq!(beat(&mut presence, 2, 1, now), Err(BeatDropped::Unknown));
    let refused = presence.beat(UnixMillis(now), from(6), &[0; 69]);
    assert_eq!(refused, Err(BeatDropped::Bad(HeartbeatError::Form)));
    assert_eq!(presence.way_to(0).unwrap().0, from(9), "a refused beat changes nothing");
}

#[test]
fn one_that_falls_silent_is_suspect_then_gone_and_may_come_back() {
    let (mut presence, start) = settled(50);
    let mut seen = Vec::new();
    let mut counter = 100;
    for second in 1..=90 {
        let now = start + second * 1_000;
        if second % 10 == 0 {
            counter += 1;
            for number in 1..50 {
                beat(&mut presence, number, counter, now).unwrap();
            }
        }
        seen.extend(presence.sweep(UnixMillis(now)).into_iter().map(|(id, how)| (second, id, how)));
    }
    let [(suspect, 0, Standing::Suspect), (gone, 0, Standing::Gone)] = *seen else {
        panic!("{seen:?}")
    };
    assert!((20..=30).contains(&suspect) && (60..=70).contains(&gone), "{seen:?}");
    let taken = beat(&mut presence, 0, 500, start + 95_000).unwrap();
    assert_eq!(taken.was, Standing::Gone);
    assert_eq!(presence.standing(0), Some(Standing::Alive));
}

#[test]
fn a_blip_makes_suspects_at_most() {
    let (mut presence, start) = settled(50);
    // All are silent for 35 s: two or three beats each are lost.
    for second in 1..=35 {
        for (_, standing) in presence.sweep(UnixMillis(start + second * 1_000)) {
            assert_eq!(standing, Standing::Suspect);
        }
    }
    for number in 0..50 {
        assert_eq!(
            beat(&mut presence, number, 100, start + 36_000).unwrap().was,
            Standing::Suspect
        );
    }
    assert_eq!(presence.sweep(UnixMillis(start + 37_000)), []);
}

#[test]
fn nobody_is_gone_while_the_indexer_is_cut_off_itself() {
    let (mut presence, start) = settled(50);
    let end = |minutes: u64| start + minutes * 60_000;
    let mut now = start;
    while now < end(9) {
        now += 1_000;
        let swept = presence.sweep(UnixMillis(now));
        assert!(swept.iter().all(|(_, standing)| *standing == Standing::Suspect));
    }
    // It is not cut off for ever: after ten minutes they are gone after all.
    while now < end(12) {
        now += 1_000;
        presence.sweep(UnixMillis(now));
    }
    assert!((0..50).all(|session| presence.standing(session) == Some(Standing::Gone)));
}

#[test]
fn a_number_is_given_again_with_another_key() {
    let (mut presence, now) = settled(3);
    presence.end(1);
    presence.end(1);
    assert_eq!((presence.len(), presence.standing(1)), (2, None));
    assert_eq!(beat(&mut presence, 1, 100, now), Err(BeatDropped::Unknown));
    assert_eq!(presence.enrol(UnixMillis(now), key(77)), Ok(1));
    assert_eq!(beat(&mut presence, 1, 101, now), Err(BeatDropped::Bad(HeartbeatError::Tag)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// With a fifth of jitter and a fiftieth of all beats lost nobody is ever gone.
    #[test]
    fn a_lossy_network_loses_nobody(seed: u64) {
        let (mut presence, start) = settled(20);
        let mut state = seed;
        let mut chance = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut next: Vec<u64> = (0..20).map(|_| start + chance(PERIOD_MS)).collect();
        let mut counter = 1_000;
        for now in (start..start + 900_000).step_by(1_000) {
            for number in 0..20_u32 {
                if next[number as usize] <= now {
                    next[number as usize] = now + PERIOD_MS * 4 / 5 + chance(PERIOD_MS * 2 / 5);
                    counter += 1;
                    if chance(50) != 0 {
                        beat(&mut presence, number, counter, now).unwrap();
                    }
                }
            }
            for (session, standing) in presence.sweep(UnixMillis(now)) {
                prop_assert_ne!(standing, Standing::Gone, "session {}", session);
            }
        }
    }
}
