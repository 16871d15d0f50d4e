//! `welkin measure`: says how well a lease serves, for the digests that its buyer signs.

use std::io::BufRead as _;

use anyhow::Context as _;
use welkin_node::buyer::MeasureError;
use welkin_proto::digest::Figures;

use crate::cli::{Measure, MeasureKind};
use crate::{Context, Usage, client, out};

/// `welkin measure`
pub(crate) fn measure(context: &Context, args: &Measure) -> anyhow::Result<()> {
    let home = client::home(context);
    let kept = client::find(&home, &args.lease)?;
    let (state, _) = kept.state();
    if state.is_final() {
        let text = format!("{} has ended: nothing is measured of it any more", kept.lease);
        return Err(Usage::new(text, "`welkin ps` lists those that run").into());
    }
    let say = |figures| match home.measured(kept.lease, figures) {
        Err(error @ MeasureError::Bounds) => {
            Err(Usage::new(error.to_string(), "`welkin measure --help` names the figures").into())
        }
        said => said.map_err(anyhow::Error::from),
    };
    if let Some(kind) = &args.kind {
        return say(figures(kind));
    }
    let mut count = 0_u64;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("failed to read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let figures = serde_json::from_str(&line).map_err(|error| {
            let hint = r#"one a line, as {"inference":{"first_token_ms":240,"errors_milli":0}}"#;
            Usage::new(format!("line {} is no report: {error}", count + 1), hint)
        })?;
        say(figures)?;
        count += 1;
    }
    if !context.is_quiet {
        out::note(&format!("{count} reports are taken"));
    }
    Ok(())
}

const fn figures(kind: &MeasureKind) -> Figures {
    match *kind {
        MeasureKind::Stream {
            frame_rate_milli,
            resolution_milli,
            click_to_photon_ms,
            freezes_ms,
        } => Figures::Stream { frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms },
        MeasureKind::Inference { first_token_ms, tokens_milli, errors_milli } => {
            Figures::Inference { first_token_ms, tokens_milli, errors_milli }
        }
        MeasureKind::Job { throttled_milli, preempted_milli } => {
            Figures::Job { throttled_milli, preempted_milli }
        }
    }
}
