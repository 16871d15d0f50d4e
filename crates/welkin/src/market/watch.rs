//! `welkin offers --watch`: what changes on the market, as it changes.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;
use welkin_node::buyer::BuyerError;
use welkin_node::outside;
use welkin_proto::index::Listing;
use welkin_types::task::Needs;
use welkin_types::{ContainerId, NodeId, UnixMillis};

use super::listing_table;
use crate::client::Client;
use crate::{Context, Usage, out, roles, task, terminal};

/// The shortest time between two looks.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// The market as it was seen last.
type Market = BTreeMap<(NodeId, ContainerId), Listing>;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Change<'a> {
    change: Kind,
    at: UnixMillis,
    offer: &'a Listing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Added,
    Changed,
    Removed,
}

impl Kind {
    const fn mark(self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed => '~',
            Self::Removed => '-',
        }
    }
}

/// Shows changes until it is interrupted. An indexer that does not answer is asked again.
pub(super) async fn watch(
    context: &Context,
    client: &Client,
    needs: Option<Needs>,
    every: &str,
) -> anyhow::Result<()> {
    let every = task::duration("every", every)?;
    if every < EVERY_MIN {
        let text = format!("--every: {} is too often", out::duration(every));
        return Err(Usage::new(text, "the shortest is `1s`").into());
    }
    let mut screen = Screen::new(context);
    let mut known = Market::new();
    let mut is_lost = false;
    let stopped = roles::stop_signal();
    tokio::pin!(stopped);
    loop {
        let rows = tokio::select! {
            rows = client.buyer.offers(needs.clone()) => rows,
            stop = &mut stopped => return stop,
        };
        match rows {
            Ok(rows) => {
                if std::mem::take(&mut is_lost) {
                    screen.say("the indexer answers again");
                }
                let key = |row: Listing| ((row.addr.node, row.container.id), row);
                let now: Market = rows.into_iter().map(key).collect();
                screen.show(&known, &now)?;
                known = now;
            }
            Err(error @ (BuyerError::NoIndexer(_) | BuyerError::Wire(_))) => {
                if !std::mem::replace(&mut is_lost, true) {
                    let why = welkin_node::chain(&error);
                    screen.say(&format!("the indexer does not answer ({why}); trying again"));
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => (),
            stop = &mut stopped => return stop,
        }
    }
}

/// Where changes are shown: a table that is drawn anew on a terminal, else lines.
struct Screen {
    is_json: bool,
    is_quiet: bool,
    is_terminal: bool,
    /// Lines of the table that is there.
    drawn: usize,
    is_first: bool,
}

impl Screen {
    fn new(context: &Context) -> Self {
        Self {
            is_json: context.is_json,
            is_quiet: context.is_quiet,
            is_terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            is_first: true,
        }
    }

    fn say(&mut self, text: &str) {
        if !self.is_quiet {
            out::note(&format!("welkin: {text}"));
            // The table is drawn below.
            self.drawn = 0;
        }
    }

    fn show(&mut self, known: &Market, now: &Market) -> anyhow::Result<()> {
        let changes = changes(known, now, outside::now());
        let is_first = std::mem::take(&mut self.is_first);
        if self.is_json {
            return changes.iter().try_for_each(out::json);
        }
        if changes.is_empty() && !is_first {
            return Ok(());
        }
        if !self.is_terminal {
            return out::text(&lines(&changes));
        }
        let mut rows: Vec<_> = now.values().cloned().collect();
        rows.sort_by_key(|row| (row.container.price, row.addr.node, row.container.id));
        let size = terminal::size();
        let (rows_max, columns) = size.map_or((40, 200), |size| (size.rows, size.columns));
        let table = cut(&listing_table(&rows, None), usize::from(rows_max), usize::from(columns));
        let above =
            if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        self.drawn = table.lines().count();
        out::text(&(above + &table))
    }
}

/// As much of a table as a terminal has room for, so that it can be drawn over.
fn cut(table: &str, rows_max: usize, columns: usize) -> String {
    let room = rows_max.saturating_sub(2).max(2);
    let count = table.lines().count();
    let mut text = String::new();
    for line in table.lines().take(room) {
        text.extend(line.chars().take(columns.max(1)));
        text.push('\n');
    }
    if count > room {
        text.push_str(&format!("and {} more\n", count - room));
    }
    text
}

/// What is different, in the order of hosts and containers.
fn changes<'a>(known: &'a Market, now: &'a Market, at: UnixMillis) -> Vec<Change<'a>> {
    let is_new = now.iter().filter_map(|(key, offer)| match known.get(key) {
        None => Some((key, Change { change: Kind::Added, at, offer })),
        Some(before) if before != offer => Some((key, Change { change: Kind::Changed, at, offer })),
        Some(_) => None,
    });
    let is_gone = known.iter().filter(|(key, _)| !now.contains_key(*key));
    let is_gone = is_gone.map(|(key, offer)| (key, Change { change: Kind::Removed, at, offer }));
    let mut all: Vec<_> = is_new.chain(is_gone).collect();
    all.sort_by_key(|(key, _)| **key);
    all.into_iter().map(|(_, change)| change).collect()
}

fn lines(changes: &[Change<'_>]) -> String {
    let line = |change: &Change<'_>| {
        let Listing { container, region, free, online_bp, addr, .. } = change.offer;
        format!(
            "{} {} {} in {} at {}, {}/{} free, online {}, host {}\n",
            change.change.mark(),
            out::short(&container.id),
            container.class,
            region,
            container.price,
            free,
            container.slots,
            out::percent(*online_bp),
            out::short(&addr.node),
        )
    };
    changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;

    fn market(rows: impl IntoIterator<Item = Listing>) -> Market {
        rows.into_iter().map(|row| ((row.addr.node, row.container.id), row)).collect()
    }

    #[test]
    fn changes_are_told_once() {
        let (before, mut other) = (listing(), listing());
        other.addr.node = NodeId::from_bytes([8; 32]);
        let taken = Listing { free: 0, ..before.clone() };
        let (first, second) = (market([before]), market([taken, other.clone()]));
        let now = UnixMillis(5);
        assert_eq!(changes(&second, &second, now), []);
        insta::assert_snapshot!(lines(&changes(&first, &second, now)), @r"
        ~ ctr_05050505 h100-sxm-80 in local at $4.20/h, 0/2 free, online 99.90 %, host nod_07070707
        + ctr_05050505 h100-sxm-80 in local at $4.20/h, 1/2 free, online 99.90 %, host nod_08080808
        ");
        let gone = market([other]);
        let third = changes(&second, &gone, now);
        assert_eq!(third.iter().map(|change| change.change).collect::<Vec<_>>(), [Kind::Removed]);
    }

    #[test]
    fn a_table_is_cut_to_the_terminal() {
        assert_eq!(cut("abcd\nef\n", 24, 3), "abc\nef\n");
        assert_eq!(cut("a\nb\nc\nd\n", 4, 9), "a\nb\nand 2 more\n");
    }
}
