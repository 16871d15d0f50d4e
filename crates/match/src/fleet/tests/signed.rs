//! What a host has signed is shown as it was, also after a restart.

use welkin_proto::{AccountKey, Domain, NodeKey, Signed};

use super::restart::{restored, snapshot};
use super::*;
use crate::Seal;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn signed(host: u8, containers: Vec<ContainerOffer>) -> (Signed<Capability>, Capability) {
    let key = NodeKey::from_secret(&[host; 32]);
    let account = AccountKey::from_secret(&[host; 32]).unwrap();
    let message = Delegation { node: key.id(), expires: UnixMillis(77_000_000_000) };
    let capability = Capability {
        addr: NodeAddr {
            node: key.id(),
            relay: None,
            direct: vec![([127, 0, 0, host], 7_400).into()],
        },
        operator: SignedByAccount::sign(&Domain::LOCAL, &account, message).unwrap(),
        region: "eu".parse().unwrap(),
        ..capability(host, 9, containers)
    };
    (Signed::sign(&Domain::LOCAL, &key, &capability).unwrap(), capability)
}

fn some(host: u8) -> Vec<ContainerOffer> {
    (0..host % 4).rev().map(|number| offer(number, 2, 900 + u64::from(host))).collect()
}

#[test]
fn what_a_host_has_signed_is_shown_as_it_was() {
    let mut fleet = Fleet::new(3);
    let all: Vec<_> = (1..=40).map(|host| signed(host, some(host))).collect();
    for (signed, capability) in &all {
        let seal = Seal::of(signed, capability);
        fleet.announce_signed(NOW, account(1), capability.clone(), &seal).unwrap();
    }
    let restored = restored(&snapshot(&fleet));
    for (signed, capability) in &all {
        for fleet in [&fleet, &restored] {
            let shown = fleet.signed_of(NOW, capability.addr.node).unwrap();
            assert_eq!(shown, *signed);
            assert_eq!(shown.open(&Domain::LOCAL).as_ref(), Ok(capability));
        }
    }
    // Who is listed no more, or never was, is not shown.
    let (first, later) = (all[0].1.addr.node, NOW.after(std::time::Duration::from_secs(600)));
    assert_eq!(fleet.signed_of(later, first), None);
    assert_eq!(fleet.signed_of(NOW, node(200)), None);
}

#[test]
fn a_newer_announcement_is_shown_instead_and_one_without_signatures_not() {
    let mut fleet = Fleet::new(3);
    let (old, capability) = signed(3, some(3));
    let node = capability.addr.node;
    let seal = Seal::of(&old, &capability);
    fleet.announce_signed(NOW, account(1), capability.clone(), &seal).unwrap();
    let newer = Capability { revision: 10, containers: some(2), ..capability };
    let key = NodeKey::from_secret(&[3; 32]);
    let again = Signed::sign(&Domain::LOCAL, &key, &newer).unwrap();
    // A seal of something else is none.
    assert_eq!(Seal::of(&old, &newer), Seal::default());
    let seal = Seal::of(&again, &newer);
    fleet.announce_signed(NOW, account(1), newer.clone(), &seal).unwrap();
    assert_eq!(fleet.signed_of(NOW, node), Some(again));
    fleet.announce(NOW, account(1), Capability { revision: 11, ..newer }).unwrap();
    assert_eq!(fleet.signed_of(NOW, node), None);
}
