//! What host, buyer and checker measured of a session, minute by minute, each signed by who measured.
//!
//! 1. Each side counts minutes from when the command began to run, by its own clock, and puts what it
//!    measured in a minute into a [`MinuteDigest`]. The stages of the start stand before the first.
//! 2. The digests of twelve hours are a [`Series`]. What is signed is its [`Head`]: how many minutes
//!    there are and a hash over all of them, so that one signature stands for a session, a later one
//!    takes nothing back, and who keeps them can leave out only the last.
//! 3. Once a minute, and at the end, the buyer sends what is new with its signature
//!    ([`DigestUpdate`]). The host sends the series of both sides to indexers with the receipt, as
//!    [`SessionDigests`], and its own to the buyer.
//!
//! Everything is in integers. What a digest is worth: `docs/reference/evaluation.md`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use welkin_types::{AccountId, LeaseId, LeaseState, NodeId, UnixMillis};

use crate::codec::encode;
use crate::eip712::{Domain, Eip712, Words};
use crate::keys::{AccountKey, AccountSignature, KeyError, NodeKey};
use crate::order::{Delegation, SignedByAccount};
use crate::signed::{Signable, Signed};

/// The edition of digests.
pub const DIGEST_VERSION: u16 = 1;
/// The minutes of one series: twelve hours.
pub const MINUTES_MAX: u32 = 720;
/// The most series of one side of a lease.
pub const PARTS_MAX: u32 = 128;
/// The most stages of a start.
pub const MARKS_MAX: usize = 8;
/// A share that is the whole, in thousandths.
const WHOLE_MILLI: u16 = 1_000;

/// Who measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Who runs it.
    Host,
    /// Who pays for it.
    Buyer,
    /// A checker that was the buyer.
    Checker,
}

impl Side {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Buyer => "buyer",
            Self::Checker => "checker",
        }
    }
}

/// When a stage of the start was reached, since the order was sent (the host: since it took it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The stage.
    pub state: LeaseState,
    /// After so many milliseconds.
    pub after_ms: u32,
}

/// Round trips within a minute, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The shortest.
    pub min_us: u32,
    /// The lower median.
    pub median_us: u32,
}

/// What a kind of service is measured by besides its availability. A figure that was not measured is
/// none, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Figures {
    /// Nothing else was measured.
    #[default]
    None,
    /// Work that runs to its end.
    Job {
        /// Time in which its processor limit held it back though it had used less than was bought, in
        /// thousandths.
        throttled_milli: Option<u16>,
        /// Time in which it waited for a processor that others had, in thousandths.
        preempted_milli: Option<u16>,
    },
    /// A picture that is streamed.
    Stream {
        /// Frames shown of those that should be, in thousandths.
        frame_rate_milli: Option<u16>,
        /// Pixels shown of those that should be, in thousandths.
        resolution_milli: Option<u16>,
        /// From an input to its picture, in milliseconds.
        click_to_photon_ms: Option<u16>,
        /// Without a new picture, in milliseconds of the minute.
        freezes_ms: Option<u16>,
    },
    /// A model that answers.
    Inference {
        /// To the first token, in milliseconds.
        first_token_ms: Option<u32>,
        /// Tokens a second of those of the class, in thousandths.
        tokens_milli: Option<u16>,
        /// Requests that failed, in thousandths.
        errors_milli: Option<u16>,
    },
}

impl Figures {
    /// The most of a minute that is without a new picture.
    pub const FREEZES_MS_MAX: u16 = 60_000;

    /// Whether all its numbers are in bounds.
    pub fn is_bounded(&self) -> bool {
        let is_share = |share: &Option<u16>| share.is_none_or(|share| share <= WHOLE_MILLI);
        match self {
            Self::None => true,
            Self::Job { throttled_milli, preempted_milli } => {
                is_share(throttled_milli) && is_share(preempted_milli)
            }
            Self::Stream { frame_rate_milli, resolution_milli, freezes_ms, .. } => {
                let is_within = freezes_ms.is_none_or(|freezes| freezes <= Self::FREEZES_MS_MAX);
                is_share(frame_rate_milli) && is_share(resolution_milli) && is_within
            }
            Self::Inference { errors_milli, .. } => is_share(errors_milli),
        }
    }
}

/// What one side measured in one minute of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteDigest {
    /// Which minute since the command began to run, from 0.
    pub minute: u32,
    /// Seconds of it that this side was looking, at most 60.
    pub watched: u8,
    /// Seconds of these in which the session answered.
    pub answered: u8,
    /// Round trips, where there were any.
    pub round_trip: Option<RoundTrip>,
    /// Packets lost on the way out, in hundredths of a percent.
    pub loss: Option<u16>,
    /// What the kind of service is measured by.
    pub figures: Figures,
}

impl MinuteDigest {
    fn is_bounded(&self) -> bool {
        let is_ordered = self.round_trip.is_none_or(|round| round.min_us <= round.median_us);
        let is_share = self.loss.is_none_or(|loss| loss <= 10_000);
        let is_within = self.watched <= 60 && self.answered <= self.watched;
        is_within && is_ordered && is_share && self.figures.is_bounded()
    }
}

/// What one side measured of a session, or of twelve hours of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Which lease.
    pub lease: LeaseId,
    /// Who runs it.
    pub host: NodeId,
    /// Who pays for it.
    pub buyer: AccountId,
    /// Who measured.
    pub side: Side,
    /// Which twelve hours since the command began to run, from 0.
    pub part: u32,
    /// When the command began to run, by the clock of who measured.
    pub began: UnixMillis,
    /// The start, in the first part; at most [`MARKS_MAX`].
    pub start: Vec<Mark>,
    /// The minutes, rising; at most [`MINUTES_MAX`].
    pub minutes: Vec<MinuteDigest>,
}

/// Why a series is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// A number is out of bounds, or minutes stand in a wrong order.
    #[error("a digest of the session has a number that is out of bounds")]
    Bounds,
    /// Somebody else signed, or signed something else.
    #[error("the digests are not signed by who should have measured")]
    Signature,
}

/// What is signed of a [`Series`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`DIGEST_VERSION`]
    pub version: u16,
    /// Which lease.
    pub lease: LeaseId,
    /// Who runs it.
    pub host: NodeId,
    /// Who measured.
    pub side: Side,
    /// Which twelve hours.
    pub part: u32,
    /// How many minutes.
    pub count: u32,
    /// The hash over what stands before the minutes, and each of them.
    #[serde(with = "crate::hexed")]
    pub chain: [u8; 32],
}

impl Signable for Head {
    const KIND: &'static str = "digest";
}

impl Eip712 for Head {
    fn hash_struct(&self) -> [u8; 32] {
        let mut words = Words::of(
            "Digest(uint16 version,bytes16 lease,bytes32 host,uint8 side,uint32 part,uint32 count,\
             bytes32 chain)",
        );
        words.number(u128::from(self.version));
        words.bytes16(self.lease.as_bytes());
        words.word(*self.host.as_bytes());
        words.number(self.side as u128);
        words.number(u128::from(self.part));
        words.number(u128::from(self.count));
        words.word(self.chain);
        words.hash()
    }
}

impl Series {
    /// What is signed of it.
    pub fn head(&self) -> Head {
        let Self { lease, host, buyer, side, part, began, ref start, ref minutes } = *self;
        let mut chain = hash(&[0; 32], &(lease, host, buyer, side, part, began, start));
        for minute in minutes {
            chain = hash(&chain, minute);
        }
        let count = u32::try_from(minutes.len()).unwrap_or(u32::MAX);
        Head { version: DIGEST_VERSION, lease, host, side, part, count, chain }
    }

    /// Checks its bounds.
    ///
    /// # Errors
    ///
    /// [`DigestError::Bounds`]
    pub fn check(&self) -> Result<(), DigestError> {
        let is_counted = u32::try_from(self.minutes.len()).is_ok_and(|count| count <= MINUTES_MAX);
        let is_marked = self.start.len() <= MARKS_MAX && (self.part == 0 || self.start.is_empty());
        let is_rising = self.minutes.windows(2).all(|pair| pair[0].minute < pair[1].minute);
        let is_its =
            |digest: &MinuteDigest| digest.minute / MINUTES_MAX == self.part && digest.is_bounded();
        let is_good = self.part < PARTS_MAX && is_counted && is_marked && is_rising;
        if is_good && self.minutes.iter().all(is_its) { Ok(()) } else { Err(DigestError::Bounds) }
    }

    /// Whether it says all that the other one says, and perhaps more.
    pub fn extends(&self, other: &Self) -> bool {
        let headless = |series: &Self| {
            let Self { lease, host, buyer, side, part, began, start, .. } = series.clone();
            (lease, host, buyer, side, part, began, start)
        };
        self.minutes.starts_with(&other.minutes) && headless(self) == headless(other)
    }
}

fn hash(before: &[u8; 32], what: &impl Serialize) -> [u8; 32] {
    // Far below the largest frame, so it can be encoded.
    let bytes = encode(what).unwrap_or_default();
    let hash = Sha256::new().chain_update(b"welkin/digest/1\0");
    hash.chain_update(before).chain_update(bytes).finalize().into()
}

/// The signature under a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// The host's.
    Host(Box<Signed<Head>>),
    /// The buyer's account's.
    Buyer(AccountSignature),
    /// A checker's, with the word of the account that paid that the two are one.
    Checker(Box<Signed<Head>>, Box<SignedByAccount<Delegation>>),
}

/// What one side measured, signed: a statement of an epoch's evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDigests {
    /// What was measured.
    pub series: Series,
    /// By whom.
    pub seal: Seal,
}

impl SessionDigests {
    /// Signs as the host.
    ///
    /// # Errors
    ///
    /// [`DigestError`] where the series is not the host's.
    pub fn by_host(domain: &Domain, key: &NodeKey, series: Series) -> Result<Self, DigestError> {
        let head = Signed::sign(domain, key, &series.head()).map_err(|_| DigestError::Bounds)?;
        let is_own = series.host == key.id();
        Self { series, seal: Seal::Host(Box::new(head)) }.own(Side::Host, is_own)
    }

    /// Signs as the buyer.
    ///
    /// # Errors
    ///
    /// [`DigestError`] where the series is not the buyer's.
    pub fn by_buyer(
        domain: &Domain,
        key: &AccountKey,
        series: Series,
    ) -> Result<Self, DigestError> {
        let seal = key.sign(&series.head().digest(domain)).map_err(|_| DigestError::Signature)?;
        let is_own = series.buyer == key.id();
        Self { series, seal: Seal::Buyer(seal) }.own(Side::Buyer, is_own)
    }

    /// Signs as a checker whose own account `account` was the buyer.
    ///
    /// # Errors
    ///
    /// [`DigestError`] where the series is not a checker's, or of another account's lease.
    pub fn by_checker(
        domain: &Domain,
        key: &NodeKey,
        account: &AccountKey,
        series: Series,
    ) -> Result<Self, DigestError> {
        let head = Signed::sign(domain, key, &series.head()).map_err(|_| DigestError::Bounds)?;
        let permit = Delegation { node: key.id(), expires: series.began };
        let permit = SignedByAccount::sign(domain, account, permit);
        let permit = permit.map_err(|_| DigestError::Signature)?;
        let is_own = series.buyer == account.id();
        Self { series, seal: Seal::Checker(Box::new(head), Box::new(permit)) }
            .own(Side::Checker, is_own)
    }

    /// What was signed here needs no look at the signature.
    fn own(self, side: Side, is_own: bool) -> Result<Self, DigestError> {
        self.series.check()?;
        if is_own && self.series.side == side { Ok(self) } else { Err(DigestError::Signature) }
    }

    /// Checks bounds and signatures. Whether the lease is that buyer's, its order says, and whether
    /// [`Self::checker`] is one, the epoch's list.
    ///
    /// # Errors
    ///
    /// [`DigestError`]
    pub fn verify(&self, domain: &Domain) -> Result<(), DigestError> {
        let series = &self.series;
        series.check()?;
        let head = series.head();
        let opens = |signed: &Signed<Head>| signed.open(domain) == Ok(head);
        let is_buyers = |signer: Result<AccountId, KeyError>| signer == Ok(series.buyer);
        let is_signed = match (&self.seal, series.side) {
            (Seal::Host(signed), Side::Host) => signed.signer() == series.host && opens(signed),
            (Seal::Buyer(signature), Side::Buyer) => {
                is_buyers(signature.recover(&head.digest(domain)))
            }
            (Seal::Checker(signed, permit), Side::Checker) => {
                let is_its = permit.message.node == signed.signer();
                is_its && opens(signed) && is_buyers(permit.signer(domain))
            }
            _ => false,
        };
        if is_signed { Ok(()) } else { Err(DigestError::Signature) }
    }

    /// The checker that signed, if one did.
    pub fn checker(&self) -> Option<NodeId> {
        match &self.seal {
            Seal::Checker(signed, _) => Some(signed.signer()),
            Seal::Host(_) | Seal::Buyer(_) => None,
        }
    }

    /// What of it the host does not have, which has the first `from` minutes.
    pub fn update(&self, from: u32) -> Option<DigestUpdate> {
        let Seal::Buyer(signature) = self.seal else { return None };
        let mut series = self.series.clone();
        let known = usize::try_from(from).unwrap_or(usize::MAX).min(series.minutes.len());
        series.minutes.drain(..known);
        Some(DigestUpdate { from, series, signature })
    }
}

/// From buyer to host: the minutes that are new, and the signature under all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestUpdate {
    /// How many minutes of this part the host has.
    pub from: u32,
    /// The series, of its minutes only the new ones.
    pub series: Series,
    /// The buyer's signature under the whole.
    pub signature: AccountSignature,
}

impl DigestUpdate {
    /// The whole, where `known` is what came before of the same part.
    ///
    /// # Errors
    ///
    /// [`DigestError`] where it does not fit to what is known, or is not the buyer's.
    pub fn join(
        self,
        domain: &Domain,
        known: Option<&SessionDigests>,
    ) -> Result<SessionDigests, DigestError> {
        let Self { from, mut series, signature } = self;
        let before = known.map_or(&[][..], |known| &known.series.minutes);
        let kept = usize::try_from(from).ok().and_then(|from| before.get(..from));
        let mut minutes = kept.ok_or(DigestError::Bounds)?.to_vec();
        minutes.append(&mut series.minutes);
        let joined =
            SessionDigests { series: Series { minutes, ..series }, seal: Seal::Buyer(signature) };
        let is_more = known.is_none_or(|known| joined.series.extends(&known.series));
        if !is_more {
            return Err(DigestError::Bounds);
        }
        joined.verify(domain)?;
        Ok(joined)
    }
}

#[cfg(test)]
mod tests;
