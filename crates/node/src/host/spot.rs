//! Spot: what a host leases cheaper, to be taken back with a notice.

use serde::{Deserialize, Serialize};
use welkin_proto::SpotTerms;
use welkin_types::Price;

use super::reserved::price_of;

/// At which price and with what notice a host leases what is free as spot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpotConfig {
    /// What an hour costs: US dollars as "0.02", or a share of the price on demand as "60%".
    pub price: String,
    /// How long a spot lease goes on when its container is taken back, in seconds.
    pub notice_seconds: u16,
}

impl Default for SpotConfig {
    fn default() -> Self {
        Self { price: "50%".to_owned(), notice_seconds: 30 }
    }
}

impl SpotConfig {
    /// The spot terms of a container with this price on demand.
    ///
    /// # Errors
    ///
    /// A sentence that names the key and says what is wrong with it.
    pub fn terms(&self, on_demand: Price) -> Result<SpotTerms, String> {
        let range = SpotTerms::NOTICE_SECONDS;
        if !range.contains(&self.notice_seconds) {
            return Err(format!(
                "`host.spot.notice_seconds` is {}: set it to {} to {}",
                self.notice_seconds,
                range.start(),
                range.end()
            ));
        }
        let price = price_of("host.spot.price", &self.price, on_demand)?;
        if price >= on_demand {
            return Err(format!(
                "`host.spot.price` makes it {price}, which is not below {on_demand} on demand: \
                 nobody would take it; lower it, or leave [host.spot] out"
            ));
        }
        Ok(SpotTerms { price, notice_seconds: self.notice_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(price: &str, notice_seconds: u16) -> Result<SpotTerms, String> {
        let config = SpotConfig { price: price.to_owned(), notice_seconds };
        config.terms(Price::per_hour("0.05".parse().unwrap()))
    }

    #[test]
    fn a_spot_price_is_below_the_price_on_demand() {
        for (text, micros) in [("60%", 30_000), ("0%", 0), ("0.049999", 49_999), ("$0.01", 10_000)]
        {
            let terms = terms(text, 30).unwrap();
            assert_eq!(terms.price.hour().micros(), micros, "{text}");
        }
        for text in ["0.05", "1", "100%", "-1%", "60 percent", "", "%", "6e1%", "99999999%"] {
            let why = terms(text, 30).unwrap_err();
            assert!(why.contains("`host.spot.price`"), "{text}: {why}");
        }
        for seconds in [0, 4, 601] {
            let why = terms("60%", seconds).unwrap_err();
            assert!(why.starts_with("`host.spot.notice_seconds` is"), "{why}");
        }
    }
}
