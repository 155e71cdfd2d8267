//! Bytes between two connections, both ways at once, with half-close.
//!
//! A buffer is held only while it has data: when a read would wait, it goes back to the thread's small store, so ten thousand idle
//! connections hold none. The end of one direction is passed on as a shutdown of writing; the other goes on until it ends too.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Spare buffers that a thread keeps.
const MAX_SPARE_BUFFERS: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub buffer_bytes: usize,
    /// Ends the connection when neither side sent anything for so long.
    pub idle: Option<Duration>,
    /// Ends the connection after this time in any case.
    pub longest: Option<Duration>,
}

/// Bytes passed so far; readable while it runs.
#[derive(Debug, Default)]
pub struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counts {
    /// From the downstream.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// To the downstream.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Downstream,
    Upstream,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides had said all, this one first.
    Complete(Peer),
    Idle,
    TooLong,
    DownstreamFailed,
    UpstreamFailed,
}

/// Copies until both directions have ended, or one fails, or time is up.
pub async fn both<D, U>(downstream: D, upstream: U, counts: &Counts, limits: &Limits) -> End
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut downstream, mut upstream) = (downstream, upstream);
    let mut up = Direction::new(limits.buffer_bytes);
    let mut down = Direction::new(limits.buffer_bytes);
    let now = Instant::now();
    let mut idle: Option<Pin<Box<Sleep>>> =
        limits.idle.map(|limit| Box::pin(tokio::time::sleep(limit)));
    let mut longest: Option<Pin<Box<Sleep>>> = limits
        .longest
        .map(|limit| Box::pin(tokio::time::sleep_until(now + limit)));
    let mut last_total = 0;
    let mut first = None;
    std::future::poll_fn(move |cx| {
        match up.poll(cx, &mut downstream, &mut upstream, &counts.received) {
            Poll::Ready(Err(Side::Reading)) => return Poll::Ready(End::DownstreamFailed),
            Poll::Ready(Err(Side::Writing)) => return Poll::Ready(End::UpstreamFailed),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if up.state != State::Passing {
            first.get_or_insert(Peer::Downstream);
        }
        match down.poll(cx, &mut upstream, &mut downstream, &counts.sent) {
            Poll::Ready(Err(Side::Reading)) => return Poll::Ready(End::UpstreamFailed),
            Poll::Ready(Err(Side::Writing)) => return Poll::Ready(End::DownstreamFailed),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if down.state != State::Passing {
            first.get_or_insert(Peer::Upstream);
        }
        if let (State::Done, State::Done, Some(first)) = (up.state, down.state, first) {
            return Poll::Ready(End::Complete(first));
        }
        if longest
            .as_mut()
            .is_some_and(|longest| longest.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(End::TooLong);
        }
        if let (Some(idle), Some(limit)) = (idle.as_mut(), limits.idle) {
            while idle.as_mut().poll(cx).is_ready() {
                let total = counts.received().wrapping_add(counts.sent());
                if total == std::mem::replace(&mut last_total, total) {
                    return Poll::Ready(End::Idle);
                }
                // Checked once per interval rather than at each byte: a connection lives up to twice the limit after its last byte.
                idle.as_mut().reset(Instant::now() + limit);
            }
        }
        Poll::Pending
    })
    .await
}

enum Side {
    Reading,
    Writing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Passing,
    /// The source ended; what is buffered goes out, then the sink is told.
    Ending,
    Done,
}

struct Direction {
    state: State,
    buffer: Option<Box<[u8]>>,
    size: usize,
    start: usize,
    end: usize,
    unflushed: bool,
}

impl Direction {
    fn new(size: usize) -> Self {
        Self {
            state: State::Passing,
            buffer: None,
            size: size.max(1),
            start: 0,
            end: 0,
            unflushed: false,
        }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &AtomicU64,
    ) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.start < self.end {
                ready!(self.write(cx, to, count)).map_err(|_| Side::Writing)?;
                continue;
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    // A sink that is gone already needs no telling.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Done;
                }
                State::Passing => match self.read(cx, from) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Reading)),
                    Poll::Pending => {
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Side::Writing)?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    fn read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<io::Result<()>> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| spare(self.size));
        let mut space = ReadBuf::new(&mut buffer);
        let read = Pin::new(from).poll_read(cx, &mut space);
        let length = space.filled().len();
        match read {
            Poll::Ready(Ok(())) if length > 0 => {
                (self.start, self.end) = (0, length);
                self.buffer = Some(buffer);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                give_back(buffer);
                self.state = State::Ending;
                Poll::Ready(Ok(()))
            }
            // A TLS peer that closes without saying so; what comes after the last byte is the affair of the protocol inside.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                give_back(buffer);
                self.state = State::Ending;
                Poll::Ready(Ok(()))
            }
            other => {
                give_back(buffer);
                other
            }
        }
    }

    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        count: &AtomicU64,
    ) -> Poll<io::Result<()>> {
        let data = self
            .buffer
            .as_deref()
            .and_then(|buffer| buffer.get(self.start..self.end))
            .unwrap_or_default();
        let written = ready!(Pin::new(to).poll_write(cx, data))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        count.fetch_add(written as u64, Ordering::Relaxed);
        self.start += written;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}

fn spare(size: usize) -> Box<[u8]> {
    SPARE
        .with_borrow_mut(|spare| spare.pop().filter(|buffer| buffer.len() == size))
        .unwrap_or_else(|| vec![0; size].into())
}

fn give_back(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMITS: Limits = Limits {
        buffer_bytes: 16,
        idle: None,
        longest: None,
    };

    #[tokio::test]
    async fn one_direction_may_end_before_the_other() {
        let (mut client, downstream) = duplex(64);
        let (mut server, upstream) = duplex(64);
        let counts = Counts::default();
        let copying = both(downstream, upstream, &counts, &LIMITS);
        let talking = async {
            client
                .write_all(b"all that I have to say is longer than a buffer")
                .await
                .unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            server.write_all(b"heard").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            (heard.len(), answer)
        };
        let (end, (heard, answer)) = tokio::join!(copying, talking);
        assert_eq!(
            (end, heard, &*answer),
            (End::Complete(Peer::Downstream), 46, &b"heard"[..])
        );
        assert_eq!((counts.received(), counts.sent()), (46, 5));
    }

    #[tokio::test]
    async fn silence_ends_it() {
        let (_client, downstream) = duplex(64);
        let (_server, upstream) = duplex(64);
        let limits = Limits {
            idle: Some(Duration::from_millis(20)),
            ..LIMITS
        };
        let end = both(downstream, upstream, &Counts::default(), &limits).await;
        assert_eq!(end, End::Idle);
    }
}
