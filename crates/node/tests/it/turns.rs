//! More checkers than a committee, over real connections: hosts and indexers hear who shows that it has
//! drawn a container, and nobody else but who is named to stand in.

use std::collections::BTreeMap;
use std::time::Duration;

use welkin_check::sortition::{Committees, VrfKey};
use welkin_node::Caller;
use welkin_node::checker::{COMMITTEE, ExamError, Who, examine};
use welkin_proto::check::{Finding, Report, Sheet, Visit};
use welkin_proto::exam::{ExamRefusal, Verdict};
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};
use welkin_proto::{ALPN_INDEX, Domain, NodeKey, Seating, Signed, Turn, TurnProof, container_id};
use welkin_types::ContainerId;

use crate::exams::{checker, lenient, minute, register, target};
use crate::regions::paper::PaperHost;
use crate::world::{World, epoch, settle};

/// So many that nearly every minute has one that has drawn a container and one that neither has nor
/// stands in: seeds come from the time, and the first minute that serves is taken.
const CHECKERS: [u8; 12] = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

/// So long all of them may take to register.
const FOUNDING: Duration = Duration::from_secs(6);

struct Drawing {
    committees: Committees,
    checkers: BTreeMap<u8, Who>,
}

impl Drawing {
    async fn start(world: &World) -> Self {
        // All before the list is closed.
        for n in CHECKERS {
            register(world, n).await;
        }
        let mut checkers = BTreeMap::new();
        for n in CHECKERS {
            checkers.insert(n, checker(world, n).await);
        }
        let settle = settle(&world.service, 20, &world.shutdown);
        let committees = Committees::new(&settle.epoch(epoch()).await.unwrap(), COMMITTEE);
        Self { committees, checkers }
    }

    fn turn(&self, of: u8, minute: u64) -> Option<Turn> {
        let (ticket, _) = self.committees.ticket(self.checkers[&of].checker, minute)?;
        let (proof, _) = VrfKey::from_seed(&[of; 32])?.prove(&ticket, [1; 32]);
        Some(Turn { minute, proof: TurnProof::from_bytes(&proof.0) })
    }

    fn is_drawn(&self, of: u8, minute: u64, container: ContainerId) -> bool {
        let proof = self.turn(of, minute).map(|turn| turn.proof);
        let who = self.checkers[&of].checker;
        proof.is_some()
            && self.committees.seating_of(who, minute, container, proof) == Seating::Drawn
    }

    /// A minute near now in which one of them has drawn the container and another one has not, nor
    /// stands in.
    fn found(&self, container: ContainerId, minutes: &[u64]) -> (u64, u8, u8) {
        let found = minutes.iter().find_map(|minute| {
            let drawn = CHECKERS.into_iter().find(|of| self.is_drawn(*of, *minute, container))?;
            let other = CHECKERS.into_iter().find(|of| {
                let who = self.checkers[of].checker;
                let named = self.committees.stand_ins(*minute, container);
                !self.is_drawn(*of, *minute, container) && !named.contains(&who)
            })?;
            Some((*minute, drawn, other))
        });
        found.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_takes_challenges_of_those_that_show_that_they_have_drawn_it() {
    let world = World::start_founded("local", FOUNDING).await;
    let host = world.host(10).await;
    let drawing = Drawing::start(&world).await;
    let target = target(&host);
    let now = minute();
    let near = [now, now + 1, now - 1, now + 2];
    let (at, drawn, other) = drawing.found(target.container, &near);
    let table = lenient();
    let examined = async |by: u8, turn: Option<Turn>| {
        let who = Who { turn, ..drawing.checkers[&by].clone() };
        examine(&who, &target, at, &table).await
    };
    let own = drawing.turn(drawn, at).unwrap();
    let mut bent = own;
    bent.proof.response[3] ^= 1;
    // Nothing shown, something else, or somebody else's.
    let bad = [
        (drawn, None),
        (drawn, Some(bent)),
        (other, None),
        (other, Some(own)),
        (other, drawing.turn(other, at)),
    ];
    for (by, turn) in bad {
        let refused = examined(by, turn).await.unwrap_err();
        let ExamError::NotNow(why) = refused else { panic!("{refused:?}") };
        assert_eq!(why, ExamRefusal::NotAssigned);
    }
    assert!(host.exams().unassigned >= 5 && host.exams().begun == 0);
    let report = examined(drawn, Some(own)).await.unwrap();
    assert!(matches!(report.verdict, Verdict::Proved { .. }), "{report:?}");
    assert_eq!(report.turn, Some(own.proof));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexer_keeps_what_was_drawn_and_no_more() {
    let world = World::start_founded("local", FOUNDING).await;
    let drawing = Drawing::start(&world).await;
    let addr = world.network.indexers[0].clone();
    let paper = PaperHost::start(11, "local", 4, &[&addr]).await;
    let (node, container) = (paper.addr.node, paper.capability.containers[0].id);
    let ask = async |by: u8, request: IndexRequest| {
        let endpoint = drawing.checkers[&by].endpoint.clone();
        let caller = Caller::new(endpoint, addr.clone(), ALPN_INDEX);
        let hello = IndexHello::Ask(Box::new(request));
        caller.ask(&hello, Duration::from_secs(20)).await.unwrap()
    };
    while ask(20, IndexRequest::Locate(node)).await == IndexReply::Located(None) {
        tokio::task::yield_now().await;
    }
    let now = minute();
    let (at, drawn, other) = drawing.found(container, &[now, now + 1, now - 1]);
    let tell = async |by: u8, minute: u64, turn: Option<TurnProof>| {
        let key = NodeKey::from_secret(&[by; 32]);
        let (checker, finding) = (key.id(), Finding::Online { rtt_us: 900 });
        let report = Report { checker, host: node, container, minute, finding, turn };
        let sheet = Sheet::of(&report).unwrap();
        let signed = Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap();
        ask(by, IndexRequest::Sheet(Box::new(signed))).await
    };
    let own = drawing.turn(drawn, at).unwrap().proof;
    for (by, minute, turn) in [
        (other, at, None),
        (other, at, Some(own)),
        (other, at, drawing.turn(other, at).map(|turn| turn.proof)),
        // Too late: others may have stood in.
        (drawn, now - 3, drawing.turn(drawn, now - 3).map(|turn| turn.proof)),
    ] {
        let reply = tell(by, minute, turn).await;
        assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    }
    // Not even beside what it has drawn.
    let key = NodeKey::from_secret(&[drawn; 32]);
    let visits = |place| Visit { host: node, place, finding: Finding::Online { rtt_us: 900 } };
    let is_drawn = |place: &u8| {
        let container = container_id(node, (*place).into());
        let lot = drawing.committees.shown(key.id(), &Turn { minute: at, proof: own }).unwrap();
        let seating = drawing.committees.seating(key.id(), at, container, Some(&lot));
        seating != Seating::Nobody
    };
    let not_drawn = (1..64).find(|place| !is_drawn(place)).unwrap();
    let visits = vec![visits(0), visits(not_drawn)];
    let sheet = Sheet { checker: key.id(), minute: at, turn: Some(own), visits };
    let signed = Signed::sign(&Domain::LOCAL, &key, &sheet).unwrap();
    let reply = ask(drawn, IndexRequest::Sheet(Box::new(signed))).await;
    assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    assert_eq!(tell(drawn, at, Some(own)).await, IndexReply::Reported);
    // What was shown once is not known to those who read another report of it.
    let named = drawing.committees.stand_ins(at, container);
    if !named.contains(&drawing.checkers[&drawn].checker) {
        let reply = tell(drawn, at, None).await;
        assert!(matches!(reply, IndexReply::Refused(_)), "{reply:?}");
    }
    // Who is named for the last minute of a period comes without a proof, and is heard, whoever else is.
    let now = minute();
    let last = [now, now + 1].into_iter().find(|at| drawing.committees.span().is_last_minute(*at));
    if let Some(last) = last {
        let named = drawing.committees.stand_ins(last, container);
        let is_named = |of: &u8| named.contains(&drawing.checkers[of].checker);
        let by = CHECKERS.into_iter().find(is_named).unwrap();
        assert_eq!(tell(by, last, None).await, IndexReply::Reported);
    }
}
