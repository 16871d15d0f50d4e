//! `welkin chain`: how the chain and the contracts on it stand, and setting them up.

mod deploy;

use alloy_primitives::{Address, U64, U256, uint};
use serde::Serialize;
use serde_json::json;
use welkin_chain::contracts::MedianOracle;
use welkin_chain::deployment::{Contract, Places};
use welkin_chain::ops::verify::{self, Finding};
use welkin_chain::ops::{Act, Desk, OpsError, calls};
use welkin_chain::refusals;
use welkin_node::outside;
use welkin_types::Usd;

use crate::cli::{Chain, ChainCommand, Look, Sending};
use crate::desk::Office;
use crate::{Context, Quit, Usage, out};

/// A micro-dollar in the oracle's units, of which a dollar has 10^18.
const MICROS: U256 = uint!(1_000_000_000_000_U256);

/// `welkin chain`
pub(crate) async fn chain(context: &Context, args: &Chain) -> anyhow::Result<()> {
    match &args.command {
        ChainCommand::Deploy(args) => deploy::deploy(context, args).await,
        ChainCommand::Status(look) => {
            let office = Office::of_file(context, look).await?;
            let result = status(context, &office).await;
            office.close().await;
            result
        }
        ChainCommand::Verify(look) => verify(context, look).await,
        ChainCommand::Price { usd, sending } => {
            let price: Usd = usd.parse().map_err(|error: welkin_types::MoneyError| {
                Usage::new(error.to_string(), "for example `welkin chain price 0.05`")
            })?;
            let value = U256::from(price.micros()).saturating_mul(MICROS);
            let office = Office::open(context, &sending.who).await?;
            let what = format!("report a price of {price} for an ATH");
            let call = MedianOracle::reportCall { value };
            let act = office.desk.act(what, Contract::Oracle, &call)?;
            finish(context, office, sending, &[act]).await
        }
        ChainCommand::Send { calls, sending } => {
            let office = Office::open(context, &sending.who).await?;
            let mut acts = Vec::new();
            for text in calls {
                let (contract, input) = calls::parse(text).map_err(|error| {
                    Usage::new(welkin_node::chain(&error), "such as 'escrow.pause(3600)'")
                })?;
                let to = office.desk.place(contract)?;
                let what = calls::show(&office.desk.deployment().contracts, to, &input);
                acts.push(Act { what: format!("call {what}"), to, input });
            }
            finish(context, office, sending, &acts).await
        }
    }
}

async fn finish(
    context: &Context,
    office: Office,
    sending: &Sending,
    acts: &[Act],
) -> anyhow::Result<()> {
    let done = office.carry_out(context, sending, acts).await;
    office.close().await;
    done.map(drop)
}

/// How the chain stands.
#[derive(Debug, Serialize)]
struct Status {
    chain_id: u64,
    /// Whether it is the chain that the network is on.
    is_right_chain: bool,
    head: u64,
    head_hash: String,
    head_seconds: u64,
    head_age_seconds: u64,
    /// In micro-dollars; none where it is too old.
    ath_price_micros: Option<u64>,
    price_seconds: u64,
    price_problem: Option<String>,
    account: Address,
    coins_wei: U256,
    transactions: u64,
    pending: u64,
    contracts: Places,
}

async fn status(context: &Context, office: &Office) -> anyhow::Result<()> {
    let status = look(&office.desk).await?;
    if context.is_json {
        out::json(&status)?;
    } else {
        out::text(&status_text(&status))?;
    }
    if status.is_right_chain {
        return Ok(());
    }
    let expected = office.desk.deployment().chain_id;
    Err(OpsError::unfit(
        format!("the node is one of chain {}, the network is on {expected}", status.chain_id),
        "name a node of the right chain (`chain.rpc`)",
    )
    .into())
}

async fn look(desk: &Desk) -> Result<Status, OpsError> {
    let of = |error| OpsError::of("look at the chain", error);
    let (rpc, account) = (desk.rpc(), desk.account());
    let chain_id = rpc.chain_id().await.map_err(of)?;
    let is_right_chain = chain_id == desk.deployment().chain_id;
    let head = rpc.head().await.map_err(of)?;
    let transactions = rpc.nonce(account).await.map_err(of)?;
    let params = json!([account, "pending"]);
    let with_pending = rpc.ask::<U64>("eth_getTransactionCount", params).await.map_err(of)?;
    let (price, problem) = if is_right_chain {
        match desk.look(Contract::Oracle, MedianOracle::priceAtCall {}).await {
            Ok(price) => (Some(price), None),
            Err(error) => (None, Some(welkin_node::chain(&error))),
        }
    } else {
        (None, Some("it is another chain".to_owned()))
    };
    let head_seconds = head.timestamp.to();
    Ok(Status {
        chain_id,
        is_right_chain,
        head: head.number.to(),
        head_hash: head.hash.to_string(),
        head_seconds,
        head_age_seconds: (outside::now().0 / 1_000).saturating_sub(head_seconds),
        ath_price_micros: price.as_ref().map(|price| (price._0 / MICROS).saturating_to()),
        price_seconds: price.as_ref().map_or(0, |price| price._1.saturating_to()),
        price_problem: problem,
        account,
        coins_wei: rpc.coins(account).await.map_err(of)?,
        transactions,
        pending: with_pending.to::<u64>().saturating_sub(transactions),
        contracts: desk.deployment().contracts,
    })
}

fn status_text(status: &Status) -> String {
    let ago = |seconds: u64| out::duration(std::time::Duration::from_secs(seconds));
    let now = outside::now().0 / 1_000;
    let price = match (status.ath_price_micros, &status.price_problem) {
        (Some(micros), _) => format!(
            "{} for an ATH, set {} ago",
            Usd::from_micros(micros),
            ago(now.saturating_sub(status.price_seconds))
        ),
        (None, problem) => format!("none: {}", problem.as_deref().unwrap_or("not known")),
    };
    let chain = if status.is_right_chain { "" } else { "  NOT the network's" };
    let (head, age) = (status.head, ago(status.head_age_seconds));
    let coins = welkin_chain::ath::show(status.coins_wei);
    let coins = coins.trim_end_matches(" ATH");
    let mut lines = vec![
        ("chain", format!("{}{chain}", status.chain_id)),
        ("head", format!("block {head}, {age} old ({})", refusals::time(status.head_seconds))),
        ("price", price),
        ("account", status.account.to_string()),
        ("coins", format!("{coins} for gas")),
        ("sent", format!("{} transactions, {} pending", status.transactions, status.pending)),
    ];
    for (contract, place) in status.contracts.each() {
        lines.push((contract.name(), place.to_string()));
    }
    lines.iter().map(|(label, value)| format!("{label:<11} {value}\n")).collect()
}

async fn verify(context: &Context, look: &Look) -> anyhow::Result<()> {
    let office = Office::of_file(context, look).await?;
    let found = verify::verify(&office.desk).await;
    office.close().await;
    findings(context, &found?)
}

/// Shows what was found; fails where something is wrong.
fn findings(context: &Context, found: &[Finding]) -> anyhow::Result<()> {
    let wrong = found.iter().filter(|finding| finding.wrong.is_some()).count();
    if context.is_json {
        let all: Vec<_> = found
            .iter()
            .map(|finding| json!({"about": finding.about, "wrong": finding.wrong}))
            .collect();
        out::json(&json!({"is_right": wrong == 0, "wrong": wrong, "looked_at": all}))?;
    } else {
        for finding in found {
            match &finding.wrong {
                Some(why) => out::text(&format!("WRONG  {}: {why}\n", finding.about))?,
                None if context.is_quiet => (),
                None => out::text(&format!("right  {}\n", finding.about))?,
            }
        }
        let count = found.len();
        out::note(&match wrong {
            0 => format!("all {count} are right"),
            _ => format!("{wrong} of {count} are WRONG: do not use these contracts"),
        });
    }
    if wrong == 0 { Ok(()) } else { Err(Quit(1).into()) }
}
