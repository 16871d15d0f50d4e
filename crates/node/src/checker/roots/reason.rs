//! Why a checker is where it is with the root of the awaited epoch: a code for programs, and for people what
//! it means and what to do next.
//!
//! A code keeps its meaning. New ones may come: a reader that does not know one takes it for
//! [`RootsReason::Unknown`] and has the sentence beside it.

use std::fmt;

use serde::{Deserialize, Serialize};
use welkin_check::roots::Why;

use crate::checker::evidence::Unfound;

/// The most characters of a state's text.
const TEXT_MAX: usize = 500;

/// Whether anything has to be done about it, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// All is well: it waits, or is done.
    Waits,
    /// Something failed, and the checker tries again by itself.
    Retries,
    /// Somebody should look at it. It goes on by itself where that changes.
    Stopped,
}

impl Concern {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Retries => "tries again",
            Self::Stopped => "needs a look",
        }
    }
}

macro_rules! reasons {
    ($($name:ident $code:literal $concern:ident $meaning:literal $next:literal)*) => {
        /// Why a checker is where it is with the root of the awaited epoch.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum RootsReason {
            $(#[doc = $meaning] $name,)*
            /// A code of another release.
            #[default]
            #[serde(other)]
            Unknown,
        }

        impl RootsReason {
            /// Every reason that this release gives.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its code, for programs.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* Self::Unknown => "unknown" }
            }

            /// Whether anything has to be done about it.
            pub const fn concern(self) -> Concern {
                match self { $(Self::$name => Concern::$concern,)* Self::Unknown => Concern::Retries }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                    Self::Unknown => "the checker is of another release",
                }
            }

            /// What to do next; empty where there is nothing to be done.
            pub const fn next(self) -> &'static str {
                match self {
                    $(Self::$name => $next,)*
                    Self::Unknown => "run the checker and this command from the same release",
                }
            }
        }
    };
}

reasons! {
    Starting "starting" Waits
        "it has not looked at the contract yet" ""
    EvidenceOpen "evidence_open" Waits
        "the evidence of the network's epoch is not closed and collected by all yet" ""
    NothingFound "nothing_found" Waits
        "no root is found for the awaited epoch yet" ""
    OtherEpoch "other_epoch" Waits
        "the contract awaits another epoch than the one that was found" ""
    NotMember "not_member" Waits
        "its account is no member of the committee: it only keeps the book" ""
    Quorum "quorum" Waits
        "it has signed; too few members have signed the same root" ""
    NotOver "not_over" Waits
        "enough have signed; the contract's epoch is not over" ""
    Turn "turn" Waits
        "it is another member's turn to bring the root" ""
    Window "window" Waits
        "the root is proposed and can still be contested" ""
    Sending "sending" Waits
        "a transaction is on its way to the contract" ""
    Sent "sent" Waits
        "a transaction has taken effect" ""
    ChainSilent "chain_silent" Retries
        "the settlement service or the chain's node gives no answer that can be used"
        "if it stays: is the settlement service up, the node of the chain reachable, and are the contracts of this version? The text says which"
    EvidenceMissing "evidence_missing" Retries
        "no indexer shows the evidence of the network's epoch"
        "if it stays: can this machine reach the indexers? Of an epoch that they have dropped the root comes by hand, or another checker's `book.json`"
    EvidencePartial "evidence_partial" Retries
        "some indexers do not show the evidence of the network's epoch"
        "nothing: after three attempts it is settled from what the others show"
    NotTaken "not_taken" Retries
        "the contract took nothing of what was sent"
        "if it stays: has the account coins for gas, and do the members' signatures hold?"
    Stuck "stuck" Stopped
        "a transaction has been on its way for minutes"
        "look at the chain's node and at the coins of the account for gas"
    OtherRoot "other_root" Stopped
        "another root is proposed than was found here: this one is not signed"
        "compare the evidence (`welkin epoch --save`) with other members', and contest the proposed root if it is wrong"
    Contested "contested" Stopped
        "the proposed root is contested: a court decides"
        "keep the epoch's evidence (`welkin epoch --save`) for the court"
    Dropped "dropped" Stopped
        "a court has dropped the root that was found here"
        "agree with the other members, and sign another one by hand with `welkin epoch sign`"
    OtherCounted "other_counted" Stopped
        "the contract counts another root than is found here: from that epoch on nothing is signed"
        "stop the checker, put the `book.json` of one that goes on into its `roots` folder, start it; else later roots come by hand"
    OtherBook "other_book" Stopped
        "the book is of another network, or counts what the contract does not"
        "is the folder the right one? If so stop the checker, move its `roots` folder away and start it: it settles anew; what it has signed of the awaited epoch stands"
    EpochTooLong "epoch_too_long" Stopped
        "the network's epoch is longer than the contract's"
        "roots of this network come by hand, with `welkin epoch sign`"
    EvidenceTooLarge "evidence_too_large" Stopped
        "the evidence is more than this checker takes"
        "set `checker.cosign_mib_max` higher, alike for all members, where the machines have the memory"
    Unsettled "unsettled" Stopped
        "the evidence can't be settled upon the book"
        "does `welkin epoch` settle it? Put another checker's `book.json` into the `roots` folder, or report it with the log"
    BookUnreadable "book_unreadable" Stopped
        "the book of epochs can't be read"
        "do what the text says, and start the checker again"
    BookUnwritable "book_unwritable" Retries
        "the book of epochs can't be written"
        "is the disk full, or the `roots` folder another user's?"
    NoContracts "no_contracts" Stopped
        "where the contracts stand is not known to this checker"
        "take the network's file anew from who runs it, with `contracts` in it, and start the checker again"
}

impl fmt::Display for RootsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl From<Why> for RootsReason {
    fn from(why: Why) -> Self {
        match why {
            Why::OtherEpoch => Self::OtherEpoch,
            Why::OtherRoot => Self::OtherRoot,
            Why::Contested => Self::Contested,
            Why::Window => Self::Window,
            Why::NotMember => Self::NotMember,
            Why::Quorum { .. } => Self::Quorum,
            Why::NotOver => Self::NotOver,
            Why::Turn => Self::Turn,
        }
    }
}

impl From<&Unfound> for RootsReason {
    fn from(why: &Unfound) -> Self {
        match why {
            Unfound::TooLarge(_) => Self::EvidenceTooLarge,
            Unfound::Later(_) => Self::EvidenceMissing,
            Unfound::Partly(_) => Self::EvidencePartial,
        }
    }
}

/// How a look at things ended: the reason, and a sentence with what only this case knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) reason: RootsReason,
    pub(super) text: String,
}

impl State {
    pub(super) fn new(reason: RootsReason, text: impl Into<String>) -> Self {
        // Others' words may be in it.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Self { reason, text: text.into().chars().map(plain).take(TEXT_MAX).collect() }
    }

    /// What an error says, with its causes.
    pub(super) fn of(reason: RootsReason) -> impl Fn(&(dyn std::error::Error + 'static)) -> Self {
        move |error| Self::new(reason, crate::chain(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_a_new_one_is_no_fault() {
        for reason in RootsReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
            assert_eq!(
                RootsReason::ALL.iter().filter(|one| one.code() == reason.code()).count(),
                1
            );
            let is_calm = reason.concern() == Concern::Waits;
            assert_eq!(reason.next().is_empty(), is_calm, "{reason}: what is next?");
            assert!(!reason.meaning().is_empty(), "{reason}");
        }
        let newer: RootsReason = serde_json::from_str("\"of_a_later_release\"").unwrap();
        assert_eq!(newer, RootsReason::Unknown);
    }

    #[test]
    fn the_document_lists_every_reason() {
        let page = include_str!("../../../../../docs/reference/epochs.md");
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let listed: Vec<_> = rows
            .filter(|row| {
                RootsReason::ALL.iter().any(|reason| row.starts_with(&format!("| `{reason}` |")))
            })
            .collect();
        let own: Vec<_> = RootsReason::ALL
            .iter()
            .map(|reason| {
                let (concern, meaning) = (reason.concern().as_str(), reason.meaning());
                let next = if reason.next().is_empty() { "–" } else { reason.next() };
                format!("| `{reason}` | {concern} | {meaning} | {next} |")
            })
            .collect();
        assert_eq!(listed, own, "\n{}", own.join("\n"));
    }
}
