//! How each message is made: the list of everything that crosses a wire or is signed.

use welkin_proto::check::{Finding, Probe, ProbeReply, Sheet, Visit};
use welkin_proto::cosign::Cosign;
use welkin_proto::digest::{
    DigestUpdate, Figures, Head, Mark, MinuteDigest, RoundTrip, Seal, Series, SessionDigests, Side,
};
use welkin_proto::epoch::{EvidenceAsk, EvidencePage, Heading, Roll, Statement};
use welkin_proto::exam::{
    ExamAsk, ExamCommitment, ExamProbe, ExamRefusal, ExamReply, ExamReport, ExamRows, ExamWork,
    FillWork, OpenedRow, Verdict, Verified, WalkEnd,
};
use welkin_proto::gossip::{
    ClassSummary, Directory, Evidence, Gossip, IndexerCard, Reported, Summary, Tally, Versions,
};
use welkin_proto::heartbeat::{Enrolment, SessionKey, Welcome};
use welkin_proto::index::{
    Candidates, ContainersAsk, ContainersPage, Filter, GangAsk, Hold, HostToIndexer, IndexHello,
    IndexReply, IndexRequest, IndexerToHost, Listing, MatchRequest, Nearest, Together, WhyNot,
};
use welkin_proto::lease::{
    Accepted, DataFrame, ExecIn, ExecOut, FromHost, InputState, Launch, LeaseInfo, LogFrame,
    LogFrom, LogSeen, Open, Output, Refusal, RefusalCode, Secret, StreamHello, TermSize, ToHost,
};
use welkin_proto::prices::{PricePoint, PricesAsked, Span, Spread};
use welkin_proto::queue::{Standing, Ticket, Wait, WaitAnswer, WaitEvent};
use welkin_proto::rooted::RootWord;
use welkin_proto::settle::{
    EpochView, Listed, SettleCall, SettleRefusal, SettleReply, SettleRequest,
};
use welkin_proto::site::{MeasureKind, MeasureWork, PlaceFinding, Site, SiteReport, SiteView};
use welkin_proto::{
    AccountSignature, Capability, Checkpoint, ContainerOffer, Delegation, Domain, Exit, LogSummary,
    Matched, NodeAddr, NodeKey, Offer, Order, Receipt, ReceiptAck, ReceiptFile, RelayAddr,
    ReservationAsk, ReservationReceipt, ReservationReceiptFile, ReservationView, Reserve,
    ReservedTerms, Signable, Signed, SignedByAccount, SpotTerms, StageTime, Terms, Turn, TurnProof,
    Usage, Voucher, Wipe,
};
use welkin_types::task::{ByteRange, CountRange, GpuAsk, Needs};
use welkin_types::{
    AccountId, AppId, CapacityType, Class, ContainerId, Feature, Gpu, LeaseId, LeaseState, NodeId,
    OfferId, Policy, Price, Reason, Region, ReservationEnd, ReservationId, Resources, TicketId,
    Tier, UnixMillis, Usd,
};

use crate::make::{Make, Source, make_enum, make_struct};

macro_rules! make_id {
    ($($name:ty),*) => {$(
        impl Make for $name {
            fn make(source: &mut Source<'_>) -> Self {
                Self::from_bytes(source.array())
            }
        }
    )*};
}
make_id!(AccountId, AppId, ContainerId, LeaseId, NodeId, OfferId, ReservationId, TicketId);

impl Make for SessionKey {
    fn make(source: &mut Source<'_>) -> Self {
        Self::from_bytes(source.array())
    }
}

impl Make for UnixMillis {
    fn make(source: &mut Source<'_>) -> Self {
        Self(u64::make(source))
    }
}

impl Make for Usd {
    fn make(source: &mut Source<'_>) -> Self {
        Self::from_micros(u64::make(source))
    }
}

impl Make for Price {
    fn make(source: &mut Source<'_>) -> Self {
        Self::per_hour(Usd::make(source))
    }
}

impl Make for Region {
    fn make(source: &mut Source<'_>) -> Self {
        ["local", "eu-west", "a.b-9"][usize::from(source.choice(3))].parse().unwrap()
    }
}

impl Make for Class {
    fn make(source: &mut Source<'_>) -> Self {
        ["cpu-1", "h100-sxm-80", "rtx4090-24"][usize::from(source.choice(3))].parse().unwrap()
    }
}

impl Make for Reason {
    fn make(source: &mut Source<'_>) -> Self {
        Self::ALL[usize::from(source.byte()) % Self::ALL.len()]
    }
}

impl Make for RefusalCode {
    fn make(source: &mut Source<'_>) -> Self {
        const ALL: [RefusalCode; 8] = [
            RefusalCode::Busy,
            RefusalCode::Draining,
            RefusalCode::Invalid,
            RefusalCode::Funds,
            RefusalCode::Isolation,
            RefusalCode::Unknown,
            RefusalCode::Internal,
            RefusalCode::OnlySpot,
        ];
        ALL[usize::from(source.choice(8))]
    }
}

impl Make for SettleRefusal {
    fn make(source: &mut Source<'_>) -> Self {
        match source.choice(15) {
            0 => Self::NotAllowed,
            1 => Self::Signature,
            2 => Self::Funds { needed: Usd::make(source), available: Usd::make(source) },
            3 => Self::UnknownLease,
            4 => Self::Closed,
            5 => Self::Expired { at: UnixMillis::make(source) },
            6 => Self::Uncovered { amount: Usd::make(source), covered: Usd::make(source) },
            7 => Self::Range,
            8 => Self::NoFaucet,
            9 => Self::Full,
            10 => Self::LaneBusy,
            11 => Self::Replayed,
            12 => Self::StalePrice,
            13 => Self::Contract,
            _ => Self::Storage,
        }
    }
}

impl Make for Secret {
    fn make(source: &mut Source<'_>) -> Self {
        Self::new(String::make(source))
    }
}

/// A signature that is well formed and nobody's.
impl Make for AccountSignature {
    fn make(source: &mut Source<'_>) -> Self {
        Self { r: source.array(), s: source.array(), v: 27 + source.choice(3) }
    }
}

impl<T: Make> Make for SignedByAccount<T> {
    fn make(source: &mut Source<'_>) -> Self {
        Self { message: T::make(source), signature: AccountSignature::make(source) }
    }
}

/// A good signature of some node.
impl<T: Make + Signable> Make for Signed<T> {
    fn make(source: &mut Source<'_>) -> Self {
        let key = NodeKey::from_secret(&source.array());
        Self::sign(&Domain::LOCAL, &key, &T::make(source)).unwrap()
    }
}

make_struct! {
    RelayAddr { host, cert_sha256 }
    NodeAddr { node, relay, direct }
    Domain { chain_id, contract }
    Delegation { node, expires }
    Order { lease, buyer, operator, host, container, price, budget, task_sha256, issued, expires }
    Voucher { lease, operator, amount, seconds }
    ReceiptAck { lease, receipt_sha256 }

    Gpu { model, form, vram_bytes, uuid }
    Resources { cpu_milli, memory_bytes, disk_bytes, gpus }
    SpotTerms { price, notice_seconds }
    ReservedTerms { price, term_seconds_min, term_seconds_max, grace_seconds }
    ContainerOffer {
        id, class, resources, slots, price, tier, features, driver, apps, spot, reserved,
    }
    Capability { addr, operator, region, containers, revision, issued, expires }
    Offer {
        id, buyer, addr, operator, container, class, resources, capacity, notice_seconds, reserved,
        price, tier, region, online_bp, expires, matched,
    }

    ByteRange { min, max }
    CountRange { min, max }
    GpuAsk { models, vram, count, form }
    Needs {
        cpu_milli_min, memory_bytes_min, disk_bytes_min, shm_bytes, gpu, isolation_min, regions,
        reliability_min_bp, operators_allow, operators_deny, max_per_hour, capacity, features,
        driver_min, rtt_us_max, app, is_app_required, policy,
    }
    Welcome { revision, period_ms, keeps_stream, port, standbys, key_epoch, sessions }
    Enrolment { container, session, key }
    MatchRequest {
        buyer, needs, count, hold, exclude, from, round_trips_us, gang, receipt,
    }
    GangAsk { members, together, is_spread }
    Candidates { at, buyer, offers, receipt }
    Hold { offer, container, buyer, expires }
    WhyNot { containers, removed, nearest }
    Nearest { listing, fails }
    Listing { addr, operator, container, region, free, is_confirmed, online_bp, checks }
    ContainersAsk { list, from }
    ContainersPage { list, rows, next }

    IndexerCard { addr, operator, region, issued, expires }
    ClassSummary { class, slots, free, cheapest, median }
    Summary { region, version, issued, classes }
    Tally {
        good, dead, stale, wrong, proved, disproved, shown, hidden, compared, own,
        own_expected_milli,
    }
    Evidence { reporter, day, issued, about }
    Versions { node, card, summary }
    Gossip { versions, pulls, cards, summaries, evidence }
    Directory { cards, summaries, reported }
    Reported { indexer, accounts, tally }
    Wait { request, wait_ms, ticket }
    Ticket { id, buyer, wish, since, deadline }
    Standing { position, of, busy, removed, is_reserved, estimate_ms, left_ms }
    PricesAsked { class, region, span, since }
    PricePoint { at, on_demand, spot, free, total }
    Spread { min, median, max }

    Probe { nonce, minute }
    ProbeReply { nonce, checker, free, at }
    Sheet { checker, minute, turn, visits }
    Visit { host, place, finding }
    TurnProof { output, challenge, response }
    Turn { minute, proof }

    ExamWork { minute, container, device, seed, n, rounds }
    ExamRows { rounds }
    ExamCommitment { checker, work, roots }
    OpenedRow { index, row, path }
    ExamReport { checker, host, container, minute, n, rounds, verdict, evidence, turn }
    FillWork { minute, container, device, seed, units, double_rounds }
    ExamProbe { nonce, walkers, steps }
    WalkEnd { place, seen }
    MeasureWork { minute, container, seed, kind, blocks }
    Site {
        rtt_us, from, down_kib_s, up_kib_s, write_kib_s, read_kib_s, ports_named, ports_open,
        is_wrong,
    }
    SiteReport { checker, host, container, minute, site, turn }
    SiteView { host, container, checkers, wrong, site, place, minute }
    Verified { host, container, class, mmac_per_s, proved, failed, resident, absent, minute }

    Roll { epoch, issued, account, containers, region }
    Heading { version, domain, view }
    Mark { state, after_ms }
    RoundTrip { min_us, median_us }
    MinuteDigest { minute, watched, answered, round_trip, loss, figures }
    Series { lease, host, buyer, side, part, began, start, minutes }
    Head { version, lease, host, side, part, count, chain }
    SessionDigests { series, seal }
    DigestUpdate { from, series, signature }
    Cosign { epoch, evidence, root }
    RootWord { number, root, digest, account, signature }
    EvidenceAsk { epoch, from }
    EvidencePage { heading, statements, next, left_out }

    SettleCall { caller, request }
    EpochView { epoch, seed, checkers, epoch_seconds }
    Listed { node, number, vrf }

    TermSize { rows, columns }
    Accepted { lease, fencing, at }
    Refusal { lease, code, detail }
    Open { order, offer, launch, secrets, tty, stdin, files, may_preempt, matched }
    Terms { capacity, notice_seconds, reservation }
    Checkpoint { argv, path }
    Launch {
        image, argv, env, cwd, cpu_milli, memory_bytes, disk_bytes, shm_bytes, run_seconds_max,
        start_seconds_max, name, terms, checkpoint,
    }
    LogSeen { frames }
    LeaseInfo { lease, name, stages, seconds, covered, exit, cpu_us, memory_bytes }

    StageTime { state, reason, at }
    Exit { code, signal, oom }
    Usage { seconds, cpu_us, memory_peak_bytes }
    Wipe { complete, processes_killed, scratch_bytes, elapsed_ms }
    LogSummary { stdout_bytes, stderr_bytes }
    Receipt {
        lease, buyer, operator, host, container, price, stages, exit, usage, cost, fee, logs, wipe,
        matched,
    }
    Matched { indexer, account }
    ReceiptFile { domain, order, operator, receipt, voucher, ack }

    ReservationAsk { term_seconds, grace_seconds, name }
    Reserve { order, ask, offer, voucher }
    ReservationView {
        reservation, start, until, promised, failed_days, lease, end, last_seconds, receipt,
    }
    ReservationReceipt {
        reservation, buyer, operator, host, container, price, start, term_seconds, elapsed_seconds,
        end, failed_days, promised_seconds, seconds, kept, fee, refund,
    }
    ReservationReceiptFile { domain, order, operator, receipt, voucher, ack }
}

make_enum! {
    Tier [6] {
        0 => None, 1 => Process, 2 => Container, 3 => Sandbox, 4 => Vm, 5 => Confidential,
    }
    LeaseState [12] {
        0 => Queued, 1 => Placing, 2 => Pulling, 3 => Starting, 4 => Running, 5 => Stopping,
        6 => Succeeded, 7 => Failed, 8 => Stopped, 9 => Preempted, 10 => Lost, 11 => Expired,
    }

    IndexHello [3] { 0 => Host(a), 1 => Ask(a), 2 => Wait(a) }
    HostToIndexer [2] { 0 => Announce(a), 1 => Beats(a) }
    IndexerToHost [4] { 0 => Welcome(a), 1 => Refused(a), 2 => Hold(a), 3 => Notes(a) }
    IndexRequest [21] {
        0 => Match(a),
        1 => Offers { needs },
        2 => Sheet(a),
        3 => Locate(a),
        4 => Indexers,
        5 => Gossip(a),
        6 => Evidence(a),
        7 => Prices(a),
        8 => Exam(a),
        9 => Verified,
        10 => State(a),
        11 => Epoch(a),
        12 => Site(a),
        13 => Sites,
        14 => Cosign(a),
        15 => Cosigns(a),
        16 => Containers(a),
        17 => Host(a),
        18 => RootWord(a),
        19 => RootWords(a),
        20 => Words(a),
    }
    IndexReply [18] {
        0 => Candidates(a), 1 => WhyNot(a), 2 => Listing(a), 3 => Reported, 4 => Located(a),
        5 => Refused(a), 6 => Indexers(a), 7 => Gossip(a), 8 => Prices(a),
        9 => Verified(a), 10 => Epoch(a), 11 => NotKept { is_full }, 12 => Sites(a),
        13 => Cosigns(a), 14 => Containers(a), 15 => RootWords(a), 16 => Words(a),
        17 => NotListed(a),
    }
    Statement [6] {
        0 => Roll(a), 1 => Sheet(a), 2 => Exam(a), 3 => Site(a), 4 => Lease(a), 5 => Digests(a),
    }
    Side [3] { 0 => Host, 1 => Buyer, 2 => Checker }
    Seal [3] { 0 => Host(a), 1 => Buyer(a), 2 => Checker(a, b) }
    Figures [4] {
        0 => None,
        1 => Job { throttled_milli, preempted_milli },
        2 => Stream { frame_rate_milli, resolution_milli, click_to_photon_ms, freezes_ms },
        3 => Inference { first_token_ms, tokens_milli, errors_milli },
    }
    Span [3] { 0 => Minute, 1 => Hour, 2 => Day }
    WaitEvent [6] {
        0 => Ticket { ticket, is_kept }, 1 => Standing(a), 2 => Offers(a), 3 => TimedOut,
        4 => WhyNot(a), 5 => Refused(a),
    }
    WaitAnswer [2] { 0 => Placed, 1 => Refused(a) }
    Filter [17] {
        0 => Gpu, 1 => Cpu, 2 => Memory, 3 => Disk, 4 => Isolation, 5 => Region, 6 => Operator,
        7 => Price, 8 => Reliability, 9 => Feature, 10 => Driver, 11 => RoundTrip,
        12 => Capacity, 13 => App, 14 => Excluded, 15 => Free, 16 => Together,
    }
    Together [2] { 0 => Site, 1 => WithinUs(a) }
    CapacityType [3] { 0 => OnDemand, 1 => Spot, 2 => Reserved }
    Policy [4] { 0 => Cheapest, 1 => FastestStart, 2 => Closest, 3 => Best }
    Feature [9] {
        0 => H264, 1 => Hevc, 2 => Av1, 3 => Fabric, 4 => Attested, 5 => GpuConfidential,
        6 => Direct, 7 => Ipv6, 8 => Windows,
    }

    Finding [4] { 0 => Online { rtt_us }, 1 => Unreachable, 2 => Malformed, 3 => NotListed }

    ExamAsk [6] {
        0 => Ping(a), 1 => Begin(a), 2 => Fill(a), 3 => Measure(a), 4 => Beside { assigned, work },
        5 => Turn(a),
    }
    MeasureKind [3] { 0 => Download, 1 => Upload, 2 => Disk }
    PlaceFinding [3] { 0 => Unknown, 1 => Possible, 2 => Refuted }
    ExamReply [9] {
        0 => Pong(a), 1 => Committed(a), 2 => Row(a), 3 => Opened, 4 => Refused(a), 5 => Filled,
        6 => Walked(a), 7 => Ready, 8 => Hash(a),
    }
    ExamRefusal [8] {
        0 => NotAssigned, 1 => Busy, 2 => TooMany, 3 => TooLarge, 4 => NoKernels, 5 => Ordered,
        6 => Failed, 7 => NothingToOpen,
    }
    Verdict [7] {
        0 => Proved { mmac_per_s, class }, 1 => Refused(a), 2 => TooSlow, 3 => Wrong, 4 => Evasive,
        5 => Resident { mib }, 6 => NotResident,
    }

    SettleRequest [3] { 0 => Rpc(a), 1 => RegisterChecker { vrf }, 2 => Epoch { epoch } }
    SettleReply [4] { 0 => Rpc(a), 1 => Epoch(a), 2 => Done, 3 => Refused(a) }

    ReservationEnd [4] { 0 => Term, 1 => Cancelled, 2 => Unpaid, 3 => HostFailed }
    ToHost [14] {
        0 => Hello(a),
        1 => Open(a),
        2 => Resume(a),
        3 => Voucher(a),
        4 => Stop { lease, grace_ms },
        5 => Signal { lease, signal },
        6 => Resize { lease, size },
        7 => Ack(a),
        8 => Remove(a),
        9 => Fetched(a),
        10 => Reserve(a),
        11 => Reservation(a),
        12 => Cancel(a),
        13 => Digest(a),
    }
    FromHost [9] {
        0 => Accepted(a),
        1 => Refused(a),
        2 => Stage { lease, stage, detail },
        3 => Usage { lease, seconds, covered },
        4 => Receipt { lease, receipt, operator },
        5 => Removed(a),
        6 => Checkpoint { lease, within_ms },
        7 => Reservation(a),
        8 => Digests(a),
    }
    StreamHello [8] {
        0 => Logs { lease, output, from, follow },
        1 => Stdin(a),
        2 => Exec { lease, argv, env, cwd, tty },
        3 => Get { lease, path },
        4 => Put { lease, path },
        5 => Files(a),
        6 => Forward { lease, port },
        7 => Info(a),
    }
    Output [2] { 0 => Stdout, 1 => Stderr }
    LogFrom [4] { 0 => Start, 1 => Offset(a), 2 => Tail(a), 3 => Since(a) }
    LogFrame [4] {
        0 => Data { offset, at, len }, 1 => Gap { from, to }, 2 => End { total }, 3 => Failed(a),
    }
    InputState [4] { 0 => Taken(a), 1 => Unknown, 2 => Done, 3 => Closed(a) }
    DataFrame [3] { 0 => Data(a), 1 => End, 2 => Failed(a) }
    ExecIn [4] { 0 => Data(a), 1 => Eof, 2 => Resize(a), 3 => Seen(a) }
    ExecOut [3] { 0 => Data(a, b), 1 => Exit(a), 2 => Failed(a) }
}
