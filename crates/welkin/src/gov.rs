//! `welkin gov`: decisions about the network's parameters.

use std::time::Duration;

use alloy_primitives::{Bytes, U256};
use serde::Serialize;
use serde_json::json;
use welkin_chain::contracts::WelkinGovernor;
use welkin_chain::deployment::Contract;
use welkin_chain::ops::gov::{self, Proposal, Support};
use welkin_chain::ops::params::State;
use welkin_chain::ops::{Act, calls, typed_data};
use welkin_chain::{ath, refusals};

use crate::cli::{Gov, GovCommand, Sending, Vote, Who};
use crate::desk::{self, Office};
use crate::{Context, Usage, out};

/// Columns of a description in a list.
const DESCRIPTION_SHOWN: usize = 50;
/// The governor's error for a proposer with too few votes.
const TOO_FEW_VOTES: &str = "GovernorInsufficientProposerVotes";
/// How many seconds fresh votes are waited for: longer than a block takes anywhere.
const COUNTED_TRIES: u32 = 15;

/// `welkin gov`
pub(crate) async fn gov(context: &Context, args: &Gov) -> anyhow::Result<()> {
    let office = Office::open(context, who(&args.command)).await?;
    let result = command(context, &office, &args.command).await;
    office.close().await;
    result
}

const NOBODY: &Who = &Who { name: None, from: None };

const fn who(command: &GovCommand) -> &Who {
    match command {
        GovCommand::Propose { sending, .. }
        | GovCommand::Vote { sending, .. }
        | GovCommand::Queue { sending, .. }
        | GovCommand::Execute { sending, .. }
        | GovCommand::Cancel { sending, .. }
        | GovCommand::Delegate { sending, .. } => &sending.who,
        GovCommand::List(look) => &look.who,
        GovCommand::Show { who, .. } => who,
        GovCommand::Params { .. } => NOBODY,
    }
}

async fn command(context: &Context, office: &Office, command: &GovCommand) -> anyhow::Result<()> {
    let desk = &office.desk;
    match command {
        GovCommand::Propose { changes, calls, why, sending } => {
            let list = wanted(office, changes, calls).await?;
            propose(context, office, list, why, sending).await
        }
        GovCommand::Vote { id, vote, why, typed_data, signature, voter, sending } => {
            let proposal = gov::find(desk, id).await?;
            let support = match vote {
                Vote::For => Support::For,
                Vote::Against => Support::Against,
                Vote::Abstain => Support::Abstain,
            };
            if *typed_data {
                return out::json(&typed_data::ballot(desk, &proposal, support).await?);
            }
            let act = match (signature, voter) {
                (Some(signature), Some(voter)) => {
                    let signature = desk::signature("--signature", signature)?;
                    let voter = desk::address("--voter", voter)?;
                    typed_data::cast(desk, &proposal, support, voter, &signature).await?
                }
                _ => gov::vote(desk, &proposal, support, why).await?,
            };
            act_on(context, office, &proposal, act, sending).await
        }
        GovCommand::Queue { id, sending } => {
            let proposal = gov::find(desk, id).await?;
            let act = gov::queue(desk, &proposal).await?;
            act_on(context, office, &proposal, act, sending).await
        }
        GovCommand::Execute { id, sending } => {
            let proposal = gov::find(desk, id).await?;
            let act = gov::execute(desk, &proposal).await?;
            act_on(context, office, &proposal, act, sending).await
        }
        GovCommand::Cancel { id, sending } => {
            let proposal = gov::find(desk, id).await?;
            let act = gov::cancel(desk, &proposal).await?;
            act_on(context, office, &proposal, act, sending).await
        }
        GovCommand::List(_) => list(context, office).await,
        GovCommand::Show { id, .. } => show(context, office, &gov::find(desk, id).await?),
        GovCommand::Params { part } => params(context, office, part.as_deref()).await,
        GovCommand::Delegate { to, sending } => {
            let to = match to.as_str() {
                "self" => desk.account(),
                text => desk::address("the account", text)?,
            };
            let acts = gov::delegate(desk, to).await?;
            if acts.is_empty() && !context.is_quiet {
                out::note("it counts so already");
            }
            if office.carry_out(context, sending, &acts).await?.is_some() && !context.is_json {
                let votes = ath::show(gov::votes(desk).await?);
                out::note(&format!("this account has {votes} of votes"));
            }
            Ok(())
        }
    }
}

/// The calls of a proposal. Changes of one contract that are set together build on each other.
async fn wanted(
    office: &Office,
    changes: &[String],
    raw: &[String],
) -> anyhow::Result<Vec<(Contract, Bytes)>> {
    let mut list: Vec<(Contract, Bytes)> = Vec::new();
    if !changes.is_empty() {
        let mut state = State::read(&office.desk).await?;
        for text in changes {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Usage::new(format!("`{text}` is no change"), "write it as `escrow.fee=15%`")
            })?;
            let all = state.values();
            let known = all.iter().find(|value| value.name == name).ok_or_else(|| {
                let text = format!("there is no parameter `{name}`{}", nearest(&all, name));
                Usage::new(text, "`welkin gov params` lists them; anything else by --call")
            })?;
            let value = known
                .unit
                .parse(value)
                .map_err(|error| Usage::new(format!("{name}: {error}"), known.bounds()))?;
            let change = state.set(name, value);
            let change = change.map_err(|error| Usage::new(error.to_string(), known.about))?;
            let selector = change.input.first_chunk::<4>().copied();
            let is_whole = list.iter().position(|(contract, input)| {
                *contract == change.contract
                    && input.first_chunk::<4>().copied() == selector
                    && is_together(name)
                    && input.get(4..36) == change.input.get(4..36)
            });
            match is_whole {
                Some(before) => list[before].1 = change.input,
                None => list.push((change.contract, change.input)),
            }
        }
    }
    for text in raw {
        list.push(calls::parse(text).map_err(|error| {
            Usage::new(welkin_node::chain(&error), "such as --call 'escrow.setFee(1500)'")
        })?);
    }
    if list.is_empty() {
        let hint = "`welkin gov propose escrow.fee=15%`; `welkin gov params` lists all";
        return Err(Usage::new("a proposal must change something", hint).into());
    }
    Ok(list)
}

/// Whether a parameter is one of those that are set for one class, tier or stream together.
fn is_together(name: &str) -> bool {
    name.split('.').count() > 2
}

fn nearest(all: &[welkin_chain::ops::params::Value], name: &str) -> String {
    let field = name.rsplit('.').next().unwrap_or(name);
    let near = all.iter().find(|value| value.name.ends_with(&format!(".{field}")));
    near.map_or_else(String::new, |value| format!("; did you mean `{}`?", value.name))
}

async fn propose(
    context: &Context,
    office: &Office,
    list: Vec<(Contract, Bytes)>,
    why: &str,
    sending: &Sending,
) -> anyhow::Result<()> {
    let places = office.desk.deployment().contracts;
    let texts: Vec<_> = list
        .iter()
        .map(|(contract, input)| calls::show(&places, places.of(*contract), input))
        .collect();
    let why = if why.is_empty() { texts.join("; ") } else { why.to_owned() };
    let (id, mut act) = counted(office, list, &why).await?;
    act.what = format!("propose {}", texts.join("; "));
    if office.carry_out(context, sending, &[act]).await?.is_none() {
        return Ok(());
    }
    show(context, office, &gov::find(&office.desk, &gov::hex(id)).await?)
}

/// Makes a proposal. Votes count from the second after they were delegated: where there are enough
/// by now, this waits for that.
async fn counted(
    office: &Office,
    list: Vec<(Contract, Bytes)>,
    why: &str,
) -> anyhow::Result<(U256, Act)> {
    let threshold = WelkinGovernor::proposalThresholdCall {};
    for _ in 0..COUNTED_TRIES {
        match gov::propose(&office.desk, list.clone(), why).await {
            Err(error) if error.refusal().is_some_and(|it| it.name == TOO_FEW_VOTES) => {
                let needed = office.desk.look(Contract::Governor, threshold.clone()).await?;
                if gov::votes(&office.desk).await? < needed {
                    return Err(error.into());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return Ok(other?),
        }
    }
    Ok(gov::propose(&office.desk, list, why).await?)
}

/// Does something with a proposal, and shows how it stands then.
async fn act_on(
    context: &Context,
    office: &Office,
    proposal: &Proposal,
    act: Act,
    sending: &Sending,
) -> anyhow::Result<()> {
    if office.carry_out(context, sending, &[act]).await?.is_none() {
        return Ok(());
    }
    show(context, office, &gov::find(&office.desk, &gov::hex(proposal.id)).await?)
}

/// A proposal for programs; sums in wei, times in seconds since 1970.
#[derive(Debug, Serialize)]
struct Data<'a> {
    id: String,
    state: &'static str,
    proposer: String,
    calls: Vec<String>,
    description: &'a str,
    vote_start: u64,
    vote_end: u64,
    eta: u64,
    votes_for: String,
    votes_against: String,
    votes_abstain: String,
    quorum: String,
    has_voted: bool,
    next: Option<&'static str>,
    next_at: Option<u64>,
}

fn data<'a>(office: &Office, proposal: &'a Proposal) -> Data<'a> {
    Data {
        id: gov::hex(proposal.id),
        state: proposal.state,
        proposer: proposal.proposer.to_string(),
        calls: proposal.call_texts(&office.desk),
        description: &proposal.description,
        vote_start: proposal.vote_start,
        vote_end: proposal.vote_end,
        eta: proposal.eta,
        votes_for: proposal.votes_for.to_string(),
        votes_against: proposal.votes_against.to_string(),
        votes_abstain: proposal.votes_abstain.to_string(),
        quorum: proposal.quorum.to_string(),
        has_voted: proposal.has_voted,
        next: proposal.next().map(|(what, _)| what),
        next_at: proposal.next().map(|(_, at)| at),
    }
}

fn show(context: &Context, office: &Office, proposal: &Proposal) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(&data(office, proposal));
    }
    let id = gov::hex(proposal.id);
    let votes = format!(
        "{} for, {} against, {} neither; {} needed",
        ath::show(proposal.votes_for),
        ath::show(proposal.votes_against),
        ath::show(proposal.votes_abstain),
        ath::show(proposal.quorum)
    );
    let mut lines = vec![
        ("proposal", id.clone()),
        ("state", proposal.state.to_owned()),
        ("by", proposal.proposer.to_string()),
    ];
    lines.extend(proposal.call_texts(&office.desk).into_iter().map(|text| ("calls", text)));
    lines.push(("why", plain(&proposal.description)));
    let (start, end) = (refusals::time(proposal.vote_start), refusals::time(proposal.vote_end));
    lines.push(("vote", format!("{start} to {end}")));
    lines.push(("votes", votes));
    if let Some((what, at)) = proposal.next() {
        let short: String = id.chars().take(10).collect();
        let from =
            if at == 0 { String::new() } else { format!(", from {} on", refusals::time(at)) };
        let vote = if what == "vote" { " for|against|abstain" } else { "" };
        lines.push(("next", format!("`welkin gov {what} {short}{vote}`{from}")));
    }
    let text: String = lines.iter().map(|(label, value)| format!("{label:<9} {value}\n")).collect();
    out::text(&text)
}

/// What others wrote, without what could play tricks with a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn list(context: &Context, office: &Office) -> anyhow::Result<()> {
    let all = gov::list(&office.desk).await?;
    if context.is_json {
        return all.iter().try_for_each(|proposal| out::json(&data(office, proposal)));
    }
    if all.is_empty() {
        out::note("nothing was proposed yet: `welkin gov propose escrow.fee=15%`");
        return Ok(());
    }
    let cells = |proposal: &Proposal| {
        let next = proposal.next().map_or_else(
            || "-".to_owned(),
            |(what, at)| match at {
                0 => what.to_owned(),
                at => format!("{what} from {}", refusals::time(at)),
            },
        );
        let why: String = plain(&proposal.description).chars().take(DESCRIPTION_SHOWN).collect();
        vec![
            gov::hex(proposal.id).chars().take(10).collect(),
            proposal.state.to_owned(),
            ath::show(proposal.votes_for),
            ath::show(proposal.votes_against),
            next,
            why,
        ]
    };
    let rows: Vec<_> = all.iter().map(cells).collect();
    out::text(&out::table(&["PROPOSAL", "STATE", "FOR", "AGAINST", "NEXT", "WHY"], &rows))
}

async fn params(context: &Context, office: &Office, part: Option<&str>) -> anyhow::Result<()> {
    let all = State::read(&office.desk).await?.values();
    let wanted = all.iter().filter(|value| part.is_none_or(|part| value.name.contains(part)));
    if context.is_json {
        return wanted.into_iter().try_for_each(|value| {
            out::json(&json!({
                "name": value.name, "contract": value.contract.name(),
                "value": value.to_string(), "raw": value.value, "bounds": value.bounds(),
                "min": value.min, "max": value.max, "about": value.about,
            }))
        });
    }
    let rows: Vec<_> = wanted
        .map(|value| {
            let about = value.about.to_owned();
            vec![value.name.clone(), value.to_string(), value.bounds(), about]
        })
        .collect();
    if rows.is_empty() {
        out::note("there are no such parameters");
        return Ok(());
    }
    out::text(&out::table(&["PARAMETER", "VALUE", "BOUNDS", "WHAT FOR"], &rows))
}
