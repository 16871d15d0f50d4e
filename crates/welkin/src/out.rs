//! Data goes to standard output: text, tables, or JSON.

use std::io::{self, Write as _};

use serde::Serialize;

/// Prints text. A reader that has gone away is no failure.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints one value as one line of JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    text(&(serde_json::to_string(value)? + "\n"))
}

/// Says something to a person, on standard error.
#[expect(clippy::print_stderr, reason = "messages for people go to standard error")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Lays rows out in columns; numbers are the caller's to align.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&head.iter().map(ToString::to_string).collect::<Vec<_>>(), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if index > 0 {
            text.push_str("  ");
        }
        text.push_str(cell);
        let pad = width.saturating_sub(cell.chars().count());
        text.extend(std::iter::repeat_n(' ', pad));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// An id short enough for a table: its prefix and eight digits.
pub(crate) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

/// A duration for people: `340 ms`, `12 s`, `3 m 20 s`, `5 h 2 m`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.as_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Hundredths of a percent, for people.
pub(crate) fn percent(points: Option<u16>) -> String {
    points.map_or_else(|| "-".to_owned(), |bp| format!("{}.{:02} %", bp / 100, bp % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "bb".to_owned()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME  X\na     bb\n");
    }

    #[test]
    fn percents_keep_their_zeros() {
        assert_eq!(percent(Some(9_905)), "99.05 %");
    }
}
