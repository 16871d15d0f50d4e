//! A checker as a process of its own: what it finds is shown to buyers.

use std::time::Duration;

use crate::services::{HERE, Services};
use crate::support::until;

/// Each host is checked once a minute, at a moment that it can't know.
const TWO_MINUTES: Duration = Duration::from_secs(130);

#[test]
fn a_checked_host_has_a_score() {
    let Some(mut services) = Services::start("", HERE) else { return };
    let _host = services.host("host", HERE);
    services.checker(HERE);
    let observer = services.observer();
    until(TWO_MINUTES, "a score is shown", || {
        let rows = observer.runtime.block_on(observer.buyer.offers(None)).unwrap();
        rows.iter().any(|row| row.online_bp == Some(10_000))
    });
    services.fund("1");
    services.run(&["run", "--", "true"]).expect(0).says("online 100.00 %");
    services.are_well();
}
