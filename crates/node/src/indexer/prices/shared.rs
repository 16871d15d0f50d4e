//! The price history in a directory, for indexers that share one: whoever leads next goes on with
//! it.

use std::sync::Arc;

use welkin_directory::{Change, PriceRow, Prices, Span as RowSpan};
use welkin_match::prices::{Record, SERIES_MAX, Series, chosen};
use welkin_proto::prices::{POINTS_MAX, PricePoint, Span, Spread};
use welkin_types::UnixMillis;

use super::{History, HistoryError, block_on};
use crate::indexer::directory::Directory;

/// A history in a directory. Points are written soon, in batches; they are read as they are
/// written.
#[derive(Debug)]
pub(super) struct InDirectory(pub(super) Arc<dyn Directory>);

impl History for InDirectory {
    fn append(&self, records: &[Record]) -> Result<(), HistoryError> {
        // What a database does not take it tells itself, and mends by the next sample.
        records.iter().for_each(|record| self.0.put(Change::Price(row(record))));
        Ok(())
    }

    fn read(
        &self,
        now: UnixMillis,
        series: &Series,
        span: Span,
        since: UnixMillis,
    ) -> Result<Vec<PricePoint>, HistoryError> {
        // What is older is not kept, and the rest is no more than may be read.
        let kept = UnixMillis(now.0.saturating_sub(span.ms() * span.kept()));
        let since = span.begin(since.max(kept));
        let (class, region) = (series.class.to_string(), region_of(series));
        let place = (class.as_str(), region.as_str());
        let rows = block_on(self.0.load_prices(place, row_span(span), since, POINTS_MAX + 1));
        let rows = rows.map_err(HistoryError::Directory)?;
        Ok(chosen(rows.iter().map(point).collect(), now, span, since))
    }

    fn series(&self) -> Result<Vec<Series>, HistoryError> {
        let places = block_on(self.0.load_price_places(SERIES_MAX));
        let places = places.map_err(HistoryError::Directory)?;
        let named = places.iter().filter_map(|(class, region)| {
            let region = match region.as_str() {
                "" => None,
                region => Some(region.parse().ok()?),
            };
            Some(Series { class: class.parse().ok()?, region })
        });
        let mut series: Vec<_> = named.collect();
        series.sort_unstable();
        Ok(series)
    }
}

/// The region of a row: empty for all together, as no region is.
fn region_of(series: &Series) -> String {
    series.region.as_ref().map_or_else(String::new, ToString::to_string)
}

const fn row_span(span: Span) -> RowSpan {
    match span {
        Span::Minute => RowSpan::Minute,
        Span::Hour => RowSpan::Hour,
        Span::Day => RowSpan::Day,
    }
}

fn row(record: &Record) -> PriceRow {
    let Record { series, span, point } = record;
    let prices = |spread: Spread| {
        let Spread { min, median, max } = spread;
        Prices { min, median, max }
    };
    PriceRow {
        class: series.class.to_string(),
        region: region_of(series),
        span: row_span(*span),
        at: point.at,
        on_demand: point.on_demand.map(prices),
        spot: point.spot.map(prices),
        free: point.free,
        total: point.total,
    }
}

fn point(row: &PriceRow) -> PricePoint {
    let spread = |prices: Prices| {
        let Prices { min, median, max } = prices;
        Spread { min, median, max }
    };
    PricePoint {
        at: row.at,
        on_demand: row.on_demand.map(spread),
        spot: row.spot.map(spread),
        free: row.free,
        total: row.total,
    }
}
