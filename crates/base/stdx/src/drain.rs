//! The signal to finish: take no new work, end what is under way.
//!
//! [`channel`] gives a [`DrainTrigger`] for the owner and a [`Drain`] to clone into tasks. Works
//! without a runtime:
//! `Drain` is a future for any executor and can also be asked. Dropping the trigger starts the drain too, so a task
//! cannot outlive an owner that went away.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Makes a trigger and the signal that it sets.
pub fn channel() -> (DrainTrigger, Drain) {
    let shared = Arc::new(Shared::default());
    (DrainTrigger(shared.clone()), Drain { shared, slot: None })
}

/// Starts the drain, once.
#[derive(Debug)]
pub struct DrainTrigger(Arc<Shared>);

/// Resolves when the drain has started. Clone it for each task that must listen.
#[derive(Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    slot: Option<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    started: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Debug, Default)]
struct Wakers {
    next: u64,
    waiting: Vec<(u64, Waker)>,
}

impl DrainTrigger {
    /// Starts the drain; later calls change nothing.
    pub fn start(&self) {
        self.0.start();
    }

    /// Another signal of the same drain.
    pub fn subscribe(&self) -> Drain {
        Drain {
            shared: self.0.clone(),
            slot: None,
        }
    }
}

impl Drop for DrainTrigger {
    fn drop(&mut self) {
        self.0.start();
    }
}

impl Shared {
    fn start(&self) {
        self.started.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut self.wakers.lock().waiting);
        for (_, waker) in waiting {
            waker.wake();
        }
    }
}

impl Drain {
    /// Whether the drain has started.
    pub fn has_started(&self) -> bool {
        self.shared.started.load(Ordering::Acquire)
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            slot: None,
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.shared
                .wakers
                .lock()
                .waiting
                .retain(|(id, _)| *id != slot);
        }
    }
}

impl Future for Drain {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_started() {
            return Poll::Ready(());
        }
        let shared = self.shared.clone();
        let mut wakers = shared.wakers.lock();
        // The trigger takes the list under this lock after it has set the flag, so a start in
        // between is seen here.
        if self.has_started() {
            return Poll::Ready(());
        }
        let slot = *self.slot.get_or_insert_with(|| {
            wakers.next += 1;
            wakers.next
        });
        match wakers.waiting.iter_mut().find(|(id, _)| *id == slot) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => wakers.waiting.push((slot, context.waker().clone())),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn start_wakes_every_listener_once_and_stays() {
        let (trigger, mut first) = channel();
        let mut second = first.clone();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut first).poll(&mut context).is_pending());
        assert!(Pin::new(&mut first).poll(&mut context).is_pending());
        assert!(Pin::new(&mut second).poll(&mut context).is_pending());
        trigger.start();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(Pin::new(&mut first).poll(&mut context).is_ready());
        assert!(trigger.subscribe().has_started());
    }

    #[test]
    fn a_dropped_listener_leaves_no_waker_and_a_dropped_trigger_drains() {
        let (trigger, drain) = channel();
        let waker = Waker::from(Arc::new(Count::default()));
        let mut listener = drain.clone();
        assert!(
            Pin::new(&mut listener)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(drain.shared.wakers.lock().waiting.len(), 1);
        drop(listener);
        assert_eq!(drain.shared.wakers.lock().waiting.len(), 0);
        drop(trigger);
        assert!(drain.has_started());
    }
}
