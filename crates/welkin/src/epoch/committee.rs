//! `welkin epoch sign`, `propose` and `accept`: from a root that anybody computes to one that counts.

use alloy_primitives::Address;
use welkin_chain::ops::committee::{self, Epoch};
use welkin_chain::ops::typed_data::{self, Signature};
use welkin_node::epoch::{Outcome, contract_epoch};
use welkin_node::outside;
use welkin_proto::epoch::Heading;
use welkin_proto::epoch::Span;

use super::{published, settled};
use crate::cli::{EpochAccept, EpochArgs, EpochCommand, EpochPropose, EpochSign};
use crate::client::Client;
use crate::desk::{self, Office};
use crate::{Context, Usage, out};

/// Carries out one step.
pub(super) async fn step(context: &Context, command: &EpochCommand) -> anyhow::Result<()> {
    match command {
        EpochCommand::Sign(args) => sign(context, args).await,
        EpochCommand::Propose(args) => propose(context, args).await,
        EpochCommand::Accept(args) => accept(context, args).await,
    }
}

async fn settle(context: &Context, of: &EpochArgs) -> anyhow::Result<Epoch> {
    let published = published(context, &of.from).await?;
    check_heading(context, &published.heading).await?;
    let Outcome { settled, .. } = settled(&published, of)?;
    Ok(contract_epoch(&settled))
}

/// What a member signs is of this network and over: a file's heading says only what its author wrote.
async fn check_heading(context: &Context, heading: &Heading) -> anyhow::Result<()> {
    let (epoch, its) = (heading.view.epoch, &heading.view);
    let client = Client::open(context).await?;
    let (domain, view) = (*client.buyer.domain(), client.buyer.settle().epoch(epoch).await);
    client.close().await;
    let view = view?;
    let differs = [
        ("network", heading.domain != domain),
        ("seed", its.seed != view.seed),
        ("length", its.epoch_seconds != view.epoch_seconds),
        ("list of checkers", its.checkers != view.checkers),
    ];
    if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
        let text = format!("the evidence of epoch {epoch} has another {what} than the settlement");
        return Err(Usage::new(text, "collect it anew: leave --evidence away").into());
    }
    if Span::of(epoch, view.epoch_seconds).closes() > outside::now().0 / 1_000 {
        let text = format!("the evidence of epoch {epoch} is still open: its root may change");
        return Err(Usage::new(text, "sign it when it is closed").into());
    }
    Ok(())
}

async fn sign(context: &Context, args: &EpochSign) -> anyhow::Result<()> {
    let epoch = settle(context, &args.of).await?;
    let office = Office::open(context, &args.who).await?;
    let work = async {
        let data = committee::to_sign(&office.desk, &epoch).await?;
        if args.typed_data {
            return out::json(&data);
        }
        let member = office.desk.account();
        let signed = office.identity.key()?.sign(&typed_data::digest(&data)?)?;
        let bytes = [&signed.r[..], &signed.s, &[signed.v]].concat();
        let signature = super::hex(&bytes);
        let (members, threshold) = committee::members(&office.desk).await?;
        if !context.is_quiet && !members.contains(&member) {
            out::note(&format!(
                "{member} is no member: {threshold} of these must sign: {members:?}"
            ));
        }
        if context.is_json {
            return out::json(&serde_json::json!({
                "number": epoch.number,
                "root": epoch.root,
                "data": epoch.data,
                "member": member,
                "signature": signature,
            }));
        }
        out::text(&format!("{member}:{signature}\n"))
    };
    let done = work.await;
    office.close().await;
    done
}

/// `ADDRESS:SIGNATURE`, as `sign` prints it.
fn signature(text: &str) -> Result<(Address, Signature), Usage> {
    let hint = "as `welkin epoch sign` prints it: ADDRESS:SIGNATURE";
    let (member, signature) = text
        .split_once(':')
        .ok_or_else(|| Usage::new(format!("`{text}` names no member"), hint))?;
    Ok((desk::address("the member", member)?, desk::signature("the signature", signature)?))
}

async fn propose(context: &Context, args: &EpochPropose) -> anyhow::Result<()> {
    let signatures: Vec<_> =
        args.signatures.iter().map(|text| signature(text)).collect::<Result<_, _>>()?;
    let epoch = settle(context, &args.of).await?;
    let office = Office::open(context, &args.sending.who).await?;
    let work = async {
        let act = committee::propose(&office.desk, &epoch, signatures).await?;
        if office.carry_out(context, &args.sending, &[act]).await?.is_some() && !context.is_quiet {
            out::note("it can be contested for a while; then `welkin epoch accept` makes it count");
        }
        Ok(())
    };
    let done = work.await;
    office.close().await;
    done
}

async fn accept(context: &Context, args: &EpochAccept) -> anyhow::Result<()> {
    let office = Office::open(context, &args.sending.who).await?;
    let work = async {
        let act = committee::accept(&office.desk).await?;
        office.carry_out(context, &args.sending, &[act]).await.map(drop)
    };
    let done = work.await;
    office.close().await;
    done
}
