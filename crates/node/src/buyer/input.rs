//! Standard input of a lease, over the connections that there are.
//!
//! What the host has not said to have taken is kept, at most [`KEPT_BYTES_MAX`]. After a
//! reconnection the host says how far it is, and the rest is sent again: nothing is lost, and
//! nothing comes twice. Only where the host itself was restarted while something was on its way, it
//! does not know, and what it had not confirmed is sent again.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use welkin_net::SendStream;
use welkin_proto::lease::{DATA_BYTES_MAX, DataFrame, InputState, StreamHello};
use welkin_types::LeaseId;

use super::Line;
use super::session::open_stream;
use crate::wire;

/// Bytes that may be on their way; more is not taken from the source meanwhile.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one frame.
const FRAME_BYTES: usize = DATA_BYTES_MAX / 4;
/// Answers of the host that wait.
const STATES_MAX: usize = 16;

/// How carrying over one connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The command has all it wants.
    Done,
    /// The connection is gone: go on over the next one.
    Lost,
    /// The host takes no more, and says why.
    Refused(String),
}

/// Standard input of one lease.
#[derive(Debug)]
pub struct Input {
    lease: LeaseId,
    /// What was not confirmed yet.
    kept: VecDeque<u8>,
    /// Bytes confirmed.
    taken: u64,
    /// What the host's count began at, in this count.
    origin: u64,
    is_ended: bool,
}

impl Input {
    /// Nothing is sent yet.
    pub const fn new(lease: LeaseId) -> Self {
        Self { lease, kept: VecDeque::new(), taken: 0, origin: 0, is_ended: false }
    }

    /// Closes the input that another process has begun: nobody will send any more.
    pub async fn close(lease: LeaseId, line: &Line) {
        let Ok((mut send, mut recv)) =
            open_stream(line.connection(), &StreamHello::Stdin(lease)).await
        else {
            return;
        };
        if wire::send(&mut send, &DataFrame::End).await.is_ok() {
            // Until the host has said that it is closed.
            while let Ok(Some(InputState::Taken(_) | InputState::Unknown)) =
                wire::recv(&mut recv).await
            {}
        }
    }

    /// Sends what comes out of the source, and its end once the source is closed.
    pub async fn carry(&mut self, line: &Line, source: &mut mpsc::Receiver<Vec<u8>>) -> Carried {
        let hello = StreamHello::Stdin(self.lease);
        let Ok((mut send, mut recv)) = open_stream(line.connection(), &hello).await else {
            return Carried::Lost;
        };
        let Ok(Some(first)) = wire::recv(&mut recv).await else { return Carried::Lost };
        if let Some(end) = self.begin(first) {
            return end;
        }
        if self.send_kept(&mut send).await.is_err() {
            return Carried::Lost;
        }
        let (tell, mut states) = mpsc::channel(STATES_MAX);
        // Read by a future of its own: a frame half read must not be given up.
        let reading = async move {
            while let Ok(Some(state)) = wire::recv(&mut recv).await {
                if tell.send(state).await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(reading);
        loop {
            let has_room = !self.is_ended && self.kept.len() < KEPT_BYTES_MAX;
            tokio::select! {
                biased;
                Some(state) = states.recv() => {
                    if let Some(end) = self.hear(state) {
                        return end;
                    }
                }
                () = &mut reading => {
                    while let Ok(state) = states.try_recv() {
                        if let Some(end) = self.hear(state) {
                            return end;
                        }
                    }
                    return Carried::Lost;
                }
                bytes = source.recv(), if has_room => {
                    if self.send(&mut send, bytes).await.is_err() {
                        return Carried::Lost;
                    }
                }
            }
        }
    }

    async fn send(
        &mut self,
        send: &mut SendStream,
        bytes: Option<Vec<u8>>,
    ) -> Result<(), wire::WireError> {
        let Some(bytes) = bytes else {
            self.is_ended = true;
            return wire::send(send, &DataFrame::End).await;
        };
        self.kept.extend(&bytes);
        wire::send(send, &DataFrame::Data(bytes)).await
    }

    /// What may not have arrived, once more.
    async fn send_kept(&mut self, send: &mut SendStream) -> Result<(), wire::WireError> {
        for piece in self.kept.make_contiguous().chunks(FRAME_BYTES) {
            wire::send(send, &DataFrame::Data(piece.to_vec())).await?;
        }
        if self.is_ended { wire::send(send, &DataFrame::End).await } else { Ok(()) }
    }

    /// Takes in how far the host is where a stream begins.
    fn begin(&mut self, state: InputState) -> Option<Carried> {
        match state {
            InputState::Unknown => {
                self.origin = self.taken;
                None
            }
            state => self.hear(state),
        }
    }

    fn hear(&mut self, state: InputState) -> Option<Carried> {
        match state {
            InputState::Taken(count) => {
                let count = self.origin.saturating_add(count);
                let new = count.saturating_sub(self.taken);
                let Some(new) = usize::try_from(new).ok().filter(|new| *new <= self.kept.len())
                else {
                    let why = "the host counts input that was not sent".to_owned();
                    return Some(Carried::Refused(why));
                };
                self.kept.drain(..new);
                self.taken = self.taken.max(count);
                None
            }
            InputState::Unknown => None,
            InputState::Done => Some(Carried::Done),
            InputState::Closed(_) if self.is_ended && self.kept.is_empty() => Some(Carried::Done),
            InputState::Closed(why) => Some(Carried::Refused(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(bytes: &[u8]) -> Input {
        let mut input = Input::new(LeaseId::from_bytes([1; 16]));
        input.kept.extend(bytes);
        input
    }

    #[test]
    fn what_was_taken_is_not_sent_again() {
        let mut input = sent(b"abcdef");
        assert_eq!(input.hear(InputState::Taken(2)), None);
        // The connection is lost here; some of what was sent had arrived.
        assert_eq!(input.begin(InputState::Taken(4)), None);
        assert_eq!(input.kept, b"ef");
        input.kept.extend(b"gh");
        assert_eq!(input.hear(InputState::Taken(8)), None);
        assert!(input.kept.is_empty());
        assert_eq!(input.hear(InputState::Done), Some(Carried::Done));
    }

    #[test]
    fn a_host_that_was_restarted_counts_from_where_the_buyer_is() {
        let mut input = sent(b"abcdef");
        assert_eq!(input.hear(InputState::Taken(4)), None);
        assert_eq!(input.begin(InputState::Unknown), None);
        assert_eq!(input.kept, b"ef", "not confirmed, so sent again");
        assert_eq!(input.hear(InputState::Taken(2)), None);
        assert!(input.kept.is_empty());
        assert_eq!(input.begin(InputState::Taken(2)), None);
        let why = InputState::Closed("why".to_owned());
        assert_eq!(input.hear(why), Some(Carried::Refused("why".to_owned())));
    }

    #[test]
    fn a_count_of_more_than_was_sent_is_refused() {
        let mut input = sent(b"abc");
        assert!(matches!(input.hear(InputState::Taken(4)), Some(Carried::Refused(_))));
    }
}
