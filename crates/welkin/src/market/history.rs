//! `welkin offers --history`: what a class has cost.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use welkin_node::outside;
use welkin_proto::prices::{PricePoint, PricesAsked, Span, Spread};
use welkin_types::{Class, Region, UnixMillis, Usd};

use super::flag;
use crate::client::Client;
use crate::{Context, Usage, cli, out, task};

/// Rows of the table; more are drawn together.
const ROWS_MAX: usize = 24;
/// Columns of the curve.
const COLUMNS_MAX: usize = 60;
/// The levels of the curve.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One point as it is printed for machines; money in millionths of a dollar an hour.
#[derive(Debug, Serialize)]
struct Row<'a> {
    class: &'a Class,
    region: Option<&'a Region>,
    span: Span,
    #[serde(flatten)]
    point: PricePoint,
}

/// Shows what a class has cost.
pub(super) async fn history(
    context: &Context,
    args: &cli::Offers,
    class: &str,
) -> anyhow::Result<()> {
    let class: Class = class.parse().map_err(|error| {
        Usage::new(format!("--history: {error}"), "`welkin offers` shows the classes there are")
    })?;
    if args.region.len() > 1 {
        let hint = "leave --region out for all regions together";
        return Err(Usage::new("--history is of one region, or of all", hint).into());
    }
    let region = flag::<Region>("region", args.region.first())?;
    let since = task::duration("since", &args.since)?;
    let span = span_of(since);
    let now = outside::now();
    let asked = PricesAsked {
        class: class.clone(),
        region: region.clone(),
        span,
        since: UnixMillis(now.0.saturating_sub(u64::try_from(since.as_millis())?)),
    };
    let client = Client::open(context).await?;
    let points = client.buyer.prices(asked).await;
    client.close().await;
    let points = points?;
    if context.is_json {
        let row = |point: &PricePoint| Row {
            class: &class,
            region: region.as_ref(),
            span,
            point: *point,
        };
        return points.iter().try_for_each(|point| out::json(&row(point)));
    }
    if points.is_empty() {
        let place = region.map_or_else(String::new, |region| format!(" in {region}"));
        out::note(&format!(
            "nothing is known of what {class}{place} cost in the last {}; `welkin offers` shows the \
             classes there are",
            out::duration(since)
        ));
        return Ok(());
    }
    out::text(&text(&class, region.as_ref(), span, &points))
}

/// The finest span of which so much is kept.
fn span_of(since: Duration) -> Span {
    match since.as_secs() {
        0..=10_800 => Span::Minute,
        10_801..=691_200 => Span::Hour,
        _ => Span::Day,
    }
}

fn text(class: &Class, region: Option<&Region>, span: Span, points: &[PricePoint]) -> String {
    let place = region.map_or_else(|| "in all regions".to_owned(), |region| format!("in {region}"));
    let mut text = format!("{class} {place}, on demand, median an hour by the {}\n", span.as_str());
    let medians: Vec<_> = fewer(points, COLUMNS_MAX);
    let medians: Vec<_> =
        medians.iter().map(|point| point.on_demand.map(|spread| spread.median)).collect();
    let known = || medians.iter().flatten();
    if let (Some(least), Some(most)) = (known().min(), known().max()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{least} {} {most}\n", curve(&medians, *least, *most));
    }
    let head = ["TIME", "MIN", "MEDIAN", "MAX", "SPOT", "FREE"];
    let cells = |point: &PricePoint| {
        let of = |part: fn(Spread) -> Usd| {
            point.on_demand.map_or_else(|| "-".to_owned(), |spread| part(spread).to_string())
        };
        vec![
            moment(point.at, span),
            of(|spread| spread.min),
            of(|spread| spread.median),
            of(|spread| spread.max),
            point.spot.map_or_else(|| "-".to_owned(), |spread| spread.median.to_string()),
            format!("{}/{}", point.free, point.total),
        ]
    };
    let rows = fewer(points, ROWS_MAX);
    text + &out::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// At most so many points: neighbours together.
fn fewer(points: &[PricePoint], most: usize) -> Vec<PricePoint> {
    let size = points.len().div_ceil(most).max(1);
    points.chunks(size).filter_map(|part| PricePoint::of(part.first()?.at, part)).collect()
}

/// A curve of one line; a gap where nothing is known.
fn curve(values: &[Option<Usd>], least: Usd, most: Usd) -> String {
    let range = most.micros().saturating_sub(least.micros()).max(1);
    let level = |value: Usd| {
        let above = value.micros().saturating_sub(least.micros());
        let level = usize::try_from(above.saturating_mul(7) / range).unwrap_or(7);
        LEVELS.get(level).copied().unwrap_or('█')
    };
    values.iter().map(|value| value.map_or(' ', level)).collect()
}

/// The beginning of a span, in UTC.
fn moment(at: UnixMillis, span: Span) -> String {
    let length = match span {
        Span::Minute | Span::Hour => 16,
        Span::Day => 10,
    };
    at.to_string().replace('T', " ").chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(hour: u64, median: u64) -> PricePoint {
        let usd = Usd::from_micros;
        let spread =
            Spread { min: usd(median - 10_000), median: usd(median), max: usd(median + 50_000) };
        PricePoint {
            at: UnixMillis(1_795_236_000_000 + hour * 3_600_000),
            on_demand: Some(spread),
            spot: None,
            free: 3,
            total: 8,
        }
    }

    #[test]
    fn a_history_reads_well() {
        let points: Vec<_> = [400_000, 420_000, 450_000, 430_000]
            .into_iter()
            .zip(0..)
            .map(|(m, h)| point(h, m))
            .collect();
        let (class, region) = ("rtx4090-24".parse().unwrap(), "eu".parse().unwrap());
        insta::assert_snapshot!(text(&class, Some(&region), Span::Hour, &points), @r"
        rtx4090-24 in eu, on demand, median an hour by the hour
        $0.40 ▁▃█▅ $0.45

        TIME              MIN    MEDIAN  MAX    SPOT  FREE
        2026-11-21 04:40  $0.39  $0.40   $0.45  -     3/8
        2026-11-21 05:40  $0.41  $0.42   $0.47  -     3/8
        2026-11-21 06:40  $0.44  $0.45   $0.50  -     3/8
        2026-11-21 07:40  $0.42  $0.43   $0.48  -     3/8
        ");
    }

    #[test]
    fn many_points_are_drawn_together() {
        let points: Vec<_> = (0..168).map(|hour| point(hour, 400_000 + hour)).collect();
        assert_eq!(fewer(&points, ROWS_MAX).len(), 24);
        assert_eq!(fewer(&points[..3], ROWS_MAX), &points[..3]);
        assert_eq!(span_of(Duration::from_secs(7 * 86_400)), Span::Hour);
    }
}
