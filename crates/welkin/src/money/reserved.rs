//! Receipts of reservations.

use serde::Serialize;
use welkin_node::buyer::{BuyerError, Home};
use welkin_proto::{ReservationReceipt, ReservationReceiptFile};
use welkin_types::{ReservationEnd, ReservationId, UnixMillis, Usd};

use crate::out;

/// A receipt as it is listed; money in millionths of a dollar.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    reservation: ReservationId,
    reason: ReservationEnd,
    seconds: u64,
    kept: Usd,
    fee: Usd,
    refund: Usd,
    start: UnixMillis,
}

/// The receipts of the reservations that are known, the newest first.
pub(super) fn rows(home: &Home) -> anyhow::Result<Vec<Row>> {
    let (known, _) = home.reservations().map_err(BuyerError::Home)?;
    let mut rows = Vec::new();
    for kept in known {
        let file = home.reservation_receipt(kept.reservation).map_err(BuyerError::Home)?;
        let receipt = file.map(|file| file.receipt.open(&file.domain));
        match receipt {
            Some(Ok(receipt)) => rows.push(row(&receipt)),
            Some(Err(error)) => {
                out::note(&format!("{}: {}", kept.reservation, welkin_node::chain(&error)));
            }
            None => (),
        }
    }
    Ok(rows)
}

fn row(receipt: &ReservationReceipt) -> Row {
    Row {
        reservation: receipt.reservation,
        reason: receipt.end,
        seconds: receipt.seconds,
        kept: receipt.kept,
        fee: receipt.fee,
        refund: receipt.refund,
        start: receipt.start,
    }
}

pub(super) fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        vec![
            out::short(&row.reservation),
            row.reason.to_string(),
            row.seconds.to_string(),
            row.kept.to_string(),
            row.fee.to_string(),
            row.refund.to_string(),
            row.start.to_string(),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    out::table(&["RESERVATION", "END", "SECONDS", "KEPT", "FEE", "NOT USED", "BEGAN"], &rows)
}

/// What was checked of the receipt of a reservation, in words; `None` where it is none, or wrong.
pub(super) fn verified(text: &[u8]) -> Option<String> {
    let file: ReservationReceiptFile = serde_json::from_slice(text).ok()?;
    let receipt = file.verify().ok()?;
    let order = &file.order.message;
    let signature = match &file.ack {
        Some(_) => "the buyer signed under it",
        None => "the buyer did not sign under it",
    };
    let ReservationReceipt { seconds, promised_seconds, kept, refund, fee, .. } = &receipt;
    let lines = [
        format!("{} is right:", receipt.reservation),
        format!("  signed by the host {}", receipt.host),
        format!("  ordered by the buyer {} at {}", order.buyer, order.price),
        format!("  the operator {} vouches for the host", order.operator),
        format!("  {seconds} s are paid for of {promised_seconds} s promised"),
        format!("  {kept} and {refund} are what was promised"),
        format!("  the fee of {fee} is 20 %"),
        format!("  {signature}"),
    ];
    Some(lines.join("\n") + "\n")
}
