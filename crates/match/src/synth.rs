//! A synthetic fleet and the searches of its buyers, from a seed, in integers only: the same on
//! every machine.
//!
//! The mix is an assumption, not anybody's data: containers in 95 countries, a quarter of them
//! phones and small boards, half gaming cards, a fifth workstation cards, five percent training
//! cards; prices spread around the model's by a log-normal law; two of three slots busy. Of the
//! searches 60 % are for games near the player, 25 % for inference, 10 % for phones and 5 % for
//! training on eight GPUs of one host.

mod models;
mod sites;

pub use models::{MODELS, Model, Use};
pub use sites::{SITES, Site};

use welkin_types::Tier;

use welkin_types::Policy;

use crate::index::{ClassSet, Features, Row, Search, Weights, ring_of};
use crate::spread::Stream;

/// How many applications there are.
pub const APPS: u16 = 1_000;

/// A stream of chances.
#[derive(Clone, Debug)]
pub struct Chance(Stream);

impl Chance {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(Stream::new(seed))
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0.word()
    }

    /// A number below `most`, or 0.
    pub fn below(&mut self, most: u32) -> u32 {
        let wide = (self.0.word() >> 32) * u64::from(most);
        u32::try_from(wide >> 32).unwrap_or(0)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, of_hundred: u32) -> bool {
        self.below(100) < of_hundred
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.below(u32::try_from(choices.len()).unwrap_or(0));
        choices[place as usize]
    }

    /// A place in rising sums of weights.
    fn weighted(&mut self, sums: &[u32]) -> usize {
        let drawn = self.below(sums.last().copied().unwrap_or(0));
        sums.partition_point(|sum| *sum <= drawn)
    }
}

fn sums(weights: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut sum = 0;
    weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

/// Zipf's law: the second is wanted half as often as the first.
fn app_sums() -> Vec<u32> {
    sums((1..=u32::from(APPS)).map(|rank| 100_000_000 / rank))
}

/// `exp(n / 4)` for the standard normal law's quantiles, in thousandths.
const QUANTILES: [u32; 64] = [
    546, 608, 644, 670, 692, 711, 727, 743, 757, 770, 783, 795, 807, 818, 829, 840, 850, 860, 870,
    880, 890, 900, 909, 919, 928, 938, 947, 957, 966, 976, 985, 995, 1005, 1015, 1025, 1035, 1045,
    1056, 1066, 1077, 1089, 1100, 1112, 1124, 1136, 1149, 1163, 1176, 1191, 1206, 1222, 1239, 1258,
    1277, 1298, 1321, 1346, 1375, 1407, 1445, 1492, 1553, 1644, 1830,
];

/// The containers of a seed, one after the other, each of a host of its own.
#[derive(Clone, Debug)]
pub struct Fleet {
    chance: Chance,
    sites: Vec<u32>,
    models: Vec<u32>,
    apps: Vec<u32>,
    next: u32,
}

impl Fleet {
    /// The fleet of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            sites: sums(SITES.iter().map(|site| site.supply)),
            models: sums(MODELS.iter().map(|model| model.share)),
            apps: app_sums(),
            next: 0,
        }
    }

    /// How many slots a container has: a GPU each.
    fn slots(&mut self, model: &Model) -> u16 {
        match (model.made_for, model.is_multiple) {
            (Use::Datacenter, _) if self.chance.percent(80) => 8,
            (Use::Datacenter, _) => self.chance.of(&[1, 2, 4]),
            (_, true) => self.chance.of(&[1, 1, 2, 4, 8]),
            (_, false) => 1,
        }
    }

    fn features(&mut self, model: &Model, slots: u16) -> Features {
        let chance = &mut self.chance;
        let mut features =
            Features::isolation(chance.of(&[Tier::Container, Tier::Sandbox, Tier::Vm]));
        let encodes = match model.made_for {
            Use::Edge => chance.percent(90),
            Use::Consumer | Use::Workstation => true,
            Use::Datacenter => false,
        };
        let is_joined = model.made_for == Use::Datacenter && slots == 8;
        for (feature, has) in [
            (Features::NVENC, encodes),
            (Features::AV1, encodes && (model.gaming >= 4 || chance.percent(20))),
            (Features::FABRIC, is_joined),
            (Features::GPU_CONFIDENTIAL, is_joined && chance.percent(30)),
            (Features::ATTESTED, chance.percent(50)),
            (Features::DIRECT, chance.percent(70)),
            (Features::IPV6, chance.percent(40)),
            (Features::WINDOWS, chance.percent(50)),
            (Features::SPOT, chance.percent(40)),
            (Features::ON_DEMAND, true),
        ] {
            if has {
                features = features | feature;
            }
        }
        features | Features::driver(chance.of(&[535, 550, 570, 580]))
    }
}

impl Iterator for Fleet {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.container().map(|(row, _)| row)
    }
}

impl Fleet {
    /// The next container, and how many slots it has in all.
    pub fn container(&mut self) -> Option<(Row, u16)> {
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        let location = self.chance.weighted(&self.sites);
        let class = self.chance.weighted(&self.models);
        let model = &MODELS[class];
        let slots = self.slots(model);
        let features = self.features(model, slots);
        let chance = &mut self.chance;
        let free = match chance.below(100) {
            0..62 => 0,
            62..85 => slots,
            _ => u16::try_from(chance.below(u32::from(slots) + 1)).unwrap_or(0),
        };
        let at = chance.below(63) as usize;
        let within = chance.below(1_000);
        let factor = QUANTILES[at] * (1_000 - within) + QUANTILES[at + 1] * within;
        let price = u64::from(model.price) * u64::from(factor) / 1_000_000;
        // Most are nearly always there: the shortfall is a product of two chances.
        let shortfall = chance.below(10_000) * chance.below(10_000) / 12_500;
        let each = |chance: &mut Chance, of: &[u32]| chance.of(of) * u32::from(slots);
        let cpu = each(chance, &[800, 1_600, 3_200, 6_400, 12_800]);
        let row = Row {
            host: number,
            operator: number / 16,
            class: u8::try_from(class).unwrap_or(0),
            location: u8::try_from(location).unwrap_or(0),
            price: u32::try_from(price).unwrap_or(0),
            quality: u16::try_from(10_000 - shortfall).unwrap_or(0),
            free,
            cpu: u16::try_from(cpu).unwrap_or(u16::MAX),
            memory: each(chance, &[16, 32, 64, 128]) << 14,
            disk: each(chance, &[64, 128, 256, 1_024]) << 10,
            features,
            ring: ring_of(&[&number.to_be_bytes()]),
            apps: if chance.percent(30) { vec![self.app()] } else { Vec::new() },
        };
        Some((row, slots))
    }

    fn app(&mut self) -> u16 {
        u16::try_from(self.chance.weighted(&self.apps)).unwrap_or(0)
    }
}

/// What a buyer is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A game near the player.
    Game,
    /// A model to ask.
    Inference,
    /// A phone.
    Phone,
    /// Eight GPUs of one host.
    Training,
}

/// A search that owns its lists.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is for.
    pub purpose: Purpose,
    latency: Vec<u16>,
    search: Search<'static>,
}

impl Wanted {
    /// The search.
    pub fn search(&self) -> Search<'_> {
        Search { latency: &self.latency, ..self.search }
    }
}

/// The searches of a seed.
#[derive(Clone, Debug)]
pub struct Demand {
    chance: Chance,
    sites: Vec<u32>,
    apps: Vec<u32>,
}

impl Demand {
    /// The demand of a seed.
    pub fn new(seed: u64) -> Self {
        let sites = sums(SITES.iter().map(|site| site.demand));
        Self { chance: Chance::new(seed), sites, apps: app_sums() }
    }

    /// Round trips from somewhere near a city: 16 us a kilometre and 6 to 12 ms to the next node.
    fn latency(&mut self) -> Vec<u16> {
        let home = &SITES[self.chance.weighted(&self.sites)];
        let mut near = |tenths: i32| tenths - 30 + self.chance.below(60).cast_signed();
        let place = (near(home.latitude), near(home.longitude));
        let access = 60 + self.chance.below(60);
        let mut to = |site: &Site| {
            let km = sites::distance_km(place, (site.latitude, site.longitude));
            let tenths = km * 16 / 100 + u64::from(access + self.chance.below(20));
            u16::try_from(tenths).unwrap_or(u16::MAX)
        };
        SITES.iter().map(&mut to).collect()
    }

    fn game(&mut self) -> Search<'static> {
        let chance = &mut self.chance;
        let gaming = 1 + chance.below(4);
        let is_wanted = |model: &Model| {
            let is_card = matches!(model.made_for, Use::Consumer | Use::Workstation);
            is_card && u32::from(model.gaming) >= gaming
        };
        let mut features = Features::NVENC;
        if chance.percent(30) {
            features = features | Features::AV1;
        }
        if chance.percent(50) {
            features = features | Features::WINDOWS;
        }
        Search {
            classes: classes(is_wanted),
            cpu: 400,
            memory: 8 << 14,
            disk: 64 << 10,
            price_max: chance.of(&[150_000, 300_000, 600_000, 2_000_000]),
            quality_min: 6_000,
            features,
            latency_max: 400,
            weights: Weights::of(Policy::Best),
            ..Search::ANY
        }
    }

    fn inference(&mut self) -> Search<'static> {
        let chance = &mut self.chance;
        let vram = chance.of(&[16, 24, 48, 80]);
        let features = if chance.percent(20) { Features::ATTESTED } else { Features::default() };
        Search {
            classes: classes(|model| model.vram_gb >= vram && model.made_for != Use::Edge),
            slots: chance.of(&[1, 1, 1, 1, 1, 1, 1, 2, 2, 4]),
            cpu: 800,
            memory: 32 << 14,
            disk: 128 << 10,
            price_max: 4_000_000,
            quality_min: 7_000,
            features,
            latency_max: 1_500,
            weights: Weights {
                price: 2,
                latency: 100,
                quality: 100,
                cold: 100_000,
                fragment: 10_000,
            },
            ..Search::ANY
        }
    }

    fn training(&mut self) -> Search<'static> {
        let mut features = Features::FABRIC;
        if self.chance.percent(20) {
            features = features | Features::GPU_CONFIDENTIAL;
        }
        Search {
            classes: classes(|model| ["h100", "h200", "b200"].contains(&model.name)),
            slots: 8,
            cpu: 6_400,
            memory: 128 << 14,
            disk: 512 << 10,
            price_max: 10_000_000,
            quality_min: 9_000,
            features,
            weights: Weights { price: 4, quality: 200, ..Weights::default() },
            ..Search::ANY
        }
    }
}

impl Iterator for Demand {
    type Item = Wanted;

    fn next(&mut self) -> Option<Wanted> {
        let latency = self.latency();
        let app = u16::try_from(self.chance.weighted(&self.apps)).unwrap_or(0);
        let (purpose, search) = match self.chance.below(100) {
            0..60 => (Purpose::Game, self.game()),
            60..85 => (Purpose::Inference, self.inference()),
            85..95 => {
                let search = Search {
                    classes: classes(|model| model.made_for == Use::Edge),
                    cpu: 400,
                    memory: 8 << 14,
                    disk: 32 << 10,
                    price_max: 100_000,
                    quality_min: 6_000,
                    latency_max: 600,
                    weights: Weights {
                        price: 1,
                        latency: 600,
                        quality: 100,
                        cold: 100_000,
                        fragment: 0,
                    },
                    ..Search::ANY
                };
                (Purpose::Phone, search)
            }
            _ => (Purpose::Training, self.training()),
        };
        let app = (purpose != Purpose::Training).then_some(app);
        let features = search.features | Features::at_least(Tier::Container);
        let request = self.chance.word();
        Some(Wanted { purpose, latency, search: Search { app, features, request, ..search } })
    }
}

fn classes(is_wanted: impl Fn(&Model) -> bool) -> ClassSet {
    let numbered = (0_u8..).zip(&MODELS).filter(|(_, model)| is_wanted(model));
    numbered.map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_mix_is_as_it_says() {
        let countries: BTreeSet<_> = SITES.iter().map(|site| &site.name[..2]).collect();
        assert_eq!(countries.len(), 95);
        let rows: Vec<_> = Fleet::new(7).take(20_000).collect();
        let percent = |test: &dyn Fn(&Row) -> bool| {
            rows.iter().filter(|row| test(row)).count() * 100 / rows.len()
        };
        let share =
            |made_for: Use| percent(&|row| MODELS[usize::from(row.class)].made_for == made_for);
        assert!((24..29).contains(&share(Use::Edge)), "{}", share(Use::Edge));
        assert!((46..56).contains(&share(Use::Consumer)), "{}", share(Use::Consumer));
        assert!((60..70).contains(&percent(&|row| row.free == 0)));
        assert!((27..33).contains(&percent(&|row| !row.apps.is_empty())));
        assert_eq!(sites::distance_km((515, -1), (407, -740)) / 1_000, 5, "London to New York");
    }
}
