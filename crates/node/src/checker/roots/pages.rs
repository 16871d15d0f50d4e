//! The book of epochs on disk: how everything stands after the last epoch that counts, and what was
//! found for the one after it.
//!
//! Two files, each put in place by a rename when it is on the disk: `book.json` and `next.json`. The second
//! becomes the first when its epoch counts. So there is one or the other page, whole, whenever the process or
//! the machine stops, and never more than two.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};
use welkin_chain::ops::committee::Epoch;
use welkin_ledger::epoch::Claims;

use crate::epoch::BookFile;

/// The largest page, in bytes: some two million claims.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// How everything stands after the last epoch that counts.
const BOOK: &str = "book.json";
/// What was found for the epoch after it.
const NEXT: &str = "next.json";

/// A settled epoch, and what the next one begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// The epoch as the contract counts it.
    pub(super) number: u32,
    /// The network's epoch that was settled for it.
    pub(super) epoch: u64,
    /// Its seed.
    pub(super) seed: B256,
    /// The root of everybody's totals.
    pub(super) root: B256,
    data: B256,
    totals: [U256; 3],
    units: u64,
    /// What the next epoch begins with, but for its emissions.
    pub(super) book: BookFile,
}

/// What everybody has earned up to the last epoch that counts, as a checker's book has it.
#[derive(Clone, Debug)]
pub struct CountedClaims {
    /// The epoch.
    pub number: u32,
    /// The root that counts.
    pub root: B256,
    /// The claims; their root is that one.
    pub claims: Claims,
}

impl CountedClaims {
    /// Reads them from a checker's book in this folder; none where no epoch counts in it.
    ///
    /// # Errors
    ///
    /// [`PageError`]
    pub fn read(dir: &Path) -> Result<Option<Self>, PageError> {
        let page = read(&dir.join(BOOK))?;
        Ok(page.map(|(Page { number, root, .. }, claims)| Self { number, root, claims }))
    }
}

impl Page {
    /// The page of an epoch.
    pub(super) fn new(contract: Epoch, (epoch, seed): (u64, [u8; 32]), book: BookFile) -> Self {
        let Epoch { number, root, data, totals, units } = contract;
        Self { number, epoch, seed: seed.into(), root, data, totals, units, book }
    }

    /// The epoch as the contract knows it.
    pub(super) const fn contract(&self) -> Epoch {
        let Self { number, root, data, totals, units, .. } = self;
        Epoch { number: *number, root: *root, data: *data, totals: *totals, units: *units }
    }
}

/// Why a page can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The disk refuses.
    #[error("failed to {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no page.
    #[error(
        "{path} is damaged: remove it, and the epochs are settled anew from the evidence. What this \
         account may have signed of the awaited epoch stands: leave `checker.roots` off until that \
         epoch counts, if another root could come out"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Its root is not that of what everybody has earned in it.
    #[error(
        "{0} was changed, or is damaged: its root is not that of its totals. Remove it, and the \
         epochs are settled anew from the evidence; in place of `book.json` another checker's will \
         do. What this account may have signed of the awaited epoch stands: leave `checker.roots` \
         off until that epoch counts, if another root could come out"
    )]
    Changed(PathBuf),
    /// It is larger than a page may be.
    #[error("the book of epochs has more than {PAGE_BYTES_MAX} bytes: {0}")]
    TooLarge(PathBuf),
}

/// The book in a folder. What is done with it blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    dir: PathBuf,
    counted: Option<Page>,
    next: Option<Page>,
}

impl Pages {
    /// Reads what is in a folder, making it where there is none.
    pub(super) fn open(dir: PathBuf) -> Result<Self, PageError> {
        let io = |source| PageError::Io { what: "make", path: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(io)?;
        let page = |name| read(&dir.join(name)).map(|read| read.map(|(page, _)| page));
        let (counted, next) = (page(BOOK)?, page(NEXT)?);
        let number = counted.as_ref().map_or(0, |page: &Page| page.number);
        // One that was left over counts already.
        let next = next.filter(|page| page.number == number.saturating_add(1));
        Ok(Self { dir, counted, next })
    }

    /// The last page that counts.
    pub(super) const fn counted(&self) -> Option<&Page> {
        self.counted.as_ref()
    }

    /// The last epoch that counts and is in the book; 0: none.
    pub(super) fn number(&self) -> u32 {
        self.counted.as_ref().map_or(0, |page| page.number)
    }

    /// What was found for the epoch after it.
    pub(super) const fn next(&self) -> Option<&Page> {
        self.next.as_ref()
    }

    /// Keeps what was found for the next epoch.
    pub(super) fn put_next(&mut self, page: Page) -> Result<(), PageError> {
        write(&self.dir.join(NEXT), &page)?;
        self.next = Some(page);
        Ok(())
    }

    /// The next page counts from now on.
    pub(super) fn turn(&mut self) -> Result<(), PageError> {
        if self.next.is_some() {
            let io = |source| PageError::Io { what: "write", path: self.dir.join(BOOK), source };
            fs::rename(self.dir.join(NEXT), self.dir.join(BOOK)).map_err(io)?;
            self.counted = self.next.take();
            sync(&self.dir)?;
        }
        Ok(())
    }
}

/// A page, and what everybody has earned by it.
fn read(path: &Path) -> Result<Option<(Page, Claims)>, PageError> {
    let io = |source| PageError::Io { what: "read", path: path.to_owned(), source };
    let length = match fs::metadata(path) {
        Ok(known) => known.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if length > PAGE_BYTES_MAX {
        return Err(PageError::TooLarge(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(io)?;
    let page: Page = serde_json::from_slice(&bytes)
        .map_err(|source| PageError::Damaged { path: path.to_owned(), source })?;
    let claims = page.book.claims();
    if claims.root() != page.root.0 {
        return Err(PageError::Changed(path.to_owned()));
    }
    Ok(Some((page, claims)))
}

fn write(path: &Path, page: &Page) -> Result<(), PageError> {
    let io = |source| PageError::Io { what: "write", path: path.to_owned(), source };
    let bytes = serde_json::to_vec(page).map_err(|error| io(error.into()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > PAGE_BYTES_MAX) {
        return Err(PageError::TooLarge(path.to_owned()));
    }
    let draft = path.with_extension("new");
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(io)?;
    rename(&draft, path)
}

/// Puts a file in place; the folder is on the disk then, too.
fn rename(from: &Path, to: &Path) -> Result<(), PageError> {
    let io = |source| PageError::Io { what: "write", path: to.to_owned(), source };
    fs::rename(from, to).map_err(io)?;
    sync(to.parent().unwrap_or(Path::new(".")))
}

fn sync(folder: &Path) -> Result<(), PageError> {
    let io = |source| PageError::Io { what: "write", path: folder.to_owned(), source };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use welkin_ledger::epoch::{Book, Emissions, Stream};
    use welkin_types::AccountId;

    use super::*;

    fn page(number: u32) -> Page {
        let mut book = Book::new(Emissions::new(5_000_000));
        book.totals.insert((AccountId::from_bytes([1; 20]), Stream::Hosts), u64::from(number));
        let root = BookFile::new(7, &book).claims().root().into();
        let totals = [U256::from(number), U256::ZERO, U256::ZERO];
        let contract = Epoch { number, root, data: B256::ZERO, totals, units: 9 };
        Page::new(contract, (u64::from(number) + 100, [4; 32]), BookFile::new(7, &book))
    }

    #[test]
    fn a_book_outlives_its_process_at_every_step() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Pages::open(dir.path().join("roots")).unwrap();
        let mut pages = open();
        assert_eq!((pages.number(), pages.next()), (0, None));
        pages.put_next(page(1)).unwrap();
        assert_eq!((open().number(), open().next()), (0, Some(&page(1))));
        pages.turn().unwrap();
        assert_eq!(open(), pages);
        assert_eq!((open().counted(), open().next()), (Some(&page(1)), None));
        pages.put_next(page(2)).unwrap();
        pages.turn().unwrap();
        pages.put_next(page(3)).unwrap();
        assert_eq!((open().counted(), open().next()), (Some(&page(2)), Some(&page(3))));
        let files = fs::read_dir(dir.path().join("roots")).unwrap().count();
        assert_eq!(files, 2, "no more than two pages are kept");
        assert_eq!(page(3).contract().units, 9);
        // What is claimed is what counts, not what was found since.
        let counted = CountedClaims::read(&dir.path().join("roots")).unwrap().unwrap();
        assert_eq!((counted.number, counted.claims.list()[0].units), (2, 2));
        assert!(CountedClaims::read(dir.path()).unwrap().is_none());
    }

    #[test]
    fn half_a_page_is_none_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut pages = Pages::open(dir.path().to_owned()).unwrap();
        pages.put_next(page(1)).unwrap();
        // Stopped while the next one was written aside.
        fs::write(dir.path().join("next.new"), b"{\"number\":1,").unwrap();
        assert_eq!(Pages::open(dir.path().to_owned()).unwrap().next(), Some(&page(1)));
        fs::write(dir.path().join("next.json"), b"{").unwrap();
        let error = Pages::open(dir.path().to_owned()).unwrap_err();
        assert!(error.to_string().contains("next.json is damaged"), "{error}");
        fs::remove_file(dir.path().join("next.json")).unwrap();
        // One in which somebody has earned more than the root says.
        let mut more = page(1);
        more.book = page(2).book;
        for file in ["book.json", "next.json"] {
            write(&dir.path().join(file), &more).unwrap();
            let error = Pages::open(dir.path().to_owned()).unwrap_err();
            assert!(matches!(&error, PageError::Changed(path) if path.ends_with(file)), "{error}");
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        // One of an epoch that counts already, or of a later one, is no next page.
        write(&dir.path().join("next.json"), &page(5)).unwrap();
        assert_eq!(Pages::open(dir.path().to_owned()).unwrap().next(), None);
    }
}
