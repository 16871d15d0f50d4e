//! Lines that tell how far a rendering is, one for each tenth.

/// The tenths of a rendering.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    tenths_told: u64,
}

impl Progress {
    /// Starts at nothing, for what is called `name`.
    pub(crate) const fn new(name: String) -> Self {
        Self { name, tenths_told: 0 }
    }

    /// The line to show after `done` of `total` rows, if another tenth is complete.
    pub(crate) fn line(&mut self, done: u32, total: u32) -> Option<String> {
        let (done, total) = (u64::from(done), u64::from(total.max(1)));
        let tenths = done * 10 / total;
        if tenths <= self.tenths_told {
            return None;
        }
        self.tenths_told = tenths;
        let percent = done * 100 / total;
        Some(format!("{}: {percent} % ({done} of {total} rows)", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn there_is_one_line_for_each_tenth() {
        let mut progress = Progress::new("tile 2/4".to_owned());
        let lines: Vec<_> = (1..=135).filter_map(|done| progress.line(done, 135)).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[2], "tile 2/4: 30 % (41 of 135 rows)");
        assert_eq!(lines[9], "tile 2/4: 100 % (135 of 135 rows)");
    }

    #[test]
    fn few_rows_make_few_lines() {
        let mut progress = Progress::new("picture".to_owned());
        let lines: Vec<_> = (1..=2).filter_map(|done| progress.line(done, 2)).collect();
        assert_eq!(lines, ["picture: 50 % (1 of 2 rows)", "picture: 100 % (2 of 2 rows)"]);
    }
}
