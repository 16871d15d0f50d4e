//! `welkin checker assignments`: who checks what when, recomputed from the public seed.

use std::collections::BTreeSet;

use welkin_check::{assignment, epoch_of, second_of_minute};
use welkin_node::checker::COMMITTEE;
use welkin_node::outside;
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
    /// In the minute.
    second: u8,
    container: ContainerId,
    checker: NodeId,
}

/// `welkin checker assignments`
pub(crate) async fn assignments(context: &Context, args: &Assignments) -> anyhow::Result<()> {
    let checker = args.checker.as_deref().map(str::parse::<NodeId>).transpose();
    let checker = checker.map_err(|error| Usage::new(format!("{error}"), "as --checker nod_…"))?;
    let only = args.container.as_deref().map(str::parse::<ContainerId>).transpose();
    let only = only.map_err(|error| Usage::new(format!("{error}"), "as --container ctr_…"))?;
    let (view, mut containers) = known(context, args, only.is_none()).await?;
    containers.extend(only);
    let epoch_seconds = view.epoch_seconds.max(1);
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
            let committee = assignment(&view.seed, minute, &view.checkers, *container, COMMITTEE);
            let wanted = committee.into_iter().filter(|one| checker.is_none_or(|it| it == *one));
            rows.extend(wanted.map(|checker| Row {
                minute,
                second: second_of_minute(&view.seed, minute, checker, *container),
                container: *container,
                checker,
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

/// Seed and checkers of the epoch, and containers where none is named.
async fn known(
    context: &Context,
    args: &Assignments,
    wants_containers: bool,
) -> anyhow::Result<(EpochView, BTreeSet<ContainerId>)> {
    if let Some(file) = &args.from.evidence {
        let published = read(file)?;
        let containers = published.gather().containers.into_keys();
        let containers = containers.filter(|_| wants_containers).collect();
        return Ok((published.heading.view, containers));
    }
    let client = Client::open(context).await?;
    let asked = async {
        let first = client.buyer.settle().epoch(0).await?;
        let present = outside::now().0 / 1_000 / first.epoch_seconds.max(1);
        let view = client.buyer.settle().epoch(args.from.epoch.unwrap_or(present)).await?;
        let rows = if wants_containers { client.buyer.offers(None).await? } else { Vec::new() };
        anyhow::Ok((view, rows.into_iter().map(|row| row.container.id).collect()))
    };
    let asked = asked.await;
    client.close().await;
    asked
}

fn show(context: &Context, view: &EpochView, rows: &[Row]) -> anyhow::Result<()> {
    if context.is_json {
        return rows.iter().try_for_each(out::json);
    }
    let cells = |row: &Row| {
        let seconds = row.minute.saturating_mul(60).saturating_add(u64::from(row.second));
        let at = welkin_chain::refusals::time(seconds);
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
