//! The words of the command line.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use welkin_trace::{ConfigError, RenderConfig};

/// How to call the program.
pub(crate) const USAGE: &str = "\
usage: welkin-trace tile [--bands N --band I] [QUALITY]   write one band as bytes to stdout
       welkin-trace picture --out FILE.png [QUALITY]      render a whole picture
       welkin-trace join --out FILE.png TILE...           put bands together

  --bands N       cut the picture into N bands, from top to bottom (default 1)
  --band I        render band I, 0 to N - 1 (default 0)
  --out FILE.png  where to write the picture

QUALITY:
  --width W       pixels in a row (default 480)
  --height H      rows (default 270)
  --samples S     paths for each pixel (default 64)
  --bounces B     bounces of one path at most (default 8)
  --threads T     threads (default: one for a tile, one a core for a picture)
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`USAGE`].
    Help,
    /// Render one band to stdout.
    Tile { config: RenderConfig, bands: u32, band: u32, threads: usize },
    /// Render a whole picture to a file; without `threads`, with one a core.
    Picture { config: RenderConfig, out: PathBuf, threads: Option<usize> },
    /// Join the tiles of some files.
    Join { out: PathBuf, tiles: Vec<PathBuf> },
}

/// Why the command line was not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    NoCommand,
    NotText(OsString),
    UnknownCommand(String),
    UnknownOption(String),
    Repeated(&'static str),
    NoValue(&'static str),
    NotANumber { option: &'static str, value: String },
    Missing(&'static str),
    Unused(&'static str),
    NoTiles,
    BandRange { band: u32, bands: u32, height: u32 },
    Config(ConfigError),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCommand => write!(f, "no command is given"),
            Self::NotText(word) => write!(f, "{} is not text", word.display()),
            Self::UnknownCommand(word) => write!(f, "there is no command `{word}`"),
            Self::UnknownOption(word) => write!(f, "`{word}` is not understood"),
            Self::Repeated(option) => write!(f, "{option} is given twice"),
            Self::NoValue(option) => write!(f, "{option} needs a value"),
            Self::NotANumber { option, value } => {
                write!(f, "{option} needs a whole number, not `{value}`")
            }
            Self::Missing(option) => write!(f, "{option} is missing"),
            Self::Unused(option) => write!(f, "{option} has no meaning for this command"),
            Self::NoTiles => write!(f, "no tile is given"),
            Self::BandRange { band, bands, height } => {
                write!(f, "there is no band {band} of {bands} in a picture of {height} rows")
            }
            Self::Config(error) => write!(f, "{error}"),
        }
    }
}

impl Error for UsageError {}

/// The options, in the order of [`Options::values`].
const OPTIONS: [&str; 8] =
    ["--width", "--height", "--samples", "--bounces", "--threads", "--bands", "--band", "--out"];

/// Words sorted into options and the rest.
#[derive(Debug, Default)]
struct Options {
    values: [Option<String>; 8],
    files: Vec<PathBuf>,
}

/// Understands the words after the name of the program.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let words: Result<Vec<String>, OsString> = words.map(OsString::into_string).collect();
    let mut words = words.map_err(UsageError::NotText)?.into_iter();
    let command = words.next().ok_or(UsageError::NoCommand)?;
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        return Ok(Command::Help);
    }
    if !matches!(command.as_str(), "tile" | "picture" | "join") {
        return Err(UsageError::UnknownCommand(command));
    }
    let mut options = Options::default();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "--help" | "-h") {
            return Ok(Command::Help);
        }
        options.add(word, &mut words)?;
    }
    match command.as_str() {
        "tile" => options.tile(),
        "picture" => options.picture(),
        _ => options.join(),
    }
}

impl Options {
    fn add(
        &mut self,
        word: String,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), UsageError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            Some(_) | None => (word.as_str(), None),
        };
        for (option, slot) in OPTIONS.into_iter().zip(&mut self.values) {
            if option == name {
                let value = value.or_else(|| words.next()).ok_or(UsageError::NoValue(option))?;
                return match slot.replace(value) {
                    None => Ok(()),
                    Some(_) => Err(UsageError::Repeated(option)),
                };
            }
        }
        if word.starts_with('-') {
            return Err(UsageError::UnknownOption(word));
        }
        self.files.push(word.into());
        Ok(())
    }

    fn tile(self) -> Result<Command, UsageError> {
        self.refuse(&["--out"])?;
        self.refuse_files()?;
        let config = self.config()?;
        let (bands, band) = (self.number("--bands", 1)?, self.number("--band", 0)?);
        if band >= bands || bands > config.height {
            return Err(UsageError::BandRange { band, bands, height: config.height });
        }
        let threads = self.threads()?.unwrap_or(1);
        Ok(Command::Tile { config, bands, band, threads })
    }

    fn picture(self) -> Result<Command, UsageError> {
        self.refuse(&["--bands", "--band"])?;
        self.refuse_files()?;
        Ok(Command::Picture { config: self.config()?, out: self.out()?, threads: self.threads()? })
    }

    fn join(self) -> Result<Command, UsageError> {
        self.refuse(&OPTIONS[..7])?;
        if self.files.is_empty() {
            return Err(UsageError::NoTiles);
        }
        Ok(Command::Join { out: self.out()?, tiles: self.files })
    }

    fn config(&self) -> Result<RenderConfig, UsageError> {
        let demo = RenderConfig::DEMO;
        let config = RenderConfig {
            width: self.number("--width", demo.width)?,
            height: self.number("--height", demo.height)?,
            samples: self.number("--samples", demo.samples)?,
            bounces_max: self.number("--bounces", demo.bounces_max)?,
        };
        config.check().map_err(UsageError::Config)?;
        Ok(config)
    }

    fn out(&self) -> Result<PathBuf, UsageError> {
        self.value("--out").map(PathBuf::from).ok_or(UsageError::Missing("--out"))
    }

    fn threads(&self) -> Result<Option<usize>, UsageError> {
        let threads = self.number("--threads", 0)?;
        Ok(if threads == 0 { None } else { Some(threads as usize) })
    }

    fn number(&self, option: &'static str, default: u32) -> Result<u32, UsageError> {
        let Some(value) = self.value(option) else { return Ok(default) };
        value.parse().map_err(|_| UsageError::NotANumber { option, value: value.to_owned() })
    }

    fn value(&self, option: &str) -> Option<&str> {
        let index = OPTIONS.iter().position(|&name| name == option)?;
        self.values.get(index)?.as_deref()
    }

    fn refuse(&self, options: &[&'static str]) -> Result<(), UsageError> {
        match options.iter().find(|option| self.value(option).is_some()) {
            Some(option) => Err(UsageError::Unused(option)),
            None => Ok(()),
        }
    }

    fn refuse_files(&self) -> Result<(), UsageError> {
        match self.files.first() {
            Some(file) => Err(UsageError::UnknownOption(file.display().to_string())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn error(line: &str) -> String {
        run(line).unwrap_err().to_string()
    }

    #[test]
    fn a_tile_is_the_demo_unless_told_otherwise() {
        let config = RenderConfig { width: 64, samples: 8, ..RenderConfig::DEMO };
        assert_eq!(
            run("tile --width 64 --samples=8 --bands 4 --band 2 --threads 3"),
            Ok(Command::Tile { config, bands: 4, band: 2, threads: 3 })
        );
        let config = RenderConfig::DEMO;
        assert_eq!(run("tile"), Ok(Command::Tile { config, bands: 1, band: 0, threads: 1 }));
    }

    #[test]
    fn files_are_named() {
        let out = PathBuf::from("a.png");
        let config = RenderConfig::DEMO;
        assert_eq!(
            run("picture --out a.png"),
            Ok(Command::Picture { config, out: out.clone(), threads: None })
        );
        assert_eq!(
            run("join x --out a.png y"),
            Ok(Command::Join { out, tiles: vec!["x".into(), "y".into()] })
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (line, text) in [
            ("", "no command is given"),
            ("draw", "there is no command `draw`"),
            ("tile --size 3", "`--size` is not understood"),
            ("tile file", "`file` is not understood"),
            ("tile --width", "--width needs a value"),
            ("tile --width -3", "--width needs a whole number, not `-3`"),
            ("tile --width 1 --width 2", "--width is given twice"),
            ("tile --samples 0", "samples must be 1 to 65536, not 0"),
            ("tile --bands 4 --band 4", "there is no band 4 of 4 in a picture of 270 rows"),
            ("tile --bands 300", "there is no band 0 of 300 in a picture of 270 rows"),
            ("tile --out x", "--out has no meaning for this command"),
            ("picture", "--out is missing"),
            ("join --out a.png", "no tile is given"),
            ("join --out a.png --width 3 x", "--width has no meaning for this command"),
        ] {
            assert_eq!(error(line), text, "for `{line}`");
        }
    }

    #[test]
    fn help_is_given() {
        assert_eq!(run("--help"), Ok(Command::Help));
        assert_eq!(run("tile -h"), Ok(Command::Help));
    }
}
