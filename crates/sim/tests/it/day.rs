//! A short day of a small network keeps the laws of a long one.

use welkin_sim::day::{Choosing, Config, Day, Report, Staleness};

fn short() -> Config {
    Config {
        containers: 4_000,
        minutes: 60,
        warm_up_minutes: 5,
        lies_from: Some(0),
        is_checked_often: true,
        ..Config::DAY
    }
}

fn run(config: Config) -> Report {
    Day::new(config)
        .and_then(Day::run)
        .unwrap_or_else(|violation| panic!("{violation}: {config:?}"))
}

/// Each minute the day itself checks that no slot is leased twice or lost, that no host that is
/// gone has leases, and, whenever spot capacity is taken back, that its notice was over.
#[test]
fn an_hour_keeps_the_laws_and_is_the_same_again() {
    let report = run(short());
    let counts = report.counts;
    println!("{counts:?}");
    assert!(counts.requests > 1_000 && counts.placed > 900, "a dull hour: {counts:?}");
    assert!(counts.queued > 0 && counts.lost > 0 && counts.taken_back > 0, "{counts:?}");
    let ended = counts.placed + counts.gave_up + counts.refused;
    assert!(ended <= counts.requests + counts.requests / 10, "made out of nothing: {counts:?}");
    assert!((50.0..90.0).contains(&report.utilisation_percent), "{}", report.utilisation_percent);

    let again = run(short());
    assert_eq!((report.digest, counts), (again.digest, again.counts));
    let other = run(Config { seed: 2, containers: 1_000, minutes: 1, ..short() });
    assert_ne!(report.digest, other.digest);

    // In the hour after the lies began.
    let honest = report.indexers.iter().filter(|indexer| indexer.lie.is_none());
    let least = honest.map(|indexer| indexer.asked_percent).fold(f64::MAX, f64::min);
    for liar in report.indexers.iter().filter(|indexer| indexer.lie.is_some()) {
        assert!(liar.asked_percent < least, "{}: {liar:?}", report.digest);
    }
    assert!(report.punished_percent < 1.0, "{}", report.punished_percent);
}

/// Where pictures are old and many want the same, it helps not to want the very best.
#[test]
fn two_draws_fail_less_than_always_the_best() {
    let config = Config {
        minutes: 10,
        warm_up_minutes: 1,
        load_permille: 950,
        has_hours: false,
        has_churn: false,
        lies_from: None,
        ..short()
    };
    let Ok(day) = Day::new(config) else { panic!("the fleet fits") };
    let failed = |choosing| {
        let run = day.with(choosing, Staleness::Fixed(20_000_000)).run();
        run.map_or(f64::NAN, |report| report.first_try_failed_percent())
    };
    let (best, draws) = (failed(Choosing::Best), failed(Choosing::TwoOf(64, 3_000)));
    println!("always the best {best:.2} %, two draws {draws:.2} %");
    assert!(draws < best, "{draws} {best}");
}
