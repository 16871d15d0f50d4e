//! What was sealed is read, and nothing else is.

use proptest::prelude::*;

use super::*;

fn key() -> SessionKey {
    let secret = Secret::from_bytes([7; 32]);
    secret.session_key(3, NodeId::from_bytes([1; 32]), ContainerId::from_bytes([2; 16]))
}

fn vitals() -> impl Strategy<Value = Vitals> {
    let counts = (any::<bool>(), 0..=4_096_u16, any::<u16>(), any::<u16>(), any::<u8>());
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u8>());
    let busy = prop::array::uniform8(0..=100_u8);
    (counts, numbers, busy).prop_map(|(counts, numbers, gpu_busy_percent)| {
        let (is_draining, free, gpus_free, gpu_memory_free_gib, queue) = counts;
        let (price_sequence, revision, lease_epoch, lease_digest, gpu_temperature_max_c) = numbers;
        Vitals {
            is_draining,
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
    fn an_answer_is_read_as_it_was_sealed(value: u64, is_ack: bool, session: u32, counter: u64) {
        let note = if is_ack { Note::Ack { counter: value } } else { Note::Poke { reason: value } };
        let datagram = note.seal(&key(), session, counter);
        prop_assert_eq!(Note::open(&key(), &datagram), Ok(note));
        prop_assert!(datagram.len() < BEAT_BYTES, "an answer is smaller than what it answers");
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
    let note = Note::Ack { counter: 10 }.seal(&key(), 9, 1);
    for bit in 0..NOTE_BYTES * 8 {
        let mut bent = note;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(Note::open(&key(), &bent).is_err(), "bit {bit}");
    }
}

#[test]
fn keys_are_of_one_container_host_and_epoch() {
    let secret = Secret::from_bytes([7; 32]);
    let (host, container) = (NodeId::from_bytes([1; 32]), ContainerId::from_bytes([2; 16]));
    let others = [
        secret.session_key(4, host, container),
        secret.session_key(3, NodeId::from_bytes([9; 32]), container),
        secret.session_key(3, host, ContainerId::from_bytes([9; 16])),
        Secret::from_bytes([8; 32]).session_key(3, host, container),
    ];
    let beat = Vitals::default().seal(&key(), 1, 1);
    for other in others {
        assert_eq!(Vitals::open(&other, &beat), Err(HeartbeatError::Tag));
    }
    assert_eq!(format!("{:?} {secret:?}", key()), "SessionKey(..) Secret(..)");
}

#[test]
fn a_datagram_of_the_other_direction_is_refused() {
    // An ack's bytes as long as a beat, with the kind of a beat: the nonce differs.
    let header = Header { kind: BEAT, session: 1, counter: 1 };
    let mut body = Vitals::default().to_bytes();
    let tag = key().seal(Direction::ToHost, &header, &mut body);
    let mut datagram = header.to_bytes().to_vec();
    datagram.extend_from_slice(&body);
    datagram.extend_from_slice(&tag);
    assert_eq!(Vitals::open(&key(), &datagram), Err(HeartbeatError::Tag));
}

#[test]
fn a_state_that_is_none_is_refused() {
    for vitals in [
        Vitals { free: 4_097, ..Vitals::default() },
        Vitals { gpu_busy_percent: [101, 0, 0, 0, 0, 0, 0, 0], ..Vitals::default() },
    ] {
        let beat = vitals.seal(&key(), 1, 1);
        assert_eq!(Vitals::open(&key(), &beat), Err(HeartbeatError::Vitals));
    }
}
