//! `welkin licence`: checkers' licences, bought, lent and listed.

use std::path::Path;

use alloy_primitives::{Address, U256};
use anyhow::Context as _;
use serde_json::json;
use welkin_chain::ops::licence::{self, ListProof};
use welkin_chain::{ath, refusals};
use welkin_types::Usd;

use crate::cli::{Licence, LicenceCommand, Sending};
use crate::desk::{self, Office};
use crate::{Context, Usage, out};

/// The longest proof that is read, in bytes.
const PROOF_BYTES_MAX: u64 = 64 << 10;

/// `welkin licence`
pub(crate) async fn licence(context: &Context, args: &Licence) -> anyhow::Result<()> {
    match &args.command {
        LicenceCommand::Buy { tier, count, max_cost, proof, sending } => {
            let office = Office::open(context, &sending.who).await?;
            let wish = Wish { tier: *tier, count: *count, max_cost: max_cost.as_deref() };
            let result = buy(context, &office, &wish, proof.as_deref(), sending).await;
            office.close().await;
            result
        }
        LicenceCommand::Delegate { id, address, days, sending } => {
            let office = Office::open(context, &sending.who).await?;
            let result = delegate(context, &office, id, address, *days, sending).await;
            office.close().await;
            result
        }
        LicenceCommand::List(look) => {
            let office = Office::open(context, &look.who).await?;
            let result = list(context, &office).await;
            office.close().await;
            result
        }
    }
}

struct Wish<'a> {
    tier: usize,
    count: u64,
    max_cost: Option<&'a str>,
}

async fn buy(
    context: &Context,
    office: &Office,
    wish: &Wish<'_>,
    proof: Option<&Path>,
    sending: &Sending,
) -> anyhow::Result<()> {
    let Wish { tier, count, max_cost } = *wish;
    let proof = proof.map_or_else(|| Ok(ListProof::default()), read_proof)?;
    let most = match max_cost {
        Some(text) => {
            let plain = text.to_ascii_uppercase();
            let plain = plain.strip_suffix("ATH").unwrap_or(&plain);
            ath::parse(plain).map_err(|error| Usage::new(error.to_string(), ""))?
        }
        // The price of ATH may move until the purchase is in a block.
        None => {
            let cost = licence::cost(&office.desk, tier, count).await?;
            cost.saturating_add(cost / U256::from(50))
        }
    };
    let acts = licence::buy(&office.desk, tier, count, most, &proof).await?;
    if office.carry_out(context, sending, &acts).await?.is_some() {
        list(context, office).await?;
    }
    Ok(())
}

fn read_proof(path: &Path) -> anyhow::Result<ListProof> {
    let failed = || format!("failed to read the proof in {}", path.display());
    let length = std::fs::metadata(path).with_context(failed)?.len();
    if length > PROOF_BYTES_MAX {
        return Err(Usage::new(format!("{} is too large for a proof", path.display()), "").into());
    }
    let bytes = std::fs::read(path).with_context(failed)?;
    serde_json::from_slice(&bytes).with_context(failed)
}

async fn delegate(
    context: &Context,
    office: &Office,
    id: &str,
    to: &str,
    days: u64,
    sending: &Sending,
) -> anyhow::Result<()> {
    let id: U256 = id.parse().map_err(|_| {
        Usage::new(format!("`{id}` is no licence's number"), "`welkin licence list` shows yours")
    })?;
    let user = if to == "nobody" { Address::ZERO } else { desk::address("the account", to)? };
    let now = office.desk.now().await?.max(welkin_node::outside::now().0 / 1_000);
    let until = if user.is_zero() { 0 } else { now.saturating_add(days.saturating_mul(86_400)) };
    let act = licence::delegate(&office.desk, id, user, until).await?;
    office.carry_out(context, sending, &[act]).await.map(drop)
}

async fn list(context: &Context, office: &Office) -> anyhow::Result<()> {
    let tiers = licence::tiers(&office.desk).await?;
    let licences = licence::list(&office.desk).await?;
    if context.is_json {
        for tier in &tiers {
            out::json(&json!({
                "kind": "tier", "tier": tier.number, "price_micros": tier.price_micros,
                "left": tier.left, "for_account": tier.for_account, "opens": tier.opens,
                "has_list": tier.has_list,
            }))?;
        }
        return licences.iter().try_for_each(|licence| {
            out::json(&json!({
                "kind": "licence", "licence": licence.number, "owner": licence.owner,
                "runner": licence.runner, "until": licence.until, "standing": licence.standing,
            }))
        });
    }
    let mut text = String::new();
    let rows: Vec<_> = tiers.iter().map(tier_cells).collect();
    text.push_str(&out::table(&["TIER", "PRICE", "LEFT", "FOR YOU", "OPENS"], &rows));
    if licences.is_empty() {
        out::text(&text)?;
        out::note("this account owns and runs no licences: `welkin licence buy` buys one");
        return Ok(());
    }
    let rows: Vec<_> = licences
        .iter()
        .map(|licence| {
            let until = match licence.until {
                0 => "-".to_owned(),
                at => refusals::time(at),
            };
            vec![
                licence.number.to_string(),
                licence.standing.to_owned(),
                licence.owner.to_string(),
                licence.runner.to_string(),
                until,
            ]
        })
        .collect();
    let head = ["LICENCE", "STANDING", "OWNER", "RUNS IT", "UNTIL"];
    text.push_str(&format!("\n{}", out::table(&head, &rows)));
    out::text(&text)
}

fn tier_cells(tier: &licence::Tier) -> Vec<String> {
    let opens = if tier.opens == 0 { "open".to_owned() } else { refusals::time(tier.opens) };
    let for_account =
        if tier.has_list { "by the list".to_owned() } else { tier.for_account.to_string() };
    vec![
        tier.number.to_string(),
        Usd::from_micros(tier.price_micros).to_string(),
        tier.left.to_string(),
        for_account,
        opens,
    ]
}
