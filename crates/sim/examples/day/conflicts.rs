//! How often the first host refuses: by load, by the age of the picture, by how buyers choose.

use welkin_sim::day::{Choosing, Config, Day, Staleness, Violation};

/// Demand in thousandths of the slots that suit it.
pub(crate) const LOADS: [u64; 4] = [500, 700, 850, 950];
/// How old an indexer's picture is, in microseconds.
pub(crate) const AGES: [(u64, &str); 3] =
    [(50_000, "50 ms"), (500_000, "0.5 s"), (2_000_000, "2 s")];
/// How buyers choose.
pub(crate) const CHOICES: [(Choosing, &str); 6] = [
    (Choosing::Best, "the best"),
    (Choosing::AnyOfEight, "any of 8"),
    (Choosing::TwoOf(64, 200), "two draws of 64, 2 %"),
    (Choosing::TwoOf(64, 1_000), "two draws of 64, 10 %"),
    (Choosing::TwoOf(8, 2_500), "two draws of 8, 25 %"),
    (Choosing::TwoOf(64, 2_500), "two draws of 64, 25 %"),
];
const MINUTES: u64 = 2;

/// One measurement.
pub(crate) struct Cell {
    pub(crate) load: u64,
    pub(crate) age: u64,
    pub(crate) choosing: Choosing,
    /// Requests that needed a second candidate, in percent.
    pub(crate) failed_percent: f64,
    /// Leased slots, in percent.
    pub(crate) leased_percent: f64,
    /// How much more the first candidates cost than the best, in percent.
    pub(crate) dearer_percent: f64,
}

/// Measures all: the same network at the same moment, with steady demand, hosts that stay and
/// indexers that are honest.
pub(crate) fn measure(day: Config) -> Result<Vec<Cell>, Violation> {
    let mut cells = Vec::new();
    for load in LOADS {
        let config = Config {
            load_permille: load,
            minutes: MINUTES,
            warm_up_minutes: 1,
            has_hours: false,
            has_churn: false,
            lies_from: None,
            ..day
        };
        let network = Day::new(config)?;
        for (age, _) in AGES {
            for (choosing, _) in CHOICES {
                let report = network.with(choosing, Staleness::Fixed(age)).run()?;
                let failed_percent = report.first_try_failed_percent();
                let leased_percent = report.utilisation_percent;
                let dearer_percent = report.dearer_percent();
                cells.push(Cell {
                    load,
                    age,
                    choosing,
                    failed_percent,
                    leased_percent,
                    dearer_percent,
                });
            }
        }
    }
    Ok(cells)
}
