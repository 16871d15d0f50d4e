//! Small datagrams of many senders, received in batches, without QUIC.
//!
//! For what a million peers say in one packet each: one thread waits, takes what has come with few
//! system calls (`recvmmsg`, GRO), and may answer to where a packet came from. Nothing here is
//! encrypted or authenticated; that is the caller's to do before it believes a byte or answers.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use noq_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force},
};

/// The longest run of datagrams of one sender that is taken in one piece; what is longer is cut off.
const RUN_BYTES_MAX: usize = 8 * 1024;

/// A socket for datagrams, used by one thread at a time.
pub struct DatagramSocket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Where a datagram came from, and to which of our addresses: the way an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPath {
    /// The sender.
    pub peer: SocketAddr,
    local: Option<IpAddr>,
}

/// Received datagrams; its memory is used again and again.
pub struct DatagramBatch {
    buffers: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    count: usize,
}

impl DatagramSocket {
    /// Binds a socket whose receive buffer takes `buffer_bytes`, as far as the system allows: what
    /// comes while the thread is busy waits there.
    ///
    /// # Errors
    ///
    /// If the address can't be bound.
    pub fn bind(addr: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        let state = UdpSocketState::new((&socket).into())?;
        // By force past the system's limit where we may; else as much as it gives.
        if set_socket_recv_buffer_size_force(&socket, buffer_bytes).is_err() {
            let _ = set_socket_recv_buffer_size(&socket, buffer_bytes);
        }
        Ok(Self { socket, state })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until something has come; says whether it has, within this time.
    ///
    /// # Errors
    ///
    /// If the socket is unusable.
    pub fn wait(&self, within: Duration) -> io::Result<bool> {
        let within = Timespec::try_from(within).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&within)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has come, without waiting; says whether there was anything.
    ///
    /// # Errors
    ///
    /// If the socket is unusable.
    pub fn receive(&self, batch: &mut DatagramBatch) -> io::Result<bool> {
        batch.count = 0;
        let mut pieces = batch.buffers.chunks_exact_mut(RUN_BYTES_MAX).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| pieces.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        match self.state.recv((&self.socket).into(), &mut slices, &mut batch.metas) {
            Ok(count) => {
                batch.count = count;
                Ok(count > 0)
            }
            // What an answer of ours met on its way (a port that is closed) is no fault of the socket.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends an answer on the way that a datagram came.
    ///
    /// # Errors
    ///
    /// If it can't be sent now: there is no waiting.
    pub fn answer(&self, to: DatagramPath, bytes: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.peer,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: to.local,
        };
        self.state.try_send((&self.socket).into(), &transmit)
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatagramSocket({:?})", self.socket.local_addr().ok())
    }
}

impl DatagramBatch {
    /// Room for one batch.
    #[must_use]
    pub fn new() -> Self {
        let metas = [RecvMeta::default(); BATCH_SIZE];
        Self { buffers: vec![0; BATCH_SIZE * RUN_BYTES_MAX], metas, count: 0 }
    }

    /// What the last [`DatagramSocket::receive`] took.
    pub fn iter(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> + Clone {
        let runs = self.metas.iter().zip(self.buffers.chunks_exact(RUN_BYTES_MAX));
        runs.take(self.count).flat_map(|(meta, buffer)| {
            let path = DatagramPath { peer: meta.addr, local: meta.dst_ip };
            let run = &buffer[..meta.len.min(RUN_BYTES_MAX)];
            run.chunks(meta.stride.max(1)).map(move |datagram| (path, datagram))
        })
    }
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DatagramBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatagramBatch({} runs)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_and_answers_go_back() {
        let socket = DatagramSocket::bind(([127, 0, 0, 1], 0).into(), 1 << 20).unwrap();
        let to = socket.local_addr().unwrap();
        let mut batch = DatagramBatch::new();
        assert!(!socket.receive(&mut batch).unwrap());
        assert!(!socket.wait(Duration::from_millis(1)).unwrap());
        let peers: Vec<_> = (0..3).map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap()).collect();
        for number in 0..100_u8 {
            peers[usize::from(number) % 3].send_to(&[number; 69], to).unwrap();
        }
        // One that is far too long is cut off and harms no other.
        peers[0].send_to(&[0xff; 20_000], to).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 100 {
            assert!(socket.wait(Duration::from_secs(5)).unwrap());
            socket.receive(&mut batch).unwrap();
            for (path, datagram) in batch.iter().filter(|(_, datagram)| datagram.len() == 69) {
                seen.push((datagram[0], path));
            }
        }
        seen.sort_by_key(|(number, _)| *number);
        for (number, (first, path)) in seen.iter().enumerate() {
            assert_eq!(usize::from(*first), number);
            assert_eq!(path.peer, peers[number % 3].local_addr().unwrap());
        }
        socket.answer(seen[1].1, b"taken").unwrap();
        let mut answer = [0; 16];
        let (length, from) = peers[1].recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from), (&b"taken"[..], to));
    }
}
