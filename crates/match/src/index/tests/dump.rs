//! An index as bytes: it comes back as it was, or not at all.

use proptest::prelude::*;

use super::history::{World, draw, some, some_row, some_search};
use super::*;
use crate::checksum::sum_of;
use crate::spread::Stream;
use crate::synth::{Demand, Fleet};

fn bytes_of(index: &Index) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.dump(&mut bytes);
    bytes
}

#[test]
fn what_is_built_at_once_is_as_what_grew() {
    let rows: Vec<_> = Fleet::new(3).take(30_000).collect();
    let mut grown = index(&rows);
    let built = Index::build(rows.iter().cloned()).unwrap();
    grown.epoch = built.epoch;
    let loaded = Index::load(&bytes_of(&grown)).unwrap();
    for wanted in Demand::new(4).take(500) {
        let search = Search { count: 8, width: 64, ..wanted.search() };
        let expected = grown.find(&search).unwrap();
        assert_eq!(built.find(&search).unwrap(), expected);
        assert_eq!(loaded.find(&search).unwrap(), expected);
    }
    assert!(built.bytes() <= grown.bytes() + grown.bytes() / 50, "lists have less room to spare");
    let bad = [row(1), Row { location: 128, ..row(2) }];
    assert!(matches!(Index::build(bad), Err(RowError::TooLarge { .. })));
    assert!(Index::build([]).unwrap().is_empty());
}

#[test]
fn torn_and_decayed_bytes_are_refused_at_each_byte() {
    let mut stream = Stream::new(5);
    let mut world = World::default();
    (0..40).for_each(|_| world.insert(some_row(&mut stream, 9)));
    (0..5).for_each(|row| world.index.remove(RowId(row * 7)));
    let bytes = bytes_of(&world.index);
    assert!(Index::load(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(Index::load(&bytes[..length]).is_err(), "{length} bytes");
    }
    let mut decayed = bytes.clone();
    for place in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            decayed[place] ^= flip;
            assert!(Index::load(&decayed).is_err(), "byte {place}");
            decayed[place] = bytes[place];
        }
    }
    assert!(Index::load(&[&bytes[..], &[0]].concat()).is_err());
    let mut huge = bytes;
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(Index::load(&huge), Err(LoadError::Length { .. })));
}

/// Bytes of somebody who computes the checksum as we do.
#[test]
fn what_makes_no_sense_is_refused_or_harmless() {
    let mut stream = Stream::new(6);
    let mut world = World::default();
    (0..30).for_each(|_| world.insert(some_row(&mut stream, 9)));
    (0..3).for_each(|row| world.index.remove(RowId(row * 7)));
    let good = bytes_of(&world.index);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..1_500 {
        let mut bytes = good.clone();
        let end = bytes.len() - 8;
        for _ in 0..=stream.below(3) {
            let place = 40 + stream.below(end - 40);
            bytes[place] = some(&mut stream, &[0, 1, 0x7f, 0x80, 0xff]);
        }
        let sum = sum_of(0, &bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        let Ok(mut index) = Index::load(&bytes) else {
            refused += 1;
            continue;
        };
        taken += 1;
        let lists = [vec![], vec![], vec![]];
        index.find(&some_search(&mut stream, &[3, 9], &lists)).unwrap();
        let row = RowId(draw(&mut stream, 30));
        index.beat(row, 1, 2);
        index.set_apps(row, &[1, 2]);
        index.remove(row);
        assert_eq!(Index::load(&bytes_of(&index)).unwrap().len(), index.len());
    }
    assert!(refused > 150 && taken > 150, "{refused} refused, {taken} taken");
}

#[test]
fn holds_are_not_kept_and_their_slots_are_free() {
    let mut index = index(&[Row { free: 3, ..row(1) }]);
    index.hold(0, RowId(0), 2, 10).unwrap();
    assert_eq!(index.free(RowId(0)), 1);
    let loaded = Index::load(&bytes_of(&index)).unwrap();
    assert_eq!((loaded.free(RowId(0)), loaded.holds()), (3, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_loaded_index_goes_on_as_the_dumped_one(
        seed in any::<u64>(),
        count in prop_oneof![0..60_usize, 300..900_usize],
        prices in prop_oneof![Just(1_usize), Just(6), Just(2_000_000)],
    ) {
        let mut stream = Stream::new(seed);
        let mut world = World::default();
        (0..count).for_each(|_| world.insert(some_row(&mut stream, prices)));
        let lists = [vec![], vec![], vec![]];
        for _ in 0..3 {
            (0..40).for_each(|_| world.step(&mut stream, prices));
            world.end_holds();
            let before = bytes_of(&world.index);
            world.index = Index::load(&before).unwrap();
            prop_assert_eq!(bytes_of(&world.index), before);
            world.check_lists();
            world.check(&some_search(&mut stream, &[3, 9, 27], &lists));
        }
    }
}
