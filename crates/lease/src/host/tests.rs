//! Scripts in, transcripts out.

use std::fmt::Write as _;

use proptest::prelude::*;
use welkin_proto::lease::Launch;
use welkin_proto::{AccountKey, Checkpoint, Delegation, Domain, Terms};
use welkin_types::{CapacityType, ContainerId, LeaseId, NodeId, Price};

use super::*;

fn key() -> AccountKey {
    AccountKey::from_secret(&[1; 32]).unwrap()
}

fn record(budget: &str, launch: Launch) -> LeaseRecord {
    let key = key();
    let order = Order {
        lease: LeaseId::from_bytes([1; 16]),
        buyer: key.id(),
        operator: key.id(),
        host: NodeId::from_bytes([3; 32]),
        container: ContainerId::from_bytes([4; 16]),
        price: Price::per_hour("3.60".parse().unwrap()),
        budget: budget.parse().unwrap(),
        task_sha256: [0; 32],
        issued: UnixMillis(0),
        expires: UnixMillis(1),
    };
    let order = SignedByAccount::sign(&Domain::LOCAL, &key, order).unwrap();
    let delegation = Delegation { node: NodeId::from_bytes([3; 32]), expires: UnixMillis(9) };
    let operator = SignedByAccount::sign(&Domain::LOCAL, &key, delegation).unwrap();
    let claim = crate::Claim { fencing: 1, devices: crate::Devices::new() };
    LeaseRecord::new(order, operator, launch, claim, UnixMillis(0))
}

fn launch() -> Launch {
    Launch {
        image: "host".to_owned(),
        argv: vec!["true".to_owned()],
        env: Vec::new(),
        cwd: String::new(),
        cpu_milli: 1_000,
        memory_bytes: 1 << 20,
        disk_bytes: 1 << 20,
        shm_bytes: 0,
        run_seconds_max: 0,
        start_seconds_max: 5,
        name: String::new(),
        terms: Terms::ON_DEMAND,
        checkpoint: None,
    }
}

fn voucher(seconds: u64) -> Input {
    let voucher = Voucher {
        lease: LeaseId::from_bytes([1; 16]),
        operator: key().id(),
        amount: Usd::from_micros(1_000 * seconds),
        seconds,
    };
    Input::Voucher(Box::new(SignedByAccount::sign(&Domain::LOCAL, &key(), voucher).unwrap()))
}

const EXIT: Exit = Exit { code: Some(0), signal: None, oom: false };

fn wiped() -> Input {
    Input::Wiped(
        Wipe { complete: true, ..Wipe::default() },
        LogSummary::default(),
        ResourcesUsed::default(),
    )
}

/// Feeds inputs at their times and writes down what the machine wants.
fn run(lease: &mut HostLease, script: Vec<(u64, Input)>) -> String {
    let mut text = String::new();
    drain(lease, 0, &mut text);
    for (at, input) in script {
        lease.handle(UnixMillis(at), input);
        drain(lease, at, &mut text);
    }
    text
}

fn drain(lease: &mut HostLease, at: u64, text: &mut String) {
    loop {
        let line = match lease.poll() {
            Effect::Idle { .. } => return,
            Effect::Save | Effect::Prepare => continue,
            Effect::Tell(stage, _) => format!("tell {} {}", stage.state, stage.reason),
            Effect::Notice(until) => format!("notice until {}", until.0),
            Effect::Checkpoint(until) => format!("checkpoint until {}", until.0),
            Effect::Offer(until) => format!("offer until {}", until.0),
            Effect::AskVoucher { seconds, covered } => format!("ask {seconds} of {covered}"),
            other => format!("{other:?}").to_lowercase(),
        };
        writeln!(text, "{at} {line}").unwrap();
    }
}

fn fresh(budget: &str, launch: Launch) -> HostLease {
    HostLease::new(record(budget, launch), Policy::default(), UnixMillis(0))
}

#[test]
fn a_short_job_from_end_to_end() {
    let mut lease = fresh("1", launch());
    let text = run(
        &mut lease,
        vec![
            (10, Input::Prepared([9; 16])),
            (20, Input::Started),
            (2_020, Input::Tick),
            (2_030, voucher(3)),
            (3_500, Input::Exited(EXIT)),
            (3_510, wiped()),
            (3_520, voucher(4)),
            (3_530, Input::Settled(Usd::from_micros(4_000))),
        ],
    );
    insta::assert_snapshot!(text, @r"
    0 tell pulling normal
    10 tell starting normal
    10 start
    20 tell running normal
    2020 ask 2 of 0
    3500 tell succeeded exited_zero
    3500 destroy
    3510 ask 4 of 3
    3520 close
    3530 receipt
    ");
    assert_eq!(lease.record().usage.seconds, 4);
    assert_eq!(lease.cost(), Usd::from_micros(4_000));
}

#[test]
fn unpaid_work_stops_at_the_bound_and_is_given_up() {
    let mut lease = fresh("1", launch());
    let text = run(
        &mut lease,
        vec![
            (0, Input::Prepared([9; 16])),
            (0, Input::Started),
            (4_000, voucher(4)),
            (14_000, Input::Tick),
            (14_001, Input::Tick),
            (16_001, Input::Tick),
            (16_050, Input::Exited(Exit { signal: Some(9), ..Exit::default() })),
            (16_060, wiped()),
            (19_060, Input::Tick),
            (19_070, Input::Settled(Usd::from_micros(4_000))),
        ],
    );
    insta::assert_snapshot!(text, @r"
    0 tell pulling normal
    0 tell starting normal
    0 start
    0 tell running normal
    4000 ask 4 of 4
    14000 ask 14 of 4
    14001 tell stopping uncovered
    14001 terminate
    16001 kill
    16050 tell expired uncovered
    16050 destroy
    16060 ask 15 of 4
    19060 close
    19070 receipt
    ");
    assert_eq!(lease.record().usage.seconds, 4);
}

/// Nobody waits for a promise that the budget forbids.
#[test]
fn an_exhausted_budget_is_closed_at_once() {
    let mut lease = fresh("0.003", launch());
    let text = run(
        &mut lease,
        vec![
            (0, Input::Prepared([9; 16])),
            (0, Input::Started),
            (2_500, voucher(3)),
            (3_001, Input::Tick),
            (3_100, Input::Exited(EXIT)),
            (3_110, wiped()),
            (3_120, Input::Settled(Usd::from_micros(3_000))),
        ],
    );
    insta::assert_snapshot!(text, @r"
    0 tell pulling normal
    0 tell starting normal
    0 start
    0 tell running normal
    2500 ask 3 of 3
    3001 tell stopping funds_exhausted
    3001 terminate
    3100 tell expired funds_exhausted
    3100 destroy
    3110 close
    3120 receipt
    ");
    assert_eq!((lease.record().usage.seconds, lease.cost()), (3, Usd::from_micros(3_000)));
}

/// The receipt says what was paid, whatever was promised; nothing is promised any more once the
/// last voucher is being cashed.
#[test]
fn the_cost_is_what_was_paid() {
    let run_and_settle = |paid| {
        let mut lease = fresh("1", launch());
        let script = vec![
            (0, Input::Prepared([9; 16])),
            (0, Input::Started),
            (3_500, voucher(4)),
            (3_600, Input::Exited(EXIT)),
            (3_610, wiped()),
            (3_620, voucher(4)),
            (3_700, Input::Settled(Usd::from_micros(paid))),
            (3_710, Input::Settled(Usd::from_micros(1))),
        ];
        let text = run(&mut lease, script);
        assert!(text.ends_with("3610 close\n3700 receipt\n"), "{text}");
        lease
    };
    assert_eq!(run_and_settle(4_000).cost(), Usd::from_micros(4_000));
    let short = run_and_settle(2_500);
    assert_eq!((short.cost(), short.record().usage.seconds), (Usd::from_micros(2_500), 4));
    // A service that says more than was due does not make the receipt wrong.
    assert_eq!(run_and_settle(9_000).cost(), Usd::from_micros(4_000));

    // After a restart between the settlement and the receipt it is asked once more.
    let mut again =
        HostLease::restore(short.record().clone(), Policy::default(), UnixMillis(9_000));
    let script = vec![
        (9_000, Input::Restored(Found::Nothing)),
        (9_010, voucher(4)),
        (9_020, Input::Settled(Usd::from_micros(2_500))),
    ];
    insta::assert_snapshot!(run(&mut again, script), @r"
    9000 close
    9020 receipt
    ");
    assert_eq!(again.cost(), Usd::from_micros(2_500));
}

#[test]
fn a_stop_before_the_start_costs_nothing() {
    let mut lease = fresh("1", launch());
    let script = vec![
        (5, Input::Stop(Duration::from_secs(10))),
        (6, Input::Prepared([9; 16])),
        (7, Input::Started),
        (8, wiped()),
        (9, Input::Settled(Usd::ZERO)),
    ];
    insta::assert_snapshot!(run(&mut lease, script), @r"
    0 tell pulling normal
    5 tell stopped buyer_stopped
    5 destroy
    8 close
    9 receipt
    ");
    assert_eq!(lease.cost(), Usd::ZERO);
}

#[test]
fn limits_of_time_and_money_hold() {
    let mut slow = fresh("1", launch());
    insta::assert_snapshot!(run(&mut slow, vec![(5_000, Input::Tick)]), @r"
    0 tell pulling normal
    5000 tell failed start_timeout
    5000 destroy
    ");
    let start = || vec![(0, Input::Prepared([9; 16])), (0, Input::Started)];
    let mut long = fresh("1", Launch { run_seconds_max: 3, ..launch() });
    let mut script = start();
    script.push((3_000, Input::Tick));
    assert!(run(&mut long, script).ends_with("3000 tell stopping run_timeout\n3000 terminate\n"));
    let mut poor = fresh("0.002", launch());
    let mut script = start();
    script.push((2_001, Input::Tick));
    let text = run(&mut poor, script);
    assert!(text.ends_with("2001 tell stopping funds_exhausted\n2001 terminate\n"), "{text}");
}

#[test]
fn after_a_restart_a_live_command_goes_on_and_a_dead_one_is_billed_as_promised() {
    let mut before = fresh("1", launch());
    let script = vec![(0, Input::Prepared([9; 16])), (0, Input::Started), (4_500, voucher(5))];
    run(&mut before, script);
    let disk = before.record().clone();

    let mut alive = HostLease::restore(disk.clone(), Policy::default(), UnixMillis(9_000));
    let text = run(&mut alive, vec![(9_000, Input::Restored(Found::Running))]);
    insta::assert_snapshot!(text, @"9000 ask 9 of 5");

    let mut dead = HostLease::restore(disk.clone(), Policy::default(), UnixMillis(60_000));
    let script = vec![
        (60_000, Input::Restored(Found::Nothing)),
        (60_001, wiped()),
        (60_002, Input::Settled(Usd::from_micros(5_000))),
    ];
    insta::assert_snapshot!(run(&mut dead, script), @r"
    60000 tell lost host_restarted
    60000 destroy
    60001 close
    60002 receipt
    ");
    assert_eq!(dead.record().usage.seconds, 5);

    let mut ended = HostLease::restore(disk, Policy::default(), UnixMillis(60_000));
    run(&mut ended, vec![(60_000, Input::Restored(Found::Exited(EXIT))), (60_001, wiped())]);
    assert_eq!(ended.record().state(), LeaseState::Succeeded);
    assert_eq!(ended.record().usage.seconds, 5);
}

/// The buyer could not pay while the host was gone: it gets time to come back, once.
#[test]
fn after_a_restart_the_buyer_may_take_its_time_to_come_back() {
    let mut before = fresh("1", launch());
    let script = vec![(0, Input::Prepared([9; 16])), (0, Input::Started), (4_500, voucher(5))];
    run(&mut before, script);
    let disk = before.record().clone();
    let taken_up = |script: Vec<(u64, Input)>| {
        let mut lease = HostLease::restore(disk.clone(), Policy::default(), UnixMillis(30_000));
        let first = (30_000, Input::Restored(Found::Running));
        run(&mut lease, std::iter::once(first).chain(script).collect())
    };
    let text = taken_up(vec![(49_000, Input::Tick), (51_000, Input::Tick)]);
    insta::assert_snapshot!(text, @r"
    30000 ask 30 of 5
    49000 ask 49 of 5
    51000 tell stopping uncovered
    51000 terminate
    ");
    let text = taken_up(vec![(40_000, voucher(40)), (52_000, Input::Tick)]);
    assert!(text.contains("52000 tell stopping uncovered"), "{text}");
}

fn spot(checkpoint: Option<Checkpoint>) -> HostLease {
    let terms = Terms::plain(CapacityType::Spot, 20);
    fresh("1", Launch { terms, checkpoint, ..launch() })
}

fn preempted(mut lease: HostLease, mut script: Vec<(u64, Input)>) -> (HostLease, String) {
    let mut all = vec![(0, Input::Prepared([9; 16])), (0, Input::Started), (2_500, voucher(2))];
    all.push((4_900, Input::Preempt));
    all.append(&mut script);
    let text = run(&mut lease, all);
    let text = text.split_once("tell running normal\n").unwrap().1.to_owned();
    (lease, text)
}

/// Billing ends at the notice, and the second that had begun is free.
#[test]
fn a_spot_lease_ends_with_notice_and_its_last_second_is_free() {
    let killed = Exit { signal: Some(9), ..Exit::default() };
    let script = vec![
        (5_000, Input::Preempt),
        (24_899, Input::Tick),
        (24_900, Input::Tick),
        (24_950, Input::Exited(killed)),
        (24_960, wiped()),
        (24_970, voucher(4)),
        (24_980, Input::Settled(Usd::from_micros(4_000))),
    ];
    let (lease, text) = preempted(spot(None), script);
    insta::assert_snapshot!(text, @r"
    2500 ask 2 of 2
    4900 tell stopping preempted
    4900 notice until 24900
    4900 terminate
    24900 kill
    24950 tell preempted preempted
    24950 destroy
    24960 ask 4 of 2
    24970 close
    24980 receipt
    ");
    assert_eq!((lease.record().usage.seconds, lease.cost()), (4, Usd::from_micros(4_000)));

    let mut demand = fresh("1", launch());
    let start = vec![(0, Input::Prepared([9; 16])), (0, Input::Started), (10, Input::Preempt)];
    assert!(run(&mut demand, start).ends_with("0 tell running normal\n"), "not a spot lease");
}

#[test]
fn a_checkpoint_is_written_and_fetched_before_the_command_is_asked_to_end() {
    let checkpoint = |argv: &[&str], path: &str| Checkpoint {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        path: path.to_owned(),
    };
    let both = checkpoint(&["save"], "/work/ckpt");
    let good = vec![
        (6_000, Input::Checkpointed),
        (7_000, Input::Fetched),
        (7_001, Input::Fetched),
        (7_100, Input::Exited(EXIT)),
    ];
    let (_, text) = preempted(spot(Some(both.clone())), good);
    insta::assert_snapshot!(text, @r"
    2500 ask 2 of 2
    4900 tell stopping preempted
    4900 notice until 24900
    4900 checkpoint until 19900
    6000 offer until 19900
    7000 terminate
    7100 tell preempted preempted
    7100 destroy
    ");
    // What takes too long is cut short; what ends by itself before it was asked to has succeeded.
    let slow = vec![(19_900, Input::Tick), (20_000, Input::Checkpointed), (24_900, Input::Tick)];
    let (_, text) = preempted(spot(Some(both.clone())), slow);
    assert!(text.ends_with("19900\n19900 terminate\n24900 kill\n"), "{text}");
    let (_, text) = preempted(spot(Some(both.clone())), vec![(5_000, Input::Exited(EXIT))]);
    assert!(text.ends_with("5000 tell succeeded exited_zero\n5000 destroy\n"), "{text}");
    let stop = (5_000, Input::Stop(Duration::from_secs(1)));
    let (_, text) = preempted(spot(Some(both)), vec![stop, (6_000, Input::Tick)]);
    assert!(text.ends_with("5000 terminate\n6000 kill\n"), "{text}");
    let (_, text) =
        preempted(spot(Some(checkpoint(&["save"], ""))), vec![(6_000, Input::Checkpointed)]);
    assert!(text.ends_with("6000 terminate\n"), "{text}");
    let (_, text) = preempted(spot(Some(checkpoint(&[], "/c"))), vec![(6_000, Input::Fetched)]);
    assert!(text.ends_with("4900 offer until 19900\n6000 terminate\n"), "{text}");
}

#[test]
fn the_notice_holds_over_a_restart_of_the_host() {
    let (lease, _) = preempted(spot(None), Vec::new());
    let mut again =
        HostLease::restore(lease.record().clone(), Policy::default(), UnixMillis(9_000));
    let script = vec![(9_000, Input::Restored(Found::Running)), (24_900, Input::Tick)];
    insta::assert_snapshot!(run(&mut again, script), @r"
    9000 terminate
    24900 kill
    ");
}

#[test]
fn an_order_that_waits_for_a_slot_starts_late_and_pays_nothing_for_it() {
    let waiting = || {
        let record = record("1", launch()).waiting(UnixMillis(0));
        HostLease::new(record, Policy::default(), UnixMillis(0))
    };
    let mut lease = waiting();
    let script = vec![
        (0, Input::Prepared([8; 16])),
        (20_000, Input::Tick),
        (20_010, Input::Placed(Devices::from(["a".to_owned()]))),
        (20_020, Input::Prepared([9; 16])),
        (20_030, Input::Started),
        (20_040, Input::Exited(EXIT)),
    ];
    insta::assert_snapshot!(run(&mut lease, script), @r"
    0 tell placing awaits_spot
    20010 tell pulling normal
    20020 tell starting normal
    20020 start
    20030 tell running normal
    20040 tell succeeded exited_zero
    20040 destroy
    ");
    assert_eq!(lease.record().usage.seconds, 1);
    assert_eq!(lease.record().devices, Devices::from(["a".to_owned()]));
    let text = run(&mut waiting(), vec![(1_000_000, Input::Tick)]);
    assert!(text.ends_with("tell failed hosts_busy\n1000000 destroy\n"), "{text}");
    let text = run(&mut waiting(), vec![(9, Input::Stop(Duration::ZERO))]);
    assert!(text.ends_with("9 tell stopped buyer_stopped\n9 destroy\n"), "{text}");
    let record = waiting().record().clone();
    let mut lost = HostLease::restore(record, Policy::default(), UnixMillis(9));
    let text = run(&mut lost, vec![(9, Input::Restored(Found::Nothing))]);
    assert_eq!(text, "9 tell lost host_restarted\n9 destroy\n");
}

#[test]
fn what_fails_under_a_lease_ends_it_and_bills_no_more() {
    let mut lease = fresh("1", launch());
    let lost = || Input::Fault(Reason::HostFault, "the GPU has fallen off the bus".to_owned());
    let script = vec![
        (0, Input::Prepared([9; 16])),
        (0, Input::Started),
        (4_000, voucher(4)),
        (5_900, lost()),
        (5_910, lost()),
        (5_920, Input::Exited(Exit { code: Some(1), ..Exit::default() })),
        (6_000, wiped()),
        (6_010, Input::Settled(Usd::from_micros(4_000))),
    ];
    let text = run(&mut lease, script);
    let end = "5900 tell lost host_fault\n5900 destroy\n6000 close\n6010 receipt\n";
    assert!(text.ends_with(end), "{text}");
    assert_eq!((lease.cost(), lease.record().usage.seconds), (Usd::from_micros(4_000), 4));
    assert_eq!(Reason::HostFault.fault(), Some(welkin_types::Fault::Host));

    // What has time to leave leaves in order, also after a restart.
    let drain = (5_000, Input::Drain(Reason::HostFault));
    let script = vec![(0, Input::Prepared([9; 16])), (0, Input::Started), drain];
    let mut leaving = fresh("1", launch());
    let text = run(&mut leaving, script);
    assert!(text.ends_with("5000 tell stopping host_fault\n5000 terminate\n"), "{text}");
    let record = leaving.record().clone();
    let mut again = HostLease::restore(record, Policy::default(), UnixMillis(6_000));
    let exit = Exit { signal: Some(15), ..Exit::default() };
    let script = vec![(6_000, Input::Restored(Found::Running)), (6_100, Input::Exited(exit))];
    let text = run(&mut again, script);
    assert!(text.contains("6100 tell preempted host_fault\n"), "{text}");
    assert_eq!(again.record().usage.seconds, 5);
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Tick),
        Just(Input::Prepared([9; 16])),
        Just(Input::Started),
        Just(Input::Exited(EXIT)),
        Just(Input::Drain(Reason::HostDrained)),
        Just(Input::Fault(Reason::HostFault, String::new())),
        Just(Input::Preempt),
        Just(Input::Checkpointed),
        Just(Input::Fetched),
        Just(Input::Placed(Devices::new())),
        Just(Input::FundsExhausted),
        (0..9_000_u64).prop_map(|paid| Input::Settled(Usd::from_micros(paid))),
        (0..9_u64).prop_map(voucher),
        Just(Input::Restored(Found::Running)),
        Just(Input::Restored(Found::Nothing)),
        Just(Input::Broken(Reason::SandboxFailed, String::new())),
        (0..20_u64).prop_map(|s| Input::Stop(Duration::from_secs(s))),
        Just(wiped()),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one final state, nothing started after it, one receipt,
    /// and never more billed than ran or than was promised.
    #[test]
    fn any_order_of_inputs_is_survived(
        steps in proptest::collection::vec((0..3_000_u64, any_input()), 0..60),
        is_spot: bool,
        has_checkpoint: bool,
        is_waiting: bool,
    ) {
        let argv = vec!["save".to_owned()];
        let checkpoint = has_checkpoint.then(|| Checkpoint { argv, path: "/c".to_owned() });
        let capacity = if is_spot { CapacityType::Spot } else { CapacityType::OnDemand };
        let terms = Terms::plain(capacity, 8);
        let mut record = record("1", Launch { terms, checkpoint, ..launch() });
        if is_waiting {
            record = record.waiting(UnixMillis(0));
        }
        let mut lease = HostLease::new(record, Policy::default(), UnixMillis(0));
        let (mut now, mut receipts) = (0, 0);
        for (pause, input) in steps {
            now += pause;
            lease.handle(UnixMillis(now), input);
            loop {
                let ended = lease.record().state().is_final();
                match lease.poll() {
                    Effect::Idle { wake_at, .. } => {
                        prop_assert!(wake_at.is_none_or(|at| at.0 > now || ended));
                        break;
                    }
                    Effect::Receipt => receipts += 1,
                    _ => (),
                }
            }
            let stages = &lease.record().stages;
            let finals = stages.iter().filter(|stage| stage.state.is_final()).count();
            prop_assert!(finals <= 1);
            prop_assert!(stages.windows(2).all(|pair| pair[0].at <= pair[1].at));
            prop_assert!(finals == 0 || stages.last().unwrap().state.is_final());
            let promised = lease.record().covered().1;
            prop_assert!(lease.cost() <= promised && promised <= Usd::from_micros(1_000 * lease.record().seconds(UnixMillis(now))));
        }
        prop_assert!(receipts <= 1 || lease.record().settled);
    }
}
