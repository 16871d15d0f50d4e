//! Small datagrams of many senders, received and answered in batches, without QUIC.
//!
//! For what a million peers say in one packet each: one thread waits, takes what has come with few
//! system calls (`recvmmsg`), and may answer to where packets came from (`sendmmsg`). Nothing here
//! is encrypted or authenticated; that is the caller's to do before it believes a byte or answers.

use std::{
    array, fmt,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
        recvmmsg, sendmmsg, setsockopt, sockopt,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::{
        Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_socket_recv_buffer_size,
        set_socket_recv_buffer_size_force,
    },
};

/// How many datagrams one call takes, or sends.
const DATAGRAMS_MAX: usize = 128;
/// The longest datagram that is taken whole; of a longer one the rest is cut off.
const DATAGRAM_BYTES_MAX: usize = 128;

/// A socket for datagrams, used by one thread at a time.
#[derive(Debug)]
pub struct DatagramSocket(UdpSocket);

/// Where a datagram came from, and to which of our addresses: the way an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPath {
    /// The sender.
    pub peer: SocketAddr,
    /// Where the socket listens on several addresses.
    local: Option<IpAddr>,
}

/// Received datagrams; its memory is used again and again.
pub struct DatagramBatch {
    /// Of one length each and side by side: they all stay in the processor's cache.
    buffers: Vec<u8>,
    /// Of each buffer in use where its datagram came from, and how long it is.
    paths: Vec<Option<(DatagramPath, usize)>>,
    headers: MultiHeaders<SockaddrStorage>,
}

/// Answers that go out together, by [`DatagramSocket::send`]; its memory is used again and again.
pub struct DatagramAnswers {
    bytes: Vec<u8>,
    /// Of each its way, and where in `bytes` it ends.
    ends: Vec<(DatagramPath, usize)>,
    /// Whose control messages are exactly as long as they are to be: the system reads on otherwise.
    plain: MultiHeaders<SockaddrStorage>,
    from_v4: MultiHeaders<SockaddrStorage>,
    from_v6: MultiHeaders<SockaddrStorage>,
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
        socket.set_nonblocking(true)?;
        // By force past the system's limit where we may; else as much as it gives.
        if set_socket_recv_buffer_size_force(&socket, buffer_bytes).is_err() {
            let _ = set_socket_recv_buffer_size(&socket, buffer_bytes);
        }
        // What is sent is small and is never cut into pieces: the system need not number it for that.
        let _ = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE);
        // Who listens at one address answers from it; else each datagram says to which it came.
        let is_everywhere = addr.ip().is_unspecified();
        match addr {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &is_everywhere)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &is_everywhere)?,
        }
        Ok(Self(socket))
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits until something has come; says whether it has, within this time.
    ///
    /// # Errors
    ///
    /// If the socket is unusable.
    pub fn wait(&self, within: Duration) -> io::Result<bool> {
        let within = Timespec::try_from(within).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&within)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has come, without waiting; says whether there may be more.
    ///
    /// # Errors
    ///
    /// If the socket is unusable.
    pub fn receive(&self, batch: &mut DatagramBatch) -> io::Result<bool> {
        let DatagramBatch { buffers, paths, headers } = batch;
        paths.clear();
        let mut pieces = buffers.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let mut slices: [[IoSliceMut<'_>; 1]; DATAGRAMS_MAX] =
            array::from_fn(|_| [IoSliceMut::new(pieces.next().unwrap_or_default())]);
        let fd = self.0.as_raw_fd();
        match recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
            Ok(received) => {
                paths.extend(received.map(|message| came(&message)));
                Ok(paths.len() == DATAGRAMS_MAX)
            }
            // What an answer of ours met on its way (a port that is closed) is no fault of the socket.
            Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends answers on the ways that datagrams came, without waiting. Returns how many went out: an
    /// answer that can't be sent now is lost, as any datagram may be.
    pub fn send(&self, answers: &mut DatagramAnswers) -> usize {
        let DatagramAnswers { bytes, ends, plain, from_v4, from_v6 } = answers;
        let starts = std::iter::once(0).chain(ends.iter().map(|(_, end)| *end));
        let pieces =
            starts.zip(ends.iter()).map(|(start, (path, end))| (*path, &bytes[start..*end]));
        let messages: Vec<_> = pieces.collect();
        let mut sent = 0;
        for group in messages.chunk_by(|(one, _), (next, _)| one.local == next.local) {
            sent += match group.first().and_then(|(path, _)| path.local) {
                None => self.send_group(plain, group, &[]),
                Some(IpAddr::V4(local)) => {
                    let ipi_spec_dst = in_addr { s_addr: u32::from(local).to_be() };
                    let ipi_addr = in_addr { s_addr: 0 };
                    let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr };
                    self.send_group(from_v4, group, &[ControlMessage::Ipv4PacketInfo(&from)])
                }
                Some(IpAddr::V6(local)) => {
                    let ipi6_addr = in6_addr { s6_addr: local.octets() };
                    let from = in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                    self.send_group(from_v6, group, &[ControlMessage::Ipv6PacketInfo(&from)])
                }
            };
        }
        bytes.clear();
        ends.clear();
        sent
    }

    /// Sends what comes from one address of ours. One that fails is left out and the next ones tried,
    /// but where the system has no room: then the rest is left out.
    fn send_group(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        group: &[(DatagramPath, &[u8])],
        from: &[ControlMessage<'_>],
    ) -> usize {
        let slices: Vec<_> = group.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
        let peers: Vec<_> =
            group.iter().map(|(path, _)| Some(SockaddrStorage::from(path.peer))).collect();
        let (mut at, mut sent) = (0, 0);
        while at < group.len() {
            let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            match sendmmsg(fd, headers, &slices[at..], &peers[at..], from, flags) {
                Ok(results) => {
                    let count = results.count();
                    (at, sent) = (at + count.max(1), sent + count);
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(_) => at += 1,
            }
        }
        sent
    }
}

/// Where a datagram came from, and how long it is.
fn came(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<(DatagramPath, usize)> {
    let peer = message.address?;
    let v4 = peer.as_sockaddr_in().map(|peer| SocketAddr::from(SocketAddrV4::from(*peer)));
    let v6 = || peer.as_sockaddr_in6().map(|peer| SocketAddr::from(SocketAddrV6::from(*peer)));
    let mut controls = message.cmsgs().ok().into_iter().flatten();
    let local = controls.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(to) => {
            Some(IpAddr::from(u32::from_be(to.ipi_addr.s_addr).to_be_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(to) => Some(IpAddr::from(to.ipi6_addr.s6_addr)),
        _ => None,
    });
    Some((DatagramPath { peer: v4.or_else(v6)?, local }, message.bytes))
}

impl DatagramBatch {
    /// Room for one batch.
    #[must_use]
    pub fn new() -> Self {
        let controls = cmsg_space!(in6_pktinfo);
        Self {
            buffers: vec![0; DATAGRAMS_MAX * DATAGRAM_BYTES_MAX],
            paths: Vec::with_capacity(DATAGRAMS_MAX),
            headers: MultiHeaders::preallocate(DATAGRAMS_MAX, Some(controls)),
        }
    }

    /// What the last [`DatagramSocket::receive`] took.
    pub fn iter(&self) -> impl Iterator<Item = (DatagramPath, &[u8])> + Clone {
        let buffers = self.buffers.chunks_exact(DATAGRAM_BYTES_MAX);
        self.paths.iter().zip(buffers).filter_map(|(came, buffer)| {
            let (path, bytes) = (*came)?;
            Some((path, &buffer[..bytes.min(DATAGRAM_BYTES_MAX)]))
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
        write!(f, "DatagramBatch({} datagrams)", self.paths.len())
    }
}

impl DatagramAnswers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            plain: MultiHeaders::preallocate(DATAGRAMS_MAX, None),
            from_v4: MultiHeaders::preallocate(DATAGRAMS_MAX, Some(cmsg_space!(in_pktinfo))),
            from_v6: MultiHeaders::preallocate(DATAGRAMS_MAX, Some(cmsg_space!(in6_pktinfo))),
        }
    }

    /// Adds an answer on the way that a datagram came.
    pub fn push(&mut self, to: DatagramPath, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push((to, self.bytes.len()));
    }
}

impl Default for DatagramAnswers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DatagramAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatagramAnswers({})", self.ends.len())
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
        assert_eq!(batch.iter().count(), 0);
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
        let mut answers = DatagramAnswers::new();
        answers.push(seen[1].1, b"taken");
        answers.push(seen[2].1, b"not taken");
        assert_eq!(socket.send(&mut answers), 2);
        for (peer, said) in [(1, &b"taken"[..]), (2, b"not taken")] {
            let mut answer = [0; 16];
            let (length, from) = peers[peer].recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], from), (said, to));
        }
        assert_eq!(socket.send(&mut answers), 0, "they went out once");
    }

    #[test]
    fn an_answer_comes_from_the_address_that_was_spoken_to() {
        for (everywhere, local) in [("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")] {
            let everywhere = SocketAddr::new(everywhere.parse().unwrap(), 0);
            let socket = DatagramSocket::bind(everywhere, 1 << 20).unwrap();
            let to = SocketAddr::new(local.parse().unwrap(), socket.local_addr().unwrap().port());
            let peer =
                UdpSocket::bind((if to.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (mut batch, mut answers) = (DatagramBatch::new(), DatagramAnswers::new());
            // The same memory is used for many batches.
            for round in 0..3_u8 {
                peer.send_to(&[round; 69], to).unwrap();
                assert!(socket.wait(Duration::from_secs(5)).unwrap());
                assert!(!socket.receive(&mut batch).unwrap(), "there is one");
                for (path, datagram) in batch.iter() {
                    answers.push(path, datagram);
                }
                assert_eq!(socket.send(&mut answers), 1);
                let mut answer = [0; 80];
                let (length, from) = peer.recv_from(&mut answer).unwrap();
                assert_eq!((&answer[..length], from), (&[round; 69][..], to));
            }
        }
    }

    #[test]
    fn an_answer_that_fails_keeps_no_other_back() {
        let socket = DatagramSocket::bind(([127, 0, 0, 1], 0).into(), 1 << 20).unwrap();
        let peer = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answers = DatagramAnswers::new();
        let to = |peer| DatagramPath { peer, local: None };
        // A socket of IPv4 can't send there.
        answers.push(to("[::1]:9".parse().unwrap()), b"nobody");
        for number in 0..200_u16 {
            answers.push(to(peer.local_addr().unwrap()), &number.to_le_bytes());
        }
        assert_eq!(socket.send(&mut answers), 200);
        for number in 0..200_u16 {
            let mut answer = [0; 16];
            let length = peer.recv(&mut answer).unwrap();
            assert_eq!(answer[..length], number.to_le_bytes());
        }
    }
}
