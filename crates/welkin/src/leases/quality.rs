//! Minutes of quality of a session, as its two sides measured them.

use std::collections::BTreeMap;

use welkin_check::score::{Said, side_value};
use welkin_node::buyer::KeptDigests;
use welkin_proto::digest::{Figures, MinuteDigest, Series, Side};

/// The most minutes that are shown, the newest.
const SHOWN_MAX: usize = 60;

/// A summary, and a line for each minute; nothing where nothing was measured.
pub(super) fn lines(kept: &KeptDigests) -> Vec<String> {
    let host: Vec<&Series> = kept.host.iter().map(|digests| &digests.series).collect();
    let own: Vec<&Series> = kept.own.iter().collect();
    let mut minutes: BTreeMap<u32, [Option<&MinuteDigest>; 2]> = BTreeMap::new();
    for (place, series) in [(0, &own), (1, &host)] {
        for digest in series.iter().flat_map(|series| &series.minutes) {
            minutes.entry(digest.minute).or_default()[place] = Some(digest);
        }
    }
    let Some(((first, _), (last, _))) = minutes.first_key_value().zip(minutes.last_key_value())
    else {
        return Vec::new();
    };
    let quality = Said { host, buyer: own.clone() }.quality(*first..last + 1, None);
    let share = |share: Option<welkin_check::score::Ppm>| {
        share.map_or_else(|| "not known".to_owned(), |share| share.to_string())
    };
    let mut lines = vec![format!(
        "{} minutes: {} by the buyer, {} by the host; it counts as {}",
        quality.minutes,
        share(quality.buyer),
        share(quality.host),
        quality.settled
    )];
    lines.extend(own.first().and_then(|series| start(series)));
    let skipped = minutes.len().saturating_sub(SHOWN_MAX);
    lines.extend(minutes.iter().skip(skipped).map(|(minute, [buyer, host])| {
        let sides = [(Side::Buyer, buyer), (Side::Host, host)];
        let sides: Vec<_> = sides
            .into_iter()
            .filter_map(|(side, digest)| {
                Some(format!("{} {}", side.as_str(), text(side, (*digest)?)))
            })
            .collect();
        format!("minute {minute}: {}", sides.join("; "))
    }));
    lines
}

fn start(series: &Series) -> Option<String> {
    let marks = series.start.iter();
    let marks: Vec<_> =
        marks.map(|mark| format!("{} after {} ms", mark.state, mark.after_ms)).collect();
    (!marks.is_empty()).then(|| format!("start: {}", marks.join(", ")))
}

fn text(side: Side, digest: &MinuteDigest) -> String {
    let mut text = format!("{} of {} s answered", digest.answered, digest.watched);
    if let Some(value) = side_value(side, digest) {
        text.push_str(&format!(" ({value})"));
    }
    if let Some(round) = digest.round_trip {
        text.push_str(&format!(", round trip {} us (least {})", round.median_us, round.min_us));
    }
    if let Some(loss) = digest.loss {
        text.push_str(&format!(", loss {}.{:02} %", loss / 100, loss % 100));
    }
    figures(&digest.figures, &mut text);
    text
}

fn figures(figures: &Figures, text: &mut String) {
    let share = |name: &str, share: Option<u16>| {
        share.map(|share| format!(", {name} {}.{} %", share / 10, share % 10))
    };
    let ms = |name: &str, ms: Option<u32>| ms.map(|ms| format!(", {name} {ms} ms"));
    let said = match *figures {
        Figures::None => [None, None, None, None],
        Figures::Job { throttled_milli, preempted_milli } => {
            [share("throttled", throttled_milli), share("preempted", preempted_milli), None, None]
        }
        Figures::Stream { frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms } => [
            share("frames", frame_rate_milli),
            share("pixels", resolution_milli),
            ms("click to photon", click_to_photon_ms.map(u32::from)),
            ms("frozen", freezes_ms.map(u32::from)),
        ],
        Figures::Inference { first_token_ms, tokens_milli, errors_milli } => [
            ms("first token", first_token_ms),
            share("tokens", tokens_milli),
            share("errors", errors_milli),
            None,
        ],
    };
    said.into_iter().flatten().for_each(|said| text.push_str(&said));
}

#[cfg(test)]
mod tests {
    use welkin_proto::digest::{Mark, RoundTrip};
    use welkin_types::{AccountId, LeaseId, LeaseState, NodeId, UnixMillis};

    use super::*;

    #[test]
    fn minutes_are_shown_with_who_measured_them() {
        let digest = |minute, answered| MinuteDigest {
            minute,
            watched: 60,
            answered,
            round_trip: Some(RoundTrip { min_us: 870, median_us: 912 }),
            loss: Some(7),
            figures: Figures::Job { throttled_milli: Some(5), preempted_milli: None },
        };
        let series = Series {
            lease: LeaseId::from_bytes([1; 16]),
            host: NodeId::from_bytes([2; 32]),
            buyer: AccountId::from_bytes([3; 20]),
            side: Side::Buyer,
            part: 0,
            began: UnixMillis(0),
            start: vec![Mark { state: LeaseState::Running, after_ms: 230 }],
            minutes: vec![digest(0, 60), digest(1, 30)],
        };
        let kept = KeptDigests { own: vec![series], host: Vec::new() };
        insta::assert_snapshot!(lines(&kept).join("\n"), @r"
        2 minutes: 75.00 % by the buyer, not known by the host; it counts as 85.00 %
        start: running after 230 ms
        minute 0: buyer 60 of 60 s answered (100.00 %), round trip 912 us (least 870), loss 0.07 %, throttled 0.5 %
        minute 1: buyer 30 of 60 s answered (50.00 %), round trip 912 us (least 870), loss 0.07 %, throttled 0.5 %
        ");
        assert_eq!(lines(&KeptDigests::default()), Vec::<String>::new());
    }
}
