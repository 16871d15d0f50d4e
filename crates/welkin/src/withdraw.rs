//! `welkin withdraw`: from the escrow to a wallet, in two steps with a wait between them.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use serde::Serialize;
use welkin_chain::ops::escrow::{self, Withdrawal};
use welkin_chain::{ath, refusals};
use welkin_node::outside;
use welkin_types::Usd;

use crate::cli::Withdraw;
use crate::desk::{self, Office};
use crate::{Context, Usage, out};

/// Pause before looking again whether it can be taken, where clocks differ.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a withdrawal stands.
#[derive(Debug, Serialize)]
struct Standing {
    state: &'static str,
    amount_wei: U256,
    /// From when it can be taken, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address>,
}

/// Announces a withdrawal, or goes on with the one that was announced.
pub(crate) async fn withdraw(context: &Context, args: &Withdraw) -> anyhow::Result<()> {
    let office = Office::of_payer(context, &args.sending.who).await?;
    let result = match args.cancel {
        true => cancel(context, &office, args).await,
        false => go_on(context, &office, args).await,
    };
    office.close().await;
    result
}

async fn cancel(context: &Context, office: &Office, args: &Withdraw) -> anyhow::Result<()> {
    let Some(act) = escrow::call_off(&office.desk).await? else {
        return tell(context, &standing("none", U256::ZERO), "no withdrawal was announced");
    };
    if office.carry_out(context, &args.sending, &[act]).await?.is_some() {
        let text = "called off: the money stays in the escrow";
        tell(context, &standing("called_off", U256::ZERO), text)?;
    }
    Ok(())
}

async fn go_on(context: &Context, office: &Office, args: &Withdraw) -> anyhow::Result<()> {
    let to = match &args.to {
        Some(text) => desk::address("--to", text)?,
        None => office.desk.account(),
    };
    let wanted = wanted(office, args).await?;
    loop {
        let pause = match escrow::withdrawal(&office.desk, wanted, to).await? {
            Withdrawal::Announce { act, amount, wait_seconds } => {
                if office.carry_out(context, &args.sending, &[act]).await?.is_none() {
                    return Ok(());
                }
                if !args.wait {
                    return announced(context, office, amount, wait_seconds).await;
                }
                Duration::from_secs(wait_seconds)
            }
            Withdrawal::Wait { amount, at } => {
                if !args.wait {
                    let seen = Standing { at: Some(at), ..standing("announced", amount) };
                    let (much, when) = (ath::show(amount), refusals::time(at));
                    let text = format!("{much} can be taken from {when} on: run this again then");
                    return tell(context, &seen, &text);
                }
                let now = outside::now().0 / 1_000;
                Duration::from_secs(at.saturating_sub(now))
            }
            Withdrawal::Take { act, amount } => {
                if office.carry_out(context, &args.sending, &[act]).await?.is_some() {
                    let seen = Standing { to: Some(to), ..standing("done", amount) };
                    tell(context, &seen, &format!("{} went to {to}", ath::show(amount)))?;
                }
                return Ok(());
            }
        };
        if !context.is_quiet && pause > LOOK_AGAIN {
            out::note(&format!("it can be taken in {}", out::duration(pause)));
        }
        tokio::time::sleep(pause.max(LOOK_AGAIN)).await;
    }
}

/// What was asked for, in wei; none: all there is.
async fn wanted(office: &Office, args: &Withdraw) -> anyhow::Result<Option<U256>> {
    let announced = escrow::standing(&office.desk).await?.thawing;
    match args.amount.as_deref() {
        Some("all") => Ok(None),
        Some(text) => {
            let amount = amount(office, text).await?;
            // Dollars are another number of ATH by now; what was announced in ATH was not.
            if !announced.is_zero() && is_ath(text) && amount != announced {
                let text = format!("the withdrawal of {} is announced", ath::show(announced));
                let hint = "go on with it (`welkin withdraw`), or call it off first (--cancel)";
                return Err(Usage::new(text, hint).into());
            }
            Ok(Some(amount))
        }
        None if announced.is_zero() => {
            let hint = "say how much: `welkin withdraw 5`, `welkin withdraw all`";
            Err(Usage::new("no withdrawal was announced", hint).into())
        }
        None => Ok(None),
    }
}

fn is_ath(text: &str) -> bool {
    text.to_ascii_uppercase().ends_with("ATH")
}

/// A sum as a person writes it, in wei: dollars at the present price, or ATH.
pub(crate) async fn amount(office: &Office, text: &str) -> anyhow::Result<U256> {
    if let Some(wei) = ath_of(text)? {
        return Ok(wei);
    }
    let dollars = text.trim().trim_start_matches('$');
    let amount: Usd = dollars.parse().map_err(|error: welkin_types::MoneyError| {
        Usage::new(error.to_string(), "for example `5` US dollars, `120ATH`, or `all`")
    })?;
    Ok(office.desk.wei(amount.micros()).await?)
}

/// A sum that says itself that it is in ATH.
pub(crate) fn ath_of(text: &str) -> anyhow::Result<Option<U256>> {
    let upper = text.to_ascii_uppercase();
    let Some(number) = upper.strip_suffix("ATH") else { return Ok(None) };
    let wei = ath::parse(number).map_err(|error| Usage::new(error.to_string(), ""))?;
    Ok(Some(wei))
}

async fn announced(
    context: &Context,
    office: &Office,
    amount: U256,
    wait_seconds: u64,
) -> anyhow::Result<()> {
    let at = escrow::standing(&office.desk).await?.thaw_end;
    let seen = Standing { at: Some(at), ..standing("announced", amount) };
    let wait = out::duration(Duration::from_secs(wait_seconds));
    let (much, when) = (ath::show(amount), refusals::time(at));
    let text = format!("{much} can be taken in {wait}, from {when} on: run this again then");
    tell(context, &seen, &text)
}

const fn standing(state: &'static str, amount_wei: U256) -> Standing {
    Standing { state, amount_wei, at: None, to: None }
}

fn tell(context: &Context, standing: &Standing, text: &str) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(standing);
    }
    out::text(&format!("{text}\n"))
}
