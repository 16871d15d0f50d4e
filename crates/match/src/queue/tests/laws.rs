//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Between two buyers that both wait all the time, what they were given differs by no more than
    /// the largest wish of either and one of the other.
    #[test]
    fn shares_are_equal_within_a_wish(
        sizes in prop::collection::vec((1..4_u8, 1..4_u8, 1..4_u8), 12),
        releases in prop::collection::vec(1..6_usize, 8..60),
    ) {
        // Gangs that have waited for long: no smaller wish passes them.
        let mut bench = Bench { now: PATIENCE_MS, age: PATIENCE_MS, ..Bench::default() };
        let size = |buyer: usize, nth: usize| {
            let (one, two, three) = sizes[nth % sizes.len()];
            [one, two, three][buyer]
        };
        let (mut joined, mut given) = ([0_usize; 3], [0_u64; 3]);
        for slots in releases {
            for (buyer, joined) in joined.iter_mut().enumerate() {
                let id = account(buyer as u64);
                while bench.queue.buyers.get(&id).is_none_or(|known| known.places.len() < 16) {
                    bench.join(buyer as u64, wish(1, size(buyer, *joined)));
                    *joined += 1;
                }
            }
            // All that is left over of earlier releases is there as well.
            for grant in bench.release(1, slots) {
                let buyer = (0..3).find(|buyer| grant.buyer == account(*buyer)).unwrap();
                given[usize::try_from(buyer).unwrap()] += grant.slots.len() as u64;
                bench.queue.leave(grant.ticket);
            }
            let (least, most) = (given.iter().min().unwrap(), given.iter().max().unwrap());
            prop_assert!(most - least <= 2 * 3, "{given:?}");
            bench.now += 1_000;
        }
    }

    /// Of equal wishes of one buyer none is served before an earlier one.
    #[test]
    fn within_a_buyer_first_come_first_served(
        steps in prop::collection::vec((0..3_u64, 1..3_u32, 0..2_usize), 1..80),
    ) {
        let mut bench = Bench::default();
        let mut waiting: Vec<(u64, u32, TicketId)> = Vec::new();
        for (buyer, class, released) in steps {
            bench.now += 10;
            waiting.push((buyer, class, bench.join(buyer, wish(class, 1))));
            for grant in bench.release(class, released) {
                let place = waiting.iter().position(|(.., ticket)| *ticket == grant.ticket).unwrap();
                let (buyer, class, _) = waiting.remove(place);
                let before = waiting[..place].iter();
                prop_assert_eq!(before.filter(|(b, c, _)| (*b, *c) == (buyer, class)).count(), 0);
                bench.queue.leave(grant.ticket);
            }
        }
    }

    /// However many newcomers there are, and however small their wishes, a gang gets its turn.
    #[test]
    fn nobody_starves(
        gang in 2..6_u8,
        gangs_before in 0..3_u64,
        newcomers in prop::collection::vec(1..5_usize, 200),
    ) {
        let mut bench = Bench::default();
        // It has been given much before, so it is behind.
        let _holds_the_queue_open = bench.join(2, wish(7, 1));
        for _ in 0..gangs_before {
            let before = bench.join(1, wish(1, gang));
            prop_assert_eq!(tickets(&bench.release(1, usize::from(gang))), [before]);
            bench.queue.leave(before);
        }
        let waits = bench.join(1, wish(1, gang));
        let mut released = 0;
        for (step, count) in newcomers.iter().enumerate() {
            bench.now += 1_000;
            for newcomer in 0..*count {
                bench.join((1_000 + step * 10 + newcomer) as u64, wish(1, 1));
            }
            released += 1;
            let granted = bench.release(1, 1);
            if tickets(&granted).contains(&waits) {
                return Ok(());
            }
            granted.iter().for_each(|grant| bench.queue.leave(grant.ticket));
        }
        prop_assert!(false, "not within {released} releases");
    }

    /// Whatever happens: no slot is granted twice or lost, nobody is granted who is not there, and
    /// positions are numbered through.
    #[test]
    fn any_history_keeps_the_books(
        steps in prop::collection::vec((0..9_u8, 0..6_u64, 1..3_u32, 1..4_u8, 0..40_000_u64), 1..120),
    ) {
        let mut bench = Bench::default();
        let (mut known, mut offered): (Vec<TicketId>, BTreeMap<TicketId, Vec<u32>>) = Default::default();
        let mut slots_made = 0;
        for (verb, buyer, class, slots, time) in steps {
            let now = UnixMillis(bench.now);
            let pick = known.get(usize::try_from(time).unwrap() % known.len().max(1)).copied();
            match (verb, pick) {
                (0..=2, _) => known.extend(bench.join_for(buyer, wish(class, slots), 1 + time)),
                (3, Some(ticket)) => bench.queue.away(now, ticket),
                (4, Some(ticket)) => {
                    bench.queue.leave(ticket);
                    bench.free.give_back(offered.remove(&ticket).unwrap_or_default());
                }
                (5, Some(ticket)) => {
                    bench.queue.returned(now, ticket, &[NodeId::from_bytes([1; 32])]);
                    bench.free.give_back(offered.remove(&ticket).unwrap_or_default());
                }
                (6, _) => bench.now += time,
                (7, Some(ticket)) => {
                    let deadline = UnixMillis(bench.now + 9);
                    let join =
                        Join { ticket, buyer: account(buyer), since: now, deadline, wish: wish(1, 1) };
                    let _ = bench.queue.join(now, join);
                }
                _ => {
                    *bench.free.0.entry(class).or_default() += usize::from(slots);
                    slots_made += usize::from(slots);
                }
            }
            for (ticket, _) in bench.tick() {
                bench.free.give_back(offered.remove(&ticket).unwrap_or_default());
            }
            for grant in bench.round() {
                let place = bench.queue.places.get(&grant.ticket).unwrap();
                prop_assert_eq!(grant.slots.len(), place.wish.slots());
                prop_assert!(place.deadline > UnixMillis(bench.now));
                // One that was away while it was offered something left that behind.
                bench.free.give_back(offered.insert(grant.ticket, grant.slots).unwrap_or_default());
            }
            let held: usize = offered.values().map(Vec::len).sum();
            prop_assert_eq!(bench.free.0.values().sum::<usize>() + held, slots_made);
            let stands = bench.queue.standings(UnixMillis(bench.now));
            let positions: Vec<_> = stands.iter().map(|(_, stand)| stand.position).collect();
            let count = u32::try_from(stands.len()).unwrap();
            prop_assert_eq!(positions, (1..=count).collect::<Vec<_>>());
            prop_assert!(stands.iter().all(|(_, stand)| stand.of == count));
            prop_assert_eq!(stands.len(), bench.queue.len());
            let due = bench.queue.next_due();
            prop_assert!(due.is_none_or(|due| due > UnixMillis(bench.now)), "{due:?}");
        }
    }
}
