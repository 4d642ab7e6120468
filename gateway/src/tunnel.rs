//! A connection that has changed its protocol: what its two ends tell each other, so that each direction ends by itself.
//!
//! The engine ends a tunnel at the first end of input, whichever side that comes from. So the two streams keep such an
//! end to themselves: what was read before it is written to the other side, whose sending half is then closed, and the
//! engine reads an end only when both directions are over.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// The state of one tunnel, shared by its two streams and its request.
#[derive(Debug, Default)]
pub struct Tunnel {
    up: Direction,
    down: Direction,
}

/// From one side to the other.
#[derive(Debug, Default)]
struct Direction {
    /// Bytes that have come from the one side.
    taken: AtomicU64,
    /// Bytes that have been written to the other.
    written: AtomicU64,
    state: AtomicU8,
    /// Who reads from the one side.
    reader: AtomicWaker,
}

const OPEN: u8 = 0;
/// The one side has said its last.
const ENDED: u8 = 1;
/// And the other has been told.
const CLOSED: u8 = 2;

/// The tunnel as one of its streams has it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    reads: &'a Direction,
    writes: &'a Direction,
}

impl Tunnel {
    /// Opened by an answer behind which so many bytes of the new protocol had been read already.
    pub fn new(early: u64) -> Self {
        let tunnel = Self::default();
        tunnel.down.taken.store(early, Ordering::Relaxed);
        tunnel
    }

    /// So many bytes of the client's are on their way to the upstream. Counted here and not where they are read: the
    /// first of them may have come with the request.
    pub fn take_up(&self, bytes: usize) {
        self.up.taken.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// Whether the client has said its last. That it cannot be written to any more is no failure then.
    pub fn client_has_ended(&self) -> bool {
        self.client().has_ended()
    }

    /// The client's stream.
    pub fn client(&self) -> End<'_> {
        End { reads: &self.up, writes: &self.down }
    }

    /// The upstream's stream.
    pub fn upstream(&self) -> End<'_> {
        End { reads: &self.down, writes: &self.up }
    }
}

impl End<'_> {
    /// So many bytes have been read.
    pub fn take(self, bytes: usize) {
        self.reads.taken.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// So many bytes have been written.
    pub fn wrote(self, bytes: usize) {
        self.writes.written.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// This side has said its last.
    pub fn ended(self) {
        if self.reads.state.compare_exchange(OPEN, ENDED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.writes.reader.wake();
        }
    }

    /// Whether the other side has said its last, and all of that has been written here: the time to close.
    pub fn is_to_close(self) -> bool {
        self.writes.state.load(Ordering::Acquire) == ENDED
            && self.writes.written.load(Ordering::Acquire) >= self.writes.taken.load(Ordering::Acquire)
    }

    /// The sending half of this side is closed.
    pub fn closed(self) {
        self.writes.state.store(CLOSED, Ordering::Release);
        // It waits for this, if its own direction is over already.
        self.writes.reader.wake();
    }

    /// Whether nothing more is to be read from this side.
    pub fn has_ended(self) -> bool {
        self.reads.state.load(Ordering::Acquire) != OPEN
    }

    /// Has the reader of this side woken when there is something to close, or nothing left to wait for.
    pub fn watch(self, cx: &Context<'_>) {
        self.reads.reader.register(cx.waker());
    }

    /// Ready, as with an end of input, once both directions are over.
    pub fn poll_over(self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx);
        // Looked at after the waker is in place, so that no change in between is missed.
        match [self.reads, self.writes].iter().all(|it| it.state.load(Ordering::Acquire) == CLOSED) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

/// Finds the end of an answer's head in what passes by, to tell the bytes of the new protocol from it.
#[derive(Debug, Default)]
pub struct HeadEnd {
    /// The version and the status.
    first: [u8; 12],
    seen: usize,
    /// Bytes of the present line, without a CR.
    line: usize,
}

/// What a head turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is more to come.
    Nothing,
    /// A 101, and so many bytes behind it.
    Switch(usize),
    /// Another final answer.
    Other,
}

impl HeadEnd {
    /// Looks at the next piece. Interim answers are passed over.
    pub fn look(&mut self, bytes: &[u8]) -> Found {
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(place) = self.first.get_mut(self.seen) {
                *place = *byte;
            }
            self.seen += 1;
            match byte {
                b'\n' if self.line == 0 => match &self.first[9..] {
                    b"101" => return Found::Switch(bytes.len() - at - 1),
                    [b'1', ..] => *self = Self::default(),
                    _ => return Found::Other,
                },
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_direction_is_closed_once_all_of_it_is_written() {
        let tunnel = Tunnel::new(3);
        let (client, upstream) = (tunnel.client(), tunnel.upstream());
        upstream.take(2);
        upstream.ended();
        assert!(upstream.has_ended() && !client.has_ended());
        client.wrote(4);
        assert!(!client.is_to_close(), "of five bytes four are written");
        client.wrote(1);
        assert!(client.is_to_close());
        client.closed();
        assert!(!client.is_to_close(), "just once");
    }

    #[test]
    fn an_end_is_read_when_both_directions_are_over() {
        let cx = Context::from_waker(Waker::noop());
        let tunnel = Tunnel::new(0);
        let (client, upstream) = (tunnel.client(), tunnel.upstream());
        tunnel.take_up(1);
        client.ended();
        upstream.wrote(1);
        upstream.closed();
        assert!(client.poll_over(&cx).is_pending());
        upstream.ended();
        client.closed();
        assert!(client.poll_over(&cx).is_ready() && upstream.poll_over(&cx).is_ready());
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        fn check(bytes: &[u8], expected: Found) {
            assert_eq!(HeadEnd::default().look(bytes), expected, "{}", bytes.escape_ascii());
            let mut head = HeadEnd::default();
            let found = bytes.iter().enumerate().find_map(|(at, byte)| match head.look(&[*byte]) {
                Found::Nothing => None,
                Found::Switch(0) => Some(Found::Switch(bytes.len() - at - 1)),
                found => Some(found),
            });
            assert_eq!(found.unwrap_or(Found::Nothing), expected, "byte by byte: {}", bytes.escape_ascii());
        }
        check(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\n\r\nhello", Found::Switch(5));
        check(b"HTTP/1.1 101\n\n", Found::Switch(0));
        check(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 101 Now\r\n\r\n\r\n\r\n", Found::Switch(4));
        check(b"HTTP/1.1 403 Forbidden\r\n\r\nno", Found::Other);
        check(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\n", Found::Nothing);
        check(b"\n", Found::Other);
    }
}
