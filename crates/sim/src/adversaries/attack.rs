//! How hosts cheat about their hardware: what they do with each challenge, and what it costs them.

use welkin_check::challenge::{ClassTable, residency};

use super::duty::Assigned::{self, Privately, Publicly};
use super::hardware::{OWN_PERCENT, RENT_PERCENT, capacity, rate};

/// Reading a unit of memory on a GPU, at random, walk after walk.
const READ_NS: u64 = 600;
/// Computing a unit instead: the fill is chosen so that it takes several times as long.
const COMPUTE_NS: u64 = 6_000;
/// A walk may take so many thousandths of what it takes from memory.
const WALK_PERMILLE_MAX: u64 = 2_000;

/// What is under test: a host, and the rules that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) variant: &'static str,
    pub(super) assigned: Assigned,
    /// The class that is registered, and the one that is there.
    pub(super) claimed: &'static str,
    pub(super) real: &'static str,
    pub(super) cheat: Cheat,
    pub(super) rules: Rules,
    /// Whether identities that share a device take turns; else one is always served first.
    pub(super) alternates: bool,
    /// So many of a hundred licences say of it what it claims.
    pub(super) colluders_percent: u32,
    /// Why it is known to pay, if it does.
    pub(super) known: Option<&'static str>,
}

/// What the checkers do beside challenging one device at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// They probe that the memory is held.
    pub(super) has_residency: bool,
    /// They count refusals.
    pub(super) counts_refusals: bool,
    /// They ask all containers of an owner in one window.
    pub(super) has_window: bool,
    /// They ask partners of the class in the same window, drawn at random, and those that were slow
    /// beside others with them.
    pub(super) has_partners: bool,
    /// They believe the first finding, as nodes do now, and do not ask again.
    pub(super) asks_once: bool,
}

/// How a host cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cheat {
    /// It does what its hardware does.
    Slower,
    /// It leaves out so many rows, in basis points.
    Skips(u32),
    /// It passes the work on to devices of its class, far away.
    Relays { us: u64, hops: u32 },
    /// So many identities have one device among them.
    Shares(u32),
    /// The device is rented for the first hours of every so many days; else it says `Busy`.
    Dodges { hours: u32, days: u32 },
    /// It ends the stream.
    Leaves,
}

/// What an answer to a challenge is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) mmac_per_s: u64,
    pub(super) delay_us: u64,
    pub(super) wrong_bp: u32,
}

/// What it does when it is challenged at a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Work(Effort),
    Refuse,
    Leave,
}

impl Attack {
    /// How many identities have stakes and rewards.
    pub(super) const fn identities(&self) -> u32 {
        match self.cheat {
            Cheat::Shares(identities) => identities,
            _ => 1,
        }
    }

    /// What it does at a second; `permille` is how fast its device is today.
    pub(super) fn at(&self, table: &ClassTable, second: u32, permille: u64) -> Move {
        let mut effort = Effort {
            mmac_per_s: rate(table, self.real).0 * permille / 1_000,
            delay_us: 0,
            wrong_bp: 0,
        };
        match self.cheat {
            Cheat::Slower | Cheat::Shares(_) => (),
            Cheat::Skips(bp) => {
                effort.wrong_bp = bp;
                effort.mmac_per_s = effort.mmac_per_s * 10_000 / u64::from(10_000 - bp.min(9_999));
            }
            Cheat::Relays { us, hops } => effort.delay_us = us * u64::from(hops),
            Cheat::Dodges { hours, days } => {
                let is_rented =
                    (second / 86_400).is_multiple_of(days) && second % 86_400 < hours * 3_600;
                if !is_rented {
                    return Move::Refuse;
                }
            }
            Cheat::Leaves => return Move::Leave,
        }
        Move::Work(effort)
    }

    /// The memory that checkers take it to have: the claimed one, or the largest of which it
    /// answers walks in time.
    pub(super) fn shown_mib(&self, table: &ClassTable, sizes: &[u64]) -> u64 {
        let (claimed, real) = (rate(table, self.claimed).1, rate(table, self.real).1);
        if !self.rules.has_residency {
            return claimed;
        }
        let is_in_time = |mib: &&u64| {
            let missing = mib.saturating_sub(real) * 10_000 / (**mib).max(1);
            let missing = u32::try_from(missing).unwrap_or(10_000);
            residency::slowdown_permille(missing, COMPUTE_NS, READ_NS) <= WALK_PERMILLE_MAX
        };
        let possible = sizes.iter().filter(|mib| **mib <= claimed);
        possible.filter(is_in_time).max().copied().unwrap_or(0)
    }

    /// What it costs a day, in thousandths of a K-day.
    pub(super) fn cost(&self) -> i64 {
        let k = |class| i64::try_from(capacity(class)).unwrap_or(i64::MAX) * 1_000;
        match self.cheat {
            Cheat::Relays { .. } => k(self.real) * RENT_PERCENT / 100,
            Cheat::Dodges { hours, days } => {
                let hourly = k(self.real) * RENT_PERCENT / 100 / 24;
                hourly * i64::from(hours) / i64::from(days.max(1))
            }
            Cheat::Leaves => 0,
            _ => k(self.real) * OWN_PERCENT / 100,
        }
    }

    /// What the same hardware would bring an honest host a day, costs taken off.
    pub(super) fn alternative(&self) -> i64 {
        match self.cheat {
            // Nothing of one's own is there: the alternative is to do nothing.
            Cheat::Relays { .. } | Cheat::Dodges { .. } | Cheat::Leaves => 0,
            _ => i64::try_from(capacity(self.real)).unwrap_or(0) * 10 * (100 - OWN_PERCENT),
        }
    }
}

const fn attack(
    (name, variant): (&'static str, &'static str),
    assigned: Assigned,
    (claimed, real): (&'static str, &'static str),
    cheat: Cheat,
) -> Attack {
    let rules = Rules {
        has_residency: false,
        counts_refusals: false,
        has_window: false,
        has_partners: false,
        asks_once: false,
    };
    Attack {
        name,
        variant,
        assigned,
        claimed,
        real,
        cheat,
        rules,
        alternates: false,
        colluders_percent: 0,
        known: None,
    }
}

impl Attack {
    const fn residency(mut self) -> Self {
        self.rules.has_residency = true;
        self
    }

    const fn refusals(mut self) -> Self {
        self.rules.counts_refusals = true;
        self
    }

    const fn window(mut self) -> Self {
        self.rules.has_window = true;
        self
    }

    /// Checkers believe their first finding.
    pub(super) const fn once(mut self) -> Self {
        self.rules.asks_once = true;
        self
    }

    const fn partners(mut self) -> Self {
        self.rules.has_partners = true;
        self
    }

    const fn alternating(mut self) -> Self {
        self.alternates = true;
        self
    }

    const fn colluders(mut self, percent: u32) -> Self {
        self.colluders_percent = percent;
        self
    }

    const fn known(mut self, why: &'static str) -> Self {
        self.known = Some(why);
        self
    }
}

/// An honest host with a card of the class that most attacks claim.
pub(super) const HONEST: Attack = attack(("honest", ""), Publicly, (H100, H100), Cheat::Slower);

const NO_RESIDENCY: &str = "where residency is not asked";
const NO_WINDOW: &str = "where containers of one owner are not asked in one window";
const NO_REFUSALS: &str = "where refusals are not counted";
const MAJORITY: &str = "more than half decide";
const PAIRS: &str = "two on one slow card look like the next class, worth nearly as much";
const SPLIT: &str = "identities of different owners are not suspected";
const RESELLS: &str = "what is rented is there: a reseller, no fraud";

const H100: &str = "h100-sxm-80";
const SMALL: &str = "rtx3090-24";

/// All attacks with hardware.
pub(super) fn attacks() -> Vec<Attack> {
    [fakes(), colluding(), shared(), relayed(), evasive(), sybils()].concat()
}

fn fakes() -> Vec<Attack> {
    let fake = |variant, assigned, real, cheat| {
        attack(("fake model", variant), assigned, (H100, real), cheat)
    };
    let (slower, ada) = (Cheat::Slower, "rtx4090-24");
    vec![
        fake("RTX 3090 as H100", Publicly, SMALL, slower),
        fake("RTX 3090 as H100", Privately, SMALL, slower),
        fake("A100 as H100", Publicly, "a100-sxm-80", slower),
        fake("H100 PCIe as SXM", Publicly, "h100-pcie-80", slower)
            .known("power limits move honest cards as far: bands reach to 70 %"),
        fake("RTX 4090 as H100", Publicly, ada, slower).known(NO_RESIDENCY),
        fake("RTX 4090 as H100, residency asked", Publicly, ada, slower).residency(),
        fake("RTX 3090, 5 % of rows left out", Publicly, SMALL, Cheat::Skips(500)),
        fake("H100, 1 % of rows left out", Publicly, H100, Cheat::Skips(100)),
    ]
}

fn colluding() -> Vec<Attack> {
    let colluding = |variant, assigned, percent| {
        let name = "host and checkers collude";
        attack((name, variant), assigned, (H100, SMALL), Cheat::Slower).colluders(percent)
    };
    vec![
        colluding("RTX 3090 as H100, 33 % of licences", Publicly, 33),
        colluding("RTX 3090 as H100, 33 % of licences", Privately, 33),
        colluding("RTX 3090 as H100, 55 % of licences", Publicly, 55).known(MAJORITY),
    ]
}

fn shared() -> Vec<Attack> {
    let shared = |variant, assigned, identities| {
        attack(("shared GPU", variant), assigned, (H100, H100), Cheat::Shares(identities))
    };
    vec![
        shared("2 identities", Publicly, 2).known(NO_WINDOW),
        shared("4 identities", Publicly, 4).known(NO_WINDOW),
        shared("4 identities, four owners", Privately, 4).known(SPLIT),
        shared("2 identities, one owner, one window", Publicly, 2).window(),
        shared("2 identities, one window, taking turns", Publicly, 2).window().alternating(),
        shared("4 identities, one owner, one window", Privately, 4).window(),
        shared("2 identities, two owners, partners drawn", Privately, 2).partners(),
        shared("4 identities, four owners, partners drawn", Privately, 4).partners(),
        shared("4 identities, partners drawn, taking turns", Privately, 4).partners().alternating(),
    ]
}

fn relayed() -> Vec<Attack> {
    let relayed = |variant, us, hops| {
        let cheat = Cheat::Relays { us, hops };
        attack(("relayed challenge", variant), Publicly, (H100, H100), cheat)
    };
    vec![
        relayed("to an H100, 30 ms away, held", 30_000, 1).known(RESELLS),
        relayed("to an H100, 250 ms away, held", 250_000, 1),
        relayed("round by round to 16 H100, 30 ms away", 30_000, 16),
    ]
}

fn evasive() -> Vec<Attack> {
    let evasive = |variant, assigned, hours| {
        let cheat = Cheat::Dodges { hours, days: 3 };
        attack(("answers `Busy`", variant), assigned, (H100, H100), cheat)
    };
    let counted = "the same, refusals counted";
    vec![
        evasive("H100 rented 1 h of 3 days", Publicly, 1).known(NO_REFUSALS),
        evasive("H100 rented 3 h of 3 days", Privately, 3).known(NO_REFUSALS),
        evasive(counted, Publicly, 1).refusals(),
        evasive(counted, Privately, 3).refusals(),
    ]
}

fn sybils() -> Vec<Attack> {
    let sybils =
        |variant, class, cheat| attack(("sybil hosts", variant), Publicly, (class, class), cheat);
    vec![
        sybils("no GPU, streams ended", H100, Cheat::Leaves),
        sybils("16 on one RTX 3090", SMALL, Cheat::Shares(16)).known(SPLIT),
        sybils("16 on one RTX 3090, one owner, one window", SMALL, Cheat::Shares(16)).window(),
        Attack {
            assigned: Privately,
            ..sybils("16 on one RTX 3090, partners drawn", SMALL, Cheat::Shares(16))
                .partners()
                .known(PAIRS)
        },
    ]
}
