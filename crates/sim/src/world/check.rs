//! The checker's shell: the real machine, a network that loses some probes.

use welkin_check::sortition::Lot;
use welkin_check::{Config, Input, Output};
use welkin_proto::check::Finding;
use welkin_proto::settle::{EpochView, Listed};
use welkin_proto::{Turn, TurnProof};
use welkin_types::{NodeId, UnixMillis};

use super::{Violation, World};

/// One of two checkers, which both check everything; the other one is not simulated.
pub(super) const CONFIG: Config =
    Config { committee: 2, probes_max: 4, new_max: 4, silent_max: 4, deadline_ms: 3_000 };

impl World {
    pub(super) fn on_check(&mut self) -> Result<(), Violation> {
        let now = UnixMillis(self.now);
        let mut probes = Vec::new();
        if let Some(epoch) = self.checker.epoch_wanted(now, 60) {
            let listed = |number| Listed {
                node: NodeId::from_bytes([number; 32]),
                number: number.into(),
                vrf: [0; 32],
            };
            let checkers = [0xcc, 0xcd].map(listed).to_vec();
            let seed = self.seed.to_be_bytes().repeat(4);
            let seed = seed.try_into().unwrap_or([0; 32]);
            self.checker
                .handle(now, Input::Epoch(EpochView { epoch, seed, checkers, epoch_seconds: 60 }));
            probes.extend(self.drain_checker()?);
        }
        if let Some((minute, ..)) = self.checker.ticket_wanted(now) {
            // Of two both visit everything, whatever they draw; nobody here verifies a proof.
            let turn = Turn { minute, proof: TurnProof::from_bytes(&[0; TurnProof::BYTES]) };
            self.checker.handle(now, Input::Drawn { turn, lot: Lot::new([0; 32]) });
            probes.extend(self.drain_checker()?);
        }
        self.checker.handle(now, Input::Listings(self.fleet.listing(now, None, 1_000)));
        probes.extend(self.drain_checker()?);
        // Answers come at once here; some never.
        while let Some((host, container, minute)) = probes.pop() {
            let known = self.hosts.iter().find(|known| known.node == host);
            let finding = match known.filter(|known| known.is_up) {
                Some(_) if self.chance.happens(5) => continue,
                Some(known) if known.containers.iter().any(|offer| offer.id == container) => {
                    Finding::Online { rtt_us: 900 }
                }
                Some(_) => Finding::NotListed,
                None => Finding::Unreachable,
            };
            self.checker.handle(now, Input::ProbeDone { host, container, minute, finding });
            probes.extend(self.drain_checker()?);
        }
        Ok(())
    }

    /// Counts reports and returns what is to be probed.
    fn drain_checker(
        &mut self,
    ) -> Result<Vec<(NodeId, welkin_types::ContainerId, u64)>, Violation> {
        let mut probes = Vec::new();
        loop {
            match self.checker.poll() {
                Output::Probe { addr, container, minute, .. } => {
                    probes.push((addr.node, container, minute));
                }
                Output::Report(report) => {
                    let now = UnixMillis(self.now);
                    let counted = self.fleet.report(now, &report);
                    // Who is listed no more is visited until the epoch ends.
                    let listed = self.fleet.listed_of(now, report.host);
                    let is_listed = listed.iter().any(|row| row.container.id == report.container);
                    let is_counted = counted.is_ok() || !is_listed;
                    self.law(is_counted, &format!("a report was refused: {counted:?}"))?;
                    self.stats.reports += 1;
                }
                Output::Idle { wake_at } => {
                    self.law(wake_at.0 > self.now, "the checker waits for the past")?;
                    return Ok(probes);
                }
            }
        }
    }
}
