//! Folding against a naive reference, rings, and a fleet.

use proptest::prelude::*;
use welkin_proto::prices::Spread;

use super::*;

const MINUTE: u64 = 60_000;

fn usd(micros: u64) -> Usd {
    Usd::from_micros(micros)
}

fn series(region: Option<&str>) -> Series {
    Series { class: "rtx4090".parse().unwrap(), region: region.map(|name| name.parse().unwrap()) }
}

fn market(prices: &[(u64, u32, u32)]) -> Market {
    let mut market = Market::default();
    for (price, free, total) in prices {
        let (class, region) = ("rtx4090".parse().unwrap(), "eu".parse().unwrap());
        market.add(&class, &region, (Some(usd(*price)), None), (*free, *total));
    }
    market
}

#[test]
fn a_minute_counts_slots_and_regions_and_all_together() {
    let mut prices = Prices::default();
    let records = prices.record(UnixMillis(90_000), &market(&[(10, 1, 1), (20, 0, 2), (30, 4, 4)]));
    assert_eq!(records.len(), 6, "three spans of the region and of all regions");
    let point = records.iter().find(|record| record.span == Span::Minute).unwrap().point;
    let spread = Spread { min: usd(10), median: usd(30), max: usd(30) };
    let expected = PricePoint {
        at: UnixMillis(MINUTE),
        on_demand: Some(spread),
        spot: None,
        free: 5,
        total: 7,
    };
    assert_eq!(point, expected);
}

#[test]
fn a_ring_never_holds_more_than_its_places() {
    let (mut prices, mut rings) = (Prices::default(), Rings::default());
    let minutes = 3 * 1_440;
    for minute in 0..minutes {
        rings.append(&prices.record(UnixMillis(minute * MINUTE), &market(&[(minute, 1, 1)])));
    }
    let now = UnixMillis((minutes - 1) * MINUTE);
    let read = |span, since| rings.read(now, &series(Some("eu")), span, UnixMillis(since));
    let (minute, hour, day) = (read(Span::Minute, 0), read(Span::Hour, 0), read(Span::Day, 0));
    assert_eq!((minute.len(), hour.len(), day.len()), (1_440, 72, 3));
    assert!(minute.iter().all(|point| is_kept(Span::Minute, point.at, now)));
    assert_eq!(read(Span::Minute, now.0 - 10 * MINUTE).len(), 11);
    assert_eq!(read(Span::Day, now.0).len(), 1);
    // Later nothing is left of the minutes, as nothing came.
    let later = UnixMillis(now.0 + 2 * 86_400_000);
    assert_eq!(rings.read(later, &series(None), Span::Minute, UnixMillis(0)), []);
    assert_eq!(rings.read(later, &series(None), Span::Day, UnixMillis(0)).len(), 3);
}

#[test]
fn series_are_bounded() {
    let (mut prices, mut market) = (Prices::default(), Market::default());
    for number in 0..SERIES_MAX + 100 {
        let region = format!("r{number}").parse().unwrap();
        market.add(&"cpu".parse().unwrap(), &region, (Some(usd(1)), None), (1, 1));
    }
    let records = prices.record(UnixMillis(0), &market);
    assert_eq!((market.len(), prices.len()), (SERIES_MAX, SERIES_MAX));
    assert_eq!(records.len(), 3 * SERIES_MAX);
    // They end with the day.
    prices.record(UnixMillis(86_400_000), &Market::default());
    assert!(prices.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The hour and the day are those of their minutes, wherever in between there was a restart.
    #[test]
    fn a_restart_changes_nothing(
        start in 0..3_000_u64,
        samples in prop::collection::vec((1..1_000_u64, 0..9_u32, 0..3_u64), 1..80),
        restart in 0..80_usize,
    ) {
        let (mut prices, mut rings) = (Prices::default(), Rings::default());
        let (mut steady, mut steady_rings) = (Prices::default(), Rings::default());
        let mut at = UnixMillis(start * MINUTE);
        let mut seen = Vec::new();
        for (number, (price, free, pause)) in samples.iter().enumerate() {
            at = UnixMillis(at.0 + (1 + pause * 20) * MINUTE);
            if number == restart {
                prices = Prices::default();
                for region in [Some("eu"), None] {
                    let read = |span| rings.read(at, &series(region), span, UnixMillis(0));
                    prices.restore(at, series(region), &read(Span::Minute), &read(Span::Hour));
                }
            }
            let market = market(&[(*price, *free, 9)]);
            rings.append(&prices.record(at, &market));
            steady_rings.append(&steady.record(at, &market));
            seen.push((at, *price, *free));
        }
        for span in Span::ALL {
            let read = |rings: &Rings| rings.read(at, &series(None), span, UnixMillis(0));
            prop_assert_eq!(read(&rings), read(&steady_rings));
            for point in read(&rings) {
                let within = seen.iter().filter(|(at, ..)| span.begin(*at) == point.at);
                let of: Vec<_> = within.map(|(_, price, _)| usd(*price)).collect();
                let spread = point.on_demand.unwrap();
                prop_assert_eq!(Some(&spread.min), of.iter().min());
                prop_assert_eq!(Some(&spread.max), of.iter().max());
                prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
            }
        }
    }

    /// The median has no more than half of the slots below it and above it.
    #[test]
    fn medians_are_in_the_middle(prices in prop::collection::vec((0..50_u64, 1..9_u32), 1..40)) {
        let mut sample = Sample::default();
        for (price, slots) in &prices {
            sample.add(Some(usd(*price)), None, 0, *slots);
        }
        let spread = sample.point(UnixMillis(0)).on_demand.unwrap();
        let count = |is: &dyn Fn(Usd) -> bool| {
            let of = prices.iter().filter(|(price, _)| is(usd(*price)));
            of.map(|(_, slots)| u64::from(*slots)).sum::<u64>()
        };
        let all = count(&|_| true);
        prop_assert!(2 * count(&|price| price < spread.median) <= all);
        prop_assert!(2 * count(&|price| price > spread.median) <= all);
        prop_assert!(sample.point(UnixMillis(0)).spot.is_none());
    }
}
