//! `welkin rewards` and `welkin claim`: what was earned, and having it.

use alloy_primitives::U256;
use serde::Serialize;
use welkin_chain::ops::OpsError;
use welkin_chain::ops::rewards::{self, Grant, Proof};
use welkin_chain::{ath, refusals};

use crate::cli::{Claim, Rewards};
use crate::desk::Office;
use crate::{Context, Usage, out};

/// A claim as it is listed; sums in wei.
#[derive(Debug, Serialize)]
struct Row {
    stream: &'static str,
    number: U256,
    amount_wei: U256,
    released_wei: U256,
    due_wei: U256,
    /// In seconds since 1970.
    claimed_at: u64,
    next_at: Option<u64>,
}

/// A stream as it is listed; sums in wei.
#[derive(Debug, Serialize)]
struct Sums {
    stream: &'static str,
    /// By the totals of the named file; none without one.
    claimable_wei: Option<U256>,
    claimed_wei: U256,
    vesting_wei: U256,
    due_wei: U256,
    released_wei: U256,
    penalty_wei: U256,
    grants: Vec<Row>,
}

/// `welkin rewards`
pub(crate) async fn rewards(context: &Context, args: &Rewards) -> anyhow::Result<()> {
    let office = Office::open(context, &args.sending.who).await?;
    let result = show(context, &office, args).await;
    office.close().await;
    result
}

async fn show(context: &Context, office: &Office, args: &Rewards) -> anyhow::Result<()> {
    if args.release {
        let acts = rewards::release(&office.desk).await?;
        if acts.is_empty() && !context.is_quiet {
            out::note("nothing is due");
        }
        if office.carry_out(context, &args.sending, &acts).await?.is_none() {
            return Ok(());
        }
    }
    let now = office.desk.now().await?;
    let (epoch, _) = rewards::epoch(&office.desk).await?;
    let proofs = args.file.as_deref().map(rewards::read_proofs).transpose()?;
    let own = |proof: &&Proof| proof.account == office.desk.account() && proof.epoch == epoch;
    let mut all = Vec::new();
    for standing in rewards::standing(&office.desk).await? {
        let mut row = sums(&standing, now);
        row.claimable_wei = proofs.as_ref().map(|proofs| {
            let fitting = proofs.iter().filter(own).find(|it| it.stream == standing.stream);
            fitting.map_or(U256::ZERO, |it| it.total.saturating_sub(standing.claimed))
        });
        all.push(row);
    }
    if context.is_json {
        return out::json(&serde_json::json!({"epoch": epoch, "streams": all}));
    }
    let cells = |sums: &Sums| {
        vec![
            sums.stream.to_owned(),
            sums.claimable_wei.map_or_else(|| "?".to_owned(), ath::show),
            ath::show(sums.claimed_wei),
            ath::show(sums.vesting_wei),
            ath::show(sums.due_wei),
            ath::show(sums.released_wei),
            ath::show(sums.penalty_wei),
        ]
    };
    let rows: Vec<_> = all.iter().map(cells).collect();
    let head = ["STREAM", "CLAIMABLE", "CLAIMED", "VESTING", "DUE NOW", "PAID OUT", "PENALTY"];
    let mut text = format!("epoch {epoch} is the last that counts\n\n");
    text.push_str(&out::table(&head, &rows));
    let grants: Vec<_> = all.iter().flat_map(|sums| &sums.grants).map(grant_cells).collect();
    if !grants.is_empty() {
        let head = ["STREAM", "CLAIM", "AMOUNT", "PAID OUT", "DUE NOW", "NEXT"];
        text.push_str(&format!("\n{}", out::table(&head, &grants)));
    }
    out::text(&text)?;
    if !context.is_quiet && proofs.is_none() {
        out::note("what can be claimed stands in the published totals: name them with --file");
    }
    if !context.is_quiet && all.iter().any(|sums| !sums.due_wei.is_zero()) {
        out::note("`welkin rewards --release` takes what is due");
    }
    Ok(())
}

fn sums(standing: &rewards::Standing, now: u64) -> Sums {
    let stream = standing.stream.name();
    let due = standing.grants.iter().fold(U256::ZERO, |sum, grant| sum.saturating_add(grant.due));
    let row = |grant: &Grant| Row {
        stream,
        number: grant.number,
        amount_wei: grant.amount,
        released_wei: grant.released,
        due_wei: grant.due,
        claimed_at: grant.at,
        next_at: grant.next(now),
    };
    Sums {
        stream,
        claimable_wei: None,
        claimed_wei: standing.claimed,
        vesting_wei: standing.pending.saturating_sub(due),
        due_wei: due,
        released_wei: standing.granted.saturating_sub(standing.pending),
        penalty_wei: standing.debt,
        grants: standing.grants.iter().map(row).collect(),
    }
}

fn grant_cells(row: &Row) -> Vec<String> {
    vec![
        row.stream.to_owned(),
        row.number.to_string(),
        ath::show(row.amount_wei),
        ath::show(row.released_wei),
        ath::show(row.due_wei),
        row.next_at.map_or_else(|| "-".to_owned(), refusals::time),
    ]
}

/// `welkin claim`
pub(crate) async fn claim(context: &Context, args: &Claim) -> anyhow::Result<()> {
    let office = Office::open(context, &args.sending.who).await?;
    let result = claim_all(context, &office, args).await;
    office.close().await;
    result
}

async fn claim_all(context: &Context, office: &Office, args: &Claim) -> anyhow::Result<()> {
    let (present, root) = rewards::epoch(&office.desk).await?;
    if present == 0 || root.is_zero() {
        let why = "nothing can be claimed yet: no epoch counts so far";
        return Err(OpsError::unfit(why, "`welkin rewards` shows when there is one").into());
    }
    if let Some(epoch) = args.epoch
        && epoch != present
    {
        let text = format!("epoch {epoch} is not the present one, {present}");
        let hint = "totals count from the beginning: the present epoch has all before it in it";
        return Err(Usage::new(text, hint).into());
    }
    let Some(file) = &args.file else {
        let hint = "name the published totals with --file";
        return Err(Usage::new("the proofs are not known here", hint).into());
    };
    let proofs = rewards::read_proofs(file)?;
    let own = proofs.iter().any(|proof| proof.account == office.desk.account());
    let acts = rewards::claim(&office.desk, &proofs, args.fast).await?;
    if acts.is_empty() {
        out::note(if own {
            "all of it is claimed already"
        } else {
            "nothing is there for this account"
        });
    }
    if office.carry_out(context, &args.sending, &acts).await?.is_some()
        && !acts.is_empty()
        && !context.is_quiet
    {
        out::note("`welkin rewards` shows when it is paid out");
    }
    Ok(())
}
