//! What checkers measured of networks, places and disks lately: the last finding of each, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use welkin_check::place::{Coordinates, is_refuted};
use welkin_proto::Signed;
use welkin_proto::epoch::Statement;
use welkin_proto::index::IndexReply;
use welkin_proto::site::{PlaceFinding, Site, SiteReport, SiteView};
use welkin_types::{ContainerId, NodeId, Region};

use super::Indexer;
use super::exams::CHECKERS_MAX;
use crate::checker::COMMITTEE;
use crate::epoch::{coordinates, sighting};

/// The most containers that are remembered; of further ones nothing is kept.
const CONTAINERS_MAX: usize = 200_000;
/// How long a finding counts, in minutes: a week.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// The findings.
#[derive(Debug, Default)]
pub(super) struct Sites {
    found: Mutex<BTreeMap<(NodeId, ContainerId), Findings>>,
}

/// The last finding of each checker, with its minute.
type Findings = BTreeMap<NodeId, (u64, Site)>;

impl Sites {
    /// Keeps a report; whether there was room for it.
    fn take(&self, report: SiteReport) -> bool {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (report.host, report.container);
        if found.len() >= CONTAINERS_MAX && !found.contains_key(&key) {
            found.retain(|_, findings| {
                findings.values().any(|(minute, _)| minute + MINUTES_MAX >= report.minute)
            });
            if found.len() >= CONTAINERS_MAX {
                return false;
            }
        }
        let findings = found.entry(key).or_default();
        if findings.get(&report.checker).is_none_or(|(at, _)| *at <= report.minute) {
            findings.insert(report.checker, (report.minute, report.site));
        }
        if findings.len() > CHECKERS_MAX {
            let oldest = findings.iter().min_by_key(|(_, (minute, _))| *minute);
            let oldest = oldest.map(|(checker, _)| *checker);
            oldest.map(|oldest| findings.remove(&oldest));
        }
        true
    }

    /// What was found of each container, at most so many. `region_of` says what a host claims.
    pub(super) fn rows(
        &self,
        count_max: usize,
        region_of: impl Fn(NodeId) -> Option<Region>,
    ) -> Vec<SiteView> {
        let now = welkin_check::minute_of(crate::outside::now());
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = found.iter().filter_map(|((host, container), findings)| {
            let fresh = findings.values().filter(|(minute, _)| minute + MINUTES_MAX >= now);
            let claim = region_of(*host).as_ref().and_then(coordinates);
            added_up((*host, *container), claim, &fresh.collect::<Vec<_>>())
        });
        rows.take(count_max).collect()
    }
}

fn added_up(
    (host, container): (NodeId, ContainerId),
    claim: Option<Coordinates>,
    findings: &[&(u64, Site)],
) -> Option<SiteView> {
    let minute = findings.iter().map(|(minute, _)| *minute).max()?;
    let sites = || findings.iter().map(|(_, site)| site);
    let middle = |of: fn(&Site) -> Option<u32>| {
        let mut values: Vec<_> = sites().filter_map(of).collect();
        values.sort_unstable();
        values.get(values.len().checked_sub(1)? / 2).copied()
    };
    let site = Site {
        rtt_us: sites().map(|site| site.rtt_us).min().unwrap_or(0),
        from: None,
        down_kib_s: middle(|site| site.down_kib_s),
        up_kib_s: middle(|site| site.up_kib_s),
        write_kib_s: middle(|site| site.write_kib_s),
        read_kib_s: middle(|site| site.read_kib_s),
        ports_named: sites().map(|site| site.ports_named).max().unwrap_or(0),
        // At one checker a way may be closed that is open to others.
        ports_open: sites().map(|site| site.ports_open).max().unwrap_or(0),
        is_wrong: false,
    };
    let wrong = sites().filter(|site| site.is_wrong).count();
    let sightings: Vec<_> = sites().filter_map(sighting).collect();
    let place = match claim {
        Some(claim) if is_refuted(claim, &sightings, COMMITTEE) => PlaceFinding::Refuted,
        Some(_) if !sightings.is_empty() => PlaceFinding::Possible,
        _ => PlaceFinding::Unknown,
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (checkers, wrong) = (count(findings.len()), count(wrong));
    let site = Site { is_wrong: 2 * wrong > checkers, ..site };
    Some(SiteView { host, container, checkers, wrong, site, place, minute })
}

/// Takes a checker's report where it was assigned.
pub(super) async fn answer(
    indexer: &Indexer,
    peer: NodeId,
    signed: &Signed<SiteReport>,
) -> IndexReply {
    let report = match signed.open_by(&indexer.domain, peer) {
        Ok(report) if report.checker == peer => report,
        Ok(_) => return IndexReply::Refused("the report names another checker".to_owned()),
        Err(error) => return IndexReply::Refused(crate::chain(&error)),
    };
    let SiteReport { checker, host, container, minute, turn, .. } = report;
    if let Err(why) = indexer.reports.check(checker, container, minute, turn).await {
        return IndexReply::Refused(why);
    }
    if !indexer.fleet().has(host, container) {
        let why = "the report is of a container that is not known here";
        return IndexReply::Refused(why.to_owned());
    }
    if indexer.sites.take(report) {
        let statement = Statement::Site(Box::new(signed.clone()));
        super::evidence::reported(indexer, minute, statement).await
    } else {
        IndexReply::Refused("there are too many containers already".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checker: u8, from: &str, rtt_us: u32, down_kib_s: u32) -> SiteReport {
        let from = Some(from.parse().unwrap());
        SiteReport {
            checker: NodeId::from_bytes([checker; 32]),
            host: NodeId::from_bytes([9; 32]),
            container: ContainerId::from_bytes([3; 16]),
            minute: welkin_check::minute_of(crate::outside::now()),
            site: Site { rtt_us, from, down_kib_s: Some(down_kib_s), ..Site::default() },
            turn: None,
        }
    }

    fn row(sites: &Sites, claim: &str) -> SiteView {
        sites.rows(10, |_| claim.parse().ok()).remove(0)
    }

    #[test]
    fn a_place_that_light_can_not_keep_is_refuted_by_most() {
        let sites = Sites::default();
        assert!(sites.take(report(1, "kr-seoul", 5_000, 100)));
        assert_eq!(row(&sites, "kr-seoul").place, PlaceFinding::Possible);
        assert_eq!(row(&sites, "local").place, PlaceFinding::Unknown);
        // One of a committee decides nothing; two of three do.
        let far = "br-sao-paulo";
        assert_eq!(row(&sites, far).place, PlaceFinding::Possible);
        assert!(sites.take(report(2, "jp-osaka", 9_000, 400)));
        assert!(sites.take(report(3, far, 300_000, 200)));
        let seen = row(&sites, far);
        assert_eq!(seen.place, PlaceFinding::Refuted);
        assert_eq!(row(&sites, "kr-seoul").place, PlaceFinding::Possible);
        assert_eq!((seen.site.rtt_us, seen.site.down_kib_s, seen.checkers), (5_000, Some(200), 3));
        assert_eq!((seen.site.up_kib_s, seen.wrong), (None, 0));
    }

    #[test]
    fn the_oldest_of_many_checkers_goes() {
        let sites = Sites::default();
        for checker in 0..30 {
            let all = report(checker, "local", 1, 1);
            assert!(sites.take(SiteReport { minute: all.minute - u64::from(checker), ..all }));
        }
        assert_eq!(row(&sites, "local").checkers, 9);
        assert_eq!(row(&sites, "local").place, PlaceFinding::Unknown);
    }
}
