//! `welkin epoch` and what explains it: evidence is collected or read, verified, and settled here.

mod assignments;
mod committee;
mod cosigns;
mod explain;
mod roots;
mod score;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use alloy_primitives::U256;
use anyhow::Context as _;
use welkin_chain::{ath, refusals};
use welkin_ledger::epoch::{Book, Claims, Emissions, Stream};
use welkin_node::epoch::{BookFile, Outcome, Published, TARGET_MICROS, outcome};
use welkin_node::{buyer::Collected, outside};
use welkin_proto::epoch::Span;
use welkin_types::Usd;

use crate::cli::{Epoch, EpochArgs, EvidenceArgs};
use crate::client::Client;
use crate::{Context, Usage, out};
use cosigns::{Compared, Words};

pub(crate) use assignments::assignments;
pub(crate) use explain::explain;
pub(crate) use roots::{counted_proofs, roots};
pub(crate) use score::score;

/// The largest book that is read, in bytes.
const BOOK_BYTES_MAX: u64 = 1 << 30;

/// `welkin epoch`
pub(crate) async fn epoch(context: &Context, args: &Epoch) -> anyhow::Result<()> {
    if let Some(command) = &args.command {
        return committee::step(context, command).await;
    }
    let (published, words) = shown(context, &args.of.from).await?;
    if let Some(file) = &args.save {
        let write = || format!("failed to write {}", file.display());
        let mut to = BufWriter::new(File::create(file).with_context(write)?);
        published.write(&mut to).with_context(write)?;
    }
    let outcome = settled(&published, &args.of)?;
    if let Some(file) = &args.proofs {
        write_json(file, &explain::proofs(&outcome))?;
    }
    if let Some(file) = &args.next {
        let price: Usd =
            args.ath_price.parse().ok().filter(|price: &Usd| !price.is_zero()).ok_or_else(
                || Usage::new(format!("`{}` is no price", args.ath_price), "as --ath-price 0.05"),
            )?;
        let mut book = outcome.settled.book.clone();
        // From micro-dollars to 18 decimals.
        let price = U256::from(price.micros()) * U256::from(1_000_000_000_000_u64);
        book.emissions.advance(outcome.settled.units, price);
        write_json(file, &BookFile::new(outcome.gathered.epoch, &book))?;
    }
    let compared =
        words.map(|words| Compared::new(&words, &published, &outcome, args.of.book.is_some()));
    if context.is_json {
        out::json(&summary(&published, &outcome, compared.as_ref()))
    } else {
        out::text(&text(&outcome, compared.as_ref()))
    }
}

fn write_json(file: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let write = || format!("failed to write {}", file.display());
    // Beside it first: what was there may be the only copy of what everybody has earned.
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let is_special = file.metadata().is_ok_and(|known| !known.is_file());
    let draft = if is_special { file } else { Path::new(&draft) };
    let mut to = BufWriter::new(File::create(draft).with_context(write)?);
    serde_json::to_writer(&mut to, value).with_context(write)?;
    to.flush().with_context(write)?;
    if !is_special {
        to.get_ref().sync_all().with_context(write)?;
        std::fs::rename(draft, file).with_context(write)?;
    }
    Ok(())
}

/// The evidence of a file, or of the indexers.
async fn published(context: &Context, from: &EvidenceArgs) -> anyhow::Result<Published> {
    shown(context, from).await.map(|(published, _)| published)
}

/// The same, and where indexers are asked, what checkers say that it came to.
async fn shown(
    context: &Context,
    from: &EvidenceArgs,
) -> anyhow::Result<(Published, Option<Words>)> {
    if let Some(file) = &from.evidence {
        let published = read(file)?;
        let its = published.heading.view.epoch;
        if let Some(epoch) = from.epoch.filter(|epoch| *epoch != its) {
            let text = format!("{} is the evidence of epoch {its}, not {epoch}", file.display());
            return Err(Usage::new(text, "leave --epoch away, or name another file").into());
        }
        return Ok((published, None));
    }
    let client = Client::open(context).await?;
    let collected = collect(context, &client, from.epoch).await;
    let words = match &collected {
        Ok(published) => Some(client.buyer.cosigns(&published.heading.view).await),
        Err(_) => None,
    };
    client.close().await;
    Ok((collected?, words))
}

/// Reads and verifies a file: nothing in it may be forged.
fn read(file: &Path) -> anyhow::Result<Published> {
    let opened = File::open(file).with_context(|| format!("failed to read {}", file.display()))?;
    let published = Published::read(BufReader::new(opened))
        .with_context(|| format!("{} is no evidence of an epoch", file.display()))?;
    if let Some((statement, why)) = published.first_forged() {
        // The heading is the first line.
        let (line, why) = (statement + 1, why.as_str());
        let text = format!("line {line} of {} is {why}: it is refused", file.display());
        let hint = "its author has not signed this: take the file from another source";
        return Err(Usage::new(text, hint).into());
    }
    Ok(published)
}

async fn collect(
    context: &Context,
    client: &Client,
    epoch: Option<u64>,
) -> anyhow::Result<Published> {
    let settle = client.buyer.settle();
    let epoch_seconds = settle.epoch(0).await?.epoch_seconds.max(1);
    let now = outside::now().0 / 1_000;
    let present = now / epoch_seconds;
    let is_closed = |epoch: &u64| Span::of(*epoch, epoch_seconds).closes() <= now;
    let last = || (0..=present).rev().find(is_closed).unwrap_or(present);
    let epoch = epoch.unwrap_or_else(last);
    if epoch > present {
        let text = format!("epoch {epoch} has not begun: the present one is {present}");
        return Err(Usage::new(text, "name an earlier one with --epoch").into());
    }
    let view = settle.epoch(epoch).await?;
    let Collected { mut published, indexers, left_out } = client.buyer.evidence(view).await?;
    let forged = published.drop_forged();
    if context.is_quiet {
        return Ok(published);
    }
    for (node, why) in
        indexers.iter().filter_map(|(node, found)| Some((node, found.as_ref().err()?)))
    {
        out::note(&format!("{} shows nothing: {why}", out::short(node)));
    }
    if forged > 0 {
        out::note(&format!("{forged} forged statements are left out: an indexer is at fault"));
    }
    if left_out > 0 {
        out::note(&format!("indexers had no room for {left_out} statements since their start"));
    }
    if !is_closed(&epoch) {
        let closes = refusals::time(Span::of(epoch, epoch_seconds).closes());
        out::note(&format!("the evidence is open until {closes}: what comes changes the root"));
    }
    Ok(published)
}

/// Verifies and settles, upon the book that is named.
fn settled(published: &Published, args: &EpochArgs) -> anyhow::Result<Outcome> {
    let gathered = published.gather();
    let book = match &args.book {
        None => Book::new(Emissions::new(TARGET_MICROS)),
        Some(file) => {
            let read = || format!("failed to read {}", file.display());
            let length = std::fs::metadata(file).with_context(read)?.len();
            anyhow::ensure!(length <= BOOK_BYTES_MAX, "{} is too large for a book", file.display());
            let bytes = std::fs::read(file).with_context(read)?;
            let book: BookFile = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is no book of an epoch", file.display()))?;
            book.before(gathered.epoch)?
        }
    };
    Ok(outcome(gathered, &book)?)
}

fn hex(bytes: &[u8]) -> String {
    alloy_primitives::hex::encode_prefixed(bytes)
}

const fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Hosts => "hosts",
        Stream::Checkers => "checkers",
        Stream::Indexers => "indexers",
    }
}

/// A stream's pool of this epoch, in wei.
fn pool(outcome: &Outcome, stream: Stream) -> U256 {
    let pools = &outcome.settled.pools;
    match stream {
        Stream::Hosts => pools.hosts,
        Stream::Checkers => pools.checkers + pools.bonus,
        Stream::Indexers => pools.indexers,
    }
}

fn claims_of(claims: &Claims, stream: Stream) -> usize {
    claims.list().iter().filter(|claim| claim.stream == stream).count()
}

fn summary(
    published: &Published,
    outcome: &Outcome,
    compared: Option<&Compared>,
) -> serde_json::Value {
    let Outcome { gathered, settled, .. } = outcome;
    let streams: Vec<_> = Stream::ALL
        .into_iter()
        .zip(settled.totals())
        .map(|(stream, total)| {
            serde_json::json!({
                "stream": name(stream),
                "pool_wei": pool(outcome, stream),
                "total_wei": total,
                "claims": claims_of(&settled.claims, stream),
            })
        })
        .collect();
    let refused: serde_json::Map<_, _> = gathered
        .refused
        .iter()
        .map(|(why, count)| (why.as_str().to_owned(), (*count).into()))
        .collect();
    serde_json::json!({
        "epoch": gathered.epoch,
        "number": settled.epoch,
        "seed": hex(&published.heading.view.seed),
        "start": gathered.span.start,
        "closes": gathered.span.closes(),
        "periods": gathered.span.periods,
        "root": hex(&settled.claims.root()),
        "data": hex(&settled.data),
        "evidence": hex(&settled.evidence),
        "statements": published.statements.len(),
        "refused": refused,
        "containers": gathered.containers.len(),
        "checkers": gathered.checkers.len(),
        "probes": gathered.probes.len(),
        "exams": gathered.exams.len(),
        "leases": gathered.leases.len(),
        "digests": gathered.leases.values().map(|lease| lease.digests.len()).sum::<usize>(),
        "units": settled.units,
        "signed": compared.map(Compared::json),
        "streams": streams,
    })
}

fn text(outcome: &Outcome, compared: Option<&Compared>) -> String {
    let Outcome { gathered, settled, .. } = outcome;
    let span = &gathered.span;
    let refused: Vec<_> =
        gathered.refused.iter().map(|(why, count)| format!("{count} {}", why.as_str())).collect();
    let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
    let signed = compared.map_or_else(String::new, |it| format!("signed     {}\n", it.text()));
    let rows: Vec<_> = Stream::ALL
        .into_iter()
        .zip(settled.totals())
        .map(|(stream, total)| {
            let claims = claims_of(&settled.claims, stream).to_string();
            vec![
                name(stream).to_owned(),
                ath::show(pool(outcome, stream)),
                ath::show(total),
                claims,
            ]
        })
        .collect();
    format!(
        "epoch      {} from {}, {} periods of {} s\n\
         root       {}\n\
         data       {}\n\
         evidence   {}\n\
         found      {} containers, {} checkers, {} probes, {} challenges, {} leases\n\
         refused    {refused}\n{signed}\n{}",
        gathered.epoch,
        refusals::time(span.start),
        span.periods,
        span.period_seconds,
        hex(&settled.claims.root()),
        hex(&settled.data),
        hex(&settled.evidence),
        gathered.containers.len(),
        gathered.checkers.len(),
        gathered.probes.len(),
        gathered.exams.len(),
        gathered.leases.len(),
        out::table(&["STREAM", "POOL", "TOTAL", "CLAIMS"], &rows),
    )
}
