//! What lies between checkers and a host: delay, loss, and hours in which nothing goes through.

use welkin_match::synth::Chance;

/// How long a probe may take, as the checker's configuration has it.
const PROBE_US: u64 = 5_000_000;
/// Before a round trip is known a lost packet is sent again after so long.
const FIRST_PTO_US: u64 = 1_000_000;
/// The most times that a packet is sent again.
const AGAIN_MAX: u32 = 12;

/// A network's quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name in the table.
    pub name: &'static str,
    /// The round trip without delay on the way.
    pub rtt_us: u64,
    /// Up to so much more, each way, for each packet.
    pub jitter_us: u64,
    /// Packets that are lost, in thousandths, each way.
    pub loss_permille: u32,
    /// Outages a week.
    pub outages: u32,
    /// How long one takes.
    pub outage_seconds: u32,
}

const fn network(name: &'static str, rtt_ms: u64, jitter_ms: u64, loss_permille: u32) -> Network {
    let (rtt_us, jitter_us) = (rtt_ms * 1_000, jitter_ms * 1_000);
    Network { name, rtt_us, jitter_us, loss_permille, outages: 0, outage_seconds: 0 }
}

/// Good: a data centre.
pub const GOOD: Network = network("0.1 % loss, 40 ms, 2 ms jitter", 40, 2, 1);
/// Networks on which an honest host is looked at.
pub const NETWORKS: [Network; 6] = [
    GOOD,
    network("5 % loss, 60 ms, 20 ms jitter", 60, 20, 50),
    network("10 % loss, 80 ms, 50 ms jitter", 80, 50, 100),
    network("20 % loss, 120 ms, 100 ms jitter", 120, 100, 200),
    Network {
        outages: 21,
        outage_seconds: 300,
        ..network("5 % loss, three outages of 5 min a day", 60, 20, 50)
    },
    Network {
        outages: 7,
        outage_seconds: 1_500,
        ..network("5 % loss, an outage of 25 min a day", 60, 20, 50)
    },
];

impl Network {
    /// The outages of so many days: seconds from and to.
    pub(super) fn outages(&self, days: u32, chance: &mut Chance) -> Vec<(u32, u32)> {
        let count = self.outages * days / 7;
        // One in each of so many equal parts of the time, and whole within it.
        let part = (days * 86_400).checked_div(count).unwrap_or(0);
        let room = part.saturating_sub(self.outage_seconds).max(1);
        let from = |number| number * part + chance.below(room);
        (0..count).map(from).map(|from| (from, from + self.outage_seconds)).collect()
    }

    /// A packet one way, sent again until it arrives: how long it took.
    pub(super) fn way_us(&self, chance: &mut Chance) -> u64 {
        let pto = self.rtt_us + 4 * self.jitter_us + 25_000;
        self.half_us(pto, chance)
    }

    fn half_us(&self, pto_us: u64, chance: &mut Chance) -> u64 {
        let (mut took, mut pto) = (0, pto_us);
        for _ in 0..AGAIN_MAX {
            if chance.below(1_000) >= self.loss_permille {
                break;
            }
            took += pto;
            pto *= 2;
        }
        let jitter = u32::try_from(self.jitter_us).unwrap_or(u32::MAX).saturating_add(1);
        took + self.rtt_us / 2 + u64::from(chance.below(jitter))
    }

    /// A round trip on an open connection.
    pub(super) fn round_trip_us(&self, chance: &mut Chance) -> u64 {
        self.way_us(chance) + self.way_us(chance)
    }

    /// Whether a probe is answered in time: two round trips to connect, one for the question.
    pub(super) fn probe(&self, chance: &mut Chance) -> bool {
        let first = self.half_us(FIRST_PTO_US, chance) + self.way_us(chance);
        let more: u64 = (0..2).map(|_| self.round_trip_us(chance)).sum();
        first + more <= PROBE_US
    }
}

/// Whether a second lies in an outage.
pub(super) fn is_out(outages: &[(u32, u32)], second: u32) -> bool {
    outages.iter().any(|(from, to)| (*from..*to).contains(&second))
}
