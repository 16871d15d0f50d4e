//! `welkin reservations`: what is kept for this account, what that has cost, and its end.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::Serialize;
use tokio::time::{Instant, timeout};
use welkin_node::buyer::{BuyerError, Home, KeptReservation};
use welkin_node::outside;
use welkin_proto::{NodeAddr, ReservationReceipt};
use welkin_types::task::TaskSpec;
use welkin_types::{
    Billing, Class, LeaseId, Price, ReservationEnd, ReservationId, UnixMillis, Usd,
};

use crate::cli::{Cancel, Reservations, ReservationsCommand};
use crate::client::{self, Client};
use crate::task::Job;
use crate::{Context, Quit, Usage, agent, out, terminal};

/// How long a host may take to say how a reservation stands.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end may take: the host settles first.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two looks for the receipt.
const END_PAUSE: Duration = Duration::from_millis(200);
/// Exit code of something cancelled by the person in front of it.
const CANCELLED: u8 = 130;

/// `welkin reservations`
pub(crate) async fn reservations(context: &Context, args: &Reservations) -> anyhow::Result<()> {
    match &args.command {
        None | Some(ReservationsCommand::List) => list(context).await,
        Some(ReservationsCommand::Show(args)) => show(context, &args.reservation).await,
        Some(ReservationsCommand::Cancel(args)) => cancel(context, args).await,
    }
}

/// Finds a reservation by its id, the beginning of it, or its name (the newest of that name).
pub(crate) fn find(home: &Home, text: &str) -> anyhow::Result<KeptReservation> {
    let (all, damaged) = home.reservations().map_err(BuyerError::Home)?;
    for error in damaged {
        tracing::warn!(error = %welkin_node::chain(&error), "a reservation can't be read");
    }
    let prefix = if text.starts_with("rsv_") { text.to_owned() } else { format!("rsv_{text}") };
    let by_id = |kept: &&KeptReservation| kept.reservation.to_string().starts_with(&prefix);
    let mut found = all.iter().filter(by_id);
    if let Some(first) = found.next().filter(|_| prefix.len() > "rsv_".len()) {
        if found.next().is_some() {
            let text = format!("more than one reservation begins with `{text}`");
            return Err(Usage::new(text, "give more of its id").into());
        }
        return Ok(first.clone());
    }
    let named = all.into_iter().find(|kept| !kept.name.is_empty() && kept.name == text);
    named.ok_or_else(|| {
        let text = format!("no reservation `{text}` of this account is known here");
        Usage::new(text, "`welkin reservations` lists them").into()
    })
}

/// A task on a reservation has all of it, unless it says otherwise.
pub(crate) fn take_all(kept: &KeptReservation, spec: &TaskSpec, job: &mut Job) {
    let (asked, has, launch) = (&spec.resources, &kept.resources, &mut job.ask.launch);
    if asked.cpu.is_none() {
        launch.cpu_milli = has.cpu_milli;
    }
    if asked.memory.is_none() {
        launch.memory_bytes = has.memory_bytes;
    }
    if asked.disk.is_none() {
        launch.disk_bytes = has.disk_bytes;
    }
}

/// What is said before a task runs on one.
pub(crate) fn running_on(kept: &KeptReservation) -> String {
    format!(
        "on reservation {} ({}), which pays for it until {} and stops it then",
        out::short(&kept.reservation),
        kept.class,
        kept.machine.until()
    )
}

/// A reservation for programs; money in millionths of a dollar.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    reservation: ReservationId,
    name: String,
    class: Class,
    host: NodeAddr,
    /// `placing`, `active` or `ended`.
    state: &'static str,
    /// Why it is over.
    reason: Option<ReservationEnd>,
    billing: Billing,
    price: Price,
    start: UnixMillis,
    until: UnixMillis,
    promised_seconds: u64,
    /// Promised in all, what is paid ahead in it.
    promised: Usd,
    failed_days: Vec<u64>,
    /// Days in which this side saw the host away.
    away_days: Vec<u32>,
    next_payment: Option<UnixMillis>,
    /// When the host last answered.
    seen: Option<UnixMillis>,
    /// The lease that runs on it.
    lease: Option<LeaseId>,
    detail: Option<String>,
}

/// A reservation as programs see it.
pub(crate) fn row(kept: &KeptReservation) -> Row {
    let (machine, price) = (&kept.machine, kept.order.message.price);
    let state = state(kept);
    Row {
        reservation: kept.reservation,
        name: kept.name.clone(),
        class: kept.class.clone(),
        host: kept.host.clone(),
        state,
        reason: kept.end(),
        billing: if state == "active" { Billing::On } else { Billing::Off },
        price,
        start: machine.terms().start,
        until: machine.until(),
        promised_seconds: machine.promised(),
        promised: price.cost(machine.promised()),
        failed_days: kept.failed_days(),
        away_days: kept.away_days.iter().copied().collect(),
        next_payment: kept.next_payment(),
        seen: kept.seen,
        lease: kept.view.as_ref().and_then(|view| view.lease),
        detail: kept.detail.clone(),
    }
}

fn state(kept: &KeptReservation) -> &'static str {
    match (kept.end_text(), kept.seen) {
        (Some(_), _) => "ended",
        (None, Some(_)) => "active",
        (None, None) => "placing",
    }
}

/// The state with its reason.
fn state_text(kept: &KeptReservation) -> String {
    match kept.end() {
        Some(end) => format!("ended ({end})"),
        None => state(kept).to_owned(),
    }
}

/// Sees to it that somebody pays for those that are not over: a machine may have been restarted.
async fn see_to(context: &Context, all: &[KeptReservation]) -> anyhow::Result<()> {
    let home = client::home(context);
    for kept in all.iter().filter(|kept| !home.is_reservation_settled(kept)) {
        agent::adopt_reservation(context, kept.reservation).await?;
    }
    Ok(())
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let (all, damaged) = client::home(context).reservations().map_err(BuyerError::Home)?;
    for error in damaged {
        tracing::warn!(error = %welkin_node::chain(&error), "a reservation can't be read");
    }
    see_to(context, &all).await?;
    if context.is_json {
        return all.iter().map(row).try_for_each(|row| out::json(&row));
    }
    if all.is_empty() {
        out::note("nothing is reserved; `welkin reserve --term 24h` does that");
        return Ok(());
    }
    out::text(&table(&all, outside::now()))
}

fn table(all: &[KeptReservation], now: UnixMillis) -> String {
    let head =
        ["RESERVATION", "NAME", "CLASS", "STATE", "LEFT", "PRICE/H", "PROMISED", "FAILED", "NEXT"];
    let cells = |kept: &KeptReservation| {
        let price = kept.order.message.price;
        let is_over = kept.end_text().is_some();
        let left = kept.machine.until().since(now);
        let next = kept.next_payment().map(|at| out::duration(at.since(now)));
        vec![
            out::short(&kept.reservation),
            kept.name.clone(),
            kept.class.to_string(),
            state_text(kept),
            if is_over { "-".to_owned() } else { out::duration(left) },
            price.hour().to_string(),
            price.cost(kept.machine.promised()).to_string(),
            format!("{} d", kept.failed_days().len()),
            next.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    out::table(&head, &all.iter().map(cells).collect::<Vec<_>>())
}

/// Everything about a reservation, for programs.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    receipt: Option<ReservationReceipt>,
    /// Whether this side has signed the receipt.
    is_signed: bool,
}

async fn show(context: &Context, text: &str) -> anyhow::Result<()> {
    let home = client::home(context);
    let mut kept = find(&home, text)?;
    let id = kept.reservation;
    let mut is_sure = home.is_reservation_settled(&kept);
    if !is_sure {
        see_to(context, std::slice::from_ref(&kept)).await?;
        let client = Client::open(context).await?;
        let asked = timeout(ASK_TIMEOUT, client.buyer.look_at_reservation(&kept)).await;
        client.close().await;
        if let Ok(Ok(view)) = asked {
            kept.view = Some(view);
            is_sure = true;
        }
    }
    let file = home.reservation_receipt(id).map_err(BuyerError::Home)?;
    let is_signed = file.as_ref().is_some_and(|file| file.ack.is_some());
    let receipt = file.and_then(|file| file.verify().ok());
    if context.is_json {
        return out::json(&Shown { row: row(&kept), receipt, is_signed });
    }
    let path = receipt.is_some().then(|| home.reservation_receipt_path(id));
    let mut text = shown_text(&kept, is_sure, outside::now());
    if let Some(receipt) = &receipt {
        let signed = if is_signed { "signed by both" } else { "signed by the host only" };
        let _ = writeln!(text, "{:<12}{}, {signed}", "receipt", money_text(receipt));
    }
    if let Some(path) = path {
        let _ = writeln!(text, "{:<12}{}", "", path.display());
    }
    out::text(&text)
}

fn shown_text(kept: &KeptReservation, is_sure: bool, now: UnixMillis) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12}{value}");
    };
    let (machine, order) = (&kept.machine, &kept.order.message);
    let price = order.price;
    line("reservation", kept.reservation.to_string());
    if !kept.name.is_empty() {
        line("name", kept.name.clone());
    }
    let bills = row(kept).billing;
    if is_sure {
        line("state", format!("{}, billing {bills}", state_text(kept)));
    } else {
        line("state", format!("unknown (host_unreachable), last known: {}", state_text(kept)));
    }
    line("container", format!("{} {} ({})", order.container, kept.class, kept.resources));
    line("host", kept.host.to_string());
    line("price", format!("{price}, {} for the whole term", order.budget));
    let terms = machine.terms();
    line("from", terms.start.to_string());
    if kept.end_text().is_none() {
        let left = out::duration(machine.until().since(now));
        line("until", format!("{} (in {left}); what runs on it is stopped then", machine.until()));
    } else if let Some(ended) = kept.ended {
        line("ended", format!("{ended}; the term was until {}", machine.until()));
    }
    line(
        "promised",
        format!(
            "{} s: {}, of which {} s are ahead",
            machine.promised(),
            price.cost(machine.promised()),
            terms.commitment_seconds()
        ),
    );
    if let Some(at) = kept.next_payment() {
        let grace = kept.grace_seconds;
        line("next", format!("a payment at {at}, by the agent; it may be {grace} s late"));
    }
    let days =
        |days: Vec<String>| if days.is_empty() { "none".to_owned() } else { days.join(", ") };
    let failed = kept.failed_days().iter().map(ToString::to_string).collect();
    line("failed", format!("days {}: not paid for", days(failed)));
    if !kept.away_days.is_empty() {
        let away = kept.away_days.iter().map(ToString::to_string).collect();
        line("away", format!("days {}, as seen from here", days(away)));
    }
    if kept.end_text().is_none() {
        let now_ended = machine.settlement(now);
        line("if ended", format!("{} would be kept, {} not", now_ended.kept, now_ended.refund));
    }
    if let Some(lease) = kept.view.as_ref().and_then(|view| view.lease) {
        line("runs", lease.to_string());
    }
    if let Some(detail) = &kept.detail {
        line("detail", detail.clone());
    }
    text
}

fn money_text(receipt: &ReservationReceipt) -> String {
    let ReservationReceipt { seconds, kept, fee, refund, .. } = receipt;
    format!("{seconds} s paid for: {kept} (fee {fee} in it), {refund} not used")
}

/// How a reservation ended, for programs.
#[derive(Debug, Serialize)]
struct Ended {
    reservation: ReservationId,
    reason: ReservationEnd,
    seconds: u64,
    kept: Usd,
    fee: Usd,
    refund: Usd,
}

async fn cancel(context: &Context, args: &Cancel) -> anyhow::Result<()> {
    let home = client::home(context);
    let mut kept = find(&home, &args.reservation)?;
    let id = kept.reservation;
    if let Some(why) = kept.end_text().filter(|_| home.is_reservation_settled(&kept)) {
        out::note(&format!("{id} is over already: {why}"));
        return Ok(());
    }
    if !args.yes && terminal::is_interactive() {
        let now_ended = kept.machine.settlement(outside::now());
        let question = format!("end it now? {} stays paid [Y/n] ", now_ended.kept);
        if !terminal::confirm(&question).await? {
            return Err(Quit(CANCELLED).into());
        }
    }
    // Also where the host can't be reached: whoever pays for it ends it once it is there again.
    home.cancel_reservation(id).map_err(BuyerError::Home)?;
    agent::adopt_reservation(context, id).await?;
    let client = Client::open(context).await?;
    let ended = end(&client, &home, &mut kept).await;
    client.close().await;
    let receipt = ended?;
    if context.is_json {
        let ReservationReceipt { end, seconds, kept, fee, refund, .. } = receipt;
        return out::json(&Ended { reservation: id, reason: end, seconds, kept, fee, refund });
    }
    out::text(&format!("{id} ended ({}): {}\n", receipt.end, money_text(&receipt)))
}

/// Asks the host for the end and waits for its receipt.
async fn end(
    client: &Client,
    home: &Home,
    kept: &mut KeptReservation,
) -> anyhow::Result<ReservationReceipt> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        client.buyer.pay_reservation(kept, true).await?;
        if let Some(file) = home.reservation_receipt(kept.reservation).map_err(BuyerError::Home)? {
            return file.verify().map_err(|error| anyhow!("the host's receipt is wrong: {error}"));
        }
        if Instant::now() > deadline {
            let state = state_text(kept);
            bail!("{} is {state}; its receipt is not here yet", kept.reservation);
        }
        tokio::time::sleep(END_PAUSE).await;
    }
}
