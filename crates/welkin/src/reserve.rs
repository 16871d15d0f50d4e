//! `welkin reserve`: a container for a term.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use welkin_node::buyer::{BuyerError, COMMITMENT_SECONDS, DAY_SECONDS, KeptReservation};
use welkin_node::outside;
use welkin_proto::{Offer, ReservationAsk, ReservedTerms};
use welkin_types::task::Span;
use welkin_types::{CapacityType, UnixMillis};

use crate::cli::{Reserve, TaskArgs};
use crate::client::Client;
use crate::{Context, Quit, Usage, agent, out, reservations, task, terminal};

/// Exit code of something cancelled by the person in front of it.
const CANCELLED: u8 = 130;

/// `welkin reserve`
pub(crate) async fn reserve(context: &Context, args: &Reserve) -> anyhow::Result<()> {
    let term = term(&args.term)?;
    let name = args.name.clone().unwrap_or_default();
    if name.len() > ReservationAsk::NAME_LEN_MAX || name.starts_with("rsv_") {
        let text = "--name: it is too long, or begins like an id";
        return Err(Usage::new(text, "give a short name").into());
    }
    if !args.yes && !terminal::is_interactive() {
        let text = "a reservation is paid for, used or not, and nobody can be asked here";
        return Err(Usage::new(text, "add -y to take the best offer").into());
    }
    let (spec, _) = task::spec(&task_args(args))?;
    let mut needs = spec.needs();
    needs.capacity = CapacityType::Reserved;
    let client = Client::open(context).await?;
    let made = async {
        let offers = client.buyer.reservable(&needs, term).await?;
        let Some(best) = offers.first() else {
            bail!(Usage::new(
                format!("no container that fits can be had for {}", args.term),
                "`welkin offers --json` shows the terms of each; try a longer or a shorter one",
            ));
        };
        if !context.is_quiet {
            out::note(terms_text(best, term, outside::now()).trim_end());
        }
        let is_asked = !args.yes;
        if is_asked && !terminal::confirm("reserve it? [Y/n] ").await? {
            return Err(Quit(CANCELLED).into());
        }
        // What was shown is the most that is paid.
        let shown = best.price;
        take(context, &client, offers.iter().filter(|offer| offer.price <= shown), term, &name)
            .await
    };
    let made = made.await;
    client.close().await;
    let kept = made?;
    if context.is_json {
        return out::json(&reservations::row(&kept));
    }
    out::text(&format!("{}\n", kept.reservation))?;
    if !context.is_quiet {
        let short = out::short(&kept.reservation);
        out::note(&format!(
            "reserved until {}; use it with `welkin run --reserve {short} -- CMD`, see `welkin \
             reservations`",
            kept.machine.until()
        ));
    }
    Ok(())
}

/// A term in seconds.
fn term(text: &str) -> anyhow::Result<u32> {
    let span: Span = text.parse().map_err(|error| {
        Usage::new(format!("--term: {error}"), "write it like `6h`, `24h` or `7d`")
    })?;
    let range = ReservedTerms::TERM_SECONDS;
    if !range.contains(&span.seconds()) {
        let (min, max) = (Span::from_seconds(*range.start()), Span::from_seconds(*range.end()));
        let text = format!("--term: {text} is not between {min} and {max}");
        return Err(Usage::new(text, "reserve it again when a term is over").into());
    }
    Ok(span.seconds())
}

/// The flags of a task that say what a container must have.
fn task_args(args: &Reserve) -> TaskArgs {
    TaskArgs {
        gpu: args.gpu.clone(),
        cpu: args.cpu.clone(),
        memory: args.memory.clone(),
        disk: args.disk.clone(),
        max_price: args.max_price.clone(),
        region: args.region.clone(),
        policy: args.policy.clone(),
        ..TaskArgs::default()
    }
}

/// Asks one host after the other.
async fn take(
    context: &Context,
    client: &Client,
    offers: impl Iterator<Item = &Offer>,
    term: u32,
    name: &str,
) -> anyhow::Result<KeptReservation> {
    let mut last = None;
    for offer in offers {
        match client.buyer.reserve(offer, term, name).await {
            Ok(kept) => {
                agent::adopt_reservation(context, kept.reservation).await?;
                return Ok(kept);
            }
            Err(error) => {
                let is_clear = match &error {
                    BuyerError::HostRefuses { code, .. } if code.try_next() => true,
                    BuyerError::HostUnreachable { .. } => true,
                    BuyerError::HostSilent(_) | BuyerError::HostLost => false,
                    _ => return Err(error.into()),
                };
                if !is_clear {
                    let text =
                        "whether it is reserved is not known: `welkin reservations` shows it";
                    return Err(anyhow::Error::new(error).context(text));
                }
                if !context.is_quiet {
                    out::note(&format!("welkin: {}; trying the next", welkin_node::chain(&error)));
                }
                last = Some(error);
            }
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no host was left to ask"), Into::into))
}

/// What is agreed to: the price, what is set aside, what is lost, what comes back.
fn terms_text(offer: &Offer, term_seconds: u32, now: UnixMillis) -> String {
    let term = u64::from(term_seconds);
    let (price, ahead) = (offer.price, COMMITMENT_SECONDS.min(term));
    let aside = price.cost(term.min(DAY_SECONDS + 2 * COMMITMENT_SECONDS));
    let length = |seconds: u64| Span::from_seconds(u32::try_from(seconds).unwrap_or(u32::MAX));
    let until = now.after(Duration::from_secs(term));
    let grace = offer.reserved.map_or(0, |terms| u64::from(terms.grace_seconds));
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<8}{value}");
    };
    let host = out::short(&offer.addr.node);
    line("offer", format!("{} in {} on {host} ({})", offer.class, offer.region, offer.resources));
    line("price", format!("{price}, locked, used or not"));
    line("term", format!("{}, until {until}", length(term)));
    line("total", format!("{}, fee included", price.cost(term)));
    line("aside", format!("{aside} at first; what is used of it is paid by the day"));
    line(
        "ahead",
        format!(
            "{} is paid {} ahead; it is lost where you end it early or stop paying",
            price.cost(ahead),
            length(ahead)
        ),
    );
    line("late", format!("a payment may be {} late, then it ends", length(grace)));
    line("refund", "a day of the term in which the host fails costs nothing".to_owned());
    line("end", "what runs on it is stopped with the term".to_owned());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_a_form_and_bounds() {
        assert_eq!(term("24h").unwrap(), 86_400);
        for wrong in ["1s", "31d", "soon", "", "-1h", "1e9d"] {
            assert!(term(wrong).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
