//! What strangers may send: every message survives its own encoding, and no bytes, cut or bent
//! messages make decoding or checking panic.

use proptest::prelude::*;
use welkin_proto::check::{Probe, ProbeReply, Sheet};
use welkin_proto::digest::SessionDigests;
use welkin_proto::exam::{ExamAsk, ExamReply, ExamReport, ExamRows};
use welkin_proto::gossip::{Evidence, Gossip, IndexerCard, Summary};
use welkin_proto::index::{Candidates, HostToIndexer, IndexHello, IndexReply, IndexerToHost};
use welkin_proto::lease::{
    DataFrame, ExecIn, ExecOut, FromHost, InputState, Launch, LeaseInfo, LogFrame, LogSeen,
    StreamHello, ToHost,
};
use welkin_proto::queue::{WaitAnswer, WaitEvent};
use welkin_proto::settle::{SettleCall, SettleReply};
use welkin_proto::{
    Capability, CodecError, Delegation, Domain, FRAME_BYTES_MAX, NodeAddr, Order, Receipt,
    ReceiptAck, ReceiptFile, ReservationAsk, ReservationReceiptFile, Signed, SignedByAccount,
    Voucher, decode, encode,
};
use welkin_types::{NodeId, UnixMillis};

use crate::make::{Make, Source};

/// Bytes for [`Source`]: enough for the largest message.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..1_500)
}

macro_rules! hostile {
    ($($module:ident: $message:ty, $read:expr;)*) => {$(
        mod $module {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(96))]

                #[test]
                fn survives_its_encoding(source in bytes()) {
                    let message = <$message>::make(&mut Source::new(&source));
                    let bytes = encode(&message).unwrap();
                    prop_assert!(bytes.len() <= FRAME_BYTES_MAX);
                    prop_assert_eq!(decode::<$message>(&bytes), Ok(message));
                }

                #[test]
                fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
                    if let Ok(message) = decode::<$message>(&bytes) {
                        let again = decode::<$message>(&encode(&message).unwrap());
                        prop_assert_eq!(again.as_ref(), Ok(&message));
                        $read(&message);
                    }
                }

                #[test]
                fn every_cut_is_refused(source in bytes(), at: prop::sample::Index) {
                    let bytes = encode(&<$message>::make(&mut Source::new(&source))).unwrap();
                    let cut = &bytes[..at.index(bytes.len())];
                    prop_assert_eq!(decode::<$message>(cut), Err(CodecError::Malformed));
                }

                #[test]
                fn no_damage_panics(
                    source in bytes(),
                    damage in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
                ) {
                    let mut bytes = encode(&<$message>::make(&mut Source::new(&source))).unwrap();
                    for (at, bits) in damage {
                        let at = at.index(bytes.len());
                        bytes[at] ^= bits;
                    }
                    if let Ok(message) = decode::<$message>(&bytes) {
                        $read(&message);
                    }
                }
            }
        }
    )*};
}

/// For messages that have nothing to check but their form.
fn nothing<T>(_: &T) {}

fn node_addr(addr: &NodeAddr) {
    let _ = addr.is_bounded();
    // An unbounded address has a text, too, but none that is read again.
    let _ = addr.to_string().parse::<NodeAddr>();
}

fn capability(signed: &Signed<Capability>) {
    if let Ok(capability) = signed.open(&Domain::LOCAL) {
        let _ = capability.check(&Domain::LOCAL, signed.signer(), UnixMillis(0));
        node_addr(&capability.addr);
    }
}

fn delegation(signed: &SignedByAccount<Delegation>) {
    let node = signed.message.node;
    let _ = signed.account(&Domain::LOCAL, node, UnixMillis(0));
    let other = NodeId::from_bytes([0; 32]);
    assert!(node == other || signed.account(&Domain::LOCAL, other, UnixMillis(0)).is_err());
}

fn to_host(message: &ToHost) {
    match message {
        ToHost::Hello(signed) => delegation(signed),
        ToHost::Open(open) => {
            let _ = (open.order.signer(&Domain::LOCAL), decode::<Launch>(&open.launch));
        }
        ToHost::Voucher(voucher) => {
            let _ = voucher.signer(&Domain::LOCAL);
        }
        ToHost::Ack(ack) => {
            let _ = ack.signer(&Domain::LOCAL);
        }
        ToHost::Reserve(reserve) => {
            let _ = reserve.order.signer(&Domain::LOCAL);
            let _ = ReservationAsk::from_bytes(&reserve.ask);
        }
        ToHost::Digest(update) => {
            let _ = update.as_ref().clone().join(&Domain::LOCAL, None);
        }
        ToHost::Resume(_)
        | ToHost::Stop { .. }
        | ToHost::Signal { .. }
        | ToHost::Resize { .. }
        | ToHost::Remove(_)
        | ToHost::Fetched(_)
        | ToHost::Reservation(_)
        | ToHost::Cancel(_) => (),
    }
}

fn receipt_file(file: &ReceiptFile) {
    if let Ok(receipt) = file.verify() {
        assert!(receipt.stages.last().is_some_and(|last| last.state.is_final()));
    }
}

hostile! {
    index_hello: IndexHello, |message: &IndexHello| match message {
        IndexHello::Host(signed) => capability(signed),
        IndexHello::Ask(_) => (),
        IndexHello::Wait(wait) => {
            delegation(&wait.request.buyer);
            let _ = wait.ticket.as_ref().map(|ticket| ticket.open(&Domain::LOCAL));
        }
    };
    host_to_indexer: HostToIndexer, |message: &HostToIndexer| match message {
        HostToIndexer::Announce(signed) => capability(signed),
        HostToIndexer::Beats(_) => (),
    };
    indexer_to_host: IndexerToHost, nothing;
    index_reply: IndexReply, |message: &IndexReply| match message {
        IndexReply::Candidates(found) => {
            let _ = found.open(&Domain::LOCAL);
        }
        IndexReply::Located(Some(addr)) => node_addr(addr),
        _ => (),
    };
    wait_event: WaitEvent, |message: &WaitEvent| {
        if let WaitEvent::Ticket { ticket, .. } = message {
            let _ = ticket.open(&Domain::LOCAL);
        }
    };
    wait_answer: WaitAnswer, nothing;
    settle_call: SettleCall, |message: &SettleCall| delegation(&message.caller);
    settle_reply: SettleReply, nothing;
    to_host: ToHost, super::to_host;
    from_host: FromHost, |message: &FromHost| {
        if let FromHost::Receipt { receipt, operator, .. } = message {
            let _ = receipt.open(&Domain::LOCAL);
            delegation(operator);
        }
    };
    reservation_receipt: ReservationReceiptFile, |file: &ReservationReceiptFile| {
        if let Ok(receipt) = file.verify() {
            assert!(receipt.seconds <= receipt.promised_seconds);
        }
    };
    stream_hello: StreamHello, nothing;
    log_frame: LogFrame, nothing;
    log_seen: LogSeen, nothing;
    data_frame: DataFrame, nothing;
    input_state: InputState, nothing;
    exec_in: ExecIn, nothing;
    exec_out: ExecOut, |message: &ExecOut| {
        if let ExecOut::Exit(exit) = message {
            let _ = exit.shell_code();
        }
    };
    lease_info: LeaseInfo, |message: &LeaseInfo| {
        let _ = message.state();
    };
    launch: Launch, nothing;
    probe: Probe, nothing;
    probe_reply: Signed<ProbeReply>, |signed: &Signed<ProbeReply>| {
        drop(signed.open(&Domain::LOCAL));
    };
    exam_ask: ExamAsk, |message: &ExamAsk| {
        if let ExamAsk::Begin(work) = message {
            let _ = work.is_bounded();
        }
    };
    exam_rows: ExamRows, |message: &ExamRows| {
        let _ = message.is_bounded();
    };
    exam_reply: ExamReply, |message: &ExamReply| {
        if let ExamReply::Committed(signed) = message {
            drop(signed.open(&Domain::LOCAL));
        }
    };
    exam_report: Signed<ExamReport>, |signed: &Signed<ExamReport>| {
        drop(signed.open(&Domain::LOCAL));
    };
    sheet: Signed<Sheet>, |signed: &Signed<Sheet>| {
        if let Ok(sheet) = signed.open(&Domain::LOCAL) {
            assert_eq!(sheet.reports().count(), sheet.visits.len());
            let _ = sheet.is_sound();
        }
    };
    signed_capability: Signed<Capability>, capability;
    gossip: Gossip, |message: &Gossip| {
        let _ = (message.is_bounded(), message.is_empty());
    };
    card: Signed<IndexerCard>, |signed: &Signed<IndexerCard>| {
        if let Ok(card) = signed.open(&Domain::LOCAL) {
            let checked = card.check(&Domain::LOCAL, signed.signer(), UnixMillis(0));
            assert!(checked.is_err() || card.addr.node == signed.signer());
        }
    };
    summary: Signed<Summary>, |signed: &Signed<Summary>| {
        if let Ok(summary) = signed.open(&Domain::LOCAL) {
            let _ = (summary.check(UnixMillis(0)), summary.check(UnixMillis(u64::MAX)));
        }
    };
    evidence: Signed<Evidence>, |signed: &Signed<Evidence>| {
        if let Ok(evidence) = signed.open(&Domain::LOCAL) {
            for now in [0, u64::MAX] {
                let _ = evidence.check(&Domain::LOCAL, signed.signer(), UnixMillis(now));
            }
        }
    };
    candidates: Signed<Candidates>, |signed: &Signed<Candidates>| {
        let _ = signed.open(&Domain::LOCAL);
    };
    receipt: Signed<Receipt>, |signed: &Signed<Receipt>| {
        if let Ok(receipt) = signed.open(&Domain::LOCAL) {
            let _ = receipt.running_seconds();
        }
    };
    delegation: SignedByAccount<Delegation>, super::delegation;
    order: SignedByAccount<Order>, |signed: &SignedByAccount<Order>| {
        let _ = signed.signer(&Domain::LOCAL);
    };
    voucher: SignedByAccount<Voucher>, |signed: &SignedByAccount<Voucher>| {
        let _ = signed.signer(&Domain::LOCAL);
    };
    ack: SignedByAccount<ReceiptAck>, |signed: &SignedByAccount<ReceiptAck>| {
        let _ = signed.signer(&Domain::LOCAL);
    };
    receipt_file: ReceiptFile, super::receipt_file;
    digests: SessionDigests, |digests: &SessionDigests| {
        let _ = (digests.verify(&Domain::LOCAL), digests.checker(), digests.update(1));
    };
}

#[test]
fn a_message_over_the_bound_is_neither_sent_nor_read() {
    let large = DataFrame::Data(vec![0; FRAME_BYTES_MAX]);
    assert!(matches!(encode(&large), Err(CodecError::TooLarge { .. })));
    let long = vec![0; FRAME_BYTES_MAX + 1];
    assert!(matches!(decode::<DataFrame>(&long), Err(CodecError::TooLarge { .. })));
}

#[test]
fn an_announced_length_takes_no_memory() {
    // A list of 2^60 elements in ten bytes; were room made for it, the process would be gone.
    let mut bytes = vec![0, 0];
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(decode::<(u8, u8, Vec<[u8; 16]>)>(&bytes), Err(CodecError::Malformed));
    assert_eq!(decode::<(u8, u8, Vec<u64>)>(&bytes), Err(CodecError::Malformed));
    assert_eq!(decode::<(u8, u8, String)>(&bytes), Err(CodecError::Malformed));
}
