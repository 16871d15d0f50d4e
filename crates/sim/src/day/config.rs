//! What a day is made of: sizes, loads and chances. Every number here is an assumption, not
//! anybody's data.

use welkin_match::synth::{Purpose, Use};

/// A second in the unit of virtual time.
pub(super) const SECOND: u64 = 1_000_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// Regions by longitude: each has indexers of its own.
pub const REGIONS: [&str; 3] =
    ["Asia and Pacific", "Europe, Middle East, Africa", "North and South America"];
/// Indexers of one region, each of another operator.
pub const INDEXERS_PER_REGION: usize = 3;
pub(super) const INDEXERS: usize = REGIONS.len() * INDEXERS_PER_REGION;
/// The indexer that shows the containers of its friends only.
pub const HIDER: usize = 2;
/// The indexer that offers containers that are gone.
pub const PRETENDER: usize = 4;
/// One operator of so many is the hider's friend.
pub(super) const FRIENDS: u32 = 4;

/// What buyers come for, in the order of tables.
pub const PURPOSES: [Purpose; 4] =
    [Purpose::Game, Purpose::Inference, Purpose::Phone, Purpose::Training];

/// The place of a purpose in tables.
pub(super) const fn place_of(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Game => 0,
        Purpose::Inference => 1,
        Purpose::Phone => 2,
        Purpose::Training => 3,
    }
}

/// What is assumed of the buyers of one purpose.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// Its name.
    pub name: &'static str,
    /// Half of all sessions are shorter, in minutes; the mean is 1.65 times as long.
    pub median_minutes: u64,
    /// How long a buyer waits for a container, in seconds.
    pub patience_s: u64,
    /// Of a thousand requests so many take spot capacity.
    pub spot_permille: u32,
    /// How much demand swings between night and evening, in thousandths of the full swing.
    pub swing: u64,
    /// Of a thousand slots that suit it so many are wanted at a load of 100 %.
    pub share_permille: u64,
}

/// By purpose, in the order of [`PURPOSES`].
pub const HABITS: [Habit; 4] = [
    Habit {
        name: "game",
        median_minutes: 50,
        patience_s: 120,
        spot_permille: 0,
        swing: 350,
        share_permille: 1_000,
    },
    Habit {
        name: "inference",
        median_minutes: 120,
        patience_s: 600,
        spot_permille: 350,
        swing: 250,
        share_permille: 1_000,
    },
    Habit {
        name: "phone",
        median_minutes: 150,
        patience_s: 300,
        spot_permille: 0,
        swing: 250,
        share_permille: 1_000,
    },
    Habit {
        name: "training",
        median_minutes: 240,
        patience_s: 3_600,
        spot_permille: 300,
        swing: 0,
        share_permille: 500,
    },
];

/// Demand by the hour of the day where the buyer is, in thousandths of the mean.
pub(super) const HOURS: [u64; 24] = [
    774, 498, 332, 243, 221, 243, 332, 442, 553, 664, 774, 885, 996, 1051, 1106, 1217, 1383, 1549,
    1770, 1991, 2102, 1991, 1660, 1217,
];

/// A launch: for a while many want the same in one region.
#[derive(Clone, Copy, Debug)]
pub struct Surge {
    /// The hour of the day, in minutes.
    pub at_minutes: u64,
    /// The region's number.
    pub region: usize,
    /// What is launched.
    pub app: u16,
}

/// The launches of a day.
pub const SURGES: [Surge; 3] = [
    Surge { at_minutes: 2 * 60, region: 2, app: 901 },
    Surge { at_minutes: 12 * 60, region: 0, app: 902 },
    Surge { at_minutes: 19 * 60, region: 1, app: 903 },
];
/// A launch begins with so many thousandths of the games that the region plays otherwise, and
/// falls to nothing within [`SURGE_MINUTES`].
pub(super) const SURGE_PERMILLE: u64 = 3_000;
pub(super) const SURGE_MINUTES: u64 = 20;

/// How long hosts stay and stay away on average, in minutes, by what they are made for.
pub(super) const fn presence_minutes(made_for: Use) -> (u64, u64) {
    match made_for {
        Use::Edge => (24 * 60, 120),
        Use::Consumer => (20 * 60, 150),
        Use::Workstation => (10 * 24 * 60, 60),
        Use::Datacenter => (40 * 24 * 60, 60),
    }
}

/// Of a thousand hosts that leave so many say so; the others vanish.
pub(super) const DRAINING_PERMILLE: u32 = 600;
/// Every host's network fails for a moment once in so many minutes.
pub(super) const BLIP_EVERY_MINUTES: u64 = 12 * 60;
/// A vanished host is noticed after this, in seconds: three beats of ten seconds are missing.
pub(super) const NOTICED_AFTER_S: (u64, u64) = (20, 30);
/// A regular beat comes within so many seconds.
pub(super) const BEAT_EVERY_S: u64 = 10;
/// A spot lease is told so long before it is taken back, in seconds.
pub const NOTICE_S: u64 = 30;
/// A hold ends after so many seconds.
pub(super) const HOLD_S: u64 = 5;
/// A host that does not answer is left after this, in microseconds.
pub(super) const ANSWER_MAX: u64 = 300_000;
/// Candidates of one answer.
pub(super) const CANDIDATES: usize = 4;
/// A buyer asks so many times before it waits in the queue.
pub(super) const ROUNDS_MAX: u8 = 3;
/// Buyers that wait at one indexer for one purpose, at most.
pub(super) const WAITING_MAX: usize = 4_096;
/// So many of those who wait are looked at when a container becomes free.
pub(super) const LOOKED_AT_MAX: usize = 64;
/// One request of so many asks two indexers and compares.
pub(super) const PROBE_ONE_IN: u32 = 20;
/// One request of so many that is offered nothing asks another indexer of the region.
pub(super) const DOUBT_ONE_IN: u32 = 4;
/// So much dearer than another's offer, in thousandths, an answer may be and count as honest.
pub(super) const DEARER_PERMILLE: u64 = 50;

/// How a candidate is chosen among the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choosing {
    /// Always the very best.
    Best,
    /// Any of the best eight.
    AnyOfEight,
    /// The better of two draws among so many of the best that cost at most so much more than the
    /// very best, in hundredths of a percent.
    TwoOf(u8, u16),
}

/// How long a change takes to reach an indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// By distance and chance: 10 to 150 ms; one beat of a hundred is lost, and the next regular
    /// one heals it within 10 s.
    Network,
    /// So many microseconds, a fifth more or less.
    Fixed(u64),
}

/// A day's size and rules.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Everything follows from it.
    pub seed: u64,
    /// How many containers there are.
    pub containers: usize,
    /// How long it is measured, in minutes, after the warm-up.
    pub minutes: u64,
    /// How long it runs before, in minutes.
    pub warm_up_minutes: u64,
    /// Demand, in thousandths of the slots that suit it.
    pub load_permille: u64,
    /// How candidates are chosen.
    pub choosing: Choosing,
    /// How old an indexer's picture is.
    pub staleness: Staleness,
    /// Whether demand swings with the sun and there are launches.
    pub has_hours: bool,
    /// Whether hosts come, go and fail.
    pub has_churn: bool,
    /// Two of the nine indexers lie from this minute of the day on; never, if it is nothing.
    pub lies_from: Option<u64>,
    /// Whether the laws are checked for every container each minute; each hour otherwise.
    pub is_checked_often: bool,
}

impl Config {
    /// The day that is measured.
    pub const DAY: Self = Self {
        seed: 1,
        containers: 400_000,
        minutes: 24 * 60,
        warm_up_minutes: 60,
        load_permille: 880,
        choosing: Choosing::TwoOf(64, 200),
        staleness: Staleness::Network,
        has_hours: true,
        has_churn: true,
        lies_from: Some(180),
        is_checked_often: false,
    };
}
