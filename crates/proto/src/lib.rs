//! What is said on the wire and what is signed: messages, the frame codec, signing bytes.
//!
//! Floor 0. Pure: it encodes, decodes, signs and verifies, and opens no socket. The table of all
//! messages with their bounds is `docs/reference/protocol.md`.

#![forbid(unsafe_code)]

mod addr;
mod capability;
pub mod check;
mod codec;
pub mod cosign;
pub mod digest;
mod eip712;
pub mod epoch;
pub mod exam;
pub mod gossip;
pub mod heartbeat;
mod hexed;
pub mod index;
mod keys;
pub mod lease;
mod order;
pub mod prices;
pub mod queue;
mod receipt;
mod recover;
mod reservation;
pub mod rooted;
pub mod settle;
mod signed;
pub mod site;
mod span;
mod terms;
mod turn;

pub use addr::{AddrError, NodeAddr, RelayAddr};
pub use capability::{
    Capability, CapabilityError, ContainerOffer, Offer, ReservedTerms, SpotTerms, app_of_image,
    container_id, container_ids,
};
pub use codec::{CodecError, decode, encode};
pub use eip712::{Domain, Eip712};
pub use keys::{AccountKey, AccountSignature, KeyError, NodeKey, NodeSignature};
pub use order::{Delegation, Order, ReceiptAck, SignedByAccount, Voucher};
pub use receipt::{
    Exit, LogSummary, Matched, Receipt, ReceiptError, ReceiptFile, StageTime, Usage, Wipe,
};
pub use recover::recover;
pub use reservation::{
    ReservationAsk, ReservationReceipt, ReservationReceiptFile, ReservationView, Reserve,
};
pub use signed::{Signable, SignatureError, Signed};
pub use terms::{Checkpoint, Terms};
pub use turn::{Seating, Turn, TurnProof};

/// The ALPN between everybody and an indexer.
pub const ALPN_INDEX: &[u8] = b"welkin/index/1";
/// The ALPN between a buyer and a host.
pub const ALPN_LEASE: &[u8] = b"welkin/lease/1";
/// The ALPN between a checker and a host.
pub const ALPN_CHECK: &[u8] = b"welkin/check/1";
/// The ALPN between a checker and a host for challenges of hardware.
pub const ALPN_EXAM: &[u8] = b"welkin/exam/2";
/// The ALPN between everybody and the settlement service.
pub const ALPN_SETTLE: &[u8] = b"welkin/settle/1";

/// The largest frame of any control stream, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
