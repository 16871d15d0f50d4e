//! What an epoch's evidence is worth, to whom, and how anybody checks it.
//!
//! [`settle`] is a pure function of a [`Book`] (what was before), [`Terms`] (parameters) and
//! [`Evidence`] (signed statements): it gives [`Settled`], with the Merkle root that the committee
//! signs and the reason of every share in it. Integers only, rounded down.

mod claims;
mod emissions;
mod evidence;
mod gather;
mod incidents;
mod penalty;
mod settle;
mod terms;
#[cfg(test)]
mod tests;
mod work;

pub use claims::{Claim, Claims, Stream, UNIT_WEI, is_proven};
pub use emissions::{
    CHECKER_EPOCHS, CHECKER_QUARTERS, EPOCHS_A_YEAR, Emissions, Pools, UPTIME_FROM_QUARTER,
    cap_of_year, checkers_total, checkers_until, compute_total, quarter_end, quarter_ending,
};
pub use evidence::{
    CONTAINERS_MAX, Capacity, Container, Delivery, Evidence, INDEXERS_MAX, LICENCES_MAX, Licence,
    NO_INDEXER, Refused, Roster, RosterError, Uptime, Verdict,
};
pub use gather::{Gathered, LeaseSeconds, Probed, Seat, SideDigests, Unfit, gather, unfit};
pub use incidents::{FAR_BELOW_PERCENT, Found, incidents};
pub use penalty::{
    Charge, Collateral, Conviction, Fault, Generation, Incident, Offence, PenaltyRefusal, Refund,
    Rule, Rules, Taken,
};
pub use settle::{Book, Cause, Explanation, LicenceStanding, Settled, Share, settle};
pub use terms::{ClassTerms, PERIODS_MAX, SCORE_WHOLE, Terms, WHOLE_BP};
pub use work::Standing;
