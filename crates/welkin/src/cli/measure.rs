//! `welkin measure`

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Args)]
pub(crate) struct Measure {
    /// The lease: its id, the beginning of it, or its name.
    pub(crate) lease: String,
    /// What was measured; without it, reports as JSON are read from standard input, one a line.
    #[command(subcommand)]
    pub(crate) kind: Option<MeasureKind>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MeasureKind {
    /// A model that answers.
    Inference {
        /// To the first token, in milliseconds.
        #[arg(long, value_name = "MS")]
        first_token_ms: Option<u32>,
        /// Tokens a second, of those that were promised, in thousandths.
        #[arg(long, value_name = "N")]
        tokens_milli: Option<u16>,
        /// Requests that failed, in thousandths.
        #[arg(long, value_name = "N")]
        errors_milli: Option<u16>,
    },
    /// A picture that is streamed.
    Stream {
        /// Frames shown of those that should be, in thousandths.
        #[arg(long, value_name = "N")]
        frame_rate_milli: Option<u16>,
        /// Pixels shown of those that should be, in thousandths.
        #[arg(long, value_name = "N")]
        resolution_milli: Option<u16>,
        /// From an input to its picture, in milliseconds.
        #[arg(long, value_name = "MS")]
        click_to_photon_ms: Option<u16>,
        /// Without a new picture since the last report, in milliseconds.
        #[arg(long, value_name = "MS")]
        freezes_ms: Option<u16>,
    },
    /// Work that runs to its end.
    Job {
        /// Time in which it was slower than what was bought, in thousandths.
        #[arg(long, value_name = "N")]
        throttled_milli: Option<u16>,
        /// Time in which it waited for others, in thousandths.
        #[arg(long, value_name = "N")]
        preempted_milli: Option<u16>,
    },
}
