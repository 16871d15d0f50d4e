//! Sessions of made-up hosts.

use proptest::prelude::*;
use welkin_proto::heartbeat::SessionKey;

use super::*;

const START: u64 = 1_800_000_000_000;

fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

fn host(number: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(id)
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 16])
}

/// The key of host `number`, enrolled at the start with one container.
fn key(number: u32) -> SessionKey {
    secret().session_key(epoch_of(UnixMillis(START)), 5, host(number), container(0))
}

/// `count` sessions that have beaten regularly for a while.
fn settled(count: u32) -> (Presence, u64) {
    let mut presence = Presence::new(secret());
    for number in 0..count {
        let enrolled = presence.enrol(UnixMillis(START), host(number), &[container(0)], 5).unwrap();
        let given = Enrolment { container: container(0), session: number, key: key(number) };
        assert_eq!(enrolled, [given]);
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
    presence.beat(UnixMillis(now), &datagram)
}

#[test]
fn a_beat_is_taken_once_and_only_from_its_session() {
    let (mut presence, now) = settled(2);
    let now = UnixMillis(now);
    let datagram = Vitals { free: 7, ..Vitals::default() }.seal(&key(0), 0, 100);
    let taken = presence.beat(now, &datagram).unwrap();
    assert_eq!((taken.session, taken.counter, taken.vitals.free), (0, 100, 7));
    assert_eq!((taken.host, taken.container), (host(0), container(0)));
    let note = presence.answer(&taken, Note::Ack).unwrap();
    assert_eq!(Note::open(&key(0), &note), Ok(Note::Ack));
    // Again, an older one, of another session's key, of no session, no beat at all.
    assert_eq!(presence.beat(now, &datagram), Err(BeatDropped::Old));
    assert_eq!(beat(&mut presence, 0, 99, now.0), Err(BeatDropped::Old));
    let stolen = Vitals::default().seal(&key(1), 0, 101);
    assert_eq!(presence.beat(now, &stolen), Err(BeatDropped::Bad(HeartbeatError::Tag)));
    assert_eq!(beat(&mut presence, 2, 1, now.0), Err(BeatDropped::Unknown));
    assert_eq!(presence.beat(now, &[0; 69]), Err(BeatDropped::Bad(HeartbeatError::Form)));
    assert!(beat(&mut presence, 0, 101, now.0).is_ok(), "a refused beat changes nothing");
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
fn an_enrolment_gives_other_keys_and_ends_what_is_no_more() {
    let mut presence = Presence::new(secret());
    let now = UnixMillis(START);
    let all = [container(1), container(2), container(3)];
    let first = presence.enrol(now, host(1), &all, 1).unwrap();
    let other = presence.enrol(now, host(2), &all, 1).unwrap();
    let old = Vitals::default().seal(&first[1].key, first[1].session, 9);
    presence.beat(now, &old).unwrap();
    let second = presence.enrol(now, host(1), &[container(2), container(4)], 2).unwrap();
    assert_eq!(second[0].session, first[1].session, "its number stays");
    assert_eq!(presence.beat(now, &old), Err(BeatDropped::Bad(HeartbeatError::Tag)));
    let datagram = Vitals::default().seal(&second[0].key, second[0].session, 1);
    assert_eq!(presence.beat(now, &datagram).unwrap().container, container(2));
    assert_eq!(presence.len(), 5);
    let mut sessions: Vec<_> = presence.sessions_of(host(1)).collect();
    sessions.sort_unstable();
    let mut given: Vec<_> = second.iter().map(|enrolment| enrolment.session).collect();
    given.sort_unstable();
    assert_eq!(sessions, given);
    presence.end(host(1));
    presence.end(host(1));
    assert_eq!((presence.len(), presence.heard(host(1))), (3, None));
    assert_eq!(presence.sessions_of(host(2)).count(), 3);
    assert_eq!(presence.owner(other[0].session), Some((host(2), container(1))));
    assert_eq!(presence.enrol(now, host(3), &[], 3), Ok(Vec::new()));
}

#[test]
fn who_was_gone_for_long_is_forgotten() {
    let (mut presence, start) = settled(20);
    for second in 1..=40 * 60 {
        let now = start + second * 1_000;
        if second % 10 == 0 {
            for number in 1..20 {
                beat(&mut presence, number, 1_000 + second, now).unwrap();
            }
        }
        // Parts of sweeps find what whole ones do.
        for _ in 0..4 {
            presence.sweep_part(UnixMillis(now), 5);
        }
    }
    assert_eq!((presence.len(), presence.standing(0)), (19, None));
    assert_eq!(presence.suspects(), 0);
}

#[test]
fn keys_grow_old_and_say_so() {
    let (mut presence, _) = settled(1);
    let after = |epochs: u64| (START / KEY_EPOCH_MS + epochs) * KEY_EPOCH_MS;
    assert!(!beat(&mut presence, 0, 100, after(1)).unwrap().has_old_key);
    assert!(beat(&mut presence, 0, 101, after(2)).unwrap().has_old_key);
}

#[test]
fn a_restarted_indexer_takes_the_next_beats() {
    let (mut presence, now) = settled(40);
    for gone in [3, 4, 39] {
        presence.end(host(gone));
    }
    let many = [container(1), container(2)];
    let two = presence.enrol(UnixMillis(now), host(77), &many, 9).unwrap();
    let dump = presence.dump();
    let mut loaded = Presence::load(secret(), UnixMillis(now), &dump).unwrap();
    assert_eq!(loaded.dump(), dump);
    assert_eq!(loaded.len(), 39);
    assert_eq!(beat(&mut loaded, 5, 20, now), Err(BeatDropped::Old), "no replays over a restart");
    for number in (0..39).filter(|number| ![3, 4].contains(number)) {
        beat(&mut loaded, number, 21, now).unwrap();
    }
    for Enrolment { container, session, key } in two {
        let taken =
            loaded.beat(UnixMillis(now), &Vitals::default().seal(&key, session, 1)).unwrap();
        assert_eq!((taken.host, taken.container), (host(77), container));
    }
    assert_eq!(loaded.sessions_of(host(77)).count(), 2);
    // Who is new gets a vacant number, and who left is not there.
    assert_eq!(loaded.enrol(UnixMillis(now), host(3), &[container(0)], 5).unwrap()[0].session, 3);
    // With another secret none of them is anybody's.
    let mut other = Presence::load(Secret::from_bytes([8; 32]), UnixMillis(now), &dump).unwrap();
    let refused = beat(&mut other, 5, 21, now);
    assert_eq!(refused, Err(BeatDropped::Bad(HeartbeatError::Tag)));
}

#[test]
fn sessions_are_adopted_under_their_numbers_and_others_left_alone() {
    let (settled, now) = settled(5);
    let now = UnixMillis(now);
    let records: Vec<_> = (0..5).map(|n| (host(n), settled.records_of(host(n)))).collect();
    let mut fresh = Presence::new(secret());
    // Somebody has enrolled meanwhile, and has the number that was host 0's.
    let own = fresh.enrol(now, host(9), &[container(0)], 3).unwrap()[0].session;
    let adopted = fresh.adopt(now, records.clone().into_iter().rev());
    let is_own = |(_, sessions): &&(NodeId, Vec<_>)| {
        sessions.iter().any(|record: &SessionRecord| record.session == own)
    };
    let lost = records.iter().filter(is_own).count();
    assert_eq!((lost, adopted, fresh.len()), (1, 4, 5));
    assert_eq!(fresh.adopt(now, records.clone()), 0, "each once");
    for (node, sessions) in records.iter().filter(|record| !is_own(record)) {
        assert_eq!(fresh.records_of(*node), *sessions);
        let number = sessions[0].session;
        assert!(beat(&mut fresh, number, 1 << 40, now.0).is_ok(), "its host's next beat is taken");
    }
    // A gap is filled by the next enrolment, and what is too high is left out.
    let mut apart = Presence::new(secret());
    let mut record = records[0].1[0];
    record.session = 3;
    assert_eq!(apart.adopt(now, [(host(0), vec![record])]), 1);
    record.session = u32::MAX - 1;
    assert_eq!(apart.adopt(now, [(host(1), vec![record])]), 0);
    assert!(apart.enrol(now, host(2), &[container(0)], 3).unwrap()[0].session < 3);
}

#[test]
fn a_dump_that_is_none_is_refused() {
    let dump = settled(3).0.dump();
    let load = |bytes: &[u8]| Presence::load(secret(), UnixMillis(START), bytes).err();
    for length in 0..dump.len() {
        assert!(load(&dump[..length]).is_some(), "{length}");
    }
    let mut twice = dump.clone();
    twice.copy_within(9..13, 79);
    assert_eq!(load(&twice), Some(DumpError::Rows));
    let mut high = dump.clone();
    high[151] = 0xff;
    assert!(load(&high).is_some());
    let mut alien = dump;
    alien[4] = 9;
    assert_eq!(load(&alien), Some(DumpError::Form));
}

/// A beat of host 0 that tells of these leases.
fn tell(
    presence: &mut Presence,
    now: u64,
    counter: u64,
    (lease_epoch, lease_digest): (u32, u64),
) -> Taken {
    let vitals = Vitals { free: 1, lease_epoch, lease_digest, ..Vitals::default() };
    presence.beat(UnixMillis(now), &vitals.seal(&key(0), 0, counter)).unwrap()
}

/// One session of which a beat has come that told of the second set of leases.
fn told() -> Presence {
    let mut presence = Presence::new(secret());
    presence.enrol(UnixMillis(START), host(0), &[container(0)], 5).unwrap();
    let first = tell(&mut presence, START, 1, (2, 0x1111));
    assert!(!first.has_missed && !first.is_asking, "the first beat is believed");
    presence
}

#[test]
fn a_beat_that_does_not_follow_shows_that_one_was_missed() {
    let is_missed = |leases| tell(&mut told(), START, 2, leases).has_missed;
    // The same; the next; the next after a set that came back.
    assert!(![(2, 0x1111), (3, 0x2222), (3, 0x1111)].into_iter().any(is_missed));
    // One left out; one of before; another set under the same count.
    assert!([(4, 0x2222), (1, 0x1111), (2, 0x2222)].into_iter().all(is_missed));
    // The count's lower bits begin anew, and nothing is missed.
    let mut presence = told();
    for count in 3..600 {
        let taken = tell(&mut presence, START, count.into(), (count, u64::from(count) << 40));
        assert!(!taken.has_missed, "{count}");
    }
}

#[test]
fn for_what_was_missed_a_host_is_asked_once_a_minute_until_it_enrols() {
    let mut presence = told();
    let now = START;
    let first = tell(&mut presence, now, 2, (7, 0x7777));
    assert!(first.has_missed && first.is_asking);
    // Not asked yet, as when many are: it stays so, though all that follows is in order.
    let second = tell(&mut presence, now + 10_000, 3, (8, 0x8888));
    assert!(!second.has_missed && second.is_asking);
    presence.asked(UnixMillis(now + 10_000), host(0));
    assert!(!tell(&mut presence, now + 12_000, 4, (8, 0x8888)).is_asking);
    assert!(!tell(&mut presence, now + 65_000, 5, (99, 0x9999)).is_asking);
    let later = tell(&mut presence, now + 82_000, 6, (99, 0x9999));
    assert!(later.is_asking && !later.has_missed, "the question was lost: asked again");
    presence.asked(UnixMillis(now + 82_000), host(0));
    presence.enrol(UnixMillis(now + 83_000), host(0), &[container(0)], 5).unwrap();
    let healed = tell(&mut presence, now + 83_000, 1, (1, 0x9999));
    assert!(!healed.has_missed && !healed.is_asking);
    // However often something is missed, it is asked once a minute, whether it has announced itself or not.
    let again = tell(&mut presence, now + 85_000, 2, (7, 0x7777));
    assert!(again.has_missed && !again.is_asking);
    assert!(tell(&mut presence, now + 155_000, 3, (7, 0x7777)).is_asking);
}

#[test]
fn a_host_is_not_asked_for_each_of_its_containers() {
    let mut presence = Presence::new(secret());
    let now = UnixMillis(START);
    presence.enrol(now, host(0), &[container(0), container(1)], 5).unwrap();
    let beat = |presence: &mut Presence, at, number: u8, counter| {
        let of = secret().session_key(epoch_of(now), 5, host(0), container(number));
        let session = presence
            .sessions_of(host(0))
            .find(|it| presence.owners[*it as usize].container == container(number));
        let datagram = Vitals::default().seal(&of, session.unwrap(), counter);
        presence.beat(UnixMillis(at), &datagram).unwrap()
    };
    assert!(beat(&mut presence, START, 0, 1).may_be_asked);
    presence.asked(now, host(0));
    assert!(!beat(&mut presence, START + 1, 0, 2).may_be_asked);
    assert!(!beat(&mut presence, START + 1, 1, 1).may_be_asked);
    assert!(beat(&mut presence, START + 8_000, 1, 2).may_be_asked);
}

#[test]
fn what_is_not_taken_tells_of_no_leases() {
    let mut presence = told();
    let now = UnixMillis(START);
    let old = Vitals { lease_epoch: 9, ..Vitals::default() }.seal(&key(0), 0, 1);
    assert_eq!(presence.beat(now, &old), Err(BeatDropped::Old));
    let forged = Vitals { lease_epoch: 9, ..Vitals::default() }.seal(&key(1), 0, 9);
    assert_eq!(presence.beat(now, &forged), Err(BeatDropped::Bad(HeartbeatError::Tag)));
    let next = tell(&mut presence, START, 2, (3, 0x2222));
    assert!(!next.has_missed && !next.is_asking);
    presence.asked(now, host(77));
    assert!(tell(&mut presence, START, 3, (5, 0x2222)).is_asking, "another one was asked");
}

#[test]
fn after_a_restart_no_host_is_asked_for_what_changed_meanwhile() {
    let (presence, now) = settled(40);
    let mut loaded = Presence::load(secret(), UnixMillis(now), &presence.dump()).unwrap();
    let mut adopted = Presence::new(secret());
    adopted.adopt(UnixMillis(now), (0..40).map(|n| (host(n), presence.records_of(host(n)))));
    for presence in [&mut loaded, &mut adopted] {
        for number in 0..40 {
            let vitals = Vitals { lease_epoch: 900 + number, lease_digest: 9, ..Vitals::default() };
            let datagram = vitals.seal(&key(number), number, 1_000);
            let taken = presence.beat(UnixMillis(now), &datagram).unwrap();
            assert!(!taken.has_missed && !taken.is_asking);
        }
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Row>() + size_of::<Owner>() <= 104);
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
