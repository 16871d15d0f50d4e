//! One indexer that is silent, and one that takes what it is told.

use tokio::sync::watch;
use welkin_net::{Endpoint, EndpointConfig};
use welkin_proto::check::{Finding, Visit};
use welkin_proto::{ALPN_INDEX, Domain, NodeKey};
use welkin_types::NodeId;

use super::*;
use crate::wire;

async fn endpoint(secret: u8) -> Endpoint {
    let mut config = EndpointConfig::new([secret; 32]);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.alpns = vec![ALPN_INDEX.to_vec()];
    Endpoint::bind(config).await.unwrap()
}

/// Takes each report and counts it; where it is silent it only reads.
async fn serve(endpoint: Endpoint, count: watch::Sender<usize>, is_silent: bool) {
    let mut open = Vec::new();
    let Some(incoming) = endpoint.accept().await else { return };
    let Ok(connection) = incoming.handshake().await else { return };
    while let Ok((mut send, mut recv)) = connection.accept().await {
        let hello = wire::expect::<IndexHello>(&mut recv, Duration::from_secs(5)).await;
        if is_silent || hello.is_err() {
            open.push((send, recv));
            continue;
        }
        let _ = wire::send(&mut send, &IndexReply::Reported).await;
        let _ = send.finish();
        count.send_modify(|count| *count += 1);
    }
}

fn signing() -> Sign {
    let key = NodeKey::from_secret(&[1; 32]);
    Arc::new(move |sheet| Signed::sign(&Domain::LOCAL, &key, sheet).ok())
}

/// A sheet of the first containers of a host.
fn sheet(containers: u8) -> IndexHello {
    let (checker, host) = (NodeKey::from_secret(&[1; 32]).id(), NodeId::from_bytes([9; 32]));
    let finding = Finding::Unreachable;
    let visits = (0..containers).map(|place| Visit { host, place, finding }).collect();
    let signed = signing()(&Sheet { checker, minute: 7, turn: None, visits }).unwrap();
    IndexHello::Ask(Box::new(IndexRequest::Sheet(Box::new(signed))))
}

fn places(hello: &IndexHello) -> Vec<u8> {
    let IndexHello::Ask(asked) = hello else { panic!("no question") };
    let IndexRequest::Sheet(signed) = &**asked else { panic!("no sheet") };
    let sheet = signed.open(&Domain::LOCAL).unwrap();
    sheet.visits.iter().map(|visit| visit.place).collect()
}

/// An indexer has what it lists, and what others list is for others.
#[test]
fn a_sheet_is_signed_again_without_what_an_indexer_does_not_list() {
    let some = without(&sheet(4), &[0, 2, 99], &signing()).unwrap();
    assert_eq!(places(&some), [1, 3]);
    // Where nothing is left, or nothing was left out, there is nothing to be sent again; and it can't name
    // more than stand there.
    assert_eq!(without(&sheet(2), &[0; 3], &signing()), None);
    assert_eq!(without(&sheet(2), &[0, 1], &signing()), None);
    assert_eq!(without(&sheet(2), &[2], &signing()), None);
    let other = IndexHello::Ask(Box::new(IndexRequest::Indexers));
    assert_eq!(without(&other, &[0], &signing()), None);
}

#[tokio::test(start_paused = true)]
async fn what_an_indexer_takes_instead_is_sent_at_once_and_not_for_ever() {
    let lane = Lane::default();
    let hello = Arc::new(sheet(9));
    lane.queue().put(Report { hello, sends: 3, cuts: 0, due: Instant::now() });
    let mut sent = Vec::new();
    loop {
        let next = lane.queue().take(Instant::now());
        let Ok((number, report)) = next else { break };
        sent.push(places(&report.hello).len());
        // One that always finds something.
        let less = without(&report.hello, &[0], &signing()).unwrap();
        lane.took(number, report, Taken::Only(less));
    }
    assert_eq!((sent, lane.queue().dropped), (vec![9, 8, 7, 6], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_indexer_costs_only_its_own_reports() {
    let (silent, taking) = (endpoint(1).await, endpoint(2).await);
    let from = endpoint(3).await;
    let caller = |of: &Endpoint| Caller::new(from.clone(), wire::from_net(&of.addr()), ALPN_INDEX);
    let indexers = Arc::new(vec![caller(&silent), caller(&taking)]);
    let shutdown = Shutdown::default();
    let (none, (count, mut taken)) = (watch::Sender::new(0), watch::channel(0));
    shutdown.spawn_until_asked("silent", serve(silent, none, true));
    shutdown.spawn_until_asked("taking", serve(taking, count, false));
    let desk = Desk::start(&indexers, &signing(), &Unheard::default(), &shutdown);
    let mut sent = 0;
    // More than may wait, in parts that may.
    for _ in 0..4 {
        for _ in 0..WAITING_MAX / 2 {
            desk.send(IndexHello::Ask(Box::new(IndexRequest::Indexers)));
            sent += 1;
        }
        let all = taken.wait_for(|taken| *taken == sent);
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap().unwrap();
    }
    let queues = desk.lanes.iter().map(|lane| {
        let queue = lane.queue();
        (queue.waiting.len(), queue.dropped > 0)
    });
    let queues: Vec<_> = queues.collect();
    assert_eq!(queues[1], (0, false));
    // What could not be kept for the silent one is dropped, the oldest first.
    assert!((WAITING_MAX - 2 * AT_ONCE..=WAITING_MAX).contains(&queues[0].0), "{queues:?}");
    let oldest = desk.lanes[0].queue().waiting.keys().next().copied();
    assert!(oldest.is_some_and(|oldest| oldest >= 500), "{oldest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_now_is_sent_again_and_then_dropped() {
    let lane = Lane::default();
    let report = || Report {
        hello: Arc::new(IndexHello::Ask(Box::new(IndexRequest::Indexers))),
        sends: 0,
        cuts: 0,
        due: Instant::now(),
    };
    lane.queue().put(report());
    let began = Instant::now();
    let mut at = Vec::new();
    loop {
        let next = lane.queue().take(Instant::now());
        match next {
            Ok((number, report)) => {
                at.push(began.elapsed().as_secs());
                lane.took(number, report, Taken::NotNow);
            }
            Err(Some(wake)) => tokio::time::sleep_until(wake).await,
            Err(None) => break,
        }
    }
    assert_eq!((at, lane.queue().dropped), (vec![0, 2, 8, 26], 1));
    // What was refused or taken is done with.
    lane.took(7, report(), Taken::Done);
    let queue = lane.queue();
    assert_eq!((queue.waiting.len(), queue.dropped), (0, 1));
}
