//! Who takes part in an epoch, for whom and with what.

use std::collections::{BTreeMap, BTreeSet};

use welkin_proto::epoch::{ROLL_CONTAINERS_MAX, ROLL_EARLY_SECONDS, Roll};
use welkin_proto::settle::Listed;
use welkin_proto::{Signed, container_ids};
use welkin_types::{AccountId, Class, ContainerId, NodeId, UnixMillis};

use super::{Sieve, Unfit, unopened};

/// For whom a node takes part, with what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Enrolled {
    account: AccountId,
    /// A host's containers and the class that each claims.
    offered: BTreeMap<ContainerId, Class>,
}

/// The rolls of a node by when they were signed.
pub(super) type Said = BTreeMap<UnixMillis, BTreeSet<Enrolled>>;
/// What nodes take part with.
pub(super) type Rolls = BTreeMap<NodeId, Enrolled>;
/// Where containers are, whose they are and what they claim.
pub(super) type Places = BTreeMap<ContainerId, (NodeId, AccountId, Class)>;

impl<F> Sieve<'_, F> {
    pub(super) fn roll(&mut self, signed: &Signed<Roll>) -> Result<(), Unfit> {
        let domain = &self.heading.domain;
        let roll = signed.open(domain).map_err(unopened)?;
        if roll.epoch != self.heading.view.epoch {
            return Err(Unfit::Late);
        }
        let start = UnixMillis(self.span.start.saturating_mul(1_000));
        let earliest = start.0.saturating_sub(ROLL_EARLY_SECONDS * 1_000);
        if !(earliest..self.span.closes().saturating_mul(1_000)).contains(&roll.issued.0) {
            return Err(Unfit::Late);
        }
        let account = roll.account.account(domain, signed.signer(), start);
        let account = account.map_err(|_| Unfit::Forged)?;
        let is_bounded = roll.containers.len() <= ROLL_CONTAINERS_MAX;
        if !is_bounded || roll.containers.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Unfit::Malformed);
        }
        // Nobody speaks for a container of another host.
        let own = container_ids(signed.signer());
        if roll.containers.iter().any(|(container, _)| !own.contains(container)) {
            return Err(Unfit::Forged);
        }
        let of_it = self.rolls.entry(signed.signer()).or_default();
        let known = of_it.entry(roll.issued).or_default();
        let offered = roll.containers.into_iter().collect();
        let is_new = known.insert(Enrolled { account, offered });
        // Whatever becomes of the roll: nobody withdraws a place that it has named.
        if let Some(region) = roll.region {
            self.regions.entry(signed.signer()).or_default().insert(region);
        }
        if is_new { Ok(()) } else { Err(Unfit::Repeated) }
    }

    /// What rolls come to, by nodes.
    pub(super) fn enrolled(&mut self) -> Rolls {
        let rolls = std::mem::take(&mut self.rolls);
        rolls.into_iter().filter_map(|(node, said)| Some((node, self.one_roll(said)?))).collect()
    }

    /// What the rolls of a node come to. The earliest says for whom; what any of them names takes
    /// part, in the class that the earliest names it in, so that nobody withdraws what was found bad.
    /// Of the same moment there is only one.
    fn one_roll(&mut self, said: Said) -> Option<Enrolled> {
        let mut whole: Option<Enrolled> = None;
        for (_, rolls) in said {
            let count = rolls.len();
            let one = rolls.into_iter().next().filter(|_| count == 1);
            let account = whole.as_ref().map(|whole| whole.account);
            match one.filter(|its| account.is_none_or(|account| account == its.account)) {
                Some(its) => match &mut whole {
                    None => whole = Some(its),
                    Some(whole) => {
                        for (container, class) in its.offered {
                            whole.offered.entry(container).or_insert(class);
                        }
                    }
                },
                None => self.refuse(Unfit::Contradicting, count),
            }
        }
        whole
    }

    /// Those of the epoch's list that say for whom they work. In a file of somebody's making a number
    /// may stand twice: the first one has it.
    pub(super) fn checkers(&mut self, rolls: &Rolls) -> BTreeMap<NodeId, (u32, AccountId)> {
        let listed: BTreeSet<_> = self.heading.view.checkers.iter().copied().collect();
        let (mut taken, mut checkers) = (BTreeSet::new(), BTreeMap::new());
        for Listed { node, number, .. } in listed {
            let is_new = !checkers.contains_key(&node) && taken.insert(number);
            if let Some(enrolled) = rolls.get(&node).filter(|_| is_new) {
                checkers.insert(node, (number, enrolled.account));
            }
        }
        let is_nobody = |(node, enrolled): &(&NodeId, &Enrolled)| {
            enrolled.offered.is_empty() && !checkers.contains_key(node)
        };
        let nobodies = rolls.iter().filter(is_nobody).count();
        self.refuse(Unfit::Stranger, nobodies);
        checkers
    }
}

/// Which host a container is at: the one whose key it is named after.
pub(super) fn containers(rolls: &Rolls) -> Places {
    let mut places = Places::new();
    for (host, Enrolled { account, offered }) in rolls {
        for (container, class) in offered {
            places.entry(*container).or_insert_with(|| (*host, *account, class.clone()));
        }
    }
    places
}
