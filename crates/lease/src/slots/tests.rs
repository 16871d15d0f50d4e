//! Holds, devices, spot leases that end for orders on demand.

use proptest::prelude::*;

use super::*;

const BOX: ContainerId = ContainerId::from_bytes([1; 16]);

fn lease(n: u8) -> LeaseId {
    LeaseId::from_bytes([n; 16])
}

fn hold(n: u8, buyer: u8, expires: u64) -> Hold {
    Hold {
        offer: OfferId::from_bytes([n; 16]),
        container: BOX,
        buyer: AccountId::from_bytes([buyer; 20]),
        expires: UnixMillis(expires),
    }
}

fn plain(slots: usize) -> [(ContainerId, Vec<Devices>); 1] {
    [(BOX, vec![Devices::new(); slots])]
}

fn devices(names: &[&str]) -> Devices {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn fencing(claim: Result<Claim, ClaimError>) -> Result<u64, ClaimError> {
    claim.map(|claim| claim.fencing)
}

/// An order on demand of buyer 2 without an offer.
fn wanted(n: u8) -> Wanted {
    Wanted {
        lease: lease(n),
        container: BOX,
        offer: None,
        buyer: AccountId::from_bytes([2; 20]),
        capacity: CapacityType::OnDemand,
        price: Price::default(),
    }
}

fn spot(n: u8, micros: u64) -> Wanted {
    let price = Price::per_hour(welkin_types::Usd::from_micros(micros));
    Wanted { capacity: CapacityType::Spot, price, ..wanted(n) }
}

const NOBODY: Vec<(LeaseId, Devices)> = Vec::new();

#[test]
fn a_hold_keeps_others_out_until_it_ends() {
    let mut slots = Slots::new(plain(1), 0);
    assert!(slots.hold(UnixMillis(0), hold(7, 1, 100)));
    assert!(!slots.hold(UnixMillis(0), hold(8, 2, 100)));
    let busy = Err(ClaimError::Busy { slots: 1 });
    assert_eq!(slots.claim(UnixMillis(1), &wanted(1)), busy);
    let offer = Some(OfferId::from_bytes([7; 16]));
    let others = Wanted { offer, ..wanted(1) };
    let mine = |n| Wanted { offer, buyer: AccountId::from_bytes([1; 20]), ..wanted(n) };
    assert_eq!(slots.claim(UnixMillis(1), &others), busy);
    assert_eq!(fencing(slots.claim(UnixMillis(1), &mine(1))), Ok(1));
    assert_eq!(slots.claim(UnixMillis(1), &mine(2)), busy);
    assert_eq!(slots.claim(UnixMillis(1), &mine(1)), Err(ClaimError::Duplicate));
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert!(slots.hold(UnixMillis(2), hold(9, 1, 50)));
    assert_eq!(fencing(slots.claim(UnixMillis(50), &wanted(3))), Ok(2));
}

#[test]
fn a_device_stays_with_its_lease() {
    let own = vec![devices(&["a"]), devices(&["b"])];
    let mut slots = Slots::new([(BOX, own)], 0);
    let claim =
        |slots: &mut Slots, n| slots.claim(UnixMillis(0), &wanted(n)).map(|claim| claim.devices);
    assert_eq!(claim(&mut slots, 1), Ok(devices(&["a"])));
    assert_eq!(claim(&mut slots, 2), Ok(devices(&["b"])));
    assert_eq!(claim(&mut slots, 3), Err(ClaimError::Busy { slots: 2 }));
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert_eq!(claim(&mut slots, 3), Ok(devices(&["a"])));

    // After a restart with another configuration an old lease still has both.
    let (old, new) = (ContainerId::from_bytes([2; 16]), vec![devices(&["b"]), devices(&["c"])]);
    let mut slots = Slots::new([(BOX, new)], 9);
    slots.restore(lease(1), old, devices(&["a", "b"]), None);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);
    assert!(slots.hold(UnixMillis(0), hold(7, 2, 100)));
    assert!(!slots.hold(UnixMillis(0), hold(8, 1, 100)));
    let offer = Some(OfferId::from_bytes([7; 16]));
    let claimed = slots.claim(UnixMillis(1), &Wanted { offer, ..wanted(2) }).unwrap();
    assert_eq!(claimed, Claim { fencing: 10, devices: devices(&["c"]) });
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);
}

#[test]
fn the_cheapest_and_then_the_youngest_spot_lease_ends_and_each_for_one_order() {
    let own = ["a", "b", "c", "d"].map(|name| devices(&[name]));
    let mut slots = Slots::new([(BOX, own.to_vec())], 0);
    let now = UnixMillis(0);
    for wanted in [spot(1, 20), spot(2, 10), spot(3, 10), wanted(4)] {
        slots.claim(now, &wanted).unwrap();
    }
    assert_eq!(slots.all_preemptible(), [(BOX, 3)]);
    let busy = ClaimError::Busy { slots: 4 };
    assert_eq!(slots.preempt(&spot(9, 90)), Err(busy), "spot takes nothing from spot");
    let victim = |slots: &mut Slots, n| slots.preempt(&wanted(n)).map(|found| found.victim);
    assert_eq!(victim(&mut slots, 5), Ok(lease(3)), "as cheap as 2, and younger");
    assert_eq!(victim(&mut slots, 6), Ok(lease(2)));
    assert_eq!(slots.preempt(&wanted(6)), Err(ClaimError::Duplicate));
    assert_eq!(slots.all_preemptible(), [(BOX, 1)]);
    // Somebody else leaves first: who came first has that slot, and the next one the next.
    assert_eq!(slots.release(lease(4)), [(lease(5), devices(&["d"]))]);
    assert_eq!(slots.claim(now, &wanted(7)), Err(busy));
    assert_eq!(slots.release(lease(3)), [(lease(6), devices(&["c"]))]);
    assert_eq!(slots.release(lease(2)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);
    // Who gives up waiting leaves the slot to others.
    assert_eq!(fencing(slots.claim(now, &wanted(7))), Ok(7));
    assert_eq!(victim(&mut slots, 8), Ok(lease(1)));
    assert_eq!(victim(&mut slots, 9), Err(busy));
    assert_eq!(slots.release(lease(8)), NOBODY);
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);
}

#[test]
fn a_reservation_keeps_its_slot_and_has_one_guest() {
    let own = vec![devices(&["a"]), devices(&["b"])];
    let mut slots = Slots::new([(BOX, own.clone())], 0);
    let now = UnixMillis(0);
    let reservation = ReservationId::of_lane(lease(1));
    let reserve = Wanted { capacity: CapacityType::Reserved, ..wanted(1) };
    assert_eq!(slots.claim(now, &reserve).unwrap().devices, devices(&["a"]));
    slots.claim(now, &wanted(2)).unwrap();
    assert_eq!(slots.claim(now, &wanted(3)), Err(ClaimError::Busy { slots: 2 }), "it is kept");
    let claim = slots.claim_on(reservation, lease(4)).unwrap();
    assert_eq!(claim, Claim { fencing: 3, devices: devices(&["a"]) });
    assert_eq!(slots.devices(lease(4)), Some(&devices(&["a"])));
    assert_eq!(slots.claim_on(reservation, lease(5)), Err(ClaimError::InUse { by: lease(4) }));
    assert_eq!(slots.claim_on(reservation, lease(4)), Err(ClaimError::Duplicate));
    // The guest goes, the slot stays.
    assert_eq!(slots.release(lease(4)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 0)]);
    slots.claim_on(reservation, lease(5)).unwrap();
    // The reservation goes, and the slot with its guest.
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 0)]);
    assert_eq!(slots.claim_on(reservation, lease(6)), Err(ClaimError::Unreserved));
    assert_eq!(slots.release(lease(5)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);

    // After a restart: with its reservation, and without one.
    let mut slots = Slots::new([(BOX, own)], 9);
    slots.restore(lease(1), BOX, devices(&["a"]), None);
    slots.restore_on(reservation, lease(4), BOX, devices(&["a"]));
    slots.restore_on(ReservationId::of_lane(lease(9)), lease(8), BOX, devices(&["b"]));
    assert_eq!((slots.guest(reservation), slots.leased()), (Some(lease(4)), 2));
    assert_eq!(slots.release(lease(8)), NOBODY);
    assert_eq!(slots.all_unleased(), [(BOX, 1)]);
}

#[test]
fn what_is_out_of_service_is_not_given() {
    let own = vec![devices(&["a"]), devices(&["b"])];
    let mut slots = Slots::new([(BOX, own)], 0);
    let unit = Unit::Device("a".to_owned());
    let now = UnixMillis(0);
    assert_eq!(slots.claim(now, &spot(1, 5)).unwrap().devices, devices(&["a"]));
    assert!(slots.withdraw(unit.clone()) && !slots.withdraw(unit.clone()));
    assert_eq!(slots.occupants(&unit), [lease(1)]);
    assert_eq!((slots.free(now, BOX), slots.all_preemptible()), (1, vec![]));
    assert_eq!(slots.claim(now, &wanted(2)).unwrap().devices, devices(&["b"]));
    let busy = Err(ClaimError::Busy { slots: 2 });
    assert_eq!(slots.preempt(&wanted(3)), Err(ClaimError::Busy { slots: 2 }));
    assert_eq!(slots.release(lease(1)), NOBODY);
    assert_eq!((slots.claim(now, &wanted(3)), slots.idle(now, BOX)), (busy.clone(), None));
    assert_eq!(slots.withdrawn_of(BOX), [&unit]);
    assert_eq!(slots.readmit(&unit), NOBODY);
    assert_eq!(slots.free(now, BOX), 1);

    // The whole host is out, also where slots own nothing, and a reservation's guest does not start.
    let mut slots = Slots::new(plain(2), 0);
    slots.claim(now, &wanted(1)).unwrap();
    slots.withdraw(Unit::Host);
    assert_eq!((slots.free(now, BOX), slots.claim(now, &wanted(2))), (0, busy));
    assert!(!slots.hold(now, hold(7, 1, 100)));
    let reservation = ReservationId::of_lane(lease(1));
    assert_eq!(slots.claim_on(reservation, lease(3)), Err(ClaimError::OutOfService));
    assert_eq!(slots.readmit(&Unit::Host), NOBODY);
    assert!(slots.claim_on(reservation, lease(3)).is_ok());
    assert_eq!(slots.occupants(&Unit::Host), [lease(1), lease(3)]);
}

proptest! {
    #[test]
    fn never_more_than_there_are(steps in proptest::collection::vec((0..7_u8, 0..20_u8, 0..3_u8), 0..200)) {
        let own = vec![devices(&["a", "b"]), devices(&["c", "d"]), devices(&["e"])];
        let mut slots = Slots::new([(BOX, own)], 0);
        let (mut last, mut ending) = (0, BTreeSet::new());
        for (now, (kind, n, buyer)) in (0_u64..).zip(steps) {
            let at = UnixMillis(now);
            let offer = (kind == 2).then(|| OfferId::from_bytes([n; 16]));
            let base = if kind == 5 { spot(n, buyer.into()) } else { wanted(n) };
            let wanted = Wanted { offer, buyer: AccountId::from_bytes([buyer; 20]), ..base };
            match kind {
                0 => drop(slots.hold(at, hold(n, buyer, now + 10))),
                1 => {
                    ending.remove(&lease(n));
                    for (given, devices) in slots.release(lease(n)) {
                        prop_assert!(!devices.is_empty() && slots.leases.contains_key(&given));
                    }
                    // The slot of a guest stays with who it is the guest of.
                    let is_kept = slots.guest(ReservationId::of_lane(lease(n))).is_some();
                    prop_assert!(is_kept || !slots.leases.contains_key(&lease(n)));
                    prop_assert!(!slots.guests.contains_key(&lease(n)));
                }
                6 => if let Ok(claim) = slots.claim_on(ReservationId::of_lane(lease(buyer)), lease(n)) {
                    prop_assert!(claim.fencing > last && n != buyer);
                    last = claim.fencing;
                },
                3 if slots.free(at, BOX) == 0 => {
                    if let Ok(found) = slots.preempt(&wanted) {
                        prop_assert!(found.fencing > last && found.victim != lease(n));
                        prop_assert!(ending.insert(found.victim), "one lease ends for one order");
                        last = found.fencing;
                    }
                }
                _ => if let Ok(claim) = slots.claim(at, &wanted) {
                    prop_assert!(claim.fencing > last && !claim.devices.is_empty());
                    last = claim.fencing;
                },
            }
            prop_assert!(slots.leased() <= 3);
            let hosts: BTreeSet<_> = slots.guests.values().collect();
            prop_assert_eq!(hosts.len(), slots.guests.len(), "one guest each");
            prop_assert!(hosts.iter().all(|host| slots.leases.contains_key(&host.lane())));
            prop_assert!(slots.waiting.len() <= ending.len());
            prop_assert!(slots.waiting.values().all(|waiter| !slots.leases.contains_key(&waiter.lease)));
            let all: Vec<_> = slots.leases.values().flat_map(|tenant| &tenant.devices).collect();
            prop_assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
        }
    }
}

#[test]
fn what_is_told_of_leases_follows_them() {
    let mut slots = Slots::new([(BOX, vec![devices(&["a"]), devices(&["b"])])], 0);
    assert!(slots.lease_digests().is_empty());
    slots.claim(UnixMillis(0), &wanted(1)).unwrap();
    assert_eq!(slots.lease_digests()[&BOX], 0x0101_0101_0101_0101);
    slots.claim(UnixMillis(0), &wanted(2)).unwrap();
    assert_eq!(slots.lease_digests()[&BOX], 0x0303_0303_0303_0303);
    let told: Vec<_> = slots.devices_told(BOX).into_iter().map(|(_, is_free)| is_free).collect();
    assert_eq!(told, [false, false]);
    let _ = slots.release(lease(1));
    assert_eq!(slots.lease_digests()[&BOX], 0x0202_0202_0202_0202);
    assert_eq!(slots.devices_told(BOX).iter().filter(|(_, is_free)| *is_free).count(), 1);
}
