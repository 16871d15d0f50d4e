//! Laws of scores, known values, and that the document says what the code does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::service::{Minute, minute_quality};
use super::*;
use crate::challenge::{BAND, BAND_PERMILLE, LEARN_STEP_BP};

const HOUR: u64 = 3_600;
const WHOLE: u32 = 1_000_000;

fn full(count: u32, value: Ppm) -> Card {
    let mut card = Card::default();
    for rule in DIMENSIONS {
        (0..count).for_each(|_| card.observe(rule.dimension, 0, value, WHOLE));
    }
    card
}

#[test]
fn evidence_makes_certain() {
    let lower = |good: u32, all: u32| {
        let mut beta = Beta::default();
        for number in 0..all {
            let value = if number < good { Ppm::ONE } else { Ppm::ZERO };
            beta.observe(HOUR, 0, value, WHOLE);
        }
        beta.lower().to_string()
    };
    assert_eq!(lower(0, 0), "0.00 %");
    assert_eq!(lower(10, 10), "72.24 %");
    assert_eq!(lower(100, 100), "96.30 %");
    assert_eq!(lower(995, 1_000), "98.83 %");
    assert_eq!(lower(0, 100), "0.00 %");
}

#[test]
fn evidence_ages_by_its_half_life() {
    let mut beta = Beta::default();
    for hour in 0..3 * 7 * 24 * 10 {
        beta.observe(7 * DAY, hour * HOUR / 3, Ppm::ONE, WHOLE);
    }
    // Three checks an hour at 7 days: 727 of all that came (2⁻¹⁰ is still to come).
    assert_eq!(beta.count_milli() / 1_000, 726);
    let later = beta.aged(7 * DAY, 70 * DAY + 7 * DAY);
    assert!(later.count_milli().abs_diff(beta.count_milli() / 2) < 1_000);
    assert!(later.lower() < beta.lower() && later.mean() == beta.mean());
}

#[test]
fn newcomers_begin_low_and_climb() {
    let score = |count| full(count, Ppm::ONE).explain(0).score;
    assert_eq!(score(0).to_string(), "10.06 %");
    let grades = [1, 10, 20, 40, 80].map(|count| Grade::of(score(count)));
    assert_eq!(grades, [Grade::E, Grade::D, Grade::C, Grade::B, Grade::A]);
    // Always there and as it claims, but never leased.
    let mut unused = Card::default();
    for dimension in
        [Dimension::Availability, Dimension::Hardware, Dimension::Network, Dimension::Health]
    {
        (0..100_000).for_each(|_| unused.observe(dimension, 0, Ppm::ONE, WHOLE));
    }
    assert_eq!(unused.explain(0).score.to_string(), "44.77 %");
}

#[test]
fn a_zero_cannot_be_bought_off() {
    let mut card = full(1_000, Ppm::ONE);
    assert_eq!(card.explain(0).grade, Grade::A);
    for _ in 0..100_000 {
        card.observe(Dimension::Hardware, 0, Ppm::ZERO, WHOLE);
    }
    let told = card.explain(0);
    assert!(told.score < Ppm::new(420_000) && told.grade == Grade::E, "{told}");
    assert_eq!(geometric_mean([(Ppm::ONE, 95), (Ppm::ZERO, 5)].into_iter()), Ppm::ZERO);
}

#[test]
fn an_explanation_is_a_table() {
    let mut card = full(100, Ppm::ONE);
    card.observe(Dimension::Start, 0, Ppm::new(500_000), WHOLE);
    let text = card.explain(0).to_string();
    let expected = "               evidence      mean   certain  weight
availability      100.0  100.00 %   96.31 %    25 %
hardware          100.0  100.00 %   96.31 %    20 %
start             101.0   99.50 %   95.45 %    10 %
sessions          100.0  100.00 %   96.31 %    15 %
quality           100.0  100.00 %   96.31 %    10 %
network           100.0  100.00 %   96.31 %    10 %
health            100.0  100.00 %   96.31 %    10 %
score 96.22 %, grade A, evaluation 4";
    assert_eq!(text, expected, "\n{text}");
}

proptest! {
    #[test]
    fn more_good_never_lowers_a_score(values in prop::collection::vec(0..=WHOLE, 1..40), at in 0..1_000_000_u64) {
        let mut beta = Beta::default();
        for (hour, value) in (0..).zip(&values) {
            beta.observe(7 * DAY, hour * HOUR, Ppm::new(*value), WHOLE);
        }
        let now = 40 * HOUR + at;
        let before = beta.aged(7 * DAY, now);
        prop_assert!(before.lower() <= before.mean() && before.mean() <= Ppm::ONE);
        let (mut better, mut worse) = (before, before);
        better.observe(7 * DAY, now, Ppm::ONE, WHOLE);
        worse.observe(7 * DAY, now, Ppm::ZERO, WHOLE);
        prop_assert!(better.lower() >= before.lower());
        prop_assert!(worse.lower() <= before.lower());
    }

    /// Statements that come late count as if they had come in time, up to rounding.
    #[test]
    fn the_order_of_observations_hardly_matters(
        seen in prop::collection::vec((0..30 * DAY, 0..=WHOLE), 1..20),
    ) {
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        let sum = |list: &[(u64, u32)]| {
            let mut beta = Beta::default();
            list.iter().for_each(|(at, x)| beta.observe(7 * DAY, *at, Ppm::new(*x), WHOLE));
            beta
        };
        let (a, b) = (sum(&seen), sum(&sorted));
        prop_assert!(a.lower().ppm().abs_diff(b.lower().ppm()) <= 2);
        prop_assert_eq!(a.at(), b.at());
    }

    #[test]
    fn a_geometric_mean_lies_between_its_parts(parts in prop::collection::vec((1_000..=WHOLE, 1..50_u32), 1..10)) {
        let mean = geometric_mean(parts.iter().map(|(x, w)| (Ppm::new(*x), *w))).ppm();
        let low = parts.iter().map(|(x, _)| *x).min().unwrap();
        let high = parts.iter().map(|(x, _)| *x).max().unwrap();
        prop_assert!(low <= mean + 2 && mean <= high + 2);
    }

    #[test]
    fn a_minority_of_five_stays_within_what_others_say(
        honest in prop::collection::vec(400_000..600_000_u32, 3), lies in prop::collection::vec(0..=WHOLE, 2),
    ) {
        let all: Vec<_> = honest.iter().chain(&lies).map(|x| Ppm::new(*x)).collect();
        let value = agreed(&all).unwrap().ppm();
        prop_assert!((400_000..600_000).contains(&value));
    }
}

#[test]
fn more_than_five_are_trimmed_and_outliers_found() {
    let mut said: BTreeMap<u8, Ppm> = (0..8).map(|who| (who, Ppm::new(900_000))).collect();
    said.insert(8, Ppm::ZERO);
    said.insert(9, Ppm::ONE);
    let values: Vec<_> = said.values().copied().collect();
    assert_eq!(agreed(&values), Some(Ppm::new(900_000)));
    assert_eq!(outliers(&said), [8]);
    assert_eq!(agreed(&[]), None);
    assert!(outliers(&BTreeMap::<u8, Ppm>::new()).is_empty());
}

#[test]
fn words_weigh_by_the_root_of_fees() {
    assert_eq!(payer_weight(0), 0);
    assert_eq!(payer_weight(1_000_000), WHOLE);
    assert_eq!(payer_weight(4_000_000), 2 * WHOLE);
    assert_eq!(payer_weight(100_000_000), PAYER_WEIGHT_MAX);
    assert_eq!(payer_weight(u64::MAX), PAYER_WEIGHT_MAX);
}

#[test]
fn minutes_have_a_quality() {
    let minute = |measured: &[(Metric, u32)]| Minute {
        available_seconds: 60,
        measured: measured.iter().copied().collect(),
    };
    let good = minute(&[(Metric::FrameRate, 990), (Metric::ClickToPhoton, 50)]);
    assert_eq!(minute_quality(ServiceKind::Stream, &good), Ppm::ONE);
    let late = minute(&[(Metric::ClickToPhoton, 180)]);
    assert_eq!(minute_quality(ServiceKind::Stream, &late), Ppm::new(500_000));
    let frozen = minute(&[(Metric::FrameRate, 990), (Metric::Freezes, 6_000)]);
    assert_eq!(minute_quality(ServiceKind::Stream, &frozen), Ppm::ZERO);
    let half = Minute { available_seconds: 30, ..good };
    assert_eq!(minute_quality(ServiceKind::Stream, &half), Ppm::new(500_000));
    let slow = minute(&[(Metric::FirstToken, 2_650), (Metric::Tokens, 900)]);
    assert_eq!(minute_quality(ServiceKind::Inference, &slow), Ppm::new(707_107));
    assert_eq!(minute_quality(ServiceKind::Job, &minute(&[])), Ppm::ONE);
}

/// Rows of the document's table whose head begins with these words.
fn rows<'a>(page: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(head));
    let table = lines.take_while(|line| line.starts_with('|')).skip(2);
    table.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_document_says_what_the_code_does() {
    let page = include_str!("../../../../docs/reference/evaluation.md");
    assert!(page.contains(&format!("Edition {VERSION}.")));
    let documented: Vec<_> = rows(page, "| dimension |")
        .iter()
        .map(|row| (row[0].to_owned(), row[1].to_owned(), row[2].to_owned()))
        .collect();
    let own = DIMENSIONS.map(|rule| {
        (rule.name.to_owned(), rule.weight.to_string(), rule.half_life_days.to_string())
    });
    assert_eq!(documented, own);
    assert_eq!(DIMENSIONS.iter().map(|rule| rule.weight).sum::<u32>(), 100);
    let documented: Vec<_> =
        rows(page, "| grade |").iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    let own =
        GRADES.map(|(grade, least)| (format!("{grade:?}"), (least.ppm() / 10_000).to_string()));
    assert_eq!(documented, own);
    let documented: Vec<Vec<String>> = rows(page, "| kind |")
        .iter()
        .map(|row| row[..5].iter().map(|cell| (*cell).to_owned()).collect())
        .collect();
    let own = METRICS.map(|metric| {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let numbers = [metric.good, metric.bad, metric.weight].map(|number| number.to_string());
        [vec![kind, metric.name.to_owned()], numbers.to_vec()].concat()
    });
    assert_eq!(documented, own);
    for kind in [ServiceKind::Stream, ServiceKind::Inference, ServiceKind::Job] {
        let weights = METRICS.iter().filter(|metric| metric.kind == kind).map(|m| m.weight);
        assert_eq!(weights.sum::<u32>(), 100);
    }
    let most = PAYER_WEIGHT_MAX / WHOLE;
    let far = OUTLIER.ppm() / 10_000;
    assert_eq!(Z_SQUARED_PPM, 196 * 196 * 100);
    for text in [
        format!("√(fees for the container in the epoch in USD), at most {most};"),
        format!("begins with {}.{} of a good", PRIOR_PPM / WHOLE, PRIOR_PPM / 10_000),
        format!("the median of up to {MEDIAN_MAX}, of more the mean without {TRIM_PERCENT} %"),
        format!("more than {far} % from what was agreed"),
        "z = 1.96".to_owned(),
        format!("at most {} %", LEARN_STEP_BP / 100),
        format!("{BAND} spreads below its centre"),
        format!("above {} % or below {} %", BAND_PERMILLE.end / 10, BAND_PERMILLE.start / 10),
    ] {
        assert!(page.contains(&text), "{text}");
    }
}
