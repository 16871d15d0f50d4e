//! What this host can promise, tried on a canary sandbox.

use crate::client::Runtime;
use crate::error::RuntimeError;
use crate::types::{
    Capabilities, Image, LimitSupport, Limits, Reason, SandboxId, SandboxSpec, Tier,
};
use crate::wire::{Check, CheckResult};

impl Runtime {
    /// Starts a canary sandbox, runs the escape battery inside, tries every limit, and says which
    /// tier this host reaches and why not a higher one.
    ///
    /// # Errors
    ///
    /// When the helper goes away. A host that cannot run sandboxes is no error: its tier is none.
    pub async fn probe(&self) -> Result<Capabilities, RuntimeError> {
        let facts = self.host_facts().await?;
        let mut found = Capabilities {
            tier: Tier::None,
            findings: Vec::new(),
            cgroup: facts.cgroup,
            limits: LimitSupport::default(),
            reasons: Vec::new(),
        };
        for controller in ["cpu", "memory", "pids", "freezer"] {
            if !facts.controllers.iter().any(|name| name == controller) {
                found.reasons.push(missing_controller(controller));
            }
        }
        let spec = SandboxSpec::new(Image::HostDirs, CANARY);
        match self.prepare(spec).await {
            Ok(prepared) => {
                let tried = self.try_canary(prepared.id, &mut found).await;
                self.destroy(prepared.id).await?;
                tried?;
            }
            Err(RuntimeError::Failed { source, .. }) => {
                found.reasons.push(reason(
                    "canary_failed",
                    format!("a sandbox cannot be built: {}", source.text),
                    "see the helper's log; nested containers often lack the needed rights",
                ));
                return Ok(found);
            }
            Err(other) => return Err(other),
        }
        found.tier = judge(&mut found);
        Ok(found)
    }

    async fn try_canary(
        &self,
        id: SandboxId,
        found: &mut Capabilities,
    ) -> Result<(), RuntimeError> {
        if let Some(CheckResult::Battery(findings)) = self.check(id, Check::Battery).await? {
            found.findings = findings;
        }
        let forks = self.check(id, Check::Pids { max: 4 * CANARY.pids }).await?;
        found.limits.pids =
            matches!(forks, Some(CheckResult::Reached(n)) if n < u64::from(CANARY.pids));
        let bytes = 4 * CANARY.scratch_bytes;
        let written = self.check(id, Check::Scratch { bytes }).await?;
        found.limits.scratch =
            matches!(written, Some(CheckResult::Reached(n)) if n <= CANARY.scratch_bytes);
        let before = self.stats(id).await?;
        let burned = self.check(id, Check::Cpu { millis: BURN_MILLIS }).await?;
        let after = self.stats(id).await?;
        // A fifth of a core was granted; anything below half of what was asked shows the limit.
        found.limits.cpu = after.throttled_usec > before.throttled_usec
            && matches!(burned, Some(CheckResult::Reached(n)) if n < u64::from(BURN_MILLIS) * 500);
        found.limits.pause = self.pause(id).await.is_ok() && self.resume(id).await.is_ok();
        let bytes = 2 * (CANARY.memory_bytes + CANARY.scratch_bytes);
        let memory = self.check(id, Check::Memory { bytes }).await?;
        found.limits.memory = match memory {
            Some(CheckResult::Killed) => true,
            // The kernel may have chosen another process of the canary.
            None => self.stats(id).await?.oom_kills > 0,
            Some(_) => false,
        };
        Ok(())
    }

    /// One check; nothing when the canary failed at it.
    async fn check(
        &self,
        id: SandboxId,
        check: Check,
    ) -> Result<Option<CheckResult>, RuntimeError> {
        match self.diagnose(id, check).await {
            Ok(result) => Ok(Some(result)),
            Err(RuntimeError::Failed { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// The tier that was proven; what is missing for the next becomes a reason.
fn judge(found: &mut Capabilities) -> Tier {
    let escapes: Vec<String> =
        found.findings.iter().filter(|finding| !finding.denied).map(|f| f.name.clone()).collect();
    if found.findings.len() < BATTERY_MIN {
        let text = "the escape battery did not run to its end".to_owned();
        found.reasons.push(reason("battery_incomplete", text, "run the probe again"));
        return Tier::None;
    }
    if !escapes.is_empty() {
        let text = format!("allowed inside a sandbox: {}", escapes.join(", "));
        found.reasons.push(reason("battery_escape", text, "report this with your kernel version"));
        return Tier::None;
    }
    let limits = found.limits;
    for (holds, name) in [
        (limits.cpu, "cpu"),
        (limits.memory, "memory"),
        (limits.pids, "pids"),
        (limits.scratch, "scratch"),
    ] {
        if !holds {
            found.reasons.push(reason(
                &format!("limit_{name}"),
                format!("the {name} limit does not hold"),
                "run on a host whose control groups the helper may change",
            ));
        }
    }
    if limits.cpu && limits.memory && limits.pids && limits.scratch {
        Tier::Container
    } else {
        Tier::Process
    }
}

fn missing_controller(name: &str) -> Reason {
    reason(
        &format!("cgroup_{name}_missing"),
        format!("the kernel offers no {name} control group"),
        "enable the controller at boot, or run on a host with cgroup v2",
    )
}

fn reason(code: &str, text: String, remedy: &str) -> Reason {
    Reason { code: code.to_owned(), text, remedy: remedy.to_owned() }
}

/// Small, so that every limit is reached soon.
const CANARY: Limits = Limits {
    cpu_milli: 200,
    memory_bytes: 64 << 20,
    pids: 24,
    scratch_bytes: 4 << 20,
    nofile: 256,
};

const BURN_MILLIS: u32 = 600;

/// A battery with fewer findings was cut short.
const BATTERY_MIN: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CgroupVersion, Finding};

    fn found(allowed: usize) -> Capabilities {
        let finding = |n: usize| Finding { name: n.to_string(), denied: n >= allowed, errno: 1 };
        Capabilities {
            tier: Tier::None,
            findings: (0..BATTERY_MIN).map(finding).collect(),
            cgroup: CgroupVersion::V2,
            limits: LimitSupport {
                cpu: true,
                memory: true,
                pids: true,
                scratch: true,
                pause: true,
            },
            reasons: Vec::new(),
        }
    }

    #[test]
    fn one_escape_or_one_missing_limit_lowers_the_tier() {
        assert_eq!(judge(&mut found(0)), Tier::Container);
        assert_eq!(judge(&mut found(1)), Tier::None);
        let mut without = found(0);
        without.limits.pids = false;
        assert_eq!(judge(&mut without), Tier::Process);
        assert_eq!(without.reasons.len(), 1);
        let mut cut = found(0);
        cut.findings.pop();
        assert_eq!(judge(&mut cut), Tier::None);
    }
}
