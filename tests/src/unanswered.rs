//! An address where a connection is neither accepted nor refused, as behind a firewall that drops packets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A listener that accepts nothing and whose queue is full. Linux drops further SYNs then, whatever the firewall, so
/// that a connect ends by its own time limit alone.
pub struct Unanswered {
    /// Where it is, on 127.0.0.1.
    pub port: u16,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unanswered {
    /// Fills the queue until a connect is not answered any more.
    pub fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        // A second call makes the queue shorter: room for one.
        // SAFETY: the descriptor is open for as long as `listener` lives.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let queued: Vec<_> = (0..16).map_while(|_| connect(address)).collect();
        assert!((1..16).contains(&queued.len()), "the queue takes {} connections", queued.len());
        Self { port: address.port(), _listener: listener, _queued: queued }
    }
}

impl Default for Unanswered {
    fn default() -> Self {
        Self::new()
    }
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_connect_is_neither_accepted_nor_refused() {
        let unanswered = Unanswered::new();
        let address = SocketAddr::from(([127, 0, 0, 1], unanswered.port));
        let error = TcpStream::connect_timeout(&address, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
