//! Distances, means that follow, and tables that stay bounded.

use std::net::IpAddr;

use proptest::prelude::*;
use welkin_types::{Region, UnixMillis};

use super::*;

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

#[test]
fn distances_are_those_of_the_globe() {
    // Kilometres along great circles, from the cities' coordinates.
    for (one, other, km) in [
        ("de-frankfurt", "fr-paris", 478),
        ("de-frankfurt", "us-new-york", 6_204),
        ("us-los-angeles", "jp-tokyo", 8_815),
        ("kr-seoul", "us-new-york", 11_060),
        ("nz-auckland", "es-madrid", 19_600),
        ("au-sydney", "za-johannesburg", 11_040),
        ("is-reykjavik", "fi-helsinki", 2_430),
    ] {
        let [a, b] = [one, other].map(|name| place_of(&region(name)).unwrap());
        let found = a.distance_km(b);
        assert!(found.abs_diff(km) <= km / 50 + 15, "{one} {other}: {found}, not {km}");
        assert_eq!(found, b.distance_km(a));
    }
}

proptest! {
    #[test]
    fn distances_are_a_metric(places in proptest::collection::vec((-900..=900_i32, -1_800..=1_800_i32), 3)) {
        let place = |at: usize| Place { latitude: places[at].0, longitude: places[at].1 };
        let (a, b, c) = (place(0), place(1), place(2));
        prop_assert!(a.distance_km(a) == 0);
        prop_assert!(a.distance_km(b) <= 20_100);
        prop_assert!(a.distance_km(c) <= a.distance_km(b) + b.distance_km(c) + 40);
    }

    #[test]
    fn one_outlier_moves_little(rtt in 1_000..300_000_u32, outlier: u32) {
        let mut estimate = Estimate::first(UnixMillis(0), rtt);
        for n in 0..40 {
            estimate.learn(UnixMillis(n), rtt);
        }
        estimate.learn(UnixMillis(41), outlier);
        prop_assert!(estimate.mean_us.abs_diff(rtt) <= rtt / 20 + 50, "{estimate:?}");
    }

    #[test]
    fn a_changed_route_is_followed(before in 1_000..300_000_u32, after in 1_000..300_000_u32) {
        let mut estimate = Estimate::first(UnixMillis(0), before);
        for n in 0..40 {
            estimate.learn(UnixMillis(n), before);
        }
        for n in 40..140 {
            estimate.learn(UnixMillis(n), after);
        }
        prop_assert!(estimate.mean_us.abs_diff(after) <= after / 10 + 200, "{estimate:?}");
    }
}

#[test]
fn what_was_measured_comes_before_what_is_near_and_that_before_the_default() {
    let mut table = RoundTrips::default();
    let (now, home, to) = (UnixMillis(1_000), region("de-frankfurt"), region("fr-paris"));
    let net = |text: &str| Network::of(text.parse::<IpAddr>().unwrap());
    let (own, other) = (net("192.0.2.7"), net("198.51.100.1"));
    assert_eq!(net("192.0.2.200"), own);
    assert_eq!(net("2001:db8:1::1"), net("2001:db8:1:ffff::9"));
    let default = default_rtt(&home, &to).unwrap();
    assert_eq!(table.rtt(now, Some(own), Some(&home), &to), Some(default));
    assert_eq!(table.rtt(now, Some(own), None, &to), None);
    table.learn(now, other, Some(&home), &to, 21_000);
    assert_eq!(table.rtt(now, Some(own), Some(&home), &to), Some(21_000));
    table.learn(now, own, None, &to, 9_000);
    assert_eq!(table.rtt(now, Some(own), Some(&home), &to), Some(9_000));
    let late = UnixMillis(now.0 + 31 * 86_400_000);
    assert_eq!(table.rtt(late, Some(own), Some(&home), &to), Some(default));
}

#[test]
fn strangers_fill_no_memory() {
    let mut table = RoundTrips::default();
    let to = region("fr-paris");
    for n in 0..u32::try_from(ENTRIES_MAX).unwrap() + 500 {
        let [_, a, b, c] = n.to_be_bytes();
        table.learn(UnixMillis(n.into()), Network::V4([a, b, c]), None, &to, 1_000);
    }
    assert_eq!(table.len(), ENTRIES_MAX);
    assert_eq!(
        table.rtt(UnixMillis(0), Some(Network::V4([0, 0, 1])), None, &to),
        None,
        "the oldest"
    );
}

#[test]
fn unknown_regions_come_last() {
    let home = region("de-frankfurt");
    let names = ["mars", "sg-singapore", "ch-zurich", "ch-zurich"].map(region);
    let order = nearest(names.iter(), |region| default_rtt(&home, region));
    let order: Vec<_> = order.iter().map(|(region, _)| region.as_str()).collect();
    assert_eq!(order, ["ch-zurich", "sg-singapore", "mars"]);
    assert_eq!(default_rtt(&Region::local(), &Region::local()), Some(0));
    assert_eq!(regions().count(), 113);
}
