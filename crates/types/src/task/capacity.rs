//! Under which terms a task is leased.

use super::{RetryOn, Spot, TaskSpec};
use crate::CapacityType;

impl TaskSpec {
    /// Under which terms the task is leased. One that leaves it open takes spot only where being
    /// taken back does it no harm: it keeps its progress, and is started again after that.
    pub fn capacity(&self) -> CapacityType {
        if self.price.reserve.is_some() {
            return CapacityType::Reserved;
        }
        match self.price.spot {
            Spot::Only => CapacityType::Spot,
            Spot::Auto if self.can_be_preempted() => CapacityType::Spot,
            Spot::Auto | Spot::Never => CapacityType::OnDemand,
        }
    }

    fn can_be_preempted(&self) -> bool {
        let again = |retry: &super::Retry| retry.max > 0 && retry.on.contains(&RetryOn::Preempted);
        self.checkpoint.is_some() && self.retry.as_ref().is_some_and(again)
    }

    /// The shortest notice, in seconds, with which it can be taken back.
    pub fn notice_seconds_min(&self) -> u16 {
        let asked = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.on_preempt);
        let seconds = asked.map_or(0, |span| span.0.duration().as_secs());
        u16::try_from(seconds).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn spot_is_taken_where_it_is_wanted_or_does_no_harm() {
        let capacity = |text: &str| {
            parse("task.yaml", &format!("image: alpine\nrun: x\n{text}")).unwrap().capacity()
        };
        let safe = "retry: {max: 2}\ncheckpoint: {path: /work/ckpt}\n";
        let (spot, demand) = (CapacityType::Spot, CapacityType::OnDemand);
        assert_eq!(capacity(""), demand);
        assert_eq!(capacity("price: {spot: only}\n"), spot);
        assert_eq!(capacity(safe), spot);
        assert_eq!(capacity(&format!("{safe}price: {{spot: never}}\n")), demand);
        let reserved = format!("{safe}price: {{reserve: rsv_{}}}\n", "0a".repeat(16));
        assert_eq!(capacity(&reserved), CapacityType::Reserved);
        assert_eq!(capacity("checkpoint: {path: /work/ckpt}\n"), demand, "not started again");
        assert_eq!(capacity("retry: {max: 2}\n"), demand, "begins anew each time");
        let other = "retry: {max: 2, on: [host-lost]}\ncheckpoint: {path: /work/ckpt}\n";
        assert_eq!(capacity(other), demand);
    }
}
