//! Which GPUs a task wants: `H100`, `H100|A100:40GB..:1..2`, `24GB..`, `any:1`, `8`.
//!
//! The text is parts between colons, of which only the first may name models. A number with a unit
//! of size is memory, one without is a count, and `sxm`, `pcie`, `nvl` or `oam` is a form factor.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bytes::ByteRange;
use super::quantity::{QuantityError, parse_range, quote};
use super::text::TextForm;
use crate::Gpu;

/// The GPUs that a task wants.
///
/// ```
/// use welkin_types::task::GpuAsk;
/// let ask: GpuAsk = "RTX 4090|rtx-4080:16GB..:1..2".parse().unwrap();
/// assert_eq!(ask.models, ["rtx4090", "rtx4080"]);
/// assert_eq!(ask.to_string(), "rtx4090|rtx4080:16GB..:1..2");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuAsk {
    /// Normalised models of which any will do, see [`gpu_model`]; empty if all will do.
    pub models: Vec<String>,
    /// Memory of each GPU in bytes, as it is sold.
    pub vram: ByteRange,
    /// How many.
    pub count: CountRange,
    /// Form factor in lower case, one of [`GpuAsk::FORMS`]; `None` if all will do.
    pub form: Option<String>,
}

/// How many GPUs, from a smallest to a largest number, both included. At least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CountRange {
    /// The smallest number.
    pub min: u16,
    /// The largest number; `None` if there is none.
    pub max: Option<u16>,
}

/// Why a text does not ask for GPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// Nothing known.
    #[error("`{0}` does not ask for a GPU: write it like H100, H100:2, A100:80GB:1..2 or 24GB..")]
    Syntax(String),
    /// Not a name of a model.
    #[error("`{0}` is not a GPU model: write it like H100 or RTX4090, with alternatives as A|B")]
    Model(String),
    /// A model with its form factor in one word.
    #[error("`{0}` ends with a form factor: set it apart, like H100:sxm")]
    FormInModel(String),
    /// Not a known part behind the models.
    #[error("`{0}` is neither memory (40GB..), nor a count (2), nor one of sxm, pcie, nvl, oam")]
    Part(String),
    /// Alternatives behind a colon.
    #[error("`{0}`: alternatives stand before the first colon and share what follows it")]
    LateAlternative(String),
    /// A kind of part that was there before.
    #[error("`{0}` says twice what the GPUs should be")]
    Twice(String),
    /// Memory that is not one.
    #[error(transparent)]
    Memory(QuantityError),
    /// A count that is not possible.
    #[error(
        "`{0}` is not a possible number of GPUs: it must be from 1 to {max}; for none leave `gpu` \
         out, and a model begins with a letter, like RTX4090",
        max = CountRange::MAX
    )]
    Count(String),
}

impl GpuAsk {
    /// The form factors that can be asked for.
    pub const FORMS: [&'static str; 4] = ["sxm", "pcie", "nvl", "oam"];
    /// The most alternatives.
    pub const MODELS_MAX: usize = 16;
    /// The longest name of a model, in characters.
    pub const MODEL_LEN_MAX: usize = 32;
    /// The longest text, in bytes.
    pub const TEXT_LEN_MAX: usize = 1_024;

    /// Any `count` GPUs.
    pub const fn any(count: CountRange) -> Self {
        Self { models: Vec::new(), vram: ByteRange::ANY, count, form: None }
    }

    /// Whether `gpu` is of a wanted kind.
    ///
    /// Memory is compared as it is sold: a card of "24 GB" reports between 23.8 and 25.8 GB, so a
    /// lower bound is met from 1/16 below it, and an upper bound up to 1/8 above it.
    pub fn accepts(&self, gpu: &Gpu) -> bool {
        let low = self.vram.min - self.vram.min / 16;
        let high = self.vram.max.map(|max| max.saturating_add(max / 8));
        (self.models.is_empty() || self.models.contains(&gpu.model))
            && self.form.as_ref().is_none_or(|form| *form == gpu.form)
            && ByteRange { min: low, max: high }.contains(gpu.vram_bytes)
    }

    /// Reads the part before the first colon.
    fn read_first(&mut self, part: &str, seen: &mut Seen) -> Result<(), GpuError> {
        if part.eq_ignore_ascii_case("any") {
            return Ok(());
        }
        if begins_number(part) {
            return self.read_part(part, seen);
        }
        for name in part.split(['|', ',']) {
            let model = gpu_model(name);
            check_model(name, &model)?;
            if !self.models.contains(&model) {
                self.models.push(model);
            }
        }
        if self.models.len() > Self::MODELS_MAX {
            return Err(GpuError::Syntax(quote(part)));
        }
        Ok(())
    }

    /// Reads a part that is memory, a count or a form factor.
    fn read_part(&mut self, part: &str, seen: &mut Seen) -> Result<(), GpuError> {
        if part.contains(['|', ',']) {
            return Err(GpuError::LateAlternative(quote(part)));
        }
        let lower = part.to_ascii_lowercase();
        let kind = if Self::FORMS.contains(&lower.as_str()) {
            self.form = Some(lower);
            &mut seen.form
        } else if part.contains(|c: char| c.is_ascii_digit()) && is_count(part) {
            self.count = part.parse()?;
            &mut seen.count
        } else if begins_number(part) {
            self.vram = part.parse().map_err(GpuError::Memory)?;
            &mut seen.vram
        } else {
            return Err(GpuError::Part(quote(part)));
        };
        if std::mem::replace(kind, true) {
            return Err(GpuError::Twice(quote(part)));
        }
        Ok(())
    }
}

/// Which kinds of parts were read.
#[derive(Default)]
struct Seen {
    vram: bool,
    count: bool,
    form: bool,
}

fn begins_number(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

fn is_count(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b' ')
}

/// The model as everybody writes it: lower case, without vendor and separators.
///
/// ```
/// use welkin_types::task::gpu_model;
/// assert_eq!(gpu_model("NVIDIA GeForce RTX 4090"), "rtx4090");
/// assert_eq!(gpu_model("rtx-4090"), "rtx4090");
/// assert_eq!(gpu_model("AMD Instinct MI300X"), "mi300x");
/// ```
pub fn gpu_model(name: &str) -> String {
    let is_separator = |c: char| c.is_whitespace() || c == '-' || c == '_';
    let mut model = name.replace(is_separator, "").to_lowercase();
    while let Some(rest) = ["nvidia", "geforce", "tesla", "amd", "instinct", "radeon", "intel"]
        .iter()
        .find_map(|vendor| model.strip_prefix(vendor).filter(|rest| !rest.is_empty()))
    {
        model = rest.to_owned();
    }
    model
}

/// Checks a normalised `model` that was given as `name`.
pub(super) fn check_model(name: &str, model: &str) -> Result<(), GpuError> {
    let is_word = model.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let begins_well = model.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_word || !begins_well || model.len() > GpuAsk::MODEL_LEN_MAX || model == "any" {
        return Err(GpuError::Model(quote(name)));
    }
    // A host names the form apart from the model, so such a name would fit no host.
    if GpuAsk::FORMS.iter().any(|form| model.trim_end_matches(char::is_numeric).ends_with(form)) {
        return Err(GpuError::FormInModel(quote(name)));
    }
    Ok(())
}

impl fmt::Display for GpuAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.models.is_empty() {
            true => f.write_str("any")?,
            false => f.write_str(&self.models.join("|"))?,
        }
        if self.vram != ByteRange::ANY {
            write!(f, ":{}", self.vram)?;
        }
        if self.count != CountRange::ONE {
            write!(f, ":{}", self.count)?;
        }
        self.form.as_ref().map_or(Ok(()), |form| write!(f, ":{form}"))
    }
}

impl FromStr for GpuAsk {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        if text.trim().is_empty() || text.len() > Self::TEXT_LEN_MAX {
            return Err(GpuError::Syntax(quote(text)));
        }
        let (mut ask, mut seen) = (Self::any(CountRange::ONE), Seen::default());
        let mut parts = text.split(':').map(str::trim);
        ask.read_first(parts.next().unwrap_or_default(), &mut seen)?;
        parts.try_for_each(|part| ask.read_part(part, &mut seen))?;
        Ok(ask)
    }
}

impl TextForm for GpuAsk {
    const NAME: &'static str = "GpuAsk";
    const ABOUT: &'static str = "GPUs: models with alternatives, memory of each, a count and a form factor (sxm, pcie, nvl, \
         oam), parted by colons. All but one part may be left out; `any` is any model.";
    const PATTERN: &'static str = r"^[^:]+(:[^:|,]+){0,3}$";
    const EXAMPLES: &'static [&'static str] =
        &["H100", "H100|A100:40GB..:1..2", "H100:8:sxm", "24GB..", "any:1", "8"];
    const NUMBER: bool = true;
}

impl CountRange {
    /// Just one.
    pub const ONE: Self = Self { min: 1, max: Some(1) };
    /// The largest count that can be asked for.
    pub const MAX: u16 = 1_024;

    /// Whether `count` is one of these.
    pub fn contains(&self, count: usize) -> bool {
        usize::from(self.min) <= count && self.max.is_none_or(|max| count <= usize::from(max))
    }
}

impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            Some(max) if max == self.min => write!(f, "{max}"),
            Some(max) => write!(f, "{}..{max}", self.min),
            None => write!(f, "{}..", self.min),
        }
    }
}

impl FromStr for CountRange {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let error = || GpuError::Count(quote(text));
        let parse = |text: &str| {
            let count = text.parse().ok().filter(|count| (1..=Self::MAX).contains(count));
            // Replaced below by the error of this type, which names the whole text.
            count.ok_or(QuantityError::EmptyRange { text: String::new() })
        };
        let (min, max) = parse_range(text, parse).map_err(|_| error())?;
        match (min, max) {
            (None, None) => Err(error()),
            (min, max) => Ok(Self { min: min.unwrap_or(1), max }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> String {
        match text.parse::<GpuAsk>() {
            Ok(ask) => ask.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn good_texts() {
        for (text, expected) in [
            ("H100", "h100"),
            ("H100:2", "h100:2"),
            ("H100:80GB", "h100:80GB"),
            ("H100:80GB:2", "h100:80GB:2"),
            ("H100:2:80gb", "h100:80GB:2"),
            ("H100:8:SXM", "h100:8:sxm"),
            ("H100|A100:40GB..:1..2", "h100|a100:40GB..:1..2"),
            ("A10, A100", "a10|a100"),
            ("A10,a10", "a10"),
            ("24GB..", "any:24GB.."),
            ("16GB..24GB:2", "any:16GB..24GB:2"),
            ("..24GB", "any:..24GB"),
            ("any", "any"),
            ("ANY:1", "any"),
            ("any:pcie", "any:pcie"),
            ("8", "any:8"),
            ("1..8", "any:1..8"),
            ("4..", "any:4.."),
            ("..4", "any:1..4"),
            ("RTX 4090", "rtx4090"),
            ("rtx-4090", "rtx4090"),
            ("NVIDIA GeForce RTX_4090 : 24GB : 2", "rtx4090:24GB:2"),
            ("Tesla T4", "t4"),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        let syntax = "does not ask for a GPU: write it like H100, H100:2, A100:80GB:1..2 or 24GB..";
        let model = "is not a GPU model: write it like H100 or RTX4090, with alternatives as A|B";
        let part = "is neither memory (40GB..), nor a count (2), nor one of sxm, pcie, nvl, oam";
        let count = "is not a possible number of GPUs: it must be from 1 to 1024; for none leave \
                     `gpu` out, and a model begins with a letter, like RTX4090";
        for (text, expected) in [
            ("", format!("`` {syntax}")),
            ("H100|", format!("`` {model}")),
            ("H100!", format!("`H100!` {model}")),
            ("any|H100", format!("`any` {model}")),
            ("Hé100", format!("`Hé100` {model}")),
            ("H100:", format!("`` {part}")),
            ("H100:fast", format!("`fast` {part}")),
            (
                "H100:2|A100:4",
                "`2|A100`: alternatives stand before the first colon and share what follows it"
                    .to_owned(),
            ),
            ("0", format!("`0` {count}")),
            ("4090", format!("`4090` {count}")),
            ("H100:2..1", format!("`2..1` {count}")),
            ("H100:1:2", "`2` says twice what the GPUs should be".to_owned()),
            ("8:2", "`2` says twice what the GPUs should be".to_owned()),
            (
                "H100-SXM5",
                "`H100-SXM5` ends with a form factor: set it apart, like H100:sxm".into(),
            ),
            (
                "24G",
                "`24G`: `G` is not a unit, use one of B, KB, MB, GB, TB (powers of 1000), KiB, \
                 MiB, GiB, TiB (powers of 1024)"
                    .to_owned(),
            ),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }

    #[test]
    fn accepts_cards_as_they_are_sold() {
        let gpu = |model: &str, mib: u64| Gpu {
            model: model.to_owned(),
            form: "pcie".to_owned(),
            vram_bytes: mib << 20,
            uuid: String::new(),
        };
        for (ask, model, mib, expected) in [
            ("H100:80GB", "h100", 81_559, true),
            ("H100:80GB..", "h100", 81_559, true),
            ("H100", "a100", 81_559, false),
            ("A100:40GB", "a100", 40_536, true),
            ("A100:40GB", "a100", 81_920, false),
            ("24GB..", "a10g", 22_731, true),
            ("16GB", "t4", 15_109, true),
            ("24GB", "t4", 15_360, false),
            ("any:sxm", "h100", 81_559, false),
            ("any:pcie", "h100", 81_559, true),
            ("any", "x", 0, true),
        ] {
            let ask: GpuAsk = ask.parse().unwrap();
            assert_eq!(ask.accepts(&gpu(model, mib)), expected, "{ask} {model} {mib}");
        }
    }

    prop_compose! {
        fn asks()(
            models in proptest::collection::btree_set("[b-m][a-m0-9]{0,8}", 0..4),
            min in 0..1_000_u64,
            more in proptest::option::of(0..1_000_u64),
            count in 1..=CountRange::MAX,
            count_more in proptest::option::of(0..100_u16),
            form in proptest::option::of(0..GpuAsk::FORMS.len()),
        ) -> GpuAsk {
            let giga = 1_000_000_000;
            let max = more.map(|more| (min + more) * giga);
            let count_max = count_more.map(|more| (count + more).min(CountRange::MAX));
            GpuAsk {
                models: models.into_iter().collect(),
                vram: ByteRange { min: min * giga, max },
                count: CountRange { min: count, max: count_max },
                form: form.map(|form| GpuAsk::FORMS[form].to_owned()),
            }
        }
    }

    proptest! {
        #[test]
        fn text_and_back(ask in asks()) {
            prop_assert_eq!(ask.to_string().parse(), Ok(ask));
        }

        #[test]
        fn no_text_panics(text: String, near in "[A-Za-z0-9 :|,.GB]{0,24}") {
            let _ = (text.parse::<GpuAsk>(), near.parse::<GpuAsk>());
        }
    }
}
