//! What one of several nodes prints, line by line behind its rank: `[0] text`.

/// A line that is longer is shown in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One output of one node.
#[derive(Debug)]
pub(crate) struct Ranked {
    prefix: Vec<u8>,
    /// The line that is not at its end yet.
    line: Vec<u8>,
}

impl Ranked {
    /// Of the node with this rank.
    pub(crate) fn new(rank: u16) -> Self {
        Self { prefix: format!("[{rank}] ").into_bytes(), line: Vec::new() }
    }

    /// Takes in what was printed and returns the lines that are whole now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len() + self.prefix.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LINE_BYTES_MAX {
                text.extend(self.finish());
            }
        }
        text
    }

    /// The line that has no end; it gets one. Nothing where there is none.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return line;
        }
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        [&self.prefix[..], &line].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_whole_however_the_pieces_come() {
        let mut ranked = Ranked::new(12);
        assert_eq!(ranked.push(b"a\nb"), b"[12] a\n");
        assert_eq!(ranked.push(b"c\n\nd"), b"[12] bc\n[12] \n");
        assert_eq!((ranked.finish(), ranked.finish()), (b"[12] d\n".to_vec(), Vec::new()));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[ab\n]{0,60}", cut in 0..60_usize) {
            let (text, cut) = (text.as_bytes(), cut.min(text.len()));
            let all = |pieces: &[&[u8]]| {
                let mut ranked = Ranked::new(0);
                let mut shown: Vec<u8> = pieces.iter().flat_map(|p| ranked.push(p)).collect();
                shown.extend(ranked.finish());
                shown
            };
            prop_assert_eq!(all(&[text]), all(&[&text[..cut], &text[cut..]]));
        }

        #[test]
        fn no_line_is_kept_without_bound(pieces in prop::collection::vec(1..50_000_usize, 0..20)) {
            let mut ranked = Ranked::new(0);
            for length in pieces {
                ranked.push(&vec![b'x'; length]);
                prop_assert!(ranked.line.len() < LINE_BYTES_MAX);
            }
        }
    }
}
