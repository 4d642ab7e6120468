//! The socket that clients send to: batches are read, and each answer leaves from the address that its client sent to.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{slices, would_block};

/// A bound socket.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Holds an address. Within a tokio runtime.
///
/// # Errors
/// As the system tells them.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = StdSocket::bind(address)?;
    let state = UdpSocketState::new((&socket).into())?;
    let io = UdpSocket::from_std(socket)?;
    let_fragment(&io, address.is_ipv4())?;
    Ok(Socket { io, state })
}

impl Socket {
    /// Waits for datagrams: how many of `metas`, and of the pieces of `space`, tell of some.
    pub async fn receive(&self, space: &mut [u8], metas: &mut [RecvMeta]) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            let read = || self.state.recv((&self.io).into(), &mut slices(space), metas);
            match self.io.try_io(Interest::READABLE, read) {
                Err(error) if would_block(&error) => {}
                received => return received,
            }
        }
    }

    /// Sends a datagram to a client from the address that the client knows. Where there is no room for it, it is lost, as
    /// it might be anywhere.
    pub fn send(&self, datagram: &[u8], client: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let transmit =
            Transmit { destination: client, ecn: None, contents: datagram, segment_size: None, src_ip: from };
        self.state.try_send((&self.io).into(), &transmit)
    }
}

/// `quinn_udp` forbids it, for QUIC measures how large a datagram may be. Here it is up to the two ends.
fn let_fragment(socket: &UdpSocket, is_v4: bool) -> io::Result<()> {
    // A v6 socket may have v4 clients.
    let mut options = vec![(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)];
    if !is_v4 {
        options.push((libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT));
        options.push((libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0));
    }
    for (level, name, value) in options {
        let size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the option is an int, of which the
        // pointer and the size are given.
        let set = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), size)
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
