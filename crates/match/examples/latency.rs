//! Compares ways of telling a round trip before it is measured, at the same number of
//! measurements: the table by distance, means of what a network measured, and network coordinates
//! (Vivaldi, two dimensions and a height, as Dabek and others describe them).
//!
//! ```text
//! cargo run --release -p welkin-match --example latency
//! ```
//!
//! The world is invented and seeded: every city of the synthetic fleet serves; buyers are in
//! networks of up to 32 near those cities. Every pair of a network and a city has a detour of its
//! own, every network an access time, every measurement a wait in queues, and one in fifty is far
//! off.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "it measures and prints"
)]

use std::net::{IpAddr, Ipv4Addr};

use welkin_match::latency::{Network, RoundTrips, default_rtt, place_of};
use welkin_match::synth::SITES;
use welkin_types::{Region, UnixMillis};

const NETWORKS: usize = 400;

struct Chance(u64);

impl Chance {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.word() % count as u64) as usize
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The truth, in milliseconds.
struct World {
    regions: Vec<Region>,
    /// The city that each network is near.
    home: Vec<usize>,
    rtt: Vec<Vec<f64>>,
}

impl World {
    fn new(chance: &mut Chance) -> Self {
        let regions: Vec<Region> = SITES
            .iter()
            .map(|site| site.name.parse().unwrap_or_else(|_| Region::local()))
            .collect();
        let demand: u32 = SITES.iter().map(|site| site.demand).sum();
        let (mut home, mut rtt) = (Vec::new(), Vec::new());
        // Cables take detours that have to do with where they go, and some with who carries them.
        let detour: Vec<Vec<f64>> = (0..SITES.len())
            .map(|_| (0..SITES.len()).map(|_| (0.25 * chance.normal()).exp()).collect())
            .collect();
        for _ in 0..NETWORKS {
            let mut at = chance.below(demand as usize) as u32;
            let near = SITES.iter().position(|site| {
                let is_here = at < site.demand;
                at = at.saturating_sub(site.demand);
                is_here
            });
            let near = near.unwrap_or(0);
            let access = 3.0 + chance.exponential(6.0);
            let row = (0..SITES.len()).map(|to| {
                let km = match (place_of(&regions[near]), place_of(&regions[to])) {
                    (Some(a), Some(b)) => f64::from(a.distance_km(b)),
                    _ => 0.0,
                };
                let carrier = (0.12 * chance.normal()).exp();
                let way =
                    (km * 0.0145 * detour[near.min(to)][near.max(to)] * carrier).max(km * 0.0101);
                access + way + chance.exponential(0.8)
            });
            rtt.push(row.collect());
            home.push(near);
        }
        Self { regions, home, rtt }
    }

    fn measure(&self, chance: &mut Chance, network: usize, to: usize) -> f64 {
        let queue = chance.exponential(1.0);
        let spike = if chance.below(50) == 0 { chance.exponential(150.0) } else { 0.0 };
        self.rtt[network][to] + queue + spike
    }
}

/// A point with a height above the plane: the way to the exchange.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    y: f64,
    height: f64,
    error: f64,
}

impl Point {
    fn new(chance: &mut Chance) -> Self {
        Self { x: chance.normal(), y: chance.normal(), height: 1.0, error: 1.0 }
    }

    fn distance(&self, other: &Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y) + self.height + other.height
    }

    /// One step towards where a measurement puts this point.
    fn step(&mut self, other: &Self, rtt: f64, chance: &mut Chance) {
        const GAIN: f64 = 0.25;
        let far = self.distance(other);
        let weight = self.error / (self.error + other.error).max(1e-9);
        let off = (far - rtt).abs() / rtt.max(0.1);
        self.error = (off * GAIN * weight + self.error * (1.0 - GAIN * weight)).clamp(0.01, 2.0);
        let force = GAIN * weight * (rtt - far);
        let plane = (self.x - other.x).hypot(self.y - other.y);
        let (dx, dy) = if plane < 1e-6 {
            (chance.normal(), chance.normal())
        } else {
            ((self.x - other.x) / plane, (self.y - other.y) / plane)
        };
        self.x += dx * force;
        self.y += dy * force;
        self.height = (self.height + force * (self.height + other.height) / far.max(1e-6)).max(0.1);
    }
}

/// What a way of telling is worth.
struct Score {
    median: f64,
    p90: f64,
    /// Milliseconds lost on average by taking the nearest one that it tells.
    lost: f64,
}

fn score(world: &World, tell: impl Fn(usize, usize) -> f64) -> Score {
    let (mut errors, mut lost) = (Vec::new(), 0.0);
    for network in 0..NETWORKS {
        let truth = &world.rtt[network];
        let told: Vec<f64> = (0..truth.len()).map(|to| tell(network, to)).collect();
        errors.extend(truth.iter().zip(&told).map(|(truth, told)| (truth - told).abs() / truth));
        // Of ten cities that have what is wanted, the one that seems nearest.
        for draw in 0..20 {
            let mut chance = Chance((network * 20 + draw) as u64);
            let some: Vec<usize> = (0..10).map(|_| chance.below(truth.len())).collect();
            let least = |of: &[f64]| {
                some.iter().copied().min_by(|a, b| of[*a].total_cmp(&of[*b])).unwrap_or(0)
            };
            lost += truth[least(&told)] - truth[least(truth)];
        }
    }
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| errors[((errors.len() - 1) as f64 * share) as usize] * 100.0;
    Score { median: at(0.5), p90: at(0.9), lost: lost / (NETWORKS * 20) as f64 }
}

fn show(name: &str, each: usize, score: &Score) {
    println!(
        "| {name} | {each} | {:.0} % | {:.0} % | {:.1} ms |",
        score.median, score.p90, score.lost
    );
}

/// Where a buyer measures to: mostly what is near, at times anywhere.
fn chosen(world: &World, order: &[Vec<usize>], network: usize, chance: &mut Chance) -> usize {
    if chance.below(4) == 0 {
        return chance.below(world.regions.len());
    }
    order[network][chance.below(12)]
}

fn main() {
    let mut chance = Chance(7);
    let world = World::new(&mut chance);
    let default = |network: usize, to: usize| {
        let home = &world.regions[world.home[network]];
        default_rtt(home, &world.regions[to]).map_or(1_000.0, |us| f64::from(us) / 1_000.0)
    };
    let order: Vec<Vec<usize>> = (0..NETWORKS)
        .map(|network| {
            let mut all: Vec<usize> = (0..world.regions.len()).collect();
            all.sort_by(|a, b| default(network, *a).total_cmp(&default(network, *b)));
            all
        })
        .collect();
    println!("| way | measurements of a network | error, median | error, p90 | lost to the best |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    show("table by distance", 0, &score(&world, default));
    for each in [4, 16, 64, 256] {
        let mut table = RoundTrips::default();
        let mut points: Vec<Point> = (0..NETWORKS).map(|_| Point::new(&mut chance)).collect();
        let mut sites: Vec<Point> = world.regions.iter().map(|_| Point::new(&mut chance)).collect();
        let net = |network: usize| {
            let [.., high, low] = network.to_be_bytes();
            Network::of(IpAddr::V4(Ipv4Addr::new(10, high, low, 1)))
        };
        // Everybody in turn, so that coordinates settle together.
        for round in 0..each {
            for (network, point) in points.iter_mut().enumerate() {
                let to = chosen(&world, &order, network, &mut chance);
                let rtt = world.measure(&mut chance, network, to);
                let home = &world.regions[world.home[network]];
                let us = (rtt * 1_000.0) as u32;
                table.learn(
                    UnixMillis(round as u64),
                    net(network),
                    Some(home),
                    &world.regions[to],
                    us,
                );
                let (before, site) = (*point, sites[to]);
                point.step(&site, rtt, &mut chance);
                sites[to].step(&before, rtt, &mut chance);
            }
        }
        let now = UnixMillis(each as u64);
        let learnt = score(&world, |network, to| {
            let home = &world.regions[world.home[network]];
            let us = table.rtt(now, Some(net(network)), Some(home), &world.regions[to]);
            us.map_or(1_000.0, |us| f64::from(us) / 1_000.0)
        });
        show("means, else the table", each, &learnt);
        let vivaldi = score(&world, |network, to| points[network].distance(&sites[to]));
        show("coordinates (Vivaldi)", each, &vivaldi);
    }
}
