//! Examples, and laws over random histories.

mod laws;

use welkin_proto::index::Together;

use super::*;

pub(super) fn ticket(number: u64) -> TicketId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    TicketId::from_bytes(bytes)
}

pub(super) fn account(number: u64) -> AccountId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    AccountId::from_bytes(bytes)
}

/// A wish for slots of a class, which is told by its cores.
pub(super) fn wish(class: u32, slots: u8) -> Wish {
    let needs = Needs { cpu_milli_min: class * 1_000, ..Needs::default() };
    let gang = GangAsk { members: slots, together: Together::Site, is_spread: false };
    let gang = (slots != 1).then_some(gang);
    Wish { needs, gang, exclude: Vec::new(), from: None, round_trips_us: Vec::new() }
}

/// Slots by class.
#[derive(Clone, Debug, Default)]
pub(super) struct Free(pub(super) BTreeMap<u32, usize>);

impl Supply for Free {
    type Slot = u32;

    fn keep(&mut self, _buyer: AccountId, wish: &Wish) -> Vec<u32> {
        let class = wish.needs.cpu_milli_min / 1_000;
        let free = self.0.entry(class).or_default();
        let kept = wish.slots().min(*free);
        *free -= kept;
        vec![class; kept]
    }

    fn give_back(&mut self, slots: Vec<u32>) {
        for class in slots {
            *self.0.entry(class).or_default() += 1;
        }
    }
}

/// A queue, what is free, and the time.
#[derive(Debug, Default)]
pub(super) struct Bench {
    pub(super) queue: Queue,
    pub(super) free: Free,
    pub(super) now: u64,
    /// How long those who join have waited before.
    pub(super) age: u64,
    tickets: u64,
}

impl Bench {
    pub(super) fn join(&mut self, buyer: u64, wish: Wish) -> TicketId {
        self.join_for(buyer, wish, 1_000_000).unwrap()
    }

    pub(super) fn join_for(
        &mut self,
        buyer: u64,
        wish: Wish,
        wait_ms: u64,
    ) -> Result<TicketId, JoinRefusal> {
        self.tickets += 1;
        let (ticket, now) = (ticket(self.tickets), UnixMillis(self.now));
        let since = UnixMillis(self.now - self.age);
        let deadline = UnixMillis(self.now + wait_ms);
        let join = Join { ticket, buyer: account(buyer), since, deadline, wish };
        self.queue.join(now, join).map(|_| ticket)
    }

    /// One round over so many newly free slots of a class; what is reserved is free again behind it.
    pub(super) fn release(&mut self, class: u32, slots: usize) -> Vec<Grant<u32>> {
        *self.free.0.entry(class).or_default() += slots;
        self.round()
    }

    pub(super) fn round(&mut self) -> Vec<Grant<u32>> {
        let round = self.queue.round(UnixMillis(self.now), &mut self.free);
        self.free.give_back(round.reserved);
        round.grants
    }

    fn tick(&mut self) -> Vec<(TicketId, Dropped)> {
        self.queue.tick(UnixMillis(self.now))
    }
}

fn tickets(grants: &[Grant<u32>]) -> Vec<TicketId> {
    grants.iter().map(|grant| grant.ticket).collect()
}

#[test]
fn one_that_floods_does_not_hold_up_the_others() {
    let mut bench = Bench::default();
    let flood: Vec<_> = (0..5).map(|_| bench.join(1, wish(1, 1))).collect();
    let (second, third) = (bench.join(2, wish(1, 1)), bench.join(3, wish(1, 1)));
    let order: Vec<_> = (0..7).flat_map(|_| tickets(&bench.release(1, 1))).collect();
    assert_eq!(order, [flood[0], second, third, flood[1], flood[2], flood[3], flood[4]]);
}

#[test]
fn a_later_wish_passes_only_what_it_does_not_compete_with() {
    let mut bench = Bench::default();
    let (large, small, same) =
        (bench.join(1, wish(8, 1)), bench.join(1, wish(1, 1)), bench.join(1, wish(1, 1)));
    assert_eq!(tickets(&bench.release(1, 1)), [small]);
    assert_eq!(tickets(&bench.release(8, 1)), [large]);
    assert_eq!(tickets(&bench.release(1, 1)), [same]);
}

#[test]
fn a_gang_that_has_waited_is_kept_what_becomes_free() {
    let mut bench = Bench::default();
    let gang = bench.join(1, wish(1, 3));
    let first = bench.join(2, wish(1, 1));
    assert_eq!(tickets(&bench.release(1, 1)), [first], "not yet: the gang has only come");
    bench.now += PATIENCE_MS;
    let late = bench.join(3, wish(1, 1));
    let other = bench.join(4, wish(2, 1));
    assert_eq!(tickets(&bench.release(1, 1)), []);
    let stand = |bench: &Bench, of| {
        let stands = bench.queue.standings(UnixMillis(bench.now));
        stands.into_iter().find(|(ticket, _)| *ticket == of).unwrap().1
    };
    assert!(stand(&bench, gang).is_reserved && !stand(&bench, late).is_reserved);
    assert_eq!(tickets(&bench.release(2, 1)), [other], "what the gang can't use goes to others");
    assert_eq!(tickets(&bench.release(1, 1)), []);
    assert_eq!(tickets(&bench.release(1, 1)), [gang]);
    assert_eq!(tickets(&bench.release(1, 1)), [late]);
}

#[test]
fn time_is_over_exactly_then() {
    let mut bench = Bench::default();
    let ticket = bench.join_for(1, wish(1, 1), 5_000).unwrap();
    assert_eq!(bench.queue.next_due(), Some(UnixMillis(5_000)));
    bench.now = 4_999;
    assert_eq!(bench.tick(), []);
    bench.now = 5_000;
    assert_eq!(tickets(&bench.release(1, 1)), [], "too late");
    assert_eq!(bench.tick(), [(ticket, Dropped::TimedOut)]);
    assert!(bench.queue.is_empty());
    for wait_ms in [0, WAIT_MS_MAX + 1] {
        assert_eq!(bench.join_for(1, wish(1, 1), wait_ms), Err(JoinRefusal::Time));
    }
}

#[test]
fn who_comes_back_in_time_has_its_place_and_who_does_not_has_none() {
    let mut bench = Bench::default();
    let (first, second) = (bench.join(1, wish(1, 1)), bench.join(2, wish(1, 1)));
    bench.queue.away(UnixMillis(0), first);
    bench.now = 1_000;
    assert_eq!(tickets(&bench.release(1, 1)), [second], "who is away is not waited for");
    let join = |ticket, buyer, now| Join {
        ticket,
        buyer: account(buyer),
        since: UnixMillis(0),
        deadline: UnixMillis(now + 9_000),
        wish: wish(1, 1),
    };
    let stranger = bench.queue.join(UnixMillis(1_000), join(first, 2, 1_000));
    assert_eq!(stranger, Err(JoinRefusal::Stranger));
    let _third = bench.join(3, wish(1, 1));
    let again = bench.queue.join(UnixMillis(1_000), join(first, 1, 1_000));
    assert_eq!(again, Ok(Joined::Again));
    assert_eq!(tickets(&bench.release(1, 1)), [first]);
    bench.queue.away(UnixMillis(bench.now), first);
    bench.now += AWAY_MS_MAX;
    assert_eq!(bench.tick(), [(first, Dropped::Away)]);
    let late = bench.queue.join(UnixMillis(bench.now), join(first, 1, bench.now));
    assert_eq!(late, Err(JoinRefusal::Spent));
}

#[test]
fn offers_that_come_to_nothing_cost_no_turn() {
    let mut bench = Bench::default();
    let (first, second) = (bench.join(1, wish(1, 1)), bench.join(2, wish(1, 1)));
    assert_eq!(tickets(&bench.release(1, 1)), [first]);
    bench.queue.returned(UnixMillis(0), first, &[NodeId::from_bytes([9; 32])]);
    assert_eq!(tickets(&bench.release(1, 1)), [first]);
    // Again and again: others have their turn meanwhile.
    bench.queue.returned(UnixMillis(0), first, &[]);
    assert_eq!(tickets(&bench.release(1, 1)), [second]);
    bench.now = 1_000;
    assert_eq!(tickets(&bench.release(1, 1)), [first]);
    bench.queue.leave(first);
    bench.queue.returned(UnixMillis(0), first, &[]);
    assert_eq!(bench.queue.len(), 1);
    // Who does not answer is away.
    bench.now += ANSWER_MS_MAX;
    assert_eq!(bench.tick(), []);
    bench.now += AWAY_MS_MAX;
    assert_eq!(bench.tick(), [(second, Dropped::Away)]);
}

#[test]
fn positions_are_among_those_who_want_the_same_and_waits_are_estimated() {
    let mut bench = Bench::default();
    let gpu = Wish {
        needs: Needs { gpu: Some("rtx4090".parse().unwrap()), ..Needs::default() },
        ..wish(1, 1)
    };
    for buyer in 1..=12 {
        bench.join(buyer, wish(1, 1));
    }
    let other = bench.join(20, gpu);
    let stand = |bench: &Bench, of: TicketId| {
        let stands = bench.queue.standings(UnixMillis(bench.now));
        stands.into_iter().find(|(ticket, _)| *ticket == of).unwrap().1
    };
    assert_eq!((stand(&bench, other).position, stand(&bench, other).of), (1, 1));
    assert_eq!((stand(&bench, ticket(12)).position, stand(&bench, ticket(12)).of), (12, 12));
    assert_eq!(stand(&bench, ticket(12)).estimate_ms, None);
    for _ in 0..4 {
        bench.now += 60_000;
        for grant in bench.release(1, 1) {
            bench.queue.leave(grant.ticket);
        }
    }
    let last = stand(&bench, ticket(12));
    assert_eq!((last.position, last.of, last.estimate_ms), (8, 8, Some(8 * 60_000)));
}

#[test]
fn places_are_bounded() {
    let mut bench = Bench::default();
    for _ in 0..PLACES_PER_BUYER_MAX {
        bench.join(1, wish(1, 1));
    }
    assert_eq!(bench.join_for(1, wish(1, 1), 9), Err(JoinRefusal::Buyer));
    for class in 0..u32::try_from(WISHES_PER_BUYER_MAX).unwrap() {
        bench.join(2, wish(class + 1, 1));
    }
    assert_eq!(bench.join_for(2, wish(999, 1), 9), Err(JoinRefusal::BuyersWishes));
    for slots in [0, GANG_MAX + 1] {
        assert_eq!(bench.join_for(3, wish(1, slots), 9), Err(JoinRefusal::Slots));
    }
    let mut buyer = 3;
    while bench.queue.len() < PLACES_MAX {
        buyer += 1;
        for _ in 0..PLACES_PER_BUYER_MAX.min(PLACES_MAX - bench.queue.len()) {
            bench.join(buyer, wish(1, 1));
        }
    }
    assert_eq!(bench.join_for(buyer + 1, wish(1, 1), 9), Err(JoinRefusal::Full));
}
