//! `welkin checker assignments`: who checks what when, recomputed from what checkers have shown.

use std::collections::{BTreeMap, BTreeSet};

use welkin_check::epoch_of;
use welkin_check::sortition::{Committees, Lot};
use welkin_node::checker::COMMITTEE;
use welkin_node::outside;
use welkin_proto::Seating;
use welkin_proto::settle::EpochView;
use welkin_types::{ContainerId, NodeId};

use super::read;
use crate::cli::Assignments;
use crate::client::Client;
use crate::{Context, Usage, out};

/// The most rows that are shown.
const ROWS_MAX: usize = 10_000;
/// The most minutes that are looked at: more than any epoch of a month has.
const MINUTES_MAX: usize = 50_000;

/// One assignment.
#[derive(Debug, serde::Serialize)]
struct Row {
    minute: u64,
    /// In the minute; only once the checker has shown what it had drawn.
    second: Option<u8>,
    container: ContainerId,
    checker: NodeId,
    /// In which place it may stand in, from 0; none where it has drawn the container.
    stand_in: Option<u8>,
}

/// `welkin checker assignments`
pub(crate) async fn assignments(context: &Context, args: &Assignments) -> anyhow::Result<()> {
    let checker = args.checker.as_deref().map(str::parse::<NodeId>).transpose();
    let checker = checker.map_err(|error| Usage::new(format!("{error}"), "as --checker nod_…"))?;
    let only = args.container.as_deref().map(str::parse::<ContainerId>).transpose();
    let only = only.map_err(|error| Usage::new(format!("{error}"), "as --container ctr_…"))?;
    let Known { view, mut containers, lots } = known(context, args, only.is_none()).await?;
    containers.extend(only);
    let (epoch_seconds, checkers) = (view.epoch_seconds.max(1), view.nodes());
    let committees = Committees::new(&view, COMMITTEE);
    let is_of_epoch = |minute: u64| epoch_of(minute, epoch_seconds) == view.epoch;
    let first = view.epoch.saturating_mul(epoch_seconds).div_ceil(60);
    let minutes = match args.minute {
        Some(minute) if is_of_epoch(minute) => minute..=minute,
        Some(minute) => {
            let text = format!("minute {minute} is not in epoch {}", view.epoch);
            let hint = format!("its first minute is {first}");
            return Err(Usage::new(text, hint).into());
        }
        None => first..=first.saturating_add(epoch_seconds / 60),
    };
    let mut rows = Vec::new();
    for minute in minutes.take(MINUTES_MAX).filter(|minute| is_of_epoch(*minute)) {
        for container in &containers {
            let wanted = checkers.iter().filter(|one| checker.is_none_or(|it| it == **one));
            rows.extend(wanted.filter_map(|checker| {
                let lot = lots.get(&(minute, *checker));
                row(&committees, minute, *container, *checker, lot)
            }));
        }
        if rows.len() > ROWS_MAX {
            break;
        }
    }
    let is_cut = rows.len() > ROWS_MAX;
    rows.truncate(ROWS_MAX);
    show(context, &view, &rows)?;
    if is_cut && !context.is_quiet {
        out::note("more are left out: name a --minute, a --checker or a --container");
    }
    Ok(())
}

/// What a checker has to do with a container in a minute, as far as it is known.
fn row(
    committees: &Committees,
    minute: u64,
    container: ContainerId,
    checker: NodeId,
    lot: Option<&Lot>,
) -> Option<Row> {
    let (second, stand_in) = match committees.seating(checker, minute, container, lot) {
        Seating::Drawn => (lot.map(|lot| lot.second(container)), None),
        Seating::StandIn(rank) => (None, Some(rank)),
        Seating::Nobody => return None,
    };
    Some(Row { minute, second, container, checker, stand_in })
}

/// What is known of an epoch.
struct Known {
    view: EpochView,
    containers: BTreeSet<ContainerId>,
    /// What checkers have shown that they had drawn, by minute.
    lots: BTreeMap<(u64, NodeId), Lot>,
}

/// Seed and checkers of the epoch, and containers where none is named.
async fn known(
    context: &Context,
    args: &Assignments,
    wants_containers: bool,
) -> anyhow::Result<Known> {
    if let Some(file) = &args.from.evidence {
        let published = read(file)?;
        let lots = published.lots();
        let containers = published.gather().containers.into_keys();
        let containers = containers.filter(|_| wants_containers).collect();
        return Ok(Known { view: published.heading.view, containers, lots });
    }
    let client = Client::open(context).await?;
    let asked = async {
        let first = client.buyer.settle().epoch(0).await?;
        let present = outside::now().0 / 1_000 / first.epoch_seconds.max(1);
        let view = client.buyer.settle().epoch(args.from.epoch.unwrap_or(present)).await?;
        let rows = if wants_containers { client.buyer.offers(None).await? } else { Vec::new() };
        let containers = rows.into_iter().map(|row| row.container.id).collect();
        // Without what was shown it is still known who may stand in.
        let collected = client.buyer.evidence(view.clone()).await.ok();
        let lots = collected.map(|collected| collected.published.lots()).unwrap_or_default();
        anyhow::Ok(Known { view, containers, lots })
    };
    let asked = asked.await;
    client.close().await;
    asked
}

/// Why it is not said when.
fn unknown(row: &Row) -> String {
    match row.stand_in {
        Some(rank) => format!("stands in as {}", u16::from(rank) + 1),
        None => "not shown".to_owned(),
    }
}

fn show(context: &Context, view: &EpochView, rows: &[Row]) -> anyhow::Result<()> {
    if context.is_json {
        return rows.iter().try_for_each(out::json);
    }
    let cells = |row: &Row| {
        let second = row.second.map(u64::from);
        let at = second.map(|second| row.minute.saturating_mul(60).saturating_add(second));
        let at = at.map_or_else(|| unknown(row), welkin_chain::refusals::time);
        vec![row.minute.to_string(), at, row.container.to_string(), row.checker.to_string()]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let head = format!(
        "epoch {}, {} checkers, seed {}\n\n",
        view.epoch,
        view.checkers.len(),
        super::hex(&view.seed)
    );
    out::text(&(head + &out::table(&["MINUTE", "PROBE AT", "CONTAINER", "CHECKER"], &rows)))
}
