//! What an indexer shows for the choice of a gang, so that anybody can compute it again.
//!
//! As with a [`Receipt`](super::Receipt) the facts of what was considered stand in it, and the rest
//! follows: the order of equals, who carries how many members, what they cost together, and that
//! they cost less in no other set of locations. What it can't show is that nothing was left out.

use serde::{Deserialize, Serialize};

use super::best::cost_of;
use super::gang::{GANG_MAX, Gang, GangChoice};
use super::query::{Search, SearchError, Weights};
use super::receipt::{Considered, ReceiptError, place_in, ranks_of};
use super::row::{LOCATIONS_MAX, RowId};
use super::{Index, SLOTS_MAX};

/// A gang's choice with all that it followed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangReceipt {
    /// The index's epoch.
    pub epoch: u64,
    /// A digest of the query, as the caller computes it.
    pub query: [u8; 32],
    /// How was weighed.
    pub weights: Weights,
    /// How many members.
    pub members: u8,
    /// Whether each has a host of its own.
    pub is_spread: bool,
    /// Slots that each member takes.
    pub slots: u16,
    /// The request's number.
    pub request: u64,
    /// The lists from which the members were taken in turn, best first.
    pub considered: Vec<Vec<Considered>>,
    /// The members: a list's number and a place in it, once for each member that it carries.
    pub chosen: Vec<(u8, u8)>,
    /// What the gang costs in other sets of locations: those that were tried before, and after.
    pub others: [Vec<u64>; 2],
}

impl GangReceipt {
    /// Computes the choice again.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] saying what does not follow.
    pub fn recompute(&self) -> Result<(), ReceiptError> {
        let search = Search { weights: self.weights, request: self.request, ..Search::ANY };
        search.check().map_err(ReceiptError::Bounds)?;
        let (count, most) = (usize::from(self.members), usize::from(GANG_MAX));
        if !(1..=most).contains(&count) || self.slots == 0 || self.slots > SLOTS_MAX {
            let too_large = SearchError::TooLarge { what: "number of members", given: count, most };
            return Err(ReceiptError::Bounds(too_large));
        }
        let is_long = self.considered.iter().any(|list| list.len() > count)
            || self.considered.len() > count
            || self.others.iter().any(|others| others.len() > LOCATIONS_MAX);
        if is_long {
            return Err(ReceiptError::Long);
        }
        let (mut chosen, mut used, mut cost) = (Vec::new(), Vec::new(), 0_u64);
        for (number, list) in self.considered.iter().enumerate() {
            if chosen.len() >= count {
                return Err(ReceiptError::Long);
            }
            let ranks = ranks_of(&search, number, list)?;
            for (at, (one, rank)) in list.iter().zip(&ranks).enumerate() {
                let carried = self.carried(one, &mut used).min(count - chosen.len());
                let place = (u8::try_from(number).ok(), u8::try_from(at).ok());
                let (Some(number), Some(at)) = place else { return Err(ReceiptError::Long) };
                chosen.extend(std::iter::repeat_n((number, at), carried));
                cost = cost.saturating_add(cost_of(*rank).saturating_mul(carried as u64));
            }
        }
        if chosen.len() != count || chosen != self.chosen {
            return Err(ReceiptError::Chosen);
        }
        let [before, after] = &self.others;
        // Of equals the one that was tried first stays.
        let is_least =
            before.iter().all(|other| *other > cost) && after.iter().all(|other| *other >= cost);
        if is_least { Ok(()) } else { Err(ReceiptError::Dearer) }
    }

    /// How many members a container carries, as long as there are any.
    fn carried(&self, one: &Considered, used: &mut Vec<u32>) -> usize {
        if !self.is_spread {
            return usize::from(one.left.saturating_add(self.slots) / self.slots);
        }
        let is_new = !used.contains(&one.host);
        if is_new {
            used.push(one.host);
        }
        usize::from(is_new)
    }
}

impl Index {
    /// The receipt of a choice that this index, unchanged since, made for this gang.
    pub fn gang_receipt(
        &self,
        gang: &Gang<'_>,
        choice: &GangChoice,
        query: [u8; 32],
    ) -> GangReceipt {
        let member = Search { locations: choice.locations, ..gang.member };
        let facts = |row: &RowId| self.facts(&member, *row);
        let place_of = |row| place_in(&choice.considered, row);
        GangReceipt {
            epoch: self.epoch,
            query,
            weights: member.weights,
            members: gang.members,
            is_spread: gang.is_spread,
            slots: member.slots,
            request: member.request,
            considered: choice.considered.iter().map(|l| l.iter().map(facts).collect()).collect(),
            chosen: choice.members.iter().filter_map(|member| place_of(member.row)).collect(),
            others: choice.others.clone(),
        }
    }
}
