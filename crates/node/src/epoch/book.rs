//! What one epoch's settlement hands to the next, as a file of JSON.

use serde::{Deserialize, Serialize};
use welkin_ledger::epoch::{Book, Claim, Claims, Emissions, LicenceStanding, Standing, Stream};
use welkin_types::{AccountId, ContainerId};

/// Why a book does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// It is of that epoch or a later one.
    #[error("the book stands after epoch {after}, and epoch {epoch} is not later")]
    Later {
        /// The epoch that it stands after.
        after: u64,
        /// The epoch that is to be settled.
        epoch: u64,
    },
}

/// A book with the epoch that it stands after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookFile {
    /// The last epoch that is in it.
    pub after: u64,
    emissions: Emissions,
    totals: Vec<(AccountId, Stream, u64)>,
    containers: Vec<(ContainerId, Standing)>,
    licences: Vec<(u32, LicenceStanding)>,
    quarter_periods: u32,
}

impl BookFile {
    /// The file of a book.
    pub fn new(after: u64, book: &Book) -> Self {
        let totals = book.totals.iter();
        Self {
            after,
            emissions: book.emissions,
            totals: totals.map(|((account, stream), units)| (*account, *stream, *units)).collect(),
            containers: book.containers.iter().map(|(id, standing)| (*id, *standing)).collect(),
            licences: book.licences.iter().map(|(id, standing)| (*id, *standing)).collect(),
            quarter_periods: book.quarter_periods,
        }
    }

    /// What everybody has earned since the beginning.
    pub fn claims(&self) -> Claims {
        let totals = self.totals.iter();
        Claims::new(totals.map(|(account, stream, units)| Claim {
            account: *account,
            stream: *stream,
            units: *units,
        }))
    }

    /// The book to settle an epoch with.
    ///
    /// # Errors
    ///
    /// [`BookError::Later`]
    pub fn before(self, epoch: u64) -> Result<Book, BookError> {
        if self.after >= epoch {
            return Err(BookError::Later { after: self.after, epoch });
        }
        let totals = self.totals.into_iter();
        Ok(Book {
            emissions: self.emissions,
            totals: totals.map(|(account, stream, units)| ((account, stream), units)).collect(),
            containers: self.containers.into_iter().collect(),
            licences: self.licences.into_iter().collect(),
            quarter_periods: self.quarter_periods,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read_as_it_was_written_and_only_for_later_epochs() {
        let mut book = Book::new(Emissions::new(5_000_000));
        book.totals.insert((AccountId::from_bytes([1; 20]), Stream::Checkers), 7);
        book.containers.insert(ContainerId::from_bytes([2; 16]), Standing::default());
        book.licences.insert(9, LicenceStanding { base: 3, up: 4 });
        let text = serde_json::to_string(&BookFile::new(5, &book)).unwrap();
        let file: BookFile = serde_json::from_str(&text).unwrap();
        assert_eq!(file.clone().before(6).unwrap(), book);
        assert_eq!(file.before(5), Err(BookError::Later { after: 5, epoch: 5 }));
    }
}
