//! `welkin stake` and `welkin unstake`: what hosts' owners put up for their containers.

use alloy_primitives::{Address, B256, FixedBytes, U256, keccak256};
use serde::Serialize;
use welkin_chain::contracts::Staking;
use welkin_chain::deployment::Contract;
use welkin_chain::ops::stake::{self, Exit, Machine};
use welkin_chain::ops::{Act, typed_data};
use welkin_chain::{ath, refusals};
use welkin_proto::index::Listing;
use welkin_types::ContainerId;

use crate::cli::{Stake, StakeCommand, Unstake};
use crate::client::Client;
use crate::desk::{self, Office, Permission};
use crate::{Context, Usage, out};

/// `welkin stake`
pub(crate) async fn stake(context: &Context, args: &Stake) -> anyhow::Result<()> {
    match &args.command {
        Some(StakeCommand::List(look)) => {
            let office = Office::open(context, &look.who).await?;
            let result = list(context, &office).await;
            office.close().await;
            result
        }
        Some(StakeCommand::Register { container, class, sending }) => {
            let office = Office::open(context, &sending.who).await?;
            let result = async {
                let machine = offered(context, container, *class).await?;
                let acts = stake::register(&office.desk, &machine).await?;
                if acts.is_empty() && !context.is_quiet {
                    out::note("it is registered already");
                }
                office.carry_out(context, sending, &acts).await
            };
            let result = result.await;
            office.close().await;
            result.map(drop)
        }
        None => {
            let Some(container) = &args.container else {
                let hint = "`welkin stake CONTAINER [AMOUNT]`, `welkin stake list`";
                return Err(Usage::new("say for which container", hint).into());
            };
            let office = Office::open(context, &args.sending.who).await?;
            let result = put_up(context, &office, container, args).await;
            office.close().await;
            result
        }
    }
}

/// Registers what is missing, then stakes.
async fn put_up(
    context: &Context,
    office: &Office,
    container: &str,
    args: &Stake,
) -> anyhow::Result<()> {
    let desk = &office.desk;
    let (subject, class, mut acts) = match known(office, container).await? {
        Some(subject) => {
            let (class, acts) = commitment(office, subject).await?;
            (subject, class, acts)
        }
        None => {
            let machine = offered(context, container, args.class).await?;
            if machine.operator != desk.account() {
                let operator = machine.operator;
                let text = format!("the container's operator is {operator}, not this account");
                let hint = format!(
                    "act as its operator (`--as host`), or, if it is yours, first register it: \
                     `welkin stake register {container}`"
                );
                return Err(Usage::new(text, hint).into());
            }
            let acts = stake::register(desk, &machine).await?;
            (machine.subject(desk.account()), args.class, acts)
        }
    };
    let amount = match &args.amount {
        Some(text) => sum(text)?,
        None => {
            let call = Staking::requirementCall { class };
            let needed = desk.look(Contract::Staking, call).await?;
            needed.saturating_sub(stake::standing(desk, subject).await?.staked)
        }
    };
    let permission = desk::permission(office, &args.permit, Contract::Staking, amount);
    match permission.await? {
        Permission::Printed => return Ok(()),
        _ if amount.is_zero() && args.amount.is_none() => out::note("enough is staked already"),
        Permission::None => acts.extend(stake::stake(desk, subject, amount).await?),
        Permission::Signed(signature, until) => {
            let permit = typed_data::permitted(desk, Contract::Staking, amount, until, &signature);
            acts.push(permit.await?);
            let call = Staking::stakeCall { subject, amount };
            acts.push(desk.act(
                format!("stake {}", ath::show(amount)),
                Contract::Staking,
                &call,
            )?);
        }
    }
    if office.carry_out(context, &args.sending, &acts).await?.is_none() {
        return Ok(());
    }
    let stands = stake::standing(desk, subject).await?;
    let state = state(&stands);
    if context.is_json {
        return out::json(&Row::of(&stands, None));
    }
    out::text(&format!(
        "{} staked of {} that are needed; {state}\n",
        ath::show(stands.staked),
        ath::show(stands.required)
    ))
}

/// A registered container's class, and its owner's commitment, where that is missing or the class
/// needs another stake by now.
async fn commitment(office: &Office, subject: B256) -> anyhow::Result<(u32, Vec<Act>)> {
    let desk = &office.desk;
    let stands = stake::standing(desk, subject).await?;
    let class = stands.class;
    if stands.owner != desk.account() {
        return Ok((class, Vec::new()));
    }
    let call = Staking::requirementCall { class };
    let needed = desk.look(Contract::Staking, call).await?;
    if needed == stands.required {
        return Ok((class, Vec::new()));
    }
    let what = format!("commit to a stake of {}", ath::show(needed));
    let act = desk.act(what, Contract::Staking, &Staking::commitCall { subject })?;
    Ok((class, vec![act]))
}

/// A container that is on offer, as the registry will know it.
async fn offered(context: &Context, text: &str, class: u32) -> anyhow::Result<Machine> {
    let client = Client::open(context).await?;
    let rows = client.buyer.offers(None).await;
    client.close().await;
    let prefix = if text.starts_with("ctr_") { text.to_owned() } else { format!("ctr_{text}") };
    let rows = rows?;
    let mut fitting = rows.iter().filter(|row| row.container.id.to_string().starts_with(&prefix));
    let found = match (fitting.next(), fitting.next()) {
        (Some(row), None) => row,
        (Some(_), Some(_)) => {
            let text = format!("more than one container begins with `{text}`");
            return Err(Usage::new(text, "give more of its id").into());
        }
        (None, _) => {
            let hint = "`welkin offers` lists them; its host must be running to be registered";
            return Err(Usage::new(format!("no container `{text}` is on offer"), hint).into());
        }
    };
    Ok(machine(found, class))
}

fn machine(row: &Listing, class: u32) -> Machine {
    Machine {
        host: B256::from(*row.addr.node.as_bytes()),
        container: FixedBytes::from(*row.container.id.as_bytes()),
        class,
        fingerprint: fingerprint(row),
        operator: welkin_chain::address(row.operator),
    }
}

/// The hash of what a container has: another machine is another fingerprint.
fn fingerprint(row: &Listing) -> B256 {
    let (class, resources) = (&row.container.class, &row.container.resources);
    let gpus = serde_json::to_string(&resources.gpus).unwrap_or_default();
    keccak256(format!(
        "welkin/hardware/1\n{class}\n{}\n{}\n{}\n{gpus}",
        resources.cpu_milli, resources.memory_bytes, resources.disk_bytes,
    ))
}

/// The entry of a container that is registered, by its id or that of the entry.
async fn known(office: &Office, text: &str) -> anyhow::Result<Option<B256>> {
    let wanted = text.to_ascii_lowercase();
    let all = stake::containers(&office.desk).await?;
    let mut fitting = all.into_iter().filter(|(subject, container)| {
        let container = ContainerId::from_bytes(container.0).to_string();
        container.starts_with(&wanted)
            || container.trim_start_matches("ctr_").starts_with(&wanted)
            || (wanted.starts_with("0x") && subject.to_string().starts_with(&wanted))
    });
    let Some((first, _)) = fitting.next() else { return Ok(None) };
    let mut own = None;
    for (subject, _) in std::iter::once((first, FixedBytes::ZERO)).chain(fitting) {
        let stands = stake::standing(&office.desk, subject).await?;
        let is_own = stands.owner == office.desk.account() || !stands.own.is_zero();
        if is_own && own.replace(subject).is_some() {
            let text = format!("more than one container begins with `{text}`");
            return Err(Usage::new(text, "give more of its id").into());
        }
    }
    Ok(Some(own.unwrap_or(first)))
}

/// A sum of ATH.
fn sum(text: &str) -> anyhow::Result<U256> {
    let plain = text.to_ascii_uppercase();
    let plain = plain.strip_suffix("ATH").unwrap_or(&plain);
    let wei = ath::parse(plain).map_err(|error| Usage::new(error.to_string(), ""))?;
    Ok(wei)
}

/// `welkin unstake`
pub(crate) async fn unstake(context: &Context, args: &Unstake) -> anyhow::Result<()> {
    let office = Office::open(context, &args.sending.who).await?;
    let result = ask_back(context, &office, args).await;
    office.close().await;
    result
}

async fn ask_back(context: &Context, office: &Office, args: &Unstake) -> anyhow::Result<()> {
    let acts = if args.withdraw {
        let due = stake::take_due(&office.desk).await?;
        if due.is_empty() && !context.is_quiet {
            out::note("nothing is due yet");
        }
        due
    } else {
        let container = args.container.as_deref().unwrap_or_default();
        let subject = known(office, container).await?.ok_or_else(|| {
            let text = format!("no container `{container}` is registered");
            Usage::new(text, "`welkin stake list` shows yours")
        })?;
        let amount = match args.amount.as_deref().unwrap_or("all") {
            "all" => None,
            text => Some(sum(text)?),
        };
        vec![stake::unstake(&office.desk, subject, amount).await?]
    };
    if office.carry_out(context, &args.sending, &acts).await?.is_none() {
        return Ok(());
    }
    let exits = stake::exits(&office.desk).await?;
    exits_out(context, &exits)
}

/// A stake as it is listed; sums in wei.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    subject: B256,
    container: Option<ContainerId>,
    owner: Address,
    class: u32,
    state: &'static str,
    required_wei: U256,
    staked_wei: U256,
    own_wei: U256,
    slashed_wei: U256,
}

impl Row {
    fn of(stands: &stake::Stake, container: Option<FixedBytes<16>>) -> Self {
        Self {
            kind: "stake",
            subject: stands.subject,
            container: container.map(|id| ContainerId::from_bytes(id.0)),
            owner: stands.owner,
            class: stands.class,
            state: state(stands),
            required_wei: stands.required,
            staked_wei: stands.staked,
            own_wei: stands.own,
            slashed_wei: stands.slashed,
        }
    }
}

/// In one word or two why it earns, or not.
fn state(stands: &stake::Stake) -> &'static str {
    if stands.is_active {
        "active"
    } else if stands.required.is_zero() {
        "not committed"
    } else if stands.staked < stands.required {
        "too little"
    } else if stands.is_verified {
        "commit again"
    } else {
        "not verified"
    }
}

async fn list(context: &Context, office: &Office) -> anyhow::Result<()> {
    let stakes = stake::list(&office.desk).await?;
    let names = stake::containers(&office.desk).await?;
    let rows: Vec<Row> = stakes
        .iter()
        .map(|stands| {
            let name = names.iter().find(|(subject, _)| *subject == stands.subject);
            Row::of(stands, name.map(|(_, container)| *container))
        })
        .collect();
    let exits = stake::exits(&office.desk).await?;
    if context.is_json {
        rows.iter().try_for_each(out::json)?;
    } else if rows.is_empty() {
        out::note("this account has no stakes: `welkin stake CONTAINER` puts one up");
    } else {
        let cells = |row: &Row| {
            let name = row.container.map_or_else(|| out::short(&row.subject), |id| out::short(&id));
            vec![
                name,
                row.class.to_string(),
                row.state.to_owned(),
                ath::show(row.required_wei),
                ath::show(row.staked_wei),
                ath::show(row.own_wei),
                ath::show(row.slashed_wei),
            ]
        };
        let rows: Vec<_> = rows.iter().map(cells).collect();
        let head = ["CONTAINER", "CLASS", "STATE", "NEEDED", "STAKED", "OWN", "SLASHED"];
        out::text(&out::table(&head, &rows))?;
    }
    if exits.is_empty() { Ok(()) } else { exits_out(context, &exits) }
}

fn exits_out(context: &Context, exits: &[Exit]) -> anyhow::Result<()> {
    if context.is_json {
        return exits.iter().try_for_each(|exit| {
            out::json(&serde_json::json!({
                "kind": "exit", "number": exit.number, "subject": exit.subject,
                "amount_wei": exit.amount, "at": exit.end,
            }))
        });
    }
    if exits.is_empty() {
        out::note("nothing is on its way back");
        return Ok(());
    }
    let cells = |exit: &Exit| {
        vec![exit.number.to_string(), ath::show(exit.amount), refusals::time(exit.end)]
    };
    let rows: Vec<_> = exits.iter().map(cells).collect();
    out::text(&format!("\n{}", out::table(&["EXIT", "AMOUNT", "FROM"], &rows)))?;
    if !context.is_quiet {
        out::note("`welkin unstake --withdraw` takes what is due; until then it can be slashed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_may_say_their_unit() {
        for text in ["100", "100ATH", "100 ath"] {
            assert_eq!(sum(text).unwrap(), U256::from(100) * U256::from(10).pow(U256::from(18)));
        }
        assert!(sum("$5").is_err());
    }
}
