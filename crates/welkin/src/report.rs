//! How a failure looks to a person. The only place that turns an error into text.

use std::fmt::Write as _;
use std::process::ExitCode;

use welkin_chain::ops::OpsError;
use welkin_chain::refusals::Refusal;
use welkin_chain::rpc::RpcError;
use welkin_chain::sender::SendError;
use welkin_node::buyer::BuyerError;
use welkin_node::keystore::KeystoreError;
use welkin_node::settlement::{ChainConfigError, SettlementError};
use welkin_proto::index::{Filter, WhyNot};
use welkin_proto::lease::RefusalCode;
use welkin_proto::settle::SettleRefusal;
use welkin_runtime::privileges::UserError;
use welkin_types::Reason;
use welkin_types::task::SpecError;

use crate::config::ConfigError;
use crate::{Quit, Usage};

/// Wrong use: flags, files, configuration.
const USAGE: u8 = 64;
/// The network or a host can't be reached.
const UNAVAILABLE: u8 = 69;
/// Not allowed.
const NOT_ALLOWED: u8 = 77;
/// Out of money or budget.
const MONEY: u8 = 78;
/// Can't be placed.
const NOT_PLACED: u8 = 2;

/// Prints an error to standard error and returns the code to leave with.
#[expect(clippy::print_stderr, reason = "this is the one place that reports failures")]
pub(crate) fn print(error: &anyhow::Error, is_json: bool) -> ExitCode {
    // A command that only passes on an exit code has nothing to say.
    if let Some(Quit(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let (text, code) = if is_json { data(error) } else { render(error) };
    eprint!("{text}");
    ExitCode::from(code)
}

/// A failure for programs: one line of JSON.
fn data(error: &anyhow::Error) -> (String, u8) {
    let Advice { hint, code } = advice_for(error);
    let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let value = serde_json::json!({
        "error": error.to_string(),
        "causes": causes,
        "hint": hint,
        "why_not": error.chain().find_map(|cause| match cause.downcast_ref() {
            Some(BuyerError::NothingFits(why)) => Some(why),
            _ => None,
        }),
        "exit_code": code,
    });
    (format!("{value}\n"), code)
}

fn advice_for(error: &anyhow::Error) -> Advice {
    error.chain().find_map(advice_on).unwrap_or(Advice { hint: None, code: 1 })
}

/// Renders an error, its causes and a hint.
pub(crate) fn render(error: &anyhow::Error) -> (String, u8) {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  caused by: {cause}");
    }
    let advice = advice_for(error);
    for cause in error.chain() {
        if let Some(BuyerError::NothingFits(why)) = cause.downcast_ref() {
            why_not(&mut text, why);
        }
    }
    if let Some(hint) = advice.hint {
        let _ = writeln!(text, "\nhint: {hint}");
    }
    (text, advice.code)
}

/// One line of advice and an exit code.
struct Advice {
    hint: Option<String>,
    code: u8,
}

fn advice(code: u8, hint: &str) -> Option<Advice> {
    Some(Advice { hint: (!hint.is_empty()).then(|| hint.to_owned()), code })
}

/// Advice by kind of error. Looks at every link of the chain: `anyhow`'s own `downcast_ref` would
/// stop at the outermost.
fn advice_on(cause: &(dyn std::error::Error + 'static)) -> Option<Advice> {
    if cause.is::<ConfigError>() {
        return advice(USAGE, "compare with `welkin.example.toml`, or run `welkin config`");
    }
    if cause.is::<SpecError>() {
        return advice(USAGE, "`welkin schema task` prints every key and its form");
    }
    if let Some(error) = cause.downcast_ref() {
        return on_user(error);
    }
    if let Some(Usage { hint, .. }) = cause.downcast_ref() {
        return advice(USAGE, hint);
    }
    if let Some(SettlementError::Refused(refusal)) = cause.downcast_ref() {
        return on_settlement(refusal);
    }
    if let Some(SettlementError::Unreachable(_)) = cause.downcast_ref() {
        let hint = "is the network up (`welkin up` starts one), and its chain's node reachable?";
        return advice(UNAVAILABLE, hint);
    }
    if let Some(OpsError::Unfit { next, is_money, .. }) = cause.downcast_ref() {
        return advice(if *is_money { MONEY } else { 1 }, next);
    }
    if let Some(refusal) = cause.downcast_ref() {
        return on_refusal(refusal);
    }
    if cause.is::<ChainConfigError>() {
        return advice(USAGE, "compare with `welkin.example.toml`, section [chain]");
    }
    if let Some(error) = cause.downcast_ref() {
        return on_sending(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return on_keystore(error);
    }
    if let Some(RpcError::Unreachable(_)) = cause.downcast_ref() {
        return advice(UNAVAILABLE, "is the network up? `welkin chain status` shows what answers");
    }
    cause.downcast_ref().and_then(on_buyer)
}

fn on_sending(error: &SendError) -> Option<Advice> {
    match error {
        SendError::NoCoins { .. } => advice(MONEY, "`welkin chain status` shows what it has"),
        SendError::Undone(_) => advice(1, "look at what changed, then run the command again"),
        _ => None,
    }
}

fn on_keystore(error: &KeystoreError) -> Option<Advice> {
    match error {
        KeystoreError::Passphrase(_) => {
            advice(NOT_ALLOWED, "is it another key's? the file may also be damaged: take its copy")
        }
        KeystoreError::Exists(_) => advice(USAGE, "take another name; keys are never written over"),
        KeystoreError::Unknown(_) => advice(USAGE, "`welkin key list` shows which there are"),
        KeystoreError::Name(_) | KeystoreError::Format { .. } => advice(USAGE, ""),
        _ => None,
    }
}

/// A contract's no.
fn on_refusal(refusal: &Refusal) -> Option<Advice> {
    let code = match refusal.name {
        "Funds" | "ERC20InsufficientBalance" | "ERC20InsufficientAllowance" | "TooDear" => MONEY,
        "NotOwner"
        | "NotOperator"
        | "NotAllowed"
        | "NotRunner"
        | "OnlyAccount"
        | "AccessManagedUnauthorized"
        | "AccessManagerUnauthorizedAccount"
        | "GovernorInsufficientProposerVotes"
        | "ERC721InsufficientApproval" => NOT_ALLOWED,
        _ => 1,
    };
    advice(code, refusal.next)
}

fn on_user(error: &UserError) -> Option<Advice> {
    match error {
        UserError::Unknown { name } => {
            let hint = format!(
                "make one (`useradd --system --shell /usr/sbin/nologin {name}`), or name another"
            );
            advice(USAGE, &hint)
        }
        UserError::Root { .. } => advice(USAGE, "name another user; empty: it stays root"),
        UserError::Closed { blocked, .. } => {
            let hint = format!(
                "take a folder that it can reach, such as `--dir /var/lib/welkin/dev`, or open the \
                 way with `chmod o+x {}`",
                blocked.display()
            );
            advice(USAGE, &hint)
        }
        UserError::Foreign { .. } => advice(USAGE, "name a folder that is empty or not there yet"),
        UserError::Exposed { .. } => advice(
            USAGE,
            "set `host.sandbox_dir` and `host.image_store` to folders that only root can change",
        ),
        _ => advice(1, ""),
    }
}

fn on_settlement(refusal: &SettleRefusal) -> Option<Advice> {
    match refusal {
        SettleRefusal::Funds { .. } => advice(MONEY, "add money: `welkin fund 10`"),
        SettleRefusal::NoFaucet => advice(NOT_ALLOWED, "ask for less; see `faucet_usd_max`"),
        SettleRefusal::NotAllowed | SettleRefusal::Signature => advice(NOT_ALLOWED, ""),
        _ => advice(1, ""),
    }
}

fn on_buyer(error: &BuyerError) -> Option<Advice> {
    match error {
        BuyerError::NothingFits(_) => {
            advice(NOT_PLACED, "ask for less, or see what there is: `welkin offers`")
        }
        BuyerError::UnknownRegion { .. } => advice(
            NOT_PLACED,
            "name one of them, or `any`; `welkin indexers` lists who serves them",
        ),
        BuyerError::NoHost(Reason::NoCapacity | Reason::HostsBusy) => {
            advice(NOT_PLACED, "wait longer with `--queue 10m`, or see `welkin offers`")
        }
        BuyerError::NoHost(_) => advice(NOT_PLACED, ""),
        BuyerError::HostRefuses { code: RefusalCode::Funds, .. } => {
            advice(MONEY, "see `welkin balance`; add test money with `welkin fund 10`")
        }
        BuyerError::HostRefuses { code: RefusalCode::Unknown, .. } => advice(NOT_ALLOWED, ""),
        BuyerError::HostRefuses { .. } => advice(NOT_PLACED, ""),
        BuyerError::NoIndexer(_) | BuyerError::NoIndexerNamed => {
            advice(UNAVAILABLE, "is the network up? start one with `welkin up`")
        }
        BuyerError::HostUnreachable { .. } | BuyerError::HostLost | BuyerError::HostSilent(_) => {
            advice(UNAVAILABLE, "the lease's last known state: `welkin ps -a`")
        }
        BuyerError::UnknownLease(_) => advice(USAGE, "`welkin ps -a` lists the leases"),
        BuyerError::UnknownReservation(_) => advice(USAGE, "`welkin reservations` lists them"),
        _ => None,
    }
}

fn why_not(text: &mut String, why: &WhyNot) {
    let _ = writeln!(text, "\n{} containers are known:", why.containers);
    for (filter, count) in &why.removed {
        let _ = writeln!(text, "  {count:>6} fail on {}", describe(*filter));
    }
    if why.nearest.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nnearest:");
    for near in &why.nearest {
        let container = &near.listing.container;
        let fails: Vec<_> = near.fails.iter().map(|filter| filter.as_str()).collect();
        // Of a gang it may be that only the others are missing.
        let why = match fails.as_slice() {
            [] => "fits by itself".to_owned(),
            fails => format!("differs in {}", fails.join(", ")),
        };
        let _ = writeln!(
            text,
            "  {} in {}: {}, {} ({why})",
            container.class, near.listing.region, container.resources, container.price,
        );
    }
}

const fn describe(filter: Filter) -> &'static str {
    match filter {
        Filter::Gpu => "gpu (model, memory or count)",
        Filter::Cpu => "cpu",
        Filter::Memory => "memory",
        Filter::Disk => "disk",
        Filter::Isolation => "isolation",
        Filter::Region => "region",
        Filter::Operator => "operator lists",
        Filter::Price => "price (--max-price)",
        Filter::Reliability => "reliability",
        Filter::Feature => "features",
        Filter::Driver => "driver",
        Filter::RoundTrip => "round trip (where.rtt_ms)",
        Filter::Capacity => "capacity type (on demand, spot or reserved)",
        Filter::App => "having the application ready",
        Filter::Excluded => "having refused just now",
        Filter::Free => "being free (full, draining or silent)",
        Filter::Together => "their number: too few fit together",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hint_are_shown_once() {
        let error = anyhow::Error::new(SettlementError::Refused(SettleRefusal::Funds {
            needed: welkin_types::Usd::from_micros(2_000_000),
            available: welkin_types::Usd::ZERO,
        }))
        .context("failed to lease");
        let (text, code) = render(&error);
        insta::assert_snapshot!(text, @r"
        error: failed to lease
          caused by: the settlement service refuses
          caused by: the account has $0.00, $2.00 is needed

        hint: add money: `welkin fund 10`
        ");
        assert_eq!(code, MONEY);
    }
}
