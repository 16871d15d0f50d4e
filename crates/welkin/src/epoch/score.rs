//! `welkin score explain`: a container's score from the evidence of several epochs.

use welkin_check::score::{Card, DIMENSIONS, Dimension};
use welkin_node::epoch::{Observation, observations};
use welkin_node::outside;
use welkin_types::ContainerId;

use super::{collect, read};
use crate::cli::{Score, ScoreCommand, ScoreExplain};
use crate::client::Client;
use crate::{Context, Usage, out};

/// The most epochs that are asked for.
const EPOCHS_MAX: u64 = 256;

/// `welkin score`
pub(crate) async fn score(context: &Context, args: &Score) -> anyhow::Result<()> {
    let ScoreCommand::Explain(args) = &args.command;
    let container: ContainerId = args
        .container
        .parse()
        .map_err(|error| Usage::new(format!("{error}"), "`welkin --json offers` shows ids"))?;
    let mut found = Vec::new();
    if args.evidence.is_empty() {
        found = from_indexers(context, args, container).await?;
    }
    for file in &args.evidence {
        found.extend(observations(&read(file)?.gather(), container));
    }
    found.sort_by_key(|observation| observation.at);
    if found.is_empty() {
        let text = format!("nothing is known of {container} in these epochs");
        return Err(Usage::new(text, "`welkin --json offers` shows what there is").into());
    }
    show(context, args, &found)
}

async fn from_indexers(
    context: &Context,
    args: &ScoreExplain,
    container: ContainerId,
) -> anyhow::Result<Vec<Observation>> {
    let client = Client::open(context).await?;
    let collected = async {
        let epoch_seconds = client.buyer.settle().epoch(0).await?.epoch_seconds.max(1);
        let present = outside::now().0 / 1_000 / epoch_seconds;
        let last = args.epoch.unwrap_or(present);
        let count = args.epochs.clamp(1, EPOCHS_MAX);
        let (mut found, mut failed) = (Vec::new(), None);
        for epoch in last.saturating_sub(count - 1)..=last {
            match collect(context, &client, Some(epoch)).await {
                Ok(published) => found.extend(observations(&published.gather(), container)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    };
    let collected = collected.await;
    client.close().await;
    collected
}

fn name(dimension: Dimension) -> &'static str {
    let rule = DIMENSIONS.iter().find(|rule| rule.dimension == dimension);
    rule.map_or("", |rule| rule.name)
}

fn show(context: &Context, args: &ScoreExplain, found: &[Observation]) -> anyhow::Result<()> {
    let mut card = Card::default();
    for seen in found {
        card.observe(seen.dimension, seen.at, seen.value, seen.weight_ppm);
    }
    // As of the last observation, so that the same evidence gives the same score.
    let at = found.last().map_or(0, |seen| seen.at);
    let explained = card.explain(at);
    if context.is_json {
        let lines: Vec<_> = explained
            .lines
            .iter()
            .map(|line| {
                serde_json::json!({
                    "dimension": line.rule.name,
                    "weight_percent": line.rule.weight,
                    "half_life_days": line.rule.half_life_days,
                    "count_milli": line.count_milli,
                    "mean_ppm": line.mean.ppm(),
                    "certain_ppm": line.lower.ppm(),
                })
            })
            .collect();
        let seen: Vec<_> = found.iter().map(data).collect();
        return out::json(&serde_json::json!({
            "container": args.container,
            "version": explained.version,
            "at": at,
            "score_ppm": explained.score.ppm(),
            "grade": format!("{:?}", explained.grade),
            "dimensions": lines,
            "observations": seen,
        }));
    }
    let mut text = format!("{explained}\n");
    if args.observations {
        let rows: Vec<_> = found
            .iter()
            .map(|seen| {
                let at = welkin_chain::refusals::time(seen.at);
                let weight =
                    format!("{}.{:06}", seen.weight_ppm / 1_000_000, seen.weight_ppm % 1_000_000);
                let (value, by) = (seen.value.to_string(), out::short(&seen.by));
                vec![at, name(seen.dimension).to_owned(), value, weight, by, seen.what.clone()]
            })
            .collect();
        text.push('\n');
        text.push_str(&out::table(&["AT", "OF", "VALUE", "WEIGHT", "BY", "FOUND"], &rows));
    }
    out::text(&text)?;
    if !context.is_quiet && !args.observations {
        out::note(&format!("of {} observations: --observations shows them", found.len()));
    }
    Ok(())
}

fn data(seen: &Observation) -> serde_json::Value {
    serde_json::json!({
        "at": seen.at,
        "dimension": name(seen.dimension),
        "value_ppm": seen.value.ppm(),
        "weight_ppm": seen.weight_ppm,
        "what": seen.what,
        "by": seen.by,
    })
}
