//! Checks the repository itself: floors, walls, sizes, licences, documents.
//!
//! Every failure says which file breaks which rule and what to do about it. The rules and their
//! reasons stand in `ARCHITECTURE.md`; this file makes sure that nobody has to remember them.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, in its helpers too"
)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/tree.rs"]
mod tree;
