//! What a role does with other contracts than the escrow: it looks at them, and sends by the one sender
//! that its account has, so that no two of its transactions get in each other's way.

use welkin_chain::ops::{Act, Desk, OpsError};
use welkin_chain::sender::Sender;

/// A desk at the contracts, and who sends.
#[derive(Clone, Debug)]
pub struct Contracts {
    desk: Desk,
    sender: Sender,
}

impl Contracts {
    pub(super) const fn new(desk: Desk, sender: Sender) -> Self {
        Self { desk, sender }
    }

    /// The desk.
    pub const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Sends a transaction and waits until it has taken effect.
    ///
    /// # Errors
    ///
    /// [`OpsError`]; if this future is dropped, the transaction may still take effect.
    pub async fn send(&self, act: &Act) -> Result<(), OpsError> {
        let sent = self.sender.send(Some(act.to), act.input.clone(), false).await;
        sent.map(drop).map_err(|error| OpsError::of_send(act.what.clone(), error))
    }
}
