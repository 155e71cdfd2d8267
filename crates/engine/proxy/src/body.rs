//! Bodies as they pass through: frames are moved, never gathered, except for what a retry may have
//! to send again.
//!
//! [`RequestSource`] owns the downstream's body; each attempt gets a [`RequestBody`] that first
//! plays what earlier attempts already took and then goes on reading. What was taken is kept only
//! while a retry is possible and only up to a limit; beyond it retries are off, as in Envoy. Frames
//! are reference-counted, so keeping one copies nothing.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use stdx::Clock;
use tokio::{sync::mpsc, time::Sleep};

use crate::grpc::Messages;

/// Any error of a body, as hyper wants it.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The downstream's request body and how far it got.
#[derive(Clone)]
pub struct RequestSource(Option<Arc<Mutex<Source>>>);

/// How a request's body is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Bytes that may be kept for retries.
    pub keep_limit: usize,
    /// It is a gRPC call.
    pub counts_messages: bool,
    /// The codec reports a stream that was reset without an error as one that ended.
    pub is_http2: bool,
}

/// Shared by the attempts of one request.
pub struct Source {
    /// `None`: nobody reads the rest.
    incoming: Option<Incoming>,
    /// Frames that were read so far, while they may be needed again.
    kept: Vec<Kept>,
    kept_bytes: usize,
    reading: Reading,
    keeps: bool,
    bytes: u64,
    messages: Messages,
    ended: Option<Instant>,
    failed: bool,
    /// Who waits for the end.
    waker: Option<Waker>,
    /// Who waits for the next frame.
    reader: Option<Waker>,
    copies: Vec<mpsc::Sender<Copied>>,
    clock: Arc<dyn Clock>,
    gate: Option<Gate>,
}

/// What a mirror is told. A channel that closes without `End` means that the copy is not whole.
pub enum Copied {
    Data(Bytes),
    End,
}

enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// Holds the body back until the upstream asked for it (`expect: 100-continue`), but no longer than
/// its patience.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<GateState>>);

struct GateState {
    open: bool,
    patience: Duration,
    /// From when the body was first asked for.
    sleep: Option<Pin<Box<Sleep>>>,
    waker: Option<Waker>,
}

impl Gate {
    /// Opens by itself when the body has been asked for this long ago.
    pub fn new(patience: Duration) -> Self {
        Self(Arc::new(Mutex::new(GateState {
            open: false,
            patience,
            sleep: None,
            waker: None,
        })))
    }

    pub fn open(&self) {
        let mut state = self.0.lock();
        state.open = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        let patience = state.patience;
        let sleep = state
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if sleep.as_mut().poll(cx).is_ready() {
            state.open = true;
        }
        if state.open {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl RequestSource {
    pub fn new(incoming: Incoming, reading: Reading, clock: Arc<dyn Clock>) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Source {
            incoming: Some(incoming),
            kept: Vec::new(),
            kept_bytes: 0,
            reading,
            keeps: false,
            bytes: 0,
            messages: Messages::default(),
            ended: None,
            failed: false,
            waker: None,
            reader: None,
            copies: Vec::new(),
            clock,
            gate: None,
        }))))
    }

    /// A request without a body.
    pub fn empty() -> Self {
        Self(None)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// From now on frames are kept, so that another attempt can be made.
    pub fn keep(&self) {
        if let Some(source) = &self.0 {
            source.lock().keeps = true;
        }
    }

    /// Nothing needs to be kept any more.
    pub fn stop_keeping(&self) {
        if let Some(source) = &self.0 {
            let mut source = source.lock();
            source.keeps = false;
            source.kept = Vec::new();
        }
    }

    /// Whether another attempt could send the whole body.
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let source = source.lock();
            !source.failed && (source.keeps || source.bytes == 0)
        })
    }

    /// The body for one attempt. A gate holds it back until it opens.
    pub fn attempt(&self, gate: Option<Gate>) -> RequestBody {
        if let (Some(source), Some(gate)) = (&self.0, gate) {
            source.lock().gate = Some(gate);
        }
        match &self.0 {
            None => RequestBody::Empty,
            Some(source) => RequestBody::Attempt {
                source: source.clone(),
                at: 0,
            },
        }
    }

    /// A copy of all data from the start on, for a mirror. Call it before the first attempt. A
    /// reader that falls behind by more than
    /// `frames` loses the copy.
    pub fn copy(&self, frames: usize) -> RequestBody {
        match &self.0 {
            None => RequestBody::Empty,
            Some(source) => {
                let (sender, receiver) = mpsc::channel(frames.max(1));
                source.lock().copies.push(sender);
                RequestBody::Copy {
                    receiver,
                    done: false,
                }
            }
        }
    }

    /// The answer is complete: what is left of the request is neither read nor sent. An attempt
    /// that still sends it breaks off.
    pub fn abandon(&self) {
        if let Some(source) = &self.0 {
            let mut source = source.lock();
            if source.ended.is_none() {
                source.incoming = None;
                if let Some(reader) = source.reader.take() {
                    reader.wake();
                }
            }
        }
    }

    /// Body bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |source| source.lock().bytes)
    }

    /// Changes whenever something of the request came.
    pub fn progress(&self) -> (u64, bool) {
        self.0.as_ref().map_or((0, true), |source| {
            let source = source.lock();
            (source.bytes, source.ended.is_some())
        })
    }

    /// When the last byte of the body was read; a request without a body ended at once.
    pub fn ended(&self, started: Instant) -> Option<Instant> {
        match &self.0 {
            None => Some(started),
            Some(source) => source.lock().ended,
        }
    }

    /// Whether the downstream broke off in the body.
    pub fn has_failed(&self) -> bool {
        self.0.as_ref().is_some_and(|source| source.lock().failed)
    }

    /// Resolves when the whole request was read.
    pub async fn complete(&self) {
        std::future::poll_fn(|cx| self.poll_complete(cx)).await;
    }

    /// As [`RequestSource::complete`]; the last waker given is woken.
    pub fn poll_complete(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(source) = &self.0 else {
            return Poll::Ready(());
        };
        let mut source = source.lock();
        if source.ended.is_some() {
            return Poll::Ready(());
        }
        source.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// gRPC messages read so far.
    pub fn messages(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |source| source.lock().messages.count())
    }
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &self.gate {
            match gate.poll_open(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.gate = None,
            }
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Some(Err("the request was answered before its end".into())));
        };
        let next = match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Pending => {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(next) => next,
        };
        let is_last = incoming.is_end_stream();
        match next {
            Some(Ok(frame)) => {
                self.took(&frame);
                if is_last || frame.is_trailers() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.failed = true;
                self.copies.clear();
                Poll::Ready(Some(Err(error.into())))
            }
            None if self.reading.is_http2 && !is_last => {
                self.failed = true;
                self.copies.clear();
                Poll::Ready(Some(Err("the request was reset before its end".into())))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn took(&mut self, frame: &Frame<Bytes>) {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.bytes += length as u64;
        if let Some(data) = frame.data_ref() {
            if self.reading.counts_messages {
                self.messages.feed(data);
            }
            self.copies
                .retain(|copy| copy.try_send(Copied::Data(data.clone())).is_ok());
        }
        if !self.keeps {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(length);
        if self.kept_bytes > self.reading.keep_limit {
            self.keeps = false;
            self.kept = Vec::new();
        } else if let Some(data) = frame.data_ref() {
            self.kept.push(Kept::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(self.clock.now());
            for copy in self.copies.drain(..) {
                // A mirror that fell behind finds its channel closed without an end.
                let _ = copy.try_send(Copied::End);
            }
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// The request body of one attempt, or of a mirrored request.
pub enum RequestBody {
    Empty,
    /// Of a request of the proxy's own, whole.
    Full(Option<Bytes>),
    /// `at`: the next kept frame to play.
    Attempt {
        source: Arc<Mutex<Source>>,
        at: usize,
    },
    Copy {
        receiver: mpsc::Receiver<Copied>,
        done: bool,
    },
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "RequestBody::Empty",
            Self::Full(_) => "RequestBody::Full",
            Self::Attempt { .. } => "RequestBody::Attempt",
            Self::Copy { .. } => "RequestBody::Copy",
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Attempt { source, at } => {
                let mut source = source.lock();
                if let Some(kept) = source.kept.get(*at) {
                    *at += 1;
                    return Poll::Ready(Some(Ok(match kept {
                        Kept::Data(data) => Frame::data(data.clone()),
                        Kept::Trailers(trailers) => Frame::trailers(trailers.clone()),
                    })));
                }
                if source.ended.is_some() {
                    return Poll::Ready(None);
                }
                let next = source.poll_next(cx);
                if next.is_ready() && source.keeps {
                    *at = source.kept.len();
                }
                next
            }
            Self::Copy { done: true, .. } => Poll::Ready(None),
            Self::Copy { receiver, done } => match receiver.poll_recv(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Copied::Data(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Poll::Ready(Some(Copied::End)) => {
                    *done = true;
                    Poll::Ready(None)
                }
                Poll::Ready(None) => Poll::Ready(Some(Err("the copied request broke off".into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) | Self::Copy { done: true, .. } => true,
            Self::Attempt { source, at } => {
                let source = source.lock();
                source.ended.is_some() && *at >= source.kept.len()
            }
            Self::Full(Some(_)) | Self::Copy { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // An exact length would make hyper tell it, in HTTP/2 too, where the stream's end does.
            Self::Empty => SizeHint::default(),
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Attempt { source, at: 0 } => {
                let source = source.lock();
                // Only of an untouched body is the declared length that of what will be sent.
                match &source.incoming {
                    Some(incoming) if source.bytes == 0 => incoming.size_hint(),
                    _ => SizeHint::default(),
                }
            }
            Self::Attempt { .. } | Self::Copy { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
