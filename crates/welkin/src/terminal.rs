//! The terminal of the person in front of it.

use std::io::{self, BufRead};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use welkin_proto::lease::TermSize;
use zeroize::Zeroizing;

/// What the keyboard sends for Ctrl-C.
const CTRL_C: u8 = 3;

/// Raw mode: every key goes through. The old mode comes back when this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Puts the terminal on standard input into raw mode.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to be done if the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal's size; `None` where standard output is none.
pub(crate) fn size() -> Option<TermSize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some(TermSize { rows: size.ws_row, columns: size.ws_col })
}

/// Whether a person can be asked: both ends of the conversation are a terminal.
pub(crate) fn is_interactive() -> bool {
    use std::io::IsTerminal as _;
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks the person in front of the terminal; an empty answer is a yes.
#[expect(clippy::print_stderr, reason = "a question to the person in front of the terminal")]
pub(crate) async fn confirm(question: &str) -> anyhow::Result<bool> {
    eprint!("{question}");
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    })
    .await??;
    Ok(matches!(line.trim(), "" | "y" | "Y" | "yes"))
}

/// Asks for something that nobody looking on should see.
#[expect(clippy::print_stderr, reason = "a question to the person in front of the terminal")]
pub(crate) fn hidden(question: &str) -> io::Result<Zeroizing<String>> {
    use rustix::termios::{LocalModes, SpecialCodeIndex};
    // Put back when this ends, however it ends.
    let quiet = RawMode { before: tcgetattr(io::stdin())? };
    let mut silent = quiet.before.clone();
    // Ctrl-C ends the line instead of the program, which would leave the terminal silent.
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
    eprint!("{question}");
    let line = hidden_line(&mut io::stdin().lock());
    drop(quiet);
    eprintln!();
    let mut line = line?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

/// A line, or what was typed before Ctrl-C: then it is an interruption.
fn hidden_line(input: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::new());
    while !line.contains(&b'\n') {
        let part = input.fill_buf()?;
        if part.is_empty() {
            break;
        }
        let length = part.len();
        line.extend_from_slice(part);
        input.consume(length);
        if line.contains(&CTRL_C) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Zeroizing::new(text.to_owned()))
}
