//! The account's money and what became of it: balance, test money, receipts.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use alloy_primitives::U256;
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use welkin_chain::deployment::Contract;
use welkin_chain::ops::{OpsError, escrow, typed_data};
use welkin_chain::{ath, refusals};
use welkin_node::buyer::{BuyerError, Home};
use welkin_proto::settle::AccountView;
use welkin_proto::{Receipt, ReceiptFile};
use welkin_types::{AccountId, Billing, LeaseId, LeaseState, UnixMillis, Usd};

use crate::client::{self, Client};
use crate::desk::{self, Office, Permission};
use crate::leases::exit_text;
use crate::market::size;
use crate::{Context, Quit, Usage, cli, out, withdraw};

mod reserved;

/// The largest receipt file that is read, in bytes.
const RECEIPT_BYTES_MAX: u64 = 1 << 20;

/// An account and how it stands; money in millionths of a dollar.
#[derive(Debug, Serialize)]
struct Account {
    account: AccountId,
    #[serde(flatten)]
    view: AccountView,
    #[serde(flatten)]
    purse: Option<Purse>,
}

/// Shows the account and its money.
pub(crate) async fn balance(context: &Context, args: &cli::Balance) -> anyhow::Result<()> {
    let client = Client::open(context).await?;
    let purse = purse(context, &args.who).await?;
    let account = AccountId::from_bytes(purse.account.0.0);
    if account == client.buyer.account() {
        release_lost(context, &client).await;
    }
    let view = client.buyer.settle().balance(account).await;
    client.close().await;
    account_out(context, &Account { account, view: view?, purse: Some(purse) })
}

/// What is outside of the escrow, or on its way there; sums in wei.
#[derive(Debug, Serialize)]
struct Purse {
    #[serde(skip)]
    account: alloy_primitives::Address,
    wallet_wei: U256,
    withdrawing_wei: U256,
    /// From when it can be taken, in seconds since 1970.
    withdrawing_at: u64,
}

async fn purse(context: &Context, who: &cli::Who) -> anyhow::Result<Purse> {
    let office = Office::of_payer(context, who).await?;
    let looked = async {
        let standing = escrow::standing(&office.desk).await?;
        Ok::<_, OpsError>(Purse {
            account: office.desk.account(),
            wallet_wei: office.desk.wallet().await?,
            withdrawing_wei: standing.thawing,
            withdrawing_at: standing.thaw_end,
        })
    };
    let looked = looked.await;
    office.close().await;
    Ok(looked?)
}

/// Takes back what is still set aside for leases whose host has vanished. The service gives it back
/// an hour after the last sign of life and refuses until then, which is no failure here.
async fn release_lost(context: &Context, client: &Client) {
    let home = client.buyer.home();
    let Ok((leases, _)) = home.leases() else { return };
    let lost = leases.iter().filter(|kept| kept.state().0 == LeaseState::Lost);
    let lost = lost.filter(|kept| matches!(home.receipt(kept.lease), Ok(None)));
    let (reserved, _) = home.reservations().unwrap_or_default();
    let given_up = reserved.iter().filter(|kept| kept.given_up);
    let lanes: Vec<LeaseId> =
        lost.map(|kept| kept.lease).chain(given_up.map(|kept| kept.reservation.lane())).collect();
    for lane in lanes {
        if let Ok(view) = client.buyer.settle().release(lane).await
            && !view.refunded.is_zero()
            && !context.is_quiet
        {
            let lease = out::short(&lane);
            out::note(&format!("{lease} was lost: {} of it came back", view.refunded));
        }
    }
}

/// Adds money to the account: test money, or ATH of the wallet.
pub(crate) async fn fund(context: &Context, args: &cli::Fund) -> anyhow::Result<()> {
    let places = client::network(context)?.places();
    let has_faucet = places.is_some_and(|places| !places.faucet.is_zero());
    let is_signed = args.permit.typed_data || args.permit.permit.is_some();
    if args.wallet || args.to.is_some() || is_signed || !has_faucet {
        return deposit(context, args).await;
    }
    let amount: Usd = args.amount.parse().map_err(|error: welkin_types::MoneyError| {
        Usage::new(error.to_string(), "for example `welkin fund 10`")
    })?;
    let client = Client::open(context).await?;
    let account = client.buyer.account();
    let view = client.buyer.settle().fund(account, amount).await;
    client.close().await;
    let view = view?;
    if !context.is_quiet && !context.is_json {
        out::note(&format!("added {amount}"));
    }
    account_out(context, &Account { account, view, purse: None })
}

/// Puts ATH of the wallet into an account.
async fn deposit(context: &Context, args: &cli::Fund) -> anyhow::Result<()> {
    let office = Office::of_payer(context, &args.sending.who).await?;
    let work = async {
        // Dollars would be another number of ATH by the time that the permission is used.
        let is_signed = args.permit.typed_data || args.permit.permit.is_some();
        if is_signed && withdraw::ath_of(&args.amount)?.is_none() {
            let text = "what a wallet signs for is a number of ATH";
            return Err(Usage::new(text, "write the amount as in `120ATH`").into());
        }
        let amount = withdraw::amount(&office, &args.amount).await?;
        let to = match &args.to {
            Some(text) => desk::address("--to", text)?,
            None => office.desk.account(),
        };
        let permission = desk::permission(&office, &args.permit, Contract::Escrow, amount);
        let acts = match permission.await? {
            Permission::Printed => return Ok(None),
            Permission::None => escrow::deposit(&office.desk, amount, to).await?,
            Permission::Signed(signature, until) => {
                vec![typed_data::deposit(&office.desk, amount, to, until, &signature)?]
            }
        };
        office.carry_out(context, &args.sending, &acts).await
    };
    let done = work.await;
    office.close().await;
    if done?.is_some() {
        balance(context, &cli::Balance { who: args.sending.who.clone() }).await?;
    }
    Ok(())
}

fn account_out(context: &Context, account: &Account) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(account);
    }
    out::text(&account_text(account))?;
    let view = &account.view;
    if view.available.is_zero() && view.held.is_zero() && !context.is_quiet {
        out::note("there is no money: on a local network `welkin fund 10` adds test money");
    }
    Ok(())
}

fn account_text(Account { account, view, purse }: &Account) -> String {
    let AccountView { available, held, deposited, spent, earned } = view;
    let mut text = format!("account    {account}\n");
    for (label, amount, about) in [
        ("available", available, "free to use"),
        ("held", held, "set aside for leases that have not ended"),
        ("deposited", deposited, "put in, in all"),
        ("spent", spent, "paid for leases, fees included"),
        ("earned", earned, "by leases to others, after fees"),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<10} {:<14} {about}", amount.to_string());
    }
    let Some(purse) = purse else { return text };
    let wallet = ath::show(purse.wallet_wei);
    let _ = writeln!(text, "{:<10} {wallet:<14} outside, to stake, to vote or to send", "wallet");
    if !purse.withdrawing_wei.is_zero() {
        let (much, at) = (ath::show(purse.withdrawing_wei), refusals::time(purse.withdrawing_at));
        let label = "leaving";
        let _ = writeln!(text, "{label:<10} {much:<14} `welkin withdraw` takes it from {at} on");
    }
    text
}

/// Lists, shows or verifies receipts.
pub(crate) fn receipts(context: &Context, args: &cli::Receipts) -> anyhow::Result<()> {
    let home = client::home(context);
    match &args.command {
        None | Some(cli::ReceiptsCommand::List) => list(context, &home),
        Some(cli::ReceiptsCommand::Show(id)) => show(context, &home, &id.lease),
        Some(cli::ReceiptsCommand::Verify { file }) => verify(file, context.is_json),
    }
}

/// The leases of which there are receipts. They outlive what else is known of a lease.
fn receipt_ids(home: &Home) -> anyhow::Result<Vec<LeaseId>> {
    let folder = home.dir().join("receipts");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", folder.display()));
        }
    };
    let id = |entry: std::fs::DirEntry| {
        entry.file_name().to_str()?.strip_suffix(".json")?.parse::<LeaseId>().ok()
    };
    Ok(entries.filter_map(Result::ok).filter_map(id).collect())
}

fn list(context: &Context, home: &Home) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for lease in receipt_ids(home)? {
        let file = match home.receipt(lease) {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(error) => {
                out::note(&format!("{lease}: {}", welkin_node::chain(&error)));
                continue;
            }
        };
        match file.receipt.open(&file.domain) {
            Ok(receipt) => rows.push(Row::of(&receipt)),
            Err(error) => out::note(&format!("{lease}: {}", welkin_node::chain(&error))),
        }
    }
    rows.sort_by_key(|row| (std::cmp::Reverse(row.ended), row.lease));
    let reserved = reserved::rows(home)?;
    if context.is_json {
        rows.iter().try_for_each(out::json)?;
        return reserved.iter().try_for_each(out::json);
    }
    if rows.is_empty() && reserved.is_empty() {
        out::note("there are no receipts yet: a lease has one when it has ended");
        return Ok(());
    }
    if !rows.is_empty() {
        out::text(&table(&rows))?;
    }
    if reserved.is_empty() { Ok(()) } else { out::text(&reserved::table(&reserved)) }
}

/// A receipt as it is listed; money in millionths of a dollar.
#[derive(Debug, Serialize)]
struct Row {
    lease: LeaseId,
    state: Option<LeaseState>,
    seconds: u64,
    cost: Usd,
    fee: Usd,
    ended: UnixMillis,
}

impl Row {
    fn of(receipt: &Receipt) -> Self {
        let last = receipt.stages.last();
        Self {
            lease: receipt.lease,
            state: last.map(|last| last.state),
            seconds: receipt.usage.seconds,
            cost: receipt.cost,
            fee: receipt.fee,
            ended: last.map_or(UnixMillis(0), |last| last.at),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        vec![
            out::short(&row.lease),
            row.state.map_or("?", LeaseState::as_str).to_owned(),
            row.seconds.to_string(),
            row.cost.to_string(),
            row.fee.to_string(),
            row.ended.to_string(),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    out::table(&["LEASE", "STATE", "SECONDS", "COST", "FEE", "ENDED"], &rows)
}

/// Finds the receipt of a lease by its id, the beginning of it, or the name of a lease that is
/// still known.
fn find(home: &Home, text: &str) -> anyhow::Result<ReceiptFile> {
    let prefix = if text.starts_with("lse_") { text.to_owned() } else { format!("lse_{text}") };
    let ids = receipt_ids(home)?;
    let mut fitting = ids.into_iter().filter(|id| id.to_string().starts_with(&prefix));
    let lease = match (fitting.next(), fitting.next()) {
        (Some(lease), None) => lease,
        (Some(_), Some(_)) => {
            let text = format!("more than one receipt begins with `{text}`");
            return Err(Usage::new(text, "give more of its id").into());
        }
        (None, _) => client::find(home, text)?.lease,
    };
    home.receipt(lease).map_err(BuyerError::Home)?.ok_or_else(|| {
        let text = format!("there is no receipt of {lease} yet");
        Usage::new(text, "a lease has one when it has ended: `welkin stop` ends it").into()
    })
}

/// A receipt with what was found when it was checked.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    receipt: &'a Receipt,
    /// The part of the cost that is not the fee.
    operator_part: Usd,
    /// What the buyer's last voucher promised.
    promised: Usd,
    is_signed_by_buyer: bool,
    /// What is wrong with it, if anything is.
    problem: Option<String>,
}

fn show(context: &Context, home: &Home, text: &str) -> anyhow::Result<()> {
    let file = find(home, text)?;
    let receipt = file.receipt.open(&file.domain).context("the receipt can't be read")?;
    let problem = file.verify().err().map(|error| error.to_string());
    if context.is_json {
        return out::json(&Shown {
            operator_part: receipt.cost.saturating_sub(receipt.fee),
            promised: promised(&file).1,
            is_signed_by_buyer: file.ack.is_some(),
            receipt: &receipt,
            problem,
        });
    }
    out::text(&waterfall(&file, &receipt, problem.as_deref()))
}

/// The seconds and the money that the last voucher promised.
fn promised(file: &ReceiptFile) -> (u64, Usd) {
    let voucher = file.voucher.as_ref().map(|voucher| &voucher.message);
    voucher.map_or((0, Usd::ZERO), |voucher| (voucher.seconds, voucher.amount))
}

/// Where every millisecond and every cent went.
fn waterfall(file: &ReceiptFile, receipt: &Receipt, problem: Option<&str>) -> String {
    let mut text = format!("lease      {}\nhost       {}\n\n", receipt.lease, receipt.host);
    text.push_str(&stages(receipt));
    text.push('\n');
    let (seconds, amount) = promised(file);
    let wipe = &receipt.wipe;
    let lines = [
        ("billed", format!("{} s of running", receipt.usage.seconds)),
        ("price", receipt.price.to_string()),
        ("cost", receipt.cost.to_string()),
        ("  fee", format!("{} (20 %)", receipt.fee)),
        ("  operator", receipt.cost.saturating_sub(receipt.fee).to_string()),
        ("voucher", format!("{amount} for {seconds} s promised")),
        ("exit", receipt.exit.as_ref().map_or_else(|| "did not run".to_owned(), exit_text)),
        ("memory", format!("{} at most", size(receipt.usage.memory_peak_bytes))),
        ("processor", format!("{} ms", receipt.usage.cpu_us / 1_000)),
        (
            "logs",
            format!(
                "{} stdout, {} stderr",
                size(receipt.logs.stdout_bytes),
                size(receipt.logs.stderr_bytes)
            ),
        ),
        (
            "wipe",
            format!(
                "{}, {} in scratch, {} processes killed, {} ms",
                if wipe.complete { "complete" } else { "NOT complete" },
                size(wipe.scratch_bytes),
                wipe.processes_killed,
                wipe.elapsed_ms
            ),
        ),
        ("checked", problem.map_or_else(|| checked(file), |why| format!("WRONG: {why}"))),
    ];
    for (label, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<10} {value}");
    }
    text
}

/// Each stage with how long it took; running costs, the others are free.
fn stages(receipt: &Receipt) -> String {
    let ends = receipt.stages.iter().skip(1).map(|stage| Some(stage.at)).chain([None]);
    let row = |(stage, end): (&welkin_proto::StageTime, Option<UnixMillis>)| {
        let millis = end.map(|end| end.since(stage.at).as_millis().to_string());
        let billing = match stage.state.billing() {
            Billing::On => "paid",
            Billing::Off if end.is_some() => "free",
            Billing::Off => "",
        };
        vec![
            stage.state.to_string(),
            millis.unwrap_or_default(),
            billing.to_owned(),
            stage.reason.to_string(),
            stage.at.to_string(),
        ]
    };
    let mut rows: Vec<_> = receipt.stages.iter().zip(ends).map(row).collect();
    if let (Some(first), Some(last)) = (receipt.stages.first(), receipt.stages.last()) {
        rows.push(vec!["in all".to_owned(), last.at.since(first.at).as_millis().to_string()]);
    }
    out::table(&["STAGE", "MS", "BILLING", "REASON", "SINCE"], &rows)
}

fn checked(file: &ReceiptFile) -> String {
    let buyer = if file.ack.is_some() { "signed by host and buyer" } else { "signed by host" };
    format!("{buyer}; order, voucher, times and arithmetic are right")
}

/// Checks a receipt file without a network.
pub(crate) fn verify(file: &Path, is_json: bool) -> anyhow::Result<()> {
    let text = read(file)?;
    let receipt: ReceiptFile = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no receipt", file.display()))?;
    let found = receipt.verify().map(|statement| verified(&receipt, &statement));
    // One of a reservation has the same form, and is signed as what it is.
    match found.or_else(|error| reserved::verified(&text).ok_or(error)) {
        Ok(_) if is_json => out::json(&serde_json::json!({ "valid": true, "problem": null })),
        Ok(words) => out::text(&words),
        Err(error) if is_json => {
            let problem = error.to_string();
            out::json(&serde_json::json!({ "valid": false, "problem": problem }))?;
            Err(Quit(1).into())
        }
        Err(error) => {
            Err(anyhow::Error::new(error).context(format!("{} is wrong", file.display())))
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("failed to read {}", file.display());
    let mut text = Vec::new();
    let reader = File::open(file).with_context(failed)?;
    reader.take(RECEIPT_BYTES_MAX + 1).read_to_end(&mut text).with_context(failed)?;
    if text.len() as u64 > RECEIPT_BYTES_MAX {
        return Err(anyhow!("{} is too large for a receipt", file.display()));
    }
    Ok(text)
}

/// What was checked, in words.
fn verified(file: &ReceiptFile, receipt: &Receipt) -> String {
    let order = &file.order.message;
    let (seconds, amount) = promised(file);
    let signature = match &file.ack {
        Some(_) => "the buyer signed under it",
        None => "the buyer did not sign under it",
    };
    let matched = receipt.matched.map_or_else(
        || "no indexer matched it".to_owned(),
        |by| format!("the indexer {} matched it, for {}", by.indexer, by.account),
    );
    let lines = [
        format!("{} is right:", receipt.lease),
        format!("  signed by the host {}", receipt.host),
        format!("  ordered by the buyer {} at {}", order.buyer, order.price),
        format!("  the operator {} vouches for the host", order.operator),
        format!("  {matched}"),
        format!(
            "  {} s billed of {} s running by its stages",
            receipt.usage.seconds,
            receipt.running_seconds()
        ),
        format!(
            "  {} is within the budget of {} and the voucher of {amount} for {seconds} s",
            receipt.cost, order.budget
        ),
        format!("  the fee of {} is 20 %", receipt.fee),
        format!("  {signature}"),
    ];
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
