//! What round trips were measured to be: a mean that follows, and that no outlier moves far.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use welkin_types::{Region, UnixMillis};

use super::{RTT_US_MAX, default_rtt};

/// The most pairs of a network and a region that are remembered.
pub const ENTRIES_MAX: usize = 1 << 16;
/// After so many milliseconds without a measurement one is forgotten.
const FORGOTTEN_MS: u64 = 30 * 86_400_000;
/// A measurement counts as at most so many deviations from the mean.
const DEVIATIONS_MAX: u32 = 3;

/// The mean of measured round trips, and how far they are from it on average.
///
/// A measurement far off counts as one at three deviations, so a single one moves the mean by at
/// most three eighths of a deviation. The deviation grows with each, so where a route has really
/// changed the mean follows within a few measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean in microseconds.
    pub mean_us: u32,
    /// The mean deviation from it.
    pub deviation_us: u32,
    /// Measurements so far.
    pub count: u32,
    /// When it was last measured.
    pub at: UnixMillis,
}

impl Estimate {
    /// From the first measurement.
    pub fn first(at: UnixMillis, rtt_us: u32) -> Self {
        let mean_us = rtt_us.min(RTT_US_MAX);
        Self { mean_us, deviation_us: mean_us / 2, count: 1, at }
    }

    /// Learns from one more.
    pub fn learn(&mut self, at: UnixMillis, rtt_us: u32) {
        // What is measured on a quiet line is never quite the same.
        let deviation = self.deviation_us.max(self.mean_us / 32).max(100);
        let far = deviation.saturating_mul(DEVIATIONS_MAX);
        let low = self.mean_us.saturating_sub(far);
        let taken = rtt_us.min(RTT_US_MAX).clamp(low, self.mean_us.saturating_add(far));
        let off = taken.abs_diff(self.mean_us);
        if taken >= self.mean_us {
            self.mean_us = self.mean_us.saturating_add(off / 8);
        } else {
            self.mean_us -= off / 8;
        }
        self.deviation_us = deviation - deviation / 4 + off / 4;
        self.count = self.count.saturating_add(1);
        self.at = self.at.max(at);
    }
}

/// The network that an address is in: neighbours have the same way to everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Network {
    /// 24 bits of an IPv4 address.
    V4([u8; 3]),
    /// 48 bits of an IPv6 address.
    V6([u8; 6]),
}

impl Network {
    /// The network of an address.
    pub fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let [a, b, c, _] = addr.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(addr) => {
                let mut network = [0; 6];
                network.copy_from_slice(&addr.octets()[..6]);
                Self::V6(network)
            }
        }
    }
}

/// From where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Network(Network),
    Region(Region),
}

/// Measured round trips from networks, and from regions, to regions.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    known: BTreeMap<(Origin, Region), Estimate>,
    /// The same, the one measured longest ago first.
    by_age: BTreeSet<(UnixMillis, Origin, Region)>,
}

impl RoundTrips {
    /// Learns from a round trip that this side has measured itself: what others say of their own
    /// would be theirs to choose. `home` is the region of the network, where it is known.
    pub fn learn(
        &mut self,
        now: UnixMillis,
        network: Network,
        home: Option<&Region>,
        to: &Region,
        rtt_us: u32,
    ) {
        self.learn_one(now, Origin::Network(network), to, rtt_us);
        if let Some(home) = home {
            self.learn_one(now, Origin::Region(home.clone()), to, rtt_us);
        }
    }

    /// The round trip from a network, or from the region that it is in, to a region: as measured,
    /// else by distance.
    pub fn rtt(
        &self,
        now: UnixMillis,
        network: Option<Network>,
        home: Option<&Region>,
        to: &Region,
    ) -> Option<u32> {
        let from = [network.map(Origin::Network), home.cloned().map(Origin::Region)];
        let measured = from.into_iter().flatten().find_map(|from| {
            let estimate = self.known.get(&(from, to.clone()))?;
            let age = now.0.saturating_sub(estimate.at.0);
            (age <= FORGOTTEN_MS).then_some(estimate.mean_us)
        });
        measured.or_else(|| default_rtt(home?, to))
    }

    /// How many pairs are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn learn_one(&mut self, now: UnixMillis, from: Origin, to: &Region, rtt_us: u32) {
        let key = (from, to.clone());
        if let Some(estimate) = self.known.get_mut(&key) {
            self.by_age.remove(&(estimate.at, key.0.clone(), key.1.clone()));
            if now.0.saturating_sub(estimate.at.0) > FORGOTTEN_MS {
                *estimate = Estimate::first(now, rtt_us);
            } else {
                estimate.learn(now, rtt_us);
            }
            self.by_age.insert((estimate.at, key.0, key.1));
            return;
        }
        if self.known.len() >= ENTRIES_MAX
            && let Some((_, from, to)) = self.by_age.pop_first()
        {
            self.known.remove(&(from, to));
        }
        self.by_age.insert((now, key.0.clone(), key.1.clone()));
        self.known.insert(key, Estimate::first(now, rtt_us));
    }
}
