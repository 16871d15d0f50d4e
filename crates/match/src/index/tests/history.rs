//! Random fleets, histories and searches: the index answers as a scan does, and its lists hold
//! what is free and nothing else.

use proptest::prelude::*;

use super::reference::{self, Rows};
use super::*;
use crate::spread::Stream;

/// A number of the stream below `most`.
pub(super) fn draw<T: TryFrom<usize>>(stream: &mut Stream, most: usize) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(stream.below(most)).unwrap()
}

pub(super) fn some<T: Copy>(stream: &mut Stream, of: &[T]) -> T {
    of[stream.below(of.len())]
}

/// A container: prices, qualities and sizes are few, so that many are equal in all.
pub(super) fn some_row(stream: &mut Stream, prices: usize) -> Row {
    let apps = (0..stream.below(4)).map(|_| draw(stream, 300)).collect();
    Row {
        host: draw(stream, 40),
        operator: draw(stream, 4),
        class: draw(stream, 3),
        location: some(stream, &[0, 1, 2, 9, 17, 127]),
        price: draw(stream, prices),
        quality: some(stream, &[0, 5_000, 7_000, 9_400, 9_500, 9_990, 10_000]),
        free: some(stream, &[0, 1, 1, 1, 2, 3, 5, 8, 12]),
        cpu: some(stream, &[50, 100, 130, 400, 410, 30_000]),
        memory: some(stream, &[10, 1 << 14, 20_000, 1 << 16]),
        disk: some(stream, &[0, 300, 1 << 10, 5_000]),
        features: Features(draw::<u32>(stream, 4) << 4 | draw::<u32>(stream, 3) << 26),
        ring: u32::try_from(stream.word() >> 32).unwrap(),
        apps,
    }
}

pub(super) fn some_search<'a>(
    stream: &mut Stream,
    latency: &'a [u16],
    lists: &'a [Vec<u32>; 3],
) -> Search<'a> {
    let mut rarely = |value: u32| if stream.below(4) == 0 { value } else { 0 };
    let (cpu, memory, disk) = (rarely(110), rarely(15_000), rarely(700));
    let features = Features(rarely(1 << 4) | rarely(1 << 26));
    let quality_min = rarely(9_400).try_into().unwrap();
    let weight = |stream: &mut Stream| some(stream, &[0, 0, 1, 3]);
    let app = (stream.below(2) == 0).then(|| draw(stream, 300));
    Search {
        classes: some(stream, &[ClassSet::ALL, [1].into_iter().collect()]),
        slots: some(stream, &[1, 1, 1, 2, 3, 8]),
        cpu: cpu.try_into().unwrap(),
        memory,
        disk,
        price_max: some(stream, &[PRICE_MAX, PRICE_MAX, 3]),
        features,
        quality_min,
        locations: some(stream, &[u128::MAX, u128::MAX, 0b110]),
        latency,
        latency_max: some(stream, &[u16::MAX, 40]),
        operators_allow: &lists[0],
        operators_deny: &lists[1],
        hosts_exclude: &lists[2],
        app,
        is_app_required: app.is_some() && stream.below(4) == 0,
        weights: Weights {
            price: weight(stream),
            latency: weight(stream),
            quality: weight(stream),
            cold: weight(stream) * 5,
            fragment: weight(stream),
        },
        count: draw::<u8>(stream, 16) + 1,
        width: draw::<u8>(stream, 64) + 1,
        slack: some(stream, &[0, 200, 5_000]),
        request: stream.word(),
    }
}

/// Lists of operators and hosts, mostly empty.
fn some_lists(stream: &mut Stream) -> [Vec<u32>; 3] {
    [3, 3, 40].map(|most| {
        let length = stream.below(8).saturating_sub(5);
        (0..length).map(|_| draw(stream, most)).collect()
    })
}

#[derive(Default)]
pub(super) struct World {
    pub(super) index: Index,
    /// What the hosts say.
    said: Rows,
    /// Container, slots and end of each hold.
    holds: BTreeMap<HoldId, (u32, u16, u64)>,
    now: u64,
}

impl World {
    pub(super) fn insert(&mut self, row: Row) {
        let id = self.index.insert(&row).unwrap();
        assert!(self.said.insert(id.number(), row).is_none());
    }

    /// The containers with what is free besides holds.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = self.said.clone();
        for (id, slots, _) in self.holds.values() {
            let row = rows.get_mut(id).unwrap();
            row.free = row.free.saturating_sub(*slots);
        }
        rows
    }

    pub(super) fn step(&mut self, stream: &mut Stream, prices: usize) {
        let ids: Vec<_> = self.said.keys().copied().collect();
        let row = RowId(ids.get(stream.below(ids.len().max(1))).copied().unwrap_or(7));
        let said = self.said.get_mut(&row.number());
        self.now += draw::<u64>(stream, 3);
        match stream.below(10) {
            0 => self.insert(some_row(stream, prices)),
            1 => {
                self.index.remove(row);
                self.said.remove(&row.number());
                self.holds.retain(|_, (of, ..)| *of != row.number());
            }
            2..=4 => {
                let free = draw(stream, 12);
                self.index.beat(row, self.now, free);
                said.into_iter().for_each(|said| said.free = free);
            }
            5 => {
                let price = draw(stream, prices);
                self.index.reprice(row, price);
                said.into_iter().for_each(|said| said.price = price);
            }
            6 => {
                let quality = draw(stream, 10_001);
                self.index.set_quality(row, quality);
                said.into_iter().for_each(|said| said.quality = quality);
            }
            7 => {
                let apps: Vec<_> = (0..stream.below(5)).map(|_| draw(stream, 300)).collect();
                self.index.set_apps(row, &apps);
                said.into_iter().for_each(|said| said.apps.clone_from(&apps));
            }
            8 => {
                let (slots, expires) =
                    (draw::<u16>(stream, 4) + 1, self.now + 1 + draw::<u64>(stream, 40));
                let free = self.rows().get(&row.number()).map_or(0, |row| row.free);
                let kept = self.index.hold(self.now, row, slots, expires);
                assert_eq!(kept.is_ok(), free >= slots, "{kept:?}");
                self.holds.extend(kept.map(|id| (id, (row.number(), slots, expires))));
            }
            _ => self.end_hold(stream),
        }
    }

    /// Gives back what is kept.
    pub(super) fn end_holds(&mut self) {
        std::mem::take(&mut self.holds).into_keys().for_each(|id| self.index.release(id));
    }

    fn end_hold(&mut self, stream: &mut Stream) {
        let Some((id, (row, slots, _))) = self.holds.pop_first() else {
            self.index.expire_holds(self.now);
            return;
        };
        let said = self.said.get_mut(&row).unwrap();
        match stream.below(4) {
            0 => self.index.release(id),
            1 => {
                assert!(self.index.confirm(id) && !self.index.confirm(id));
                said.free = said.free.saturating_sub(slots);
            }
            2 => {
                said.free = draw(stream, 5);
                self.index.refused(id, said.free);
            }
            _ => {
                self.holds.insert(id, (row, slots, 0));
                self.holds.retain(|_, (.., expires)| *expires > self.now);
                self.index.release(id);
                self.index.expire_holds(self.now);
            }
        }
    }

    pub(super) fn check(&self, search: &Search<'_>) {
        let choice = self.index.find(search).unwrap();
        let found: Vec<_> =
            choice.chosen.iter().map(|chosen| (chosen.row.number(), chosen.terms.sum())).collect();
        assert_eq!(found, reference::find(&self.rows(), search), "{search:?}");
    }

    /// Every list holds what is free, in order, and its bound is the cheapest of it.
    pub(super) fn check_lists(&self) {
        let rows = self.rows();
        let mut count = 0;
        for (place, run) in self.index.cells.iter().enumerate() {
            let (cell, column) = (place / LOCATIONS_MAX, place % LOCATIONS_MAX);
            assert!(run.iter().map(|entry| entry.key()).is_sorted());
            for entry in run.iter() {
                let row = &rows[&entry.row];
                assert_eq!((entry.free, entry.price, entry.ring), (row.free, row.price, row.ring));
                let home = usize::from(row.class) * TIERS + tier_of(row.quality);
                assert_eq!((cell, column), (home, usize::from(row.location)));
                count += 1;
            }
            for level in 0..bounds::LEVELS {
                let with = run.iter().filter(|entry| entry.free >= 1 << level);
                let least = with.map(|entry| entry.price.cast_signed()).min();
                let bounds = self.index.bounds.level(level);
                assert_eq!(bounds.cells[cell][column], least.unwrap_or(bounds::NOTHING));
                let groups =
                    bounds.cells[cell].chunks(bounds::GROUP).map(|g| *g.iter().min().unwrap());
                assert!(groups.eq(bounds.groups.iter().map(|group| group[cell])));
            }
        }
        assert_eq!(count, rows.values().filter(|row| row.free > 0).count());
        let ready: usize = self.index.ready.iter().map(|ready| ready.entries().count()).sum();
        let apps = |row: &Row| row.apps.iter().collect::<std::collections::BTreeSet<_>>().len();
        let expected: usize = rows.values().filter(|row| row.free > 0).map(apps).sum();
        assert_eq!(ready, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_scan_finds(
        seed in any::<u64>(),
        count in prop_oneof![0..60_usize, 300..900_usize],
        prices in prop_oneof![Just(1_usize), Just(6), Just(2_000_000)],
        steps in 0..150_usize,
    ) {
        let mut stream = Stream::new(seed);
        let mut world = World::default();
        (0..count).for_each(|_| world.insert(some_row(&mut stream, prices)));
        // Some fleets are all the same.
        let twins = if stream.below(3) == 0 { 400 } else { 0 };
        let twin = some_row(&mut stream, prices);
        for number in 0..twins {
            world.insert(Row { host: number % 90, ring: number * 7_654_321, ..twin.clone() });
        }
        for step in 0..steps.max(12) {
            if step < steps {
                world.step(&mut stream, prices);
            }
            let lists = some_lists(&mut stream);
            let length = stream.below(20);
            let latency: Vec<_> = (0..length).map(|_| draw(&mut stream, 60)).collect();
            let search = some_search(&mut stream, &latency, &lists);
            world.check(&search);
        }
        world.check_lists();
    }
}
