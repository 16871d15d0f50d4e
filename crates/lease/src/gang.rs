//! The buyer's walk where several containers are wanted at once: all of them accept, or none is
//! taken.

use welkin_proto::Offer;
use welkin_proto::lease::RefusalCode;
use welkin_types::{NodeId, Reason, UnixMillis};

use crate::rounds::Rounds;

/// What the buyer does next.
#[derive(Clone, Debug, PartialEq)]
pub enum GangStep {
    /// Asks an indexer for a whole gang, excluding these hosts.
    Match(Vec<NodeId>),
    /// Opens a lease at each of these.
    Try(Vec<Offer>),
    /// Waits until then and asks again, all hosts allowed.
    Wait(UnixMillis),
    /// Gives up.
    GiveUp(Reason),
}

/// One search for several containers at once.
///
/// After each try say [`GangPlacement::refused`] of every host that did not accept; where all
/// did, the search is over. Then ask for the next step.
#[derive(Debug)]
pub struct GangPlacement {
    members: usize,
    offers: Vec<Offer>,
    rounds: Rounds,
}

impl GangPlacement {
    /// Begins a search for so many that may take until `deadline`.
    pub const fn new(members: usize, deadline: UnixMillis) -> Self {
        Self { members, offers: Vec::new(), rounds: Rounds::new(deadline) }
    }

    /// Takes an indexer's answer in: one offer for each member.
    pub fn offered(&mut self, offers: Vec<Offer>) {
        self.offers = offers;
    }

    /// A host said no, or could not be reached (`None`). Returns a reason that other hosts would
    /// have, too.
    pub fn refused(&mut self, host: NodeId, code: Option<RefusalCode>) -> Option<RefusalCode> {
        self.rounds.refuse(host, code)
    }

    /// What to do now; `nothing` says that the last match found no whole gang.
    pub fn next(&mut self, now: UnixMillis, nothing: bool) -> GangStep {
        let offers = std::mem::take(&mut self.offers);
        let is_good =
            |offer: &Offer| offer.expires > now && !self.rounds.has_refused(offer.addr.node);
        // What is not whole is of no use.
        if offers.len() == self.members && self.members > 0 && offers.iter().all(is_good) {
            return GangStep::Try(offers);
        }
        if !nothing {
            return GangStep::Match(self.rounds.excluded());
        }
        self.rounds.next(now).map_or_else(GangStep::GiveUp, GangStep::Wait)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use welkin_proto::NodeAddr;
    use welkin_types::{
        AccountId, CapacityType, Class, ContainerId, OfferId, Price, Region, Resources, Tier,
    };

    use super::*;

    fn host(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn offer(number: u8, expires: u64) -> Offer {
        Offer {
            id: OfferId::from_bytes([number; 16]),
            buyer: AccountId::from_bytes([9; 20]),
            addr: NodeAddr { node: host(number), relay: None, direct: Vec::new() },
            operator: AccountId::from_bytes([2; 20]),
            container: ContainerId::from_bytes([number; 16]),
            class: "cpu-1".parse::<Class>().unwrap(),
            resources: Resources {
                cpu_milli: 1_000,
                memory_bytes: 1 << 30,
                disk_bytes: 1 << 30,
                gpus: Vec::new(),
            },
            region: Region::local(),
            price: Price::default(),
            tier: Tier::Container,
            capacity: CapacityType::OnDemand,
            notice_seconds: 0,
            reserved: None,
            online_bp: None,
            expires: UnixMillis(expires),
            matched: None,
        }
    }

    #[test]
    fn one_refusal_spoils_the_whole_try() {
        let mut search = GangPlacement::new(2, UnixMillis(60_000));
        assert_eq!(search.next(UnixMillis(0), false), GangStep::Match(Vec::new()));
        let both = vec![offer(1, 9_000), offer(2, 9_000)];
        search.offered(both.clone());
        assert_eq!(search.next(UnixMillis(1), false), GangStep::Try(both));
        assert_eq!(search.refused(host(2), Some(RefusalCode::Busy)), None);
        // The next question follows at once, and leaves out only the host that refused.
        assert_eq!(search.next(UnixMillis(2), false), GangStep::Match(vec![host(2)]));
        search.offered(vec![offer(1, 9_000)]);
        assert_eq!(search.next(UnixMillis(3), false), GangStep::Match(vec![host(2)]), "not whole");
        assert!(matches!(search.next(UnixMillis(4), true), GangStep::Wait(_)));
        assert_eq!(search.next(UnixMillis(500), false), GangStep::Match(Vec::new()));
        assert_eq!(
            search.refused(host(1), Some(RefusalCode::Funds)),
            Some(RefusalCode::Funds),
            "no other host would take it"
        );
    }

    proptest! {
        /// Whatever comes: what is tried is whole, fresh and of hosts that have not refused, and a
        /// search in which nothing is found ends at its time.
        #[test]
        fn what_is_tried_is_whole(
            members in 1..5_usize,
            rounds in prop::collection::vec((prop::collection::vec((0..6_u8, 0..30_000_u64), 0..6), any::<bool>()), 0..40),
        ) {
            let deadline = UnixMillis(20_000);
            let mut search = GangPlacement::new(members, deadline);
            let (mut now, mut nothing) = (UnixMillis(0), false);
            let mut refused = BTreeSet::new();
            for (offers, refuses) in rounds {
                search.offered(offers.iter().map(|(host, at)| offer(*host, *at)).collect());
                match search.next(now, nothing) {
                    GangStep::Try(tried) => {
                        prop_assert_eq!(tried.len(), members);
                        prop_assert!(tried.iter().all(|offer| offer.expires > now));
                        prop_assert!(tried.iter().all(|o| !refused.contains(&o.addr.node)));
                        refused.insert(tried[0].addr.node);
                        let _ = search.refused(tried[0].addr.node, None);
                        nothing = false;
                    }
                    GangStep::Match(excluded) => {
                        prop_assert!(excluded.iter().eq(refused.iter()));
                        nothing = refuses;
                    }
                    GangStep::Wait(at) => {
                        prop_assert!(at > now && at <= deadline);
                        refused.clear();
                        (now, nothing) = (at, false);
                    }
                    GangStep::GiveUp(_) => break,
                }
            }
            let mut steps = 0;
            loop {
                search.offered(Vec::new());
                match search.next(now, true) {
                    GangStep::GiveUp(_) => break,
                    GangStep::Wait(at) => now = at,
                    other => prop_assert!(false, "{other:?}"),
                }
                steps += 1;
                prop_assert!(steps < 200);
            }
        }
    }
}
