//! Moves bytes both ways between two connections until both are done: TCP at its plainest.
//!
//! A connection that is idle holds no buffer. One is borrowed of the thread while there are bytes to move, and kept past
//! that only for as long as the other end does not take them.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// One read's worth.
const BUFFER: usize = 32 * 1024;
/// How many buffers a thread keeps that nobody has borrowed.
const SPARE: usize = 16;

/// Why no more bytes are moved.
#[derive(Debug)]
pub enum End {
    /// Both ends have ended what they send.
    Finished,
    /// No byte passed either way for as long as was allowed.
    Idle,
    /// One of the ends broke off.
    Broken,
}

/// What is told while bytes pass.
pub trait Watch {
    /// So many bytes were read of the near end, and of the far one.
    fn passed(&mut self, from_near: u64, from_far: u64);
}

/// Moves bytes until both ends are done, nothing has passed for `idle`, or one breaks off. `first` was read of the near
/// end already, and is counted by who read it. An end that stops sending may still receive.
pub async fn relay<A, B>(
    near: &mut A,
    far: &mut B,
    first: Vec<u8>,
    idle: Option<Duration>,
    watch: &mut impl Watch,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Way { held: Held::of(first), ..Way::default() };
    let mut back = Way::default();
    let mut last = Instant::now();
    let mut timer = pin!(idle.map(tokio::time::sleep));
    std::future::poll_fn(|cx| {
        let ways = [there.poll(cx, near, far), back.poll(cx, far, near)];
        let read = [&mut there, &mut back].map(|way| std::mem::take(&mut way.read));
        watch.passed(read[0], read[1]);
        if std::mem::take(&mut there.moved) | std::mem::take(&mut back.moved) {
            last = Instant::now();
        }
        match ways {
            [Poll::Ready(Err(_)), _] | [_, Poll::Ready(Err(_))] => return Poll::Ready(End::Broken),
            [Poll::Ready(Ok(())), Poll::Ready(Ok(()))] => return Poll::Ready(End::Finished),
            _ => {}
        }
        // The timer is set anew only when it has run out: bytes that pass do not touch it.
        while let (Some(idle), Some(mut timer)) = (idle, timer.as_mut().as_pin_mut()) {
            ready!(timer.as_mut().poll(cx));
            if last.elapsed() >= idle {
                return Poll::Ready(End::Idle);
            }
            timer.reset(last + idle);
        }
        Poll::Pending
    })
    .await
}

/// From one end to the other.
#[derive(Default)]
struct Way {
    held: Option<Held>,
    state: State,
    /// What has been read since it was last asked for.
    read: u64,
    /// Whether a byte has been read or written since.
    moved: bool,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    /// One end has ended; the other one is to be told.
    Ending,
    Over,
}

impl Way {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(held) = &mut self.held {
                while !held.rest().is_empty() {
                    let written = ready!(Pin::new(&mut *to).poll_write(cx, held.rest()))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    held.written += written;
                    self.moved = true;
                }
                self.held = None;
            }
            match self.state {
                State::Open => {
                    let mut buffer = Held { bytes: borrow(), filled: 0, written: 0 };
                    let mut read = ReadBuf::new(&mut buffer.bytes);
                    ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
                    buffer.filled = read.filled().len();
                    if buffer.filled == 0 {
                        self.state = State::Ending;
                        continue;
                    }
                    self.read += buffer.filled as u64;
                    self.moved = true;
                    self.held = Some(buffer);
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Bytes that have been read and are yet to be written. Gives its buffer back when it goes.
struct Held {
    bytes: Vec<u8>,
    filled: usize,
    written: usize,
}

impl Held {
    /// Bytes that stand in no borrowed buffer.
    fn of(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self { filled: bytes.len(), bytes, written: 0 })
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..self.filled]
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

thread_local!(static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

fn borrow() -> Vec<u8> {
    let spare = BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; BUFFER])
}

fn give_back(buffer: Vec<u8>) {
    // Where the thread is ending, there is nothing to give it back to.
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffer.len() == BUFFER && buffers.len() < SPARE {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    #[derive(Clone, Default)]
    struct Counts(Arc<[AtomicU64; 2]>);

    impl Watch for Counts {
        fn passed(&mut self, from_near: u64, from_far: u64) {
            self.0[0].fetch_add(from_near, Ordering::Relaxed);
            self.0[1].fetch_add(from_far, Ordering::Relaxed);
        }
    }

    struct Relayed {
        client: DuplexStream,
        server: DuplexStream,
        counts: Counts,
        task: JoinHandle<End>,
    }

    fn relayed(room: usize, first: &[u8], idle: Option<Duration>) -> Relayed {
        let ((client, mut near), (server, mut far)) = (duplex(room), duplex(room));
        let (counts, first) = (Counts::default(), first.to_vec());
        let mut watch = counts.clone();
        let task = tokio::spawn(async move { relay(&mut near, &mut far, first, idle, &mut watch).await });
        Relayed { client, server, counts, task }
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_both_ways_however_little_the_other_end_takes_at_once() {
        let Relayed { client, server, counts, task } = relayed(1000, b"first ", None);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 251) as u8).collect();
        let pump = |stream: DuplexStream, sent: Vec<u8>| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            writing.await.unwrap();
            got
        };
        let (at_client, at_server) = tokio::join!(pump(client, sent.clone()), pump(server, sent.clone()));
        assert!(at_server == [b"first ", &sent[..]].concat(), "the way there");
        assert!(at_client == sent, "the way back");
        assert!(matches!(task.await.unwrap(), End::Finished));
        assert_eq!(counts.0.each_ref().map(|it| it.load(Ordering::Relaxed)), [3_000_000; 2]);
    }

    #[tokio::test]
    async fn an_end_that_has_stopped_sending_still_receives() {
        let Relayed { mut client, mut server, task, .. } = relayed(1000, b"", None);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "question");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        got.clear();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "answer");
        assert!(matches!(task.await.unwrap(), End::Finished));
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_puts_the_end_by_idleness_off() {
        let Relayed { mut client, mut server, task, .. } = relayed(1000, b"", Some(Duration::from_secs(10)));
        let begun = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert!(matches!(task.await.unwrap(), End::Idle));
        assert_eq!(begun.elapsed().as_secs(), 55);
    }

    #[tokio::test]
    async fn an_end_that_breaks_off_ends_both() {
        let Relayed { mut client, server, task, .. } = relayed(1000, b"", None);
        drop(server);
        let _ = client.write_all(b"x").await;
        assert!(matches!(task.await.unwrap(), End::Broken));
    }

    #[tokio::test]
    async fn what_is_idle_has_given_its_buffer_back() {
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut relayed = relayed(1000, b"first", None);
            relayed.server.read_exact(&mut [0; 5]).await.unwrap();
            relayed.server.write_all(b"hello").await.unwrap();
            relayed.client.read_exact(&mut [0; 5]).await.unwrap();
            all.push(relayed);
        }
        let spare = BUFFERS.with_borrow(Vec::len);
        assert!((1..=2).contains(&spare), "{spare} buffers were made for connections that take turns");
    }
}
