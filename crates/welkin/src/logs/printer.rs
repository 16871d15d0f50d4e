//! Where the pieces of a log go: byte for byte, or a line of JSON for each line that was printed.

use std::io::{self, Write as _};

use serde::Serialize;
use welkin_proto::lease::Output;
use welkin_types::UnixMillis;

use crate::out;
use crate::ranked::Ranked;

/// A line that is longer is shown in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Prints one output of a lease.
#[derive(Debug)]
pub(super) struct Printer {
    output: Output,
    /// Of one of several nodes.
    rank: Option<u16>,
    /// The line that is not at its end yet, for programs.
    line: Option<Line>,
    /// The same, for people, of one of several nodes. Without both bytes are shown as they are.
    ranked: Option<Ranked>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    at: UnixMillis,
}

/// A line of a log, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Shown {
    /// When it was printed, at the latest.
    at: UnixMillis,
    output: Output,
    /// Which of several nodes printed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u16>,
    /// Without the line's end; what is no UTF-8 is replaced by U+FFFD.
    text: String,
}

#[derive(Serialize)]
struct Gap {
    output: Output,
    /// So many bytes were not kept.
    gap_bytes: u64,
}

impl Printer {
    pub(super) fn new(output: Output, rank: Option<u16>, is_json: bool) -> Self {
        let ranked = rank.filter(|_| !is_json).map(Ranked::new);
        Self { output, rank, line: is_json.then(Line::default), ranked }
    }

    pub(super) fn print(&mut self, at: UnixMillis, bytes: &[u8]) -> io::Result<()> {
        if let Some(ranked) = &mut self.ranked {
            return raw(self.output, &ranked.push(bytes));
        }
        let Some(line) = &mut self.line else { return raw(self.output, bytes) };
        let mut text = String::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.bytes.is_empty() {
                line.at = at;
            }
            line.bytes.extend_from_slice(part);
            if part.ends_with(b"\n") || line.bytes.len() >= LINE_BYTES_MAX {
                text.push_str(&json(&line.take(self.output, self.rank)));
            }
        }
        raw(Output::Stdout, text.as_bytes())
    }

    /// Nothing more comes: shows a last line without an end.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(ranked) = &mut self.ranked {
            return raw(self.output, &ranked.finish());
        }
        match &mut self.line {
            Some(line) if !line.bytes.is_empty() => {
                let shown = json(&line.take(self.output, self.rank));
                raw(Output::Stdout, shown.as_bytes())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn gap(&self, bytes: u64) -> io::Result<()> {
        if self.line.is_some() {
            let gap = Gap { output: self.output, gap_bytes: bytes };
            return raw(Output::Stdout, json(&gap).as_bytes());
        }
        out::note(&format!("[{bytes} bytes not kept]"));
        Ok(())
    }
}

impl Line {
    fn take(&mut self, output: Output, rank: Option<u16>) -> Shown {
        let bytes = std::mem::take(&mut self.bytes);
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = String::from_utf8_lossy(text).into_owned();
        Shown { at: self.at, output, rank, text }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Numbers and text always have a form in JSON.
    serde_json::to_string(value).map(|text| text + "\n").unwrap_or_default()
}

fn raw(output: Output, bytes: &[u8]) -> io::Result<()> {
    match output {
        Output::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Output::Stderr => io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        let mut line = Line { bytes: b"a\xff\n".to_vec(), at: UnixMillis(7) };
        let shown = line.take(Output::Stderr, None);
        assert_eq!(json(&shown), "{\"at\":7,\"output\":\"stderr\",\"text\":\"a\u{fffd}\"}\n");
        assert!(line.bytes.is_empty());
    }
}
