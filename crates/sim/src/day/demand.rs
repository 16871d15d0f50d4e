//! Who asks for what, where and when.
//!
//! Searches are those of [`welkin_match::synth::Demand`], made once and used many times, each time
//! with a number of its own. What next to nothing would fit even if everything were free is left out:
//! such a buyer is told so at once.

use welkin_match::index::{Features, Index, Search};
use welkin_match::synth::{self, MODELS, Purpose, SITES, Use, Wanted};

use super::config::{
    Config, HABITS, HOURS, MINUTE, PURPOSES, REGIONS, SECOND, SURGE_MINUTES, SURGE_PERMILLE,
    SURGES, place_of,
};
use super::draw::{Draw, MEAN_OVER_MEDIAN, scale};
use super::hosts::{Hosts, region_of};

/// A search that is used many times.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) wanted: Wanted,
    /// Regions that can suit, the buyer's own first.
    pub(super) regions: [Option<u8>; REGIONS.len()],
}

/// A request that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) template: u32,
    pub(super) purpose: Purpose,
    pub(super) app: Option<u16>,
    pub(super) buyer: u32,
    pub(super) is_spot: bool,
    pub(super) length: u64,
    pub(super) number: u64,
}

/// Sources of requests: each city's of each purpose, and each city's of a launch.
const SOURCES: usize = (PURPOSES.len() + 1) * SITES.len();

#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) templates: Vec<Template>,
    /// By purpose and city.
    by_source: Vec<Vec<u32>>,
    /// Of a thousand searches so many fit next to nothing even where everything is free.
    pub(super) hopeless_permille: u64,
    /// By purpose: requests in a thousand seconds at a demand of the mean.
    rates: [u64; PURPOSES.len()],
    weights: Vec<u64>,
    /// Rising sums of the requests of all sources in 10^9 seconds.
    sums: Vec<u64>,
    buyers: u32,
    draw: Draw,
}

impl Demand {
    pub(super) fn new(config: &Config, hosts: &Hosts, empty: &[Index]) -> Self {
        let mut by_source = vec![Vec::new(); PURPOSES.len() * SITES.len()];
        let mut templates = Vec::new();
        let count = (config.containers / 4).clamp(4_096, 32_768);
        // Few that fit are none: others have them.
        let few = u8::try_from((config.containers / 25_000).clamp(1, 16)).unwrap_or(16);
        for wanted in synth::Demand::new(config.seed ^ 0x6465_6d61_6e64).take(count) {
            let (home, regions) = around(&wanted);
            let fits = |region: u8| {
                let search = Search { count: few, width: few, ..wanted.search() };
                let found = empty[usize::from(region)].find(&search);
                found.is_ok_and(|choice| choice.chosen.len() >= usize::from(few))
            };
            if !regions.into_iter().flatten().any(fits) {
                continue;
            }
            let source = place_of(wanted.purpose) * SITES.len() + home;
            by_source[source].push(u32::try_from(templates.len()).unwrap_or(0));
            templates.push(Template { wanted, regions });
        }
        let hopeless_permille = (count - templates.len()) as u64 * 1_000 / count as u64;
        // Where supply is short, fewer hope for any: in the long run a market is near balance.
        let weight = |site: &synth::Site| u64::from(site.demand + 8 * site.supply);
        let mut demand = Self {
            templates,
            by_source,
            hopeless_permille,
            rates: rates(config, hosts),
            weights: SITES.iter().map(weight).collect(),
            sums: vec![0; SOURCES],
            buyers: u32::try_from(config.containers / 8).unwrap_or(1).max(16),
            draw: Draw::new(config.seed ^ 0x6172_7269_7665),
        };
        demand.set_time(config, 0);
        demand
    }

    pub(super) const fn buyers(&self) -> u32 {
        self.buyers
    }

    /// Demand follows the sun and launches; called each minute.
    pub(super) fn set_time(&mut self, config: &Config, now: u64) {
        let all: u64 = self.weights.iter().sum();
        let mut sum = 0;
        for source in 0..SOURCES {
            let (place, site) = (source / SITES.len(), source % SITES.len());
            let is_launch = place == PURPOSES.len();
            let place = if is_launch { 0 } else { place };
            let factor = match is_launch {
                true if config.has_hours => launch_permille(now, site),
                true => 0,
                false if config.has_hours => sun_permille(now, site, HABITS[place].swing),
                false => 1_000,
            };
            if !self.by_source[place * SITES.len() + site].is_empty() {
                sum += self.rates[place] * 1_000 * self.weights[site] / all * factor;
            }
            self.sums[source] = sum;
        }
    }

    /// How long until the next request, and what it is.
    pub(super) fn next(&mut self) -> Option<(u64, Arrival)> {
        let all = self.sums.last().copied().filter(|all| *all > 0)?;
        let wait = self.draw.exponential(1_000_000_000 * SECOND / all);
        let drawn = self.draw.within(0, all);
        let source = self.sums.partition_point(|sum| *sum <= drawn);
        Some((wait, self.arrival(source)?))
    }

    fn arrival(&mut self, source: usize) -> Option<Arrival> {
        let (place, site) = (source / SITES.len(), source % SITES.len());
        let is_launch = place == PURPOSES.len();
        let place = if is_launch { 0 } else { place };
        let templates = &self.by_source[place * SITES.len() + site];
        let at = self.draw.below(u32::try_from(templates.len()).ok()?);
        let template = templates.get(at as usize).copied()?;
        let surge = SURGES.iter().find(|surge| surge.region == usize::from(region_of(site)));
        let habit = &HABITS[place];
        Some(Arrival {
            template,
            purpose: PURPOSES[place],
            app: surge.filter(|_| is_launch).map(|surge| surge.app),
            buyer: self.draw.rank(self.buyers),
            is_spot: self.draw.permille(habit.spot_permille),
            length: self.draw.log_normal(habit.median_minutes * MINUTE),
            number: self.draw.word(),
        })
    }

    /// The sessions that run already: as many as there are on average, each with what is left of
    /// its length.
    pub(super) fn running(&mut self) -> Vec<Arrival> {
        let mut running = Vec::new();
        let (mut last, mut rest) = (0, 0);
        for source in 0..PURPOSES.len() * SITES.len() {
            let rate = self.sums[source] - last;
            last = self.sums[source];
            let median = HABITS[source / SITES.len()].median_minutes * MINUTE;
            let mean_s = scale(median, MEAN_OVER_MEDIAN) / SECOND;
            rest += rate * mean_s;
            let count = rest / 1_000_000_000;
            rest %= 1_000_000_000;
            for _ in 0..count {
                let Some(arrival) = self.arrival(source) else { break };
                // Long ones are met more often: by e, where logarithms spread by one.
                let length = self.draw.log_normal(scale(median, 178_145));
                let length = self.draw.within(SECOND, length.max(2 * SECOND));
                running.push(Arrival { length, ..arrival });
            }
        }
        running
    }

    /// What a request looks for.
    pub(super) fn search(&self, arrival: &Arrival) -> Search<'_> {
        let search = self.templates[arrival.template as usize].wanted.search();
        let spot = if arrival.is_spot { Features::SPOT } else { Features::default() };
        Search {
            features: search.features | spot,
            app: arrival.app.or(search.app),
            request: arrival.number,
            ..search
        }
    }
}

/// A buyer's city and the regions that are near enough, nearest first.
fn around(wanted: &Wanted) -> (usize, [Option<u8>; REGIONS.len()]) {
    let search = wanted.search();
    let nearest = |region: u8| {
        let sites = search.latency.iter().enumerate();
        sites.filter(|(site, _)| region_of(*site) == region).map(|(_, trip)| *trip).min()
    };
    let mut regions = [0, 1, 2].map(|region| (nearest(region).unwrap_or(u16::MAX), region));
    regions.sort_unstable();
    let near = regions.map(|(trip, region)| (trip <= search.latency_max).then_some(region));
    let home = search.latency.iter().enumerate().min_by_key(|(_, trip)| **trip);
    (home.map_or(0, |(site, _)| site), near)
}

/// By purpose: requests in a thousand seconds, so that sessions take their share of the slots that
/// suit them.
fn rates(config: &Config, hosts: &Hosts) -> [u64; PURPOSES.len()] {
    let mut slots = [0_u64; PURPOSES.len()];
    for container in &hosts.containers {
        let least = if container.made_for == Use::Edge { 6_000 } else { 7_000 };
        if container.quality < least {
            continue;
        }
        let is_trainer = container.features.meets(Features::FABRIC)
            && ["h100", "h200", "b200"].contains(&MODELS[usize::from(container.class)].name);
        let purpose = match container.made_for {
            Use::Edge => Purpose::Phone,
            Use::Consumer => Purpose::Game,
            Use::Datacenter if is_trainer && container.quality >= 9_000 => Purpose::Training,
            Use::Workstation | Use::Datacenter => Purpose::Inference,
        };
        slots[place_of(purpose)] += u64::from(container.slots);
    }
    let mut rates = [0; PURPOSES.len()];
    for (place, rate) in rates.iter_mut().enumerate() {
        let habit = &HABITS[place];
        let wanted = slots[place] * habit.share_permille * config.load_permille / 1_000;
        let mean_s = scale(habit.median_minutes * MINUTE, MEAN_OVER_MEDIAN) / SECOND;
        // Slots of a request in tenths: one, of inference 1.5 on average, of training eight.
        let tenths = [10, 15, 10, 80][place];
        *rate = wanted * 10 / (mean_s * tenths);
    }
    rates
}

/// Demand of the hour where a city is, in thousandths of the mean.
fn sun_permille(now: u64, site: usize, swing: u64) -> u64 {
    let minute = (now / MINUTE).cast_signed();
    let local = (minute + i64::from(SITES[site].longitude) * 4 / 10).rem_euclid(24 * 60);
    let local = usize::try_from(local).unwrap_or(0);
    let (hour, within) = (local / 60, (local % 60) as u64);
    let demand = (HOURS[hour] * (60 - within) + HOURS[(hour + 1) % 24] * within) / 60;
    1_000 - swing + demand * swing / 1_000
}

/// What a launch adds, in thousandths of the mean.
fn launch_permille(now: u64, site: usize) -> u64 {
    let minute = now / MINUTE % (24 * 60);
    let region = usize::from(region_of(site));
    let surges = SURGES.iter().filter(|surge| surge.region == region);
    surges
        .map(|surge| minute.wrapping_sub(surge.at_minutes))
        .filter(|minute| *minute < SURGE_MINUTES)
        .map(|minute| SURGE_PERMILLE * (SURGE_MINUTES - minute) / SURGE_MINUTES)
        .sum()
}
