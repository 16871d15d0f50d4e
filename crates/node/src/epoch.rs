//! An epoch's published evidence as anybody works with it: read, written, verified, settled.
//!
//! A file is JSON, one value a line: first the heading, then the statements in the order of their
//! text, each once. So the same statements are the same file, whoever has collected them.

mod book;
mod card;
mod network;
mod quality;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read as _, Write};
use std::time::Duration;

use welkin_chain::ops::committee;
use welkin_check::challenge::{CPU_CORE_MMAC_PER_S, ClassTable};
use welkin_check::sortition::{Committees, Lot};
use welkin_ledger::epoch::{
    Book, Evidence, Gathered, RosterError, Seat, Settled, Terms, Unfit, gather, settle, unfit,
};
use welkin_proto::epoch::{EVIDENCE_VERSION, Heading, Statement};
use welkin_proto::{Seating, Turn, TurnProof};
use welkin_types::{Class, NodeId};

pub use book::{BookError, BookFile};
pub use card::{Observation, observations};
pub(crate) use network::{coordinates, sighting};
pub use quality::delivered_quality;

use crate::checker::COMMITTEE;

/// A roll is said again after a quarter of its epoch, within these bounds, in seconds.
const ROLL_SECONDS_MIN: u64 = 60;
const ROLL_SECONDS_MAX: u64 = 3_600;
/// The longest line of a file, in bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// The most statements of a file.
const STATEMENTS_MAX: usize = 1 << 24;
/// Lots that are remembered while statements are verified.
const LOTS_MAX: usize = 1 << 16;

/// What a unit of capacity should earn in an epoch, in USD micros: as the contract is deployed.
pub const TARGET_MICROS: u64 = 5_000_000;

/// Why a file of evidence can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file can't be read.
    #[error("failed to read the evidence: is the file readable, and its disk sound?")]
    Read(#[from] io::Error),
    /// A line is no value of its kind.
    #[error("line {line} of the evidence is damaged: get it anew with `welkin epoch --save`")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A line is longer than any statement.
    #[error(
        "line {0} of the evidence is longer than any statement ({LINE_BYTES_MAX} bytes): get it anew \
         with `welkin epoch --save`"
    )]
    TooLong(usize),
    /// There is no first line.
    #[error("the evidence is empty: get it anew with `welkin epoch --save`")]
    Empty,
    /// Another edition.
    #[error(
        "the evidence is of edition {0}, and this program reads edition {EVIDENCE_VERSION}: read it \
         with the release that wrote it, or get the epoch anew with `welkin epoch --save`"
    )]
    Version(u16),
    /// More than can be settled.
    #[error(
        "the evidence has more than {STATEMENTS_MAX} statements, so it is not what `welkin epoch \
         --save` wrote: get it anew"
    )]
    TooMany,
}

/// The published evidence of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What the statements are read by.
    pub heading: Heading,
    /// Statements, in any order.
    pub statements: Vec<Statement>,
}

impl Published {
    /// Reads a file. Nothing of it is verified yet.
    ///
    /// # Errors
    ///
    /// [`FileError`]
    pub fn read(mut from: impl BufRead) -> Result<Self, FileError> {
        let (mut heading, mut statements, mut number) = (None, Vec::new(), 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            number += 1;
            let read = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if read as u64 == LINE_BYTES_MAX {
                return Err(FileError::TooLong(number));
            }
            let damaged = |source| FileError::Line { line: number, source };
            if heading.is_none() {
                let read: Heading = serde_json::from_slice(&line).map_err(damaged)?;
                if read.version != EVIDENCE_VERSION {
                    return Err(FileError::Version(read.version));
                }
                heading = Some(read);
                continue;
            }
            if statements.len() >= STATEMENTS_MAX {
                return Err(FileError::TooMany);
            }
            statements.push(serde_json::from_slice(&line).map_err(damaged)?);
        }
        Ok(Self { heading: heading.ok_or(FileError::Empty)?, statements })
    }

    /// Writes the file, the same whatever the order of the statements.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where it can't be written.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut lines = BTreeSet::new();
        for statement in &self.statements {
            lines.insert(serde_json::to_string(statement)?);
        }
        writeln!(to, "{}", serde_json::to_string(&self.heading)?)?;
        lines.iter().try_for_each(|line| writeln!(to, "{line}"))?;
        to.flush()
    }

    /// Verifies every statement, its author's assignment included, and rates the sessions.
    pub fn gather(&self) -> Gathered {
        let mut gathered = gather(&self.heading, &self.statements, self.seating());
        quality::rate(&mut gathered);
        gathered
    }

    /// Leaves out what no author has made; how many that were.
    pub fn drop_forged(&mut self) -> usize {
        let (heading, all) = (&self.heading, self.statements.len());
        self.statements.retain(|statement| forged(heading, statement).is_none());
        all - self.statements.len()
    }

    /// The first statement that its author can't have made, counted from 1, and why.
    pub fn first_forged(&self) -> Option<(usize, Unfit)> {
        let mut all = self.statements.iter().enumerate();
        all.find_map(|(place, statement)| Some((place + 1, forged(&self.heading, statement)?)))
    }

    /// What checkers have shown with their reports that they had drawn, by minute and checker; each with a
    /// right proof.
    pub fn lots(&self) -> BTreeMap<(u64, NodeId), Lot> {
        let committees = Committees::new(&self.heading.view, COMMITTEE);
        let domain = &self.heading.domain;
        let mut lots = BTreeMap::new();
        for statement in &self.statements {
            let said = match statement {
                Statement::Sheet(signed) => {
                    signed.open(domain).ok().map(|said| (said.checker, said.minute, said.turn))
                }
                Statement::Exam(signed) => {
                    signed.open(domain).ok().map(|said| (said.checker, said.minute, said.turn))
                }
                Statement::Site(signed) => {
                    signed.open(domain).ok().map(|said| (said.checker, said.minute, said.turn))
                }
                Statement::Roll(_) | Statement::Lease(_) | Statement::Digests(_) => None,
            };
            let Some((checker, minute, Some(proof))) = said else { continue };
            if let Entry::Vacant(place) = lots.entry((minute, checker))
                && let Some(lot) = committees.shown(checker, &Turn { minute, proof })
            {
                place.insert(lot);
            }
        }
        lots
    }

    fn seating(&self) -> impl FnMut(Seat, Option<TurnProof>) -> Seating {
        let committees = Committees::new(&self.heading.view, COMMITTEE);
        let mut lots: BTreeMap<(u64, NodeId, TurnProof), Option<Lot>> = BTreeMap::new();
        move |Seat { minute, container, checker }, proof| {
            if lots.len() >= LOTS_MAX {
                lots.clear();
            }
            // Nothing is to be shown where all check everything.
            let proof = proof.filter(|_| !committees.are_all());
            let lot = proof.and_then(|proof| {
                let shown = || committees.shown(checker, &Turn { minute, proof });
                *lots.entry((minute, checker, proof)).or_insert_with(shown)
            });
            committees.seating(checker, minute, container, lot.as_ref())
        }
    }
}

/// Why nobody can have made a statement, if so. Who is assigned is not asked: of that the whole decides.
fn forged(heading: &Heading, statement: &Statement) -> Option<Unfit> {
    let is_bad = |why: &Unfit| matches!(why, Unfit::Forged | Unfit::Malformed | Unfit::Unsound);
    unfit(heading, statement).filter(is_bad)
}

/// The published classes, each with its capacity K: 1 is one core of a class without GPUs. Every other class has 1.
pub fn capacities() -> BTreeMap<Class, u32> {
    let capacity = |rate: u64| u32::try_from(rate / CPU_CORE_MMAC_PER_S).unwrap_or(u32::MAX).max(1);
    let table = ClassTable::published();
    table.rates().map(|(class, rate)| (class.clone(), capacity(rate.mmac_per_s))).collect()
}

/// When a host or checker says again that it takes part: in long epochs for indexers that have come anew.
pub(crate) fn roll_again(epoch_seconds: u64) -> Duration {
    Duration::from_secs((epoch_seconds / 4).clamp(ROLL_SECONDS_MIN, ROLL_SECONDS_MAX))
}

/// A settled epoch, with what it was settled from.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verified statements.
    pub gathered: Gathered,
    /// The parameters.
    pub terms: Terms,
    /// The evidence, sorted.
    pub evidence: Evidence,
    /// What it came to.
    pub settled: Settled,
}

/// Settles verified statements upon what was before.
///
/// # Errors
///
/// [`RosterError`] where more take part than can be numbered.
pub fn outcome(gathered: Gathered, book: &Book) -> Result<Outcome, RosterError> {
    let (terms, mut evidence) = gathered.evidence(&capacities())?;
    let settled = settle(&terms, book, &mut evidence);
    Ok(Outcome { gathered, terms, evidence, settled })
}

/// A settled epoch as the settlement contract knows it, and the committee signs it.
pub fn contract_epoch(settled: &Settled) -> committee::Epoch {
    committee::Epoch {
        number: settled.epoch,
        root: settled.claims.root().into(),
        data: settled.data.into(),
        totals: settled.totals(),
        units: settled.units,
    }
}

#[cfg(test)]
mod tests;
