//! What an honest indexer, one that is behind and one that makes things up bring a checker to believe.

use std::time::Duration;

use welkin_proto::{AccountKey, Delegation, NodeKey, SignedByAccount, container_id};
use welkin_types::{Class, Price, Region, Resources, Tier};

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn key(host: u8) -> NodeKey {
    NodeKey::from_secret(&[host; 32])
}

/// What a host has signed: at this port, with so many containers of this class.
fn word(host: u8, port: u16, (containers, class): (u32, u32), issued: UnixMillis) -> Capability {
    let node = key(host).id();
    let account = AccountKey::from_secret(&[host; 32]).unwrap();
    let message = Delegation { node, expires: UnixMillis(u64::MAX) };
    let offer = |index| ContainerOffer {
        id: container_id(node, index),
        class: Class::cpu(class),
        resources: Resources::default(),
        slots: 2,
        price: Price::default(),
        tier: Tier::Container,
        features: Vec::new(),
        driver: None,
        apps: Vec::new(),
        spot: None,
        reserved: None,
    };
    Capability {
        addr: NodeAddr { node, relay: None, direct: vec![([127, 0, 0, 1], port).into()] },
        operator: SignedByAccount::sign(&Domain::LOCAL, &account, message).unwrap(),
        region: Region::local(),
        containers: (0..containers).map(offer).collect(),
        revision: 1,
        issued,
        expires: issued.after(12 * HOUR),
    }
}

fn signed(host: u8, capability: &Capability) -> Signed<Capability> {
    Signed::sign(&Domain::LOCAL, &key(host), capability).unwrap()
}

/// What an honest indexer lists.
fn rows(capability: &Capability, free: u32) -> Vec<Listing> {
    let row = |container: &ContainerOffer| Listing {
        addr: capability.addr.clone(),
        operator: capability.operator.signer(&Domain::LOCAL).unwrap(),
        container: container.clone(),
        region: capability.region.clone(),
        free,
        is_confirmed: true,
        online_bp: None,
        checks: 0,
    };
    capability.containers.iter().map(row).collect()
}

/// What a checker makes of rows by an indexer that shows this word: those that it believes, or why not.
fn told(
    words: &mut Words,
    now: UnixMillis,
    rows: Vec<Listing>,
    shown: &Signed<Capability>,
) -> Result<Vec<Listing>, WordError> {
    let mut told = words.list(now, rows);
    for (host, rows) in std::mem::take(&mut told.wanted) {
        let word = Word::open(&Domain::LOCAL, now, host, shown)?;
        words.take(now, &word)?;
        told.believed.extend(words.list(now, word.rows(&rows)).believed);
    }
    Ok(told.believed)
}

#[test]
fn what_a_host_has_signed_is_believed_and_asked_for_once() {
    let mut words = Words::default();
    let first = word(1, 7_000, (3, 1_000), NOW);
    let honest = rows(&first, 2);
    let told = words.list(NOW, honest.clone());
    assert_eq!((told.believed.len(), told.wanted.len()), (0, 1));
    let word = Word::open(&Domain::LOCAL, NOW, first.addr.node, &signed(1, &first)).unwrap();
    words.take(NOW, &word).unwrap();
    let told = words.list(NOW, honest.clone());
    assert_eq!((told.believed, told.wanted.len()), (honest.clone(), 0));
    // A price is no reason to ask again, nor is what is free.
    let mut dearer = honest;
    dearer.iter_mut().for_each(|row| row.container.price = Price::per_hour("1".parse().unwrap()));
    dearer[0].free = 0;
    assert_eq!(words.list(NOW, dearer.clone()).believed, dearer);
}

#[test]
fn an_older_word_changes_nothing_whoever_shows_it() {
    let mut words = Words::default();
    let old = word(1, 7_000, (2, 1_000), NOW);
    let new = word(1, 8_000, (2, 4_000), NOW.after(HOUR));
    let now = NOW.after(HOUR);
    let believed = told(&mut words, now, rows(&old, 1), &signed(1, &old)).unwrap();
    assert_eq!(believed, rows(&old, 1));
    // Another indexer shows the newer one: it counts.
    let believed = told(&mut words, now, rows(&new, 1), &signed(1, &new)).unwrap();
    assert_eq!(believed, rows(&new, 1));
    // The first one stays behind.
    let again = told(&mut words, now, rows(&old, 1), &signed(1, &old));
    assert_eq!(again, Err(WordError::Outdated));
    assert_eq!(words.list(now, rows(&new, 1)).believed, rows(&new, 1));
    // Of two of the same date the first one stays.
    let twin = word(1, 9_000, (2, 4_000), NOW.after(HOUR));
    assert_eq!(told(&mut words, now, rows(&twin, 1), &signed(1, &twin)), Ok(Vec::new()));
    // A revision counts where the clock says the same.
    let next = Capability { revision: 2, ..twin };
    assert_eq!(told(&mut words, now, rows(&next, 1), &signed(1, &next)), Ok(rows(&next, 1)));
}

#[test]
fn what_no_host_has_signed_is_not_believed() {
    let mut words = Words::default();
    let real = word(1, 7_000, (2, 1_000), NOW);
    told(&mut words, NOW, rows(&real, 1), &signed(1, &real)).unwrap();
    // Another address, another class, by the indexer's own key: and by the right one for others.
    let made_up = word(1, 6_666, (2, 64_000), NOW.after(HOUR));
    for by in [2, 200] {
        let found = told(&mut words, NOW, rows(&made_up, 1), &signed(by, &made_up));
        assert!(found.as_ref().is_err_and(WordError::is_forged), "{found:?}");
    }
    let other = word(2, 6_666, (2, 64_000), NOW.after(HOUR));
    let found = told(&mut words, NOW, rows(&made_up, 1), &signed(2, &other));
    assert!(found.as_ref().is_err_and(WordError::is_forged), "{found:?}");
    // The real word beside rows that say something else: what it says counts.
    let believed = told(&mut words, NOW, rows(&made_up, 1), &signed(1, &real)).unwrap();
    assert_eq!(believed, rows(&real, 1));
    // A host's containers are told of together: where one is left out, its word brings it back.
    let half = rows(&real, 1)[..1].to_vec();
    let believed = told(&mut words, NOW, half, &signed(1, &real)).unwrap();
    assert_eq!(believed.iter().map(|row| row.free).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(words.len(), 1);
}

#[test]
fn a_word_that_does_not_hold_is_not_believed() {
    let open = |host: u8, capability: &Capability, now| {
        Word::open(&Domain::LOCAL, now, key(host).id(), &signed(host, capability)).map(drop)
    };
    let good = word(1, 7_000, (2, 1_000), NOW);
    assert_eq!(open(1, &good, NOW), Ok(()));
    let over = NOW.after(13 * HOUR);
    assert_eq!(open(1, &good, over), Err(WordError::Unsound(CapabilityError::Expired)));
    let early = UnixMillis(NOW.0 - AHEAD_MS_MAX - 1);
    assert_eq!(open(1, &good, early), Err(WordError::Ahead { ahead_ms: AHEAD_MS_MAX + 1 }));
    let mut foreign = good.clone();
    foreign.containers[1].id = container_id(key(2).id(), 0);
    assert_eq!(open(1, &foreign, NOW), Err(WordError::Unsound(CapabilityError::Foreign)));
    let many = NodeAddr { direct: vec![([127, 0, 0, 1], 1).into(); 17], ..good.addr.clone() };
    let many = Capability { addr: many, ..good };
    assert!(matches!(open(1, &many, NOW), Err(WordError::Unsound(CapabilityError::Bounds(_)))));
}

#[test]
fn where_there_is_no_room_those_go_that_are_listed_no_more() {
    let mut words = Words::with_room_for(2);
    let of = |host| word(host, 7_000, (1, 1_000), NOW);
    let mut tell = |host, now| told(&mut words, now, rows(&of(host), 1), &signed(host, &of(host)));
    assert!(tell(1, NOW).is_ok() && tell(2, NOW).is_ok());
    let soon = NOW.after(HOUR);
    assert!(tell(2, soon).is_ok());
    assert_eq!(tell(3, soon), Err(WordError::Full));
    let later = UnixMillis(soon.0 + 60_001);
    assert_eq!(tell(3, later), Ok(rows(&of(3), 1)));
    assert_eq!(tell(1, later), Err(WordError::Full));
    assert_eq!(tell(2, later), Ok(rows(&of(2), 1)));
}

#[test]
fn a_host_of_its_own_account_is_left_out() {
    let own = AccountKey::from_secret(&[1; 32]).unwrap().id();
    let mut words = Words::default().of_account(own);
    let (mine, other) = (word(1, 7_000, (2, 1_000), NOW), word(2, 7_000, (2, 1_000), NOW));
    assert_eq!(told(&mut words, NOW, rows(&mine, 1), &signed(1, &mine)), Ok(Vec::new()));
    assert_eq!(told(&mut words, NOW, rows(&other, 1), &signed(2, &other)), Ok(rows(&other, 1)));
    // It is not asked for again.
    assert_eq!(words.list(NOW, rows(&mine, 1)), Told::default());
    // Once it works for somebody else it is visited.
    let Capability { operator, .. } = word(1, 7_000, (0, 0), NOW);
    let account = AccountKey::from_secret(&[3; 32]).unwrap();
    let operator = SignedByAccount::sign(&Domain::LOCAL, &account, operator.message).unwrap();
    let sold = Capability { operator, revision: 2, ..word(1, 7_000, (2, 1_000), NOW) };
    assert_eq!(told(&mut words, NOW, rows(&sold, 1), &signed(1, &sold)), Ok(rows(&sold, 1)));
    // Whatever account an indexer writes into a row.
    let mut lie = rows(&sold, 1);
    lie.iter_mut().for_each(|row| row.operator = own);
    assert_eq!(told(&mut words, NOW, lie, &signed(1, &sold)), Ok(rows(&sold, 1)));
}

#[test]
fn a_host_that_copies_the_checkers_delegation_is_visited_all_the_same() {
    let own = AccountKey::from_secret(&[1; 32]).unwrap();
    let mut words = Words::default().of_account(own.id());
    // What the checker shows of itself, in its roll.
    let message = Delegation { node: key(9).id(), expires: UnixMillis(u64::MAX) };
    let operator = SignedByAccount::sign(&Domain::LOCAL, &own, message).unwrap();
    let copied = Capability { operator, ..word(2, 7_000, (2, 1_000), NOW) };
    let said = told(&mut words, NOW, rows(&copied, 1), &signed(2, &copied));
    assert_eq!(said, Err(WordError::Unsound(CapabilityError::Operator)));
    let honest = word(2, 7_000, (2, 1_000), NOW);
    assert_eq!(told(&mut words, NOW, rows(&honest, 1), &signed(2, &honest)), Ok(rows(&honest, 1)));
}

#[test]
fn an_announcement_that_has_ended_is_asked_for_anew() {
    let mut words = Words::default();
    let first = word(1, 7_000, (2, 1_000), NOW);
    assert_eq!(told(&mut words, NOW, rows(&first, 1), &signed(1, &first)), Ok(rows(&first, 1)));
    let late = NOW.after(12 * HOUR);
    assert_eq!(words.list(late, rows(&first, 1)).believed, rows(&first, 1));
    let over = late.after(Duration::from_millis(1));
    let told = words.list(over, rows(&first, 1));
    assert_eq!((told.believed.len(), told.wanted.len()), (0, 1));
}

#[test]
fn in_which_order_containers_are_listed_does_not_matter() {
    let mut words = Words::default();
    let first = word(1, 7_000, (3, 1_000), NOW);
    assert_eq!(told(&mut words, NOW, rows(&first, 1), &signed(1, &first)), Ok(rows(&first, 1)));
    let mut turned = rows(&first, 1);
    turned.reverse();
    assert_eq!(words.list(NOW, turned.clone()).believed, turned);
}
