//! The two kinds of bytes that `stdout` sends.

use std::fmt::Write as _;

/// Bytes of one sample; it is sent again and again. More than a core's cache holds, and far more
/// than any compression here looks back.
pub(crate) const SAMPLE_BYTES: usize = 8 << 20;

/// A kind of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// What a training job prints, each line with numbers of its own.
    Text,
    /// Bytes that nothing makes shorter.
    Random,
}

impl Data {
    /// Its name, as an argument and as a file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Random => "random",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Text, Self::Random].into_iter().find(|data| data.name() == name)
    }

    /// A sample, the same each time.
    pub(crate) fn sample(self) -> Vec<u8> {
        let mut source = Source(0x9e37_79b9_7f4a_7c15);
        let mut bytes = match self {
            Self::Text => text(&mut source),
            Self::Random => std::iter::repeat_with(|| source.next().to_le_bytes())
                .take(SAMPLE_BYTES / 8)
                .flatten()
                .collect(),
        };
        bytes.truncate(SAMPLE_BYTES);
        bytes
    }
}

/// A line for each step; every hundredth step is followed by an evaluation, every thousandth by a
/// checkpoint.
fn text(source: &mut Source) -> Vec<u8> {
    let mut text = String::with_capacity(SAMPLE_BYTES + 512);
    let (mut step, mut clock_ms) = (41_200_u64, 36_061_337_u64);
    while text.len() < SAMPLE_BYTES {
        step += 1;
        clock_ms += 180 + source.below(40);
        let (loss, norm) = (23_412 - step % 7_000 + source.below(900), 4_000 + source.below(9_000));
        let rate = 29_990 - step % 20_000;
        let tokens = 41_000 + source.below(2_500);
        clock(&mut text, clock_ms);
        let _ = writeln!(
            text,
            " INFO train step={step} epoch={} loss={}.{:04} grad_norm={}.{:04} lr={}.{:04}e-04 \
             tokens_per_s={tokens} step_ms={}.{} mem_gib=61.{}",
            step / 12_500,
            loss / 10_000,
            loss % 10_000,
            norm / 10_000,
            norm % 10_000,
            rate / 10_000,
            rate % 10_000,
            180 + source.below(40),
            source.below(10),
            source.below(10),
        );
        if step.is_multiple_of(100) {
            let (loss, accuracy) = (24_000 + source.below(900), 7_100 + source.below(300));
            clock(&mut text, clock_ms);
            let _ = writeln!(
                text,
                " INFO eval step={step} loss={}.{:04} accuracy=0.{accuracy} batches=64",
                loss / 10_000,
                loss % 10_000,
            );
        }
        if step.is_multiple_of(1_000) {
            let sum = source.next();
            clock(&mut text, clock_ms);
            let _ = writeln!(text, " INFO saved checkpoints/step-{step:08}.pt sum={sum:016x}");
        }
    }
    text.into_bytes()
}

fn clock(text: &mut String, ms: u64) {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    let _ = write!(text, "2026-11-21T{hours:02}:{minutes:02}:{:02}.{ms:03}Z", seconds % 60);
}

/// Numbers that look random (xorshift64*, Vigna 2014).
struct Source(u64);

impl Source {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
