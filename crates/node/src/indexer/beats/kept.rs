//! What heartbeats leave on the disk: the sessions, and the port, so that a restarted indexer is
//! found where it was and knows who it hears.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tracing::{debug, info, warn};
use welkin_match::Presence;
use welkin_net::DatagramSocket;
use welkin_proto::heartbeat::Secret;
use welkin_types::UnixMillis;

use super::BeatsError;

const SESSIONS: &str = "sessions";
const PORT: &str = "heartbeat.port";

/// The sessions of before; none where there are none, or none that can be read.
pub(super) fn load(dir: &Path, secret: Secret, now: UnixMillis) -> Presence {
    let path = dir.join(SESSIONS);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%error, path = %path.display(), "sessions can't be read: hosts must enrol anew");
            }
            return Presence::new(secret);
        }
    };
    match Presence::load(secret.clone(), now, &bytes) {
        Ok(presence) => {
            info!(sessions = presence.len(), "sessions of heartbeats are taken up");
            presence
        }
        Err(error) => {
            warn!(%error, path = %path.display(), "sessions are dropped: hosts must enrol anew");
            Presence::new(secret)
        }
    }
}

/// Writes the sessions aside and puts them in place, so that nobody ever reads half of them.
pub(super) fn write(dir: &Path, dump: &[u8]) -> io::Result<()> {
    let (path, draft) = (dir.join(SESSIONS), dir.join("sessions.new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(dump)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

/// Binds the socket. Where any port will do, the one of the last start is taken if it is still free:
/// hosts send their beats there.
pub(super) fn bind(
    dir: &Path,
    addr: SocketAddr,
    buffer_bytes: usize,
) -> Result<DatagramSocket, BeatsError> {
    let path = dir.join(PORT);
    if addr.port() == 0
        && let Ok(text) = fs::read_to_string(&path)
        && let Ok(port) = text.trim().parse()
        && let Ok(socket) = DatagramSocket::bind(SocketAddr::new(addr.ip(), port), buffer_bytes)
    {
        return Ok(socket);
    }
    let listen = |source| BeatsError::Listen { addr, source };
    let socket = DatagramSocket::bind(addr, buffer_bytes).map_err(listen)?;
    let port = socket.local_addr().map_err(listen)?.port();
    if let Err(error) = fs::write(path, format!("{port}\n")) {
        debug!(%error, "the port for heartbeats is not remembered");
    }
    Ok(socket)
}
