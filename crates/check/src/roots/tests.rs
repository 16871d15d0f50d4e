//! When a root is signed, whose turn it is, what is refused.

use super::*;

const TURN: Duration = Duration::from_secs(10);
const ROOT: [u8; 32] = [7; 32];

fn account(n: u8) -> AccountId {
    AccountId::from_bytes([n; 20])
}

fn members(of: &[u8]) -> BTreeSet<AccountId> {
    of.iter().map(|n| account(*n)).collect()
}

/// Of members 1, 2 and 3 two must sign.
fn contract() -> Contract {
    Contract { counted: 4, members: members(&[1, 2, 3]), threshold: 2, proposal: None }
}

/// The seed names the second member first.
fn found() -> Found {
    let mut seed = [0; 32];
    seed[7] = 1;
    Found { number: 5, root: ROOT, seed, is_over: true }
}

fn proposed(root: [u8; 32]) -> Contract {
    let proposal = Proposal { root, is_ready: false, is_contested: false };
    Contract { proposal: Some(proposal), ..contract() }
}

fn at(seconds: u64) -> UnixMillis {
    UnixMillis(seconds * 1_000)
}

#[test]
fn the_order_begins_with_whom_the_seed_names_and_goes_round() {
    let (all, seed) = (members(&[1, 2, 3]), found().seed);
    let places = [1, 2, 3, 4].map(|n| place(&all, &seed, account(n)));
    assert_eq!(places, [Some(2), Some(0), Some(1), None]);
    assert_eq!(place(&members(&[9]), &[255; 32], account(9)), Some(0));
    assert_eq!(place(&members(&[]), &[255; 32], account(9)), None);
}

#[test]
fn the_first_with_a_quorum_proposes_and_the_next_ones_a_turn_later_each() {
    let (signers, all) = (members(&[2, 3]), [(2, 100), (3, 110), (1, 120)]);
    for (n, second) in all {
        let mut council = Council::new(account(n), TURN);
        if second > 100 {
            let before = council.next(at(100), &contract(), &found(), &signers);
            assert_eq!(before, Step::Wait(Why::Turn));
            let before = council.next(at(second - 1), &contract(), &found(), &signers);
            assert_eq!(before, Step::Wait(Why::Turn));
        }
        assert_eq!(council.next(at(second), &contract(), &found(), &signers), Step::Propose);
    }
}

#[test]
fn turns_are_counted_anew_where_the_quorum_is_lost_or_the_root_another() {
    let mut council = Council::new(account(3), TURN);
    let signers = members(&[2, 3]);
    assert_eq!(council.next(at(0), &contract(), &found(), &signers), Step::Wait(Why::Turn));
    let lost = council.next(at(5), &contract(), &found(), &members(&[3]));
    assert_eq!(lost, Step::Wait(Why::Quorum { has: 1, needs: 2 }));
    assert_eq!(council.next(at(12), &contract(), &found(), &signers), Step::Wait(Why::Turn));
    let other = Found { root: [8; 32], ..found() };
    assert_eq!(council.next(at(20), &contract(), &other, &signers), Step::Wait(Why::Turn));
    assert_eq!(council.next(at(29), &contract(), &other, &signers), Step::Wait(Why::Turn));
    assert_eq!(council.next(at(30), &contract(), &other, &signers), Step::Propose);
}

#[test]
fn only_members_are_counted_and_only_what_is_over_is_proposed() {
    let mut council = Council::new(account(2), TURN);
    let strangers = members(&[2, 8, 9]);
    let next = council.next(at(0), &contract(), &found(), &strangers);
    assert_eq!(next, Step::Wait(Why::Quorum { has: 1, needs: 2 }));
    let early = Found { is_over: false, ..found() };
    let next = council.next(at(0), &contract(), &early, &members(&[1, 2, 3]));
    assert_eq!(next, Step::Wait(Why::NotOver));
    let mut stranger = Council::new(account(8), TURN);
    let next = stranger.next(at(0), &contract(), &found(), &members(&[1, 2, 3]));
    assert_eq!(next, Step::Wait(Why::NotMember));
    let late = Contract { counted: 5, ..contract() };
    let next = council.next(at(0), &late, &found(), &members(&[1, 2, 3]));
    assert_eq!(next, Step::Wait(Why::OtherEpoch));
}

#[test]
fn what_was_found_here_is_made_to_count_and_nothing_else() {
    let mut council = Council::new(account(3), TURN);
    let mut contract = proposed(ROOT);
    let mut next = |second, contract: &Contract| {
        council.next(at(second), contract, &found(), &BTreeSet::new())
    };
    assert_eq!(next(0, &contract), Step::Wait(Why::Window));
    let set = |contract: &mut Contract, is_ready, is_contested, root| {
        contract.proposal = Some(Proposal { root, is_ready, is_contested });
    };
    set(&mut contract, true, false, ROOT);
    assert_eq!(next(50, &contract), Step::Wait(Why::Turn));
    assert_eq!(next(60, &contract), Step::Accept);
    set(&mut contract, true, true, ROOT);
    assert_eq!(next(61, &contract), Step::Wait(Why::Contested));
    set(&mut contract, true, false, [8; 32]);
    assert_eq!(next(62, &contract), Step::Wait(Why::OtherRoot));
}

#[test]
fn a_member_signs_what_it_has_found_of_the_awaited_epoch() {
    let council = Council::new(account(1), TURN);
    assert!(council.signs(&contract(), &found()));
    assert!(council.signs(&proposed(ROOT), &found()));
    assert!(!council.signs(&proposed([8; 32]), &found()), "another root is proposed");
    assert!(!council.signs(&contract(), &Found { number: 6, ..found() }));
    assert!(!council.signs(&contract(), &Found { number: 4, ..found() }));
    assert!(!Council::new(account(8), TURN).signs(&contract(), &found()));
}

#[test]
fn words_are_refused_with_what_is_wrong() {
    let all = members(&[1, 2]);
    let take = |number, signer: Option<u8>, vouched: Option<u8>| {
        take_word(number, signer.map(account), vouched.map(account), (4, &all))
    };
    assert_eq!(take(5, Some(1), Some(1)), Ok(account(1)));
    assert_eq!(take(5, None, Some(1)), Err(WordRefusal::Malformed));
    assert_eq!(take(5, Some(1), Some(2)), Err(WordRefusal::OtherAccount));
    assert_eq!(take(5, Some(1), None), Err(WordRefusal::OtherAccount));
    assert_eq!(take(5, Some(3), Some(3)), Err(WordRefusal::NotMember));
    assert_eq!(take(4, Some(1), Some(1)), Err(WordRefusal::Counted { counted: 4 }));
    assert_eq!(take(6, Some(1), Some(1)), Err(WordRefusal::Early { awaited: 5 }));
}

#[test]
fn each_epoch_of_the_contract_has_the_last_one_that_is_over_by_its_end() {
    // Days that begin at another hour than the contract's: one ends in each of those.
    let ends = 100 * 86_400 + 7_200;
    assert_eq!(epoch_within(ends, 86_400), Some(99));
    assert_eq!(epoch_within(ends + 86_400, 86_400), Some(100));
    // Of short ones the last of the day.
    assert_eq!(epoch_within(ends + 59, 60), Some(ends / 60 - 1));
    assert_eq!(epoch_within(ends, 86_401), None);
    assert_eq!(epoch_within(ends, 0), None);
    assert_eq!(epoch_within(59, 60), None);
}
