//! What each fuzz target does with its bytes. A target never returns anything: it only must not
//! panic, and what was decoded must survive its own encoding.

#![forbid(unsafe_code)]

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use welkin_lease::{Effect, Found, HostLease, Input, LeaseRecord, Policy};
use welkin_match::Presence;
use welkin_proto::check::{Probe, ProbeReply, Sheet};
use welkin_proto::heartbeat::{BEAT_BYTES, Note, Secret, Vitals};
use welkin_proto::index::{
    Candidates, HostToIndexer, IndexHello, IndexReply, IndexRequest, IndexerToHost,
};
use welkin_proto::lease::{
    DataFrame, ExecIn, ExecOut, FromHost, InputState, Launch, LeaseInfo, LogFrame, LogSeen,
    StreamHello, ToHost,
};
use welkin_proto::settle::{SettleCall, SettleReply};
use welkin_proto::{
    Capability, Delegation, Domain, NodeAddr, NodeKey, Receipt, ReceiptFile, Signable, Signed,
    SignedByAccount, decode, encode,
};
use welkin_types::task;
use welkin_types::{ContainerId, NodeId, UnixMillis};

const DOMAIN: Domain = Domain::LOCAL;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Decodes a message; what is one must be the same after encoding and decoding.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = decode(bytes).ok()?;
    // Something read from a short input can be longer than a frame when written: no harm.
    if let Ok(written) = encode(&message) {
        assert_eq!(decode::<T>(&written).as_ref(), Ok(&message));
    }
    Some(message)
}

/// Reads bytes as a signed statement, and as the statement that a node signs.
fn signed<T: Signable + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    if let Some(signed) = message::<Signed<T>>(bytes)
        && let Ok(statement) = signed.open(&DOMAIN)
    {
        return Some(statement);
    }
    let statement: T = message(bytes)?;
    let key = NodeKey::from_secret(&[7; 32]);
    let signed = Signed::sign(&DOMAIN, &key, &statement).ok()?;
    assert_eq!(signed.open_by(&DOMAIN, key.id()).as_ref(), Ok(&statement));
    Some(statement)
}

fn delegation(signed: &SignedByAccount<Delegation>) {
    let _ = signed.account(&DOMAIN, signed.message.node, NOW);
}

fn addr(addr: &NodeAddr) {
    let _ = (addr.is_bounded(), addr.to_string().parse::<NodeAddr>());
}

/// The first frame to an indexer.
pub fn index_hello(bytes: &[u8]) {
    match message(bytes) {
        Some(IndexHello::Host(signed)) => drop(signed.open(&DOMAIN)),
        Some(IndexHello::Ask(request)) => {
            if let IndexRequest::Match(request) = *request {
                delegation(&request.buyer);
            }
        }
        Some(IndexHello::Wait(wait)) => {
            delegation(&wait.request.buyer);
            let _ = wait.ticket.map(|ticket| ticket.open(&DOMAIN));
        }
        None => (),
    }
}

/// What a host keeps telling an indexer.
pub fn host_to_indexer(bytes: &[u8]) {
    if let Some(HostToIndexer::Announce(signed)) = message(bytes) {
        let _ = signed.open(&DOMAIN);
    }
}

/// What an indexer tells a host.
pub fn indexer_to_host(bytes: &[u8]) {
    let _ = message::<IndexerToHost>(bytes);
}

/// Datagrams to an indexer, one after the other: the first byte of each says how long it is, and what
/// is done to a true one. None may be taken twice, and none that was touched.
pub fn beats(bytes: &[u8]) {
    let secret = Secret::from_bytes([7; 32]);
    if let Ok(loaded) = Presence::load(secret.clone(), NOW, bytes) {
        assert!(Presence::load(secret.clone(), NOW, &loaded.dump()).is_ok());
    }
    let mut presence = Presence::new(secret);
    let host = NodeId::from_bytes([1; 32]);
    let containers = [ContainerId::from_bytes([1; 16]), ContainerId::from_bytes([2; 16])];
    let enrolled = presence.enrol(NOW, host, &containers, 3).expect("there is room");
    let mut rest = bytes;
    let mut counter = 0;
    while let Some((&how, after)) = rest.split_first() {
        let session = &enrolled[usize::from(how & 1)];
        let (piece, after) = after.split_at(after.len().min(usize::from(how >> 1)));
        rest = after;
        let _ = Note::open(&session.key, piece);
        assert!(presence.beat(NOW, piece).is_err(), "made without a key");
        counter += 1;
        let beat = Vitals::default().seal(&session.key, session.session, counter);
        let mut touched = beat;
        for (byte, change) in touched.iter_mut().zip(piece) {
            *byte ^= change;
        }
        let is_same = touched == beat;
        assert_eq!(presence.beat(NOW, &touched).is_ok(), is_same);
        assert_eq!(presence.beat(NOW, &beat).is_ok(), !is_same);
        assert_eq!(beat.len(), BEAT_BYTES);
    }
}

/// An indexer's answer.
pub fn index_reply(bytes: &[u8]) {
    match message(bytes) {
        Some(IndexReply::Candidates(found)) => {
            let _ = found.open(&DOMAIN);
        }
        Some(IndexReply::Located(Some(found))) => addr(&found),
        _ => (),
    }
}

/// A question to the settlement service.
pub fn settle_call(bytes: &[u8]) {
    if let Some(call) = message::<SettleCall>(bytes) {
        delegation(&call.caller);
    }
}

/// The settlement service's answer.
pub fn settle_reply(bytes: &[u8]) {
    if let Some(SettleReply::Refused(refusal)) = message(bytes) {
        let _ = refusal.to_string();
    }
}

/// A buyer's control message.
pub fn to_host(bytes: &[u8]) {
    match message(bytes) {
        Some(ToHost::Hello(signed)) => delegation(&signed),
        Some(ToHost::Open(open)) => {
            let _ = open.order.signer(&DOMAIN);
            launch(&open.launch);
        }
        Some(ToHost::Voucher(voucher)) => drop(voucher.signer(&DOMAIN).ok()),
        Some(ToHost::Ack(ack)) => drop(ack.signer(&DOMAIN).ok()),
        _ => (),
    }
}

/// A host's control message.
pub fn from_host(bytes: &[u8]) {
    if let Some(FromHost::Receipt { receipt, operator, .. }) = message(bytes) {
        let _ = receipt.open(&DOMAIN);
        delegation(&operator);
    }
}

/// The first frame of a data stream.
pub fn stream_hello(bytes: &[u8]) {
    let _ = message::<StreamHello>(bytes);
}

/// A piece of a log.
pub fn log_frame(bytes: &[u8]) {
    let _ = message::<LogFrame>(bytes);
}

/// What was taken of a log.
pub fn log_seen(bytes: &[u8]) {
    let _ = message::<LogSeen>(bytes);
}

/// How far standard input has come.
pub fn input_state(bytes: &[u8]) {
    let _ = message::<InputState>(bytes);
}

/// A piece of a stream of bytes.
pub fn data_frame(bytes: &[u8]) {
    let _ = message::<DataFrame>(bytes);
}

/// From a buyer to a further command.
pub fn exec_in(bytes: &[u8]) {
    let _ = message::<ExecIn>(bytes);
}

/// From a further command to its buyer.
pub fn exec_out(bytes: &[u8]) {
    if let Some(ExecOut::Exit(exit)) = message(bytes) {
        let _ = exit.shell_code();
    }
}

/// How a lease stands.
pub fn lease_info(bytes: &[u8]) {
    if let Some(info) = message::<LeaseInfo>(bytes) {
        let _ = info.state();
    }
}

/// What to run.
pub fn launch(bytes: &[u8]) {
    let _ = message::<Launch>(bytes);
}

/// A checker's question.
pub fn probe(bytes: &[u8]) {
    let _ = message::<Probe>(bytes);
}

/// A host's answer to a checker.
pub fn probe_reply(bytes: &[u8]) {
    let _ = signed::<ProbeReply>(bytes);
}

/// A checker's findings of a minute.
pub fn sheet(bytes: &[u8]) {
    if let Some(sheet) = signed::<Sheet>(bytes)
        && sheet.is_sound()
    {
        assert_eq!(sheet.reports().count(), sheet.visits.len());
    }
}

/// What a host says it has.
pub fn capability(bytes: &[u8]) {
    if let Some(capability) = signed::<Capability>(bytes) {
        let _ = capability.check(&DOMAIN, capability.addr.node, NOW);
        addr(&capability.addr);
    }
}

/// What an indexer offers.
pub fn offer(bytes: &[u8]) {
    for offer in signed::<Candidates>(bytes).into_iter().flat_map(|found| found.offers) {
        addr(&offer.addr);
        let _ = (offer.resources.to_string(), offer.price.to_string());
    }
}

/// A host's final statement.
pub fn receipt(bytes: &[u8]) {
    if let Some(receipt) = signed::<Receipt>(bytes) {
        let _ = (receipt.running_seconds(), receipt.price.cost(receipt.usage.seconds));
    }
}

/// A receipt as people keep it.
pub fn receipt_file(bytes: &[u8]) {
    let Ok(file) = serde_json::from_slice::<ReceiptFile>(bytes) else { return };
    let json = serde_json::to_vec(&file).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<ReceiptFile>(&json).ok().as_ref(), Some(&file));
    let _ = file.verify();
}

/// A lease as it stands on a host's disk: a restarted host takes it up, whatever it says.
pub fn lease_record(bytes: &[u8]) {
    let Some(record) = message::<LeaseRecord>(bytes) else { return };
    let _ = (record.state(), record.covered(), record.seconds(NOW));
    for found in [Found::Running, Found::Nothing] {
        let mut lease = HostLease::restore(record.clone(), Policy::default(), NOW);
        lease.handle(NOW, Input::Restored(found));
        drain(&mut lease);
        lease.handle(UnixMillis(NOW.0 + 60_000), Input::Tick);
        drain(&mut lease);
    }
}

fn drain(lease: &mut HostLease) {
    let more = |lease: &mut HostLease| !matches!(lease.poll(), Effect::Idle { .. });
    let ends = (0..64).any(|_| !more(lease));
    assert!(ends, "a lease asks for more and more");
}

fn spec(file: &str, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match task::parse(file, text) {
        Ok(spec) => {
            let _ = (spec.needs(), spec.unsupported());
            let json = spec.to_json().to_string();
            assert_eq!(task::parse("again.json", &json).ok().as_ref(), Some(&spec));
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A task spec in YAML.
pub fn task_yaml(bytes: &[u8]) {
    spec("task.yaml", bytes);
}

/// A task spec in TOML.
pub fn task_toml(bytes: &[u8]) {
    spec("task.toml", bytes);
}

/// A task spec in JSON.
pub fn task_json(bytes: &[u8]) {
    spec("task.json", bytes);
}

/// An address as text.
pub fn node_addr(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(addr) = text.parse::<NodeAddr>() {
        assert_eq!(addr.to_string().parse().as_ref(), Ok(&addr));
    }
}
