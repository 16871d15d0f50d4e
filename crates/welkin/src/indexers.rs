//! The indexers that there are, and how far this account trusts them.

use anyhow::bail;
use welkin_node::buyer::KnownIndexer;
use welkin_types::Region;
use welkin_types::evidence::Ppm;
use welkin_types::task::Needs;

use crate::client::Client;
use crate::{Context, cli, out};

/// Lists indexers, by region, the most trusted first.
pub(crate) async fn indexers(context: &Context, args: &cli::Indexers) -> anyhow::Result<()> {
    let client = Client::open(context).await?;
    let is_compared = !args.compare || {
        let anything =
            Needs { cpu_milli_min: 0, memory_bytes_min: 0, disk_bytes_min: 0, ..Needs::default() };
        client.buyer.compare_indexers(&anything).await
    };
    let rows = client.buyer.indexers().await;
    client.close().await;
    let rows = rows?;
    if !is_compared {
        bail!("there are no two indexers of one region to compare");
    }
    if context.is_json {
        return rows.iter().try_for_each(out::json);
    }
    out::text(&table(&rows))
}

fn table(rows: &[KnownIndexer]) -> String {
    let head = [
        "INDEXER", "REGION", "OPERATOR", "RTT", "FREE", "TRUST", "SHARE", "OFFERS", "GOOD",
        "RECEIPTS", "WHY",
    ];
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let percent = |ppm: u32| out::percent(Some(Ppm::new(ppm).basis_points()));
    let cells = |row: &KnownIndexer| {
        vec![
            out::short(&row.node),
            text(row.region.as_ref().map(Region::to_string)),
            text(row.operator.as_ref().map(out::short)),
            text(row.rtt_us.map(|us| format!("{}.{} ms", us / 1_000, us / 100 % 10))),
            text(row.free.map(|free| free.to_string())),
            percent(row.weight_ppm),
            percent(row.share_ppm),
            (row.offers_milli / 1_000).to_string(),
            percent(row.offers_good_ppm),
            receipts(row),
            if row.why.is_empty() { "-".to_owned() } else { row.why.join(", ") },
        ]
    };
    out::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// How many of the receipts that were computed again hold.
fn receipts(row: &KnownIndexer) -> String {
    let all = row.receipts_proved.saturating_add(row.receipts_disproved);
    if all == 0 { "-".to_owned() } else { format!("{}/{all}", row.receipts_proved) }
}

#[cfg(test)]
mod tests {
    use welkin_proto::NodeAddr;
    use welkin_types::{AccountId, NodeId};

    use super::*;

    #[test]
    fn a_list_reads_well() {
        let node = NodeId::from_bytes([7; 32]);
        let row = KnownIndexer {
            node,
            addr: NodeAddr { node, relay: None, direct: Vec::new() },
            region: Some(Region::local()),
            operator: Some(AccountId::from_bytes([2; 20])),
            share_ppm: 90_000,
            weight_ppm: 100_000,
            offers_good_ppm: 512_300,
            offers_milli: 12_000,
            receipts_proved: 11,
            receipts_disproved: 1,
            why: vec!["its offers fail", "hides containers"],
            rtt_us: Some(12_345),
            free: None,
        };
        insta::assert_snapshot!(table(&[row]), @r"
        INDEXER       REGION  OPERATOR      RTT      FREE  TRUST    SHARE   OFFERS  GOOD     RECEIPTS  WHY
        nod_07070707  local   0x0202020202  12.3 ms  -     10.00 %  9.00 %  12      51.23 %  11/12     its offers fail, hides containers
        ");
    }
}
