//! Measurements of network, place and disk over real connections.

use std::time::Duration;

use tokio::task::JoinSet;
use welkin_net::{RecvStream, SendStream};
use welkin_node::checker::{ExamError, Target, measure};
use welkin_node::{Caller, outside, wire};
use welkin_proto::epoch::{EvidenceAsk, Roll, Statement};
use welkin_proto::exam::{ExamAsk, ExamProbe, ExamRefusal, ExamReply};
use welkin_proto::index::{IndexReply, IndexRequest};
use welkin_proto::site::{MeasureKind, MeasureWork, PlaceFinding, Site, SiteReport};
use welkin_proto::{ALPN_EXAM, ALPN_INDEX, Domain, NodeKey, Signed};
use welkin_types::{Class, ContainerId, NodeId, Resources};

use crate::exams::{ask, checker, minute, stranger, target};
use crate::regions::paper::PaperHost;
use crate::world::{World, endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn network_and_disk_are_measured_once_a_minute() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let at = minute();
    let report = measure(&who, &target, at, None).await.unwrap();
    let Site { down_kib_s, up_kib_s, write_kib_s, read_kib_s, .. } = report.site;
    for rate in [down_kib_s, up_kib_s, write_kib_s, read_kib_s] {
        assert!(rate.is_some_and(|rate| rate > 100), "{report:?}");
    }
    assert_eq!((report.site.ports_named, report.site.ports_open), (1, 1));
    assert!(report.site.rtt_us > 0 && !report.site.is_wrong);
    assert_eq!(host.exams().measured, 3);
    let left = std::fs::read_dir(world.dir.path().join("host-10")).unwrap();
    let is_test = |name: &str| name.starts_with("disk-test");
    assert!(left.flatten().all(|file| !is_test(&file.file_name().to_string_lossy())));
    // Not twice for one minute; strangers never; and both are counted.
    let refused = measure(&who, &target, at, None).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::TooMany)), "{refused:?}");
    let refused = measure(&stranger(30).await, &target, at, None).await.unwrap_err();
    assert!(matches!(refused, ExamError::NotNow(ExamRefusal::NotAssigned)), "{refused:?}");
    assert_eq!((host.exams().refused, host.exams().unassigned, host.exams().measured), (6, 3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_is_not_sent() {
    let world = World::start().await;
    let host = world.host(10).await;
    let who = checker(&world, 20).await;
    let target = target(&host);
    let caller = Caller::new(who.endpoint.clone(), target.addr.clone(), ALPN_EXAM);
    let connection = caller.connection().await.unwrap();
    let (container, seed) = (target.container, [1; 32]);
    let (minute, kind) = (minute(), MeasureKind::Download);
    let good = MeasureWork { minute, container, seed, kind, blocks: 1 };
    for bad in [
        MeasureWork { blocks: 0, ..good },
        MeasureWork { blocks: 65, ..good },
        MeasureWork { blocks: 257, kind: MeasureKind::Disk, ..good },
        MeasureWork { container: ContainerId::from_bytes([7; 16]), ..good },
    ] {
        let (mut send, mut recv) = connection.open().await.unwrap();
        wire::send(&mut send, &ExamAsk::Measure(bad)).await.unwrap();
        let reply: ExamReply = wire::expect(&mut recv, Duration::from_secs(10)).await.unwrap();
        assert_eq!(reply, ExamReply::Refused(ExamRefusal::TooLarge), "{bad:?}");
    }
    assert_eq!(host.exams().measured, 0);
}

/// Sends, hashes and reads what it likes.
async fn lie(mut send: SendStream, mut recv: RecvStream) -> Result<(), wire::WireError> {
    let work = match wire::expect(&mut recv, Duration::from_secs(10)).await? {
        ExamAsk::Ping(nonce) => return wire::send(&mut send, &ExamReply::Pong(nonce)).await,
        ExamAsk::Measure(work) => work,
        _ => return Ok(()),
    };
    wire::send(&mut send, &ExamReply::Ready).await?;
    match work.kind {
        MeasureKind::Download => {
            let _ = send.write_all(&[0; 65_536]).await;
        }
        // Before anything has come.
        MeasureKind::Upload => wire::send(&mut send, &ExamReply::Hash([1; 32])).await?,
        MeasureKind::Disk => {
            wire::send(&mut send, &ExamReply::Hash([1; 32])).await?;
            wire::expect::<ExamProbe>(&mut recv, Duration::from_secs(10)).await?;
            wire::send(&mut send, &ExamReply::Hash([2; 32])).await?;
        }
    }
    let _ = send.finish();
    // Until the checker has heard it.
    while let Ok(Some(_)) = recv.read_chunk(65_536).await {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_without_doing_it_is_found_out() {
    let own = endpoint([41; 32], &[ALPN_EXAM]).await;
    let mut addr = wire::from_net(&own.addr());
    // An address at which nobody is.
    addr.direct.push(([127, 0, 0, 1], 9).into());
    let mut hosts = JoinSet::new();
    hosts.spawn(async move {
        let mut streams = JoinSet::new();
        while let Some(incoming) = own.accept().await {
            let Ok(connection) = incoming.handshake().await else { continue };
            streams.spawn(async move {
                while let Ok((send, recv)) = connection.accept().await {
                    let _ = lie(send, recv).await;
                }
            });
        }
    });
    let resources =
        Resources { cpu_milli: 1_000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: vec![] };
    let container = ContainerId::from_bytes([41; 16]);
    let target = Target { addr, container, class: Class::cpu(1_000), resources };
    let report = measure(&stranger(20).await, &target, minute(), None).await.unwrap();
    let Site { is_wrong, down_kib_s, up_kib_s, write_kib_s, .. } = report.site;
    assert_eq!((is_wrong, down_kib_s, up_kib_s, write_kib_s), (true, None, None, None));
    assert_eq!((report.site.ports_named, report.site.ports_open), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_keeps_what_assigned_checkers_measured() {
    let world = World::start_in("kr-seoul").await;
    let addr = world.network.indexers[0].clone();
    let who = checker(&world, 20).await;
    let key = NodeKey::from_secret(&[20; 32]);
    let indexer = Caller::new(who.endpoint.clone(), addr.clone(), ALPN_INDEX);
    let paper = PaperHost::start(11, "kr-seoul", 4, &[&addr]).await;
    let (host, container) = (paper.addr.node, paper.capability.containers[0].id);
    while ask(&indexer, IndexRequest::Locate(host)).await == IndexReply::Located(None) {
        tokio::task::yield_now().await;
    }
    let from = Some("jp-osaka".parse().unwrap());
    let site = Site { rtt_us: 12_000, from, down_kib_s: Some(5), ..Site::default() };
    let (checker, minute, turn) = (who.checker, minute(), None);
    let report = SiteReport { checker, host, container, minute, site, turn };
    let tell = async |report: &SiteReport| {
        let signed = Signed::sign(&Domain::LOCAL, &key, report).unwrap();
        ask(&indexer, IndexRequest::Site(Box::new(signed))).await
    };
    for refused in [
        SiteReport { minute: report.minute - 60, ..report.clone() },
        SiteReport { checker: host, ..report.clone() },
        SiteReport { host: NodeId::from_bytes([5; 32]), ..report.clone() },
    ] {
        let reply = tell(&refused).await;
        assert!(matches!(reply, IndexReply::Refused(_)), "{refused:?}: {reply:?}");
    }
    assert_eq!(tell(&report).await, IndexReply::Reported);
    // It stands in the evidence of its epoch, and who reads that sees where its host says that it is.
    let asked = EvidenceAsk { epoch: minute / 60, from: 0 };
    let IndexReply::Epoch(page) = ask(&indexer, IndexRequest::Epoch(asked)).await else { panic!() };
    let is_it = |said: &Statement| matches!(said, Statement::Site(signed) if signed.open_by(&Domain::LOCAL, checker).unwrap() == report);
    assert_eq!(page.statements.iter().filter(|said| is_it(said)).count(), 1);
    let roll = |region: &str| {
        let (issued, account) = (outside::now(), paper.capability.operator.clone());
        let containers = vec![(container, paper.capability.containers[0].class.clone())];
        let region = Some(region.parse().unwrap());
        let roll = Roll { epoch: asked.epoch, issued, account, containers, region };
        let signed = Signed::sign(&Domain::LOCAL, &NodeKey::from_secret(&[11; 32]), &roll).unwrap();
        IndexRequest::State(Box::new(Statement::Roll(Box::new(signed))))
    };
    let own = Caller::new(endpoint([11; 32], &[]).await, addr.clone(), ALPN_INDEX);
    let IndexReply::Refused(why) = ask(&own, roll("de-frankfurt")).await else { panic!() };
    assert!(why.contains("another region"), "{why}");
    assert_eq!(ask(&own, roll("kr-seoul")).await, IndexReply::Reported);
    let IndexReply::Sites(rows) = ask(&indexer, IndexRequest::Sites).await else { panic!() };
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((row.place, row.checkers, row.wrong), (PlaceFinding::Possible, 1, 0));
    assert_eq!((row.site.rtt_us, row.site.down_kib_s), (12_000, Some(5)));
}
