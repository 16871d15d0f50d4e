//! A columnar scan as one would write it for speed: columns in the order of the price, 64
//! containers at a time compared without a branch, stopped as soon as none can be better.

use welkin_match::index::{Row, Search};

const BLOCK: usize = 64;

/// 1 for what is wanted.
struct Tables {
    classes: [u8; 256],
    locations: [u8; 256],
}

/// The fleet in columns.
pub(crate) struct Columns {
    prices: Vec<u32>,
    features: Vec<u32>,
    memories: Vec<u32>,
    disks: Vec<u32>,
    free: Vec<u16>,
    qualities: Vec<u16>,
    cpus: Vec<u16>,
    apps: Vec<u16>,
    classes: Vec<u8>,
    locations: Vec<u8>,
}

impl Columns {
    pub(crate) fn new(rows: &[Row]) -> Self {
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|row| row.price);
        // Whole blocks: what is missing has no free slots.
        let length = rows.len().next_multiple_of(BLOCK);
        fn column<T: Clone + Default>(
            rows: &[&Row],
            length: usize,
            of: impl Fn(&Row) -> T,
        ) -> Vec<T> {
            let mut column: Vec<_> = rows.iter().map(|row| of(row)).collect();
            column.resize(length, T::default());
            column
        }
        Self {
            prices: column(&rows, length, |row| row.price),
            features: column(&rows, length, |row| row.features.bits()),
            memories: column(&rows, length, |row| row.memory),
            disks: column(&rows, length, |row| row.disk),
            free: column(&rows, length, |row| row.free),
            qualities: column(&rows, length, |row| row.quality),
            cpus: column(&rows, length, |row| row.cpu),
            apps: column(&rows, length, |row| row.apps.first().copied().unwrap_or(u16::MAX)),
            classes: column(&rows, length, |row| row.class),
            locations: column(&rows, length, |row| row.location),
        }
    }

    /// The costs of the best, in order.
    pub(crate) fn find(&self, search: &Search<'_>) -> Vec<u64> {
        let weights = &search.weights;
        let mut ways = [u64::MAX; 256];
        for (location, way) in ways.iter_mut().enumerate().take(128) {
            let latency = match search.latency {
                [] => 0,
                known => known.get(location).copied().unwrap_or(u16::MAX),
            };
            if latency <= search.latency_max && search.locations >> location & 1 == 1 {
                *way = u64::from(weights.latency) * u64::from(latency);
            }
        }
        let nearest = ways.iter().copied().min().unwrap_or(u64::MAX);
        let mut tables = Tables { classes: [0; 256], locations: [0; 256] };
        search.classes.iter().for_each(|class| tables.classes[usize::from(class)] = 1);
        for (near, way) in tables.locations.iter_mut().zip(&ways) {
            *near = u8::from(*way != u64::MAX);
        }
        let price = u64::from(weights.price);
        let mut best: Vec<u64> = Vec::with_capacity(usize::from(search.count) + 1);
        let mut worst = u64::MAX;
        for (block, prices) in self.prices.as_chunks::<BLOCK>().0.iter().enumerate() {
            let least = price * u64::from(prices[0]);
            if prices[0] > search.price_max || least.saturating_add(nearest) >= worst {
                break;
            }
            let mut fits = self.fits(block, search, &tables);
            while fits != 0 {
                let place = block * BLOCK + fits.trailing_zeros() as usize;
                fits &= fits - 1;
                let way = ways[usize::from(self.locations[place])];
                let is_wanted = (self.prices[place] <= search.price_max)
                    & (self.cpus[place] >= search.cpu)
                    & (self.memories[place] >= search.memory)
                    & (self.disks[place] >= search.disk);
                if !is_wanted {
                    continue;
                }
                let is_cold = search.app.is_some_and(|app| self.apps[place] != app);
                let cost = price * u64::from(self.prices[place])
                    + way
                    + u64::from(weights.quality) * u64::from(10_000 - self.qualities[place])
                    + u64::from(weights.fragment) * u64::from(self.free[place] - search.slots)
                    + u64::from(weights.cold) * u64::from(is_cold);
                if cost < worst {
                    let at = best.partition_point(|other| *other <= cost);
                    best.insert(at, cost);
                    best.truncate(search.count.into());
                    if best.len() == usize::from(search.count) {
                        worst = best[best.len() - 1];
                    }
                }
            }
        }
        best
    }

    /// One bit for each container of a block that is of a wanted kind, near enough, and has the
    /// slots, quality and properties.
    fn fits(&self, block: usize, search: &Search<'_>, tables: &Tables) -> u64 {
        let at = block * BLOCK..(block + 1) * BLOCK;
        let mut fits = [0_u8; BLOCK];
        let (free, qualities) = (&self.free[at.clone()], &self.qualities[at.clone()]);
        for (place, fits) in fits.iter_mut().enumerate() {
            let has = (free[place] >= search.slots) & (qualities[place] >= search.quality_min);
            *fits = u8::from(has);
        }
        let (set, driver) = (search.features.bits() & 0x03ff_ffff, search.features.bits() >> 26);
        for (fits, features) in fits.iter_mut().zip(&self.features[at]) {
            *fits &= u8::from((features & set == set) & (features >> 26 >= driver));
        }
        // Eight bytes of 0 or 1 become eight bits by one multiplication.
        let mut mask = 0;
        for (place, eight) in fits.as_chunks().0.iter().enumerate() {
            let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            mask |= bits << (8 * place);
        }
        // Kinds and places by tables, of those that are left, without a branch for each.
        let (mut left, mut fits) = (mask, 0);
        while left != 0 {
            let place = left.trailing_zeros() as usize;
            left &= left - 1;
            let at = block * BLOCK + place;
            let is_wanted = tables.classes[usize::from(self.classes[at])]
                & tables.locations[usize::from(self.locations[at])];
            fits |= u64::from(is_wanted) << place;
        }
        fits
    }
}
