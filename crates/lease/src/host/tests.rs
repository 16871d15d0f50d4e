//! Scripts in, transcripts out.

use std::fmt::Write as _;

use proptest::prelude::*;
use welkin_proto::lease::Launch;
use welkin_proto::{AccountKey, Delegation, Domain};
use welkin_types::{ContainerId, LeaseId, NodeId, Price};

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
            Effect::Save => continue,
            Effect::Tell(stage, _) => format!("tell {} {}", stage.state, stage.reason),
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

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Tick),
        Just(Input::Prepared([9; 16])),
        Just(Input::Started),
        Just(Input::Exited(EXIT)),
        Just(Input::Drain),
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
    ) {
        let mut lease = fresh("1", launch());
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
