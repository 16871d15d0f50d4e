//! What was sealed is read, and nothing else is.

use proptest::prelude::*;

use super::*;

fn key() -> SessionKey {
    let secret = Secret::from_bytes([7; 32]);
    secret.session_key(3, 5, NodeId::from_bytes([1; 32]), ContainerId::from_bytes([2; 16]))
}

fn vitals() -> impl Strategy<Value = Vitals> {
    let counts = (any::<[bool; 3]>(), 0..=4_096_u16, any::<u16>(), any::<u16>(), any::<u8>());
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u8>());
    let busy = prop::array::uniform8(0..=100_u8);
    let all = (counts, numbers, busy, 0..=4_096_u16);
    all.prop_map(|(counts, numbers, gpu_busy_percent, spot_used)| {
        let ([is_draining, wants_note, is_leaving], free, gpus_free, gpu_memory_free_gib, queue) =
            counts;
        let (price_sequence, revision, lease_epoch, lease_digest, gpu_temperature_max_c) = numbers;
        Vitals {
            is_draining,
            wants_note,
            is_leaving,
            free,
            gpus_free,
            gpu_busy_percent,
            gpu_memory_free_gib,
            gpu_temperature_max_c,
            queue,
            price_sequence,
            revision,
            lease_epoch,
            lease_digest,
            spot_used,
        }
    })
}

proptest! {
    #[test]
    fn a_beat_is_read_as_it_was_sealed(vitals in vitals(), session: u32, counter: u64) {
        let datagram = vitals.seal(&key(), session, counter);
        let header = Header::of_beat(&datagram).unwrap();
        prop_assert_eq!((header.session, header.counter), (session, counter));
        prop_assert_eq!(Vitals::open(&key(), &datagram), Ok(vitals));
        // What it says is not to be seen: a state of zeros is no zeros.
        prop_assert_ne!(&datagram[13..53], &vitals.to_bytes()[..]);
    }

    #[test]
    fn an_answer_is_read_as_it_was_sealed(is_ack: bool, session: u32, counter: u64) {
        let note = if is_ack { Note::Ack } else { Note::Poke };
        let datagram = note.seal(&key(), session, counter);
        prop_assert_eq!(Note::open(&key(), &datagram), Ok(note));
        let header = Header::of_note(&datagram).unwrap();
        prop_assert_eq!((header.session, header.counter), (session, counter));
        prop_assert!(datagram.len() * 2 < BEAT_BYTES, "an answer is smaller than what it answers");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Vitals::open(&key(), &bytes).is_err());
        prop_assert!(Note::open(&key(), &bytes).is_err());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let beat = Vitals { free: 3, ..Vitals::default() }.seal(&key(), 9, 10);
    for bit in 0..BEAT_BYTES * 8 {
        let mut bent = beat;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(Vitals::open(&key(), &bent).is_err(), "bit {bit}");
    }
    let note = Note::Ack.seal(&key(), 9, 1);
    for bit in 0..NOTE_BYTES * 8 {
        let mut bent = note;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(Note::open(&key(), &bent).is_err(), "bit {bit}");
    }
}

#[test]
fn keys_are_of_one_enrolment() {
    let secret = Secret::from_bytes([7; 32]);
    let (host, container) = (NodeId::from_bytes([1; 32]), ContainerId::from_bytes([2; 16]));
    let others = [
        secret.session_key(4, 5, host, container),
        secret.session_key(3, 6, host, container),
        secret.session_key(3, 5, NodeId::from_bytes([9; 32]), container),
        secret.session_key(3, 5, host, ContainerId::from_bytes([9; 16])),
        Secret::from_bytes([8; 32]).session_key(3, 5, host, container),
    ];
    let beat = Vitals::default().seal(&key(), 1, 1);
    for other in others {
        assert_eq!(Vitals::open(&other, &beat), Err(HeartbeatError::Tag));
    }
    assert_eq!(format!("{:?} {secret:?}", key()), "SessionKey(..) Secret(..)");
}

#[test]
fn a_tag_of_one_kind_is_none_of_another() {
    let ack = Note::Ack.seal(&key(), 1, 1);
    let mut poke = ack;
    poke[0] = POKE;
    assert_eq!(Note::open(&key(), &poke), Err(HeartbeatError::Tag));
    // An answer's text, were there one, would be no beat's: the nonce differs.
    let header = Header { kind: ACK, session: 1, counter: 1 };
    let mut body = Vitals::default().to_bytes();
    let tag = key().seal(&header, &mut body);
    let mut datagram = Header { kind: BEAT, ..header }.to_bytes().to_vec();
    datagram.extend_from_slice(&body);
    datagram.extend_from_slice(&tag);
    assert_eq!(Vitals::open(&key(), &datagram), Err(HeartbeatError::Tag));
}

#[test]
fn the_same_answer_is_the_same_bytes() {
    assert_eq!(Note::Ack.seal(&key(), 1, 1), Note::Ack.seal(&key(), 1, 1));
}

#[test]
fn a_state_that_is_none_is_refused() {
    for vitals in [
        Vitals { free: 4_097, ..Vitals::default() },
        Vitals { spot_used: 4_097, ..Vitals::default() },
        Vitals { gpu_busy_percent: [101, 0, 0, 0, 0, 0, 0, 0], ..Vitals::default() },
    ] {
        let beat = vitals.seal(&key(), 1, 1);
        assert_eq!(Vitals::open(&key(), &beat), Err(HeartbeatError::Vitals));
    }
}
