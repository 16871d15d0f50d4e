//! Reserved: what a host keeps for one buyer for a term.

use serde::{Deserialize, Serialize};
use welkin_proto::ReservedTerms;
use welkin_types::task::Span;
use welkin_types::{BasisPoints, Price, Usd};

/// At which price and for which terms a host keeps a container for one buyer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReservedConfig {
    /// What an hour costs: US dollars as "0.03", or a share of the price on demand as "80%".
    pub price: String,
    /// The shortest term, as "1h".
    pub term_min: String,
    /// The longest term, as "30d".
    pub term_max: String,
    /// How late a payment may be before the reservation ends, as "30m".
    pub grace: String,
}

impl Default for ReservedConfig {
    fn default() -> Self {
        let text = str::to_owned;
        Self { price: text("80%"), term_min: text("1h"), term_max: text("30d"), grace: text("30m") }
    }
}

impl ReservedConfig {
    /// The reserved terms of a container with this price on demand.
    ///
    /// # Errors
    ///
    /// A sentence that names the key and says what is wrong with it.
    pub fn terms(&self, on_demand: Price) -> Result<ReservedTerms, String> {
        let range = ReservedTerms::TERM_SECONDS;
        let (shortest, longest) = (*range.start(), *range.end());
        let term_seconds_min = seconds("term_min", &self.term_min, shortest, longest)?;
        let term_seconds_max = seconds("term_max", &self.term_max, shortest, longest)?;
        if term_seconds_min > term_seconds_max {
            return Err(format!(
                "`host.reserved.term_min` is {}, longer than `host.reserved.term_max`, {}: no term \
                 would do",
                self.term_min, self.term_max
            ));
        }
        let range = ReservedTerms::GRACE_SECONDS;
        let (least, most) = (u32::from(*range.start()), u32::from(*range.end()));
        let grace = seconds("grace", &self.grace, least, most)?;
        let price = price_of("host.reserved.price", &self.price, on_demand)?;
        if price > on_demand {
            return Err(format!(
                "`host.reserved.price` makes it {price}, which is above {on_demand} on demand: \
                 nobody would take it; lower it, or leave [host.reserved] out"
            ));
        }
        let grace_seconds = u16::try_from(grace).unwrap_or(*range.end());
        Ok(ReservedTerms { price, term_seconds_min, term_seconds_max, grace_seconds })
    }
}

fn seconds(key: &str, text: &str, least: u32, most: u32) -> Result<u32, String> {
    let span: Span = text.parse().map_err(|error| format!("`host.reserved.{key}`: {error}"))?;
    if !(least..=most).contains(&span.seconds()) {
        return Err(format!(
            "`host.reserved.{key}` is {text}: set it to {} to {}",
            Span::from_seconds(least),
            Span::from_seconds(most)
        ));
    }
    Ok(span.seconds())
}

/// A price as settings have it: US dollars an hour, or a share of the price on demand, at most all.
pub(super) fn price_of(key: &str, text: &str, on_demand: Price) -> Result<Price, String> {
    let wrong = |why: String| format!("`{key}`: {why}");
    let Some(percent) = text.strip_suffix('%') else {
        let usd: Usd = text.parse().map_err(|error| wrong(format!("{error}")))?;
        return Ok(Price::per_hour(usd));
    };
    let percent: Option<u16> = percent.trim().parse().ok().filter(|percent| *percent <= 100);
    let share = percent.and_then(|percent| BasisPoints::new(percent * 100));
    let share = share.ok_or_else(|| {
        wrong(format!("`{text}` is not a share of at most 100%; write it like 60%"))
    })?;
    Ok(Price::per_hour(on_demand.hour().split(share).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(change: impl FnOnce(&mut ReservedConfig)) -> Result<ReservedTerms, String> {
        let mut config = ReservedConfig::default();
        change(&mut config);
        config.terms(Price::per_hour("0.05".parse().unwrap()))
    }

    #[test]
    fn terms_are_read_and_what_is_wrong_is_named() {
        let usual = terms(|_| ()).unwrap();
        assert_eq!(usual.price.hour().micros(), 40_000);
        assert_eq!((usual.term_seconds_min, usual.term_seconds_max), (3_600, 2_592_000));
        assert_eq!(usual.grace_seconds, 1_800);
        let whole = terms(|config| config.price = "100%".to_owned()).unwrap();
        assert_eq!(whole.price.hour().micros(), 50_000, "as much as on demand will do");
        let text = str::to_owned;
        for (expected, wrong) in [
            (
                "`host.reserved.price` makes it",
                ReservedConfig { price: text("0.051"), ..default() },
            ),
            ("`host.reserved.price`: ", ReservedConfig { price: text("101%"), ..default() }),
            ("`host.reserved.price`: ", ReservedConfig { price: text("cheap"), ..default() }),
            (
                "`host.reserved.term_min` is 1s",
                ReservedConfig { term_min: text("1s"), ..default() },
            ),
            ("`host.reserved.term_min`: ", ReservedConfig { term_min: text("soon"), ..default() }),
            (
                "`host.reserved.term_max` is 31d",
                ReservedConfig { term_max: text("31d"), ..default() },
            ),
            ("longer than", ReservedConfig { term_max: text("10m"), ..default() }),
            ("`host.reserved.grace` is 2h", ReservedConfig { grace: text("2h"), ..default() }),
        ] {
            let why = terms(|config| *config = wrong.clone()).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    fn default() -> ReservedConfig {
        ReservedConfig::default()
    }
}
