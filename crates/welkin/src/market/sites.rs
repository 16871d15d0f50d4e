//! What is doubtful about networks, places and disks, in words.

use welkin_proto::site::{PlaceFinding, SiteView};

/// What a buyer should know before it trusts a row.
pub(super) fn doubts(site: &SiteView) -> Vec<String> {
    let mut doubts = Vec::new();
    let SiteView { container, place, wrong, checkers, site, .. } = site;
    if *place == PlaceFinding::Refuted {
        doubts.push(format!("{container} answers sooner than light from the region that it names"));
    }
    if site.is_wrong {
        doubts.push(format!("{container} answered {wrong} of {checkers} measurements wrongly"));
    }
    if site.ports_named > 0 && site.ports_open == 0 {
        doubts.push(format!("{container} names direct addresses, and answers at none of them"));
    }
    doubts
}
