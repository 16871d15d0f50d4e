//! `welkin rewards explain`: every share of an account, and the proof of its claim.

use alloy_primitives::{Address, B256, U256};
use welkin_chain::ath;
use welkin_chain::ops::rewards::{self, Proof};
use welkin_ledger::epoch::{Cause, Claim, Claims, Share, Stream, UNIT_WEI};
use welkin_node::epoch::{Outcome, delivered_quality};
use welkin_types::AccountId;

use super::{name, published, settled};
use crate::cli::RewardsExplain;
use crate::{Context, Usage, out};

/// `welkin rewards explain`
pub(crate) async fn explain(context: &Context, args: &RewardsExplain) -> anyhow::Result<()> {
    let account: AccountId = args.account.parse().map_err(|error| {
        Usage::new(format!("{error}"), "`welkin balance` shows an account's address")
    })?;
    let published = published(context, &args.of.from).await?;
    let outcome = settled(&published, &args.of)?;
    if context.is_json {
        return out::json(&data(&outcome, account));
    }
    out::text(&text(&outcome, account))?;
    if !context.is_quiet && outcome.settled.claims.list().iter().all(|c| c.account != account) {
        out::note("this account has earned nothing until then");
    }
    Ok(())
}

/// All claims with their proofs, as `welkin claim --file` reads them.
pub(super) fn proofs(outcome: &Outcome) -> Vec<Proof> {
    proofs_of(&outcome.settled.claims, outcome.settled.epoch)
}

/// All totals with their proofs, as of this epoch.
pub(super) fn proofs_of(claims: &Claims, epoch: u32) -> Vec<Proof> {
    claims.list().iter().filter_map(|claim| proof(claims, epoch, claim)).collect()
}

fn proof(claims: &Claims, epoch: u32, claim: &Claim) -> Option<Proof> {
    let (claim, proof) = claims.proof(claim.account, claim.stream)?;
    let stream = match claim.stream {
        Stream::Hosts => rewards::Stream::Hosts,
        Stream::Checkers => rewards::Stream::Checkers,
        Stream::Indexers => rewards::Stream::Indexers,
    };
    Some(Proof {
        epoch,
        account: Address::from(*claim.account.as_bytes()),
        stream,
        total: claim.wei(),
        proof: proof.into_iter().map(B256::from).collect(),
    })
}

fn wei(units: u64) -> U256 {
    U256::from(units) * U256::from(UNIT_WEI)
}

/// The kind of work, and whose.
fn cause(outcome: &Outcome, share: &Share) -> (&'static str, String) {
    let checker = |number: u32| {
        let mut checkers = outcome.gathered.checkers.iter();
        let found = checkers.find(|(_, (its, _))| *its == number);
        found.map_or_else(|| number.to_string(), |(node, _)| node.to_string())
    };
    match share.cause {
        Cause::Capacity(container) => ("capacity", container.to_string()),
        Cause::Delivery(container) => ("delivery", container.to_string()),
        Cause::Tasks(number) => ("tasks", checker(number)),
        Cause::Bonus(number) => ("bonus", checker(number)),
        Cause::Matches => ("matches", share.account.to_string()),
    }
}

/// The mean quality of what was delivered, in basis points.
fn quality(outcome: &Outcome, share: &Share) -> Option<u16> {
    match share.cause {
        Cause::Delivery(container) => delivered_quality(&outcome.gathered, container),
        Cause::Capacity(_) | Cause::Tasks(_) | Cause::Bonus(_) | Cause::Matches => None,
    }
}

/// What a weight is the product of.
const fn formula(cause: Cause) -> &'static str {
    match cause {
        Cause::Capacity(_) => "capacity x idle seconds online x score",
        Cause::Delivery(_) => "capacity x seconds delivered x quality",
        Cause::Tasks(_) => "correct verdicts and findings",
        Cause::Bonus(_) => "earned by tasks in the quarter",
        Cause::Matches => "seconds delivered of what it matched, each with its fee",
    }
}

fn data(outcome: &Outcome, account: AccountId) -> serde_json::Value {
    let streams: Vec<_> = Stream::ALL
        .into_iter()
        .map(|stream| {
            let explained = outcome.settled.explain(account, stream);
            let shares: Vec<_> = explained
                .shares
                .iter()
                .map(|share| {
                    let (kind, of) = cause(outcome, share);
                    serde_json::json!({
                        "cause": kind,
                        "of": of,
                        "weight": share.weight.to_string(),
                        "formula": formula(share.cause),
                        "quality_bp": quality(outcome, share),
                        "amount_wei": wei(share.units),
                    })
                })
                .collect();
            let claim = outcome.settled.claims.claim(account, stream);
            serde_json::json!({
                "stream": name(stream),
                "before_wei": wei(explained.before),
                "total_wei": wei(explained.total),
                "shares": shares,
                "proof": claim.and_then(|claim| proof(&outcome.settled.claims, outcome.settled.epoch, &claim)),
            })
        })
        .collect();
    serde_json::json!({
        "epoch": outcome.gathered.epoch,
        "account": account,
        "root": super::hex(&outcome.settled.claims.root()),
        "streams": streams,
    })
}

fn text(outcome: &Outcome, account: AccountId) -> String {
    let mut text = format!(
        "{account} in epoch {}\nroot {}\n",
        outcome.gathered.epoch,
        super::hex(&outcome.settled.claims.root())
    );
    for stream in Stream::ALL {
        let explained = outcome.settled.explain(account, stream);
        let Some(claim) = outcome.settled.claims.claim(account, stream) else { continue };
        let rows: Vec<_> = explained
            .shares
            .iter()
            .map(|share| {
                let (kind, of) = cause(outcome, share);
                let mut formula = formula(share.cause).to_owned();
                if let Some(quality) = quality(outcome, share) {
                    formula.push_str(&format!(", {}.{:02} %", quality / 100, quality % 100));
                }
                let weight = share.weight.to_string();
                vec![kind.to_owned(), of, ath::show(wei(share.units)), weight, formula]
            })
            .collect();
        text.push_str(&format!("\n{}\n", name(stream)));
        text.push_str(&out::table(&["CAUSE", "OF", "AMOUNT", "WEIGHT", "WHICH IS"], &rows));
        let (before, total) = (ath::show(wei(explained.before)), ath::show(wei(explained.total)));
        text.push_str(&format!("before {before}, total {total}\n"));
        let proof = proof(&outcome.settled.claims, outcome.settled.epoch, &claim);
        let proof = proof.iter().flat_map(|proof| &proof.proof);
        proof.for_each(|hash| text.push_str(&format!("proof  {hash}\n")));
    }
    text
}
