//! One epoch's log of evidence: a file that is appended to, and read page by page.
//!
//! An entry is its length (4 bytes, little-endian) and the statement in postcard. What was appended
//! survives the process; a torn entry at the end, as after a loss of power, is cut off.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use welkin_proto::decode;
use welkin_proto::epoch::{PAGE_BYTES_MAX, STATEMENT_BYTES_MAX, Statement};

use super::budget::{self, Budget, Subject};
use super::store::{Entry, Kept};

/// One epoch's log.
pub(super) struct Log {
    file: File,
    matters: BTreeSet<u64>,
    /// The containers on its rolls and its sheets.
    enrolled: BTreeSet<u64>,
    budget: Budget,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let (mut matters, mut enrolled) = (BTreeSet::new(), BTreeSet::new());
        let mut budget = Budget::default();
        let mut reader = BufReader::new(&mut file);
        let mut bytes = 0_u64;
        while let Some(entry) = next_entry(&mut reader)? {
            let length = 4 + entry.len() as u64;
            let statement = decode::<Statement>(&entry).ok();
            if let Some(subject) = statement.as_ref().and_then(Subject::of) {
                matters.insert(subject.matter);
                budget.take(subject, length);
            }
            enrolled.extend(statement.iter().flat_map(budget::enrolled));
            bytes += length;
        }
        file.set_len(bytes)?;
        Ok(Self { file, matters, enrolled, budget })
    }

    /// Appends a statement, if it is not there; not where there is no room for it, or where a container is
    /// to be known and is not.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<Kept> {
        let Entry { subject, bytes, unlisted, .. } = entry;
        if self.matters.contains(&subject.matter) {
            return Ok(Kept::Written);
        }
        let is_known = |place: u64| self.enrolled.contains(&place);
        let strangers = unlisted.iter().filter(|visit| !visit.enrolled.is_some_and(is_known));
        let strangers: Vec<_> = strangers.map(|visit| visit.place).collect();
        if !strangers.is_empty() {
            return Ok(Kept::Strangers(strangers));
        }
        let length = 4 + bytes.len() as u64;
        if !self.budget.has_room(*subject, length) {
            return Ok(Kept::NoRoom);
        }
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // One write, so that what is there is whole.
        self.file.write_all(&[&count.to_le_bytes(), &bytes[..]].concat())?;
        self.budget.take(*subject, length);
        self.matters.insert(subject.matter);
        self.enrolled.extend(&entry.enrolled);
        Ok(Kept::Written)
    }
}

/// The next whole entry; none at the end, or where the rest is torn.
fn next_entry(reader: &mut impl io::Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u64::from(u32::from_le_bytes(length));
    // Zeros are what a loss of power leaves of what was not written.
    if length == 0 || length > STATEMENT_BYTES_MAX as u64 {
        return Ok(None);
    }
    let mut entry = Vec::new();
    reader.take(length).read_to_end(&mut entry)?;
    Ok((entry.len() as u64 == length).then_some(entry))
}

/// Why a page can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// The log can't be read.
    #[error("the evidence can't be read: {0}")]
    Read(#[from] io::Error),
    /// No entry begins there.
    #[error("no statement begins at {0}: begin again at 0")]
    Place(u64),
}

/// Statements from a place in a log, and the place to go on at.
type Page = (Vec<Statement>, Option<u64>);

/// Reads a page; none where there is no log.
pub(super) fn read_page(path: &Path, from: u64) -> Result<Option<Page>, PageError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let end = file.metadata()?.len();
    if from > end {
        return Err(PageError::Place(from));
    }
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let (mut statements, mut at) = (Vec::new(), from);
    while at.saturating_sub(from) < PAGE_BYTES_MAX as u64 {
        let Some(entry) = next_entry(&mut reader)? else {
            let is_misplaced = statements.is_empty() && from > 0 && at < end;
            return if is_misplaced {
                Err(PageError::Place(from))
            } else {
                Ok(Some((statements, None)))
            };
        };
        at += 4 + entry.len() as u64;
        match decode(&entry) {
            Ok(statement) => statements.push(statement),
            Err(_) if statements.is_empty() && from > 0 => return Err(PageError::Place(from)),
            // Of another edition.
            Err(_) => (),
        }
    }
    Ok(Some((statements, (at < end).then_some(at))))
}
